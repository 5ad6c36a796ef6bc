// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products with device panels by bf16 matrix units: at most 64 columns of x (rows of the user's x, or pieces of them) at a
/// time, W as the 16-row operand, so that with one row of x the memory is the limit.
///
/// The work is a line of units, (tile of 256 rows of W) x (step of 64 or 128 positions), which the blocks of the grid cut into
/// equal pieces (stream-K). The grid is a constant of the architecture: the order of every sum, and so every bit of y, depends
/// on the shape of W alone. A warp streams its rows' bytes through a ring of its own in
/// shared memory by asynchronous copies and waits for no other; x comes from the first-level cache. Sums of a group stay in the matrix units' accumulators and meet their scale in float32. At the end of a tile
/// a block leaves its partial sums; the last to come adds all of them in the order of k and finishes y.

#include "decode.cuh"
#include "ptx/atomic.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/grid_dependency.cuh"
#include "ptx/mma.cuh"

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

/// Blocks of the grid, all of which fit the processor: a constant of the architecture.
template <int Sm>
inline constexpr int product_blocks = 2 * (Sm == 90 ? 132 : 108);

/// What a block of threads keeps in shared memory.
template <int Sm, class Panels, int Pieces, int NT>
struct product_stage {
    using format = typename Panels::format;
    static constexpr index_t positions = 64 * Panels::step_blocks;
    static constexpr index_t padded = Panels::group_positions;
    /// Groups that a step may touch.
    static constexpr int groups = padded == 0 ? 0
                                  : padded % positions == 0 ? 1
                                  : positions % maximum(padded, 1) == 0
                                      ? static_cast<int>(positions / maximum(padded, 1))
                                      : static_cast<int>((positions - 1) / maximum(padded, 1) + 2);
    // Of a warp, which reads nothing that another warp has copied: codes of its 32 rows, their scales and offsets, sums of x.
    static constexpr int block_bytes = static_cast<int>(2 * Panels::panel_block_bytes);
    static constexpr int code_bytes = static_cast<int>(Panels::step_blocks) * block_bytes;
    static constexpr int scale_bytes = groups * 32 * static_cast<int>(sizeof(typename Panels::scale_type));
    static constexpr int offset_bytes = format::has_offsets ? groups * 32 * 4 : 0;
    static constexpr int sum_bytes = format::has_offsets ? groups * 8 * NT * 4 : 0;
    static constexpr int warp_bytes = code_bytes + scale_bytes + offset_bytes + sum_bytes;
    static constexpr int bytes = 8 * warp_bytes;

    static constexpr int table_bytes = fragment_decoder<format, Pieces>::table_bytes;
    static constexpr int shared = (Sm == 90 ? 227 : 163) * 1024;
    static constexpr int of_half = (shared / 2 - 1024 - table_bytes) / bytes;
    static constexpr bool is_half = NT <= 4 && of_half >= 3;
    static constexpr int of_all = (shared - 1024 - table_bytes) / bytes;
    static constexpr int stages = is_half ? (of_half < 8 ? of_half : 8) : of_all < 2 ? 2 : of_all < 8 ? of_all : 8;
    static constexpr int shared_bytes = table_bytes + stages * bytes;
};

/// How the blocks of the grid cut the line of units: the first `larger` of them have one unit more than the others.
struct stream_cut {
    int each;
    int larger;
    stream_cut(index_t units, index_t blocks) noexcept
        : each{static_cast<int>(units / blocks)}, larger{static_cast<int>(units % blocks)} {}
    __device__ int first(int block) const { return block * each + (block < larger ? block : larger); }
    /// The block that has a unit.
    __device__ int owner(int unit) const {
        int const of_larger = larger * (each + 1);
        return unit < of_larger ? unit / (each + 1) : larger + (unit - of_larger) / each;
    }
};

template <class Panels>
struct product_arguments {
    Panels w;
    stream_cut cut;           ///< of the units
    int steps;                ///< of a tile
    int groups;
    std::byte const* x;       ///< fragments: (blocks, NT, 2, 32, 16 bytes)
    bf16 const* rows;         ///< or x itself, rows of bf16 `row_stride` apart; null: fragments
    index_t row_stride;
    float const* sums;        ///< (groups, 8 NT): of x, where W has offsets
    float* partial;           ///< (2 blocks of the grid, columns, 256)
    unsigned* counters;       ///< one a tile, zero
    index_t m0;               ///< first row of y
    int m;                    ///< rows of x
    int pieces;               ///< columns of a row of x
    decode_table<typename Panels::format> table;
};

