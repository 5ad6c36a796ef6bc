// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of many rows of x (sm_90a): wgmma with W decoded in registers, x in shared memory. Preparation `as_bf16` only, whose
/// sums may depend on the number of rows.
///
/// Tiles are 256 rows of W and N rows of x. Up to 64 rows of x a block of threads takes one alone: one thread has the copy engine fill a
/// ring of steps, four warpgroups decode and multiply, and while one of them decodes, others keep the matrix units busy. For 128 rows
/// of x sums leave registers for two warpgroups, so that two blocks, a cluster, take a tile, 128 rows of W each; x comes to both by one
/// copy. A warpgroup decodes a block of 64 positions while the one before it is multiplied. Sums of a group stay in accumulators
/// and meet their scale in float32, so that products are exact. Blocks take whole tiles; where that would leave the processor idle
/// they cut the line of (tile, step) as `product_kernel` does and leave parts, which `add_tiles_kernel` adds in the order of k. (Clusters
/// of 4 and 8 blocks, which add their sums in shared memory, took twice the time: only half of them find room at once.)

#include "prepare.cuh"
#include "ptx/elect.cuh"
#include "ptx/grid_dependency.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/wgmma_registers.cuh"
#include "stream.cuh"

#include <utility>

namespace tessera::inline TESSERA_ABI::detail {

/// Warpgroups of a block that multiply, for tiles of N rows of x: 4, which take a tile alone, where their sums find room in registers, or 2.
template <int N>
inline constexpr int tile_warpgroups = N <= 64 ? 4 : 2;
/// Blocks that share a tile of 256 rows of W.
template <int N>
inline constexpr int tile_blocks = 4 / tile_warpgroups<N>;
/// Tiles that the processor takes at once.
template <int N>
inline constexpr index_t tile_places = 132 / tile_blocks<N>;

/// A step of a block of threads in shared memory: x, codes, scales, offsets, sums of x.
template <class Panels, int N>
struct tile_stage {
    using format = typename Panels::format;
    static constexpr int rows = 64 * tile_warpgroups<N>;
    static constexpr int blocks = static_cast<int>(Panels::step_blocks);
    static constexpr int positions = 64 * blocks;
    static constexpr int padded = format::has_scales ? static_cast<int>(Panels::group_positions) : 0;
    static constexpr int divisor = padded == 0 ? 1 : padded;
    /// Groups end where steps do, or divide them.
    static constexpr bool serves = padded == 0 || padded % positions == 0 || (positions % divisor == 0 && (64 % divisor == 0 || padded % 64 == 0));
    static constexpr bool has_groups = format::has_scales && padded != 0;
    static constexpr int groups = !has_groups ? 0 : padded >= positions ? 1 : positions / divisor;
    static constexpr int x_bytes = blocks * N * 128;
    static constexpr int block_bytes = rows / 16 * static_cast<int>(Panels::panel_block_bytes);
    static constexpr int scale_bytes = rows * static_cast<int>(sizeof(typename Panels::scale_type));
    static constexpr int offset_bytes = has_groups && format::has_offsets ? 4 * rows : 0;
    static constexpr int sum_bytes = has_groups && format::has_offsets ? 4 * N : 0;
    static constexpr int codes_at = x_bytes;
    static constexpr int scales_at = codes_at + blocks * block_bytes;
    static constexpr int offsets_at = scales_at + groups * scale_bytes;
    static constexpr int sums_at = offsets_at + groups * offset_bytes;
    static constexpr int bytes = (sums_at + groups * sum_bytes + 1023) / 1024 * 1024;

