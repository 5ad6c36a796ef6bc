// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Compressed rows as a term of a product by strips (strips.cuh): in the blocks that multiply rows of the base, warps of their own sum
/// those rows' outliers meanwhile, and y is written with both. A row has the lanes that its share of the warps has; several rows of x lie
/// side by side. For at most 16 of them, and rows of W of which none is much longer than the others.

#include "sparse.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// 8 entries as they are stored.
template <class Panels, class Column>
struct stored_chunk {
    adjacent_8<Column> columns;
    adjacent_8<typename Panels::stored_type> values;
    __device__ __forceinline__ void load(sparse_row<Panels, Column> const& row, int c) {
        columns = load_8(row.columns + 8 * c);
        values = load_8(row.values + 8 * c);
    }
};

/// `Out` with own_factor * (x Wᵀ) added, W in compressed rows.
template <class Out, class Panels, class Source, bool HasOwnWarps>
struct sparse_output : Out {
    static constexpr bool has_own_warps = HasOwnWarps;
    static constexpr int fragments = Source::rows <= 8 ? 1 : 2; ///< of 8 rows of x
    Panels rows;
    Source x;
    float own_factor;

    /// Sums of `count` rows from row first + i0 on, by `threads` threads: to[(i / 32 * columns + r) * 32 + i % 32], i from i0.
    template <int Sm>
    __device__ __forceinline__ void make_sums(int thread, int threads, index_t first, int i0, int count, int columns, bool x_is_ready, float* to) const {
        if (rows.has_narrow_columns()) return make<Sm, std::uint16_t>(thread, threads, first, i0, count, columns, x_is_ready, to);
        make<Sm, std::uint32_t>(thread, threads, first, i0, count, columns, x_is_ready, to);
    }

private:
    static constexpr int R = Source::rows_of_part;  ///< rows of x of a lane
    static constexpr int halves = Source::rows / R; ///< lanes of a chunk
    static constexpr int ahead = 2;                 ///< chunks that are asked for together
    static constexpr int together = sizeof(typename Source::part_type) <= 16 ? 8 : 4; ///< columns of x

    template <int Sm, class Column>
    __device__ __forceinline__ void make(int thread, int threads, index_t first, int i0, int count, int columns, bool x_is_ready, float* to) const {
        int lanes = 32; // of a row
        while (lanes > halves && lanes * count > threads) lanes /= 2;
        int const lane = thread % lanes;
        for (int at = thread / 32 * (32 / lanes); at < count; at += threads / lanes) { // the same for a warp
            int const i = at + thread % 32 / lanes;
            bool const is_there = i < count && first + i0 + i < rows.rows();
            sparse_row<Panels, Column> const row{rows, is_there ? first + i0 + i : 0};
            float sum[R] = {};
            add_row<Sm>(row, is_there ? row.chunks() : 0, lane, lanes / halves, x_is_ready, sum);
            x_is_ready = true;
            for (int d = lanes / 2; d >= halves; d /= 2)
#pragma unroll
                for (int r = 0; r < R; ++r) sum[r] += __shfl_xor_sync(~0u, sum[r], d);
#pragma unroll
            for (int r = 0; r < R; ++r) {
                int const m = lane % halves * R + r;
                if (is_there && lane / halves == r % (lanes / halves) && m < columns)
                    to[((i0 + i) / 32 * columns + m) * 32 + (i0 + i) % 32] = row.scale * sum[r];
            }
        }
    }
    /// The products of every `step`th chunk of a row.
    template <int Sm, class Column>
    __device__ __forceinline__ void add_row(sparse_row<Panels, Column> const& row, int chunks, int lane, int step, bool x_is_ready, float (&sum)[R]) const {
        stored_chunk<Panels, Column> next[ahead];
        int c = lane / halves;
#pragma unroll
        for (int i = 0; i < ahead; ++i)
            if (c + i * step < chunks) next[i].load(row, c + i * step);
        if constexpr (Sm >= 90)
            if (!x_is_ready) ptx::wait_for_prerequisites(); // nothing above is what they write
        Source from = x;
        from.seek(0);
        for (; c < chunks; c += ahead * step)
#pragma unroll
            for (int i = 0; i < ahead; ++i) {
                int const at = c + i * step;
                if (at >= chunks) break;
                add_chunk(next[i], row.entries - 8 * at, from, lane % halves, sum);
                if (at + ahead * step < chunks) next[i].load(row, at + ahead * step);
            }
    }
    /// The products of a chunk of which so many entries are there.
    template <class Chunk>
    __device__ __forceinline__ void add_chunk(Chunk const& e, int entries, Source const& from, int half, float (&sum)[R]) const {
#pragma unroll
        for (int j = 0; j < 8; j += together) {
            typename Source::part_type parts[together];
#pragma unroll
            for (int i = 0; i < together; ++i)
                if (j + i < entries) parts[i] = from.part(static_cast<int>(e.columns.v[j + i]), half);
#pragma unroll
            for (int i = 0; i < together; ++i) {
                float v[R];
                Source::unpack(parts[i], v);
                float const weight = stored_to_float(e.values.v[j + i]);
#pragma unroll
                for (int r = 0; r < R; ++r)
                    if (j + i < entries) sum[r] = fmaf(v[r], weight, sum[r]);
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
