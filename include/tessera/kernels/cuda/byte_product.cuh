// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of bytes, 8-bit floats or int8, by the matrix units of sm_90a: both operands in shared memory as they lie in memory.
///
/// Two blocks of threads, a cluster, take tiles of 64 * Groups * Waves rows of x and 2 * N rows of W, N each; each brings half of x to
/// both. One elected thread has the copy engine fill a ring of steps of 128 columns, `Groups` warpgroups multiply: of each 64 * Groups
/// rows of x (a wave) a warpgroup has 64. Clusters stay and take every so many-th tile, in bands of 8 tiles of x, whose operands stay in
/// the second-level cache. (Of clusters of four blocks only 30 find room, 120 of 132 multiprocessors.)
///
/// Of 8-bit floats the unit sums no more than a step's 128 columns (4 instructions; their d keeps 13 bits behind the point of its
/// largest term): that part, times the scale of x's group and that of W's block, is added in float32. So
///
///     |part - exact| <= 4 * 34 * 2^-13 * sum of |products| of the 128 columns
///
/// and y's remaining roundings are those of float32, one for each step and a few. Of int8 the sums are exact for all of k. A row of y
/// has the same bits whatever the other rows: every element's sums are made in the order of k, by whatever tile.

#include "../../storage/device_tile.hpp"
#include "../fp8_rows.hpp"
#include "product.cuh"
#include "ptx/elect.cuh"
#include "ptx/mma_half.cuh"
#include "ptx/grid_dependency.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/wgmma_bytes.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Clusters of two blocks that fit the processor.
inline constexpr index_t byte_clusters = 66;

/// How x's bytes and W's meet.
template <class XFormat, class WFormat>
struct float8_arithmetic {
    using sum_type = float;
    using x_format = XFormat;
    using w_format = WFormat;
    static constexpr bool has_step_scales = true;
};
struct int8_arithmetic {
    using sum_type = int;
    using x_format = int8;
    using w_format = int8;
    static constexpr bool has_step_scales = false;
};

/// What a block of threads takes: `Waves` times 64 rows of x for each of `Groups` warpgroups, N rows of W.
template <int Groups, int Waves, int N>
struct byte_shape {
    static constexpr int groups = Groups;
    static constexpr int waves = Waves;
    static constexpr int n = N;
    static constexpr int rows = 64 * Groups * Waves;
    static constexpr int threads = 128 * (1 + Groups);
    static constexpr int producer_registers = Groups > 2 ? 32 : 40;
    static constexpr int consumer_registers = Groups > 2 ? 160 : 232; // (of 152 the three are 2 % slower)
    /// Arrivals at a barrier of an empty stage: of every warp here and in the other block, and of every thread that reads scales.
    template <class Arithmetic>
    static constexpr unsigned releases = Groups * (Arithmetic::has_step_scales ? 136 : 8);
};

/// A step of a block of threads in shared memory.
template <class Arithmetic, class Shape>
struct byte_stage {
    static constexpr int x_bytes = Shape::rows * 128;
    static constexpr int w_bytes = Shape::n * 128;
    static constexpr int scale_bytes = Arithmetic::has_step_scales ? Shape::rows * 4 : 0;
    static constexpr int w_at = x_bytes;
    static constexpr int scales_at = w_at + w_bytes;
    static constexpr int bytes = (scales_at + scale_bytes + 1023) / 1024 * 1024;
    static constexpr int of_memory = (226 * 1024 - 256) / bytes;
    static constexpr int stages = of_memory < 8 ? of_memory : 8;
    static constexpr int shared_bytes = stages * bytes + 256;
};

struct byte_arguments {
    std::byte const* w;     ///< as storage/device_tile.hpp says
    float const* w_scales;
    std::byte const* x;     ///< (steps, rows, 128 bytes)
    float const* x_scales;  ///< (steps, rows), or (rows)
    int rows;               ///< of x, in whole tiles
    int m;
    int n;
    int steps;
    int x_tiles;
    int tiles;              ///< of a cluster
    int w_tiles;            ///< of pairs of blocks
    bool is_wide;           ///< rows of y are of whole 16 bytes, and nothing is added to what is there
};

