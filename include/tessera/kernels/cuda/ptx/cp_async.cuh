// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Copies from global to shared memory that run on while the thread does something else (sm_80 and later). A thread's copies
/// since its last `commit` are a group; `wait<N>` waits until at most N of its groups are under way.

#include "../../../core/types.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI::ptx {

/// The address of shared memory as instructions take it.
__device__ __forceinline__ std::uint32_t shared_address(void const* p) {
    return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

/// cp.async: Bytes = 4, 8 or 16, aligned; 16 pass the first-level cache by.
template <int Bytes>
__device__ __forceinline__ void copy_async(std::uint32_t to, void const* from) {
    if constexpr (Bytes == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(to), "l"(from), "n"(Bytes) : "memory");
}

/// createpolicy: the second-level cache gives up lines that are read once before others.
__device__ __forceinline__ std::uint64_t cache_policy(bool is_read_once) {
    std::uint64_t policy;
    if (is_read_once)
        asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    else
        asm volatile("createpolicy.fractional.L2::evict_normal.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
/// cp.async of 16 bytes under a policy.
__device__ __forceinline__ void copy_async_under(std::uint64_t policy, std::uint32_t to, void const* from) {
    asm volatile("cp.async.cg.shared.global.L2::cache_hint [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "l"(policy) : "memory");
}

/// prefetch.global.L2: the line, into the second-level cache.
__device__ __forceinline__ void prefetch(void const* p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

/// cp.async.commit_group.
__device__ __forceinline__ void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// cp.async.wait_group.
template <int Pending>
__device__ __forceinline__ void wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
}

} // namespace tessera::inline TESSERA_ABI::ptx
