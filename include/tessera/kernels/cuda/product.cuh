// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products with device panels by bf16 matrix units: at most 64 columns of x (rows of the user's x, or pieces of them) at a
/// time, W as the 16-row operand, so that with one row of x the memory is the limit.
///
/// The work is a line of units, (tile of 256 rows of W) x (step of 64 or 128 positions), which the blocks of the grid cut into
/// equal pieces (stream-K). The cuts are a constant of the architecture: the order of every sum, and so every bit of y, depends
/// on the shape of W alone. A warp streams its rows' bytes through a ring of its own in shared memory by asynchronous copies and
/// waits for no other. Sums of a group stay in the matrix units' accumulators and meet their scale in float32. At the end of a
/// tile a block leaves its part of the sums and goes on; a second kernel, already resident, adds the parts in the order of k.

#include "ptx/grid_dependency.cuh"
#include "ptx/mma.cuh"
#include "stream.cuh"

#include <utility>

namespace tessera::inline TESSERA_ABI::detail {

/// Where sums of a product go: y = finish(base + factor * sum), base null for none.
template <class Y, class Finish>
struct product_output {
    matrix_view<Y> y;
    float const* base;
    index_t base_stride;
    float factor;
    Finish finish;
    __device__ void operator()(index_t m, index_t n, float sum) const {
        float v = factor * sum;
        if (base != nullptr) v += base[m * base_stride + n];
        y(m, n) = static_cast<Y>(static_cast<float>(finish(v, m, n)));
    }
};

/// The sums of a lane: of two panels of 16 rows, NT fragments of 8 columns.
template <int NT>
struct lane_sums {
    float v[2][NT][4];
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < 8 * NT; ++i) v[i / (4 * NT)][i / 4 % NT][i % 4] = 0.0f;
    }
};

/// total += scale * part (+ offset * sum of x, at the end of a group).
template <int NT, class Stage, class Panels>
__device__ __forceinline__ void scale_group(std::byte const* stage, int group, bool is_end, lane_sums<NT>& total, lane_sums<NT>& part) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const row = lane / 4;
    auto const* const scales = reinterpret_cast<typename Panels::scale_type const*>(stage + Stage::code_bytes) + group * 32;
#pragma unroll
    for (int i = 0; i < 4; ++i) { // panel i / 2, rows g and g + 8
        int const r = row + i / 2 * 16 + i % 2 * 8;
        float const s = stored_to_float(scales[r]);
#pragma unroll
        for (int t = 0; t < NT; ++t)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float& from = part.v[i / 2][t][i % 2 * 2 + c];
                float& to = total.v[i / 2][t][i % 2 * 2 + c];
                to = fmaf(s, from, to);
                if constexpr (!Stage::has_whole_groups) from = 0.0f; // otherwise its first product writes it
            }
        if constexpr (Panels::format::has_offsets) {
            if (!is_end) continue;
            auto const* const offsets = reinterpret_cast<float const*>(stage + Stage::code_bytes + Stage::scale_bytes);
            auto const* const sums = offsets + Stage::offset_bytes / 4 + group * 8 * NT;
            float const o = offsets[group * 32 + r];
#pragma unroll
            for (int t = 0; t < NT; ++t)
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    float& to = total.v[i / 2][t][i % 2 * 2 + c];
                    to = fmaf(o, sums[t * 8 + lane % 4 * 2 + c], to);
                }
        }
    }
}

/// The same for a group that goes on beyond the block's last step, which another block ends.
template <int NT, class Stage, class Panels>
__device__ __forceinline__ void scale_open_group(std::byte const* stage, int step, int groups, lane_sums<NT>& total, lane_sums<NT>& part) {
    constexpr auto padded = static_cast<int>(Stage::padded);
    constexpr auto positions = static_cast<int>(Stage::positions);
    int const last = (step + 1) * positions;
    int const group = (last - 1) / padded;
    if (last % padded != 0 && group < groups) scale_group<NT, Stage, Panels>(stage, group - step * positions / padded, false, total, part);
}

/// A lane's words of a block of two panels.
template <class Panels>
struct code_words {
    std::uint32_t v[2][maximum(Panels::format::width, 1)];

