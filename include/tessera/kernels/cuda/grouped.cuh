// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of a family of operators with rows of x in groups, on CUDA devices: member e multiplies the rows in slots
/// [offsets[e], offsets[e + 1]), which are numbers on the device that the host does not know.
///
/// **Stored matrices** run in one launch: a block takes 32 rows of W of a member that has rows of x, and goes through
/// these 8, 16 or 32 columns of the matrix units at a time. Its 8 warps take equal parts of k, whose sums are added in their
/// order; where rows of W are short, 2 or 4 warps do, and a block takes 128 or 64 rows. A row's bits depend on W alone.
///
/// **Every other operator** runs member by member on all rows, and keeps what is its own: as correct, and as slow as that is.

#include "linear.cuh"
#include "routing.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Operators of one type at equal distances, on the host and, byte by byte, on the device.
template <class Op>
struct device_family {
    std::byte const* host = nullptr;
    std::byte const* there = nullptr;
    index_t stride = 0;
    index_t members = 0;

    Op const& operator[](index_t e) const noexcept { return *reinterpret_cast<Op const*>(host + e * stride); }
    /// The same part of every member.
    template <class Part, class Get>
    device_family<Part> part(Get const& get) const noexcept {
        if (members == 0) return {nullptr, nullptr, stride, 0};
        auto const* const of_first = reinterpret_cast<std::byte const*>(&get((*this)[0]));
        return {of_first, there + (of_first - host), stride, members};
    }
};

/// Whose rows are where.
struct device_groups {
    index_t const* offsets; ///< (members + 1), on the device
    index_t const* row_of;  ///< (slots), on the device: the row of x of a slot, where `gathers`; null: the slot
    index_t slots;          ///< on the host: as many as there may be
    index_t most;           ///< rows of a member at most
    index_t const* used;    ///< (minimum(members, slots)), on the device: members with rows, and -1; null: to be found
    bool gathers = false;   ///< there is a row_of, which has no address yet when scratch is counted
};

template <class Panels>
struct grouped_arguments {
    std::byte const* members[2]; ///< Panels, `stride` bytes apart: of blockIdx.z
    index_t stride;
    index_t const* used;
    index_t const* offsets;
    index_t const* row_of;
    index_t slots;
    std::byte const* columns; ///< those of a row of x side by side, `column_bytes` apart
    index_t column_bytes;
    int column_positions;
    int pieces;
    int split;         ///< warps that share 32 rows of W
    float const* sums; ///< (groups, columns): of x, where W has offsets
    index_t sum_columns;
    decode_table<typename Panels::format> table;
};

/// A lane's 16 bytes of the columns of a half block.
template <int NT>
struct grouped_columns {
    std::byte const* at[NT];
    int sum_at[NT][2]; ///< the columns of its sums in `sums`, or -1

    template <class Panels>
    __device__ __forceinline__ grouped_columns(grouped_arguments<Panels> const& p, index_t first, int columns) {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        constexpr bool is_whole = Panels::sub_block == 64;
        auto const row = [&](int column) {
            index_t const s = first + (column < columns ? column : columns - 1) / p.pieces;
            return p.row_of != nullptr ? p.row_of[s] : s;
        };
#pragma unroll
        for (int t = 0; t < NT; ++t) {
            int const column = 8 * t + lane / 4;
            int const piece = (column < columns ? column : columns - 1) % p.pieces;
            at[t] = p.columns + (row(column) * p.pieces + piece) * p.column_bytes + (is_whole ? 32 : 16) * (lane % 4);
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                int const of_sum = 8 * t + lane % 4 * 2 + c;
                sum_at[t][c] = of_sum < columns && of_sum % p.pieces == 0 ? static_cast<int>(row(of_sum)) * p.pieces : -1;
            }
        }
    }
    template <class Panels>
    __device__ __forceinline__ void load(grouped_arguments<Panels> const& p, int block, int half, ::uint4 (&to)[NT]) const {
        constexpr bool is_whole = Panels::sub_block == 64;
        int const lane = static_cast<int>(threadIdx.x) % 32;
        int const position = block * 64 + (is_whole ? 16 * (lane % 4) + 8 * half : 8 * (lane % 4) + 32 * half);
        bool const is_there = position < p.column_positions;
#pragma unroll
        for (int t = 0; t < NT; ++t)
            to[t] = is_there ? __ldg(reinterpret_cast<::uint4 const*>(at[t] + block * 128 + half * (is_whole ? 16 : 64))) : make_uint4(0, 0, 0, 0);
    }
};

