// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What streams by in a product with device panels: a warp's weights, through a ring of its own in shared memory, and the rows of
/// x, from the first-level cache into registers, a batch ahead of the one that is multiplied.

#include "decode.cuh"
#include "ptx/cp_async.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Blocks of the grid, all of which fit the processor: a constant of the architecture.
template <int Sm>
inline constexpr int product_blocks = 2 * (Sm == 90 ? 132 : 108);

/// Blocks that share so many units: few where W has few rows, because somebody adds their parts.
template <int Sm>
constexpr index_t blocks_for(index_t tiles, index_t units) noexcept {
    return minimum(minimum(units, product_blocks<Sm>), 64 * tiles);
}

/// What a block of threads keeps in shared memory.
template <int Sm, class Panels, int Pieces, int NT>
struct product_stage {
    using format = typename Panels::format;
    static constexpr index_t positions = 64 * Panels::step_blocks;
    static constexpr index_t padded = format::has_scales ? Panels::group_positions : 0;
    /// Groups begin and end within a step.
    static constexpr bool has_whole_groups = padded != 0 && positions % maximum(padded, 1) == 0;
    /// Groups that a step may touch.
    static constexpr int groups = padded == 0                ? 0
                                  : padded % positions == 0 ? 1
                                  : has_whole_groups        ? static_cast<int>(positions / maximum(padded, 1))
                                                            : static_cast<int>((positions - 1) / maximum(padded, 1) + 2);
    // Of a warp, which reads nothing that another warp has copied: codes of its 32 rows, their scales and offsets, sums of x.
    static constexpr int block_bytes = static_cast<int>(2 * Panels::panel_block_bytes);
    static constexpr int code_bytes = static_cast<int>(Panels::step_blocks) * block_bytes;
    static constexpr int scale_bytes = groups * 32 * static_cast<int>(sizeof(typename Panels::scale_type));
    static constexpr int offset_bytes = format::has_offsets ? groups * 32 * 4 : 0;
    static constexpr int sum_bytes = format::has_offsets ? groups * 8 * NT * 4 : 0;
    static constexpr int warp_bytes = maximum(code_bytes + scale_bytes + offset_bytes + sum_bytes, 16);
    static constexpr int bytes = 8 * warp_bytes;

    static constexpr int table_bytes = fragment_decoder<format, Pieces>::table_bytes;
    static constexpr int shared = (Sm == 90 ? 227 : 163) * 1024;
    static constexpr int of_half = (shared / 2 - 1024 - table_bytes) / bytes;
    static constexpr bool is_half = NT <= 4 && of_half >= 3;
    static constexpr int of_all = (shared - 1024 - table_bytes) / bytes;
    static constexpr int most = 3; // more of them take the first-level cache from x: 1 to 2 % slower
    static constexpr int stages = is_half ? (of_half < most ? of_half : most) : of_all < 2 ? 2 : of_all < most ? of_all : most;
    static constexpr int resident = is_half ? 2 : 1;
};

/// How the blocks of the grid cut the line of units: the first `larger` of them have one unit more than the others.
struct stream_cut {
    int each = 0;
    int larger = 0;
    stream_cut() noexcept = default;
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
    stream_cut cut;                 ///< of the units
    int steps;                      ///< of a tile
    int groups;
    bf16 const* columns = nullptr;  ///< (columns, positions): the matrix units' columns, whose rows lie `column_bytes` apart
    unsigned column_bytes = 0;
    int column_positions = 0;       ///< that are there, a multiple of 8; beyond them x is 0
    float const* sums = nullptr;    ///< (groups, 8 NT): of x, where W has offsets
    float* parts = nullptr;         ///< (blocks of the grid + tiles, columns, 256)
    index_t blocks = 0;             ///< of the grid
    index_t m0 = 0;                 ///< first row of y
    int m = 0;                      ///< rows of x
    int pieces = 0;                 ///< columns of a row of x
    int slots = 0;                  ///< of the ring
    bool triggers_late = false;     ///< the next kernel begins when what is ahead of this one is complete, and may read that
    bool waits_late = false;        ///< what is ahead of the kernel before this one is complete; that one itself is waited for at the end
    decode_table<typename Panels::format> table{};
};

/// Groups of a row of W whose scales are stored.
template <class Arguments>
__device__ __forceinline__ int stored_groups_of(Arguments const& p) {
    if constexpr (decltype(p.w)::shares_scales)
        return static_cast<int>(p.w.stored_groups());
    else
        return p.groups;
}

/// The copies of a warp's weights, unit after unit.
template <int NT, class Stage, class Panels>
struct weight_stream {
    product_arguments<Panels> const& p;
    std::byte const* codes; // of this lane, of the unit that comes next
    std::uint32_t ring;     // addresses in shared memory
    std::uint32_t slot;
    std::uint32_t last_slot;
    int left; // units
    int tile;
    int step;
    int rows; // of the tile: the first of the warp's 32

    __device__ __forceinline__ weight_stream(product_arguments<Panels> const& arguments, std::byte const* of_warp, int first, int end, int first_row)
        : p{arguments}, ring{ptx::shared_address(of_warp)}, slot{ring}, last_slot{ring + (p.slots - 1) * Stage::warp_bytes},
          left{end - first}, tile{first / p.steps}, step{first % p.steps}, rows{first_row} {
        constexpr auto step_bytes = static_cast<int>(Panels::step_blocks * Panels::block_bytes);
        codes = p.w.data() + static_cast<index_t>(first) * step_bytes + rows / 32 * Stage::block_bytes +
                static_cast<int>(threadIdx.x) % 32 * static_cast<int>(Panels::chunk_bytes);
    }

