// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Quantising on CUDA devices: 8 numbers a thread, and groups of threads that share a scale (a part of a warp), or a block of threads
/// a row (a scale a row, after a norm or a rotation or nothing). Symmetric schemes with scales of one level: the bits of
/// quant/quantize.hpp with its default options.

#include "../../storage/quantized.hpp"
#include "../hadamard.hpp"
#include "rows.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// The largest magnitude that a format has with both signs.
template <class Format>
TESSERA_HOST_DEVICE constexpr float device_symmetric_limit() {
    if constexpr (requires { Format::symmetric_magnitude; })
        return Format::symmetric_magnitude;
    else if constexpr (Format::is_integer)
        return static_cast<float>(Format::max_value);
    else
        return Format::max_magnitude;
}

/// Code of a number, to nearest even, saturating.
template <class Format>
__device__ __forceinline__ std::uint32_t code_of(float v) {
    if constexpr (Format::is_integer) {
        float const limit = static_cast<float>(Format::max_value);
        int const i = __float2int_rn(fminf(fmaxf(v, -limit), limit)); // NaN: the lower limit, but a scale of NaN has no such codes
        return static_cast<std::uint32_t>(i) & ((1u << Format::bits) - 1u);
    } else {
        return Format::encode(v, rounding::nearest_even, overflow::saturate);
    }
}
/// Codes of two numbers: e4m3fn has an instruction.
template <class Format>
__device__ __forceinline__ std::uint32_t two_codes(float low, float high) {
    if constexpr (std::is_same_v<Format, e4m3fn>) {
        std::uint16_t word;
        asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(word) : "f"(high), "f"(low));
        return word;
    } else {
        return code_of<Format>(low) | code_of<Format>(high) << Format::bits;
    }
}

/// The scale that a block with the largest magnitude a has in a scheme, as stored and as a number; a is NaN where a weight is no number.
template <class Scheme>
struct scale_of_codes {
    using format = typename Scheme::format;
    using stored = typename quantized<Scheme>::scale_type;
    static constexpr bool is_power = std::is_same_v<stored, e8m0>;
    stored code;
    float value;
    float inverse;     ///< 1 / value, towards 0
    float rest = 0.0f; ///< 1 / value - inverse
    bool is_plain; ///< `plain_position` serves: the value is far from the ends of float32, and no quotient rounds beyond the largest integer
    bool is_near = false; ///< it would, were the value not near ties

    __device__ explicit scale_of_codes(float a) {
        constexpr float steps = device_symmetric_limit<format>();
        if constexpr (is_power) { // 2^(floor(log2 a) - floor(log2 steps))
            std::uint32_t exponent = 255;
            if (a == a) {
                int const least = static_cast<int>(__float_as_uint(a) >> 23) - (static_cast<int>(__float_as_uint(steps) >> 23) - 127);
                exponent = a == 0.0f || least < 0 ? 0u : static_cast<std::uint32_t>(least);
            }
            code = e8m0::from_bits(static_cast<std::uint8_t>(exponent));
        } else if constexpr (std::is_same_v<stored, float>) {
            code = __fdiv_rn(a, steps);
        } else {
            float const wanted = __fdiv_rn(a, steps);
            if constexpr (std::is_same_v<stored, fp16>) {
                std::uint16_t word;
                asm("cvt.rn.f16.f32 %0, %1;" : "=h"(word) : "f"(wanted));
                code = fp16::from_bits(word);
            } else {
                code = stored{wanted};
            }
            if (!(static_cast<float>(code) <= stored::max_magnitude) && wanted == wanted) code = stored{stored::max_magnitude};
        }
        if constexpr (std::is_same_v<stored, fp16>)
            asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code.to_bits()));
        else
            value = static_cast<float>(code);
        if constexpr (is_power)
            inverse = __uint_as_float((254u - code.to_bits()) << 23); // of a plain scale
        else
            inverse = __frcp_rz(value);
        is_plain = value >= 0x1p-60f && value <= 0x1p60f && (!format::is_integer || a <= value * (steps + 0.4f));
        if constexpr (!is_power) {
            rest = fmaf(-inverse, value, 1.0f) * inverse;
            if constexpr (std::is_same_v<stored, float>) {
                is_near = is_plain && is_near_ties(__float_as_uint(value));
                is_plain = is_plain && !is_near;
            }
        }
    }
    /// What is encoded for w, of a plain scale: a number with the code of the quotient to nearest, +0 of zeros. The sum below is off by 2^-45
    /// of it before it is rounded, so it is that quotient, but where w / value lies as close to the middle of two float32. Only middles next
    /// to ties of codes matter, (2 i + 1) 2^17 +- 1 of some unit (codes have 8 bits), with i whole: so close there, 16 units of w's 24 digits
    /// times 2^24 or more, are only values whose digits are as close to a multiple of 2^17 (`is_near_ties`).
    __device__ __forceinline__ float plain_position(float w) const {
        if constexpr (is_power) return fmaf(w, inverse, 0.0f);
        return fmaf(w, inverse, fmaf(w, rest, 0.0f));
    }
    /// The quotient to nearest (Markstein) where `is_near_ties`; nearest is 1 / value. Where it is subnormal its code is 0 all the same.
    __device__ __forceinline__ float quotient(float w, float nearest) const {
        float const q = w * nearest;
        return fmaf(fmaf(-q, value, w), nearest, q);
    }
    /// Digits less than 32 from a multiple of 2^17, and no multiples of 64: scales of 16 bits have no such.
    static constexpr __device__ bool is_near_ties(std::uint32_t bits) { return ((bits + 32) & 0x1ffff) < 64 && bits % 64 != 0; }
    /// The same of any scale.
    __device__ float position(float w) const {
        if (!(value > 0.0f)) return 0.0f;
        float const v = __fdiv_rn(w, value);
        if constexpr (format::is_integer) {
            if (value > 3.4028234663852886e38f / 512.0f) { // codes of finite weights stand for finite numbers
                auto const reach = static_cast<float>(floor(3.4028234663852886e38 / static_cast<double>(value)));
                return fminf(fmaxf(v, -reach), reach);
            }
        }
        return v;
    }
};