    using decoder = fragment_decoder<format, 1>;
    static constexpr int barrier_bytes = 256;
    static constexpr int of_memory = (226 * 1024 - barrier_bytes - decoder::table_bytes) / bytes;
    static constexpr int most = decoder::gathers ? 3 : 16;
    static constexpr int stages = of_memory < most ? of_memory : most;
    static constexpr int shared_bytes = stages * bytes + decoder::table_bytes + barrier_bytes;
};

template <class Panels>
struct tile_arguments {
    Panels w;
    stream_cut cut;
    int steps;
    int groups;
    int column_tiles;
    bool is_whole; ///< the cut is of tiles, not of units
    std::byte const* columns; ///< (column tiles, blocks, N, 128 bytes), as `matrix_descriptor` has them
    float const* sums;        ///< (groups, column tiles, N) of x, where W has offsets
    float* parts;             ///< (blocks that take units of their own + tiles, part columns, rows of W of a tile)
    int part_columns;
    index_t m0;
    int m;
    decode_table<typename Panels::format> table;
};

/// Where a block of threads is in its units.
struct tile_position {
    int tile; ///< row tile * column tiles + column tile
    int step;
    int slot = 0;
    unsigned parity = 0;
    template <int Stages>
    __device__ __forceinline__ void advance(int steps) {
        if (++step == steps) step = 0, ++tile;
        if (++slot == Stages) slot = 0, parity ^= 1;
    }
};

/// The copies of one block of threads, asked for by one thread.
template <class Panels, int N>
struct tile_producer {
    using stage = tile_stage<Panels, N>;
    static constexpr int shares = tile_blocks<N>;
    tile_arguments<Panels> const& p;
    std::uint32_t ring;
    std::uint32_t full; ///< barriers, 8 bytes each; those of empty stages follow
    unsigned rank; ///< of the blocks that share the tile's rows of W

    __device__ __forceinline__ int first_group(int step) const { return step * stage::positions / stage::divisor; }
    __device__ __forceinline__ int group_count(int step) const {
        int const there = p.groups - first_group(step);
        return there < stage::groups ? (there > 0 ? there : 0) : stage::groups;
    }
    __device__ __forceinline__ void load_weights(tile_position const& at) const {
        std::uint32_t const to = ring + at.slot * stage::bytes;
        std::uint32_t const barrier = full + 8 * at.slot;
        int const count = stage::groups > 0 ? group_count(at.step) : 0;
        int const tile = at.tile / p.column_tiles;
        ptx::arrive_and_expect(barrier, stage::x_bytes + stage::blocks * stage::block_bytes +
                                            count * (stage::scale_bytes + stage::offset_bytes + stage::sum_bytes));
        constexpr int block_bytes = shares * stage::block_bytes;
        std::byte const* const codes =
            p.w.data() + (static_cast<index_t>(tile) * p.steps + at.step) * (stage::blocks * block_bytes) + rank * stage::block_bytes;
        constexpr int pieces = shares == 1 ? 1 : stage::blocks;
        constexpr int piece = stage::blocks / pieces * stage::block_bytes;
#pragma unroll
        for (int b = 0; b < (piece > 0 ? pieces : 0); ++b) ptx::copy_bulk(to + stage::codes_at + b * piece, codes + b * block_bytes, piece, barrier);
        if constexpr (stage::groups > 0) {
            for (int g = 0; g < count; ++g) {
                index_t const from = (index_t{tile} * stored_groups_of(p) + p.w.stored_group(first_group(at.step) + g)) * 256 + stage::rows * rank;
                ptx::copy_bulk(to + stage::scales_at + g * stage::scale_bytes, p.w.scales() + from, stage::scale_bytes, barrier);
                if constexpr (stage::offset_bytes > 0)
                    ptx::copy_bulk(to + stage::offsets_at + g * stage::offset_bytes, p.w.offsets() + from, stage::offset_bytes, barrier);
            }
        }
    }
    /// What earlier kernels wrote: x (half of it, to both blocks that share a tile), and the sums.
    __device__ __forceinline__ void load_columns(tile_position const& at) const {
        std::uint32_t const to = ring + at.slot * stage::bytes;
        std::uint32_t const barrier = full + 8 * at.slot;
        int const column_tile = at.tile % p.column_tiles;
        if constexpr (stage::sum_bytes > 0)
            for (int g = 0; g < group_count(at.step); ++g)
                ptx::copy_bulk(to + stage::sums_at + g * stage::sum_bytes,
                               p.sums + (static_cast<index_t>(first_group(at.step) + g) * p.column_tiles + column_tile) * N, stage::sum_bytes, barrier);
        std::byte const* const from = p.columns + (static_cast<index_t>(column_tile) * p.steps + at.step) * stage::x_bytes;
        if constexpr (shares == 1) {
            ptx::copy_bulk(to, from, stage::x_bytes, barrier);
        } else {
            constexpr int half = stage::x_bytes / 2;
            ptx::copy_bulk_multicast(to + rank * half, from + rank * half, half, barrier, 3);
        }
    }
    __device__ __forceinline__ void run(tile_position early, int units) const {
        tile_position late = early;
        int const count = units < stage::stages ? units : stage::stages;
        for (int i = 0; i < count; ++i) load_weights(early), early.advance<stage::stages>(p.steps);
        ptx::wait_for_prerequisites();
        for (int i = 0; i < count; ++i) load_columns(late), late.advance<stage::stages>(p.steps);
        for (int i = count; i < units; ++i) {
            ptx::wait_barrier(full + 8 * (stage::stages + early.slot), early.parity ^ 1);
            load_weights(early);
            load_columns(early);
            early.advance<stage::stages>(p.steps);
        }
    }
};

/// Fragments of a block of 64 positions.
struct tile_fragments {
    std::uint32_t v[4][4];
};

/// A warpgroup's products: 64 rows of W.
template <class Panels, int N>
struct tile_consumer {
    using stage = tile_stage<Panels, N>;
    using decoder_type = fragment_decoder<typename Panels::format, 1>;
    static constexpr int B = stage::blocks;
    tile_arguments<Panels> const& p;
    std::byte const* ring;
    std::uint32_t full;
    int rank; ///< of the blocks that share the tile's rows of W
    decoder_type decoder;

    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
    static __device__ __forceinline__ int panel() { return static_cast<int>(threadIdx.x) / 32 - 4; }

