// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Elementary functions on float registers of any architecture: `exp`, `sigmoid`, `tanh`, `erf`, and `normal_tail`,
/// the upper tail of the normal distribution that exact GELU needs.
///
/// Largest error over ALL 2^32 floats (`normal_tail`: all that are not negative), in units in the last place:
///
/// | function      | FMA  | sse2 | special values                                                              |
/// |---------------|------|------|-----------------------------------------------------------------------------|
/// | `exp`         | 1.01 | 0.98 | -inf: +0; gradual underflow below 2^-126, 0 below 2^-150; inf from 88.7229  |
/// | `sigmoid`     | 2.41 | 2.41 | -inf: 0, +inf: 1; gradual underflow                                         |
/// | `tanh`        | 1.34 | 1.34 | odd, sign of zero kept, -inf: -1, +inf: 1                                   |
/// | `erf`         | 1.18 | 1.34 | odd, sign of zero kept, -inf: -1, +inf: 1                                   |
/// | `normal_tail` | 4.63 | 66.1 | +inf: 0                                                                     |
///
/// (xsimd 8.1's own: exp flushes results below 2^-126 and is infinite from 88.3763 on; erf 2.4.) The activations built of
/// them have their bounds in nn/activation.hpp; `silu`, `gelu_erf` and `gelu_tanh` of -inf are NaN, as the formulas say.
///
/// NaN gives NaN. The polynomials are minimax fits made for this file (Remez, coefficients rounded to float32).

#include "arch_map.hpp"

#include <limits>

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

/// c[0] + x (c[1] + x (c[2] + ...)).
template <class A, std::size_t N>
TESSERA_FORCE_INLINE xsimd::batch<float, A> polynomial(xsimd::batch<float, A> const& x, float const (&c)[N]) noexcept {
    xsimd::batch<float, A> sum(c[N - 1]);
    for (std::size_t i = N - 1; i-- > 0;) sum = simd::fma(sum, x, xsimd::batch<float, A>(c[i]));
    return sum;
}

/// exp(r) for |r| <= ln(2) / 2, as 1 + (r + r^2 q(r)); relative error of the fit 2^-28.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> exp_reduced(xsimd::batch<float, A> const& r) noexcept {
    constexpr float q[] = {0x1.fffffcp-2f, 0x1.555492p-3f, 0x1.5558f2p-5f, 0x1.123a20p-7f, 0x1.6a23d6p-10f};
    return simd::fma(r * r, polynomial(r, q), r) + xsimd::batch<float, A>(1.0f);
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), r = x - n ln 2. The high part of ln 2 has 15 bits, so that n times it is
// exact without FMA too.
inline constexpr float inverse_ln2 = 0x1.715476p+0f;
inline constexpr float ln2_high = 0x1.62e400p-1f;
inline constexpr float ln2_low = 0x1.7f7d1cp-20f;

template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> exp_any(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    using integers = xsimd::batch<std::int32_t, A>;
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    reals const magic(0x1.8p23f);
    reals const shifted = simd::fma(x, reals(inverse_ln2), magic);
    reals const n = shifted - magic;
    reals const r = simd::fnma(n, reals(ln2_low), simd::fnma(n, reals(ln2_high), x));
    // 2^n as a product of two normal numbers: only the last product rounds, where the result is subnormal.
    integers const whole = reinterpret<std::int32_t>(shifted) - integers(0x4b400000);
    integers const half = whole >> 1;
    reals const first = reinterpret<float>((half + integers(127)) << 23);
    reals const second = reinterpret<float>((whole - half + integers(127)) << 23);
    reals y = exp_reduced(r) * first * second;
    y = simd::select(x < reals(-104.0f), reals(0.0f), y);
    return simd::select(x > reals(88.8f), reals(std::numeric_limits<float>::infinity()), y);
}

#if defined(__AVX512F__)
/// vscalefps does all of 2^n, subnormal results, overflow and NaN included.
TESSERA_FORCE_INLINE __m512 scaled_exp_512(__m512 x) noexcept {
    constexpr __mmask16 every = 0xffff; // the unmasked forms of GCC 12 warn of an uninitialised register
    // The second operand of vminps and vmaxps comes through where it is NaN.
    __m512 const inside = _mm512_maskz_max_ps(every, _mm512_set1_ps(-104.0f), _mm512_maskz_min_ps(every, _mm512_set1_ps(88.8f), x));
    __m512 const n = _mm512_maskz_roundscale_ps(every, _mm512_mul_ps(inside, _mm512_set1_ps(inverse_ln2)),
                                          _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m512 const high = _mm512_fnmadd_ps(n, _mm512_set1_ps(ln2_high), inside);
    using reals = xsimd::batch<float, xsimd::avx512bw>;
    reals const r(_mm512_fnmadd_ps(n, _mm512_set1_ps(ln2_low), high));
    return _mm512_maskz_scalef_ps(every, exp_reduced(r), n);
}
#endif

/// (1 + 2 a) exp(a^2) erfc(a) for a >= 0 as a polynomial in (a - 2) / (a + 2), divided by (1 + 2 a).
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> scaled_erfc(xsimd::batch<float, A> const& a) noexcept {
    using reals = xsimd::batch<float, A>;
    constexpr float e[] = {0x1.46e80ep+0f,  -0x1.7bf616p-4f, -0x1.540848p-3f, 0x1.4ffc40p-3f,  -0x1.bc0aa8p-5f,
                           -0x1.081b22p-7f, 0x1.1ad7cap-7f,  0x1.58550cp-10f, -0x1.426b0cp-10f, -0x1.a40914p-12f};
    reals const t = simd::divide(a - reals(2.0f), a + reals(2.0f));
    return simd::divide(polynomial(t, e), simd::fma(a, reals(2.0f), reals(1.0f)));
}

} // namespace detail

