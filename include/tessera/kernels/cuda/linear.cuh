// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<op::apply, cuda<Sm>, linear<...>>`: a stored matrix in device panels, and its transpose.
///
///     template <class Arena> static void run(exec, operand, x, output, arena)
///
/// with x (m, k) on the device and a `product_output`. It carves its scratch from the arena and launches; of a
/// `workspace_sizer` it only carves.

#include "../../core/cuda_call.cuh"
#include "../../core/workspace.hpp"
#include "../../storage/device_memory.cuh"
#include "../epilogue.hpp"
#include "../kernel.hpp"
#include "../operand.hpp"
#include "prepare.cuh"
#include "product.cuh"
#include "strips.cuh"
#include "tiles.cuh"
#include "wide_tiles.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A sizer launches nothing.
template <class Arena>
inline constexpr bool launches = !std::is_same_v<Arena, workspace_sizer>;

/// Blocks of `threads` threads for `count` things, as a grid's x.
inline dim3 grid_of(index_t count, index_t threads = 256) noexcept { return dim3(static_cast<unsigned>(ceil_div(count, threads))); }

template <class Out>
__global__ void finish_nothing_kernel(__grid_constant__ Out const out, index_t rows, index_t columns) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i < rows * columns) out(i / columns, i % columns, 0.0f);
}

/// y where W has no columns.
template <int Sm, class Out>
void finish_nothing(cuda<Sm> const& exec, index_t m, index_t n, Out const& out) {
    launch("apply", stream_of(exec), {grid_of(m * n)}, &finish_nothing_kernel<Out>, out, m, n);
}

/// Preparations that panels take; kernels of others are their own.
template <class Preparation>
inline constexpr bool is_panel_preparation =
    std::is_same_v<Preparation, as_is> || std::is_same_v<Preparation, as_bf16> || std::is_same_v<Preparation, int8_per_token>;
template <index_t N>
inline constexpr bool is_panel_preparation<int8_per_group<N>> = true;

/// x as an int8 preparation makes it, in float32; Group 0: of whole rows.
template <index_t Group, int Sm, class X>
void run_int8(char const* operation, cuda<Sm> const& exec, matrix_view<X const> const& x, float* values) {
    index_t const length = Group == 0 ? x.extent(1) : Group;
    launch(operation, stream_of(exec), {grid_of(x.extent(0) * ceil_div(x.extent(1), length), 1), dim3(Group == 0 ? 256 : 32)}, &int8_kernel<X>, x, length,
           values);
}

/// One pass over W for at most 64 columns.
template <int Sm, class Panels, int Pieces, int NT, class Out>
void run_product_pass(cuda<Sm> const& exec, product_arguments<Panels> p, Out const& out) {
    using stage = product_stage<Sm, Panels, Pieces, NT>;
    int const most = p.cut.each + (p.cut.larger > 0 ? 1 : 0); // units of a block: a ring for so few leaves room for the next kernel
    p.slots = most < stage::stages ? most : stage::stages;
    launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(p.blocks)), dim3(256), stage::table_bytes + p.slots * stage::bytes, Sm >= 90},
           &product_kernel<Sm, Panels, Pieces, NT>, p);
    launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(p.w.tiles()), static_cast<unsigned>(p.m)), dim3(256), 0, Sm >= 90},
           &add_parts_kernel<Sm, Panels, Out>, p, out);
}

/// Strips of W, at most, that read two fragments of 8 rows of x each for itself.
inline constexpr index_t few_strips = 136;