    __device__ __forceinline__ void load(std::byte const* block) {
        constexpr int words = Panels::format::width;
        constexpr auto chunk_words = static_cast<int>(Panels::chunk_bytes / 4);
        int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
        for (int p = 0; p < 2; ++p)
#pragma unroll
            for (int c = 0; c < words / chunk_words; ++c) {
                auto const* const from =
                    reinterpret_cast<std::uint32_t const*>(block + p * Panels::panel_block_bytes + (c * 32 + lane) * Panels::chunk_bytes);
                if constexpr (chunk_words == 4) {
                    ::uint4 const w = *reinterpret_cast<::uint4 const*>(from);
                    v[p][4 * c] = w.x, v[p][4 * c + 1] = w.y, v[p][4 * c + 2] = w.z, v[p][4 * c + 3] = w.w;
                } else {
#pragma unroll
                    for (int i = 0; i < chunk_words; ++i) v[p][chunk_words * c + i] = from[i];
                }
            }
    }
};

/// part += the products of fragment `Step` of a block, of both panels; IsFirst: part = them.
template <int Step, bool IsFirst, int Pieces, int NT, class Panels, class Decoder>
__device__ __forceinline__ void multiply_fragment(Decoder const& decoder, code_words<Panels> const& code, typename Decoder::origin_type const (&origin)[2],
                                                  ::uint4 const (&columns)[NT], lane_sums<NT>& part) {
    auto const piece = [&]<int P>(std::integral_constant<int, P>) {
#pragma unroll
        for (int p = 0; p < 2; ++p) {
            std::uint32_t a[4];
            decoder.template decode<Step, P>(code.v[p], origin[p], a);
#pragma unroll
            for (int t = 0; t < NT; ++t) {
                std::uint32_t const low = Step % 2 == 0 ? columns[t].x : columns[t].z;
                std::uint32_t const high = Step % 2 == 0 ? columns[t].y : columns[t].w;
                if constexpr (IsFirst && P == 0)
                    ptx::mma_bf16_first(part.v[p][t], a, low, high);
                else
                    ptx::mma_bf16(part.v[p][t], a, low, high);
            }
        }
    };
    [&]<int... P>(std::integer_sequence<int, P...>) { (piece(std::integral_constant<int, P>{}), ...); }
    (std::make_integer_sequence<int, Pieces>{});
}

/// Multiplies one step of the rows of W from `row` on: adds to `total` where a group has ended, to `part` otherwise. `columns` holds its first
/// columns, and those of `next_step` afterwards.
template <int NT, int Pieces, class Stage, class Panels>
__device__ __forceinline__ void multiply_step(column_reader<NT, Panels> const& x, Panels const& w, index_t row, std::byte const* stage, int step, int next_step, int groups,
                                              fragment_decoder<typename Panels::format, Pieces> const& decoder,
                                              column_queue<NT, Panels>& columns, lane_sums<NT>& total, lane_sums<NT>& part) {
    constexpr int SB = static_cast<int>(Panels::step_blocks);
    constexpr int H = batch_halves<NT>;
    constexpr int Q = column_queue<NT, Panels>::size;
    constexpr auto padded = static_cast<int>(maximum(Stage::padded, 1));
    int const first_position = step * static_cast<int>(Stage::positions);
    column_batch<NT> now;
    code_words<Panels> code;
    typename fragment_decoder<typename Panels::format, Pieces>::origin_type origin[2];
    auto const fragment = [&]<int F>(std::integral_constant<int, F>) {
        constexpr int batch = F / (2 * H);
        constexpr int half = (batch + Q) * H; // of the batch that is loaded now
        if constexpr (F % 4 == 0) {
            code.load(stage + F / 4 * Stage::block_bytes);
            origin[0] = decoder.template origin<0>(w, row, step * SB + F / 4);
            origin[1] = decoder.template origin<1>(w, row, step * SB + F / 4);
        }
        if constexpr (F % (2 * H) == 0) {
            now = columns.batch[batch % Q];
            x.load(half < 2 * SB ? step * SB + half / 2 : next_step * SB + (half - 2 * SB) / 2, half % 2, columns.batch[batch % Q]);
        }
        constexpr bool is_first = Stage::has_whole_groups && F * 16 % padded == 0;
        multiply_fragment<F % 4, is_first, Pieces>(decoder, code, origin, now.v[F / 2 % H], part);
        if constexpr (Stage::has_whole_groups) {
            constexpr int group = (F + 1) * 16 / padded - 1;
            if constexpr ((F + 1) * 16 % padded == 0)
                if (step * Stage::groups + group < groups) scale_group<NT, Stage, Panels>(stage, group, true, total, part);
        } else if constexpr (Stage::groups > 0 && (F + 1) * 16 % Panels::sub_block == 0) {
            int const end = first_position + 16 * (F + 1);
            if (end % padded == 0 && end / padded <= groups)
                scale_group<NT, Stage, Panels>(stage, end / padded - 1 - first_position / padded, true, total, part);
        }
    };
    [&]<int... F>(std::integer_sequence<int, F...>) { (fragment(std::integral_constant<int, F>{}), ...); }
    (std::make_integer_sequence<int, 4 * SB>{});
}

