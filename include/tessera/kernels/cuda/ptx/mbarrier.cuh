// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Barriers in shared memory, copies of the copy engine that complete on them, and clusters of blocks (sm_90). A phase of a barrier
/// ends when its arrivals have come and as many bytes as were announced; the phases' parities alternate, beginning with 0.

#include "cp_async.cuh"

namespace tessera::inline TESSERA_ABI::ptx {

/// mbarrier.init, by one thread; `fence_barrier_init` before others use it.
__device__ __forceinline__ void init_barrier(std::uint32_t barrier, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void fence_barrier_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/// mbarrier.arrive.expect_tx: one arrival, and so many bytes to come.
__device__ __forceinline__ void arrive_and_expect(std::uint32_t barrier, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
/// mbarrier.arrive.
__device__ __forceinline__ void arrive(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// mbarrier.arrive at the barrier of the same address in block `rank` of the cluster.
__device__ __forceinline__ void arrive_at(std::uint32_t barrier, unsigned rank) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there];\n}" ::"r"(barrier), "r"(rank)
                 : "memory");
}
/// mapa: this address of shared memory in block `rank` of the cluster; an arrival there. (`arrive_at` finds the address anew.)
__device__ __forceinline__ std::uint32_t address_in(std::uint32_t address, unsigned rank) {
    std::uint32_t there;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
__device__ __forceinline__ void arrive_there(std::uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/// Until the phase of this parity has ended.
__device__ __forceinline__ void wait_barrier(std::uint32_t barrier, unsigned parity) {
    asm volatile("{\n.reg .pred done;\nagain_%=:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again_%=;\n}" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

/// cp.async.bulk: bytes and addresses are multiples of 16.
__device__ __forceinline__ void copy_bulk(std::uint32_t to, void const* from, unsigned bytes, std::uint32_t barrier) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to), "l"(from), "r"(bytes),
                 "r"(barrier)
                 : "memory");
}
/// The same into the blocks of the cluster that `mask` names, at this address in each, completing on its barrier of this address.
__device__ __forceinline__ void copy_bulk_multicast(std::uint32_t to, void const* from, unsigned bytes, std::uint32_t barrier, std::uint16_t mask) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, [%3], %4;" ::"r"(to),
                 "l"(from), "r"(bytes), "r"(barrier), "h"(mask)
                 : "memory");
}

/// barrier.cluster: all threads of the cluster; what they wrote to shared memory before is seen after it.
__device__ __forceinline__ void sync_cluster() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}

/// ld.shared::cluster: the number at this address in block `rank` of the cluster.
__device__ __forceinline__ float load_from(std::uint32_t address, unsigned rank) {
    float v;
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %1, %2;\nld.shared::cluster.f32 %0, [there];\n}"
                 : "=f"(v)
                 : "r"(address), "r"(rank)
                 : "memory");
    return v;
}

/// st.shared::cluster: writes the number at this address in block `rank` of the cluster.
__device__ __forceinline__ void store_to(std::uint32_t address, unsigned rank, float v) {
    asm volatile("{\n.reg .b32 there;\nmapa.shared::cluster.u32 there, %0, %1;\nst.shared::cluster.f32 [there], %2;\n}" ::"r"(address), "r"(rank), "f"(v)
                 : "memory");
}

/// bar.sync, bar.arrive: barrier `id` (1 to 15) of so many threads of the block; who arrives does not wait.
__device__ __forceinline__ void sync_named(int id, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }
__device__ __forceinline__ void arrive_named(int id, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

/// setmaxnreg: the registers of a thread of this warpgroup from now on.
template <int Registers>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}

} // namespace tessera::inline TESSERA_ABI::ptx
