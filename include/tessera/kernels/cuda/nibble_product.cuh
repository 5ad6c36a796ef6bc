// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of int4 in groups and int8 by the integer matrix units of sm_90a: W is decoded in registers, x lies in shared memory as
/// `byte_product.cuh` has it.
///
/// A block of threads takes tiles of 128 * Waves rows of W and N rows of x. An elected thread has the copy engine fill a ring of steps of 128
/// columns, two warpgroups decode and multiply, 64 rows of each 128 (a wave) each. A group's sum, or a step's where groups are longer,
/// is exact in int32 (and below 2^22: int4 is multiplied as 16 times itself), becomes float32 without rounding and is added times its scale.
/// Every element's sums are made in the order of k, by whatever tile.

#include "../../storage/device_nibbles.hpp"
#include "byte_product.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Blocks of threads that fit the processor.
inline constexpr index_t nibble_blocks = 132;

/// A step of a block of threads in shared memory.
template <class Nibbles, int Waves, int N>
struct nibble_stage {
    using scale_type = typename Nibbles::scale_type;
    static constexpr int groups = Nibbles::group < 128 ? static_cast<int>(128 / Nibbles::group) : 1;
    static constexpr int x_bytes = N * 128;
    static constexpr int w_bytes = Waves * 128 * 64;
    static constexpr int scale_bytes = Waves * 128 * static_cast<int>(sizeof(scale_type));
    static constexpr int w_at = x_bytes;
    static constexpr int scales_at = w_at + w_bytes;
    static constexpr int bytes = (scales_at + groups * scale_bytes + 1023) / 1024 * 1024;
    static constexpr int of_memory = (226 * 1024 - 256) / bytes;
    static constexpr int stages = of_memory < 8 ? of_memory : 8;
    static constexpr int shared_bytes = stages * bytes + 256;
};

template <class Nibbles>
struct nibble_arguments {
    Nibbles w;
    byte_arguments of; ///< without W
};

/// The copies of a block of threads, asked for by one thread.
template <class Nibbles, int Waves, int N>
struct nibble_producer {
    using stage = nibble_stage<Nibbles, Waves, N>;
    nibble_arguments<Nibbles> const& p;
    std::uint32_t ring;
    std::uint32_t full; ///< barriers, 8 bytes each; those of empty stages follow

    __device__ __forceinline__ void run() const {
        byte_position at;
        ptx::wait_for_prerequisites();
        for (int tile = static_cast<int>(blockIdx.x); tile < p.of.tiles; tile += static_cast<int>(gridDim.x)) {
            byte_tile const t{p.of, tile};
            index_t const first = index_t{t.w} * 128 * Waves; // row of W
            std::byte const* w = p.w.data() + first / 256 * p.of.steps * (256 * 64) + first % 256 * 64;
            std::byte const* x = p.of.x + index_t{t.x} * stage::x_bytes;
            auto const* const scales = p.w.scales() + first / 256 * p.w.groups() * 256 + first % 256;
            for (int step = 0; step < p.of.steps; ++step) {
                std::uint32_t const to = ring + at.slot * stage::bytes;
                std::uint32_t const barrier = full + 8 * at.slot;
                ptx::wait_barrier(full + 8 * (stage::stages + at.slot), at.parity ^ 1);
                ptx::arrive_and_expect(barrier, stage::x_bytes + stage::w_bytes + stage::groups * stage::scale_bytes);
                ptx::copy_bulk(to + stage::w_at, w, stage::w_bytes, barrier);
                ptx::copy_bulk(to, x, stage::x_bytes, barrier);
                index_t const group = Nibbles::group < 128 ? index_t{step} * stage::groups : index_t{step} / (Nibbles::group / 128);
#pragma unroll
                for (int g = 0; g < stage::groups; ++g)
                    ptx::copy_bulk(to + stage::scales_at + g * stage::scale_bytes, scales + (group + g) * 256, stage::scale_bytes, barrier);
                w += 256 * 64;
                x += index_t{p.of.rows} * 128;
                at.advance<stage::stages>();
            }
        }
    }
};

/// A warpgroup's products: 64 rows of W of each wave.
template <class Nibbles, int Waves, int N>
struct nibble_consumer {
    using stage = nibble_stage<Nibbles, Waves, N>;
    nibble_arguments<Nibbles> const& p;
    std::byte const* ring;
    std::uint32_t full;

    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
    static __device__ __forceinline__ int warp() { return static_cast<int>(threadIdx.x) / 32 - 4; } ///< of both warpgroups

    static __device__ __forceinline__ float scale_of(std::byte const* at, int row) {
        return stored_to_float(reinterpret_cast<typename stage::scale_type const*>(at)[row]);
    }
    /// Registers of 32 columns: 16 times the integers.
    static __device__ __forceinline__ void decode(std::uint32_t first, std::uint32_t second, std::uint32_t (&a)[4]) {
        a[0] = first << 4 & 0xf0f0f0f0u;
        a[1] = first & 0xf0f0f0f0u;
        a[2] = second << 4 & 0xf0f0f0f0u;
        a[3] = second & 0xf0f0f0f0u;
    }

    /// Row r of a wave's codes in shared memory: of both halves of a step's columns.
    struct codes {
        ::uint4 low;
        ::uint4 high;
        __device__ __forceinline__ codes(std::byte const* here, int wave) {
            auto const* const from = reinterpret_cast<::uint4 const*>(here + stage::w_at + wave * 8192 + warp() / 4 * 4096 + warp() % 4 * 512) + lane();
            low = from[0];
            high = from[128];
        }
        __device__ __forceinline__ void decode_to(std::uint32_t (&a)[4][4]) const {
            decode(low.x, low.y, a[0]);
            decode(low.z, low.w, a[1]);
            decode(high.x, high.y, a[2]);
            decode(high.z, high.w, a[3]);
        }
    };