    static constexpr int words = maximum(Panels::format::width, 1); ///< of a lane in a block
    /// The lane's words of a block; `block` is where its panel's first ones are.
    __device__ __forceinline__ static void load(std::byte const* block, std::uint32_t (&word)[words]) {
        constexpr auto chunk_words = static_cast<int>(Panels::chunk_bytes / 4);
#pragma unroll
        for (int c = 0; c < Panels::format::width / chunk_words; ++c) {
            auto const* const from = reinterpret_cast<std::uint32_t const*>(
                block + panel() * static_cast<int>(Panels::panel_block_bytes) + (c * 32 + lane()) * static_cast<int>(Panels::chunk_bytes));
            if constexpr (chunk_words == 4) {
                ::uint4 const w = *reinterpret_cast<::uint4 const*>(from);
                word[4 * c] = w.x, word[4 * c + 1] = w.y, word[4 * c + 2] = w.z, word[4 * c + 3] = w.w;
            } else {
#pragma unroll
                for (int i = 0; i < chunk_words; ++i) word[chunk_words * c + i] = from[i];
            }
        }
    }
    /// The first row of this warp's panel.
    __device__ __forceinline__ index_t first_row(int tile) const { return index_t{tile / p.column_tiles} * 256 + stage::rows * rank + 16 * panel(); }
    /// The fragments of a block of a step of a tile.
    __device__ __forceinline__ void decode(std::uint32_t const (&word)[words], int tile, int step, int block, tile_fragments& to) const {
        auto const origin = decoder.template origin<0>(p.w, first_row(tile), step * stage::blocks + block);
        decoder.template decode<0, 0>(word, origin, to.v[0]);
        decoder.template decode<1, 0>(word, origin, to.v[1]);
        decoder.template decode<2, 0>(word, origin, to.v[2]);
        decoder.template decode<3, 0>(word, origin, to.v[3]);
    }

    /// Scales of this lane's rows.
    __device__ __forceinline__ float2 scales_of(std::byte const* at, int group) const {
        auto const* const scales = reinterpret_cast<typename Panels::scale_type const*>(at + stage::scales_at + group * stage::scale_bytes) +
                                   panel() * 16 + lane() / 4;
        return make_float2(stored_to_float(scales[0]), stored_to_float(scales[8]));
    }
    /// total += scale * part, of the step's group; `is_end`: the group ends here.
    __device__ __forceinline__ void scale(std::byte const* at, int group, bool is_end, float2 scales, float (&total)[N / 2], float const (&part)[N / 2]) const {
        int const row = panel() * 16 + lane() / 4;
#pragma unroll
        for (int i = 0; i < N / 2; ++i) total[i] = fmaf(i % 4 < 2 ? scales.x : scales.y, part[i], total[i]);
        if constexpr (stage::offset_bytes > 0) {
            if (!is_end) return;
            auto const* const offsets = reinterpret_cast<float const*>(at + stage::offsets_at + group * stage::offset_bytes);
            auto const* const sums = reinterpret_cast<float2 const*>(at + stage::sums_at + group * stage::sum_bytes);
            float const o0 = offsets[row];
            float const o1 = offsets[row + 8];
#pragma unroll
            for (int j = 0; j < N / 8; ++j) {
                float2 const sum = sums[4 * j + lane() % 4];
                total[4 * j] = fmaf(o0, sum.x, total[4 * j]);
                total[4 * j + 1] = fmaf(o0, sum.y, total[4 * j + 1]);
                total[4 * j + 2] = fmaf(o1, sum.x, total[4 * j + 2]);
                total[4 * j + 3] = fmaf(o1, sum.y, total[4 * j + 3]);
            }
        }
    }

