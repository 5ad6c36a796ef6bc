// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What theory says of rounding numbers of the normal distribution N(0, 1): the least mean squared error of any code of R bits a
/// number (the distortion-rate function, Shannon), of scalar quantisers of L levels, the best (Lloyd 1957, Max 1960) and the
/// best with equal steps, and of blocks of numbers that share a scale, which their largest magnitude or their extremes set: a
/// block of n numbers is its largest, whose distribution is known, and n - 1 that are normal but for not exceeding it.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <numbers>
#include <utility>
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

/// What numbers become: those between edge i - 1 and edge i value i. Numbers are divided by one scale when they are compared with
/// edges, and values multiplied by another: most formats have one for both, GGUF's compare before the scale is rounded.
struct cells {
    std::vector<double> edges;
    std::vector<double> values;
};
struct scales {
    double edges;
    double values;
};

/// Each number becomes the nearest of some values.
inline cells nearest(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    cells c;
    for (std::size_t i = 0; i + 1 < values.size(); ++i) c.edges.push_back(0.5 * (values[i] + values[i + 1]));
    c.values = std::move(values);
    return c;
}
inline cells integers(int low, int high) {
    std::vector<double> values;
    for (int i = low; i <= high; ++i) values.push_back(i);
    return nearest(std::move(values));
}

namespace detail {

/// P(|x| <= m), and P(x <= m).
inline double within(double m) { return std::erf(m / std::numbers::sqrt2); }
inline double below(double m) { return 0.5 * std::erfc(-m / std::numbers::sqrt2); }

/// The integral of (x - its value)^2 over x in [low, high].
inline double error_between(cells const& c, scales const& s, double low, double high) {
    double sum = 0;
    double a = low;
    for (std::size_t i = 0; i < c.values.size() && a < high; ++i) {
        double const edge = i < c.edges.size() ? s.edges * c.edges[i] : high;
        double const b = std::min(edge, high);
        if (b <= a) continue;
        double const value = s.values * c.values[i];
        double const p = below(b) - below(a);
        double const first = density(a) - density(b);
        double const second = p + a * density(a) - b * density(b);
        sum += second - 2 * value * first + value * value * p;
        a = b;
    }
    return sum;
}
inline double error_at(cells const& c, scales const& s, double x) {
    auto const i = std::upper_bound(c.edges.begin(), c.edges.end(), x / s.edges) - c.edges.begin();
    double const e = x - s.values * c.values[static_cast<std::size_t>(i)];
    return e * e;
}

/// The x below `high` where an increasing function is y.
inline double inverse(double y, double low, double high, std::function<double(double)> const& f) {
    for (int i = 0; i < 45; ++i) {
        double const middle = 0.5 * (low + high);
        (f(middle) < y ? low : high) = middle;
    }
    return 0.5 * (low + high);
}

} // namespace detail

/// A scale as a function of the block's largest magnitude.
using scale_rule = std::function<scales(double)>;
/// Which of both signs the largest magnitude has: Q4_0's blocks are turned so that it is the most negative code.
enum class largest { of_either_sign, negative };

/// The error of numbers in blocks of n whose largest magnitude m sets the scale, none of them above `most`: the mean over `steps`
/// equally likely m.
inline double block_error(cells const& c, double n, scale_rule const& scale_of, largest sign = largest::of_either_sign,
                          double most = std::numeric_limits<double>::infinity(), int steps = 1000) {
    double const all = std::min(most, 9.0);
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
        double const m = detail::inverse(std::pow((i + 0.5) / steps, 1 / n) * detail::within(all), 0, all, detail::within);
        scales const s = scale_of(m);
        double const at_low = detail::error_at(c, s, -m);
        double const at_high = sign == largest::negative ? at_low : detail::error_at(c, s, m);
        sum += (n - 1) * detail::error_between(c, s, -m, m) / detail::within(m) + 0.5 * (at_low + at_high);
    }
    return sum / (n * steps);
}

/// The same where the `rank`-th smallest of n magnitudes sets the scale, m: rank - 1 numbers lie below it, n - rank beyond.
inline double order_statistic_error(cells const& c, int n, int rank, scale_rule const& scale_of) {
    constexpr double step = 1e-3;
    double const choices = std::lgamma(n + 1.0) - std::lgamma(static_cast<double>(rank)) - std::lgamma(n - rank + 1.0);
    double sum = 0;
    for (double m = step / 2; m < 9; m += step) {
        double const inside = detail::within(m);
        double const outside = 2 * detail::above(m);
        double const p = 2 * detail::density(m) * step *
                         std::exp(choices + (rank - 1) * std::log(inside) + (n - rank) * std::log(outside));
        if (p < 1e-16) continue;
        scales const s = scale_of(m);
        double const beyond = detail::error_between(c, s, -9, -m) + detail::error_between(c, s, m, 9);
        sum += p * ((rank - 1) * detail::error_between(c, s, -m, m) / inside + (n - rank) * beyond / outside +
                    0.5 * (detail::error_at(c, s, -m) + detail::error_at(c, s, m)));
    }
    return sum / n;
}

/// The same where scales of blocks of n stand under a super scale of N numbers: `scale_of(M)` is the rule under the largest of N.
inline double two_level_error(cells const& c, double n, double N, std::function<scale_rule(double)> const& scale_of) {
    constexpr int steps = 60;
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
        double const most = detail::inverse(std::pow((i + 0.5) / steps, 1 / N), 0, 9, detail::within);
        scale_rule const rule = scale_of(most);
        // The block that has the largest of all, and the others.
        scales const s = rule(most);
        double const own = (n - 1) * detail::error_between(c, s, -most, most) / detail::within(most) +
                           0.5 * (detail::error_at(c, s, -most) + detail::error_at(c, s, most));
        sum += (own + (N - n) * block_error(c, n, rule, largest::of_either_sign, most, 100)) / N;
    }
    return sum / steps;
}

/// The error of numbers in blocks of n whose least and largest, a and b, set a scale and an offset: `cells_of(a, b)` are those of
/// the block's numbers themselves.
inline double affine_error(double n, std::function<cells(double, double)> const& cells_of) {
    constexpr int steps = 60;
    double sum = 0;
    for (int i = 0; i < steps; ++i) {
        double const b = detail::inverse(std::pow((i + 0.5) / steps, 1 / n), -9, 9, detail::below);
        for (int j = 0; j < steps; ++j) { // of n - 1 numbers below b none is below a
            double const above_a = std::pow((j + 0.5) / steps, 1 / (n - 1)) * detail::below(b);
            double const a = detail::inverse(detail::below(b) - above_a, -9, b, detail::below);
            cells const c = cells_of(a, b);
            sum += ((n - 2) * detail::error_between(c, {1, 1}, a, b) / above_a + detail::error_at(c, {1, 1}, a) +
                    detail::error_at(c, {1, 1}, b)) / n;
        }
    }
    return sum / (steps * steps);
}

/// By how much more than 1 numbers of p coordinates of a point on the sphere of radius sqrt(g) in g dimensions are as likely as
/// those of N(0, 1), `square` being the sum of their squares: what rotating g numbers of a known norm leaves.
inline double sphere_excess(double p, double g, double square) {
    if (square >= g) return -1;
    return std::expm1(std::lgamma(0.5 * g) - std::lgamma(0.5 * (g - p)) + 0.5 * p * std::log(2 / g) +
                      0.5 * (g - p - 2) * std::log1p(-square / g) + 0.5 * square);
}

} // namespace rate_distortion
