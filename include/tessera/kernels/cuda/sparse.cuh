// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products with sparse operands on CUDA devices, `linear<prepacked<device_rows, ...>>`, and their transposes.
///
/// **x Wᵀ**: 4 to 32 lanes, as many as rows of mean length keep busy, share a row of W; each takes chunks of 8 entries and fetches the x
/// of their columns; sums are added across lanes. With several rows of x these lie side by side, a column of 8 float32 or 16
/// 16-bit numbers in one sector of memory. Lanes, chunks and the order of every sum follow from W alone: a row of y has the same bits for any number of rows of x.
///
/// **x W** of operands that were placed as they are: blocks take equal parts of W's rows, one row after another, and leave sums of their
/// own in the workspace, which a second kernel adds in order. Of N of M a thread keeps the sums of a group of columns; of compressed
/// rows a block adds a row, whose columns are all different, to its sums in memory, which is slow: place(exec, transposed(...)) turns
/// W itself. No atomics: the same bits every time, and for any number of rows of x.

#include "linear.cuh"

#include "../../storage/device_rows.hpp"
#include "../sparse_operand.hpp"
#include "ptx/grid_dependency.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// 8 entries of a row; a column below 0: nothing is there, and the value is 0.
struct entry_chunk {
    int column[8];
    float value[8];
};

/// 8 adjacent elements, in as few loads as there are, which nothing else reads.
template <class T>
struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) adjacent_8 {
    T v[8];
};
template <class T>
__device__ __forceinline__ adjacent_8<T> load_8(T const* from) {
    adjacent_8<T> to;
    if constexpr (sizeof(T) == 1) {
        *reinterpret_cast<::uint2*>(&to) = __ldcs(reinterpret_cast<::uint2 const*>(from));
    } else {
#pragma unroll
        for (int i = 0; i < static_cast<int>(sizeof(T)) / 2; ++i)
            reinterpret_cast<::uint4*>(&to)[i] = __ldcs(reinterpret_cast<::uint4 const*>(from) + i);
    }
    return to;
}

/// A row of sparse storage on the device: its number of chunks, a chunk, an entry, its scale. `Column` is the type of stored columns.
template <class Panels, class Column>
struct sparse_row;

template <class T, class G, class Column>
struct sparse_row<prepacked<device_rows, csr<T, G>>, Column> {
    using panels = prepacked<device_rows, csr<T, G>>;
    using stored = typename panels::stored_type;
    Column const* columns;
    stored const* values;
    int entries;
    float scale = 1.0f;

    __device__ __forceinline__ sparse_row(panels const& w, index_t n) {
        auto const range = reinterpret_cast<::uint2 const*>(w.data())[n];
        index_t const first = index_t{range.x} * device_rows::chunk;
        entries = static_cast<int>(range.y);
        columns = reinterpret_cast<Column const*>(w.data() + w.columns_at()) + first;
        values = reinterpret_cast<stored const*>(w.data() + w.values_at()) + first;
        if constexpr (panels::has_scale) scale = reinterpret_cast<float const*>(w.data() + w.scales_at())[n];
    }
    __device__ __forceinline__ int chunks() const { return (entries + 7) / 8; }
    __device__ __forceinline__ entry_chunk chunk(int c) const {
        auto const k = load_8(columns + 8 * c);
        auto const v = load_8(values + 8 * c);
        entry_chunk to;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            to.column[i] = 8 * c + i < entries ? static_cast<int>(k.v[i]) : -1;
            to.value[i] = stored_to_float(v.v[i]);
        }
        return to;
    }
    __device__ __forceinline__ int column(int i) const { return static_cast<int>(columns[i]); }
    __device__ __forceinline__ float value(int i) const { return stored_to_float(values[i]); }
};