/// Lanes 2i and 2i + 1 exchanged.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> exchange_neighbours(xsimd::batch<float, A> const& x) noexcept {
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vrev64q_f32(x);
#endif
    auto const pairs = reinterpret<std::uint64_t>(x);
    return reinterpret<float>((pairs << 32) | (pairs >> 32));
}

/// e^x.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> exp(xsimd::batch<float, A> const& x) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return detail::scaled_exp_512(x);
#endif
    return detail::exp_any(x);
}

/// 1 / (1 + e^-x), by the exponential of -|x|, which cannot overflow.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> sigmoid(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    reals const e = simd::exp(-xsimd::abs(x));
    return simd::divide(simd::select(x < reals(0.0f), e, reals(1.0f)), reals(1.0f) + e);
}

/// The hyperbolic tangent: an odd polynomial below 0.625, 1 - 2 / (e^2|x| + 1) with the sign of x above.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> tanh(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    constexpr float p[] = {-0x1.555532p-2f, 0x1.110726p-3f, -0x1.b83c5ap-5f, 0x1.522698p-6f, -0x1.75e1c2p-8f};
    reals const a = xsimd::abs(x);
    reals const u = x * x;
    reals const near = simd::fma(x * u, detail::polynomial(u, p), x);
    reals const far = reals(1.0f) - simd::divide(reals(2.0f), simd::exp(a + a) + reals(1.0f));
    return xsimd::copysign(simd::select(a < reals(0.625f), near, far), x); // near is +0 for -0
}

/// The error function: an odd polynomial below 0.85, 1 - erfc(|x|) with the sign of x above.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> erf(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    constexpr float p[] = {0x1.06eba8p-3f, -0x1.81271ap-2f, 0x1.ce23dep-4f, -0x1.b72208p-6f, 0x1.4b0750p-8f,
                           -0x1.4b183cp-11f};
    reals const magnitude = xsimd::abs(x);
    reals const a = simd::select(magnitude > reals(10.0f), reals(10.0f), magnitude);
    reals const u = a * a;
    reals const near = simd::fma(x, detail::polynomial(u, p), x);
    reals const far = reals(1.0f) - simd::exp(-u) * detail::scaled_erfc(a);
    return simd::select(a < reals(0.85f), near, xsimd::copysign(far, x));
}

/// (1 - erf(a / sqrt 2)) / 2 for a >= 0: the probability that a normal variable exceeds a. With FMA the rounding of a^2
/// is compensated; without it (sse2) the relative error grows by a^2 / 2 half-units in the last place.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> normal_tail(xsimd::batch<float, A> const& a) noexcept {
    using reals = xsimd::batch<float, A>;
    reals const inside = simd::select(a > reals(15.0f), reals(15.0f), a);
    reals const square = inside * inside;
    reals const rest = simd::fms(inside, inside, square);
    reals const half(0.5f);
    reals const bell = simd::exp(-half * square);
    return simd::fnma(half * rest, bell, bell) * (half * detail::scaled_erfc(inside * reals(0x1.6a09e6p-1f)));
}

/// x / (1 + e^-x).
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> silu(xsimd::batch<float, A> const& x) noexcept {
    return x * simd::sigmoid(x);
}

/// x Phi(x), Phi the distribution of a normal variable: the exact GELU, without the cancellation of 1 + erf below 0.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> gelu_erf(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    reals const tail = simd::normal_tail(xsimd::abs(x));
    return x * simd::select(x < reals(0.0f), tail, reals(1.0f) - tail);
}

/// x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, as x sigmoid(2 ...).
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> gelu_tanh(xsimd::batch<float, A> const& x) noexcept {
    using reals = xsimd::batch<float, A>;
    reals const inner = x * simd::fma(x * x, reals(0x1.2444f2p-4f), reals(0x1.988454p+0f));
    return x * simd::sigmoid(inner);
}

} // namespace tessera::inline TESSERA_ABI::simd