/// What a warp multiplies in a block of 64 positions: codes and scales of its 32 rows, x.
template <int NT, class Panels>
struct grouped_block {
    static constexpr auto sub_blocks = static_cast<int>(64 / Panels::sub_block);
    static constexpr bool has_groups = Panels::format::has_scales && Panels::group != 0;
    code_words<Panels> code;
    typename Panels::scale_type scales[has_groups ? sub_blocks : 1][4]; ///< rows g, g + 8, g + 16, g + 24 of a lane
    ::uint4 columns[2][NT];

    __device__ __forceinline__ static int group_of(int block, int sub) {
        return (block * 64 + sub * static_cast<int>(Panels::sub_block)) / static_cast<int>(maximum(Panels::group_positions, 1));
    }
    __device__ __forceinline__ void load_weights(Panels const& w, std::byte const* codes, index_t n0, int block) {
        code.load(codes + static_cast<index_t>(block) * Panels::block_bytes);
        if constexpr (has_groups) {
            auto const groups = static_cast<int>(w.groups());
#pragma unroll
            for (int s = 0; s < sub_blocks; ++s) {
                int const group = w.stored_group(minimum(group_of(block, s), groups - 1));
                auto const* const from = w.scales() + Panels::scale_index(w.stored_groups(), n0, group) + threadIdx.x % 32 / 4;
#pragma unroll
                for (int i = 0; i < 4; ++i) scales[s][i] = from[8 * i];
            }
        }
    }
};

/// total += scale * part (+ offset * sum of x, at the beginning of a group).
template <int NT, class Panels>
__device__ __forceinline__ void scale_sub_block(grouped_arguments<Panels> const& p, Panels const& w, grouped_columns<NT> const& x, index_t n0, int block, int sub,
                                                grouped_block<NT, Panels> const& from, lane_sums<NT>& total, lane_sums<NT> const& part) {
    int const group = grouped_block<NT, Panels>::group_of(block, sub);
    if (group >= w.groups()) return; // positions that are there for whole blocks: no columns of W
#pragma unroll
    for (int i = 0; i < 4; ++i) { // panel i / 2, rows g and g + 8
        float const s = stored_to_float(from.scales[sub][i]);
#pragma unroll
        for (int t = 0; t < NT; ++t)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float& to = total.v[i / 2][t][i % 2 * 2 + c];
                to = fmaf(s, part.v[i / 2][t][i % 2 * 2 + c], to);
            }
        if constexpr (Panels::format::has_offsets) {
            int const position = block * 64 + sub * static_cast<int>(Panels::sub_block);
            if (position % static_cast<int>(maximum(Panels::group_positions, 1)) != 0) continue;
            float const o = w.offsets()[Panels::scale_index(w.groups(), n0, group) + threadIdx.x % 32 / 4 + 8 * i];
#pragma unroll
            for (int t = 0; t < NT; ++t)
#pragma unroll
                for (int c = 0; c < 2; ++c)
                    if (x.sum_at[t][c] >= 0) {
                        float& to = total.v[i / 2][t][i % 2 * 2 + c];
                        to = fmaf(o, p.sums[group * p.sum_columns + x.sum_at[t][c]], to);
                    }
        }
    }
}

