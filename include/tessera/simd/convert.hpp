// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of a format to float registers and back, a code in the low bits of each 32-bit lane, bit for bit as in
/// numerics/ (the definition): to nearest even, any overflow option. Arithmetic on integer lanes; no table, no gather.
///
/// * Normal range: the code is the float's bits with another bias, shifted; half a unit is added first.
/// * Below it, adding 2^(1 - bias - M + 23) makes the floating-point adder round to the format's smallest step and leaves
///   the code in the low bits; decoding subtracts 2^(1 - bias) from a number of that exponent. Neither has a subnormal
///   operand or result, which would cost a hundred cycles a register.
///
/// They need the rounding mode that a program starts with.

#include "../numerics/convert.hpp"
#include "../numerics/fp8.hpp"
#include "../numerics/half.hpp"
#include "../numerics/int_format.hpp"
#include "math.hpp"

#include <concepts>
#include <cstdint>

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

// The unmasked 512-bit intrinsics behind xsimd's operators make GCC 12 warn of an uninitialised register: `every_lane`.

template <int N, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> shift_left(xsimd::batch<std::int32_t, A> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_slli_epi32(every_lane, v, N);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vshlq_n_s32(v, N);
#endif
    return v << N;
}

/// Copies the sign in.
template <int N, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> shift_right(xsimd::batch<std::int32_t, A> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_srai_epi32(every_lane, v, N);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vshrq_n_s32(v, N);
#endif
    return v >> N;
}

template <class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> smaller(xsimd::batch<std::int32_t, A> const& a,
                                                           xsimd::batch<std::int32_t, A> const& b) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_min_epi32(every_lane, a, b);
#endif
    return xsimd::min(a, b);
}

/// min(max(x, low), high) of numbers.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> clamped(xsimd::batch<float, A> const& x, float low, float high) noexcept {
    using reals = xsimd::batch<float, A>;
#if defined(__AVX512F__)
    if constexpr (reals::size == 16)
        return _mm512_maskz_min_ps(every_lane, _mm512_maskz_max_ps(every_lane, x, reals(low)), reals(high));
#endif
    return xsimd::min(xsimd::max(x, reals(low)), reals(high));
}

template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> to_reals(xsimd::batch<std::int32_t, A> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_cvtepi32_ps(every_lane, v);
#endif
    return xsimd::to_float(v);
}

template <class F>
concept carded = requires {
    F::card.mantissa_bits;
}
&&!std::same_as<F, e8m0>;

/// True where the steps above stay clear of float32's own subnormals and of its end: all named formats. A minifloat of
/// an extreme bias is converted by its scalar definition.
template <class F>
inline constexpr bool has_lanes = [] {
    if constexpr (carded<F>)
        return F::card.bias == 127 || (F::card.bias >= -96 && F::card.bias <= 112);
    else
        return true;
}();

template <class F>
inline constexpr std::int32_t sign_bit = std::int32_t{1} << (F::bits - 1);

/// 2^exponent, a normal float.
constexpr float power_of_two(int exponent) noexcept {
    return tessera::detail::bit_cast<float>(static_cast<std::uint32_t>(exponent + 127) << 23);
}

/// The code above every finite one that `Beyond` asks for.
template <class F, overflow Beyond>
constexpr std::int32_t overflow_code() noexcept {
    if (Beyond == overflow::infinity && F::card.has_infinity) return static_cast<std::int32_t>(F::card.infinity_code);
    if (Beyond != overflow::saturate && F::card.has_nan) return static_cast<std::int32_t>(F::card.nan_code);
    return static_cast<std::int32_t>(F::card.max_code);
}

/// |x| (its bits in `magnitude`) as a magnitude code; NaN gives anything.
template <class F, overflow Beyond, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A>
encode_magnitude(xsimd::batch<std::int32_t, A> const& magnitude) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    constexpr int shift = 23 - F::card.mantissa_bits;
    constexpr std::int32_t rebias = (127 - F::card.bias) * (1 << 23);
    constexpr std::int32_t below_half = (std::int32_t{1} << (shift - 1)) - 1 - rebias;
    integers code;
    if constexpr (F::card.mantissa_bits == 0) // one bit of precision: ties go up
        code = shift_right<shift>(magnitude + integers(below_half + 1));
    else
        code = shift_right<shift>(magnitude + integers(below_half) + (shift_right<shift>(magnitude) & integers(1)));
    if constexpr (F::card.bias != 127) {
        constexpr float magic = power_of_two(24 - F::card.bias - F::card.mantissa_bits);
        auto const step = reinterpret<float>(magnitude) + xsimd::batch<float, A>(magic);
        integers const subnormal =
            reinterpret<std::int32_t>(step) - integers(tessera::detail::bit_cast<std::int32_t>(magic));
        code = simd::select(magnitude < integers(rebias + (1 << 23)), subnormal, code);
    }
    constexpr auto largest = static_cast<std::int32_t>(F::card.max_code);
    constexpr std::int32_t beyond = overflow_code<F, Beyond>();
    if constexpr (beyond == largest || beyond == largest + 1)
        return smaller(code, integers(beyond));
    else
        return simd::select(code > integers(largest), integers(beyond), code);
}