template <index_t N, index_t M, class T, class G, class Column>
struct sparse_row<prepacked<device_rows, n_of_m<N, M, T, G>>, Column> {
    using panels = prepacked<device_rows, n_of_m<N, M, T, G>>;
    using stored = typename panels::stored_type;
    static constexpr int bits = panels::position_bits;
    std::uint8_t const* positions;
    stored const* values;
    int entries;
    int cols;
    float scale = 1.0f;

    __device__ __forceinline__ sparse_row(panels const& w, index_t n) {
        index_t const first = n * w.mean_chunks();
        entries = static_cast<int>(w.row_slots());
        cols = static_cast<int>(w.cols());
        positions = reinterpret_cast<std::uint8_t const*>(w.data() + w.positions_at()) + first * bits;
        values = reinterpret_cast<stored const*>(w.data() + w.values_at()) + first * device_rows::chunk;
        if constexpr (panels::has_scale) scale = reinterpret_cast<float const*>(w.data())[n];
    }
    __device__ __forceinline__ int chunks() const { return (entries + 7) / 8; }
    __device__ __forceinline__ int column_of(int slot, std::uint32_t position) const {
        int const k = slot / static_cast<int>(N) * static_cast<int>(M) + static_cast<int>(position);
        return k < cols && slot < entries ? k : -1;
    }
    /// The positions of a chunk.
    __device__ __forceinline__ std::uint32_t position_word(int c) const {
        std::uint8_t const* const at = positions + c * bits;
        std::uint32_t word = 0;
        if constexpr (bits == 4)
            word = __ldcs(reinterpret_cast<std::uint32_t const*>(at));
        else if constexpr (bits == 2)
            word = __ldcs(reinterpret_cast<std::uint16_t const*>(at));
        else
#pragma unroll
            for (int b = 0; b < bits; ++b) word |= std::uint32_t{__ldcs(at + b)} << (8 * b);
        return word;
    }
    __device__ __forceinline__ entry_chunk chunk(int c) const {
        std::uint32_t const word = position_word(c);
        auto const v = load_8(values + 8 * c);
        entry_chunk to;
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            to.column[i] = column_of(8 * c + i, word >> (bits * i) & ((1u << bits) - 1u));
            to.value[i] = stored_to_float(v.v[i]);
        }
        return to;
    }
    __device__ __forceinline__ int column(int i) const { return column_of(i, bitpack::get<bits>(positions, i)); }
    __device__ __forceinline__ float value(int i) const { return stored_to_float(values[i]); }
};

/// x as it lies: a row of it at a time. `part` has the numbers of a column as they are stored, for `rows_of_part` rows.
template <class X>
struct sparse_x_row {
    static constexpr int rows = 1;
    static constexpr int rows_of_part = 1;
    using part_type = X;
    matrix_view<X const> x;
    X const* at = nullptr;
    __device__ __forceinline__ void seek(index_t m) { at = x.data_handle() + m * x.stride(0); }
    __device__ __forceinline__ X part(int k, int) const { return at[k * x.stride(1)]; }
    __device__ static __forceinline__ void unpack(X const& v, float (&to)[1]) { to[0] = stored_to_float(v); }
    __device__ __forceinline__ void get(int k, float (&to)[1]) const { unpack(part(k, 0), to); }
};
/// Rows of x side by side, as `interleave_kernel` writes them: (tiles, k, R) of 32 bytes, or 16, a column.
template <int R, class X>
struct sparse_x_tile {
    static constexpr int rows = R;
    static constexpr int rows_of_part = R < 8 ? R : 8;
    static constexpr int of_load = 16 / static_cast<int>(sizeof(X));
    struct part_type {
        ::uint4 v[rows_of_part / of_load];
    };
    X const* data;
    index_t k;
    X const* at = nullptr;
    __device__ __forceinline__ void seek(index_t tile) { at = data + tile * k * R; }
    /// Rows 8 p to 8 p + 8 of a column.
    __device__ __forceinline__ part_type part(int c, int p) const {
        part_type to;
#pragma unroll
        for (int i = 0; i < rows_of_part / of_load; ++i)
            to.v[i] = __ldg(reinterpret_cast<::uint4 const*>(at + static_cast<index_t>(c) * R + p * rows_of_part) + i);
        return to;
    }
    __device__ static __forceinline__ void unpack(part_type const& from, float (&to)[rows_of_part]) {
#pragma unroll
        for (int i = 0; i < rows_of_part / of_load; ++i) {
            std::uint32_t const word[4] = {from.v[i].x, from.v[i].y, from.v[i].z, from.v[i].w};
#pragma unroll
            for (int j = 0; j < of_load; ++j) {
                if constexpr (std::is_same_v<X, float>)
                    to[of_load * i + j] = __uint_as_float(word[j]);
                else
                    to[of_load * i + j] = stored_to_float(X::from_bits(static_cast<std::uint16_t>(word[j / 2] >> (16 * (j % 2)))));
            }
        }
    }
    __device__ __forceinline__ void get(int c, float (&to)[R]) const {
#pragma unroll
        for (int p = 0; p < R / rows_of_part; ++p) {
            float v[rows_of_part];
            unpack(part(c, p), v);
#pragma unroll
            for (int i = 0; i < rows_of_part; ++i) to[p * rows_of_part + i] = v[i];
        }
    }
};

