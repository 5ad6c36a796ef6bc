// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Which interval of weights a block's scale covers: an argument of `quantize`. What lies outside becomes the interval's
/// end (saturates), what lies inside is rounded the finer the narrower the interval is. With w the block, [low, high] the
/// interval of its extremes and 0, q(w; r) the weights that the nearest codes stand for when r is covered:
///
/// * `min_max_range`      r = [low, high]: nothing saturates.
/// * `percentile_range`   Symmetric schemes: the ceil(p n)-th smallest |w|, with both signs. Affine ones: from the order
///                        statistic floor((1 - p) / 2 (n - 1)) to ceil((1 + p) / 2 (n - 1)), counted from 0, and 0.
/// * `least_error_range`  Of r = [low, high] s i / G, i = 1 .. G, the one with the least sum of (w - q(w; r))^2; the widest of equals.
///                        s = 1 unless told: ranges wider than the weights leave the highest levels unused, which pays where these
///                        are far apart (e2m1 goes from 4 to 6: s = 1.5 lets the largest weight become a 4 as well).
/// * `lloyd_max_range`    Lloyd's iteration of the scale: r <- r t, t = sum w q(w; r) / sum q(w; r)^2, the scale of least squared
///                        error for the codes that r gave; from [low, high], until t is 1 to 2^-12 or as often as asked. Of
///                        all r on the way that with the least squared error.
///
/// q rounds the scale to its stored type first (under a super scale, which is not chosen yet, to float32), and sums are of
/// doubles, in sixteen parts (weight i in part i mod 16) that are added in order: every backend chooses the same.
///
/// An interval of your own is a type with a member like `min_max_range::choose`, and perhaps one like `percentile_range::check`,
/// which `quantize` asks at its door.
///
/// `lloyd_max_levels` trains the table of a codebook: Lloyd's algorithm on numbers.
///
/// Sources: "A White Paper on Neural Network Quantization", arXiv:2106.08295, section 3.1; Lloyd, "Least squares quantization
/// in PCM", 1982; Max, "Quantizing for minimum distortion", 1960.

#include "../core/error.hpp"
#include "../kernels/ref/quantize.hpp"
#include "kmeans.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Sums over a block of weights w that were rounded to q.
struct rounding_sums {
    double error = 0;  ///< of (w - q)^2
    double cross = 0;  ///< of w q
    double square = 0; ///< of q^2
};

/// What a range is chosen from: finite weights, not all 0.
struct range_question {
    std::span<float const> weights;
    weight_range extremes;
    bool is_affine = false;
    std::span<float> scratch; ///< as many as weights
};

/// All of it: from the smallest weight to the largest.
struct min_max_range {
    /// The interval to cover; round(r) -> rounding_sums says what covering r would do.
    template <class Round>
    weight_range choose(range_question const& block, Round const&) const noexcept {
        return block.extremes;
    }
};

/// The middle `fraction` of the weights.
struct percentile_range {
    double fraction = 0.999; ///< 0 to 1

    /// @throws unsupported_error for another fraction
    void check() const {
        if (!(fraction >= 0 && fraction <= 1))
            detail::raise<unsupported_error>("tessera: quantize: fraction of percentile_range is " + std::to_string(fraction) +
                                             ", expected 0 to 1");
    }
    template <class Round>
    weight_range choose(range_question const& block, Round const&) const noexcept {
        auto const n = static_cast<double>(block.weights.size());
        auto const last = static_cast<std::ptrdiff_t>(block.weights.size()) - 1;
        auto const order_statistic = [&](double rank) {
            auto const at = block.scratch.begin() + std::clamp(static_cast<std::ptrdiff_t>(rank), std::ptrdiff_t{0}, last);
            std::nth_element(block.scratch.begin(), at, block.scratch.end());
            return *at;
        };
        weight_range r;
        for (std::size_t i = 0; i < block.weights.size(); ++i)
            block.scratch[i] = block.is_affine ? block.weights[i] : std::fabs(block.weights[i]);
        if (block.is_affine) {
            r.include(order_statistic(std::floor((1 - fraction) / 2 * (n - 1))));
            r.include(order_statistic(std::ceil((1 + fraction) / 2 * (n - 1))));
        } else {
            r.include(order_statistic(std::ceil(fraction * n) - 1));
            r.low = -r.high;
        }
        // Where most weights are 0 the percentile may be 0 too, and would round all of them to it.
        return r.magnitude() > 0 ? r : block.extremes;
    }
};

/// The one of `candidates` shares of the min-max interval, or of one `widest` times as wide, with the least squared error.
struct least_error_range {
    int candidates = 64;
    float widest = 1; ///< 1 to 16