/// A magnitude's code with its sign in place; of NaN, the code that stands for it, or of a format without one the other zero's.
template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> with_sign(xsimd::batch<std::int32_t, A> const& code,
                                                             xsimd::batch<std::int32_t, A> const& magnitude,
                                                             xsimd::batch<std::int32_t, A> const& sign) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    auto const is_nan = magnitude > integers(0x7f800000);
    if constexpr (!F::card.has_nan)
        return simd::select(is_nan, sign ^ integers(sign_bit<F>), sign | code);
    else if constexpr (F::card.has_negative_zero)
        return sign | simd::select(is_nan, integers(static_cast<std::int32_t>(F::card.nan_code)), code);
    else
        return simd::select(is_nan, integers(static_cast<std::int32_t>(F::card.nan_code)),
                            simd::select(code == integers(0), code, sign | code));
}

template <class F, overflow Beyond, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> encode_float(xsimd::batch<float, A> const& x) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    integers const u = reinterpret<std::int32_t>(x);
    integers const magnitude = u & integers(0x7fffffff);
    integers const sign = shift_right<32 - F::bits>(u) & integers(sign_bit<F>);
    integers const code = encode_magnitude<F, Beyond>(magnitude);
    constexpr bool nan_is_beyond = !std::same_as<F, fp16> && F::card.has_nan && F::card.bias <= 120 &&
                                   overflow_code<F, Beyond>() == static_cast<std::int32_t>(F::card.nan_code);
    if constexpr (nan_is_beyond) // a NaN's bits are above all numbers', and the code above all codes is NaN's
        return F::card.has_negative_zero ? sign | code : simd::select(code == integers(0), code, sign | code);
    else if constexpr (std::same_as<F, fp16>) // keeps the payload's high bits
        return sign | simd::select(magnitude > integers(0x7f800000), (shift_right<13>(magnitude) & integers(0x1ff)) | integers(0x7e00), code);
    else
        return with_sign<F>(code, magnitude, sign);
}

template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> decode_float(xsimd::batch<std::int32_t, A> const& code) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    constexpr int shift = 23 - F::card.mantissa_bits;
    constexpr std::int32_t rebias = (127 - F::card.bias) * (1 << 23);
    integers const magnitude = code & integers(sign_bit<F> - 1);
    integers const sign = shift_left<32 - F::bits>(code) & integers(std::int32_t(-0x7fffffff - 1));
    integers bits = shift_left<shift>(magnitude) + integers(rebias);
    if constexpr (F::card.bias != 127) {
        xsimd::batch<float, A> const one_up = reinterpret<float>(bits + integers(1 << 23));
        auto const subnormal = one_up - xsimd::batch<float, A>(power_of_two(1 - F::card.bias));
        bits = simd::select(magnitude < integers(std::int32_t{1} << F::card.mantissa_bits),
                             reinterpret<std::int32_t>(subnormal), bits);
    }
    if constexpr (std::same_as<F, fp16>) { // infinity and NaN keep their mantissa, and NaN becomes quiet
        integers const special = shift_left<shift>(magnitude) | integers(0x7f800000);
        integers const quiet = simd::select(magnitude > integers(0x7c00), integers(0x400000), integers(0));
        bits = simd::select(magnitude >= integers(0x7c00), special | quiet, bits);
    } else if constexpr (F::card.has_infinity && F::card.bias != 127) {
        constexpr auto infinity = static_cast<std::int32_t>(F::card.infinity_code);
        integers const special =
            simd::select(magnitude == integers(infinity), integers(0x7f800000), integers(0x7fc00000));
        bits = simd::select(magnitude >= integers(infinity), special, bits);
    } else if constexpr (F::card.special_codes == specials::nan_only) {
        bits = simd::select(magnitude == integers(sign_bit<F> - 1), integers(0x7fc00000), bits);
    } else if constexpr (F::card.special_codes == specials::unsigned_zero) {
        bits = simd::select(magnitude == integers(0), shift_right<31>(sign) & integers(0x7fc00000), bits);
    }
    return reinterpret<float>(bits | sign);
}

