// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Sums and differences of lanes whose numbers differ in one bit: the steps of a Walsh-Hadamard transform inside a register.

#include "memory.hpp"

#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

/// Lane i becomes lane i xor Distance.
template <class Arch, int Distance>
TESSERA_FORCE_INLINE floats<Arch> swap_lanes(floats<Arch> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        if constexpr (Distance == 1) return _mm512_maskz_permute_ps(every_lane, v, 0xb1);
        if constexpr (Distance == 2) return _mm512_maskz_permute_ps(every_lane, v, 0x4e);
        if constexpr (Distance == 4) return _mm512_maskz_shuffle_f32x4(every_lane, v, v, 0xb1);
        if constexpr (Distance == 8) return _mm512_maskz_shuffle_f32x4(every_lane, v, v, 0x4e);
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8) {
        if constexpr (Distance == 1) return _mm256_permute_ps(v, 0xb1);
        if constexpr (Distance == 2) return _mm256_permute_ps(v, 0x4e);
        if constexpr (Distance == 4) return _mm256_permute2f128_ps(v, v, 1);
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (lanes<Arch> == 4) {
        if constexpr (Distance == 1) return _mm_shuffle_ps(v, v, 0xb1);
        if constexpr (Distance == 2) return _mm_shuffle_ps(v, v, 0x4e);
    }
#endif
#if defined(__aarch64__)
    if constexpr (Distance == 1) return vrev64q_f32(v);
    if constexpr (Distance == 2) return vextq_f32(v, v, 2);
#endif
}

/// 1 where the lane's number has the bit `Distance` clear, -1 where it is set.
template <class Arch, int Distance>
TESSERA_FORCE_INLINE floats<Arch> lane_signs() noexcept {
    alignas(64) float sign[lanes<Arch>];
    for (int i = 0; i < static_cast<int>(lanes<Arch>); ++i) sign[i] = (i & Distance) == 0 ? 1.0f : -1.0f;
    return floats<Arch>::load_aligned(sign);
}

} // namespace detail

/// The Walsh-Hadamard transform of a register, natural order, not normalised.
template <class Arch, int Distance = 1>
TESSERA_FORCE_INLINE floats<Arch> walsh_hadamard(floats<Arch> const& v) noexcept {
    floats<Arch> const next = fma(v, detail::lane_signs<Arch, Distance>(), detail::swap_lanes<Arch, Distance>(v)); // exact products
    if constexpr (2 * Distance < static_cast<int>(lanes<Arch>))
        return walsh_hadamard<Arch, 2 * Distance>(next);
    else
        return next;
}

} // namespace tessera::inline TESSERA_ABI::simd
