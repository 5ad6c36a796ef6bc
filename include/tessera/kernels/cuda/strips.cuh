// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of few rows of x in one kernel: a block of threads takes a strip of 32 rows of W, its warps cut k into equal pieces, and so
/// do the blocks of a cluster where W has few rows. Where many strips would read much of x, a block takes two, whose warps find each
/// other's x in the first-level cache. They add their sums in shared memory, in the order of k, so that no parts are left
/// for a second kernel. The cut depends on the shape of W alone. Blocks beside them multiply what the outputs need besides (a low-rank
/// term's A); they begin first, so that who waits for them is not waited for.

#include "ptx/atomic.cuh"
#include "ptx/mbarrier.cuh"
#include "product.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Stages of the rings of warps that have few units: all of those are asked for at once, while the kernel ahead ends.
template <int Sm, class Panels, int NT>
inline constexpr int deep_stages = [] {
    using stage = product_stage<Sm, Panels, 1, NT>;
    int const room = (stage::shared / 2 - 4096 - stage::table_bytes) / stage::bytes;
    return room < 5 ? (room > stage::stages ? room : stage::stages) : 5;
}();

/// Warps of a block, and blocks of a cluster, that share a strip.
struct strip_plan {
    int warps;
    int blocks;
};
template <int Sm>
strip_plan plan_strips(index_t strips, index_t steps, index_t strips_of_block) noexcept {
    index_t const resident = 8 * product_blocks<Sm>; // warps
    index_t const many = ceil_div(strips, strips_of_block);
    index_t blocks = 1;
    if constexpr (Sm >= 90)
        while (blocks < 8 && 32 / strips_of_block * many * blocks <= resident && 16 * blocks <= steps) blocks *= 2;
    index_t const warps = maximum(1, minimum(minimum(8 / strips_of_block, steps / blocks), resident / maximum(many * blocks * strips_of_block, 1)));
    return {static_cast<int>(warps * strips_of_block), static_cast<int>(blocks)};
}

template <class Panels>
struct strip_arguments {
    product_arguments<Panels> of; ///< whose cut is of a tile's steps
    int warps;
    int blocks; ///< of a cluster
    int beside = 0; ///< blocks ahead of them, which make what `Out` adds
};

/// A second matrix of at most 64 rows, dense, whose product with x the outputs of the first one need: blocks that begin first leave parts
/// of its sums, and the others, which have waited for their counter at the end, add them up in the order of k.
template <class Panels>
struct strip_side {
    using panels = Panels;
    product_arguments<Panels> of;
    float* parts;       ///< (blocks, columns, 32): 8 blocks, or fewer, for a strip
    unsigned* counters; ///< blocks that have left their parts, blocks that have read them; 0 between calls
    int blocks;         ///< of a strip; 0: there is no side
};
template <class Out>
inline constexpr bool has_side = requires(Out const& out) { out.side.counters; };

/// Outputs that add sums of their own to those of a strip's rows: out.make_sums(thread, threads, row of W, i, rows, columns, x_is_ready,
/// to) leaves those of rows i and the next of the strips in shared memory, (strips, columns, 32); y gets `own_factor` times them.
template <class Out>
inline constexpr bool has_own_sums = requires(Out const& out) { out.own_factor; };
/// Warps that do nothing else, where out.has_own_warps; otherwise all do it while their first weights come.
template <class Out>
inline constexpr int own_warps = [] {
    if constexpr (has_own_sums<Out>)
        return Out::has_own_warps ? 2 : 0;
    else
        return 0;
}();

/// Blocks whose warps part before they multiply, and fill their tables before that: a barrier is for all of them.
struct own_warps_meanwhile : nothing_meanwhile {
    static constexpr bool tables_are_there = true;
};
/// Blocks that call a function.
template <class F>
struct made_meanwhile : nothing_meanwhile {
    F const& make;
    __device__ void operator()() const { make(); }
};

/// Leaves the sums of a warp's 32 rows where its ring was.
template <class Panels, int NT>
__device__ __forceinline__ void leave_sums(lane_sums<NT> const& total, int columns, float* to) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    __syncwarp(); // the ring's last stage has been read
#pragma unroll
    for (int i = 0; i < 8 * NT; ++i) {
        int const column = i / 4 % NT * 8 + lane % 4 * 2 + i % 2;
        if (column < columns) to[column * 32 + i / (4 * NT) * 16 + Panels::row_of_lane(lane / 4, i % 4 / 2)] = total.v[i / (4 * NT)][i / 4 % NT][i % 4];
    }
}

