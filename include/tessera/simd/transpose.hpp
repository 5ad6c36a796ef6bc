// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The transpose and the row sums of a square of lanes<Arch> by lanes<Arch> floats. xsimd 8.1 has no transpose, and its
/// zip_lo differs between architectures.

#include "memory.hpp"

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

#if defined(__AVX512F__)
/// Pairs, quads, then 128-bit lanes: 64 shuffles for 256 floats.
TESSERA_FORCE_INLINE void transpose_16(__m512 (&r)[16]) noexcept {
    constexpr __mmask16 every = 0xffff; // the unmasked forms of GCC 12 warn of an uninitialised register
    __m512 t[16];
    for (int i = 0; i < 16; i += 4) {
        __m512 const a = _mm512_maskz_unpacklo_ps(every, r[i], r[i + 1]);
        __m512 const b = _mm512_maskz_unpackhi_ps(every, r[i], r[i + 1]);
        __m512 const c = _mm512_maskz_unpacklo_ps(every, r[i + 2], r[i + 3]);
        __m512 const d = _mm512_maskz_unpackhi_ps(every, r[i + 2], r[i + 3]);
        t[i] = _mm512_maskz_shuffle_ps(every, a, c, 0x44);
        t[i + 1] = _mm512_maskz_shuffle_ps(every, a, c, 0xee);
        t[i + 2] = _mm512_maskz_shuffle_ps(every, b, d, 0x44);
        t[i + 3] = _mm512_maskz_shuffle_ps(every, b, d, 0xee);
    }
    for (int i = 0; i < 4; ++i) {
        __m512 const a = _mm512_maskz_shuffle_f32x4(every, t[i], t[i + 4], 0x88);
        __m512 const b = _mm512_maskz_shuffle_f32x4(every, t[i], t[i + 4], 0xdd);
        __m512 const c = _mm512_maskz_shuffle_f32x4(every, t[i + 8], t[i + 12], 0x88);
        __m512 const d = _mm512_maskz_shuffle_f32x4(every, t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_maskz_shuffle_f32x4(every, a, c, 0x88);
        r[i + 4] = _mm512_maskz_shuffle_f32x4(every, b, d, 0x88);
        r[i + 8] = _mm512_maskz_shuffle_f32x4(every, a, c, 0xdd);
        r[i + 12] = _mm512_maskz_shuffle_f32x4(every, b, d, 0xdd);
    }
}

/// a, b, c, d: the sums of four rows' quarters, 128 bits each.
TESSERA_FORCE_INLINE __m512 quarter_sums(__m512 a, __m512 b, __m512 c, __m512 d) noexcept {
    constexpr __mmask16 every = 0xffff;
    auto const halves = [](__m512 x, __m512 y) noexcept { // x0+x2 x1+x3 y0+y2 y1+y3
        return _mm512_add_ps(_mm512_maskz_shuffle_f32x4(every, x, y, 0x44), _mm512_maskz_shuffle_f32x4(every, x, y, 0xee));
    };
    __m512 const x = halves(a, b);
    __m512 const y = halves(c, d);
    return _mm512_add_ps(_mm512_maskz_shuffle_f32x4(every, x, y, 0x88), _mm512_maskz_shuffle_f32x4(every, x, y, 0xdd));
}

/// The sums of r[0] ... r[15]: quarters, then within 128-bit lanes; 30 shuffles. No loops, so that `r` stays in registers.
template <class Rows>
TESSERA_FORCE_INLINE __m512 row_sums_16(Rows const& r) noexcept {
    constexpr __mmask16 every = 0xffff;
    __m512 const a = quarter_sums(r[0], r[4], r[8], r[12]);
    __m512 const b = quarter_sums(r[1], r[5], r[9], r[13]);
    __m512 const c = quarter_sums(r[2], r[6], r[10], r[14]);
    __m512 const d = quarter_sums(r[3], r[7], r[11], r[15]);
    __m512 const u = _mm512_add_ps(_mm512_maskz_unpacklo_ps(every, a, b), _mm512_maskz_unpackhi_ps(every, a, b));
    __m512 const w = _mm512_add_ps(_mm512_maskz_unpacklo_ps(every, c, d), _mm512_maskz_unpackhi_ps(every, c, d));
    return _mm512_add_ps(_mm512_maskz_shuffle_ps(every, u, w, 0x44), _mm512_maskz_shuffle_ps(every, u, w, 0xee));
}
#endif

} // namespace detail

/// to[i * to_stride + j] = factor * from[j * from_stride + i] for i, j < lanes<Arch>.
template <class Arch>
TESSERA_FORCE_INLINE void transpose(float const* from, index_t from_stride, float factor, float* to,
                                    index_t to_stride) noexcept {
    constexpr index_t n = lanes<Arch>;
#if defined(__AVX512F__)
    if constexpr (n == 16) {
        __m512 r[16];
        for (index_t i = 0; i < n; ++i) r[i] = _mm512_loadu_ps(from + i * from_stride);
        detail::transpose_16(r);
        for (index_t i = 0; i < n; ++i)
            _mm512_storeu_ps(to + i * to_stride, _mm512_mul_ps(r[i], _mm512_set1_ps(factor)));
        return;
    }
#endif
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < n; ++j) to[i * to_stride + j] = factor * from[j * from_stride + i];
}

/// The sum of each of lanes<Arch> registers, in one register; its order is a constant of the architecture.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> row_sums(floats<Arch> (&rows)[lanes<Arch>]) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) return detail::row_sums_16(rows); // xsimd 8.1's haddp is wrong for AVX-512
#endif
    return xsimd::haddp(rows);
}

} // namespace tessera::inline TESSERA_ABI::simd