/// The same in one kernel, for at most 8 NT columns.
template <int Sm, class Panels, int NT, class Out>
void run_strips(cuda<Sm> const& exec, product_arguments<Panels> const& p, Out out) {
    using stage = product_stage<Sm, Panels, 1, NT>;
    index_t const strips = ceil_div(p.w.rows(), 32);
    index_t const of_block = NT > 1 && strips > few_strips ? 2 : 1;
    strip_plan const plan = plan_strips<Sm>(strips, p.steps, of_block);
    strip_arguments<Panels> a{p, plan.warps, plan.blocks};
    a.of.cut = stream_cut{p.steps, plan.warps * plan.blocks / of_block};
    index_t const most = a.of.cut.each + (a.of.cut.larger > 0 ? 1 : 0);
    index_t const sum_bytes = 128 * 8 * NT; // of a warp, which it leaves in its ring
    index_t const block_sum_bytes = sum_bytes * of_block;
    constexpr int deep = deep_stages<Sm, Panels, NT>;
    bool const is_deep = of_block == 1 && most >= stage::stages && most < deep;
    a.of.slots = static_cast<int>(maximum(minimum(most, is_deep ? deep : stage::stages), ceil_div(sum_bytes, stage::warp_bytes)));
    index_t bytes = stage::table_bytes + plan.warps * a.of.slots * stage::warp_bytes +
                    ((plan.blocks > 1 ? 1 : 0) + (has_own_sums<Out> ? 1 : 0)) * block_sum_bytes;
    if constexpr (has_side<Out>) {
        if (out.side.blocks > 0) {
            using side_stage = product_stage<Sm, typename decltype(out.side)::panels, 1, NT>;
            auto& of = out.side.of;
            of.columns = p.columns;
            of.column_bytes = p.column_bytes;
            of.column_positions = p.column_positions;
            of.m = p.m;
            of.pieces = 1;
            out.side.blocks = static_cast<int>(minimum(out.side.blocks, of.steps / plan.warps));
            of.cut = stream_cut{of.steps, out.side.blocks * plan.warps};
            of.slots = side_stage::stages;
            a.beside = static_cast<int>(round_up(ceil_div(of.w.rows(), 32) * out.side.blocks, plan.blocks));
            bytes = maximum(bytes + block_sum_bytes + 4 * 64 * 8 * NT, side_stage::table_bytes + plan.warps * of.slots * side_stage::warp_bytes);
        }
    }
    auto* kernel = is_deep ? &strip_kernel<Sm, Panels, NT, deep, 1, Out> : &strip_kernel<Sm, Panels, NT, stage::stages, 1, Out>;
    if constexpr (NT > 1)
        if (of_block == 2) kernel = &strip_kernel<Sm, Panels, NT, stage::stages, 2, Out>;
    launch("apply", stream_of(exec),
           {dim3(static_cast<unsigned>(ceil_div(strips, of_block) * plan.blocks + a.beside)), dim3(static_cast<unsigned>(32 * (plan.warps + own_warps<Out>))), bytes, Sm >= 90,
            plan.blocks > 1 ? static_cast<unsigned>(plan.blocks) : 0},
           kernel, a, out);
}

/// Whether a product goes by strips. Its sums depend on the rows of x then: not those of `as_is`.
template <int Sm, class Panels, class Preparation>
bool goes_by_strips(Panels const& w, index_t rows) noexcept {
    return std::is_same_v<Preparation, as_bf16> && rows <= 16 && ceil_div(w.rows(), 32) <= 8 * product_blocks<Sm>;
}

/// Whether rows of bf16 can be copied as they are.
template <class Panels, class X>
bool is_direct(Panels const& w, matrix_view<X const> const& x) noexcept {
    return std::is_same_v<X, bf16> && !Panels::format::has_offsets && Panels::sub_block >= 32 && !w.has_gaps() &&
           has_unit_stride(x) && (x.extent(0) == 1 || x.stride(0) % 8 == 0) && x.extent(1) % 8 == 0 &&
           x.extent(0) * x.stride(0) < (index_t{1} << 30) && reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0;
}

