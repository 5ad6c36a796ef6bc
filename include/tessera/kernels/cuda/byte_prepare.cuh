// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x as bytes for `byte_product.cuh`: (blocks of 128 columns, rows, 128 bytes), the 16 bytes with number c of row m at place c ^ m % 8,
/// and float32 scales. Rows past the end are zeros.

#include "../fp8_rows.hpp"
#include "prepare.cuh"
#include "ptx/grid_dependency.cuh"
#include "quantize.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// The scale of values whose largest magnitude is a (NaN where one is not finite), and what they are multiplied by.
struct byte_scale {
    float scale;
    float inverse; ///< 0 where the codes are all 0
    __device__ __forceinline__ byte_scale(float a, float largest) {
        float const quotient = __fdiv_rn(largest, a);
        bool const usable = a > 0.0f && quotient <= 3.4028234663852886e38f;
        inverse = usable ? quotient : 0.0f;
        scale = usable ? __fdiv_rn(a, largest) : 0.0f * a;
    }
};

/// Codes of two numbers.
template <class Format>
__device__ __forceinline__ std::uint32_t two_bytes(float low, float high) {
    if constexpr (std::is_same_v<Format, e5m2>) {
        std::uint16_t word;
        asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(word) : "f"(high), "f"(low));
        return word;
    } else {
        return two_codes<Format>(low, high);
    }
}

/// 16 adjacent numbers of a row; beyond its end 0.
template <class X>
__device__ __forceinline__ void load_sixteen(matrix_view<X const> const& x, bool is_wide, index_t m, index_t k, float (&v)[16]) {
    if (is_wide && k + 16 <= x.extent(1)) {
        if constexpr (sizeof(X) == 2) {
            auto const* const from = reinterpret_cast<::uint4 const*>(x.data_handle() + m * x.stride(0) + k);
            ::uint4 const w[2] = {__ldg(from), __ldg(from + 1)};
            std::uint32_t const word[8] = {w[0].x, w[0].y, w[0].z, w[0].w, w[1].x, w[1].y, w[1].z, w[1].w};
#pragma unroll
            for (int i = 0; i < 16; ++i) {
                auto const bits = static_cast<std::uint16_t>(word[i / 2] >> (i % 2 * 16));
                if constexpr (std::is_same_v<X, bf16>)
                    v[i] = __uint_as_float(std::uint32_t{bits} << 16);
                else
                    asm("cvt.f32.f16 %0, %1;" : "=f"(v[i]) : "h"(bits));
            }
            return;
        }
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) v[i] = k + i < x.extent(1) ? static_cast<float>(x(m, k + i)) : 0.0f;
}

/// The larger of two magnitudes, infinity for what is no number.
__device__ __forceinline__ float larger_magnitude(float a, float v) { return fmaxf(a, fabsf(v) <= 3.4028234663852886e38f ? fabsf(v) : INFINITY); }
__device__ __forceinline__ float not_infinite(float a) { return a <= 3.4028234663852886e38f ? a : NAN; }

/// fp8_per_group<128>: 16 numbers a thread, 8 threads a group; scales (blocks of columns, rows).
template <class Format, class X>
__global__ void __launch_bounds__(256) fp8_tile_kernel(__grid_constant__ matrix_view<X const> const x, bool is_wide, int rows, int blocks, ::uint4* out,
                                                       float* scales) {
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    index_t const i = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    auto const chunk = static_cast<int>(i % 8);
    index_t const m = i / 8 / blocks;
    index_t const block = i / 8 % blocks;
    if (m >= rows) return; // whole groups of 8 threads
    unsigned const group = 0xffu << (threadIdx.x % 32 / 8 * 8);
    float v[16] = {};
    if (m < x.extent(0)) load_sixteen(x, is_wide, m, block * 128 + chunk * 16, v);
    float a = 0.0f;
#pragma unroll
    for (int j = 0; j < 16; ++j) a = larger_magnitude(a, v[j]);
#pragma unroll
    for (int d = 4; d > 0; d /= 2) a = fmaxf(a, __shfl_xor_sync(group, a, d));
    byte_scale const s{not_infinite(a), Format::max_magnitude};
    std::uint32_t word[4];
#pragma unroll
    for (int j = 0; j < 4; ++j)
        word[j] = two_bytes<Format>(v[4 * j] * s.inverse, v[4 * j + 1] * s.inverse) |
                  two_bytes<Format>(v[4 * j + 2] * s.inverse, v[4 * j + 3] * s.inverse) << 16;
    index_t const row = block * rows + m;
    out[row * 8 + (chunk ^ static_cast<int>(m % 8))] = make_uint4(word[0], word[1], word[2], word[3]);
    if (chunk == 0) scales[row] = s.scale;
}

/// int8_per_token: a block of threads for each row; scales (rows).
template <class X>
__global__ void __launch_bounds__(256) int8_tile_kernel(__grid_constant__ matrix_view<X const> const x, bool is_wide, int rows, int blocks, ::uint4* out,
                                                        float* scales) {
    ptx::launch_dependents();
    ptx::wait_for_prerequisites();
    index_t const m = blockIdx.x;
    bool const is_there = m < x.extent(0);
    float v[16] = {};
    float a = 0.0f;
    if (is_there)
        for (int c = static_cast<int>(threadIdx.x); c < 8 * blocks; c += 256) {
            load_sixteen(x, is_wide, m, index_t{c} * 16, v);
#pragma unroll
            for (int j = 0; j < 16; ++j) a = larger_magnitude(a, v[j]);
        }
    a = block_reduce(a, 0.0f, [](float u, float w) { return fmaxf(u, w); });
    byte_scale const s{not_infinite(a), 127.0f};
    for (int c = static_cast<int>(threadIdx.x); c < 8 * blocks; c += 256) {
        std::uint32_t word[4] = {0, 0, 0, 0};
        if (is_there) {
            load_sixteen(x, is_wide, m, index_t{c} * 16, v);
#pragma unroll
            for (int j = 0; j < 16; ++j) word[j / 4] |= (static_cast<std::uint32_t>(__float2int_rn(v[j] * s.inverse)) & 0xffu) << (j % 4 * 8);
        }
        out[((c / 8) * static_cast<index_t>(rows) + m) * 8 + (c % 8 ^ static_cast<int>(m % 8))] = make_uint4(word[0], word[1], word[2], word[3]);
    }
    if (threadIdx.x == 0) scales[m] = is_there ? s.scale : 0.0f;
}

/// What fp8_per_group<N> makes of x, as float32: 32 threads for each group, row after row. For storage that is no device tiles.
template <class Format, class X>
__global__ void fp8_values_kernel(__grid_constant__ matrix_view<X const> const x, index_t group, float* out) {
    auto const groups = static_cast<unsigned>(ceil_div(x.extent(1), group));
    index_t const m = blockIdx.x / groups;
    index_t const first = blockIdx.x % groups * group;
    index_t const last = minimum(first + group, x.extent(1));
    float a = 0.0f;
    for (index_t k = first + threadIdx.x; k < last; k += 32) a = larger_magnitude(a, static_cast<float>(x(m, k)));
#pragma unroll
    for (int d = 16; d > 0; d /= 2) a = fmaxf(a, __shfl_xor_sync(~0u, a, d));
    byte_scale const s{not_infinite(a), Format::max_magnitude};
    for (index_t k = first + threadIdx.x; k < last; k += 32) {
        float const v = Format::decode(Format::encode(static_cast<float>(x(m, k)) * s.inverse, rounding::nearest_even, overflow::saturate));
        out[m * x.extent(1) + k] = s.inverse > 0.0f ? s.scale * v : s.scale;
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