/// A block of 64 positions.
template <int NT, int Pieces, class Panels>
__device__ __forceinline__ void multiply_grouped_block(grouped_arguments<Panels> const& p, Panels const& w, grouped_columns<NT> const& x,
                                                       fragment_decoder<typename Panels::format, Pieces> const& decoder,
                                                       grouped_block<NT, Panels> const& from, index_t n0, int block, lane_sums<NT>& total) {
    constexpr auto of_sub_block = static_cast<int>(Panels::sub_block / 16);
    constexpr bool has_groups = Panels::format::has_scales && Panels::group != 0;
    lane_sums<NT> part;
    typename fragment_decoder<typename Panels::format, Pieces>::origin_type const origin[2] = {decoder.template origin<0>(w, n0, block),
                                                                                               decoder.template origin<1>(w, n0, block)};
    auto const fragment = [&]<int F>(std::integral_constant<int, F>) {
        if constexpr (has_groups)
            multiply_fragment<F, F % of_sub_block == 0, Pieces>(decoder, from.code, origin, from.columns[F / 2], part);
        else
            multiply_fragment<F, false, Pieces>(decoder, from.code, origin, from.columns[F / 2], total);
        if constexpr (has_groups && (F + 1) % of_sub_block == 0)
            scale_sub_block<NT>(p, w, x, n0, block, F / of_sub_block, from, total, part);
    };
    [&]<int... F>(std::integer_sequence<int, F...>) { (fragment(std::integral_constant<int, F>{}), ...); }
    (std::make_integer_sequence<int, 4>{});
}

/// Warps that share the 32 rows of W of a block: fewer of short rows, where a block takes more of them. By the shape of W alone.
inline int grouped_split(index_t blocks) noexcept { return blocks >= 32 ? 8 : blocks >= 16 ? 4 : 2; }

/// What the warps of a block add up: `sums` (groups of 32 rows of W, 8 NT columns, 32 rows).
template <class Panels, int NT>
__device__ __forceinline__ void add_warps(lane_sums<NT> const& total, int split, float (&parts)[8][8][33], float (&sums)[4][8 * NT][33]) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int t = 0; t < NT; ++t) {
        __syncthreads();
#pragma unroll
        for (int i = 0; i < 8; ++i) parts[warp][lane % 4 * 2 + i % 2][i / 4 * 16 + Panels::row_of_lane(lane / 4, i % 4 / 2)] = total.v[i / 4][t][i % 4];
        __syncthreads();
        for (int g = 0; g < 8 / split; ++g) {
            float sum = 0.0f;
            for (int w = g * split; w < (g + 1) * split; ++w) sum += parts[w][warp][lane];
            sums[g][8 * t + warp][lane] = sum;
        }
    }
    __syncthreads();
}

/// Outputs of the one or two families that read the same x.
template <class Out>
struct grouped_outputs {
    Out of[2];
};

/// y of `here` slots from s on: pieces are added, and what a whole row of W shares is applied.
template <class Panels, int Columns, class Out>
__device__ __forceinline__ void write_grouped(grouped_arguments<Panels> const& p, Panels const& w, index_t n0, index_t s, int here,
                                              int row_groups, float const (&sums)[4][Columns][33], Out const& out) {
    int const width = 32 * row_groups;
    for (int j = static_cast<int>(threadIdx.x); j < here * width; j += 256) {
        index_t const n = n0 + j % width;
        if (n >= w.rows()) continue;
        int const i = j / width * 32 + j % 32; // of the rows of a group
        float sum = 0.0f;
        for (int c = 0; c < p.pieces; ++c) sum += sums[j % width / 32][i / 32 * p.pieces + c][i % 32];
        if constexpr (Panels::format::has_scales && Panels::group == 0) sum *= static_cast<float>(w.scales()[n]);
        if constexpr (Panels::format::has_offsets && Panels::group == 0) {
            index_t const row = p.row_of != nullptr ? p.row_of[s + i / 32] : s + i / 32;
            sum = fmaf(w.offsets()[n], p.sums[row * p.pieces], sum);
        }
        out(s + i / 32, n, sum);
    }
}

