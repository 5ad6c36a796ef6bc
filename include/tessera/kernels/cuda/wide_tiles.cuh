// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of more than 128 rows of x (sm_90a) with integers of up to 4 bits in groups of 128 columns, or multiples: tiles of 128 rows of W
/// and 256 rows of x, so that a number is decoded once for 256 products. Preparation `as_bf16` only.
///
/// That many sums leave no registers for those of a group. So the sums of a row of W are kept in units of the group's scale: where a
/// group begins, they are multiplied by the last scale over its own, and products of codes are added to them by wgmma. Float32 rounds
/// each time by 2^-24 of the sum, as multiply-adds do; a group whose scale is 0 keeps the units and multiplies no code. (Scales are fp16:
/// sums in units of the smallest one, 2^-24, are finite up to 2^104.)
///
/// Two warpgroups take turns: while one's 8 products of 128 columns run, the other puts its sums into their next units and decodes. Clusters
/// of two blocks cut the columns of a tile in two, exchange halves of their sums in shared memory and write y, where that fills the
/// processor; otherwise blocks take whole tiles, or cut the line of (tile, step) and leave parts, as in tiles.cuh.

#include "tiles.cuh"

namespace tessera::inline TESSERA_ABI::detail {

enum class wide_share { whole, parts, halves };

/// A step of 128 columns in shared memory: x, codes, scales.
template <class Panels>
struct wide_stage {
    using format = typename Panels::format;
    static constexpr bool serves = format::is_integer && format::width <= 4 && Panels::step_blocks == 2 && Panels::group_positions > 0 &&
                                   Panels::group_positions % 128 == 0 && !format::has_offsets && std::is_same_v<typename Panels::scale_type, fp16>;
    static constexpr int rows = 128;
    static constexpr int columns = 256; ///< rows of x
    static constexpr int x_bytes = 2 * columns * 128;
    static constexpr int block_bytes = static_cast<int>(8 * Panels::panel_block_bytes);
    static constexpr int scale_bytes = 2 * rows;
    static constexpr int codes_at = x_bytes;
    static constexpr int scales_at = codes_at + 2 * block_bytes;
    static constexpr int bytes = (scales_at + scale_bytes + 1023) / 1024 * 1024;
    static constexpr int stages = (226 * 1024 - 256) / bytes;
    static constexpr int shared_bytes = stages * bytes + 256;
    static constexpr int sum_stride = rows + 4; ///< of a column of sums that are exchanged: no two lanes of a warp meet in a bank
    static_assert(!serves || columns * sum_stride * 4 <= stages * bytes);
};
/// Blocks that the processor takes at once.
inline constexpr index_t wide_places = 132;

/// Where a block begins, and how many steps it takes.
struct wide_units {
    int tile;
    int step;
    int count;
};
template <wide_share Share, class Panels>
__device__ __forceinline__ wide_units units_of_block(tile_arguments<Panels> const& p) {
    auto const block = static_cast<int>(blockIdx.x);
    if constexpr (Share == wide_share::halves) {
        int const half = p.steps / 2;
        return {block / 2, block % 2 * half, block % 2 == 0 ? half : p.steps - half};
    } else {
        int const each = Share == wide_share::whole ? p.steps : 1;
        int const first = p.cut.first(block) * each;
        return {first / p.steps, first % p.steps, p.cut.first(block + 1) * each - first};
    }
}

/// Copies of a block's steps, asked for by one thread.
template <class Panels>
__device__ __forceinline__ void copy_wide_steps(tile_arguments<Panels> const& p, wide_units u, std::uint32_t ring) {
    using stage = wide_stage<Panels>;
    std::uint32_t const full = ring + stage::stages * stage::bytes;
    constexpr int steps_of_group = static_cast<int>(maximum(Panels::group_positions, 128)) / 128;
    auto const weights = [&](int tile, int step, int slot) {
        std::uint32_t const to = ring + slot * stage::bytes;
        std::uint32_t const barrier = full + 8 * slot;
        int const half = tile / p.column_tiles % 2;
        index_t const panels = tile / p.column_tiles / 2;
        ptx::arrive_and_expect(barrier, stage::x_bytes + 2 * stage::block_bytes + stage::scale_bytes);
        std::byte const* const codes = p.w.data() + (panels * p.steps + step) * (4 * stage::block_bytes) + half * stage::block_bytes;
#pragma unroll
        for (int b = 0; b < 2; ++b)
            ptx::copy_bulk(to + stage::codes_at + b * stage::block_bytes, codes + 2 * b * stage::block_bytes, stage::block_bytes, barrier);
        ptx::copy_bulk(to + stage::scales_at, p.w.scales() + (panels * p.groups + step / steps_of_group) * 256 + half * stage::rows, stage::scale_bytes,
                       barrier);
    };
    auto const columns = [&](int tile, int step, int slot) {
        ptx::copy_bulk(ring + slot * stage::bytes, p.columns + (static_cast<index_t>(tile % p.column_tiles) * p.steps + step) * stage::x_bytes,
                       stage::x_bytes, full + 8 * slot);
    };
    tile_position at{u.tile, u.step};
    tile_position late = at;
    int const count = u.count < stage::stages ? u.count : stage::stages;
    for (int i = 0; i < count; ++i) weights(at.tile, at.step, at.slot), at.advance<stage::stages>(p.steps);
    ptx::wait_for_prerequisites();
    for (int i = 0; i < count; ++i) columns(late.tile, late.step, late.slot), late.advance<stage::stages>(p.steps);
    for (int i = count; i < u.count; ++i) {
        ptx::wait_barrier(full + 8 * (stage::stages + at.slot), at.parity ^ 1);
        weights(at.tile, at.step, at.slot);
        columns(at.tile, at.step, at.slot);
        at.advance<stage::stages>(p.steps);
    }
}

/// What a warpgroup multiplies: 64 rows of W.
template <class Panels>
struct wide_consumer {
    using stage = wide_stage<Panels>;
    using decoder_type = fragment_decoder<typename Panels::format, 1>;
    static constexpr int words = Panels::format::width;
    tile_arguments<Panels> const& p;
    std::byte const* memory;
    std::uint32_t ring;
    int codes_of_lane;
    int scales_of_lane;
    bool is_second; ///< of the warpgroups