template <overflow Beyond, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> encode_power(xsimd::batch<float, A> const& x) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    integers const u = reinterpret<std::int32_t>(x);
    // 2^-127, the tie between code 0 and 1, goes down; all other ties go up. The sum is below 2^31 for no NaN only.
    integers const up = simd::select(u < integers(0x800000), integers(0x3fffff), integers(0x400000));
    auto const is_number = (u > integers(0)) & (u <= integers(0x7f800000));
    integers const limit(Beyond == overflow::saturate ? 254 : 255);
    integers const code = smaller(shift_right<23>(smaller(u, integers(0x7f800000)) + up), limit);
    return simd::select(is_number, code, integers(255));
}

template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> decode_power(xsimd::batch<std::int32_t, A> const& code) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    integers const bits = simd::select(code == integers(0), integers(0x400000), shift_left<23>(code));
    return reinterpret<float>(simd::select(code == integers(255), integers(0x7fc00000), bits));
}

template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> encode_integer(xsimd::batch<float, A> const& x) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    using reals = xsimd::batch<float, A>;
    reals const number = simd::select(x == x, x, reals(0.0f));
    reals const inside = clamped(number, static_cast<float>(F::min_value), static_cast<float>(F::max_value));
    // Adding 1.5 * 2^23 rounds to an integer, to even, and leaves it in the low bits.
    integers const rounded = reinterpret<std::int32_t>(inside + reals(0x1.8p23f));
    return rounded & integers((std::int32_t{1} << F::bits) - 1);
}

template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> decode_integer(xsimd::batch<std::int32_t, A> const& code) noexcept {
    if constexpr (F::min_value < 0)
        return to_reals(shift_right<32 - F::bits>(shift_left<32 - F::bits>(code)));
    else
        return to_reals(code & xsimd::batch<std::int32_t, A>(F::max_value));
}

} // namespace detail

/// F::encode of every lane: nearest even, the code in the low bits, zeros above.
template <class F, overflow Beyond = default_overflow<F>, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> encode(xsimd::batch<float, A> const& x) noexcept {
    if constexpr (!detail::has_lanes<F>) {
        alignas(64) float value[xsimd::batch<float, A>::size];
        alignas(64) std::int32_t code[xsimd::batch<float, A>::size];
        x.store_aligned(value);
        for (std::size_t i = 0; i < xsimd::batch<float, A>::size; ++i)
            code[i] = static_cast<std::int32_t>(F::encode(value[i], rounding::nearest_even, Beyond));
        return xsimd::batch<std::int32_t, A>::load_aligned(code);
    } else if constexpr (F::is_integer) {
        return detail::encode_integer<F>(x);
    } else if constexpr (std::same_as<F, e8m0>) {
        return detail::encode_power<Beyond>(x);
    } else if constexpr (std::same_as<F, fp32>) {
        return reinterpret<std::int32_t>(x);
    } else {
        return detail::encode_float<F, Beyond>(x);
    }
}

/// F::decode of every lane; lanes hold codes of F, zeros above.
template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> decode(xsimd::batch<std::int32_t, A> const& code) noexcept {
    if constexpr (!detail::has_lanes<F>) {
        alignas(64) std::int32_t in[xsimd::batch<float, A>::size];
        alignas(64) float value[xsimd::batch<float, A>::size];
        code.store_aligned(in);
        for (std::size_t i = 0; i < xsimd::batch<float, A>::size; ++i)
            value[i] = F::decode(static_cast<std::uint32_t>(in[i]));
        return xsimd::batch<float, A>::load_aligned(value);
    } else if constexpr (F::is_integer) {
        return detail::decode_integer<F>(code);
    } else if constexpr (std::same_as<F, e8m0>) {
        return detail::decode_power(code);
    } else if constexpr (std::same_as<F, fp32>) {
        return reinterpret<float>(code);
    } else {
        return detail::decode_float<F>(code);
    }
}

} // namespace tessera::inline TESSERA_ABI::simd