/// The largest magnitude of 8 numbers, of which the bits are in order, up to NaN; infinity counts as that.
__device__ __forceinline__ std::uint32_t magnitude_bits(float const (&v)[8], std::uint32_t so_far) {
#pragma unroll
    for (int i = 0; i < 8; ++i) so_far = max(so_far, __float_as_uint(v[i]) & 0x7fffffffu);
    return so_far;
}
__device__ __forceinline__ float magnitude_from(std::uint32_t bits) { return bits >= 0x7f800000u ? NAN : __uint_as_float(bits); }
struct greater_magnitude {
    __device__ float operator()(float a, float b) const { return a >= b || a != a ? a : b; } // NaN wins
};

/// Bits of 8 codes, from the first.
struct eight_codes {
    std::uint32_t low;
    std::uint32_t high;

    __device__ std::uint64_t all() const { return low | std::uint64_t{high} << 32; }
};
/// Of what is encoded, which no format saturates beyond its integers.
template <class Format>
__device__ __forceinline__ eight_codes codes_at(float const (&at)[8]) {
    constexpr int bits = Format::bits;
    if constexpr (Format::is_integer && (bits == 4 || bits == 8)) {
        std::uint32_t code[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) code[i] = __float_as_uint(at[i] + 12582912.0f); // 1.5 * 2^23: the integer is at the end
        eight_codes result{0, 0};
        if constexpr (bits == 8) {
            result.low = __byte_perm(__byte_perm(code[0], code[1], 0x0040), __byte_perm(code[2], code[3], 0x0040), 0x5410);
            result.high = __byte_perm(__byte_perm(code[4], code[5], 0x0040), __byte_perm(code[6], code[7], 0x0040), 0x5410);
        } else {
#pragma unroll
            for (int i = 7; i >= 0; --i) result.low = (result.low << 4) + code[i];
            result.low = (result.low - 0xb6b77778u) ^ 0x88888888u; // less what 1.5 * 2^23 adds up to, from -8 on, and back
        }
        return result;
    } else {
        std::uint64_t word = 0;
#pragma unroll
        for (int i = 0; i < 8; i += 2) word |= static_cast<std::uint64_t>(two_codes<Format>(at[i], at[i + 1])) << (i * bits);
        return {static_cast<std::uint32_t>(word), static_cast<std::uint32_t>(word >> 32)};
    }
}
/// Of a plain scale.
template <class Scheme>
__device__ __forceinline__ eight_codes plain_codes(scale_of_codes<Scheme> const& scale, float const (&v)[8]) {
    float at[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) at[i] = scale.plain_position(v[i]);
    return codes_at<typename Scheme::format>(at);
}
template <class Scheme>
__device__ __noinline__ eight_codes strange_codes(scale_of_codes<Scheme> const scale, float a, float b, float c, float d, float e, float f, float g,
                                                  float h) {
    using format = typename Scheme::format;
    float const v[8] = {a, b, c, d, e, f, g, h};
    if (scale.is_near) {
        float const nearest = __frcp_rn(scale.value);
        float at[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) at[i] = scale.quotient(v[i], nearest);
        return codes_at<format>(at);
    }
    std::uint64_t word = 0;
#pragma unroll
    for (int i = 0; i < 8; ++i) word |= std::uint64_t{code_of<format>(scale.position(v[i]))} << (i * format::bits);
    return {static_cast<std::uint32_t>(word), static_cast<std::uint32_t>(word >> 32)};
}
template <class Scheme>
__device__ __forceinline__ eight_codes codes_of(scale_of_codes<Scheme> const& scale, float const (&v)[8]) {
    return scale.is_plain ? plain_codes(scale, v) : strange_codes(scale, v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]);
}
/// Stores them: all 8, or the bytes of the first `count`.
template <int Bits>
__device__ __forceinline__ void store_codes(std::uint8_t* to, eight_codes const& codes, int count, bool is_aligned) {
    if (count == 8 && is_aligned) {
        if constexpr (Bits == 8) {
            *reinterpret_cast<::uint2*>(to) = make_uint2(codes.low, codes.high);
            return;
        } else if constexpr (Bits == 4) {
            *reinterpret_cast<std::uint32_t*>(to) = codes.low;
            return;
        }
    }
    int const bytes = (count * Bits + 7) / 8;
    std::uint64_t word = codes.all();
    if (count < 8) word &= (std::uint64_t{1} << (count * Bits)) - 1;
#pragma unroll 1
    for (int i = 0; i < bytes; ++i) to[i] = static_cast<std::uint8_t>(word >> (8 * i));
}

