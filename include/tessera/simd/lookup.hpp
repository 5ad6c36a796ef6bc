// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Values of codes from a table in memory: up to 16 entries by one permutation of a register (AVX-512, AVX2 in two, NEON), up
/// to 64 by permutations of two registers and a choice (AVX-512), above by a gather.

#include "decode.hpp"
#include "sparse.hpp"

namespace tessera::inline TESSERA_ABI::simd {

/// table[code] for codes below Size; the table has max(16, Size) entries.
template <class Arch, index_t Size>
TESSERA_FORCE_INLINE floats<Arch> look_up(float const* table, ints<Arch> const& code) noexcept {
    if constexpr (Size <= 8)
        return pick<Arch, 8>(table, code);
    else if constexpr (Size <= 16)
        return pick<Arch, 16>(table, code);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16 && (Size == 32 || Size == 64)) {
        __m512 const low = _mm512_permutex2var_ps(_mm512_loadu_ps(table), code, _mm512_loadu_ps(table + 16));
        if constexpr (Size == 32) return low;
        __m512 const high = _mm512_permutex2var_ps(_mm512_loadu_ps(table + (Size == 64 ? 32 : 0)), code,
                                                   _mm512_loadu_ps(table + (Size == 64 ? 48 : 16)));
        return _mm512_mask_blend_ps(_mm512_test_epi32_mask(code, _mm512_set1_epi32(32)), low, high);
    }
#endif
    return gather<Arch>(table, code, lanes<Arch>);
}

/// first = pairs[2 code], second = pairs[2 code + 1].
template <class Arch>
TESSERA_FORCE_INLINE void gather_pairs(float const* pairs, ints<Arch> const& code, floats<Arch>& first, floats<Arch>& second) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        __m512i const none = _mm512_setzero_si512();
        __m512i const bits = code;
        __m512 const low = _mm512_castsi512_ps(_mm512_mask_i32gather_epi64(none, 0xff, _mm512_castsi512_si256(bits), pairs, 8));
        __m512 const high = _mm512_castsi512_ps(
            _mm512_mask_i32gather_epi64(none, 0xff, _mm512_maskz_extracti64x4_epi64(0xff, bits, 1), pairs, 8));
        __m512i const even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        first = _mm512_permutex2var_ps(low, even, high);
        second = _mm512_permutex2var_ps(low, _mm512_or_si512(even, _mm512_set1_epi32(1)), high);
        return;
    }
#endif
    first = gather<Arch>(pairs, code + code, lanes<Arch>);
    second = gather<Arch>(pairs + 1, code + code, lanes<Arch>);
}

/// Whether `look_up` looks at no more bits of a code than a table of max(16, Size) entries needs.
template <class Arch, index_t Size>
inline constexpr bool ignores_high_bits = Size <= 16 && (lanes<Arch> == 16 || (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>));

/// The bits of `low` below bit `at`, those of `high` from there on.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> join_bits(ints<Arch> const& low, ints<Arch> const& high, int at) noexcept {
    ints<Arch> const mask((1 << at) - 1);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) return _mm512_ternarylogic_epi32(mask, low, high, 0xca);
#endif
    return (low & mask) | (high & ints<Arch>(~((1 << at) - 1)));
}

/// lanes<Arch> / Piece runs of Piece halves, beside each other, widened. (Through memory the loads would wait for the stores.)
template <class Arch, index_t Piece>
TESSERA_FORCE_INLINE floats<Arch> load_pieces(fp16 const* const (&p)[lanes<Arch> / Piece]) noexcept {
    if constexpr (Piece == lanes<Arch>) {
        return load<Arch>(p[0]);
    } else {
#if defined(__AVX512F__)
        if constexpr (lanes<Arch> == 16 && (Piece == 8 || Piece == 4)) {
            __m128i half[2];
            for (int i = 0; i < 2; ++i) {
                if constexpr (Piece == 8)
                    half[i] = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p[i]));
                else
                    half[i] = _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p[2 * i])),
                                                 _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p[2 * i + 1])));
            }
            return _mm512_maskz_cvtph_ps(detail::every_lane, _mm256_inserti128_si256(_mm256_castsi128_si256(half[0]), half[1], 1));
        }
#endif
#if defined(__F16C__)
        if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch> && Piece == 4)
            return _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p[0])),
                                                      _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p[1]))));
#endif
        alignas(64) fp16 row[lanes<Arch>];
        for (index_t j = 0; j < lanes<Arch> / Piece; ++j) std::memcpy(row + j * Piece, p[j], Piece * sizeof(fp16));
        return load<Arch>(row);
    }
}

} // namespace tessera::inline TESSERA_ABI::simd