/// Columns, sums and the product for the rows of x that one pass takes.
template <int Sm, class Panels, class Preparation, int NT, class X, class Out>
void run_product_rows(cuda<Sm> const& exec, product_arguments<Panels> p, matrix_view<X const> const& x, index_t rows, bf16* columns, float* sums,
                      Out const& out) {
    constexpr int pieces = x_pieces<X, Preparation>;
    constexpr bool rounds = std::is_same_v<Preparation, as_bf16>;
    constexpr int weights = rounds ? 1 : weight_pieces<typename Panels::storage>;
    p.m = static_cast<int>(x.extent(0));
    p.pieces = pieces;
    if (is_direct(p.w, x)) {
        if constexpr (std::is_same_v<X, bf16>) p.columns = x.data_handle();
        p.column_bytes = static_cast<unsigned>(2 * x.stride(0));
        p.column_positions = static_cast<int>(x.extent(1));
    } else {
        index_t const chunks = p.w.blocks() * 8;
        index_t const count = p.m * pieces * chunks;
        launch("apply", stream_of(exec), {grid_of(count)}, &column_kernel<Panels, pieces, X>, p.w, x, chunks, count,
               reinterpret_cast<::uint4*>(columns));
        p.columns = columns;
        p.column_bytes = static_cast<unsigned>(16 * chunks);
        p.column_positions = static_cast<int>(8 * chunks);
    }
    if constexpr (Panels::format::has_offsets) {
        launch("apply", stream_of(exec), {grid_of(p.w.groups() * 8 * NT, 8)}, &sum_kernel<Panels, pieces, rounds, X>, x, 8 * NT,
               p.w.groups(), sums);
        p.sums = sums;
    }
    if constexpr (requires { out.x_is_ready; }) {
        if (out.x_is_ready) { // room for the kernel before this one
            p.waits_late = true;
            index_t const units = p.w.tiles() * p.steps;
            p.blocks = maximum(1, blocks_for<Sm>(p.w.tiles(), units) - 8);
            p.cut = stream_cut{units, p.blocks};
        }
    }
    if constexpr (requires { Out::triggers_late; }) p.triggers_late = true;
    if constexpr (has_own_sums<Out>) return run_strips<Sm, Panels, NT>(exec, p, out);
    if constexpr (rounds && NT <= 2)
        if (goes_by_strips<Sm, Panels, Preparation>(p.w, rows)) return run_strips<Sm, Panels, NT>(exec, p, out);
    if constexpr (!has_own_sums<Out>) run_product_pass<Sm, Panels, weights, NT>(exec, p, out);
}

/// Indices of kernels are 32 bits wide; `steps` for each tile of W.
template <class Panels>
void check_sizes(Panels const& w, index_t steps) {
    check::within("apply", "rows of W", w.rows(), 0, 256 * device_workspace::counter_count);
    check::within("apply", "steps of W", w.tiles() * steps, 0, index_t{1} << 30);
    check::within("apply", "scales of W", w.scale_count(), 0, index_t{1} << 32);
    check::within("apply", "columns of W", w.cols(), 0, index_t{1} << 24);
}

/// Rows of x from which on a product goes by tiles.
inline constexpr index_t tile_rows_from = 17;

/// Whether tiles serve a product, whatever the number of rows.
template <int Sm, class Panels, class Preparation>
inline constexpr bool has_tiles = Sm == 90 && std::is_same_v<Preparation, as_bf16> && tile_stage<Panels, 128>::serves;

/// Rows of bf16 whose pairs of elements are aligned.
template <class Panels, class X>
bool is_paired(Panels const& w, matrix_view<X const> const& x) noexcept {
    return std::is_same_v<X, bf16> && !w.has_gaps() && has_unit_stride(x) &&
           (x.extent(0) == 1 || x.stride(0) % 2 == 0) && x.extent(1) % 2 == 0 && reinterpret_cast<std::uintptr_t>(x.data_handle()) % 4 == 0;
}

/// How blocks, or clusters of those that share a tile, take tiles: whole ones where at most 15 % of the processor are idle then, or pieces of their line, as many as make
/// equal parts of tiles where that costs less than a tenth.
struct tile_plan {
    bool is_whole;
    index_t clusters;
};
inline tile_plan plan_tiles(index_t tiles, index_t steps, index_t places) noexcept {
    if (20 * tiles >= 17 * places * ceil_div(tiles, places)) return {true, minimum(tiles, places)};
    index_t const equal = tiles <= places ? places / tiles * tiles : 0;
    return {false, minimum(tiles * steps, 10 * equal >= 9 * places ? equal : places)};
}

