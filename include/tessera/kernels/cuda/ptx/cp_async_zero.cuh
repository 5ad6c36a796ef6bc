// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Copies to shared memory, of what there is: zeros for the rest.

#include "cp_async.cuh"

namespace tessera::inline TESSERA_ABI::ptx {

/// cp.async of 16 bytes, or 16 bytes of zeros and no look at `from`.
__device__ __forceinline__ void copy_async_or_zero(std::uint32_t to, void const* from, bool is_there) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(is_there ? 16 : 0) : "memory");
}

} // namespace tessera::inline TESSERA_ABI::ptx
