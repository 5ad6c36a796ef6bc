// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The exponential that attention's inner loop needs: e^x for x <= 80 (<= 0 but for a preset maximum and roundings), without the
/// cases that cannot occur there. Results that would be subnormal are 0, because a product with a subnormal number takes a hundred times as long.
///
///     e^x = 2^n p(f),   t = x log2(e) rounded,   n = round(t),   f = t - n
///
/// p is the minimax polynomial of degree 5 (relative error 2^-23.6). Relative error at most 1.25 |x| 2^-24 for the roundings of
/// t (with AVX-512 0.25, where t is not rounded) and of log2(e), plus 2^-22. Every NaN gives NaN, minus infinity 0.

#include "math.hpp"

namespace tessera::inline TESSERA_ABI::simd {

template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> softmax_weight(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    constexpr float p[] = {0x1.000002p+0f, 0x1.62e428p-1f, 0x1.ebf918p-3f, 0x1.c6b6e4p-5f, 0x1.3d0c52p-7f, 0x1.5c08e6p-10f};
    constexpr float smallest = -87.0f; // e^-87 = 1.4 * 2^-126
#if defined(__AVX512F__)
    if constexpr (reals::size == 16) {
        __mmask16 const normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(smallest), _CMP_NLT_UQ); // true for NaN
        // Adding 1.5 * 2^23 rounds to an integer.
        __m512 const scale = _mm512_set1_ps(detail::inverse_ln2);
        __m512 const magic = _mm512_set1_ps(0x1.8p23f);
        __m512 const n = _mm512_sub_ps(_mm512_maskz_fmadd_ps(normal, x, scale, magic), magic);
        reals const f(_mm512_maskz_fmsub_ps(normal, x, scale, n));
        return _mm512_maskz_scalef_ps(normal, detail::polynomial(f, p), n);
    }
#endif
    reals const inside = simd::select(x < reals(smallest), reals(smallest), x);
    reals const magic(0x1.8p23f + 127); // adding it rounds to an integer and leaves that, plus an exponent's bias, in the low bits
    reals const t = inside * reals(detail::inverse_ln2);
    reals const shifted = t + magic;
    reals const fraction = t - (shifted - magic);
    // 2^n: the low bits, moved to the exponent. Added to the polynomial's instead, a NaN's own low bits would make it a number.
    reals const power = reinterpret<float>(reinterpret<std::int32_t>(shifted) << 23);
    return simd::select(x < reals(smallest), reals(0.0f), detail::polynomial(fraction, p) * power);
}

} // namespace tessera::inline TESSERA_ABI::simd