/// Whether rows of bf16 are read 16 bytes at a time.
template <class Panels, class X>
bool is_wide(Panels const& w, matrix_view<X const> const& x) noexcept {
    return is_paired(w, x) && Panels::sub_block == 64 && (x.extent(0) == 1 || x.stride(0) % 8 == 0) && x.extent(1) % 8 == 0 &&
           reinterpret_cast<std::uintptr_t>(x.data_handle()) % 16 == 0;
}

/// x as the operand of tiles of N rows.
template <int N, int Sm, class Panels, class X>
void run_tile_columns(cuda<Sm> const& exec, tile_arguments<Panels>& p, matrix_view<X const> const& x, ::uint4* columns) {
    p.m = static_cast<int>(x.extent(0));
    p.column_tiles = static_cast<int>(ceil_div(x.extent(0), N));
    p.part_columns = minimum(p.m, N);
    p.columns = reinterpret_cast<std::byte const*>(columns);
    index_t const rows = index_t{p.column_tiles} * p.w.blocks() * N;
    if (is_wide(p.w, x)) {
        if constexpr (std::is_same_v<X, bf16>)
            launch("apply", stream_of(exec), {grid_of(rows * 2), dim3(256), 0, true}, &wide_tile_column_kernel<N>, x,
                   static_cast<int>(p.w.blocks()), rows * 2, columns);
    } else {
        launch("apply", stream_of(exec), {grid_of(rows * 8), dim3(256), 0, true}, &tile_column_kernel<Panels, N, X>, p.w, x, is_paired(p.w, x),
               static_cast<int>(p.w.blocks()), rows * 8, columns);
    }
}

/// y = x Wᵀ in tiles of N rows of x, for at most 1024 of them.
template <int N, int Sm, class Panels, class X, class Out>
void run_tile_rows(cuda<Sm> const& exec, tile_arguments<Panels> p, matrix_view<X const> const& x, ::uint4* columns, float* sums, Out const& out) {
    run_tile_columns<N>(exec, p, x, columns);
    index_t const tiles = p.w.tiles() * p.column_tiles;
    tile_plan const plan = plan_tiles(tiles, p.steps, tile_places<N>);
    p.is_whole = plan.is_whole;
    p.cut = stream_cut{plan.is_whole ? tiles : tiles * p.steps, plan.clusters};
    if constexpr (Panels::format::has_offsets) {
        launch("apply", stream_of(exec), {grid_of(p.w.groups() * p.column_tiles * N, 8)}, &sum_kernel<Panels, 1, true, X>, x,
               p.column_tiles * N, p.w.groups(), sums);
        p.sums = sums;
    }
    constexpr auto blocks = static_cast<unsigned>(tile_blocks<N>);
    launch("apply", stream_of(exec),
           {dim3(blocks * static_cast<unsigned>(plan.clusters)), dim3(128 + 128 * tile_warpgroups<N>), tile_stage<Panels, N>::shared_bytes, true,
            blocks > 1 ? blocks : 0},
           &tile_kernel<Panels, N, Out>, p, out);
    if (!plan.is_whole)
        launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(p.w.tiles()), static_cast<unsigned>(p.m)), dim3(256), 0, true},
               &add_tiles_kernel<Panels, N, Out>, p, out);
}