    /// @throws shape_error without candidates; unsupported_error for another `widest`
    void check() const {
        check::within("quantize", "candidates of least_error_range", candidates, 1, 1 << 20);
        if (!(widest >= 1 && widest <= 16))
            detail::raise<unsupported_error>("tessera: quantize: widest of least_error_range is " + std::to_string(widest) +
                                             ", expected 1 to 16");
    }
    template <class Round>
    weight_range choose(range_question const& block, Round const& round) const noexcept {
        weight_range best = block.extremes;
        double least = std::numeric_limits<double>::infinity();
        for (int i = candidates; i >= 1; --i) {
            double const share = static_cast<double>(widest * (static_cast<float>(i) / static_cast<float>(candidates)));
            constexpr double largest = std::numeric_limits<float>::max();
            weight_range r;
            r.low = static_cast<float>(std::fmax(static_cast<double>(block.extremes.low) * share, -largest));
            r.high = static_cast<float>(std::fmin(static_cast<double>(block.extremes.high) * share, largest));
            double const error = round(r).error;
            if (error < least) {
                least = error;
                best = r;
            }
        }
        return best;
    }
};

/// Lloyd's iteration of the scale from the min-max interval.
struct lloyd_max_range {
    int iterations = 32; ///< at most

    /// @throws shape_error for a negative number of iterations
    void check() const { check::within("quantize", "iterations of lloyd_max_range", iterations, 0, 1 << 20); }
    template <class Round>
    weight_range choose(range_question const& block, Round const& round) const noexcept {
        weight_range best = block.extremes;
        weight_range r = best;
        double least = std::numeric_limits<double>::infinity();
        for (int i = 0; i <= iterations; ++i) {
            rounding_sums const sums = round(r);
            if (sums.error < least) {
                least = sums.error;
                best = r;
            }
            if (!(sums.square > 0) || !(sums.cross > 0)) break;
            double const t = sums.cross / sums.square;
            if (std::fabs(t - 1) <= 0x1p-12) break;
            constexpr double largest = std::numeric_limits<float>::max();
            r.low = static_cast<float>(std::fmax(static_cast<double>(r.low) * t, -largest));
            r.high = static_cast<float>(std::fmin(static_cast<double>(r.high) * t, largest));
        }
        return best;
    }
};

namespace detail {

/// The shape of `round`, for the concept only.
struct rounding_function {
    rounding_sums operator()(weight_range const& r) const noexcept;
};

/// See the file comment: sums of sixteen parts.
template <class Exec, class Format>
rounding_sums sums_of(std::span<float const> w, weight_grid<Format> const& grid) noexcept {
    constexpr std::size_t parts = 16;
    constexpr std::size_t chunk = 32 * parts;
    alignas(64) float rounded[chunk];
    double error[parts] = {};
    double cross[parts] = {};
    double square[parts] = {};
    for (std::size_t i = 0; i < w.size(); i += chunk) {
        std::size_t const count = std::min(chunk, w.size() - i);
        kernel<op::quantize, Exec, weight_grid<Format>>::round(w.data() + i, static_cast<index_t>(count), grid, rounded);
        for (std::size_t k = 0; k < count; k += parts) // the whole parts' loop has a fixed length: vectors
            for (std::size_t j = 0; j < (count - k < parts ? count - k : parts); ++j) {
                double const a = w[i + k + j];
                double const b = rounded[k + j];
                error[j] += (a - b) * (a - b);
                cross[j] += a * b;
                square[j] += b * b;
            }
    }
    rounding_sums sums;
    for (std::size_t j = 0; j < parts; ++j) {
        sums.error += error[j];
        sums.cross += cross[j];
        sums.square += square[j];
    }
    return sums;
}

} // namespace detail

/// One of the intervals above, or another type with such a member.
template <class R>
concept range_policy = requires(R const& r, range_question const& block, detail::rounding_function const& round) {
    { r.choose(block, round) } -> std::same_as<weight_range>;
};

/// Levels of least squared error for numbers, by Lloyd's algorithm: from the quantiles (2 i + 1) / (2 L), each level becomes
/// the mean of the numbers that are nearest to it (of two equally near ones to the lower), until no number changes its level. A
/// level without numbers stays. Returns the mean squared error. O(n log n + iterations L log n).
/// @throws shape_error without numbers or levels; unsupported_error for numbers that are not finite
inline double lloyd_max_levels(std::span<float const> numbers, // (n)
                               std::span<float> levels,        // (L), ascending afterwards
                               int iterations = 1000) {
    auto const n = static_cast<index_t>(numbers.size());
    check::within("lloyd_max_levels", "numbers", n, 1, index_t{1} << 48);
    check::within("lloyd_max_levels", "levels", static_cast<index_t>(levels.size()), 1, index_t{1} << 16);
    for (float const x : numbers)
        if (!(std::fabs(x) <= std::numeric_limits<float>::max()))
            detail::raise<unsupported_error>("tessera: lloyd_max_levels: a number is infinite or NaN, expected finite ones");
    std::vector<double> x(numbers.begin(), numbers.end());
    std::sort(x.begin(), x.end());
    auto const found = detail::lloyd_from_quantiles({x.data(), n}, static_cast<index_t>(levels.size()), iterations);
    double error = 0;
    for (std::size_t i = 0; i < levels.size(); ++i) {
        levels[i] = static_cast<float>(found.centroid[i]);
        for (index_t k = found.edge[i]; k < found.edge[i + 1]; ++k) {
            double const e = x[static_cast<std::size_t>(k)] - static_cast<double>(levels[i]);
            error += e * e;
        }
    }
    return error / static_cast<double>(n);
}

} // namespace tessera::inline TESSERA_ABI
