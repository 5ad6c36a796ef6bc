// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows times Hadamard matrices of 2^p on CUDA devices, natural order, without a factor. A thread has 16 numbers, and makes the steps of
/// four bits of their index at a time; between, numbers change hands in shared memory.

#include "quantize.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Number 0 of the 16 that a thread has which owns bits [At, At + 4) of the index, in shared memory: 17 words hold 16, so that no bank
/// is met twice, and number j is `owned_step` words after number j - 1.
template <int At>
__device__ __forceinline__ int owned_index(int thread) {
    return (thread >> At) << (At + 4) | (thread & ((1 << At) - 1));
}
template <int At>
__device__ __forceinline__ int owned_place(int thread) {
    int const i = owned_index<At>(thread);
    return i + (i >> 4);
}
template <int At>
inline constexpr int owned_step = At == 0 ? 1 : (1 << At) + (1 << At) / 16;

/// From one ownership to another.
template <int From, int To>
__device__ __forceinline__ void change_owner(float (&v)[16], float* memory) {
    int const thread = static_cast<int>(threadIdx.x);
    if constexpr (From > 0) __syncthreads(); // what was read there before
#pragma unroll
    for (int j = 0; j < 16; ++j) memory[owned_place<From>(thread) + j * owned_step<From>] = v[j];
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 16; ++j) v[j] = memory[owned_place<To>(thread) + j * owned_step<To>];
}

/// The steps of bits [first, last) of the index that a thread owns.
template <int At>
__device__ __forceinline__ void own_steps(float (&v)[16], int first, int last) {
#pragma unroll
    for (int b = 0; b < 4; ++b)
        if (At + b >= first && At + b < last)
#pragma unroll
            for (int j = 0; j < 16; ++j)
                if ((j >> b & 1) == 0) {
                    float const other = v[j + (1 << b)];
                    v[j + (1 << b)] = v[j] - other;
                    v[j] += other;
                }
}

/// Stores them one by one: neighbours in a warp are neighbours in the row.
template <int At, class Y>
__device__ __forceinline__ void store_owned(float const (&v)[16], Y* to, index_t n) {
    int const i = owned_index<At>(static_cast<int>(threadIdx.x));
#pragma unroll
    for (int j = 0; j < 16; ++j)
        if (i + (j << At) < n) to[i + (j << At)] = static_cast<Y>(v[j]);
}

/// A block takes 16 blockDim columns of a row, whole groups of 2^bits: any number of warps for 8 bits, 256 threads for 12, 1024 for 14.
template <bool IsWide, class X, class Y>
__global__ void __launch_bounds__(1024)
    hadamard_kernel(__grid_constant__ matrix_view<X const> const x, int bits, __grid_constant__ matrix_view<Y> const y) {
    extern __shared__ float row_memory[];
    int const thread = static_cast<int>(threadIdx.x);
    index_t const first = static_cast<index_t>(blockIdx.y) * blockDim.x * 16;
    X const* const from = x.data_handle() + blockIdx.x * x.stride(0) + first;
    Y* const to = y.data_handle() + blockIdx.x * y.stride(0) + first;
    index_t const n = x.extent(1) - first;
    float half[2][8];
    load_eight<IsWide>(from, 16 * thread, n, half[0]);
    load_eight<IsWide>(from, 16 * thread + 8, n, half[1]);
    float v[16];
#pragma unroll
    for (int j = 0; j < 16; ++j) v[j] = half[j / 8][j % 8];
    own_steps<0>(v, 0, bits);
    if (bits > 4) {
        change_owner<0, 4>(v, row_memory);
        own_steps<4>(v, 4, bits);
        if (bits > 8) {
            change_owner<4, 8>(v, row_memory);
            own_steps<8>(v, 8, bits);
            if (bits > 12) {
                change_owner<8, 10>(v, row_memory);
                own_steps<10>(v, 12, bits);
                store_owned<10>(v, to, n);
            } else {
                store_owned<8>(v, to, n);
            }
        } else {
            store_owned<4>(v, to, n);
        }
        return;
    }
    if constexpr (IsWide) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            float pack[8];
#pragma unroll
            for (int i = 0; i < 8; ++i) pack[i] = v[8 * h + i];
            if (16 * thread + 8 * h < n) store_pack<8>(to + 16 * thread + 8 * h, pack);
        }
    } else {
        store_owned<0>(v, to, n);
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
