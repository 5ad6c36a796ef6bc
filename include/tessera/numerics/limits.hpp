// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// std::numeric_limits of every value type of this layer, computed from its card.

#include "../core/macros.hpp"
#include "float_format.hpp"
#include "fp8.hpp"
#include "half.hpp"
#include "int_format.hpp"

#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI::detail {

/// The exponent of the largest power of ten that is not above x; x > 0.
[[nodiscard]] constexpr int floor_log10(double x) noexcept {
    int exponent = 0;
    double power = 1;
    for (; power > x; power /= 10) --exponent;
    for (; power * 10 <= x; power *= 10) ++exponent;
    return exponent;
}

template <class F>
struct float_limits {
    static constexpr float_card card = F::card;

    static constexpr bool is_specialized = true;
    static constexpr bool is_signed = card.is_signed;
    static constexpr bool is_integer = false;
    static constexpr bool is_exact = false;
    static constexpr bool is_modulo = false;
    static constexpr bool is_bounded = true;
    static constexpr bool is_iec559 = false;
    static constexpr bool traps = false;
    static constexpr bool tinyness_before = false;
    static constexpr bool has_infinity = card.has_infinity;
    static constexpr bool has_quiet_NaN = card.has_nan;
    static constexpr bool has_signaling_NaN = false;
    static constexpr std::float_round_style round_style = std::round_to_nearest;
    static constexpr int radix = 2;
    static constexpr int digits = card.mantissa_bits + 1;
    static constexpr int digits10 = card.mantissa_bits * 30103 / 100000;
    static constexpr int max_digits10 = 2 + digits * 30103 / 100000;
    static constexpr int min_exponent = 2 - card.bias - (card.is_signed ? 0 : 1);
    static constexpr int max_exponent = static_cast<int>(card.max_code >> card.mantissa_bits) - card.bias + 1;
    static constexpr int max_exponent10 = floor_log10(card.max_finite);
    static constexpr int min_exponent10 = card.smallest_normal > 0
                                              ? -floor_log10(1.0 / static_cast<double>(card.smallest_normal))
                                              : 0;

    static constexpr F of(std::uint32_t code) noexcept {
        return F::from_bits(static_cast<decltype(F{}.to_bits())>(code));
    }
    static constexpr F min() noexcept { return F{card.smallest_normal}; }
    static constexpr F max() noexcept { return of(card.max_code); }
    static constexpr F lowest() noexcept { return of(card.is_signed ? card.max_code | 1u << (card.bits - 1) : 0u); }
    /// The gap above 1; e8m0 has it too: 2 - 1. Where it is below the smallest value of the format, that one.
    static constexpr F epsilon() noexcept {
        float const gap = exact_float(false, 1, -card.mantissa_bits);
        return F{gap > card.smallest_subnormal ? gap : card.smallest_subnormal};
    }
    static constexpr F round_error() noexcept { return F{0.5f}; }
    static constexpr F infinity() noexcept { return of(card.has_infinity ? card.infinity_code : card.max_code); }
    static constexpr F quiet_NaN() noexcept { return of(card.has_nan ? card.nan_code : 0u); }
    static constexpr F signaling_NaN() noexcept { return quiet_NaN(); }
    static constexpr F denorm_min() noexcept { return F{card.smallest_subnormal}; }
};

} // namespace tessera::inline TESSERA_ABI::detail

/// @cond
template <>
struct std::numeric_limits<tessera::fp16> : tessera::detail::float_limits<tessera::fp16> {
    static constexpr bool is_iec559 = true;
};
template <>
struct std::numeric_limits<tessera::bf16> : tessera::detail::float_limits<tessera::bf16> {};
template <>
struct std::numeric_limits<tessera::e8m0> : tessera::detail::float_limits<tessera::e8m0> {};
template <int E, int M, tessera::specials Specials, int Bias>
struct std::numeric_limits<tessera::minifloat<E, M, Specials, Bias>>
    : tessera::detail::float_limits<tessera::minifloat<E, M, Specials, Bias>> {};

template <int Bits, tessera::signedness Sign>
struct std::numeric_limits<tessera::small_integer<Bits, Sign>> {
    using type = tessera::small_integer<Bits, Sign>;

    static constexpr bool is_specialized = true;
    static constexpr bool is_signed = Sign == tessera::signedness::is_signed;
    static constexpr bool is_integer = true;
    static constexpr bool is_exact = true;
    static constexpr bool is_modulo = false;
    static constexpr bool is_bounded = true;
    static constexpr bool is_iec559 = false;
    static constexpr bool traps = false;
    static constexpr bool tinyness_before = false;
    static constexpr bool has_infinity = false;
    static constexpr bool has_quiet_NaN = false;
    static constexpr bool has_signaling_NaN = false;
    static constexpr std::float_round_style round_style = std::round_to_nearest;
    static constexpr int radix = 2;
    static constexpr int digits = Bits - (is_signed ? 1 : 0);
    static constexpr int digits10 = digits * 30103 / 100000;
    static constexpr int max_digits10 = 0;
    static constexpr int min_exponent = 0;
    static constexpr int max_exponent = 0;
    static constexpr int min_exponent10 = 0;
    static constexpr int max_exponent10 = 0;

    static constexpr type min() noexcept { return type{static_cast<float>(type::min_value)}; }
    static constexpr type max() noexcept { return type{static_cast<float>(type::max_value)}; }
    static constexpr type lowest() noexcept { return min(); }
    static constexpr type epsilon() noexcept { return type{0.0f}; }
    static constexpr type round_error() noexcept { return type{0.0f}; }
    static constexpr type infinity() noexcept { return type{0.0f}; }
    static constexpr type quiet_NaN() noexcept { return type{0.0f}; }
    static constexpr type signaling_NaN() noexcept { return type{0.0f}; }
    static constexpr type denorm_min() noexcept { return type{0.0f}; }
};
/// @endcond