    std::uint32_t word[2][words];
    tile_fragments a[2];
    float unit[2]; ///< of the sums of this lane's rows, in which products of the step that has been read are
    float factor[2]; ///< from the units before
    bool hides[2]; ///< rows whose scale is 0 now
    bool hides_any; ///< in the warp

    __device__ __forceinline__ wide_consumer(tile_arguments<Panels> const& arguments, std::byte const* of_block)
        : p{arguments}, memory{of_block}, ring{ptx::shared_address(of_block)} {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        int const warp = static_cast<int>(threadIdx.x) / 32 - 4;
        codes_of_lane = stage::codes_at + warp * static_cast<int>(Panels::panel_block_bytes) + lane * static_cast<int>(Panels::lane_bytes);
        scales_of_lane = stage::scales_at + (warp * 16 + lane / 4) * 2;
        is_second = warp >= 4;
        unit[0] = unit[1] = 1.0f;
    }

    /// Reads a step's codes, and turns to its scales.
    __device__ __forceinline__ void read(int slot) {
        std::byte const* const at = memory + slot * stage::bytes;
#pragma unroll
        for (int b = 0; b < 2; ++b) {
            auto const* const from = reinterpret_cast<std::uint32_t const*>(at + codes_of_lane + b * stage::block_bytes);
            if constexpr (words == 4) {
                ::uint4 const w = *reinterpret_cast<::uint4 const*>(from);
                word[b][0] = w.x, word[b][1] = w.y, word[b][2] = w.z, word[b][3] = w.w;
            } else {
#pragma unroll
                for (int i = 0; i < words; ++i) word[b][i] = from[i];
            }
        }
        auto const* const scales = reinterpret_cast<fp16 const*>(at + scales_of_lane);
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float const scale = stored_to_float(scales[8 * h]);
            hides[h] = scale == 0.0f;
            float const next = hides[h] ? unit[h] : scale;
            factor[h] = next == unit[h] ? 1.0f : __fdividef(unit[h], next);
            unit[h] = next;
        }
        hides_any = __any_sync(~0u, hides[0] || hides[1]);
    }
    template <int B>
    __device__ __forceinline__ void decode() {
        decoder_type const decoder{nullptr};
        decoder.template decode<0, 0>(word[B], {}, a[B].v[0]);
        decoder.template decode<1, 0>(word[B], {}, a[B].v[1]);
        decoder.template decode<2, 0>(word[B], {}, a[B].v[2]);
        decoder.template decode<3, 0>(word[B], {}, a[B].v[3]);
        if (hides_any) {
#pragma unroll
            for (int i = 0; i < 16; ++i)
                if (hides[i % 2]) a[B].v[i / 4][i % 4] = 0;
        }
    }
    template <int B>
    __device__ __forceinline__ void multiply(int slot, bool adds, float (&total)[128]) const {
        std::uint64_t const x = ptx::matrix_descriptor(ring + slot * stage::bytes) + B * stage::columns * 8;
        ptx::fence_group();
#pragma unroll
        for (int f = 0; f < 4; ++f) ptx::multiply(total, a[B].v[f], x + 2 * f, f > 0 || adds);
        ptx::commit_group();
    }