/// The same in tiles of 256 rows of x: halves of k to blocks of clusters where that keeps 85 % of the processor busy.
template <int Sm, class Panels, class X, class Out>
void run_wide_tile_rows(cuda<Sm> const& exec, tile_arguments<Panels> p, matrix_view<X const> const& x, ::uint4* columns, Out const& out) {
    using stage = wide_stage<Panels>;
    run_tile_columns<stage::columns>(exec, p, x, columns);
    index_t const tiles = ceil_div(p.w.rows(), stage::rows) * p.column_tiles;
    auto const start = [&]<wide_share Share>(std::integral_constant<wide_share, Share>, index_t blocks) {
        p.cut = stream_cut{Share == wide_share::whole ? tiles : tiles * p.steps, blocks};
        launch("apply", stream_of(exec),
               {dim3(static_cast<unsigned>(blocks)), dim3(384), stage::shared_bytes, true, Share == wide_share::halves ? 2u : 0u},
               &wide_tile_kernel<Share, Panels, Out>, p, out);
    };
    tile_plan const plan = plan_tiles(tiles, p.steps, wide_places);
    if (plan.is_whole) {
        start(std::integral_constant<wide_share, wide_share::whole>{}, plan.clusters);
    } else if (2 * tiles <= wide_places && 40 * tiles >= 17 * wide_places && p.steps > 1) {
        start(std::integral_constant<wide_share, wide_share::halves>{}, 2 * tiles);
    } else {
        start(std::integral_constant<wide_share, wide_share::parts>{}, plan.clusters);
        launch("apply", stream_of(exec), {dim3(grid_of(p.w.rows()).x, static_cast<unsigned>(p.m)), dim3(256), 0, true}, &add_wide_tiles_kernel<Panels, Out>, p, out);
    }
}

/// y = x Wᵀ by tiles.
template <int Sm, class Panels, class X, class Out, class Arena>
void run_tiles(cuda<Sm> const& exec, Panels const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
    constexpr index_t rows_of_pass = 1024;
    index_t const rows = minimum(x.extent(0), rows_of_pass);
    index_t const n = rows <= 32 ? 32 : rows <= 64 ? 64 : rows <= 128 || !wide_stage<Panels>::serves ? 128 : 256;
    index_t const padded = round_up(rows, n);
    auto* const columns = arena.template carve<::uint4>(padded, w.blocks(), 8);
    float* const sums = Panels::format::has_offsets ? arena.template carve<float>(w.groups(), padded) : nullptr;
    index_t const places = n <= 64 ? tile_places<64> : n == 128 ? tile_places<128> : wide_places;
    index_t const height = n == 256 ? 128 : 256;
    float* const parts = arena.template carve<float>(places + ceil_div(w.rows(), height) * (padded / n), n, height);
    if constexpr (launches<Arena>) {
        index_t const steps = w.blocks() / Panels::step_blocks;
        check_sizes(w, 2 * (padded / n) * steps);
        tile_arguments<Panels> p{w, stream_cut{1, 1}, static_cast<int>(steps), static_cast<int>(w.groups())};
        p.parts = parts;
        p.table = make_decode_table<typename Panels::format>();
        for (p.m0 = 0; p.m0 < x.extent(0); p.m0 += rows_of_pass) {
            matrix_view<X const> const part = tessera::rows(x, p.m0, minimum(p.m0 + rows_of_pass, x.extent(0)));
            if (n == 32)
                run_tile_rows<32>(exec, p, part, columns, sums, out);
            else if (n == 64)
                run_tile_rows<64>(exec, p, part, columns, sums, out);
            else if (n == 128)
                run_tile_rows<128>(exec, p, part, columns, sums, out);
            else if constexpr (wide_stage<Panels>::serves)
                run_wide_tile_rows(exec, p, part, columns, out);
        }
    }
}

