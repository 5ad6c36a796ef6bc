// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// From codes in the panel order of storage/prepacked.hpp to float registers, and the prefetch that streams them.

#include "memory.hpp"

#include <cstddef>
#include <cstdint>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// Asks for the cache line at p, early; any address is allowed.
TESSERA_FORCE_INLINE void prefetch(void const* p) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T0);
#else
    __builtin_prefetch(p);
#endif
}

/// The same into the second-level cache: for streams whose next lines would fill the first level's few miss buffers.
TESSERA_FORCE_INLINE void prefetch_level_2(void const* p) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T1);
#else
    __builtin_prefetch(p, 0, 2);
#endif
}

/// The value of every unsigned code of a format, for `look_up`. Padded to 16 so that 4-bit look-ups stay inside.
template <class Source>
struct value_table {
    static constexpr int size = Source::bits <= 4 ? 16 : 1 << Source::bits;
    alignas(64) float values[size];
    constexpr value_table() noexcept : values{} {
        for (int c = 0; c < size; ++c) values[c] = Source::value(static_cast<std::uint32_t>(c) & ((1u << Source::bits) - 1u));
    }
};
template <class Source>
inline constexpr value_table<Source> values_of{};

namespace detail {

template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> look_up_by_element(float const* table, ints<Arch> const& index) noexcept {
    alignas(64) std::int32_t i[lanes<Arch>];
    alignas(64) float v[lanes<Arch>];
    index.store_aligned(i);
    for (index_t l = 0; l < lanes<Arch>; ++l) v[l] = table[i[l]];
    return floats<Arch>::load_aligned(v);
}

#if defined(__aarch64__)
/// table[index] for indices below 16: a look-up of the four bytes of every number.
TESSERA_FORCE_INLINE float32x4_t look_up_16(float const* table, int32x4_t index) noexcept {
    uint8x16x4_t const bytes = {{vreinterpretq_u8_f32(vld1q_f32(table)), vreinterpretq_u8_f32(vld1q_f32(table + 4)),
                                 vreinterpretq_u8_f32(vld1q_f32(table + 8)), vreinterpretq_u8_f32(vld1q_f32(table + 12))}};
    int32x4_t const at = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_s32(at)));
}
#endif

} // namespace detail

/// The values of the codes of one column: `word` holds one vector of panel codes, `shift` is the bit at which the
/// column's code begins in each 32-bit lane, `Width` its bits there (4 or 8).
template <class Arch, class Source, int Width>
TESSERA_FORCE_INLINE floats<Arch> column_values(ints<Arch> const& word, int shift) noexcept {
    constexpr std::int32_t mask = (1 << Width) - 1;
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16 && Width == 4)
        // The permutation looks at the low four bits of an index only, so nothing has to be masked.
        return _mm512_permutexvar_ps(_mm512_srli_epi32(word, static_cast<unsigned>(shift)),
                                     _mm512_load_ps(values_of<Source>.values));
#endif
#if defined(__aarch64__)
    ints<Arch> const code = vandq_s32(vshlq_s32(word, vdupq_n_s32(-shift)), vdupq_n_s32(mask));
#else
    ints<Arch> const code = (word >> shift) & ints<Arch>(mask);
#endif
    if constexpr (Source::is_integer)
        return xsimd::to_float(code - ints<Arch>(Source::zero));
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_i32gather_ps(code, values_of<Source>.values, 4);
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_i32gather_ps(values_of<Source>.values, code, 4);
#endif
#if defined(__aarch64__)
    if constexpr (Source::bits <= 4) return detail::look_up_16(values_of<Source>.values, code);
#endif
    return detail::look_up_by_element<Arch>(values_of<Source>.values, code);
}

/// One zero point per row, from bytes.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_zero_points(std::uint8_t const* p) noexcept {
    alignas(64) std::int32_t z[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) z[i] = p[i];
    return ints<Arch>::load_aligned(z);
}

} // namespace tessera::inline TESSERA_ABI::simd