/// Issues the copies of one step into a warp's stage.
template <int NT, class Stage, class Panels>
__device__ __forceinline__ void load_step(product_arguments<Panels> const& p, int tile, int step, std::byte* stage) {
    constexpr int SB = static_cast<int>(Panels::step_blocks);
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
    constexpr auto chunk = static_cast<int>(Panels::chunk_bytes);
    std::byte const* const codes = p.w.data() + static_cast<index_t>(tile * p.steps + step) * SB * Panels::block_bytes +
                                   warp * Stage::block_bytes + lane * chunk;
#pragma unroll
    for (int b = 0; b < SB; ++b)
#pragma unroll
        for (int i = 0; i < Stage::block_bytes; i += 32 * chunk)
            ptx::copy_async<chunk>(stage + b * Stage::block_bytes + i + lane * chunk, codes + b * Panels::block_bytes + i);
    if constexpr (Stage::groups > 0) {
        stage += Stage::code_bytes;
        int const g0 = step * static_cast<int>(Stage::positions) / static_cast<int>(Stage::padded);
        int const there = p.groups - g0;
        int const count = there < Stage::groups ? (there < 0 ? 0 : there) : Stage::groups;
        index_t const at = (static_cast<index_t>(tile) * p.groups + g0) * 256 + warp * 32;
        // Of every group the numbers of the warp's 32 rows: `pieces` times 16 bytes.
        auto const copy = [&](auto const* from) {
            constexpr int pieces = 2 * static_cast<int>(sizeof(*from));
#pragma unroll
            for (int j = 0; j < Stage::groups * pieces; j += 32) {
                int const i = j + lane;
                if (i < count * pieces)
                    ptx::copy_async<16>(stage + i * 16, reinterpret_cast<std::byte const*>(from + i / pieces * 256) + i % pieces * 16);
            }
        };
        copy(p.w.scales() + at);
        if constexpr (Panels::format::has_offsets) {
            stage += Stage::scale_bytes;
            copy(p.w.offsets() + at);
            stage += Stage::offset_bytes;
            auto const* const sums = reinterpret_cast<std::byte const*>(p.sums + static_cast<index_t>(g0) * 8 * NT);
            for (int i = lane * 16; i < count * 32 * NT; i += 512) ptx::copy_async<16>(stage + i, sums + i);
        }
    }
}

/// Where a lane finds its 16 bytes of every 8 columns' fragment, of rows of bf16 or of written fragments alike; they come through the
/// first-level cache, because every warp of the block reads the same.
template <int NT>
struct column_reader {
    std::byte const* base;
    int block_bytes; ///< from a block to the next
    int half_bytes;  ///< and to its second half
    index_t fragment_bytes;
    int valid; ///< positions of the first half before this one are there
    int valid_step;
    int columns; ///< fragments' columns of this lane that are there

