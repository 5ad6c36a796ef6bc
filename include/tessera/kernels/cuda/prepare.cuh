// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x for products with device panels. A number is cut into bf16 pieces whose sum it is (float32: 3, fp16: 2, bf16: itself;
/// `as_bf16`: rounded), each a column of its own, so that products stay exact. Columns are written as rows of
/// positions.

#include "../kernel.hpp"
#include "decode.cuh"

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
__global__ void column_kernel(__grid_constant__ matrix_view<X const> const x, index_t chunks, index_t count, ::uint4* out) {
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    if (i >= count) return;
    auto const column = static_cast<int>(i / chunks);
    index_t const chunk = i % chunks;
    std::uint32_t word[4] = {0, 0, 0, 0};
#pragma unroll
    for (int v = 0; v < 8; ++v) {
        // Sub-blocks of 16: a lane's 4 positions of two of them side by side.
        index_t const position = Panels::sub_block == 16 ? chunk / 4 * 32 + v / 4 * 16 + chunk % 4 * 4 + v % 4 : chunk * 8 + v;
        index_t const k = Panels::column(position);
        if (k < 0 || k >= x.extent(1)) continue;
        word[v / 2] |= piece_of<Pieces>(static_cast<float>(x(column / Pieces, k)), column % Pieces) << (v % 2 * 16);
    }
    out[i] = make_uint4(word[0], word[1], word[2], word[3]);
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

/// What an int8 preparation makes of x (kernels/ref/prepare.hpp), as float32: a block of threads for each row, or group.
template <class X>
__global__ void int8_kernel(__grid_constant__ matrix_view<X const> const x, index_t group, float* out) {
    index_t const m = blockIdx.y;
    index_t const first = static_cast<index_t>(blockIdx.x) * group;
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