/// Where a block of threads is.
struct byte_position {
    int slot = 0;
    unsigned parity = 0;
    template <int Stages>
    __device__ __forceinline__ void advance() {
        if (++slot == Stages) slot = 0, parity ^= 1;
    }
};
/// The tile of x and of pairs of W's: bands of 8 tiles of x.
struct byte_tile {
    int x;
    int w;
    __device__ __forceinline__ byte_tile(byte_arguments const& p, int tile) {
        int const band = tile / (8 * p.w_tiles);
        int const in_band = tile % (8 * p.w_tiles);
        int const height = p.x_tiles - 8 * band < 8 ? p.x_tiles - 8 * band : 8;
        x = 8 * band + in_band % height;
        w = in_band / height;
    }
};

/// The copies of one block of threads, asked for by one thread.
template <class Arithmetic, class Shape>
struct byte_producer {
    using stage = byte_stage<Arithmetic, Shape>;
    byte_arguments const& p;
    std::uint32_t ring;
    std::uint32_t full; ///< barriers, 8 bytes each; those of empty stages follow
    unsigned rank;

    __device__ __forceinline__ void run() const {
        constexpr int half = stage::x_bytes / 2;
        byte_position at;
        ptx::wait_for_prerequisites();
        for (int tile = static_cast<int>(blockIdx.x) / 2; tile < p.tiles; tile += static_cast<int>(gridDim.x) / 2) {
            byte_tile const t{p, tile};
            index_t const first = (2 * t.w + static_cast<int>(rank)) * Shape::n; // row of W
            std::byte const* w = p.w + first / 128 * p.steps * (128 * 128) + first % 128 * 128;
            std::byte const* x = p.x + index_t{t.x} * stage::x_bytes + rank * half;
            float const* scales = p.x_scales + t.x * Shape::rows;
            for (int step = 0; step < p.steps; ++step) {
                std::uint32_t const to = ring + at.slot * stage::bytes;
                std::uint32_t const barrier = full + 8 * at.slot;
                ptx::wait_barrier(full + 8 * (stage::stages + at.slot), at.parity ^ 1);
                ptx::arrive_and_expect(barrier, stage::x_bytes + stage::w_bytes + stage::scale_bytes);
                ptx::copy_bulk(to + stage::w_at, w, stage::w_bytes, barrier);
                ptx::copy_bulk_multicast(to + rank * half, x, half, barrier, 3);
                if constexpr (Arithmetic::has_step_scales) ptx::copy_bulk(to + stage::scales_at, scales, stage::scale_bytes, barrier);
                w += 128 * 128;
                x += index_t{p.rows} * 128;
                scales += p.rows;
                at.advance<stage::stages>();
            }
        }
    }
};

/// y's element before it is rounded, without a base.
template <class Y, class Finish>
__device__ __forceinline__ float finished(product_output<Y, Finish> const& out, index_t m, index_t n, float sum) {
    return static_cast<float>(out.finish(out.factor * sum, m, n));
}

/// Whether an output takes every element of y, so that it need not be asked for each.
template <class Out>
inline constexpr bool takes_every_element = false;
template <class Y, class Finish>
inline constexpr bool takes_every_element<product_output<Y, Finish>> = true;

/// Eight elements of 16 bits as y has them, two a word; NaN as the definition has it. (One question for all: a branch a pair took 3 % of
/// the cycles of products of 8192 columns.)
template <class Y>
__device__ __forceinline__ void eight_elements(float const (&v)[8], std::uint32_t (&word)[4]) {
    bool has_nan = false;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        word[j] = ptx::pack<Y>(v[2 * j], v[2 * j + 1]);
        has_nan = has_nan || v[2 * j] != v[2 * j] || v[2 * j + 1] != v[2 * j + 1];
    }
    if (has_nan) {
#pragma unroll
        for (int j = 0; j < 4; ++j) word[j] = Y{v[2 * j]}.to_bits() | std::uint32_t{Y{v[2 * j + 1]}.to_bits()} << 16;
    }
}

