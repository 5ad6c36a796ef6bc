// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Counters that order the memory of blocks of threads.

#include "../../../core/types.hpp"

namespace tessera::inline TESSERA_ABI::ptx {

/// atom.add.acq_rel.gpu: the old value; what this thread wrote before is seen by who reads the counter later in this way.
__device__ __forceinline__ unsigned add_acquire_release(unsigned* counter, unsigned value) {
    unsigned old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(value) : "memory");
    return old;
}

/// ld.acquire.gpu: what was written before the additions that made this value is seen.
__device__ __forceinline__ unsigned load_acquire(unsigned const* counter) {
    unsigned value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
    return value;
}

} // namespace tessera::inline TESSERA_ABI::ptx
