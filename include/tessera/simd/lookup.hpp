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

/// `width` bits of each lane, from `bit` on.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> bit_field(ints<Arch> const& word, int bit, int width) noexcept {
    return (word >> bit) & ints<Arch>((1 << width) - 1);
}

} // namespace tessera::inline TESSERA_ABI::simd