    /// Starts the products of block Block of a step; of groups within a block, all of them. `adds`: without groups, to sums of steps before.
    template <int Block>
    __device__ __forceinline__ void multiply(std::byte const* at, int step, bool adds, tile_fragments const& a, float (&total)[N / 2], float (&part)[N / 2]) const {
        std::uint64_t const b = ptx::matrix_descriptor(ptx::shared_address(at) + Block * N * 128);
        ptx::fence_group();
#pragma unroll
        for (int f = 0; f < 4; ++f) {
            int const position = Block * 64 + f * 16;
            if constexpr (!stage::has_groups)
                ptx::multiply(total, a.v[f], b + 2 * f, position > 0 || adds);
            else
                ptx::multiply(part, a.v[f], b + 2 * f, stage::padded >= stage::positions ? position > 0 : position % stage::divisor != 0);
            if constexpr (stage::has_groups && stage::padded < 64) {
                if ((position + 16) % stage::divisor == 0 && f < 3) {
                    ptx::commit_group();
                    ptx::wait_group<0>();
                    scale_if_there(at, step, position / stage::divisor, total, part);
                    ptx::fence_group();
                }
            }
        }
        ptx::commit_group();
    }
    __device__ __forceinline__ void scale_if_there(std::byte const* at, int step, int group, float (&total)[N / 2], float const (&part)[N / 2]) const {
        int const g = step * stage::positions / stage::divisor + group;
        bool const is_end = stage::padded <= stage::positions || (step + 1) * stage::positions % stage::divisor == 0 || step + 1 == p.steps;
        if (g < p.groups) scale(at, group, is_end, scales_of(at, group), total, part);
    }
    /// The same for a step's last group, whose scales have been read.
    __device__ __forceinline__ void scale_last(std::byte const* at, int step, float2 scales, float (&total)[N / 2], float const (&part)[N / 2]) const {
        if constexpr (stage::padded % stage::positions == 0) { // groups end where steps do
            scale(at, 0, stage::padded == stage::positions || (step + 1) * stage::positions % stage::divisor == 0, scales, total, part);
        } else {
            if (step * stage::groups + stage::groups - 1 < p.groups) scale(at, stage::groups - 1, true, scales, total, part);
        }
    }

    __device__ __forceinline__ void release(int slot) const {
        __syncwarp();
        if constexpr (tile_blocks<N> == 1) {
            if (lane() == 0) ptx::arrive(full + 8 * (stage::stages + slot));
        } else {
            if (lane() < 2) ptx::arrive_at(full + 8 * (stage::stages + slot), static_cast<unsigned>(lane()));
        }
    }