    /// finish(tile, sums) where a tile ends, or the units do.
    template <class F>
    __device__ __forceinline__ void run(wide_units u, F const& finish) {
        float total[128];
        std::uint32_t const full = ring + stage::stages * stage::bytes;
        std::uint32_t const empty = full + 8 * stage::stages;
        int const mine = is_second ? 2 : 1; // barriers of turns
        ptx::wait_barrier(full, 0);
        read(0);
        decode<0>();
        decode<1>();
        if (is_second) ptx::arrive_named(1, 256);
        int slot = 0;
        unsigned parity = 0;
        int left = u.count;
#pragma unroll 1
        while (left > 0) {
            int count = p.steps - u.step < left ? p.steps - u.step : left;
            left -= count;
            bool adds = false;
#pragma unroll 1
            for (; count > 0; --count) {
                int const next = slot + 1 == stage::stages ? 0 : slot + 1;
                unsigned const next_parity = next == 0 ? parity ^ 1 : parity;
                bool const is_last = left + count == 1;
                ptx::sync_named(mine, 256);
                multiply<0>(slot, adds, total);
                multiply<1>(slot, true, total);
                if (!is_last || !is_second) ptx::arrive_named(3 - mine, 256);
                float const old[2] = {unit[0], unit[1]};
                if (!is_last) ptx::wait_barrier(full + 8 * next, next_parity);
                read(next); // after the last step: what nobody uses
                ptx::wait_group<1>();
                decode<0>();
                ptx::wait_group<0>();
                __syncwarp();
                if (threadIdx.x % 32 == 0) ptx::arrive(empty + 8 * slot);
                float const by[2] = {count == 1 ? old[0] : factor[0], count == 1 ? old[1] : factor[1]};
#pragma unroll
                for (int i = 0; i < 128; ++i) total[i] *= by[i / 2 % 2];
                decode<1>();
                adds = true;
                slot = next;
                parity = next_parity;
            }
            finish(u.tile, total);
            u.step = 0;
            ++u.tile;
        }
    }
};

/// Parts of the sums of block and tile, (256, 128).
template <class Panels>
__device__ __forceinline__ float* wide_part(tile_arguments<Panels> const& p, int block, int tile) {
    return p.parts + static_cast<index_t>(block + tile) * p.part_columns * wide_stage<Panels>::rows;
}

/// y of a tile whose k two blocks of a cluster share: each takes the other's sums of the half of the columns that it writes.
/// `row`: of the tile, of this lane's first sums.
template <class Panels, class Out>
__device__ __forceinline__ void write_half(tile_arguments<Panels> const& p, Out const& out, float const (&sums)[128], std::byte const* tile_memory,
                                           std::uint32_t ring, index_t n0, int m0, int row) {
    using stage = wide_stage<Panels>;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    auto const rank = static_cast<int>(blockIdx.x % 2);
    ptx::sync_cluster(); // both have multiplied what is in their rings
#pragma unroll
    for (int i = 0; i < 128; ++i) {
        int const column = i / 4 % 16 * 8 + lane % 4 * 2 + i % 2; // of the half of the columns that block i / 64 writes
        ptx::store_to(ring + 4 * ((rank * 128 + column) * stage::sum_stride + row + i % 4 / 2 * 8), static_cast<unsigned>(i / 64), sums[i]);
    }
    ptx::sync_cluster();
    auto const* const halves = reinterpret_cast<float const*>(tile_memory);
    int const r = static_cast<int>(threadIdx.x) % 128;
    if (n0 + r < p.w.rows()) {
        auto const of_row = output_row(out, n0 + r);
        for (int c = static_cast<int>(threadIdx.x) / 128 - 1; c < 128; c += 2) {
            int const m = m0 + rank * 128 + c;
            if (m < p.m) of_row(p.m0 + m, halves[c * stage::sum_stride + r] + halves[(128 + c) * stage::sum_stride + r]);
        }
    }
}