/// y's elements of row m at columns n + 8 j + 2 t and the next, from the lanes 4 g + t: 16 bytes a lane of elements of 2 bytes, 8 of
/// others. `is_wide` of the arguments says that they are aligned, that columns come in eights, and that there is no base; IsWhole, that all
/// are there.
template <bool IsWhole, int Count, class Sums, class Y, class Finish>
__device__ __forceinline__ void store_wide_row(byte_arguments const& p, product_output<Y, Finish> const& out, index_t m, index_t n, Sums const& sums) {
    auto const t = static_cast<int>(threadIdx.x) % 4;
    if constexpr (sizeof(Y) == 2) {
#pragma unroll
        for (int q = 0; q < Count; q += 4) {
            float v[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                index_t const column = n + 8 * (q + i / 2) + 2 * t + i % 2;
                v[i] = IsWhole || (m < p.m && column < p.n) ? finished(out, m, column, sums(q + i / 2, i % 2)) : 0.0f;
            }
            std::uint32_t word[4];
            eight_elements<Y>(v, word);
            turn_quad(word);
            index_t const column = n + 8 * (q + t);
            if (IsWhole || (m < p.m && column < p.n))
                *reinterpret_cast<::uint4*>(out.y.data_handle() + m * out.y.stride(0) + column) = make_uint4(word[0], word[1], word[2], word[3]);
        }
    } else {
#pragma unroll
        for (int j = 0; j < Count; ++j) {
            index_t const column = n + 8 * j + 2 * t;
            if (IsWhole || (m < p.m && column < p.n))
                *reinterpret_cast<float2*>(out.y.data_handle() + m * out.y.stride(0) + column) =
                    make_float2(finished(out, m, column, sums(j, 0)), finished(out, m, column + 1, sums(j, 1)));
        }
    }
}
/// `is_whole`: m and the columns are below the ends of y, for all threads of the block.
template <int Count, class Sums, class Out>
__device__ __forceinline__ void store_row(byte_arguments const& p, Out const& out, index_t m, index_t n, bool is_whole, Sums const& sums) {
    auto const t = static_cast<int>(threadIdx.x) % 4;
    if constexpr (takes_every_element<Out>)
        if (p.is_wide) return is_whole ? store_wide_row<true, Count>(p, out, m, n, sums) : store_wide_row<false, Count>(p, out, m, n, sums);
#pragma unroll
    for (int j = 0; j < Count; ++j)
#pragma unroll
        for (int i = 0; i < 2; ++i)
            if (m < p.m && n + 8 * j + 2 * t + i < p.n) out(m, n + 8 * j + 2 * t + i, sums(j, i));
}

/// Number i of two scales, which are loaded together.
__device__ __forceinline__ float scale_of_pair(float const* scales, int i) {
    float2 const pair = __ldg(reinterpret_cast<float2 const*>(scales));
    return i == 0 ? pair.x : pair.y;
}

/// A warpgroup's products: 64 rows of x of each wave.
template <class Arithmetic, class Shape>
struct byte_consumer {
    using stage = byte_stage<Arithmetic, Shape>;
    using sum_type = typename Arithmetic::sum_type;
    static constexpr int Waves = Shape::waves;
    static constexpr int N = Shape::n;
    byte_arguments const& p;
    std::byte const* ring;
    std::uint32_t full;
    std::uint32_t empty_there; ///< the other block's barriers of empty stages
    unsigned rank;
    int group; ///< number of the warpgroup, which the compiler knows to be the same for all its lanes