/// 32 rows of W, or 64 or 128 (blockIdx.x), of the used member blockIdx.y of family blockIdx.z, times its rows of x.
template <class Panels, int Pieces, int NT, class Out>
__global__ void __launch_bounds__(256, 2) grouped_kernel(__grid_constant__ grouped_arguments<Panels> const p, __grid_constant__ grouped_outputs<Out> const outs) {
    using decoder_type = fragment_decoder<typename Panels::format, Pieces>;
    constexpr int most = Panels::format::width <= 4 ? 4 : Panels::format::width == 8 ? 2 : 1;
    constexpr int U = most / NT > 1 ? most / NT : 1; // blocks that are asked for together
    extern __shared__ __align__(16) std::byte tables[];
    __shared__ float parts[8][8][33];
    __shared__ float sums[4][8 * NT][33];
    index_t const e = p.used[blockIdx.y];
    if (e < 0) return;
    index_t const first = maximum(p.offsets[e], 0);
    index_t const last = minimum(p.offsets[e + 1], p.slots);
    Panels const w = *reinterpret_cast<Panels const*>(p.members[blockIdx.z] + e * p.stride);
    int const row_groups = 8 / p.split;
    int const part = static_cast<int>(threadIdx.x) / 32 % p.split;
    index_t const of_block = static_cast<index_t>(blockIdx.x) * 32 * row_groups;
    index_t const n0 = of_block + static_cast<int>(threadIdx.x) / 32 / p.split * 32;
    auto const blocks = static_cast<int>(w.blocks());
    bool const is_there = n0 < w.rows();
    int const begin = is_there ? blocks * part / p.split : 0;
    int const end = is_there ? blocks * (part + 1) / p.split : 0;
    std::byte const* const codes = w.data() + n0 / 256 * blocks * Panels::block_bytes + n0 % 256 / 16 * Panels::panel_block_bytes;
    grouped_block<NT, Panels> ring[U];
#pragma unroll
    for (int u = 0; u < U; ++u)
        if (begin + u < end) ring[u].load_weights(w, codes, n0, begin + u);
    decoder_type::fill(p.table, w, tables);
    decoder_type const decoder = decoder_type::template of<2>(tables, static_cast<int>(threadIdx.x) / 32);
    if (is_there) decoder.template begin_rows<2>(w, n0);
    __syncthreads();
    int const rows = 8 * NT / p.pieces;
    for (index_t s = first; s < last; s += rows) {
        int const here = static_cast<int>(minimum(rows, last - s));
        grouped_columns<NT> const x{p, s, here * p.pieces};
        lane_sums<NT> total;
        total.clear();
        auto const load_columns = [&](int u, int b) {
            if (b >= end) return;
            x.load(p, b, 0, ring[u].columns[0]);
            x.load(p, b, 1, ring[u].columns[1]);
        };
#pragma unroll
        for (int u = 0; u < U; ++u) load_columns(u, begin + u);
#pragma unroll 1
        for (int b = begin; b < end; b += U) {
            bool const goes_on = b + U < end;
            int const next = goes_on ? b + U : s + rows < last ? begin : end; // the next rows of x begin again
#pragma unroll
            for (int u = 0; u < U; ++u) {
                if (b + u < end) multiply_grouped_block<NT, Pieces>(p, w, x, decoder, ring[u], n0, b + u, total);
                if (next + u < end) ring[u].load_weights(w, codes, n0, next + u);
                if (goes_on) load_columns(u, b + U + u);
            }
        }
        add_warps<Panels>(total, p.split, parts, sums);
        write_grouped(p, w, of_block, s, here, row_groups, sums, outs.of[blockIdx.z]);
    }
}

/// Writes the rows of one member of a family.
template <class Y, class Finish>
struct member_output : product_output<Y, Finish> {
    index_t const* range; ///< first and last
    __device__ void operator()(index_t m, index_t n, float sum) const {
        if (m >= range[0] && m < range[1]) product_output<Y, Finish>::operator()(m, n, sum);
    }
};

template <class X>
__global__ void gather_kernel(__grid_constant__ matrix_view<X const> const x, index_t const* row_of, __grid_constant__ matrix_view<X> const to) {
    for (index_t k = threadIdx.x; k < to.extent(1); k += 256) to(blockIdx.x, k) = x(row_of[blockIdx.x], k);
}

