// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x for products with device panels. A number is cut into bf16 pieces whose sum it is (float32: 3, fp16: 2, bf16: itself;
/// `as_bf16`: rounded), each a column of its own, so that products stay exact. Columns are written as rows of
/// positions.

#include "../kernel.hpp"
#include "decode.cuh"
#include "ptx/grid_dependency.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Columns that a row of x becomes.
template <class X, class Preparation>
inline constexpr int x_pieces = std::is_same_v<Preparation, as_bf16> || (std::is_same_v<X, bf16> && std::is_same_v<Preparation, as_is>) ? 1
                                : std::is_same_v<X, fp16> && std::is_same_v<Preparation, as_is>                                         ? 2
                                                                                                                                     : 3;

/// Sums and maxima over the threads of a block of whole warps, in a fixed order; every thread gets the result.
template <class Combine>
__device__ __forceinline__ float block_reduce(float v, float neutral, Combine const& combine) {
    __shared__ float of_warp[32];
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int d = 16; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(~0u, v, d));
    __syncthreads();
    if (lane == 0) of_warp[warp] = v;
    __syncthreads();
    v = lane < static_cast<int>(blockDim.x) / 32 ? of_warp[lane] : neutral;
#pragma unroll
    for (int d = 16; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(~0u, v, d));
    return v;
}

/// Columns of the matrix units of rows of x, (columns, positions): 16 bytes a thread, which a lane of the product reads at once.
template <class Panels, int Pieces, class X>
__global__ void column_kernel(__grid_constant__ Panels const w, __grid_constant__ matrix_view<X const> const x, index_t chunks, index_t count, ::uint4* out) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    auto const column = static_cast<int>(i / chunks);
    index_t const chunk = i % chunks;
    std::uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
    for (int v = 0; v < 8; ++v) {
        // Sub-blocks of 16: a lane's 4 positions of two of them side by side.
        index_t const position = Panels::sub_block == 16 ? chunk / 4 * 32 + v / 4 * 16 + chunk % 4 * 4 + v % 4 : chunk * 8 + v;
        index_t const k = w.column(position);
        if (k < 0 || k >= x.extent(1)) continue;
        word[v / 2] |= piece_of<Pieces>(static_cast<float>(x(column / Pieces, k)), column % Pieces) << (v % 2 * 16);
    }
    out[i] = make_uint4(word[0], word[1], word[2], word[3]);
}

/// x as operands of wgmma, (tiles of N rows, blocks, N, 128 bytes) as `ptx::matrix_descriptor` has them: 16 bytes a thread.
template <class Panels, int N, class X>
__global__ void tile_column_kernel(__grid_constant__ Panels const w, __grid_constant__ matrix_view<X const> const x, bool is_paired, int blocks, index_t count,
                                   ::uint4* out) {
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    constexpr auto q = static_cast<int>(Panels::sub_block);
    auto const chunk = static_cast<int>(i % 8);
    index_t const row = i / 8;
    auto const in_tile = static_cast<int>(row % N);
    index_t const m = row / N / blocks * N + in_tile;
    index_t const first = row / N % blocks * 64 + chunk / 2 / (q / 16) * q + chunk / 2 % (q / 16) * 4 + chunk % 2 * 2;
    std::uint32_t word[4] = {0, 0, 0, 0};
    if (m < x.extent(0)) {
#pragma unroll
        for (int t = 0; t < 4; ++t) {
            index_t const position = first + t * (q / 4);
            if (is_paired) {
                if (position < x.extent(1)) word[t] = __ldcg(reinterpret_cast<std::uint32_t const*>(x.data_handle() + m * x.stride(0) + position));
            } else {
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    index_t const k = w.column(position + h);
                    if (k >= 0 && k < x.extent(1)) word[t] |= piece_of<1>(static_cast<float>(x(m, k)), 0) << (16 * h);
                }
            }
        }
    }
    out[i / 8 * 8 + (chunk ^ in_tile % 8)] = make_uint4(word[0], word[1], word[2], word[3]);
}