    static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % 32; }
    /// Row of a wave that registers 0 and 1 are of.
    static __device__ __forceinline__ int row() { return (static_cast<int>(threadIdx.x) / 32 - 4) * 16 + lane() / 4; }

    /// Starts d = x Wᵀ of a step, or d +=.
    __device__ __forceinline__ void multiply(int slot, int wave, bool adds, sum_type (&d)[N / 2]) const {
        std::uint32_t const at = ptx::shared_address(ring) + slot * stage::bytes;
        std::uint64_t const a = ptx::matrix_descriptor(at + 64 * (Shape::groups * wave + group) * 128);
        std::uint64_t const b = ptx::matrix_descriptor(at + stage::w_at);
#pragma unroll
        for (int f = 0; f < 4; ++f)
            ptx::multiply_bytes(ptx::byte_formats<typename Arithmetic::x_format, typename Arithmetic::w_format>{}, d, a + 2 * f, b + 2 * f, f > 0 || adds);
        ptx::commit_group();
    }
    /// To both blocks a warp says that it has multiplied.
    __device__ __forceinline__ void release(int slot) const {
        __syncwarp();
        if (lane() == 0) {
            ptx::arrive(full + 8 * (stage::stages + slot));
            ptx::arrive_there(empty_there + 8 * slot);
        }
    }

    /// Waits for a step, and loads the scales of this thread's rows; the thread says that it has read them.
    __device__ __forceinline__ void begin_step(byte_position const& at, float (&x_scales)[Waves][2]) const {
        ptx::wait_barrier(full + 8 * at.slot, at.parity);
        auto const* const scales = reinterpret_cast<float const*>(ring + at.slot * stage::bytes + stage::scales_at);
#pragma unroll
        for (int wave = 0; wave < Waves; ++wave) {
            x_scales[wave][0] = scales[64 * Shape::groups * wave + row()];
            x_scales[wave][1] = scales[64 * Shape::groups * wave + row() + 8];
        }
        ptx::arrive(full + 8 * (stage::stages + at.slot));
    }
    /// Sums of a tile: parts of a step meet their scales. The matrix units have nothing of this warpgroup from the end of a part until
    /// it is added, and keep busy only if the others' parts take longer than that: so the next step is waited for, and its scales are
    /// loaded, while a part is made. (Warpgroups that take turns at the matrix units are slower: by themselves they fall into step.)
    __device__ __forceinline__ void sum_scaled(byte_position& at, float const* w_scales, float (&total)[Waves][N / 2]) const {
        float part[N / 2];
#pragma unroll
        for (int i = 0; i < Waves * N / 2; ++i) total[i / (N / 2)][i % (N / 2)] = 0.0f;
        float w_scale = __ldg(w_scales);
        float w_next = 0.0f;
        float x_scales[Waves][2];
        begin_step(at, x_scales);
#pragma unroll 1
        for (int step = 0; step < p.steps; ++step) {
            if (step + 1 < p.steps) w_next = __ldg(w_scales + step + 1);
            int const slot = at.slot;
            at.advance<stage::stages>();
#pragma unroll
            for (int wave = 0; wave < Waves; ++wave) {
                float scale[2] = {x_scales[wave][0] * w_scale, x_scales[wave][1] * w_scale};
                ptx::hold(part);
                ptx::fence_group();
                multiply(slot, wave, false, part);
                ptx::hold(scale); // not later
                if (wave == Waves - 1 && step + 1 < p.steps) begin_step(at, x_scales);
                ptx::wait_group<0>();
                ptx::hold(part);
                if (wave == Waves - 1) release(slot);
#pragma unroll
                for (int i = 0; i < N / 2; ++i) total[wave][i] = fmaf(scale[i % 4 / 2], part[i], total[wave][i]);
            }
            w_scale = w_next;
        }
    }
    /// Sums of a tile that need no scales. The products of a step run while the next one's begin.
    __device__ __forceinline__ void sum_whole(byte_position& at, int (&total)[Waves][N / 2]) const {
        int before = -1;
#pragma unroll 1
        for (int step = 0; step < p.steps; ++step) {
            ptx::wait_barrier(full + 8 * at.slot, at.parity);
            ptx::fence_group();
#pragma unroll
            for (int wave = 0; wave < Waves; ++wave) multiply(at.slot, wave, step > 0, total[wave]);
            ptx::wait_group<Waves>();
            if (before >= 0) release(before);
            before = at.slot;
            at.advance<stage::stages>();
        }
        ptx::wait_group<0>();
#pragma unroll
        for (int wave = 0; wave < Waves; ++wave) ptx::hold(total[wave]);
        release(before);
    }

    template <class Out>
    __device__ __forceinline__ void run(Out const& out) const {
        byte_position at;
        for (int tile = static_cast<int>(blockIdx.x) / 2; tile < p.tiles; tile += static_cast<int>(gridDim.x) / 2) {
            byte_tile const t{p, tile};
            int const n0 = (2 * t.w + static_cast<int>(rank)) * N;
            int const m0 = t.x * Shape::rows + row();
            bool const is_whole = (t.x + 1) * Shape::rows <= p.m && n0 + N <= p.n;
            sum_type total[Waves][N / 2];
            if constexpr (Arithmetic::has_step_scales)
                sum_scaled(at, p.w_scales + index_t{n0} / 128 * p.steps, total);
            else
                sum_whole(at, total);
#pragma unroll
            for (int r = 0; r < 2 * Waves; ++r) {
                int const m = m0 + r / 2 * 64 * Shape::groups + r % 2 * 8;
                auto const sum = [&](int j, int i) { return total[r / 2][4 * j + r % 2 * 2 + i]; };
                if constexpr (Arithmetic::has_step_scales) {
                    store_row<N / 8>(p, out, m, n0, is_whole, sum);
                } else {
                    float const x_scale = m < p.m ? __ldcg(p.x_scales + m) : 0.0f;
                    float const* const w_scales = p.w_scales + n0 + lane() % 4 * 2;
                    store_row<N / 8>(p, out, m, n0, is_whole,
                                     [&](int j, int i) { return x_scale * scale_of_pair(w_scales + 8 * j, i) * static_cast<float>(sum(j, i)); });
                }
            }
        }
    }
};

