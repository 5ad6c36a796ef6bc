// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Quantising, norms and rotations of rows that move 8 numbers at a time, at the rate of memory: blocks stay and take row after row, the
/// next one asked for before this one is done; a norm, a rotation and a scale cost one barrier each. The bits are those of
/// kernels/cuda/quantize.cuh and of norm_kernel: sums in the same order, butterflies of bits of the index from the lowest.

#include "quantize.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// 8 numbers as they lie in memory.
template <class X>
struct alignas(16) raw_eight {
    std::uint32_t w[2 * sizeof(X)];
};
template <class X>
__device__ __forceinline__ raw_eight<X> load_raw(X const* from, bool is_there) {
    return is_there ? *reinterpret_cast<raw_eight<X> const*>(from) : raw_eight<X>{};
}
template <class X>
__device__ __forceinline__ void unpack(raw_eight<X> const& p, float (&v)[8]) {
    if constexpr (sizeof(X) == 2) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if constexpr (std::is_same_v<X, bf16>) {
                v[2 * i] = __uint_as_float(p.w[i] << 16);
                v[2 * i + 1] = __uint_as_float(p.w[i] & 0xffff0000u);
            } else {
                asm("cvt.f32.f16 %0, %1;" : "=f"(v[2 * i]) : "h"(static_cast<std::uint16_t>(p.w[i])));
                asm("cvt.f32.f16 %0, %1;" : "=f"(v[2 * i + 1]) : "h"(static_cast<std::uint16_t>(p.w[i] >> 16)));
            }
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = __uint_as_float(p.w[i]);
    }
}
/// The largest magnitude, by the bits of float32 (infinities and NaN last): types of 16 bits order their bits two at a time.
template <int Count, class X>
__device__ __forceinline__ std::uint32_t largest_magnitude(raw_eight<X> const (&p)[Count]) {
    std::uint32_t a = 0;
    if constexpr (sizeof(X) == 2) {
#pragma unroll
        for (int c = 0; c < Count; ++c)
#pragma unroll
            for (int i = 0; i < 4; ++i) a = __vmaxu2(a, p[c].w[i] & 0x7fff7fffu);
        return __float_as_uint(static_cast<float>(X::from_bits(static_cast<std::uint16_t>(max(a & 0xffffu, a >> 16)))));
    } else {
#pragma unroll
        for (int c = 0; c < Count; ++c)
#pragma unroll
            for (int i = 0; i < 8; ++i) a = max(a, p[c].w[i] & 0x7fffffffu);
        return a;
    }
}
/// Two numbers side by side, to nearest.
template <class Y>
__device__ __forceinline__ void store_two(Y* to, float low, float high) {
    if constexpr (std::is_same_v<Y, bf16>) {
        asm volatile("{ .reg .b32 t; cvt.rn.bf16x2.f32 t, %2, %1; st.global.b32 [%0], t; }" ::"l"(to), "f"(low), "f"(high) : "memory");
    } else {
        struct alignas(2 * sizeof(Y)) two {
            Y v[2];
        };
        *reinterpret_cast<two*>(to) = two{{static_cast<Y>(low), static_cast<Y>(high)}};
    }
}