/// A block of the side.
template <int Sm, int NT, class Side>
__device__ __forceinline__ void multiply_side(Side const& side, int warps, std::byte* shared) {
    using stage_type = product_stage<Sm, typename Side::panels, 1, NT>;
    auto const& p = side.of;
    auto const block = static_cast<int>(blockIdx.x);
    int const warp = static_cast<int>(threadIdx.x) / 32;
    int const slice = block % side.blocks * warps + warp;
    int const of_warp = p.slots * stage_type::warp_bytes / 4;
    auto* const rings = reinterpret_cast<float*>(shared + stage_type::table_bytes);
    static_assert(stage_type::table_bytes == 0); // no barrier for all warps
    if (warp < warps)                            // there may be more (own_warps)
        multiply_units<Sm, typename Side::panels, 1, NT, stage_type::stages>(
            p, shared, p.cut.first(slice), p.cut.first(slice + 1), block / side.blocks * 32,
            [&](int, lane_sums<NT> const& total) { leave_sums<typename Side::panels>(total, p.m, rings + warp * of_warp); });
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < 32 * p.m; i += static_cast<int>(blockDim.x)) {
        float sum = 0.0f;
        for (int w = 0; w < warps; ++w) sum += rings[w * of_warp + i];
        side.parts[block * 32 * p.m + i] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) ptx::add_acquire_release(side.counters, 1);
}

/// What the side's blocks made, (columns, rows of the side) in `to`: all threads of a block; `readers` blocks do this.
template <class Side>
__device__ __forceinline__ void gather_side(Side const& side, int beside, int readers, float* to) {
    auto const rows = static_cast<int>(side.of.w.rows());
    for (int i = static_cast<int>(threadIdx.x); i < rows * side.of.m; i += static_cast<int>(blockDim.x)) {
        int const row = i % rows;
        while (ptx::load_acquire(side.counters) < static_cast<unsigned>(beside)) {}
        float const* const from = side.parts + row / 32 * side.blocks * 32 * side.of.m + i / rows * 32 + row % 32;
        float sum = 0.0f;
        for (int b = 0; b < side.blocks; ++b) sum += __ldcg(from + b * 32 * side.of.m);
        to[i] = sum;
    }
    __syncthreads();
    // What the next call reads, it reads after this kernel.
    if (threadIdx.x == 32 % blockDim.x && atomicAdd(side.counters + 1, 1u) + 1 == static_cast<unsigned>(readers))
        side.counters[0] = side.counters[1] = 0;
}

/// Where sums of a strip go. What row n of W needs is asked for at once, before its sums are there; n < 0: of no row.
template <class Out, bool HasSide = has_side<Out>>
struct strip_output {
    Out const& out;
    __device__ strip_output(Out const& to, float const*, index_t) : out{to} {}
    __device__ void operator()(index_t m, index_t n, float sum) const { out(m, n, sum); }
};
template <class Out>
struct strip_output<Out, true> {
    Out const& out;
    float const* u;
    typename Out::of_row row;
    __device__ strip_output(Out const& to, float const* made, index_t n) : out{to}, u{made != nullptr ? made : to.u}, row{&to, u, -1, {}} {
        if (n >= 0) row = to.row(n, u);
    }
    __device__ void operator()(index_t m, index_t n, float sum) {
        if (n != row.n) row = out.row(n, u);
        row(m, sum);
    }
};

/// Where a block's own sums belong: `rows` from row i0 of the strips on, whose first row is `first` of W.
struct own_place {
    index_t first;
    int i0;
    int rows;
    float* to;
};

/// A warp's units from `first` to `last`, and the block's own sums.
template <int Sm, int NT, int Stages, class Panels, class Out, class Store>
__device__ __forceinline__ void multiply_strip(strip_arguments<Panels> const& a, Out const& out, std::byte* shared, int first, int last, int row,
                                               own_place const& at, Store const& store) {
    auto const& p = a.of;
    auto const make = [&](auto const& of, int thread, int threads, bool x_is_ready) {
        of.template make_sums<Sm>(thread, threads, at.first, at.i0, at.rows, p.m, x_is_ready, at.to);
    };
    if constexpr (own_warps<Out> > 0) {
        using decoder_type = fragment_decoder<typename Panels::format, 1>;
        decoder_type::fill(p.table, p.w, shared);
        if constexpr (decoder_type::table_bytes > 0) __syncthreads();
        if (int const thread = static_cast<int>(threadIdx.x) - 32 * a.warps; thread >= 0) {
            make(out, thread, 32 * own_warps<Out>, p.waits_late);
        } else {
            multiply_units<Sm, Panels, 1, NT, Stages>(p, shared, first, last, row, store, own_warps_meanwhile{});
        }
    } else if constexpr (has_own_sums<Out>) {
        auto const make_first = [&] { make(out, static_cast<int>(threadIdx.x), static_cast<int>(blockDim.x), true); };
        multiply_units<Sm, Panels, 1, NT, Stages>(p, shared, first, last, row, store, made_meanwhile<decltype(make_first)>{{}, make_first});
    } else {
        multiply_units<Sm, Panels, 1, NT, Stages>(p, shared, first, last, row, store);
    }
}