template <class Arithmetic, class Shape, class Out>
__global__ void __launch_bounds__(Shape::threads, 1) byte_kernel(__grid_constant__ byte_arguments const p, __grid_constant__ Out const out) {
    using stage = byte_stage<Arithmetic, Shape>;
    extern __shared__ __align__(1024) std::byte byte_memory[];
    std::uint32_t const full = ptx::shared_address(byte_memory + stage::stages * stage::bytes);
    unsigned const rank = blockIdx.x % 2;
    ptx::launch_dependents();
    if (threadIdx.x == 0) {
        for (int s = 0; s < stage::stages; ++s) {
            ptx::init_barrier(full + 8 * s, 1);
            ptx::init_barrier(full + 8 * (stage::stages + s), Shape::template releases<Arithmetic>); // see byte_consumer::release
        }
        ptx::fence_barrier_init();
    }
    ptx::sync_cluster();
    if (threadIdx.x < 128) {
        ptx::give_registers<Shape::producer_registers>();
        if (threadIdx.x < 32 && ptx::elect()) byte_producer<Arithmetic, Shape>{p, ptx::shared_address(byte_memory), full, rank}.run();
        __syncwarp();
    } else {
        ptx::take_registers<Shape::consumer_registers>();
        int const group = __shfl_sync(~0u, static_cast<int>(threadIdx.x) / 128 - 1, 0);
        byte_consumer<Arithmetic, Shape>{p, byte_memory, full, ptx::address_in(full + 8 * stage::stages, rank ^ 1), rank, group}.run(out);
    }
    ptx::sync_cluster(); // neither block ends while the other copies to it
}

} // namespace tessera::inline TESSERA_ABI::detail
