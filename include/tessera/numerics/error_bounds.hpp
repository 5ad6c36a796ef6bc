// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The constants that error bounds are made of (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
/// sections 2.2 and 3.1), so that every tolerance of a test is computed:
///
///     |fl(x) - x| <= u |x|                              one rounding in the normal range
///     |fl(sum w_i x_i) - sum| <= gamma(k) sum |w_i x_i|   any order of summation; gamma(k) = k u / (1 - k u)

#include "../core/macros.hpp"
#include "../core/types.hpp"
#include "float_card.hpp"
#include "half.hpp"

#include <concepts>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// u: half the gap above 1, relative. Of float, double or any format with a card.
template <class T>
inline constexpr double unit_roundoff = [] {
    if constexpr (std::same_as<T, double>) {
        return 0x1p-53;
    } else if constexpr (requires { T::card.mantissa_bits; }) {
        double u = 0.5;
        for (int i = 0; i < T::card.mantissa_bits; ++i) u /= 2;
        return u;
    } else {
        static_assert(std::same_as<T, float> || std::same_as<T, fp32>,
                      "tessera: unit_roundoff<T>: T must be a float type or a format with a card");
        return 0x1p-24;
    }
}();

/// Relative bound of k roundings; infinite where k u is 1 or more.
[[nodiscard]] constexpr double gamma(index_t k, double u) noexcept {
    double const ku = static_cast<double>(k) * u;
    return ku < 1 ? ku / (1 - ku) : static_cast<double>(detail::infinite(false));
}

/// Bound of |decode(encode(x)) - x| for |x| <= F::max_magnitude (a signed integer: up to its max_value): half the gap
/// between the codes around x. A codebook gives half of its widest gap.
template <element_format F>
[[nodiscard]] constexpr double half_step(float x) noexcept {
    if constexpr (F::is_integer) {
        return 0.5;
    } else if constexpr (requires { F::card.mantissa_bits; }) {
        detail::float_parts const p = detail::take_apart(x);
        int const leading = detail::bit_width(p.significand) - 1 + p.exponent;
        int const lowest = 1 - F::card.bias;
        int const step = (leading > lowest ? leading : lowest) - F::card.mantissa_bits - 1;
        double half = 1;
        for (int i = step; i < 0; ++i) half /= 2;
        for (int i = 0; i < step; ++i) half *= 2;
        return half;
    } else if constexpr (F::bits <= 8) {
        double widest = 0;
        for (std::uint32_t i = 0; i < 1u << F::bits; ++i) {
            double const value = F::decode(i);
            double gap = 2 * static_cast<double>(F::max_magnitude);
            bool has_next = false;
            for (std::uint32_t j = 0; j < 1u << F::bits; ++j) {
                double const distance = F::decode(j) - value;
                if (distance > 0 && distance <= gap) {
                    gap = distance;
                    has_next = true;
                }
            }
            widest = has_next && gap > widest ? gap : widest;
        }
        return widest / 2;
    } else {
        return 0; // float32 stores a float as it is
    }
}

} // namespace tessera::inline TESSERA_ABI