/// y = x Wᵀ for x as it is to be multiplied.
template <int Sm, class Preparation, class Panels, class X, class Out, class Arena>
void run_panels(cuda<Sm> const& exec, Panels const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
    if constexpr (has_tiles<Sm, Panels, Preparation> && !has_own_sums<Out>)
        if (x.extent(0) >= tile_rows_from) return run_tiles(exec, w, x, out, arena);
    constexpr index_t pieces = x_pieces<X, Preparation>;
    constexpr index_t rows_of_pass = 64 / pieces;
    index_t const rows = minimum(x.extent(0), rows_of_pass);
    index_t const fragments = rows * pieces <= 8 ? 1 : rows * pieces <= 16 ? 2 : rows * pieces <= 32 ? 4 : 8;
    auto* const prepared = arena.template carve<bf16>(rows * pieces, w.blocks(), 64);
    float* const sums = Panels::format::has_offsets ? arena.template carve<float>(w.groups(), 8 * fragments) : nullptr;
    float* const parts = arena.template carve<float>(product_blocks<Sm> + w.tiles(), rows * pieces, 256);
    if constexpr (launches<Arena>) {
        index_t const steps = w.blocks() / Panels::step_blocks;
        check_sizes(w, steps);
        product_arguments<Panels> p{w, stream_cut{w.tiles() * steps, blocks_for<Sm>(w.tiles(), w.tiles() * steps)},
                                    static_cast<int>(steps), static_cast<int>(w.groups())};
        p.parts = parts;
        p.blocks = blocks_for<Sm>(w.tiles(), w.tiles() * steps);
        p.table = make_decode_table<typename Panels::format>();
        for (p.m0 = 0; p.m0 < x.extent(0); p.m0 += rows_of_pass) {
            index_t const count = minimum(x.extent(0) - p.m0, rows_of_pass);
            matrix_view<X const> const part = tessera::rows(x, p.m0, p.m0 + count);
            index_t const columns = count * pieces;
            if constexpr (has_own_sums<Out>)
                run_product_rows<Sm, Panels, Preparation, Out::fragments>(exec, p, part, rows, prepared, sums, out);
            else if (columns <= 8)
                run_product_rows<Sm, Panels, Preparation, 1>(exec, p, part, rows, prepared, sums, out);
            else if (columns <= 16)
                run_product_rows<Sm, Panels, Preparation, 2>(exec, p, part, rows, prepared, sums, out);
            else if constexpr (!has_tiles<Sm, Panels, Preparation>) {
                if (columns <= 32)
                    run_product_rows<Sm, Panels, Preparation, 4>(exec, p, part, rows, prepared, sums, out);
                else
                    run_product_rows<Sm, Panels, Preparation, 8>(exec, p, part, rows, prepared, sums, out);
            }
        }
    }
}

// --- transposed ------------------------------------------------------------------------------------------------------

/// What a code of W stands for, less a scale and an offset.
template <class Panels>
__device__ __forceinline__ float panel_value(Panels const& w, decode_table<typename Panels::format> const& table, index_t n, index_t k) {
    using format = typename Panels::format;
    if constexpr (stored_table_format<format>) {
        return w.value(n, k);
    } else {
        auto const at = w.locate(n, w.position(k));
        std::uint32_t const word = reinterpret_cast<std::uint32_t const*>(w.data())[at.word] >> at.bit;
        std::uint32_t const code = word & static_cast<std::uint32_t>((std::uint64_t{1} << format::bits) - 1u);
        if constexpr (format::is_integer)
            return static_cast<float>(static_cast<int>(code) - format::zero);
        else if constexpr (!format::is_dense)
            return table.values[code];
        else if constexpr (std::is_same_v<typename format::element_type, float>)
            return __uint_as_float(code);
        else
            return static_cast<float>(format::element_type::from_bits(static_cast<std::uint16_t>(code)));
    }
}

/// An element of W.
template <class Panels>
__device__ __forceinline__ float panel_element(Panels const& w, decode_table<typename Panels::format> const& table, index_t n, index_t k) {
    using format = typename Panels::format;
    float value = panel_value(w, table, n, k);
    if constexpr (format::has_scales) {
        index_t const i = w.scale_of(n, k);
        value *= static_cast<float>(w.scales()[i]);
        if constexpr (format::has_offsets) value += w.offsets()[i];
    }
    return value;
}