/// Leaves a block's sums of a tile: parts (block + tile, which no two parts share, columns, 256).
template <int NT, class Panels>
__device__ __forceinline__ void store_part(product_arguments<Panels> const& p, int tile, lane_sums<NT> const& total) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const columns = p.m * p.pieces;
    float* const part = p.parts + static_cast<index_t>(static_cast<int>(blockIdx.x) + tile) * columns * 256;
    int const row = static_cast<int>(threadIdx.x) / 32 * 32;
#pragma unroll
    for (int i = 0; i < 8 * NT; ++i) {
        int const column = i / 4 % NT * 8 + lane % 4 * 2 + i % 2;
        if (column < columns) part[column * 256 + row + i / (4 * NT) * 16 + Panels::row_of_lane(lane / 4, i % 4 / 2)] = total.v[i / (4 * NT)][i / 4 % NT][i % 4];
    }
}

/// y(m, n) from its sum.
template <class Panels, class Out>
__device__ __forceinline__ void finish_sum(product_arguments<Panels> const& p, int m, index_t n, float sum, Out&& out) {
    using format = typename Panels::format;
    if constexpr (format::has_scales && Panels::group == 0) sum *= static_cast<float>(p.w.scales()[n]);
    if constexpr (format::has_offsets && Panels::group == 0) sum = fmaf(p.w.offsets()[n], p.sums[m * p.pieces], sum);
    out(p.m0 + m, n, sum);
}

/// y of the tile blockIdx.x and row of x blockIdx.y: its parts in the order of k, one row of W a thread.
template <int Sm, class Panels, class Out>
__global__ void __launch_bounds__(256) add_parts_kernel(__grid_constant__ product_arguments<Panels> const p, __grid_constant__ Out const out) {
    if constexpr (Sm >= 90) {
        ptx::launch_dependents();
        ptx::wait_for_prerequisites();
    }
    auto const tile = static_cast<int>(blockIdx.x);
    auto const m = static_cast<int>(blockIdx.y);
    index_t const n = static_cast<index_t>(tile) * 256 + threadIdx.x;
    if (n >= p.w.rows()) return;
    int const first = p.cut.owner(tile * p.steps);
    int const last = p.cut.owner(tile * p.steps + p.steps - 1);
    index_t const next = static_cast<index_t>(p.m * p.pieces) * 256;
    float sum = 0.0f;
    constexpr int U = 16; // loads under way together; what is not there adds 0
    for (int c = m * p.pieces; c < (m + 1) * p.pieces; ++c) {
        float of_column = 0.0f;
        for (int block = first; block <= last; block += U) {
            float const* const from = p.parts + (block + tile) * next + c * 256 + threadIdx.x;
            float v[U];
#pragma unroll
            for (int u = 0; u < U; ++u) v[u] = block + u <= last ? __ldcg(from + u * next) : 0.0f;
#pragma unroll
            for (int u = 0; u < U; ++u) of_column += v[u];
        }
        sum += of_column;
    }
    finish_sum(p, m, n, sum, out);
}

/// What a block does besides: nothing.
struct nothing_meanwhile {
    static constexpr bool tables_are_there = false; ///< filled before, and seen by all warps
    __device__ void operator()() const {}
};