/// May begin while the kernel ahead of it ends.
template <int Sm, int R, class X>
__global__ void interleave_kernel(__grid_constant__ matrix_view<X const> const x, index_t count, X* to) {
    if constexpr (Sm >= 90) {
        ptx::launch_dependents();
        ptx::wait_for_prerequisites();
    }
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x; // a column of a tile
    if (i >= count) return;
    index_t const m0 = i / x.extent(1) * R;
    index_t const k = i % x.extent(1);
#pragma unroll
    for (int r = 0; r < R; ++r) to[i * R + r] = m0 + r < x.extent(0) ? x(m0 + r, k) : X{};
}

/// y(m, n) for the rows of W that the block has and the tile blockIdx.y of rows of x.
template <int Sm, class Panels, class Column, class Source, class Out>
__global__ void __launch_bounds__(256) sparse_kernel(__grid_constant__ Panels const w, Source x, int lanes, index_t m, __grid_constant__ Out const out) {
    if constexpr (Sm >= 90) ptx::launch_dependents(); // a base on top of these sums may begin to load its weights
    constexpr int R = Source::rows;
    index_t const n = (static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x) / lanes;
    int const lane = static_cast<int>(threadIdx.x) % lanes;
    x.seek(blockIdx.y);
    float sum[R] = {};
    float scale = 1.0f;
    if (n < w.rows()) {
        sparse_row<Panels, Column> const row{w, n};
        scale = row.scale;
        int const chunks = row.chunks();
#pragma unroll 2
        for (int c = lane; c < chunks; c += lanes) {
            entry_chunk const e = row.chunk(c);
            constexpr int U = R <= 8 ? 8 : 4; // columns of x that are asked for together
#pragma unroll
            for (int j = 0; j < 8; j += U) {
                float v[U][R] = {};
#pragma unroll
                for (int i = 0; i < U; ++i)
                    if (e.column[j + i] >= 0) x.get(e.column[j + i], v[i]);
#pragma unroll
                for (int i = 0; i < U; ++i)
#pragma unroll
                    for (int r = 0; r < R; ++r)
                        if (e.column[j + i] >= 0) sum[r] = fmaf(v[i][r], e.value[j + i], sum[r]);
            }
        }
    }
    for (int d = lanes / 2; d > 0; d /= 2)
#pragma unroll
        for (int r = 0; r < R; ++r) sum[r] += __shfl_xor_sync(~0u, sum[r], d);
    if (n >= w.rows()) return;
    index_t const m0 = static_cast<index_t>(blockIdx.y) * R;
#pragma unroll
    for (int r = 0; r < R; ++r)
        if (lane == r % lanes && m0 + r < m) out(m0 + r, n, scale * sum[r]);
}

// --- N of M whose chunks cover whole groups --------------------------------------------------------------------------