/// partial(tile, m, k) = sum over the tile's rows n of x(m, n) W(n, k): a thread for each k, 8 rows of x.
template <class Panels, class X>
__global__ void transposed_kernel(__grid_constant__ Panels const w, __grid_constant__ decode_table<typename Panels::format> const table,
                                  __grid_constant__ matrix_view<X const> const x, float* partial) {
    __shared__ float rows[8][256];
    index_t const k = static_cast<index_t>(blockIdx.x) * 128 + threadIdx.x;
    index_t const m0 = static_cast<index_t>(blockIdx.y) * 8;
    index_t const n0 = static_cast<index_t>(blockIdx.z) * 256;
    auto const count = static_cast<int>(minimum(256, w.rows() - n0));
    for (int i = static_cast<int>(threadIdx.x); i < 8 * 256; i += 128)
        rows[i / 256][i % 256] = m0 + i / 256 < x.extent(0) && i % 256 < count ? static_cast<float>(x(m0 + i / 256, n0 + i % 256)) : 0.0f;
    __syncthreads();
    if (k >= w.cols()) return;
    float sum[8] = {};
    for (int n = 0; n < count; ++n) {
        float const v = panel_element(w, table, n0 + n, k);
#pragma unroll
        for (int i = 0; i < 8; ++i) sum[i] = fmaf(rows[i][n], v, sum[i]);
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
        if (m0 + i < x.extent(0)) partial[(blockIdx.z * x.extent(0) + m0 + i) * w.cols() + k] = sum[i];
}

template <class Out>
__global__ void add_partials_kernel(float const* partial, index_t parts, index_t rows, index_t columns, index_t m0,
                                    __grid_constant__ Out const out) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= rows * columns) return;
    float sum = 0.0f;
    for (index_t p = 0; p < parts; ++p) sum += partial[p * rows * columns + i];
    out(m0 + i / columns, i % columns, sum);
}

} // namespace detail

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_panel, Storage>, Preparation>> {
    using operand = linear<prepacked<device_panel, Storage>, Preparation>;
    static_assert(detail::is_panel_preparation<Preparation>,
                  "tessera: apply: cuda<Sm> takes x as_is, as_bf16, in int8_per_token, int8_per_group and fp8_per_group, no other preparation");

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        constexpr index_t group = detail::activation_group<Preparation>;
        if (w.cols() == 0) {
            if constexpr (detail::launches<Arena>) detail::finish_nothing(exec, x.extent(0), w.rows(), out);
        } else if constexpr (group < 0) {
            detail::run_panels<Sm, Preparation>(exec, w.storage(), x, out, arena);
        } else {
            float* const values = arena.template carve<float>(x.extent(0), x.extent(1));
            if constexpr (detail::launches<Arena>) detail::run_int8<group>("apply", exec, x, values);
            detail::run_panels<Sm, as_is>(exec, w.storage(), matrix_view<float const>{values, x.extent(0), x.extent(1)}, out, arena);
        }
    }
};

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, transposed_operator<linear<prepacked<device_panel, Storage>, Preparation>>> {
    using operand = transposed_operator<linear<prepacked<device_panel, Storage>, Preparation>>;
    static constexpr index_t rows_of_pass = 64;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& t, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        auto const& w = t.inner().storage();
        using panels = prepacked<device_panel, Storage>;
        if (w.rows() == 0) {
            if constexpr (detail::launches<Arena>) detail::finish_nothing(exec, x.extent(0), w.cols(), out);
            return;
        }
        float* const partial = arena.template carve<float>(w.tiles(), minimum(x.extent(0), rows_of_pass), w.cols());
        if constexpr (detail::launches<Arena>) {
            auto const table = detail::make_decode_table<typename panels::format>();
            for (index_t m = 0; m < x.extent(0); m += rows_of_pass) {
                matrix_view<X const> const part = tessera::rows(x, m, minimum(m + rows_of_pass, x.extent(0)));
                detail::launch("apply", detail::stream_of(exec),
                               {dim3(static_cast<unsigned>(ceil_div(w.cols(), 128)), static_cast<unsigned>(ceil_div(part.extent(0), 8)),
                                     static_cast<unsigned>(w.tiles())),
                                dim3(128)},
                               &detail::transposed_kernel<panels, X>, w, table, part, partial);
                detail::launch("apply", detail::stream_of(exec), {detail::grid_of(part.extent(0) * w.cols())},
                               &detail::add_partials_kernel<Out>, partial, w.tiles(), part.extent(0), w.cols(), m, out);
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