/// Every row by every member, which keeps its own.
template <int Sm, class Op, class X, class Y, class Finish, class Arena>
void run_member_by_member(cuda<Sm> const& exec, device_family<Op> const& w, matrix_view<X const> const& x, device_groups const& g,
                          product_output<Y, Finish> const& out, Arena& arena) {
    if (w.members == 0 || g.slots == 0 || w[0].rows() == 0) return;
    matrix_view<X const> rows = x;
    if (g.gathers) {
        matrix_view<X> const gathered{arena.template carve<X>(g.slots, x.extent(1)), g.slots, x.extent(1)};
        if constexpr (launches<Arena>)
            if (!gathered.empty())
                launch("apply_grouped", stream_of(exec), {dim3(static_cast<unsigned>(g.slots))}, &gather_kernel<X>, x, g.row_of, gathered);
        rows = gathered;
    }
    index_t bytes = 0;
    for (index_t e = 0; e < w.members; ++e) {
        workspace_sizer one;
        kernel<op::apply, cuda<Sm>, Op>::run(exec, w[e], rows, member_output<Y, Finish>{out, g.offsets + e}, one);
        bytes = maximum(bytes, one.bytes());
    }
    if constexpr (launches<Arena>) {
        for (index_t e = 0; e < w.members; ++e) {
            Arena again = arena;
            kernel<op::apply, cuda<Sm>, Op>::run(exec, w[e], rows, member_output<Y, Finish>{out, g.offsets + e}, again);
        }
    }
    arena.template carve<std::byte>(bytes);
}

/// The general family.
template <int Sm, class Op>
struct grouped_product_of {
    template <class X, class Y, class Finish, class Arena>
    static void run(cuda<Sm> const& exec, device_family<Op> const& w, matrix_view<X const> const& x, device_groups const& g,
                    product_output<Y, Finish> const& out, Arena& arena) {
        run_member_by_member(exec, w, x, g, out, arena);
    }
};

/// Stored matrices.
template <int Sm, class Storage, class Preparation>
    requires is_panel_preparation<Preparation>
struct grouped_product_of<Sm, linear<prepacked<device_panel, Storage>, Preparation>> {
    using panels = prepacked<device_panel, Storage>;
    using operand = linear<panels, Preparation>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, device_family<operand> const& w, matrix_view<X const> const& x, device_groups const& g, Out const& out,
                    Arena& arena) {
        if constexpr (stored_table_format<typename panels::format>)
            if (!shares_columns(w)) return run_member_by_member(exec, w, x, g, out, arena);
        device_family<operand> const families[2] = {w, w};
        run_families(exec, families, 1, x, g, grouped_outputs<Out>{out, out}, arena);
    }
    /// Two families of one shape that read the same x.
    template <class X, class Out, class Arena>
    static void run_two(cuda<Sm> const& exec, device_family<operand> const& first, device_family<operand> const& second,
                        matrix_view<X const> const& x, device_groups const& g, Out const& to_first, Out const& to_second, Arena& arena) {
        if constexpr (stored_table_format<typename panels::format>)
            if (!shares_columns(first) || !shares_columns(second)) {
                run_member_by_member(exec, first, x, g, to_first, arena);
                return run_member_by_member(exec, second, x, g, to_second, arena);
            }
        device_family<operand> const families[2] = {first, second};
        run_families(exec, families, 2, x, g, grouped_outputs<Out>{to_first, to_second}, arena);
    }