/// Columns that a chunk of 8 slots covers; 0 where groups lie across chunks, or choices are too many for registers.
template <class Panels>
inline constexpr int chunk_columns = 0;
template <index_t N, index_t M, class T, class G>
inline constexpr int chunk_columns<prepacked<device_rows, n_of_m<N, M, T, G>>> = 8 % N == 0 && 8 / N * M == 16 && M <= 4 ? 16 : 0;

/// A row of x for them: the 16 columns of a lane's chunk, 32 chunks side by side, 4 columns at a time: (chunks / 32, 4, 32, 4).
template <class X>
__global__ void stripe_kernel(__grid_constant__ matrix_view<X const> const x, index_t count, float4* to) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    index_t const k = (i / 128 * 32 + i % 32) * 16 + i % 128 / 32 * 4;
    auto const get = [&](index_t c) { return c < x.extent(1) ? stored_to_float(x(0, c)) : 0.0f; };
    to[i] = make_float4(get(k), get(k + 1), get(k + 2), get(k + 3));
}

/// One of 2 or 4 numbers.
template <int M>
__device__ __forceinline__ float pick(float const* from, std::uint32_t position) {
    float const low = (position & 1u) != 0 ? from[1] : from[0];
    if constexpr (M == 2) return low;
    float const high = (position & 1u) != 0 ? from[3] : from[2];
    return (position & 2u) != 0 ? high : low;
}

/// One row of x, a warp a row of W: the sums of `sparse_kernel` in its order, but x comes in whole lines.
template <int Sm, class Panels, int N, int M, class Out>
__global__ void __launch_bounds__(256) striped_kernel(__grid_constant__ Panels const w, float4 const* x, __grid_constant__ Out const out) {
    if constexpr (Sm >= 90) ptx::launch_dependents();
    index_t const n = static_cast<index_t>(blockIdx.x) * 8 + threadIdx.x / 32;
    if (n >= w.rows()) return;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    sparse_row<Panels, std::uint32_t> const row{w, n};
    int const chunks = row.chunks();
    float sum = 0.0f;
#pragma unroll 2
    for (int c = lane; c < chunks; c += 32) {
        std::uint32_t const word = row.position_word(c);
        auto const values = load_8(row.values + 8 * c);
        bool const is_whole = c * 16 + 16 <= row.cols;
        float v[16];
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            float4 const four = __ldg(x + (c / 32 * 4 + q) * 32 + lane);
            v[4 * q] = four.x, v[4 * q + 1] = four.y, v[4 * q + 2] = four.z, v[4 * q + 3] = four.w;
        }
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            std::uint32_t const position = word >> (Panels::position_bits * i);
            float const x_of = pick<M>(v + i / N * M, position);
            if (is_whole || row.column_of(8 * c + i, position & ((1u << Panels::position_bits) - 1u)) >= 0)
                sum = fmaf(x_of, stored_to_float(values.v[i]), sum);
        }
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (lane == 0) out(0, n, row.scale * sum);
}

/// Lanes for a row of so many chunks.
inline int lanes_for(index_t chunks) noexcept {
    int lanes = 4;
    while (lanes < 32 && lanes < chunks) lanes *= 2;
    return lanes;
}

/// f(type of the stored columns).
template <class Panels, class F>
void with_columns(Panels const& w, F const& f) {
    if constexpr (requires { w.has_narrow_columns(); }) {
        if (w.has_narrow_columns())
            f(std::uint16_t{});
        else
            f(std::uint32_t{});
    } else {
        f(std::uint32_t{});
    }
}

template <class Source, int Sm, class Panels, class Out>
void run_sparse_rows(cuda<Sm> const& exec, Panels const& w, Source const& x, index_t m, Out const& out) {
    int const lanes = chunk_columns<Panels> != 0 ? 32 : lanes_for(w.mean_chunks()); // as striped_kernel has them
    dim3 const grid{static_cast<unsigned>(ceil_div(w.rows() * lanes, 256)), static_cast<unsigned>(ceil_div(m, Source::rows))};
    with_columns(w, [&]<class Column>(Column) {
        launch("apply", stream_of(exec), {grid}, &sparse_kernel<Sm, Panels, Column, Source, Out>, w, x, lanes, m, out);
    });
}

