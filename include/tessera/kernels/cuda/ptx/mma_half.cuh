// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products and conversions of fp16 and bf16 alike (sm_80 and later).

#include "../../../numerics/half.hpp"
#include "mma.cuh"

#include <type_traits>

namespace tessera::inline TESSERA_ABI::ptx {

/// mma.m16n8k16 of T's: d += a b, registers as those of `mma_bf16`.
template <class T>
__device__ __forceinline__ void mma(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    if constexpr (std::is_same_v<T, bf16>)
        mma_bf16(d, a, b0, b1);
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// cvt.rn: two floats rounded to nearest even, the first in the lower half.
template <class T>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
    std::uint32_t word;
    if constexpr (std::is_same_v<T, bf16>)
        asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    else
        asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}

/// ex2.approx.ftz: 2^x, within 2^-22 of itself; results below 2^-126 are 0.
__device__ __forceinline__ float exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

} // namespace tessera::inline TESSERA_ABI::ptx