    /// Sums of a tile, by pieces: `width` rows of x by a group's columns. A piece's products run while the one's before it meet their scales.
    __device__ __forceinline__ void sum(byte_position& at, float (&total)[Waves][N / 2]) const {
        constexpr int width = N < 128 ? N : 64;
        constexpr int across = N / width;                  // pieces of a group
        constexpr int of_wave = stage::groups * across;    // pieces
        constexpr int each = 4 / stage::groups;            // products of 32 columns in a piece
        int part[2][width / 2];
#pragma unroll
        for (int i = 0; i < Waves * N / 2; ++i) total[i / (N / 2)][i % (N / 2)] = 0.0f;
#pragma unroll 1
        for (int step = 0; step < p.of.steps; ++step) {
            std::byte const* const here = ring + at.slot * stage::bytes;
            ptx::wait_barrier(full + 8 * at.slot, at.parity);
            std::uint64_t const b = ptx::matrix_descriptor(ptx::shared_address(here));
            codes next{here, 0};
            std::uint32_t a[4][4];
#pragma unroll
            for (int i = 0; i <= Waves * of_wave; ++i) { // piece i begins, i - 1 ends
                if (i < Waves * of_wave) {
                    if (i % of_wave == 0) {
                        if (i > 0) ptx::wait_group<0>(); // a is free
                        next.decode_to(a);
                    }
                    int const first = i % of_wave / across * each;
                    ptx::hold(part[i % 2]);
                    ptx::fence_group();
#pragma unroll
                    for (int f = 0; f < each; ++f)
                        ptx::multiply_bytes(part[i % 2], a[first + f], b + i % across * (width * 8) + 2 * (first + f), f > 0);
                    ptx::commit_group();
                    if (i % of_wave == of_wave - 1 && i + 1 < Waves * of_wave) next = codes{here, i / of_wave + 1};
                }
                if (i == 0) continue;
                int const wave = (i - 1) / of_wave;
                std::byte const* const scales = here + stage::scales_at + (i - 1) % of_wave / across * stage::scale_bytes;
                int const row = wave * 128 + warp() * 16 + lane() / 4;
                float const s0 = scale_of(scales, row);
                float const s1 = scale_of(scales, row + 8);
                if (i == Waves * of_wave)
                    ptx::wait_group<0>();
                else if (i % of_wave > 0)
                    ptx::wait_group<1>();
                ptx::hold(part[(i - 1) % 2]);
                if (i == Waves * of_wave) release(at.slot);
#pragma unroll
                for (int j = 0; j < width / 2; ++j) {
                    float& sum = total[wave][(i - 1) % across * (width / 2) + j];
                    sum = fmaf(j % 4 < 2 ? s0 : s1, static_cast<float>(part[(i - 1) % 2][j]), sum);
                }
            }
            at.advance<stage::stages>();
        }
    }
    /// Every thread says itself that it has read: a race checker does not follow a warp's own synchronisation.
    __device__ __forceinline__ void release(int slot) const { ptx::arrive(full + 8 * (stage::stages + slot)); }

    template <class Out>
    __device__ __forceinline__ void run(Out const& out) const {
        byte_position at;
        for (int tile = static_cast<int>(blockIdx.x); tile < p.of.tiles; tile += static_cast<int>(gridDim.x)) {
            byte_tile const t{p.of, tile};
            float total[Waves][N / 2];
            sum(at, total);
            int const n0 = t.w * 128 * Waves + warp() * 16 + lane() / 4;
            int const m0 = t.x * N + lane() % 4 * 2;
#pragma unroll
            for (int j = 0; j < N / 4; ++j) {
                int const m = m0 + j / 2 * 8 + j % 2;
                if (m >= p.of.m) continue;
                float const scale = __ldcg(p.of.x_scales + m) * 0.0625f;
#pragma unroll
                for (int r = 0; r < 2 * Waves; ++r) {
                    int const n = n0 + r / 2 * 128 + r % 2 * 8;
                    if (n < p.of.n) out(m, n, total[r / 2][j / 2 * 4 + r % 2 * 2 + j % 2] * scale);
                }
            }
        }
    }
};

template <class Nibbles, int Waves, int N, class Out>
__global__ void __launch_bounds__(384, 1) nibble_kernel(__grid_constant__ nibble_arguments<Nibbles> const p, __grid_constant__ Out const out) {
    using stage = nibble_stage<Nibbles, Waves, N>;
    extern __shared__ __align__(1024) std::byte nibble_memory[];
    std::uint32_t const full = ptx::shared_address(nibble_memory + stage::stages * stage::bytes);
    ptx::launch_dependents();
    if (threadIdx.x == 0) {
        for (int s = 0; s < stage::stages; ++s) {
            ptx::init_barrier(full + 8 * s, 1);
            ptx::init_barrier(full + 8 * (stage::stages + s), 256); // threads that multiply
        }
        ptx::fence_barrier_init();
    }
    __syncthreads();
    if (threadIdx.x < 128) {
        ptx::give_registers<40>();
        if (threadIdx.x < 32 && ptx::elect()) nibble_producer<Nibbles, Waves, N>{p, ptx::shared_address(nibble_memory), full}.run();
    } else {
        ptx::take_registers<232>();
        nibble_consumer<Nibbles, Waves, N>{p, nibble_memory, full}.run(out);
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
