// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Elements of x by column: from anywhere in a row (`gather`), or from a group of at most 16 neighbours (`pick`), which
/// stays in registers.

#include "memory.hpp"

#include <bit>
#include <cstdint>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// lanes<Arch> column numbers.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_columns(std::uint16_t const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_maskz_cvtepu16_epi32(detail::every_lane, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) return vreinterpretq_s32_u32(vmovl_u16(vld1_u16(p)));
#endif
    alignas(64) std::int32_t lane[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) lane[i] = p[i];
    return ints<Arch>::load_aligned(lane);
}
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_columns(std::uint32_t const* p) noexcept {
    return ints<Arch>::load_unaligned(reinterpret_cast<std::int32_t const*>(p));
}

/// How many of the lengths, which do not rise, are above j. No branches: j runs over the ends of rows.
template <class Arch>
TESSERA_FORCE_INLINE index_t count_above(std::uint32_t const* lengths, index_t j) noexcept {
    auto const* const p = reinterpret_cast<std::int32_t const*>(lengths);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return std::popcount(static_cast<unsigned>(
            _mm512_cmpgt_epi32_mask(_mm512_loadu_si512(p), _mm512_set1_epi32(static_cast<int>(j)))));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const longer = _mm256_cmpgt_epi32(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)),
                                                  _mm256_set1_epi32(static_cast<int>(j)));
        return std::popcount(static_cast<unsigned>(_mm256_movemask_ps(_mm256_castsi256_ps(longer))));
    }
#endif
    index_t count = 0;
    for (index_t i = 0; i < lanes<Arch>; ++i) count += p[i] > j;
    return count;
}

/// x[column] in the first `count` lanes, 0 in the others, whose columns may be anything.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> gather(float const* x, ints<Arch> const& column, index_t count) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), static_cast<__mmask16>((1u << count) - 1), column, x, 4);
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        __m256i const active = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lane);
        return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), x, column, _mm256_castsi256_ps(active), 4);
    }
#endif
    alignas(64) std::int32_t from[lanes<Arch>];
    alignas(64) float to[lanes<Arch>] = {};
    column.store_aligned(from);
    for (index_t i = 0; i < count; ++i) to[i] = x[from[i]];
    return floats<Arch>::load_aligned(to);
}

/// Floats that `pick` reads behind a group of `Group` columns.
template <class Arch, index_t Group>
inline constexpr index_t pick_reach = Group <= lanes<Arch> && lanes<Arch> >= 8 ? lanes<Arch> : round_up(Group, 8);

/// x[position] with positions below Group <= 16; x[0 .. pick_reach) is readable.
template <class Arch, index_t Group>
TESSERA_FORCE_INLINE floats<Arch> pick(float const* x, ints<Arch> const& position) noexcept {
    static_assert(Group <= 16);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) return _mm512_maskz_permutexvar_ps(detail::every_lane, position, _mm512_loadu_ps(x));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256 const low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x), position);
        if constexpr (Group <= 8) {
            return low;
        } else {
            __m256 const high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(x + 8), position);
            // The bit that says "8 and above" as the sign, which chooses.
            return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(position, 28)));
        }
    }
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) { // a look-up of the four bytes of every number
        auto const bytes = [x](int i) noexcept { return vreinterpretq_u8_f32(vld1q_f32(x + 4 * i)); };
        uint8x16_t const at =
            vreinterpretq_u8_s32(vmlaq_s32(vdupq_n_s32(0x03020100), position, vdupq_n_s32(0x04040404)));
        if constexpr (Group <= 4)
            return vreinterpretq_f32_u8(vqtbl1q_u8(bytes(0), at));
        else if constexpr (Group <= 8)
            return vreinterpretq_f32_u8(vqtbl2q_u8(uint8x16x2_t{{bytes(0), bytes(1)}}, at));
        else
            return vreinterpretq_f32_u8(vqtbl4q_u8(uint8x16x4_t{{bytes(0), bytes(1), bytes(2), bytes(3)}}, at));
    }
#endif
    alignas(64) std::int32_t from[lanes<Arch>];
    alignas(64) float to[lanes<Arch>];
    position.store_aligned(from);
    for (index_t i = 0; i < lanes<Arch>; ++i) to[i] = x[from[i]];
    return floats<Arch>::load_aligned(to);
}

} // namespace tessera::inline TESSERA_ABI::simd