    /// finish(tile, sums) where a tile ends, or the units do.
    template <class F>
    __device__ __forceinline__ void run(tile_position at, int units, F const& finish) const {
        float total[N / 2];
        float part[stage::has_groups ? N / 2 : 1];
        auto& sums = accumulators(total, part);
        tile_fragments a[B];
        std::uint32_t word[B][words]; // of a step, read together
        clear(total);
        int slot = at.slot;
        unsigned parity = at.parity;
        if (units > 0) {
            ptx::wait_barrier(full + 8 * slot, parity);
            load_words(slot, word);
            decoder.template begin_rows<1>(p.w, first_row(at.tile));
            decode(word[0], at.tile, at.step, 0, a[0]);
        }
#pragma unroll 1
        for (int left = units; left > 0;) {
            int const first = at.step;
            int const end = p.steps - first < left ? p.steps : first + left;
            left -= end - first;
#pragma unroll 1
            for (int step = first; step < end; ++step) {
                std::byte const* const here = ring + slot * stage::bytes;
                int const next = slot + 1 == stage::stages ? 0 : slot + 1;
                if (next == 0) parity ^= 1;
                bool const adds = step != first; // where there are no groups: to the tile's sums
                if constexpr (B == 2) {
                    multiply<0>(here, step, adds, a[0], total, sums);
                    if constexpr (tile_blocks<N> > 1) ptx::wait_group<1>(); // keeps decoding behind the products: 4 % faster
                    decode(word[B - 1], at.tile, step, B - 1, a[B - 1]);
                    if constexpr (stage::has_groups && stage::padded <= 64) {
                        ptx::wait_group<0>();
                        scale_if_there(here, step, 63 / stage::divisor, total, sums);
                    }
                }
                multiply<B - 1>(here, step, adds, a[B - 1], total, sums);
                ptx::wait_group<B - 1>(); // the fragments that come next are free
                if (step + 1 < end || left > 0) {
                    ptx::wait_barrier(full + 8 * next, parity);
                    load_words(next, word);
                    bool const ends = step + 1 == end;
                    if (ends) decoder.template begin_rows<1>(p.w, first_row(at.tile + 1));
                    decode(word[0], ends ? at.tile + 1 : at.tile, ends ? 0 : step + 1, 0, a[0]);
                }
                float2 scales;
                if constexpr (stage::has_groups) scales = scales_of(here, stage::groups - 1);
                ptx::wait_group<0>();
                if constexpr (stage::has_groups) scale_last(here, step, scales, total, sums);
                release(slot);
                slot = next;
            }
            finish(at.tile, total);
            if constexpr (stage::has_groups) clear(total);
            at.step = 0;
            ++at.tile;
        }
    }

private:
    __device__ __forceinline__ void load_words(int slot, std::uint32_t (&word)[B][words]) const {
#pragma unroll
        for (int b = 0; b < B; ++b) load(ring + slot * stage::bytes + stage::codes_at + b * stage::block_bytes, word[b]);
    }
    static __device__ __forceinline__ void clear(float (&sums)[N / 2]) {
#pragma unroll
        for (int i = 0; i < N / 2; ++i) sums[i] = 0.0f;
    }
    template <std::size_t P>
    static __device__ __forceinline__ auto& accumulators(float (&total)[N / 2], float (&part)[P]) {
        if constexpr (stage::has_groups)
            return part;
        else
            return total;
    }
};

/// Leaves sums of a tile.
template <class Panels, int N>
__device__ __forceinline__ void store_tile(tile_arguments<Panels> const& p, int tile, unsigned rank, float const (&sums)[N / 2]) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const left = p.m - tile % p.column_tiles * N;
    float* const part = p.parts + static_cast<index_t>(static_cast<int>(blockIdx.x) / tile_blocks<N> + tile) * p.part_columns * 256 +
                        64 * tile_warpgroups<N> * rank;
    int const row = (static_cast<int>(threadIdx.x) / 32 - 4) * 16;
#pragma unroll
    for (int i = 0; i < N / 2; ++i) {
        int const column = i / 4 * 8 + lane % 4 * 2 + i % 2;
        if (column < left) part[column * 256 + row + Panels::row_of_lane(lane / 4, i % 4 / 2)] = sums[i];
    }
}

/// An output of the elements (m, n) of one n: its own, where it has one.
template <class Out>
__device__ __forceinline__ auto output_row(Out const& out, index_t n) {
    if constexpr (requires { out.row(n); })
        return out.row(n);
    else
        return [&out, n](index_t m, float sum) { out(m, n, sum); };
}

/// y of 128 rows of W, from `row` on, and the rows of x from m0 on, from the sums of the warps that multiply.
template <class Panels, int N, class Out>
__device__ __forceinline__ void finish_rows(tile_arguments<Panels> const& p, index_t row, int m0, float const (&sums)[N / 2], Out const& out) {
    using format = typename Panels::format;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    row += (static_cast<int>(threadIdx.x) / 32 - 4) * 16;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        index_t const n = row + Panels::row_of_lane(lane / 4, h);
        if (n >= p.w.rows()) continue;
        auto const of_row = output_row(out, n);
#pragma unroll
        for (int i = 0; i < N / 4; ++i) {
            int const m = m0 + i / 2 * 8 + lane % 4 * 2 + i % 2;
            if (m >= p.m) continue;
            float sum = sums[i / 2 * 4 + 2 * h + i % 2];
            if constexpr (format::has_scales && Panels::group == 0) sum *= static_cast<float>(p.w.scales()[n]);
            if constexpr (format::has_offsets && Panels::group == 0) sum = fmaf(p.w.offsets()[n], p.sums[m], sum);
            of_row(p.m0 + m, sum);
        }
    }
}