/// 8 numbers of a row from column k on, zeros beyond it.
template <bool IsWide, class X>
__device__ __forceinline__ void load_eight(X const* row, index_t k, index_t n, float (&v)[8]) {
    if constexpr (IsWide) {
        if (k < n) {
            load_pack<8>(row + k, v);
        } else {
#pragma unroll
            for (int i = 0; i < 8; ++i) v[i] = 0.0f;
        }
    } else {
#pragma unroll
        for (int i = 0; i < 8; ++i) v[i] = k + i < n ? static_cast<float>(row[k + i]) : 0.0f;
    }
}

/// What a quantising kernel writes.
template <class Scheme>
struct quantize_output {
    std::uint8_t* codes;
    typename quantized<Scheme>::scale_type* scales;
    int row_bytes;
    int scale_columns;
    bool is_aligned; ///< 8 codes may be stored at once
};

/// Lanes threads share a scale: groups of 8 Lanes columns. `row_blocks` blocks make a row.
template <int Lanes, bool IsWide, class Scheme, class X>
__global__ void __launch_bounds__(256)
    quantize_group_kernel(__grid_constant__ matrix_view<X const> const x, int row_blocks, quantize_output<Scheme> const out) {
    constexpr int several = 2;
    constexpr int bits = Scheme::format::bits;
    auto const n = static_cast<int>(x.extent(1));
    unsigned const row = blockIdx.x / static_cast<unsigned>(row_blocks);
    auto const first = static_cast<int>((blockIdx.x % static_cast<unsigned>(row_blocks) * several * blockDim.x + threadIdx.x) * 8);
    auto const step = static_cast<int>(blockDim.x) * 8;
    X const* const from = x.data_handle() + row * x.stride(0);
    std::uint8_t* const to = out.codes + static_cast<index_t>(row) * out.row_bytes;
    auto* const scales = out.scales + static_cast<index_t>(row) * out.scale_columns;
    float v[several][8];
#pragma unroll
    for (int s = 0; s < several; ++s) load_eight<IsWide>(from, first + s * step, n, v[s]);
#pragma unroll
    for (int s = 0; s < several; ++s) {
        int const column = first + s * step;
        std::uint32_t a = magnitude_bits(v[s], 0);
#pragma unroll
        for (int d = Lanes / 2; d > 0; d /= 2) a = max(a, __shfl_xor_sync(~0u, a, d));
        scale_of_codes<Scheme> const scale{magnitude_from(a)};
        if (column >= n) continue;
        if (threadIdx.x % Lanes == 0) scales[column / (8 * Lanes)] = scale.code;
        store_codes<bits>(to + column / 8 * bits, codes_of(scale, v[s]), min(8, n - column), out.is_aligned);
    }
}

/// What happens to a row before it is quantised.
struct no_change {};
template <class W>
struct rms_change {
    W const* weight;
    float epsilon;
    int hadamard; ///< order of the rotation after it, a power of two; 1: none
};

