// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The card of a binary floating-point format of at most 16 bits, and the bit-exact scalar definition of its two
/// conversions, written once for all formats and in integers only: no logarithm, no table, no rounding mode of the
/// machine, no subnormal arithmetic.
///
///     value = (-1)^sign * (exponent == 0 ? mantissa * 2^(1 - bias - M) : (2^M + mantissa) * 2^(exponent - bias - M))
///
/// A code is sign, exponent, mantissa from the high bit down; codes of the unused high bits of a byte are zero. 16-bit
/// formats are stored in the byte order of the machine, which every supported file format has as little-endian.
/// Special codes: IEEE 754 for `ieee`; OCP 8-bit Floating Point 1.0 for `nan_only`; Noune et al. 2022 (arXiv:2206.02915)
/// for `unsigned_zero`; OCP Microscaling 1.0 for `finite`.

#include "../core/macros.hpp"
#include "rounding.hpp"

#include <concepts>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// A format: a set of codes with a value each. `decode` is exact; `encode` gives the code of a nearest value unless told
/// otherwise, and has two more defaulted arguments. Storage schemes need no more than this. A format whose `encode` rounds in
/// another domain than its values' says `static constexpr bool encodes_nearest = false`.
template <class F>
concept element_format = requires(std::uint32_t code, float x, rounding r, overflow o) {
    { F::bits } -> std::convertible_to<int>;
    { F::name } -> std::convertible_to<char const*>;
    { F::max_magnitude } -> std::convertible_to<float>;
    { F::is_integer } -> std::convertible_to<bool>;
    { F::decode(code) }
    noexcept->std::same_as<float>;
    { F::encode(x) }
    noexcept->std::same_as<std::uint32_t>;
    { F::encode(x, r, o, code) }
    noexcept->std::same_as<std::uint32_t>;
};

namespace detail {

template <class F>
inline constexpr bool encodes_nearest = [] {
    if constexpr (requires { F::encodes_nearest; })
        return bool{F::encodes_nearest};
    else
        return true;
}();

} // namespace detail

/// Which codes of a floating-point format are not finite numbers.
enum class specials : std::uint8_t {
    ieee,          ///< highest exponent: infinity (mantissa 0) and NaN
    nan_only,      ///< "fn": all ones is NaN; no infinity
    unsigned_zero, ///< "fnuz": the code of -0 is NaN; no infinity, one zero
    finite,        ///< numbers only; NaN becomes a zero of inverted sign, as in ml_dtypes
};

/// Everything there is to know about a floating-point format. Codes are those of the positive value.
struct float_card {
    int bits;
    int exponent_bits;
    int mantissa_bits;
    int bias;
    bool is_signed;
    specials special_codes;
    bool has_infinity;
    bool has_nan;
    bool has_negative_zero;
    std::uint32_t max_code;
    std::uint32_t infinity_code; ///< meaningful when has_infinity
    std::uint32_t nan_code;      ///< the NaN that encode gives; meaningful when has_nan
    float max_finite;
    float smallest_normal;    ///< 0 when all numbers are subnormal
    float smallest_subnormal; ///< the smallest positive value; equals smallest_normal when there are no subnormals
    rounding default_rounding;
    overflow default_overflow;
};