template <wide_share Share, class Panels, class Out>
__global__ void __launch_bounds__(384, 1) wide_tile_kernel(__grid_constant__ tile_arguments<Panels> const p, __grid_constant__ Out const out) {
    using stage = wide_stage<Panels>;
    extern __shared__ __align__(1024) std::byte tile_memory[];
    std::uint32_t const ring = ptx::shared_address(tile_memory);
    ptx::launch_dependents();
    if (threadIdx.x == 0) {
        std::uint32_t const full = ring + stage::stages * stage::bytes;
        for (int s = 0; s < stage::stages; ++s) {
            ptx::init_barrier(full + 8 * s, 1);
            ptx::init_barrier(full + 8 * (stage::stages + s), 8); // warps that multiply
        }
        ptx::fence_barrier_init();
    }
    __syncthreads();
    wide_units const units = units_of_block<Share>(p);
    if (threadIdx.x < 128) {
        ptx::give_registers<40>();
        if (threadIdx.x < 32 && ptx::elect()) copy_wide_steps<Panels>(p, units, ring);
        __syncwarp();
        if constexpr (Share == wide_share::halves) {
            ptx::sync_cluster();
            ptx::sync_cluster();
        }
    } else {
        ptx::take_registers<232>();
        wide_consumer<Panels> consumer{p, tile_memory};
        int const lane = static_cast<int>(threadIdx.x) % 32;
        int const row = (static_cast<int>(threadIdx.x) / 32 - 4) * 16 + lane / 4; // of the tile, of this lane's first sums
        consumer.run(units, [&](int tile, float const(&sums)[128]) {
            index_t const n0 = static_cast<index_t>(tile / p.column_tiles) * stage::rows;
            int const m0 = tile % p.column_tiles * stage::columns;
            if constexpr (Share == wide_share::halves) {
                write_half(p, out, sums, tile_memory, ring, n0, m0, row);
            } else if constexpr (Share == wide_share::whole) {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    index_t const n = n0 + row + 8 * h;
                    if (n >= p.w.rows()) continue;
                    auto const of_row = output_row(out, n);
#pragma unroll
                    for (int i = 0; i < 64; ++i) {
                        int const m = m0 + i / 2 * 8 + lane % 4 * 2 + i % 2;
                        if (m < p.m) of_row(p.m0 + m, sums[i / 2 * 4 + 2 * h + i % 2]);
                    }
                }
            } else {
                float* const part = wide_part(p, static_cast<int>(blockIdx.x), tile);
#pragma unroll
                for (int i = 0; i < 128; ++i) {
                    int const column = i / 4 * 8 + lane % 4 * 2 + i % 2;
                    if (m0 + column < p.m) part[column * stage::rows + row + i % 4 / 2 * 8] = sums[i];
                }
            }
        });
    }
}

/// y of 256 rows of W, from blockIdx.x on, and row of x blockIdx.y: parts of a tile in the order of k.
template <class Panels, class Out>
__global__ void __launch_bounds__(256) add_wide_tiles_kernel(__grid_constant__ tile_arguments<Panels> const p, __grid_constant__ Out const out) {
    using stage = wide_stage<Panels>;
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    auto const m = static_cast<int>(blockIdx.y);
    auto const n = static_cast<int>(blockIdx.x * 256 + threadIdx.x);
    if (n >= p.w.rows()) return;
    int const tile = n / stage::rows * p.column_tiles + m / stage::columns;
    int const first = p.cut.owner(tile * p.steps);
    int const last = p.cut.owner(tile * p.steps + p.steps - 1);
    float sum = 0.0f;
    for (int block = first; block <= last; ++block) sum += __ldcg(wide_part(p, block, tile) + m % stage::columns * stage::rows + n % stage::rows);
    out(p.m0 + m, n, sum);
}

} // namespace tessera::inline TESSERA_ABI::detail