template <class Panels, int N, class Out>
__global__ void __launch_bounds__(128 + 128 * tile_warpgroups<N>, 1)
tile_kernel(__grid_constant__ tile_arguments<Panels> const p, __grid_constant__ Out const out) {
    using stage = tile_stage<Panels, N>;
    using decoder = typename stage::decoder;
    extern __shared__ __align__(1024) std::byte tile_memory[];
    std::byte* const table = tile_memory + stage::stages * stage::bytes;
    std::uint32_t const full = ptx::shared_address(table + decoder::table_bytes);
    constexpr int shares = tile_blocks<N>;
    unsigned const rank = blockIdx.x % shares;
    ptx::launch_dependents();
    if (threadIdx.x == 0) {
        for (int s = 0; s < stage::stages; ++s) {
            ptx::init_barrier(full + 8 * s, 1);
            ptx::init_barrier(full + 8 * (stage::stages + s), 16); // warps that multiply, of all blocks of the tile
        }
        ptx::fence_barrier_init();
    }
    decoder::fill(p.table, p.w, table);
    if constexpr (shares == 1)
        __syncthreads();
    else
        ptx::sync_cluster();
    int const cluster = static_cast<int>(blockIdx.x) / shares;
    int const each = p.is_whole ? p.steps : 1;
    int const first = p.cut.first(cluster) * each;
    int const units = p.cut.first(cluster + 1) * each - first;
    tile_position const at{first / p.steps, first % p.steps};
    if (threadIdx.x < 128) {
        // What a block has at first, 96 registers of 5 warps or 168 of 3, is what its warps may share.
        ptx::give_registers<(shares == 1 ? 32 : 40)>();
        if (threadIdx.x < 32 && ptx::elect()) tile_producer<Panels, N>{p, ptx::shared_address(tile_memory), full, rank}.run(at, units);
        __syncwarp();
    } else {
        ptx::take_registers<(shares == 1 ? 112 : 232)>();
        tile_consumer<Panels, N> const consumer{
            p, tile_memory, full, static_cast<int>(rank), decoder::template of<1>(table, static_cast<int>(threadIdx.x) / 32 - 4)};
        consumer.run(at, units, [&](int tile, float const(&sums)[N / 2]) {
            if (p.is_whole)
                finish_rows<Panels, N>(p, index_t{tile / p.column_tiles} * 256 + stage::rows * rank, tile % p.column_tiles * N, sums, out);
            else
                store_tile<Panels, N>(p, tile, rank, sums);
        });
    }
    if constexpr (shares > 1) ptx::sync_cluster(); // neither block ends while the other copies to it
}

/// y of the tile of rows blockIdx.x and row of x blockIdx.y: its parts in the order of k.
template <class Panels, int N, class Out>
__global__ void __launch_bounds__(256) add_tiles_kernel(__grid_constant__ tile_arguments<Panels> const p, __grid_constant__ Out const out) {
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    using format = typename Panels::format;
    auto const m = static_cast<int>(blockIdx.y);
    index_t const n = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (n >= p.w.rows()) return;
    int const tile = static_cast<int>(blockIdx.x) * p.column_tiles + m / N;
    int const first = p.cut.owner(tile * p.steps);
    int const last = p.cut.owner(tile * p.steps + p.steps - 1);
    float sum = 0.0f;
    for (int c = first; c <= last; ++c) sum += __ldcg(p.parts + (static_cast<index_t>(c + tile) * p.part_columns + m % N) * 256 + threadIdx.x);
    if constexpr (format::has_scales && Panels::group == 0) sum *= static_cast<float>(p.w.scales()[n]);
    if constexpr (format::has_offsets && Panels::group == 0) sum = fmaf(p.w.offsets()[n], p.sums[m], sum);
    out(p.m0 + m, n, sum);
}

} // namespace tessera::inline TESSERA_ABI::detail