/// Rows of x that are brought side by side at a time.
inline constexpr index_t sparse_rows_of_pass = 1024;

/// Rows of `Out` from `m0` on.
template <class Out>
struct shifted_output {
    Out out;
    index_t m0;
    __device__ void operator()(index_t m, index_t n, float sum) const { out(m0 + m, n, sum); }
};

/// Several rows of x, R side by side.
template <int R, int Sm, class Panels, class X, class Out, class Arena>
void run_sparse_tiles(cuda<Sm> const& exec, Panels const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
    index_t const most = round_up(minimum(x.extent(0), sparse_rows_of_pass), R);
    X* const tiles = arena.template carve<X>(most, x.extent(1));
    if constexpr (launches<Arena>) {
        for (index_t m = 0; m < x.extent(0); m += sparse_rows_of_pass) {
            matrix_view<X const> const part = tessera::rows(x, m, minimum(m + sparse_rows_of_pass, x.extent(0)));
            index_t const count = ceil_div(part.extent(0), R) * x.extent(1);
            if (count > 0) launch("apply", stream_of(exec), {grid_of(count), dim3(256), 0, Sm >= 90}, &interleave_kernel<Sm, R, X>, part, count, tiles);
            run_sparse_rows(exec, w, sparse_x_tile<R, X>{tiles, x.extent(1)}, part.extent(0), shifted_output<Out>{out, m});
        }
    }
}

/// One row of x, in stripes.
template <int Sm, index_t N, index_t M, class T, class G, class X, class Out, class Arena>
void run_striped(cuda<Sm> const& exec, prepacked<device_rows, n_of_m<N, M, T, G>> const& w, matrix_view<X const> const& x, Out const& out,
                 Arena& arena) {
    using panels = prepacked<device_rows, n_of_m<N, M, T, G>>;
    index_t const count = ceil_div(w.mean_chunks(), 32) * 128;
    auto* const striped = arena.template carve<float4>(count);
    if constexpr (launches<Arena>) {
        if (count > 0) launch("apply", stream_of(exec), {grid_of(count)}, &stripe_kernel<X>, x, count, striped);
        launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(w.rows(), 8)))},
               &striped_kernel<Sm, panels, static_cast<int>(N), static_cast<int>(M), Out>, w, striped, out);
    }
}

// --- transposed ------------------------------------------------------------------------------------------------------

/// Parts of W's rows, by the shape alone: as many as have room, and `most`.
inline index_t sparse_parts(index_t n, index_t k, index_t most, index_t rows_together) noexcept {
    index_t const room = maximum(1, (index_t{1} << 24) / maximum(1, rows_together * k));
    return maximum(1, minimum(minimum(room, most), ceil_div(n, 16)));
}

/// x of 64 rows of W, R rows of x side by side.
template <int R, class X>
__device__ __forceinline__ void load_sparse_x(matrix_view<X const> const& x, index_t n0, index_t last, float (&to)[64][R]) {
    for (int i = static_cast<int>(threadIdx.x); i < 64 * R; i += static_cast<int>(blockDim.x))
        to[i / R][i % R] = n0 + i / R < last && i % R < x.extent(0) ? stored_to_float(x(i % R, n0 + i / R)) : 0.0f;
}

