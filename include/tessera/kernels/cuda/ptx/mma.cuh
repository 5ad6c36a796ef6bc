// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of matrix fragments of a warp (sm_80 and later).

#include "../../../core/types.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI::ptx {

/// mma.m16n8k16: d += a b, a (16, 16) and b (16, 8) of bf16, d (16, 8) of float32. Of lane 4 g + t, a's registers hold rows g,
/// g + 8, g, g + 8 at columns 2 t, 2 t + 1 (the last two: 8 columns on), b's the same of its column g, d's row g at columns 2 t,
/// 2 t + 1 and row g + 8 there.
__device__ __forceinline__ void mma_bf16(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/// mma.m16n8k16 without a sum before it: d = a b.
__device__ __forceinline__ void mma_bf16_first(float (&d)[4], std::uint32_t const (&a)[4], std::uint32_t b0, std::uint32_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %10, %10, %10};"
                 : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "f"(0.0f));
}

} // namespace tessera::inline TESSERA_ABI::ptx
