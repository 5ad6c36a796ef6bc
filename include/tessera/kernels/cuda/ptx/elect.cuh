// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// One thread of a warp (sm_90).

#include "../../../core/types.hpp"

namespace tessera::inline TESSERA_ABI::ptx {

/// elect.sync: true in one thread of a whole warp. The compiler then knows that one thread is there and issues copies one after
/// another; behind `threadIdx.x == 0` it puts each into a loop over threads, which takes 100 cycles.
__device__ __forceinline__ bool elect() {
    unsigned is_elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.u32 %0, 1, 0, p;\n}" : "=r"(is_elected));
    return is_elected != 0;
}

} // namespace tessera::inline TESSERA_ABI::ptx