/// A block's row in registers, 8 numbers of thread t at 8 (t + c blockDim), times the Hadamard matrix in groups of `order`, a power of
/// two. `shared` has room for the row where the order is above 256.
template <int Chunks>
__device__ __forceinline__ void rotate_row(float (&v)[Chunks][8], int order, float* shared) {
    int const n = static_cast<int>(blockDim.x) * Chunks * 8;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) {
#pragma unroll
        for (int d = 1; d < 8; d *= 2)
            if (d < order)
#pragma unroll
                for (int i = 0; i < 8; ++i)
                    if ((i & d) == 0) {
                        float const a = v[c][i];
                        float const b = v[c][i + d];
                        v[c][i] = a + b;
                        v[c][i + d] = a - b;
                    }
#pragma unroll
        for (int d = 8; d < 256; d *= 2)
            if (d < order)
#pragma unroll
                for (int i = 0; i < 8; ++i) {
                    float const other = __shfl_xor_sync(~0u, v[c][i], d / 8);
                    v[c][i] = (threadIdx.x * 8 & d) == 0 ? v[c][i] + other : other - v[c][i];
                }
    }
    for (int d = 256; d < order; d *= 2) { // between warps
        __syncthreads();
#pragma unroll
        for (int c = 0; c < Chunks; ++c)
#pragma unroll
            for (int i = 0; i < 8; ++i) shared[i * (n / 8) + static_cast<int>(threadIdx.x) + c * static_cast<int>(blockDim.x)] = v[c][i];
        __syncthreads();
#pragma unroll
        for (int c = 0; c < Chunks; ++c) {
            int const at = static_cast<int>(threadIdx.x) + c * static_cast<int>(blockDim.x);
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                float const other = shared[i * (n / 8) + (at ^ d / 8)];
                v[c][i] = (at * 8 & d) == 0 ? v[c][i] + other : other - v[c][i];
            }
        }
    }
}

/// A row a block, in registers: changed, then quantised with one scale.
template <int Chunks, bool IsWide, class Scheme, class X, class Change>
__global__ void __launch_bounds__(1024) quantize_row_kernel(__grid_constant__ matrix_view<X const> const x, Change const change, quantize_output<Scheme> const out) {
    extern __shared__ float row_memory[];
    constexpr int bits = Scheme::format::bits;
    auto const n = static_cast<int>(x.extent(1));
    index_t const row = blockIdx.x;
    X const* const from = x.data_handle() + row * x.stride(0);
    int const step = static_cast<int>(blockDim.x) * 8;
    int const mine = static_cast<int>(threadIdx.x) * 8;
    float v[Chunks][8];
#pragma unroll
    for (int c = 0; c < Chunks; ++c) load_eight<IsWide>(from, mine + c * step, n, v[c]);
    if constexpr (!std::is_same_v<Change, no_change>) {
        float squares = 0.0f;
#pragma unroll
        for (int c = 0; c < Chunks; ++c)
#pragma unroll
            for (int i = 0; i < 8; ++i) squares = fmaf(v[c][i], v[c][i], squares);
        squares = block_reduce(squares, 0.0f, row_sum{});
        float const r = __frsqrt_rn(squares / static_cast<float>(n) + change.epsilon);
#pragma unroll
        for (int c = 0; c < Chunks; ++c) {
            float w[8];
            load_eight<IsWide>(change.weight, mine + c * step, n, w);
#pragma unroll
            for (int i = 0; i < 8; ++i) v[c][i] = w[i] * (r * v[c][i]);
        }
        if (change.hadamard > 1) {
            rotate_row(v, change.hadamard, row_memory);
            float const factor = __fdiv_rn(1.0f, __fsqrt_rn(static_cast<float>(change.hadamard)));
#pragma unroll
            for (int c = 0; c < Chunks; ++c)
#pragma unroll
                for (int i = 0; i < 8; ++i) v[c][i] *= factor;
        }
    }
    std::uint32_t bits_so_far = 0;
#pragma unroll
    for (int c = 0; c < Chunks; ++c) bits_so_far = magnitude_bits(v[c], bits_so_far);
    scale_of_codes<Scheme> const scale{block_reduce(magnitude_from(bits_so_far), 0.0f, greater_magnitude{})};
    if (threadIdx.x == 0) out.scales[row] = scale.code;
#pragma unroll
    for (int c = 0; c < Chunks; ++c)
        if (mine + c * step < n)
            store_codes<bits>(out.codes + row * out.row_bytes + (mine + c * step) / 8 * bits, codes_of(scale, v[c]), min(8, n - mine - c * step),
                              out.is_aligned);
}

} // namespace tessera::inline TESSERA_ABI::detail