private:
    /// Whether x has the same positions for all members.
    static bool shares_columns(device_family<operand> const& w) noexcept {
        for (index_t e = 0; e < w.members; ++e)
            if (w[e].storage().has_gaps()) return false;
        return true;
    }
    template <class X, class Out, class Arena>
    static void run_families(cuda<Sm> const& exec, device_family<operand> const (&w)[2], int count, matrix_view<X const> const& x,
                             device_groups g, grouped_outputs<Out> const& outs, Arena& arena) {
        constexpr index_t group = activation_group<Preparation>;
        if (w[0].members == 0 || g.slots == 0 || w[0][0].rows() == 0) return;
        if (w[0][0].cols() == 0) {
            if constexpr (launches<Arena>)
                for (int i = 0; i < count; ++i) finish_nothing(exec, g.slots, w[0][0].rows(), outs.of[i]);
            return;
        }
        if (g.used == nullptr) {
            index_t const most = minimum(w[0].members, g.slots);
            index_t* const used = arena.template carve<index_t>(most);
            if constexpr (launches<Arena>)
                launch("apply_grouped", stream_of(exec), {dim3(1), dim3(1024)}, &used_kernel<index_t>, g.offsets, w[0].members, g.slots, used, most);
            g.used = used;
        }
        if constexpr (group < 0) {
            run_prepared<Preparation>(exec, w, count, x, g, outs, arena);
        } else {
            float* const values = arena.template carve<float>(x.extent(0), x.extent(1));
            if constexpr (launches<Arena>) run_int8<group>("apply_grouped", exec, x, values);
            run_prepared<as_is>(exec, w, count, matrix_view<float const>{values, x.extent(0), x.extent(1)}, g, outs, arena);
        }
    }
    template <class Prepared, class X, class Out, class Arena>
    static void run_prepared(cuda<Sm> const& exec, device_family<operand> const (&w)[2], int count, matrix_view<X const> const& x,
                             device_groups const& g, grouped_outputs<Out> const& outs, Arena& arena) {
        constexpr int pieces = x_pieces<X, Prepared>;
        constexpr bool rounds = std::is_same_v<Prepared, as_bf16>;
        panels const& first = w[0][0].storage();
        index_t const columns = x.extent(0) * pieces;
        auto* const prepared = arena.template carve<bf16>(columns, first.blocks(), 64);
        float* const sums = panels::format::has_offsets ? arena.template carve<float>(first.groups(), columns) : nullptr;
        if constexpr (launches<Arena>) {
            check_sizes(first, first.blocks());
            index_t const at = reinterpret_cast<std::byte const*>(&first) - reinterpret_cast<std::byte const*>(&w[0][0]);
            grouped_arguments<panels> p{{w[0].there + at, w[1].there + at}, w[0].stride, g.used, g.offsets, g.row_of, g.slots, nullptr, 0, 0, pieces, grouped_split(first.blocks()),
                                        sums, columns, make_decode_table<typename panels::format>()};
            if (is_direct(first, x)) {
                p.columns = reinterpret_cast<std::byte const*>(x.data_handle());
                p.column_bytes = 2 * x.stride(0);
                p.column_positions = static_cast<int>(x.extent(1));
            } else {
                index_t const chunks = first.blocks() * 8;
                launch("apply_grouped", stream_of(exec), {grid_of(columns * chunks)}, &column_kernel<panels, pieces, X>, first, x, chunks, columns * chunks,
                       reinterpret_cast<::uint4*>(prepared));
                p.columns = reinterpret_cast<std::byte const*>(prepared);
                p.column_bytes = 16 * chunks;
                p.column_positions = static_cast<int>(8 * chunks);
            }
            if constexpr (panels::format::has_offsets)
                launch("apply_grouped", stream_of(exec), {grid_of(first.groups() * columns, 8)}, &sum_kernel<panels, pieces, rounds, X>, x,
                       static_cast<int>(columns), first.groups(), sums);
            // Twice the mean load of a member, as far as all can come to one.
            index_t const expected = minimum(g.most, 2 * ceil_div(g.slots, w[0].members)) * pieces;
            constexpr int weights = rounds ? 1 : weight_pieces<Storage>;
            dim3 const grid{static_cast<unsigned>(ceil_div(first.rows(), 256 / p.split)), static_cast<unsigned>(minimum(w[0].members, g.slots)),
                            static_cast<unsigned>(count)};
            if (expected <= 8)
                run_columns<weights, 1>(exec, grid, p, outs);
            else if (expected <= 16)
                run_columns<weights, 2>(exec, grid, p, outs);
            else
                run_columns<weights, 4>(exec, grid, p, outs);
        }
    }
    template <int Weights, int NT, class Out>
    static void run_columns(cuda<Sm> const& exec, dim3 grid, grouped_arguments<panels> const& p, grouped_outputs<Out> const& outs) {
        constexpr index_t table = fragment_decoder<typename panels::format, Weights>::table_bytes;
        index_t const shared = table > 16 * 1024 ? maximum(table, 41 * 1024) : table; // with the kernel's own more than there is unasked
        launch("apply_grouped", stream_of(exec), {grid, dim3(256), shared},
               &grouped_kernel<panels, Weights, NT, Out>, p, outs);
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