/// Whole groups in adjacent rows without gaps, so a row of groups: Lanes threads have one, Packs times 8 numbers each, and a thread
/// has Several of them.
template <int Lanes, int Packs, int Several, class Scheme, class X>
__global__ void __launch_bounds__(256, 4) whole_group_kernel(X const* x, index_t groups, quantize_output<Scheme> const out) {
    constexpr int bits = Scheme::format::bits;
    constexpr int per_block = 256 / Lanes;
    auto const lane = static_cast<int>(threadIdx.x) % Lanes;
    index_t const first = static_cast<index_t>(blockIdx.x) * (per_block * Several) + static_cast<int>(threadIdx.x) / Lanes;
    X const* const mine = x + (first * Packs * Lanes + lane) * 8;
    raw_eight<X> raw[Several][Packs];
#pragma unroll
    for (int s = 0; s < Several; ++s)
#pragma unroll
        for (int c = 0; c < Packs; ++c) raw[s][c] = load_raw(mine + (s * per_block * Packs + c) * Lanes * 8, first + s * per_block < groups);
#pragma unroll
    for (int s = 0; s < Several; ++s) {
        index_t const group = first + s * per_block;
        std::uint32_t a = largest_magnitude(raw[s]);
#pragma unroll
        for (int d = Lanes / 2; d > 0; d /= 2) a = max(a, __shfl_xor_sync(~0u, a, d));
        scale_of_codes<Scheme> const scale{magnitude_from(a)};
        eight_codes codes[Packs];
        if (scale.is_plain) {
#pragma unroll
            for (int c = 0; c < Packs; ++c) {
                float v[8];
                unpack(raw[s][c], v);
                codes[c] = plain_codes(scale, v);
            }
        } else {
#pragma unroll
            for (int c = 0; c < Packs; ++c) { // read again, so that nothing is kept for it
                float v[8];
                unpack(load_raw(mine + (s * per_block * Packs + c) * Lanes * 8, group < groups), v);
                codes[c] = strange_codes(scale, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
            }
        }
        std::uint8_t* const to = out.codes + group * (Packs * Lanes * bits);
        if constexpr (bits == 4 && Lanes == 4 && Packs == 4) {
            std::uint32_t word[4] = {codes[0].low, codes[1].low, codes[2].low, codes[3].low};
            turn_quad(word);
            if (group < groups) reinterpret_cast<::uint4*>(to)[lane] = make_uint4(word[0], word[1], word[2], word[3]);
        } else {
#pragma unroll
            for (int c = 0; c < Packs; ++c)
                if (group < groups) store_codes<bits>(to + (c * Lanes + lane) * bits, codes[c], 8, true);
        }
        if (lane == 0 && group < groups) out.scales[group] = scale.code;
    }
}

/// The steps of 5 bits of the index, of 32 numbers.
template <int First, int Last>
__device__ __forceinline__ void butterflies(float (&v)[32]) {
#pragma unroll
    for (int b = First; b < Last; ++b)
#pragma unroll
        for (int i = 0; i < 32; ++i)
            if ((i >> b & 1) == 0) {
                float const other = v[i + (1 << b)];
                v[i + (1 << b)] = v[i] - other;
                v[i] += other;
            }
}
/// 4096 numbers of 128 threads times their Hadamard matrix. Number 8 c + i of thread t is 1024 c + 8 t + i of the row before, and number
/// 2 q + i is 256 q + 2 t + i after it. A thread has bits 0 to 2 of the index, then 3 to 7 (the warp the same numbers), then 8 to 11.
/// Bits 2, 3 and 4 of places in shared memory are xored with bits 5, 10 and 11, so that no bank is met twice. Nobody may read memory
/// any more; one barrier.
__device__ __forceinline__ void rotate_4096(float (&v)[32], float* memory) {
    int const thread = static_cast<int>(threadIdx.x);
    int const lane = thread % 32;
    butterflies<0, 3>(v);
    int const own = 8 * thread ^ (thread & 4);
#pragma unroll
    for (int p = 0; p < 8; ++p) // p = 2 c + half
        *reinterpret_cast<::float4*>(memory + (own ^ (p % 2 * 4) ^ (p / 2 * 8)) + p / 2 * 1024) =
            make_float4(v[4 * p], v[4 * p + 1], v[4 * p + 2], v[4 * p + 3]);
    __syncwarp();
    int const column = (lane % 8 | thread / 32 << 8 | lane / 8 << 10) ^ lane / 8 << 3;
#pragma unroll
    for (int i = 0; i < 32; ++i) v[i] = memory[(column ^ (i % 4 * 8) ^ (i / 4 % 2 * 4)) + i / 4 * 32];
    butterflies<0, 5>(v);
#pragma unroll
    for (int i = 0; i < 32; ++i) memory[(column ^ (i % 4 * 8) ^ (i / 4 % 2 * 4)) + i / 4 * 32] = v[i];
    __syncthreads();
    int const pair = 2 * thread ^ (thread / 16 % 2 * 4);
#pragma unroll
    for (int q = 0; q < 16; ++q) {
        auto const two = *reinterpret_cast<::float2 const*>(memory + (pair ^ (q / 4 * 8)) + q * 256);
        v[2 * q] = two.x;
        v[2 * q + 1] = two.y;
    }
    butterflies<1, 5>(v);
}

/// Of a row of 8 (t + c blockDim) of thread t: groups of up to 256, within warps.
template <int Chunks>
__device__ __forceinline__ void rotate_in_warps(float (&v)[Chunks * 8], int order) {
#pragma unroll
    for (int d = 1; d < 8; d *= 2)
        if (d < order)
#pragma unroll
            for (int i = 0; i < Chunks * 8; ++i)
                if ((i & d) == 0) {
                    float const other = v[i + d];
                    v[i + d] = v[i] - other;
                    v[i] += other;
                }
#pragma unroll
    for (int d = 1; d < 32; d *= 2)
        if (8 * d < order) {
            float const sign = (threadIdx.x & static_cast<unsigned>(d)) == 0 ? 1.0f : -1.0f;
#pragma unroll
            for (int i = 0; i < Chunks * 8; ++i) v[i] = fmaf(v[i], sign, __shfl_xor_sync(~0u, v[i], d));
        }
}

/// The same where four lanes have 128 adjacent numbers, chunk c of 8 of thread t at 128 (t / 4) + 8 (t % 4) + 32 c: of the bits of the
/// index two are lanes, or three.
__device__ __forceinline__ void rotate_in_quads(float (&v)[32], int order) {
    auto const own = [&](int bits, int order) {
#pragma unroll
        for (int d = 1; d < 32; d *= 2)
            if ((bits & d) != 0 && (d < 8 ? d : 4 * d) < order)
#pragma unroll
                for (int i = 0; i < 32; ++i)
                    if ((i & d) == 0) {
                        float const other = v[i + d];
                        v[i + d] = v[i] - other;
                        v[i] += other;
                    }
    };
    auto const others = [&](unsigned d) {
        float const sign = (threadIdx.x & d) == 0 ? 1.0f : -1.0f;
#pragma unroll
        for (int i = 0; i < 32; ++i) v[i] = fmaf(v[i], sign, __shfl_xor_sync(~0u, v[i], d));
    };
    auto const all = [&](int order) {
        own(7, order);
        if (order > 8) others(1);
        if (order > 16) others(2);
        own(24, order);
    };
    if (order >= 128) // without asking at every step
        all(128);
    else
        all(order);
    if (order > 128) others(4);
}

enum class row_rotation { none, in_warps, in_quads, of_4096 };

/// The norm's sum of squares: sum k of thread t is that of thread t + k blockDim of norm_kernel, and warps are added up as its are.
template <int Sums>
__device__ __forceinline__ float sum_as_norm(float (&sums)[Sums], float* slots) {
    auto const lane = static_cast<int>(threadIdx.x) % 32;
    auto const warps = static_cast<int>(blockDim.x) / 32;
#pragma unroll
    for (int k = 0; k < Sums; ++k) {
#pragma unroll
        for (int d = 16; d > 0; d /= 2) sums[k] += __shfl_xor_sync(~0u, sums[k], d);
        if (lane == 0) slots[k * warps + static_cast<int>(threadIdx.x) / 32] = sums[k];
    }
    __syncthreads();
    float sum = lane % 16 < Sums * warps ? slots[lane % 16] : 0.0f;
#pragma unroll
    for (int d = 8; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    return sum;
}
/// The same of rows whose chunks lie as `rotate_in_quads` says. norm_kernel's threads go on from the first half of a row to the second:
/// so do the halves of this block.
__device__ __forceinline__ float sum_as_norm_in_quads(float const (&v)[32], ::float4* halves, float* slots) {
    auto const half = static_cast<int>(blockDim.x) / 2;
    auto const thread = static_cast<int>(threadIdx.x) % half;
    bool const is_second = static_cast<int>(threadIdx.x) >= half;
    float sums[4] = {};
    auto const add = [&] {
#pragma unroll
        for (int i = 0; i < 32; ++i) sums[i / 8] = fmaf(v[i], v[i], sums[i / 8]);
    };
    if (!is_second) {
        add();
        halves[thread] = make_float4(sums[0], sums[1], sums[2], sums[3]);
    }
    __syncthreads();
    if (is_second) {
        ::float4 const first = halves[thread];
        sums[0] = first.x, sums[1] = first.y, sums[2] = first.z, sums[3] = first.w;
        add();
    }
    // Lane l of norm_kernel's warp is lane 4 (l / 16) + l % 4 here, sum l / 4 % 4.
#pragma unroll
    for (int c = 0; c < 4; ++c) sums[c] += __shfl_xor_sync(~0u, sums[c], 4);
    float sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
    sum += __shfl_xor_sync(~0u, sum, 2);
    sum += __shfl_xor_sync(~0u, sum, 1);
    if (is_second && thread % 8 == 0) slots[thread / 8] = sum;
    __syncthreads();
    auto const lane = static_cast<int>(threadIdx.x) % 32;
    sum = lane % 16 < static_cast<int>(blockDim.x) / 16 ? slots[lane % 16] : 0.0f;
#pragma unroll
    for (int d = 8; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    return sum;
}
/// The larger magnitude of two numbers, NaN where one is.
__device__ __forceinline__ float magnitude_or_nan(float a, float b) {
    float m;
    asm("{ .reg .f32 x, y; abs.f32 x, %1; abs.f32 y, %2; max.NaN.f32 %0, x, y; }" : "=f"(m) : "f"(a), "f"(b));
    return m;
}
/// The largest of bits of magnitudes.
__device__ __forceinline__ std::uint32_t block_maximum(std::uint32_t a, std::uint32_t* slots) {
    auto const lane = threadIdx.x % 32;
    a = __reduce_max_sync(~0u, a);
    if (lane == 0) slots[threadIdx.x / 32] = a;
    __syncthreads();
    return __reduce_max_sync(~0u, lane < blockDim.x / 32 ? slots[lane] : 0);
}

/// Codes of pairs of numbers that lie 256 apart, of thread t from number 2 t on.
template <int Bits>
__device__ __forceinline__ void store_pairs(std::uint8_t* to, eight_codes const& codes) {
    static_assert(Bits == 4 || Bits == 8);
#pragma unroll
    for (int q = 0; q < 4; ++q) {
        if constexpr (Bits == 8)
            reinterpret_cast<std::uint16_t*>(to + 256 * q)[threadIdx.x] = static_cast<std::uint16_t>((q < 2 ? codes.low : codes.high) >> (q % 2 * 16));
        else
            to[128 * q + threadIdx.x] = static_cast<std::uint8_t>(codes.low >> (8 * q));
    }
}

/// Where chunk c of this thread begins.
template <row_rotation Rotation = row_rotation::none>
__device__ __forceinline__ int chunk_column(int c) {
    auto const thread = static_cast<int>(threadIdx.x);
    if constexpr (Rotation == row_rotation::in_quads) return thread / 4 * 128 + thread % 4 * 8 + 32 * c;
    return (thread + c * static_cast<int>(blockDim.x)) * 8;
}
template <row_rotation Rotation = row_rotation::none, int Chunks, class X>
__device__ __forceinline__ void load_row(X const* row, int n, raw_eight<X> (&raw)[Chunks]) {
#pragma unroll
    for (int c = 0; c < Chunks; ++c) raw[c] = load_raw(row + chunk_column<Rotation>(c), chunk_column<Rotation>(c) < n);
}

template <class Change, class X>
struct weight_type_of {
    using type = X;
};
template <class W, class X>
struct weight_type_of<rms_change<W>, X> {
    using type = W;
};
template <class Change, class X>
using weight_of = typename weight_type_of<Change, X>::type;

/// The sum of a block's squares, as norm_kernel adds them. memory: of norm_kernel's parts, where a quad has 128 numbers in a row.
template <int Sums, row_rotation Rotation, int Size>
__device__ __forceinline__ float sum_of_row(float (&v)[Size], float* memory, float* slots) {
    if constexpr (Rotation == row_rotation::in_quads) {
        return sum_as_norm_in_quads(v, reinterpret_cast<::float4*>(memory), slots);
    } else {
        float squares[Sums] = {};
#pragma unroll
        for (int i = 0; i < Size; ++i) squares[i / 8 % Sums] = fmaf(v[i], v[i], squares[i / 8 % Sums]);
        return sum_as_norm(squares, slots);
    }
}

/// What rotated numbers are still to be multiplied by: exactly, so it may come after their largest.
template <row_rotation Rotation>
inline constexpr float late_factor = Rotation == row_rotation::of_4096 ? 0x1p-6f : 1.0f;

/// The block's row v rotated in groups of `group` numbers, times factor (1 / sqrt(group)) unless that is to come late.
template <row_rotation Rotation, int Size>
__device__ __forceinline__ void rotate_row(float (&v)[Size], float* memory, int group, float factor) {
    if constexpr (Rotation == row_rotation::of_4096) {
        rotate_4096(v, memory); // two barriers ago everybody had read it
    } else if constexpr (Rotation == row_rotation::in_quads) {
        rotate_in_quads(v, group);
    } else {
        rotate_in_warps<Size / 8>(v, group);
    }
    if constexpr (late_factor<Rotation> == 1.0f) {
#pragma unroll
        for (int i = 0; i < Size; ++i) v[i] *= factor;
    }
}

/// Bits of this thread's largest magnitude, of NaN where one is.
template <int Size>
__device__ __forceinline__ std::uint32_t largest_changed(float const (&v)[Size]) {
    float largest[2] = {};
#pragma unroll
    for (int i = 0; i < Size; ++i) largest[i % 2] = magnitude_or_nan(largest[i % 2], v[i]);
    return __float_as_uint(magnitude_or_nan(largest[0], largest[1]));
}

/// The scale whose codes are of numbers that are still to be multiplied.
template <row_rotation Rotation, class Scheme>
__device__ __forceinline__ scale_of_codes<Scheme> times_factor(scale_of_codes<Scheme> scale) {
    scale.inverse *= late_factor<Rotation>;
    if constexpr (!scale_of_codes<Scheme>::is_power) scale.rest *= late_factor<Rotation>;
    return scale;
}

/// The codes of this thread's numbers of a row of n.
template <row_rotation Rotation, class Scheme, int Size>
__device__ __forceinline__ void store_row(std::uint8_t* to, int n, scale_of_codes<Scheme> const& scale, float (&v)[Size]) {
    constexpr int bits = Scheme::format::bits;
    auto const store = [&](auto const& make) {
#pragma unroll
        for (int c = 0; c < Size / 8; ++c) {
            eight_codes const codes = make(reinterpret_cast<float(&)[8]>(v[8 * c]));
            if constexpr (Rotation == row_rotation::of_4096) {
                store_pairs<bits>(to + c * (128 * bits), codes);
            } else {
                int const k = chunk_column<Rotation>(c);
                if (k < n) store_codes<bits>(to + k / 8 * bits, codes, 8, true);
            }
        }
    };
    if constexpr (Rotation == row_rotation::none)
        store([&](float const (&of)[8]) { return codes_of(scale, of); });
    else if (scale.is_plain)
        store([&](float const (&of)[8]) { return plain_codes(times_factor<Rotation>(scale), of); });
    else
        store([&](float const (&of)[8]) {
            constexpr float f = late_factor<Rotation>;
            return strange_codes(scale, f * of[0], f * of[1], f * of[2], f * of[3], f * of[4], f * of[5], f * of[6], f * of[7]);
        });
}

/// Rows of at most 8192 numbers, 8 Chunks a thread. Sums: 2 where norm_kernel has twice the threads.
template <int Chunks, int Sums, int Threads, int Blocks, row_rotation Rotation, class Scheme, class X, class Change>
__global__ void __launch_bounds__(Threads, Blocks)
    wide_row_kernel(__grid_constant__ matrix_view<X const> const x, Change const change, quantize_output<Scheme> const out) {
    constexpr bool is_changed = !std::is_same_v<Change, no_change>;
    constexpr bool is_rotated = Rotation != row_rotation::none;
    __shared__ float sum_slots[16];
    __shared__ std::uint32_t maximum_slots[2][16];
    __shared__ alignas(16) float memory[Rotation == row_rotation::of_4096 ? 4096 : Rotation == row_rotation::in_quads ? 2 * Threads : 1];
    auto const n = static_cast<int>(x.extent(1));
    auto const rows = static_cast<unsigned>(x.extent(0));
    raw_eight<X> raw[Chunks];
    X const* from = x.data_handle() + blockIdx.x * x.stride(0);
    index_t const step = gridDim.x * x.stride(0);
    load_row<Rotation>(from, n, raw);
    auto const load_weight = [&](auto& to) {
        if constexpr (is_changed) load_row<Rotation>(change.weight, n, to);
    };
    using weight_type = weight_of<Change, X>;
    constexpr bool keeps_weight = is_changed && is_rotated && sizeof(weight_type) == 2; // its words are few
    raw_eight<weight_type> weight[Chunks];
    if constexpr (keeps_weight) load_weight(weight);
    float factor = 1.0f;
    if constexpr (is_rotated) factor = __fdiv_rn(1.0f, __fsqrt_rn(static_cast<float>(change.hadamard)));
    unsigned parity = 0;
#pragma unroll 1
    for (unsigned row = blockIdx.x; row < rows; row += gridDim.x, parity ^= 1) {
        float v[Chunks * 8];
        std::uint32_t a = 0;
        if constexpr (!is_changed) a = largest_magnitude(raw);
#pragma unroll
        for (int c = 0; c < Chunks; ++c) unpack(raw[c], reinterpret_cast<float(&)[8]>(v[8 * c]));
        from += step;
        if (row + gridDim.x < rows) load_row<Rotation>(from, n, raw);
        if constexpr (is_changed) {
            float const sum = sum_of_row<Sums, Rotation>(v, memory, sum_slots);
            float const r = __frsqrt_rn(sum / static_cast<float>(n) + change.epsilon);
            if constexpr (!keeps_weight) load_weight(weight);
#pragma unroll
            for (int c = 0; c < Chunks; ++c) {
                float w[8];
                unpack(weight[c], w);
#pragma unroll
                for (int i = 0; i < 8; ++i) v[8 * c + i] = __fmul_rn(w[i], r * v[8 * c + i]); // not a part of a butterfly's fma
            }
            if constexpr (is_rotated) rotate_row<Rotation>(v, memory, change.hadamard, factor);
            a = largest_changed(v);
        }
        if constexpr (late_factor<Rotation> != 1.0f) a = __float_as_uint(__uint_as_float(a) * late_factor<Rotation>);
        scale_of_codes<Scheme> const scale{magnitude_from(block_maximum(a, maximum_slots[parity]))};
        if (threadIdx.x == 0) out.scales[row] = scale.code;
        store_row<Rotation>(out.codes + static_cast<index_t>(row) * out.row_bytes, n, scale, v);
    }
}

/// Rows of groups of 4096, 128 threads each: blocks stay. 32 KiB of shared memory, used in turn.
template <class X, class Y>
__global__ void __launch_bounds__(128, 4)
    hadamard_4096_kernel(__grid_constant__ matrix_view<X const> const x, unsigned groups, unsigned count, __grid_constant__ matrix_view<Y> const y) {
    __shared__ alignas(16) float memory[2][4096];
    raw_eight<X> raw[4];
    auto const start = [&](auto const& of, unsigned i) { return of.data_handle() + i / groups * of.stride(0) + i % groups * 4096; };
    load_row(start(x, blockIdx.x), 4096, raw);
    unsigned parity = 0;
#pragma unroll 1
    for (unsigned i = blockIdx.x; i < count; i += gridDim.x, parity ^= 1) {
        float v[32];
#pragma unroll
        for (int c = 0; c < 4; ++c) unpack(raw[c], reinterpret_cast<float(&)[8]>(v[8 * c]));
        if (i + gridDim.x < count) load_row(start(x, i + gridDim.x), 4096, raw);
        rotate_4096(v, memory[parity]);
        Y* const to = start(y, i) + 2 * threadIdx.x;
#pragma unroll
        for (int q = 0; q < 16; ++q) store_two(to + 256 * q, v[2 * q], v[2 * q + 1]);
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