/// partial(part, k, r) = sum over the part's rows n of x(r, n) W(n, k), of compressed rows: row after row.
template <int R, class Panels, class Column, class X>
__global__ void __launch_bounds__(128) sparse_transposed_kernel(__grid_constant__ Panels const w, __grid_constant__ matrix_view<X const> const x, float* partial) {
    __shared__ float of_x[64][R];
    index_t const k = w.cols();
    float* const sums = partial + blockIdx.x * k * R;
    for (index_t i = threadIdx.x; i < k * R; i += 128) sums[i] = 0.0f;
    index_t const first = w.rows() * blockIdx.x / gridDim.x;
    index_t const last = w.rows() * (blockIdx.x + 1) / gridDim.x;
    for (index_t n0 = first; n0 < last; n0 += 64) {
        __syncthreads();
        load_sparse_x(x, n0, last, of_x);
        for (index_t n = n0; n < minimum(n0 + 64, last); ++n) {
            __syncthreads(); // the sums of the row before, x
            sparse_row<Panels, Column> const row{w, n};
            for (int i = static_cast<int>(threadIdx.x); i < row.entries; i += 128) {
                float const weight = row.scale * row.value(i);
                float* const to = sums + static_cast<index_t>(row.column(i)) * R;
#pragma unroll
                for (int r = 0; r < R; ++r) to[r] = fmaf(of_x[n - n0][r], weight, to[r]);
            }
        }
    }
}

/// The same of N of M: a thread keeps the sums of a group of M columns.
template <int R, class Panels, index_t N, index_t M, class X>
__global__ void __launch_bounds__(128) kept_transposed_kernel(__grid_constant__ Panels const w, __grid_constant__ matrix_view<X const> const x, float* partial) {
    __shared__ float of_x[64][R];
    index_t const g = static_cast<index_t>(blockIdx.y) * 128 + threadIdx.x;
    bool const is_there = g * M < w.cols();
    index_t const first = w.rows() * blockIdx.x / gridDim.x;
    index_t const last = w.rows() * (blockIdx.x + 1) / gridDim.x;
    float sums[M][R] = {};
    for (index_t n0 = first; n0 < last; n0 += 64) {
        __syncthreads();
        load_sparse_x(x, n0, last, of_x);
        __syncthreads();
        if (!is_there) continue;
#pragma unroll 4
        for (index_t n = n0; n < minimum(n0 + 64, last); ++n) {
            sparse_row<Panels, std::uint32_t> const row{w, n};
#pragma unroll
            for (int j = 0; j < static_cast<int>(N); ++j) {
                auto const slot = static_cast<int>(g * N) + j;
                int const column = row.column(slot) - static_cast<int>(g * M); // below 0: none
                float const weight = row.scale * row.value(slot);
#pragma unroll
                for (int i = 0; i < static_cast<int>(M); ++i)
                    if (column == i)
#pragma unroll
                        for (int r = 0; r < R; ++r) sums[i][r] = fmaf(of_x[n - n0][r], weight, sums[i][r]);
            }
        }
    }
    if (!is_there) return;
#pragma unroll
    for (int i = 0; i < static_cast<int>(M); ++i)
        if (g * M + i < w.cols())
#pragma unroll
            for (int r = 0; r < R; ++r) partial[(blockIdx.x * w.cols() + g * M + i) * R + r] = sums[i][r];
}

/// y(m0 + r, k) of the parts, in their order.
template <int R, class Out>
__global__ void add_sparse_parts_kernel(float const* partial, index_t parts, index_t rows, index_t k, index_t m0, __grid_constant__ Out const out) {
    index_t const c = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (c >= k) return;
    float sum[R] = {};
#pragma unroll 4
    for (index_t p = 0; p < parts; ++p)
#pragma unroll
        for (int r = 0; r < R; ++r) sum[r] += partial[(p * k + c) * R + r];
#pragma unroll
    for (int r = 0; r < R; ++r)
        if (r < rows) out(m0 + r, c, sum[r]);
}

