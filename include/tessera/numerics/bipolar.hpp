// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Bipolar integers: the odd numbers -(2^b - 1), ..., -1, 1, ..., 2^b - 1, a grid without zero. A code u has the bits of
///
///     x = 2 u - (2^b - 1) = sum over i of 2^i (2 bit_i - 1)
///
/// so that a product of two such numbers is a sum of products of signs: xor or and, then popcount. Two's complement q of the
/// same width is u with its highest bit flipped, and x = 2 q + 1. Source: arXiv:2409.17870 (bipolar-INT).
///
/// Encoding is odd but for zeros, which become 1: the code of -x is the complement of that of x. Ties (the even numbers) go to
/// the neighbour whose magnitude is 1 modulo 4 (`nearest_even`: every other one, as with mantissas) or to the larger one
/// (`half_away`). There is no zero to be had: `toward_zero` ends at 1 and -1, and where a block of weights is zeros, its scale is.

#include "../core/macros.hpp"
#include "float_card.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// The format of the file comment. Saturates; NaN becomes 1.
template <int Bits>
struct bipolar {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: bipolar<Bits>: needs 1 to 8 bits");

    static constexpr int bits = Bits;
    static constexpr char name_text[] = {'b', 'i', 'p', 'o', 'l', 'a', 'r', char('0' + Bits), '\0'};
    static constexpr char const* name = name_text;
    static constexpr int max_value = (1 << Bits) - 1;
    static constexpr float max_magnitude = static_cast<float>(max_value);
    /// Not a contiguous range of integers, which is what kernels take `is_integer` for.
    static constexpr bool is_integer = false;

    /// The value of a code; bits above the format's are ignored.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr int integer(std::uint32_t code) noexcept {
        return 2 * static_cast<int>(code & ((1u << Bits) - 1u)) - max_value;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return static_cast<float>(integer(code));
    }
    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow = overflow::saturate,
           std::uint32_t random = 0) noexcept {
        detail::float_parts const p = detail::take_apart(x);
        if (p.is_nan) return 1u << (Bits - 1);
        double const magnitude = p.negative ? -static_cast<double>(x) : static_cast<double>(x);
        int index = (1 << (Bits - 1)) - 1; // magnitude 2 index + 1
        if (magnitude <= 1) {
            index = 0;
            // Between -1 and 1 the neighbours differ in sign.
            if (mode == rounding::stochastic)
                return static_cast<double>(random) + (static_cast<double>(x) + 1) * 0x1p31 >= 0x1p32 ? 1u << (Bits - 1)
                                                                                                     : (1u << (Bits - 1)) - 1u;
        } else if (magnitude < max_value) {
            detail::float_parts const above = detail::take_apart((magnitude - 1) / 2); // both steps are exact
            index = static_cast<int>(detail::round_shift(above.significand, -above.exponent, mode, random));
        }
        auto const code = static_cast<std::uint32_t>((1 << (Bits - 1)) + index);
        return p.negative && p.significand != 0 ? ~code & ((1u << Bits) - 1u) : code;
    }
};

/// Symmetric integers of one bit: -1 and 1. Their best scale is the mean magnitude of the weights, not the largest: `quantize`
/// finds it with `least_error_range` (quant/range.hpp).
using int1 = bipolar<1>;

static_assert(element_format<int1> && element_format<bipolar<8>>);

} // namespace tessera::inline TESSERA_ABI