/// The same for aligned rows of bf16 and sub-blocks of 64: a thread turns 4 times 16 bytes.
template <int N>
__global__ void wide_tile_column_kernel(__grid_constant__ matrix_view<bf16 const> const x, int blocks, index_t count, ::uint4* out) {
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    auto const side = static_cast<int>(i % 2);
    index_t const row = i / 2;
    auto const in_tile = static_cast<int>(row % N);
    index_t const m = row / N / blocks * N + in_tile;
    index_t const first = row / N % blocks * 64 + side * 8;
    ::uint4 v[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
        v[t] = make_uint4(0, 0, 0, 0);
        if (m < x.extent(0) && first + 16 * t < x.extent(1)) v[t] = __ldcg(reinterpret_cast<::uint4 const*>(x.data_handle() + m * x.stride(0) + first + 16 * t));
    }
    ::uint4* const to = out + row * 8;
    int const chunk = 4 * side;
    int const swap = in_tile % 8;
    to[chunk ^ swap] = make_uint4(v[0].x, v[1].x, v[2].x, v[3].x);
    to[(chunk + 1) ^ swap] = make_uint4(v[0].y, v[1].y, v[2].y, v[3].y);
    to[(chunk + 2) ^ swap] = make_uint4(v[0].z, v[1].z, v[2].z, v[3].z);
    to[(chunk + 3) ^ swap] = make_uint4(v[0].w, v[1].w, v[2].w, v[3].w);
}

/// Sums of groups of x, one warp each: sums(group, column), 0 for pieces beyond the first.
template <class Panels, int Pieces, bool Rounds, class X>
__global__ void sum_kernel(__grid_constant__ matrix_view<X const> const x, int columns, index_t groups, float* sums) {
    index_t const i = (static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x) / 32;
    if (i >= groups * columns) return;
    auto const column = static_cast<int>(i % columns);
    index_t const m = column / Pieces;
    index_t const first = i / columns * Panels::group;
    index_t const last = Panels::group == 0 ? x.extent(1) : minimum(first + Panels::group, x.extent(1));
    float sum = 0.0f;
    if (column % Pieces == 0 && m < x.extent(0))
        for (index_t k = first + static_cast<int>(threadIdx.x) % 32; k < last; k += 32) {
            float const v = static_cast<float>(x(m, k));
            sum += Rounds ? __uint_as_float(piece_of<1>(v, 0) << 16) : v;
        }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (threadIdx.x % 32 == 0) sums[i] = sum;
}

/// What an int8 preparation makes of x (kernels/ref/prepare.hpp), as float32: a block of threads for each row, or group, row after row.
template <class X>
__global__ void int8_kernel(__grid_constant__ matrix_view<X const> const x, index_t group, float* out) {
    auto const groups = static_cast<unsigned>(ceil_div(x.extent(1), group));
    index_t const m = blockIdx.x / groups;
    index_t const first = blockIdx.x % groups * group;
    index_t const last = minimum(first + group, x.extent(1));
    float a = 0.0f;
    bool is_finite = true;
    for (index_t k = first + threadIdx.x; k < last; k += blockDim.x) {
        float const v = fabsf(static_cast<float>(x(m, k)));
        is_finite = is_finite && v <= 3.4028234663852886e38f;
        a = fmaxf(a, v);
    }
    a = block_reduce(is_finite ? a : INFINITY, 0.0f, [](float u, float v) { return fmaxf(u, v); });
    if (!(a <= 3.4028234663852886e38f)) a = NAN;
    bool const usable = a > 0.0f && __fdiv_rn(127.0f, a) <= 3.4028234663852886e38f;
    float const inverse = usable ? __fdiv_rn(127.0f, a) : 0.0f;
    float const scale = usable ? __fdiv_rn(a, 127.0f) : 0.0f * a;
    for (index_t k = first + threadIdx.x; k < last; k += blockDim.x)
        out[m * x.extent(1) + k] = usable ? scale * rintf(static_cast<float>(x(m, k)) * inverse) : scale;
}

} // namespace tessera::inline TESSERA_ABI::detail
