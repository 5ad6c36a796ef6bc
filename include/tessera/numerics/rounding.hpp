// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rounding and overflow options of every format, and the one integer routine that all scalar encoders round with.
/// Ties follow IEEE 754-2019, 4.3.1: to the even significand; where the precision is one bit, away from zero.

#include "../core/macros.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// How a value between two neighbours of a format is rounded.
enum class rounding : std::uint8_t {
    nearest_even, ///< to nearest; ties to the even significand (a codebook has none: ties to the lower code)
    half_away,    ///< to nearest; ties away from zero
    toward_zero,  ///< truncation
    stochastic,   ///< floor(|x| / step + random / 2^32) with the caller's 32 random bits: unbiased to 2^-32 of a step
};

/// What becomes of a value that, once rounded as if the format had no end, is above the largest finite one. An infinite
/// input counts as such a value. A format without the code asked for takes the next of infinity, NaN, largest finite.
enum class overflow : std::uint8_t {
    saturate, ///< the largest finite value, with the sign
    nan,      ///< NaN
    infinity, ///< infinity, with the sign
};

namespace detail {

/// __builtin_bit_cast, not std::bit_cast: the latter is no device function.
template <class To, class From>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr To bit_cast(From const& from) noexcept {
    return __builtin_bit_cast(To, from);
}

/// Number of significant bits: 0 for 0, 1 for 1, 2 for 2 and 3.
[[nodiscard]] TESSERA_HOST_DEVICE constexpr int bit_width(std::uint64_t x) noexcept {
    int width = 0;
    for (int step = 32; step > 0; step /= 2) {
        if ((x >> step) != 0) {
            width += step;
            x >>= step;
        }
    }
    return width + static_cast<int>(x);
}

/// significand * 2^-shift as an integer, rounded; significand < 2^62, shift >= 0 (any size).
[[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint64_t
round_shift(std::uint64_t significand, int shift, rounding mode, std::uint32_t random = 0) noexcept {
    if (shift == 0) return significand;
    bool const all_fraction = shift > 63;
    std::uint64_t const kept = all_fraction ? 0 : significand >> shift;
    std::uint64_t const fraction = all_fraction ? significand : significand - (kept << shift);
    bool up = false;
    if (mode == rounding::nearest_even || mode == rounding::half_away) {
        if (!all_fraction) {
            std::uint64_t const half = std::uint64_t{1} << (shift - 1);
            bool const tie_up = mode == rounding::half_away || (kept & 1) != 0;
            up = fraction > half || (fraction == half && tie_up);
        }
    } else if (mode == rounding::stochastic) {
        std::uint64_t const scaled =
            shift <= 32 ? fraction << (32 - shift) : (shift - 32 > 63 ? 0 : fraction >> (shift - 32));
        up = (scaled + random) >> 32 != 0;
    }
    return kept + (up ? 1 : 0);
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