namespace detail {

/// (-1)^negative * integer * 2^exponent, which must be a float; integer < 2^24.
[[nodiscard]] TESSERA_HOST_DEVICE constexpr float exact_float(bool negative, std::uint32_t integer,
                                                              int exponent) noexcept {
    std::uint32_t const sign = negative ? 0x80000000u : 0u;
    if (integer == 0) return bit_cast<float>(sign);
    int const leading = bit_width(integer) - 1;
    if (leading + exponent < -126) return bit_cast<float>(sign | integer << (exponent + 149));
    std::uint32_t const field = static_cast<std::uint32_t>(leading + exponent + 127);
    return bit_cast<float>(sign | field << 23 | ((integer << (23 - leading)) & 0x7fffffu));
}

[[nodiscard]] TESSERA_HOST_DEVICE constexpr float quiet_nan(bool negative) noexcept {
    return bit_cast<float>(negative ? 0xffc00000u : 0x7fc00000u);
}

[[nodiscard]] TESSERA_HOST_DEVICE constexpr float infinite(bool negative) noexcept {
    return bit_cast<float>(negative ? 0xff800000u : 0x7f800000u);
}

/// Value of a finite magnitude code.
[[nodiscard]] TESSERA_HOST_DEVICE constexpr float finite_value(int mantissa_bits, int bias, bool negative,
                                                               std::uint32_t magnitude) noexcept {
    std::uint32_t const field = magnitude >> mantissa_bits;
    std::uint32_t const implicit = field == 0 ? 0u : 1u << mantissa_bits;
    std::uint32_t const mantissa = magnitude & ((1u << mantissa_bits) - 1u);
    int const exponent = (field == 0 ? 1 : static_cast<int>(field)) - bias - mantissa_bits;
    return exact_float(negative, implicit | mantissa, exponent);
}

[[nodiscard]] constexpr float_card make_float_card(int exponent_bits, int mantissa_bits, specials special_codes,
                                                   int bias) noexcept {
    std::uint32_t const sign = 1u << (exponent_bits + mantissa_bits);
    std::uint32_t const infinity = ((1u << exponent_bits) - 1u) << mantissa_bits;
    float_card c{};
    c.bits = 1 + exponent_bits + mantissa_bits;
    c.exponent_bits = exponent_bits;
    c.mantissa_bits = mantissa_bits;
    c.bias = bias;
    c.is_signed = true;
    c.special_codes = special_codes;
    c.has_infinity = special_codes == specials::ieee;
    c.has_nan = special_codes != specials::finite && !(c.has_infinity && mantissa_bits == 0);
    c.has_negative_zero = special_codes != specials::unsigned_zero;
    c.infinity_code = infinity;
    switch (special_codes) {
    case specials::ieee:
        c.max_code = infinity - 1;
        c.nan_code = mantissa_bits == 0 ? 0 : infinity | 1u << (mantissa_bits - 1);
        c.default_overflow = overflow::infinity;
        break;
    case specials::nan_only:
        c.max_code = sign - 2;
        c.nan_code = sign - 1;
        c.default_overflow = overflow::nan;
        break;
    case specials::unsigned_zero:
        c.max_code = sign - 1;
        c.nan_code = sign;
        c.default_overflow = overflow::nan;
        break;
    case specials::finite:
        c.max_code = sign - 1;
        c.default_overflow = overflow::saturate;
        break;
    }
    std::uint32_t const first_normal = 1u << mantissa_bits;
    c.max_finite = finite_value(mantissa_bits, bias, false, c.max_code);
    c.smallest_normal = first_normal <= c.max_code ? finite_value(mantissa_bits, bias, false, first_normal) : 0.0f;
    c.smallest_subnormal = finite_value(mantissa_bits, bias, false, 1u);
    c.default_rounding = rounding::nearest_even;
    return c;
}

/// |x| = significand * 2^exponent, taken apart; significand < 2^53.
struct float_parts {
    std::uint64_t significand;
    int exponent;
    bool negative;
    bool is_nan;
    bool is_infinite;
};

[[nodiscard]] TESSERA_HOST_DEVICE constexpr float_parts take_apart(float x) noexcept {
    auto const bits = bit_cast<std::uint32_t>(x);
    std::uint32_t const field = bits >> 23 & 0xffu;
    std::uint32_t const mantissa = bits & 0x7fffffu;
    return {field == 0 ? mantissa : mantissa | 0x800000u, field == 0 ? -149 : static_cast<int>(field) - 150,
            bits >> 31 != 0, field == 0xffu && mantissa != 0, field == 0xffu && mantissa == 0};
}

[[nodiscard]] TESSERA_HOST_DEVICE constexpr float_parts take_apart(double x) noexcept {
    auto const bits = bit_cast<std::uint64_t>(x);
    std::uint64_t const field = bits >> 52 & 0x7ffu;
    std::uint64_t const mantissa = bits & 0xfffffffffffffu;
    return {field == 0 ? mantissa : mantissa | 0x10000000000000u, field == 0 ? -1074 : static_cast<int>(field) - 1075,
            bits >> 63 != 0, field == 0x7ffu && mantissa != 0, field == 0x7ffu && mantissa == 0};
}

/// The definition of decoding for a format with a `float_card card`.
template <class F>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr float decode_float(std::uint32_t code) noexcept {
    constexpr float_card c = F::card;
    constexpr std::uint32_t sign = 1u << (c.bits - 1);
    bool const negative = (code & sign) != 0;
    std::uint32_t const magnitude = code & (sign - 1u);
    if constexpr (c.special_codes == specials::unsigned_zero) {
        if ((code & (2u * sign - 1u)) == sign) return quiet_nan(true);
    } else if (magnitude > c.max_code) {
        return c.has_infinity && magnitude == c.infinity_code ? infinite(negative) : quiet_nan(negative);
    }
    return finite_value(c.mantissa_bits, c.bias, negative, magnitude);
}

/// The definition of encoding for a format with a `float_card card`: one rounding, of float and of double alike.
template <class F, class Real>
[[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint32_t encode_float(Real x, rounding mode, overflow beyond,
                                                                       std::uint32_t random) noexcept {
    constexpr float_card c = F::card;
    constexpr std::uint32_t sign = 1u << (c.bits - 1);
    float_parts const p = take_apart(x);
    std::uint32_t const sign_bit = p.negative ? sign : 0u;
    if (p.is_nan) {
        if constexpr (!c.has_nan) return sign_bit ^ sign;
        return c.has_negative_zero ? sign_bit | c.nan_code : c.nan_code;
    }
    std::uint64_t magnitude = std::uint64_t{c.max_code} + 1;
    if (!p.is_infinite) {
        int const leading = bit_width(p.significand) - 1;
        int const lowest = 1 - c.bias;
        int const binade = leading + p.exponent > lowest ? leading + p.exponent : lowest;
        // The rounded significand carries its implicit bit into the exponent field, and so does a rounding up to the
        // next binade: subnormals, normals and the step between them need no cases.
        magnitude = (static_cast<std::uint64_t>(binade - lowest) << c.mantissa_bits) +
                    round_shift(p.significand, binade - c.mantissa_bits - p.exponent, mode, random);
    }
    if (magnitude > c.max_code) {
        if (beyond == overflow::infinity && c.has_infinity) return sign_bit | c.infinity_code;
        if (beyond != overflow::saturate && c.has_nan) return c.has_negative_zero ? sign_bit | c.nan_code : c.nan_code;
        return sign_bit | c.max_code;
    }
    if (magnitude == 0 && !c.has_negative_zero) return 0;
    return sign_bit | static_cast<std::uint32_t>(magnitude);
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