/// How a storage is transposed: rows of x together, parts, the kernel.
template <class Panels>
struct sparse_turn;
template <class T, class G>
struct sparse_turn<prepacked<device_rows, csr<T, G>>> {
    using panels = prepacked<device_rows, csr<T, G>>;
    static constexpr int together = 8;
    static index_t parts(panels const& w) noexcept { return sparse_parts(w.rows(), w.cols(), 264, together); }
    template <int R, int Sm, class X>
    static void run(cuda<Sm> const& exec, panels const& w, matrix_view<X const> const& x, index_t parts, float* partial) {
        with_columns(w, [&]<class Column>(Column) {
            launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(parts)), dim3(128)}, &sparse_transposed_kernel<R, panels, Column, X>, w, x, partial);
        });
    }
};
template <index_t N, index_t M, class T, class G>
struct sparse_turn<prepacked<device_rows, n_of_m<N, M, T, G>>> {
    using panels = prepacked<device_rows, n_of_m<N, M, T, G>>;
    static constexpr int together = M <= 4 ? 8 : M <= 8 ? 4 : 2;
    static index_t blocks(panels const& w) noexcept { return ceil_div(ceil_div(w.cols(), M), 128); }
    static index_t parts(panels const& w) noexcept {
        return sparse_parts(w.rows(), w.cols(), ceil_div(8 * 132, maximum(1, blocks(w))), together);
    }
    template <int R, int Sm, class X>
    static void run(cuda<Sm> const& exec, panels const& w, matrix_view<X const> const& x, index_t parts, float* partial) {
        launch("apply", stream_of(exec), {dim3(static_cast<unsigned>(parts), static_cast<unsigned>(blocks(w))), dim3(128)},
               &kept_transposed_kernel<R, panels, N, M, X>, w, x, partial);
    }
};

} // namespace detail

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, linear<prepacked<device_rows, Storage>, Preparation>> {
    using operand = linear<prepacked<device_rows, Storage>, Preparation>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        detail::require_as_is<Preparation>();
        constexpr int sector = 32 / static_cast<int>(sizeof(X));
        if (x.extent(0) > sector / 2)
            detail::run_sparse_tiles<sector>(exec, w.storage(), x, out, arena);
        else if (x.extent(0) > 1)
            detail::run_sparse_tiles<sector / 2>(exec, w.storage(), x, out, arena);
        else if constexpr (detail::chunk_columns<prepacked<device_rows, Storage>> != 0)
            detail::run_striped(exec, w.storage(), x, out, arena);
        else if constexpr (detail::launches<Arena>)
            detail::run_sparse_rows(exec, w.storage(), detail::sparse_x_row<X>{x}, x.extent(0), out);
    }
};

template <int Sm, class Storage, class Preparation>
struct kernel<op::apply, cuda<Sm>, transposed_operator<linear<prepacked<device_rows, Storage>, Preparation>>> {
    using operand = transposed_operator<linear<prepacked<device_rows, Storage>, Preparation>>;

    template <class X, class Out, class Arena>
    static void run(cuda<Sm> const& exec, operand const& t, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        detail::require_as_is<Preparation>();
        if (x.extent(0) == 1)
            run_rows<1>(exec, t.inner().storage(), x, out, arena);
        else
            run_rows<detail::sparse_turn<prepacked<device_rows, Storage>>::together>(exec, t.inner().storage(), x, out, arena);
    }

private:
    template <int R, class Panels, class X, class Out, class Arena>
    static void run_rows(cuda<Sm> const& exec, Panels const& w, matrix_view<X const> const& x, Out const& out, Arena& arena) {
        using turn = detail::sparse_turn<Panels>;
        index_t const parts = turn::parts(w);
        float* const partial = arena.template carve<float>(parts, index_t{R}, w.cols());
        if constexpr (detail::launches<Arena>) {
            if (w.cols() == 0) return;
            for (index_t m = 0; m < x.extent(0); m += R) {
                matrix_view<X const> const part = tessera::rows(x, m, minimum(m + R, x.extent(0)));
                turn::template run<R>(exec, w, part, parts, partial);
                detail::launch("apply", detail::stream_of(exec), {detail::grid_of(w.cols())}, &detail::add_sparse_parts_kernel<R, Out>, partial, parts,
                               part.extent(0), w.cols(), m, out);
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