/// y of sum i of the strips, row n of W; own sums of `own_rows` rows lie in each block of a cluster.
template <int Sm, class Panels, class Out, class Finish>
__device__ __forceinline__ void finish_strip_sum(strip_arguments<Panels> const& a, Out const& out, int i, index_t n, float sum, float const* own,
                                                 int own_rows, Finish& finish) {
    auto const& p = a.of;
    if constexpr (has_own_sums<Out>) {
        float made = own[i];
        if constexpr (Sm >= 90)
            if (a.blocks > 1)
                made = ptx::load_from(ptx::shared_address(own + i), static_cast<unsigned>((i / (32 * p.m) * 32 + i % 32) / own_rows));
        finish_sum(p, i / 32 % p.m, n, sum, [&](index_t m, index_t to, float v) { finish(m, to, fmaf(out.own_factor, made, v)); });
    } else {
        finish_sum(p, i / 32 % p.m, n, sum, finish);
    }
}

/// y of a strip, or of Strips of them, which warps take in turn: blockIdx.x counts blocks of a cluster, then strips, behind those of the side.
template <int Sm, class Panels, int NT, int Stages, int Strips, class Out>
__global__ void __launch_bounds__(256 + 32 * own_warps<Out>, 2)
strip_kernel(__grid_constant__ strip_arguments<Panels> const a, __grid_constant__ Out const out) {
    using stage_type = product_stage<Sm, Panels, 1, NT>;
    extern __shared__ __align__(128) std::byte shared[];
    product_arguments<Panels> const& p = a.of;
    if constexpr (has_side<Out>)
        if (static_cast<int>(blockIdx.x) < a.beside) return multiply_side<Sm, NT>(out.side, a.warps, shared);
    auto const strip = (static_cast<int>(blockIdx.x) - a.beside) / a.blocks * Strips;
    int const rank = (static_cast<int>(blockIdx.x) - a.beside) % a.blocks;
    int const warp = static_cast<int>(threadIdx.x) / 32;
    int const slice = (rank * a.warps + warp) / Strips;
    int const first = strip / 8 * p.steps;
    int const sums = 32 * Strips * p.m; // (strips, rows of x, 32)
    int const of_warp = p.slots * stage_type::warp_bytes / 4;
    auto* const rings = reinterpret_cast<float*>(shared + stage_type::table_bytes);
    float* const of_block = rings + a.warps * of_warp;
    // Each block of a cluster finishes a part of the sums; few sums the first block alone, which then alone waits for the side's.
    int const finishing = NT == 1 ? 1 : a.blocks;
    int const share = (sums / 32 + finishing - 1) / finishing * 32;
    int const last = ::min((rank + 1) * share, sums);
    int const i0 = rank * share + static_cast<int>(threadIdx.x);
    auto const row_of = [&](int i) { return 32 * static_cast<index_t>(strip + i / 32 / p.m) + i % 32; };
    if constexpr (has_side<Out>)
        if (a.beside > 0 && i0 < last) out.prefetch(row_of(i0));
    int const row = (strip % 8 + warp % Strips) * 32;
    float* const own = of_block + (a.blocks > 1 ? sums : 0);
    int const own_rows = 32 * Strips / a.blocks; // of each block of a cluster
    own_place const own_at{32 * static_cast<index_t>(strip), rank * own_rows, own_rows, own};
    multiply_strip<Sm, NT, Stages>(a, out, shared, first + p.cut.first(slice), first + p.cut.first(slice + 1), row, own_at,
                                   [&](int, lane_sums<NT> const& total) { leave_sums<Panels>(total, p.m, rings + warp * of_warp); });
    if constexpr (Sm >= 90)
        if (p.waits_late) ptx::wait_for_prerequisites();
    float* const u = own + (has_own_sums<Out> ? sums : 0);
    // With few rows of x asking early was 2 % slower.
    strip_output<Out> finish_row{out, a.beside > 0 ? u : nullptr, NT == 1 ? -1 : minimum(row_of(i0 < last ? i0 : 0), p.w.rows() - 1)};
    auto const finish = [&](int i, float sum) {
        if (index_t const n = row_of(i); n < p.w.rows()) finish_strip_sum<Sm>(a, out, i, n, sum, own, own_rows, finish_row);
    };
    if constexpr (has_side<Out>)
        if (a.beside > 0 && rank < finishing) gather_side(out.side, a.beside, (static_cast<int>(gridDim.x) - a.beside) / a.blocks * finishing, u);
    __syncthreads();
    auto const sum_of = [&](int i) {
        float sum = 0.0f;
        int const at = i / (32 * p.m);
        for (int w = at; w < a.warps; w += Strips) sum += rings[w * of_warp + i - at * 32 * p.m];
        return sum;
    };
    if (a.blocks == 1) {
        for (int i = i0; i < last; i += static_cast<int>(blockDim.x)) finish(i, sum_of(i));
    } else if constexpr (Sm >= 90) {
        for (int i = static_cast<int>(threadIdx.x); i < sums; i += static_cast<int>(blockDim.x)) of_block[i] = sum_of(i);
        ptx::sync_cluster();
        std::uint32_t const there = ptx::shared_address(of_block);
        for (int i = i0; i < last; i += static_cast<int>(blockDim.x)) {
            float sum = 0.0f;
            for (int b = 0; b < a.blocks; ++b) sum += ptx::load_from(there + 4 * i, static_cast<unsigned>(b));
            finish(i, sum);
        }
        ptx::sync_cluster(); // nobody ends while others read
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