    template <class Panels>
    __device__ explicit column_reader(product_arguments<Panels> const& p) {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        if (p.rows != nullptr) {
            constexpr bool is_whole = Panels::sub_block == 64;
            int const k = (is_whole ? 16 : 8) * (lane % 4);
            base = reinterpret_cast<std::byte const*>(p.rows + lane / 4 * p.row_stride + k);
            block_bytes = 128;
            half_bytes = is_whole ? 16 : 64;
            fragment_bytes = 16 * p.row_stride;
            valid = static_cast<int>(p.w.cols()) - k;
            valid_step = is_whole ? 8 : 32;
            columns = p.m - lane / 4;
        } else {
            base = p.x + lane * 16;
            block_bytes = NT * 1024;
            half_bytes = 512;
            fragment_bytes = 1024;
            valid = 0x7fffffff;
            valid_step = 0;
            columns = 8 * NT;
        }
    }
    __device__ __forceinline__ void load(int block, int half, ::uint4 (&to)[NT]) const {
        bool const is_there = block * 64 + half * valid_step < valid;
        std::byte const* const from = base + static_cast<index_t>(block) * block_bytes + half * half_bytes;
#pragma unroll
        for (int t = 0; t < NT; ++t) {
            to[t] = make_uint4(0, 0, 0, 0);
            if (is_there && 8 * t < columns) to[t] = __ldg(reinterpret_cast<::uint4 const*>(from + t * fragment_bytes));
        }
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
    auto const to_float = [](auto v) {
        if constexpr (std::is_same_v<decltype(v), fp16>)
            return __half2float(__ushort_as_half(v.to_bits()));
        else
            return static_cast<float>(v);
    };
#pragma unroll
    for (int i = 0; i < 4; ++i) { // panel i / 2, rows g and g + 8
        int const r = row + i / 2 * 16 + i % 2 * 8;
        float const s = to_float(scales[r]);
#pragma unroll
        for (int t = 0; t < NT; ++t)
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                float& from = part.v[i / 2][t][i % 2 * 2 + c];
                float& to = total.v[i / 2][t][i % 2 * 2 + c];
                to = fmaf(s, from, to);
                from = 0.0f;
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

/// Multiplies one step: adds to `total` where a group has ended, to `part` otherwise.
template <int NT, int Pieces, class Stage, class Panels>
__device__ __forceinline__ void multiply_step(column_reader<NT> const& x, std::byte const* stage, int step, int groups, ::uint4 const (&first)[NT],
                                              fragment_decoder<typename Panels::format, Pieces> const& decoder,
                                              lane_sums<NT>& total, lane_sums<NT>& part) {
    constexpr int SB = static_cast<int>(Panels::step_blocks);
    constexpr int words = Panels::format::width;
    constexpr auto chunk_words = static_cast<int>(Panels::chunk_bytes / 4);
    int const lane = static_cast<int>(threadIdx.x) % 32;
    constexpr auto padded = static_cast<int>(maximum(Stage::padded, 1));
    int const first_position = step * static_cast<int>(Stage::positions);
    ::uint4 ahead[NT];
#pragma unroll
    for (int t = 0; t < NT; ++t) ahead[t] = first[t];
#pragma unroll
    for (int b = 0; b < SB; ++b) {
        std::uint32_t code[2][words];
#pragma unroll
        for (int p = 0; p < 2; ++p)
#pragma unroll
            for (int c = 0; c < words / chunk_words; ++c) {
                auto const* const from = reinterpret_cast<std::uint32_t const*>(
                    stage + b * Stage::block_bytes + p * Panels::panel_block_bytes + (c * 32 + lane) * Panels::chunk_bytes);
                if constexpr (chunk_words == 4) {
                    ::uint4 const v = *reinterpret_cast<::uint4 const*>(from);
                    code[p][4 * c] = v.x, code[p][4 * c + 1] = v.y, code[p][4 * c + 2] = v.z, code[p][4 * c + 3] = v.w;
                } else {
#pragma unroll
                    for (int i = 0; i < chunk_words; ++i) code[p][chunk_words * c + i] = from[i];
                }
            }
        auto const fragment = [&]<int Step>(std::integral_constant<int, Step>, ::uint4 const (&columns)[NT]) {
#pragma unroll
            for (int p = 0; p < 2; ++p) {
                auto const piece = [&]<int P>(std::integral_constant<int, P>) {
                    std::uint32_t a[4];
                    decoder.template decode<Step, P>(code[p], a);
#pragma unroll
                    for (int t = 0; t < NT; ++t)
                        ptx::mma_bf16(part.v[p][t], a, Step % 2 == 0 ? columns[t].x : columns[t].z,
                                      Step % 2 == 0 ? columns[t].y : columns[t].w);
                };
                [&]<int... P>(std::integer_sequence<int, P...>) { (piece(std::integral_constant<int, P>{}), ...); }
                (std::make_integer_sequence<int, Pieces>{});
            }
            if constexpr (Stage::groups > 0 && (Step + 1) % (Panels::sub_block / 16) == 0) {
                int const end = first_position + b * 64 + 16 * (Step + 1);
                if (end % padded == 0 && end / padded <= groups)
                    scale_group<NT, Stage, Panels>(stage, end / padded - 1 - first_position / padded, true, total, part);
            }
        };
        ::uint4 second[NT];
        x.load(step * SB + b, 1, second);
        ::uint4 next[NT];
        if (b + 1 < SB) x.load(step * SB + b + 1, 0, next);
        fragment(std::integral_constant<int, 0>{}, ahead);
        fragment(std::integral_constant<int, 1>{}, ahead);
        fragment(std::integral_constant<int, 2>{}, second);
        fragment(std::integral_constant<int, 3>{}, second);
        if (b + 1 < SB)
#pragma unroll
            for (int t = 0; t < NT; ++t) ahead[t] = next[t];
    }
}

/// The sum of the parts of a tile by the blocks `first` to `last`, one row of W a thread, to y.
template <int NT, class Panels, class Out>
__device__ __forceinline__ void add_parts(product_arguments<Panels> const& p, Out const& out, int tile, int begin, int first, int last) {
    stream_cut const cut = p.cut;
    int const columns = p.m * p.pieces;
    index_t const second = static_cast<index_t>(columns) * 256;
    index_t const n = static_cast<index_t>(tile) * 256 + threadIdx.x;
    using format = typename Panels::format;
    float const scale = format::has_scales && Panels::group == 0 ? static_cast<float>(p.w.scales()[n]) : 1.0f;
    index_t const begun = cut.first(first) < begin ? second : 0; // the first may have begun in an earlier tile
    float sum = 0.0f;
    constexpr int J = NT == 1 ? 1 : 8;  // columns, and
    constexpr int U = NT == 1 ? 16 : 4; // blocks whose loads are under way together; what is not there adds 0
    for (int c = 0; c < columns; c += J) {
        float sums[J] = {};
        for (int block = first; block <= last; block += U) {
            float const* const from = p.partial + 2 * block * second + c * 256 + threadIdx.x + (block == first ? begun : 0);
            float v[U][J];
#pragma unroll
            for (int u = 0; u < U; ++u)
#pragma unroll
                for (int j = 0; j < J; ++j) {
                    v[u][j] = 0.0f;
                    if (block + u <= last && c + j < columns)
                        v[u][j] = __ldcg(from + (2 * u * second - (u > 0 && block == first ? begun : 0)) + j * 256);
                }
#pragma unroll
            for (int u = 0; u < U; ++u)
#pragma unroll
                for (int j = 0; j < J; ++j) sums[j] += v[u][j];
        }
#pragma unroll
        for (int j = 0; j < J; ++j) {
            if (c + j >= columns) break;
            sum += sums[j];
            if ((c + j + 1) % p.pieces != 0) continue;
            int const m = (c + j) / p.pieces;
            sum *= scale;
            if constexpr (format::has_offsets && Panels::group == 0) sum = fmaf(p.w.offsets()[n], p.sums[m * p.pieces], sum);
            out(p.m0 + m, n, sum);
            sum = 0.0f;
        }
    }
}

/// The end of a block's part of a tile: its sums to memory, and, of the last block to come, the sum of all to y.
template <int NT, class Panels, class Out>
__device__ __forceinline__ void finish_tile_of(product_arguments<Panels> const& p, Out const& out, int tile, int steps,
                                               lane_sums<NT> const& total) {
    __shared__ bool is_last;
    stream_cut const cut = p.cut;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const columns = p.m * p.pieces;
    // A block has two slots: for the tile that it begins in, and for later ones.
    int const begin = tile * steps;
    auto const slot = [&](int block) { return p.partial + static_cast<index_t>(2 * block) * columns * 256; };
    index_t const second = static_cast<index_t>(columns) * 256;
    float* const mine = slot(static_cast<int>(blockIdx.x)) + (cut.first(static_cast<int>(blockIdx.x)) < begin ? second : 0);
    int const row = static_cast<int>(threadIdx.x) / 32 * 32 + lane / 4;
#pragma unroll
    for (int i = 0; i < 8 * NT; ++i) {
        int const column = i / 4 % NT * 8 + lane % 4 * 2 + i % 2;
        if (column < columns) mine[column * 256 + row + i / (4 * NT) * 16 + i % 4 / 2 * 8] = total.v[i / (4 * NT)][i / 4 % NT][i % 4];
    }
    int const first = cut.owner(begin);
    int const last = cut.owner(begin + steps - 1);
    // The barriers make what the block has written, and what the counter's other blocks have, known to all of its threads.
    __syncthreads();
    if (threadIdx.x == 0)
        is_last = first == last || ptx::add_acquire_release(p.counters + tile, 1u) == static_cast<unsigned>(last - first);
    __syncthreads();
    if (!is_last) return;
    if (threadIdx.x == 0 && first != last) p.counters[tile] = 0;
    if (static_cast<index_t>(tile) * 256 + threadIdx.x < p.w.rows()) add_parts<NT>(p, out, tile, begin, first, last);
    __syncthreads(); // the slot may be written again
}

template <int Sm, class Panels, int Pieces, int NT, class Out>
__global__ void __launch_bounds__(256, (product_stage<Sm, Panels, Pieces, NT>::is_half ? 2 : 1))
product_kernel(__grid_constant__ product_arguments<Panels> const p, __grid_constant__ Out const out) {
    using stage_type = product_stage<Sm, Panels, Pieces, NT>;
    using decoder_type = fragment_decoder<typename Panels::format, Pieces>;
    constexpr int S = stage_type::stages;
    extern __shared__ __align__(128) std::byte shared[];
    std::byte* const ring = shared + stage_type::table_bytes + threadIdx.x / 32 * S * stage_type::warp_bytes;
    int const steps = p.steps;
    int unit = p.cut.first(static_cast<int>(blockIdx.x));
    int const end = p.cut.first(static_cast<int>(blockIdx.x) + 1);
    int ahead = unit;
    int ahead_tile = unit / steps;
    int ahead_step = unit % steps;
    int slot = 0;
    int ahead_slot = 0;
    auto const load_next = [&] {
        if (ahead < end) {
            load_step<NT, stage_type>(p, ahead_tile, ahead_step, ring + ahead_slot * stage_type::warp_bytes);
            ++ahead;
            if (++ahead_step == steps) ahead_step = 0, ++ahead_tile;
            if (++ahead_slot == S) ahead_slot = 0;
        }
        ptx::commit();
    };
    // The next product in the stream may begin to load its weights; this one waits for what the previous kernels write
    // (x, its sums, the workspace) only when its own are on their way.
    if constexpr (Sm >= 90) ptx::launch_dependents();
    if constexpr (Sm >= 90 && Panels::format::has_offsets) ptx::wait_for_prerequisites();
#pragma unroll 1
    for (int s = 0; s < S - 1; ++s) load_next();
    if constexpr (Sm >= 90 && !Panels::format::has_offsets) ptx::wait_for_prerequisites();
    decoder_type::fill(p.table, reinterpret_cast<std::uint32_t*>(shared));
    decoder_type const decoder{reinterpret_cast<std::uint32_t const*>(shared) + static_cast<int>(threadIdx.x) % decoder_type::copies};
    int tile = unit / steps;
    int step = unit % steps;
    column_reader<NT> const x{p};
    lane_sums<NT> total;
    lane_sums<NT> part;
    total.clear();
    part.clear();
    __syncthreads(); // the tables
#pragma unroll 1
    for (; unit < end; ++unit) {
        ::uint4 columns[NT];
        x.load(step * static_cast<int>(Panels::step_blocks), 0, columns);
        ptx::wait<S - 2>();
        __syncwarp(); // the warp's copies are there, and it is done with the stage that comes next
        load_next();
        std::byte const* const stage = ring + slot * stage_type::warp_bytes;
        multiply_step<NT, Pieces, stage_type, Panels>(x, stage, step, p.groups, columns, decoder, total, stage_type::groups > 0 ? part : total);
        if (++slot == S) slot = 0;
        if (step + 1 == steps || unit + 1 == end) {
            if constexpr (stage_type::groups > 0) scale_open_group<NT, stage_type, Panels>(stage, step, p.groups, total, part);
            finish_tile_of<NT>(p, out, tile, steps, total);
            total.clear();
        }
        if (++step == steps) step = 0, ++tile;
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