    /// Issues the copies of a unit, if there is one left, as a group.
    __device__ __forceinline__ void load_next() {
        constexpr int SB = static_cast<int>(Panels::step_blocks);
        constexpr auto chunk = static_cast<int>(Panels::chunk_bytes);
        constexpr auto block_bytes = static_cast<int>(Panels::block_bytes);
        if (left > 0) {
            // Rows of W that are not there: their sums are nobody's.
            bool const is_there = tile * 256 + rows < static_cast<int>(p.w.rows());
            std::uint32_t const to = slot + static_cast<int>(threadIdx.x) % 32 * chunk;
            if (is_there) {
#pragma unroll
                for (int b = 0; b < SB; ++b)
#pragma unroll
                    for (int i = 0; i < Stage::block_bytes; i += 32 * chunk)
                        ptx::copy_async<chunk>(to + b * Stage::block_bytes + i, codes + b * block_bytes + i);
                if constexpr (Stage::groups > 0) load_scales();
            }
            advance();
        }
        ptx::commit();
    }

private:
    __device__ __forceinline__ void advance() {
        codes += Panels::step_blocks * Panels::block_bytes;
        --left;
        slot = slot == last_slot ? ring : slot + Stage::warp_bytes;
        if (++step == p.steps) step = 0, ++tile;
    }
    __device__ __forceinline__ int first_group() const {
        return Stage::has_whole_groups ? step * Stage::groups : step * static_cast<int>(Stage::positions) / static_cast<int>(maximum(Stage::padded, 1));
    }
    /// Of every group that the step touches the numbers of the warp's 32 rows, and the sums of x.
    __device__ __forceinline__ void load_scales() const {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        int const g0 = first_group();
        int const there = p.groups - g0;
        int const first = tile * stored_groups_of(p);
        std::uint32_t to = slot + Stage::code_bytes;
        auto const copy = [&](auto const* from) {
            constexpr int pieces = 2 * static_cast<int>(sizeof(*from)); // of 16 bytes, of a group
#pragma unroll
            for (int j = 0; j < Stage::groups * pieces; j += 32) {
                int const i = j + lane;
                bool const is_there = Stage::groups == 1 ? i < pieces && there > 0 : i < Stage::groups * pieces && i / pieces < there;
                if (is_there)
                    ptx::copy_async<16>(to + i * 16, reinterpret_cast<std::byte const*>(from + (static_cast<unsigned>(first + p.w.stored_group(g0 + i / pieces)) * 256u + static_cast<unsigned>(rows))) + i % pieces * 16);
            }
        };
        copy(p.w.scales());
        if constexpr (Panels::format::has_offsets) {
            to += Stage::scale_bytes;
            copy(p.w.offsets());
            to += Stage::offset_bytes;
            int const count = there < Stage::groups ? there : Stage::groups;
            auto const* const sums = reinterpret_cast<std::byte const*>(p.sums + static_cast<index_t>(g0) * 8 * NT);
            for (int i = lane * 16; i < count * 32 * NT; i += 512) ptx::copy_async<16>(to + i, sums + i);
        }
    }
};

/// Halves of blocks (32 positions) of x that are loaded together, and their registers.
template <int NT>
inline constexpr int batch_halves = NT <= 2 ? 2 : 1;
template <int NT>
struct column_batch {
    ::uint4 v[batch_halves<NT>][NT];
};
/// Those that have been asked for: of a whole step where registers allow, because loads wait in the first-level cache behind the
/// copies of weights that were asked for before them.
template <int NT, class Panels>
struct column_queue {
    static constexpr int size = NT <= 2 ? static_cast<int>(Panels::step_blocks) : 1;
    column_batch<NT> batch[size];
};

/// Where a lane finds its 16 bytes of every 8 columns' fragment. Columns that are not there are the last one again: nobody reads
/// their sums.
template <int NT, class Panels>
struct column_reader {
    static constexpr bool is_whole = Panels::sub_block == 64;
    static constexpr int half_bytes = is_whole ? 16 : 64;
    std::byte const* base;
    unsigned offset[NT];
    int whole; ///< blocks before this one are there whole
    int valid; ///< positions of the first half before this one are there

    __device__ __forceinline__ explicit column_reader(product_arguments<Panels> const& p) {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        int const k = (is_whole ? 16 : 8) * (lane % 4);
        base = reinterpret_cast<std::byte const*>(p.columns);
        int const last = p.m * p.pieces - 1;
#pragma unroll
        for (int t = 0; t < NT; ++t) {
            int const column = 8 * t + lane / 4;
            offset[t] = static_cast<unsigned>(column < last ? column : last) * p.column_bytes + 2 * static_cast<unsigned>(k);
        }
        whole = p.column_positions / 64;
        valid = p.column_positions - k;
    }
    __device__ __forceinline__ void load(int block, int half, column_batch<NT>& to) const {
        auto const at = static_cast<unsigned>(block * 128 + half * half_bytes);
        if (block < whole) {
#pragma unroll
            for (int h = 0; h < batch_halves<NT>; ++h)
#pragma unroll
                for (int t = 0; t < NT; ++t)
                    to.v[h][t] = __ldg(reinterpret_cast<::uint4 const*>(base + (at + offset[t])) + h * (half_bytes / 16));
        } else {
#pragma unroll
            for (int h = 0; h < batch_halves<NT>; ++h)
#pragma unroll
                for (int t = 0; t < NT; ++t) {
                    to.v[h][t] = make_uint4(0, 0, 0, 0);
                    if (block * 64 + (half + h) * (half_bytes / 2) < valid)
                        to.v[h][t] = __ldg(reinterpret_cast<::uint4 const*>(base + (at + offset[t])) + h * (half_bytes / 16));
                }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
