// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Levels of gains, as multiples of the norm of their row.
///
/// For a row of D weights whose direction is uniform on the sphere (what a random rotation makes of it), a group of N has
///
///     |group|^2 / |row|^2 ~ Beta(N / 2, (D - N) / 2)          F, exactly
///
/// * `beta_gain_levels`: level_i = sqrt(F^-1((i + 1/2) / 2^b)): equally probable, and no data is needed. Not the least error:
///   1.6 times Lloyd-Max's with 3 bits and N = 16.
/// * `lloyd_max`: levels of the least squared error for given numbers: each is the mean of the numbers that are nearest to it
///   (Lloyd 1957, Max 1960). Of numbers drawn from F, or of the gains of a matrix themselves.
///
/// Encoders take the nearest level.

#include "../core/types.hpp"
#include "kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// ln Gamma(twice / 2) for a positive integer `twice`.
inline double log_gamma_of_half(index_t twice) noexcept {
    double result = twice % 2 == 0 ? 0.0 : 0.57236494292470008707; // ln sqrt(pi)
    for (double factor = twice % 2 == 0 ? 1.0 : 0.5; factor < 0.5 * static_cast<double>(twice) - 0.25; factor += 1.0)
        result += std::log(factor);
    return result;
}

/// The continued fraction of the incomplete beta function (Abramowitz and Stegun 26.5.8), by Lentz's method.
inline double beta_fraction(double a, double b, double x) noexcept {
    constexpr double tiny = 1e-300;
    double c = 1;
    double d = 1 - (a + b) * x / (a + 1);
    d = 1 / (std::fabs(d) < tiny ? tiny : d);
    double result = d;
    for (int m = 1; m <= 1000; ++m) {
        double const even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double const odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        double change = 1;
        for (double const term : {even, odd}) {
            d = 1 + term * d;
            c = 1 + term / c;
            d = 1 / (std::fabs(d) < tiny ? tiny : d);
            c = std::fabs(c) < tiny ? tiny : c;
            change = c * d;
            result *= change;
        }
        if (std::fabs(change - 1) < 1e-16) break;
    }
    return result;
}

} // namespace detail

/// The distribution Beta(twice_a / 2, twice_b / 2), of positive integers.
class beta_distribution {
public:
    beta_distribution(index_t twice_a, index_t twice_b) noexcept
        : a_{0.5 * static_cast<double>(twice_a)}, b_{0.5 * static_cast<double>(twice_b)},
          log_beta_{detail::log_gamma_of_half(twice_a) + detail::log_gamma_of_half(twice_b) -
                    detail::log_gamma_of_half(twice_a + twice_b)} {}

    /// The probability of at most x.
    double operator()(double x) const noexcept {
        if (x <= 0) return 0;
        if (x >= 1) return 1;
        double const front = std::exp(a_ * std::log(x) + b_ * std::log1p(-x) - log_beta_);
        return x < (a_ + 1) / (a_ + b_ + 2) ? front * detail::beta_fraction(a_, b_, x) / a_
                                            : 1 - front * detail::beta_fraction(b_, a_, 1 - x) / b_;
    }

    /// The x of a probability, by bisection of [low, 1].
    double quantile(double probability, double low = 0) const noexcept {
        double high = 1;
        while (high - low > 1e-14 * high) {
            double const middle = 0.5 * (low + high);
            if (middle <= low || middle >= high) break;
            ((*this)(middle) < probability ? low : high) = middle;
        }
        return 0.5 * (low + high);
    }

private:
    double a_;
    double b_;
    double log_beta_;
};

/// out[i] = sqrt(F^-1((i + 1/2) / count)), ascending; 1 where a group is its row (n >= d).
inline void beta_gain_levels(index_t n, index_t d, index_t count, double* out) noexcept {
    if (n >= d) {
        for (index_t i = 0; i < count; ++i) out[i] = 1;
        return;
    }
    beta_distribution const law{n, d - n};
    double square = 0;
    for (index_t i = 0; i < count; ++i) {
        square = law.quantile((static_cast<double>(i) + 0.5) / static_cast<double>(count), 0.999 * square);
        out[i] = std::sqrt(square);
    }
}

/// levels[0 .. count) of the least squared error for `size` > 0 ascending numbers, from quantiles on. Throws std::bad_alloc.
inline void lloyd_max(double const* sorted, index_t size, index_t count, double* levels) {
    auto const found = detail::lloyd_from_quantiles({sorted, size}, count, 1000);
    std::copy(found.centroid.begin(), found.centroid.end(), levels);
}

} // namespace tessera::inline TESSERA_ABI
