// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What theory says of rounding numbers of the normal distribution N(0, 1): the least mean squared error of any code of R bits a
/// number (the distortion-rate function, Shannon), and of scalar quantisers of L levels, the best (Lloyd 1957, Max 1960) and the
/// best with equal steps.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numbers>
#include <vector>

namespace rate_distortion {

/// D(R) = 2^(-2 R).
inline double bound(double bits) { return std::exp2(-2 * bits); }

struct quantiser {
    std::vector<double> levels; ///< ascending
    double error = 0;           ///< mean squared error on N(0, 1)
};

namespace detail {

inline double density(double x) { return std::exp(-x * x / 2) / std::sqrt(2 * std::numbers::pi); }
inline double above(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }

/// The cell of a level: between the midpoints to its neighbours.
struct cell {
    double probability;
    double first_moment;
    double error; ///< the integral of (x - level)^2
};

inline cell cell_of(std::vector<double> const& levels, std::size_t i) {
    bool const is_first = i == 0;
    bool const is_last = i + 1 == levels.size();
    double const a = is_first ? 0 : 0.5 * (levels[i - 1] + levels[i]);
    double const b = is_last ? 0 : 0.5 * (levels[i] + levels[i + 1]);
    double const density_a = is_first ? 0 : density(a);
    double const density_b = is_last ? 0 : density(b);
    double const p = (is_first ? 1 : above(a)) - (is_last ? 0 : above(b));
    double const first = density_a - density_b;
    double const second = p + a * density_a - b * density_b;
    return {p, first, second - 2 * levels[i] * first + levels[i] * levels[i] * p};
}

inline double error_of(std::vector<double> const& levels) {
    double sum = 0;
    for (std::size_t i = 0; i < levels.size(); ++i) sum += cell_of(levels, i).error;
    return sum;
}

inline std::vector<double> equal_steps(std::size_t count, double step) {
    std::vector<double> levels(count);
    for (std::size_t i = 0; i < count; ++i) levels[i] = step * (static_cast<double>(i) - 0.5 * static_cast<double>(count - 1));
    return levels;
}

} // namespace detail

/// Levels that are the means of their cells: for a log-concave density there is one such quantiser, and it is the best.
inline quantiser lloyd_max(std::size_t count) {
    quantiser q{detail::equal_steps(count, 6.0 / static_cast<double>(count)), 0};
    double largest = 1;
    for (int i = 0; i < 200000 && largest > 1e-12; ++i) {
        std::vector<double> next(count);
        largest = 0;
        for (std::size_t l = 0; l < count; ++l) {
            detail::cell const c = detail::cell_of(q.levels, l);
            next[l] = c.first_moment / c.probability;
            largest = std::max(largest, std::fabs(next[l] - q.levels[l]));
        }
        q.levels = next;
    }
    q.error = detail::error_of(q.levels);
    return q;
}

/// Levels (i + 1/2) step on both sides of 0, of the best step.
inline quantiser uniform(std::size_t count) {
    double low = 0.001;
    double high = 4;
    for (int i = 0; i < 200; ++i) { // the error has one minimum
        double const left = low + (high - low) / 3;
        double const right = high - (high - low) / 3;
        if (detail::error_of(detail::equal_steps(count, left)) < detail::error_of(detail::equal_steps(count, right)))
            high = right;
        else
            low = left;
    }
    quantiser q{detail::equal_steps(count, 0.5 * (low + high)), 0};
    q.error = detail::error_of(q.levels);
    return q;
}

} // namespace rate_distortion