/// A warp's units of 32 rows of each tile, `row` the first of them, Stages - 1 of them asked for ahead: store(tile, sums) where a tile
/// ends, or the units do. `meanwhile()` is called while the first of them are on their way, with x there.
template <int Sm, class Panels, int Pieces, int NT, int Stages, class Store, class Meanwhile = nothing_meanwhile>
__device__ __forceinline__ void multiply_units(product_arguments<Panels> const& p, std::byte* shared, int unit, int end, int row, Store const& store,
                                               Meanwhile const& meanwhile = {}) {
    using stage_type = product_stage<Sm, Panels, Pieces, NT>;
    using decoder_type = fragment_decoder<typename Panels::format, Pieces>;
    std::byte* const ring = shared + stage_type::table_bytes + static_cast<int>(threadIdx.x) / 32 * p.slots * stage_type::warp_bytes;
    int const steps = p.steps;
    int tile = unit / steps;
    int step = unit % steps;
    weight_stream<NT, stage_type, Panels> weights{p, ring, unit, end, row};
    // The next product in the stream may begin to load its weights; this one waits for what the previous kernels write
    // (x, its sums, the workspace) only when its own are on their way.
    if constexpr (Sm >= 90)
        if (!p.triggers_late) ptx::launch_dependents();
    if constexpr (Sm >= 90 && Panels::format::has_offsets) ptx::wait_for_prerequisites();
#pragma unroll 1
    for (int s = 0; s < Stages - 1; ++s) weights.load_next();
    if constexpr (!Meanwhile::tables_are_there) decoder_type::fill(p.table, p.w, shared);
    decoder_type const decoder = decoder_type::template of<2>(shared, static_cast<int>(threadIdx.x) / 32);
    if (unit < end) decoder.template begin_rows<2>(p.w, index_t{tile} * 256 + row);
    if constexpr (Sm >= 90 && !Panels::format::has_offsets) {
        if (!p.waits_late) ptx::wait_for_prerequisites();
        if (p.triggers_late) ptx::launch_dependents();
    }
    meanwhile();
    column_reader<NT, Panels> const x{p};
    column_queue<NT, Panels> columns;
#pragma unroll
    for (int q = 0; q < columns.size; ++q) x.load(step * static_cast<int>(Panels::step_blocks) + q, 0, columns.batch[q]);
    lane_sums<NT> total;
    lane_sums<NT> part;
    total.clear();
    part.clear();
    int slot = 0;
    if constexpr (decoder_type::table_bytes > 0 && !Meanwhile::tables_are_there) __syncthreads();
#pragma unroll 1
    for (; unit < end; ++unit) {
        ptx::wait<Stages - 2>();
        __syncwarp(); // the warp's copies are there, and it is done with the stage that comes next
        weights.load_next();
        std::byte const* const stage = ring + slot * stage_type::warp_bytes;
        int const next_step = step + 1 == steps ? 0 : step + 1;
        multiply_step<NT, Pieces, stage_type, Panels>(x, p.w, index_t{tile} * 256 + row, stage, step, next_step, p.groups, decoder, columns, total,
                                                      stage_type::groups > 0 ? part : total);
        if (++slot == p.slots) slot = 0;
        if (next_step == 0 || unit + 1 == end) {
            if constexpr (stage_type::groups > 0 && !stage_type::has_whole_groups)
                scale_open_group<NT, stage_type, Panels>(stage, step, p.groups, total, part);
            store(tile, total);
            total.clear();
        }
        step = next_step;
        if (step == 0) {
            ++tile;
            if (unit + 1 < end) decoder.template begin_rows<2>(p.w, index_t{tile} * 256 + row);
        }
    }
}

/// The parts of x Wᵀ.
template <int Sm, class Panels, int Pieces, int NT>
__global__ void __launch_bounds__(256, (product_stage<Sm, Panels, Pieces, NT>::resident))
product_kernel(__grid_constant__ product_arguments<Panels> const p) {
    extern __shared__ __align__(128) std::byte shared[];
    auto const block = static_cast<int>(blockIdx.x);
    constexpr int stages = product_stage<Sm, Panels, Pieces, NT>::stages;
    multiply_units<Sm, Panels, Pieces, NT, stages>(p, shared, p.cut.first(block), p.cut.first(block + 1), static_cast<int>(threadIdx.x) / 32 * 32,
                                                   [&](int tile, lane_sums<NT> const& total) { store_part<NT>(p, tile, total); });
    if constexpr (Sm >= 90)
        if (p.waits_late) ptx::wait_for_prerequisites();
}

} // namespace tessera::inline TESSERA_ABI::detail
