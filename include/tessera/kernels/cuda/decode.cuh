// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of device panels to fragments of bf16, in registers. Integers by arithmetic: code | 0x4300 is the bf16 number 128 +
/// code, for codes of 7 bits and less, and the difference to 128 + zero is exact; bytes go through float32 in the same way.
/// Other codes are looked up in shared memory, which has a copy of the table for every bank where there is one piece. Values
/// that bf16 does not have are the sum of 2 or 3 pieces that it has.

#include "../../storage/device_panel.hpp"
#include "ptx/bits.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::inline TESSERA_ABI::detail {

/// A scale or a weight as it is stored.
template <class T>
__device__ __forceinline__ float stored_to_float(T v) {
    if constexpr (std::is_same_v<T, fp16>)
        return __half2float(__ushort_as_half(v.to_bits()));
    else
        return static_cast<float>(v);
}

/// A square of 4 x 4 words in 4 neighbouring lanes, turned: lane q then has word q of each.
__device__ __forceinline__ void turn_quad(std::uint32_t (&w)[4]) {
#pragma unroll
    for (int d = 1; d < 4; d *= 2) {
        bool const is_upper = (threadIdx.x & static_cast<unsigned>(d)) != 0;
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if ((i & d) == 0) {
                std::uint32_t const got = __shfl_xor_sync(~0u, is_upper ? w[i] : w[i + d], d);
                if (is_upper)
                    w[i] = got;
                else
                    w[i + d] = got;
            }
    }
}

/// Two floats that bf16 has, or their roundings, in one register.
__device__ __forceinline__ std::uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 const pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<std::uint32_t const*>(&pair);
}

/// Piece P of `Pieces` of a float: bf16 numbers whose sum is the float (1 piece: rounded to nearest).
template <int P, int Pieces>
__device__ __forceinline__ std::uint32_t piece_of(float v) {
    if constexpr (Pieces == 1) {
        return pack_bf16(v, 0.0f) & 0xffffu;
    } else {
        std::uint32_t bits = __float_as_uint(v);
        if ((bits & 0x7f800000u) == 0x7f800000u) return P == 0 ? bits >> 16 | (v != v ? 0x40u : 0u) : 0u;
#pragma unroll
        for (int i = 0; i < P; ++i) {
            v -= __uint_as_float(bits & 0xffff0000u);
            bits = __float_as_uint(v);
        }
        return bits >> 16;
    }
}
template <int Pieces>
__device__ __forceinline__ std::uint32_t piece_of(float v, int p) {
    if (Pieces == 1 || p == 0) return piece_of<0, Pieces>(v);
    return p == 1 ? piece_of<1, Pieces>(v) : piece_of<2, Pieces>(v);
}
/// Of two floats in one register.
template <int P, int Pieces>
__device__ __forceinline__ std::uint32_t pair_of_pieces(float low, float high) {
    if constexpr (Pieces == 1)
        return pack_bf16(low, high);
    else
        return piece_of<P, Pieces>(low) | piece_of<P, Pieces>(high) << 16;
}

/// Formats whose tables lie behind their codes (decode_table.cuh).
template <class Format>
concept stored_table_format = requires { Format::has_stored_tables; };

/// What a kernel gets of a format besides its memory.
template <class Format, bool IsLookedUp = !Format::is_integer && !Format::is_dense && !stored_table_format<Format>>
struct decode_table {};
template <class Format>
struct decode_table<Format, true> {
    float values[std::size_t{1} << Format::bits];
};

template <class Format>
decode_table<Format> make_decode_table() noexcept {
    decode_table<Format> t{};
    if constexpr (!Format::is_integer && !Format::is_dense && !stored_table_format<Format>) {
        constexpr auto values = Format::table();
        for (std::size_t c = 0; c < values.size(); ++c) t.values[c] = values[c];
    }
    return t;
}

/// What decoding needs of where a fragment is in W: nothing.
struct no_origin {};

/// Fragments of a lane's words of a block.
template <class Format, int Pieces>
struct fragment_decoder {
    static constexpr int width = Format::width;
    static constexpr bool is_looked_up = !Format::is_integer && !Format::is_dense;
    static constexpr int entries = !is_looked_up ? 1 : width <= 4 ? 1 << 2 * (width % 8) : 256;
    /// Copies of a table: lane l reads the copy l % copies.
    static constexpr int copies = Pieces == 1 ? 32 : 8;
    static constexpr int table_bytes = is_looked_up ? Pieces * entries * copies * 4 : 0;
    /// Whether it reads memory, and wants what shared memory leaves of the first-level cache.
    static constexpr bool gathers = false;

    std::uint32_t const* table = nullptr; // of this lane's copy

    /// With the tables of a block in shared memory at `tables`; of one of its warps, which decode so many panels of 16 rows at a time.
    template <int WarpPanels>
    __device__ static fragment_decoder of(std::byte* tables, int) {
        return {reinterpret_cast<std::uint32_t const*>(tables) + static_cast<int>(threadIdx.x) % copies};
    }
    /// A warp turns to the rows from `row` on.
    template <int WarpPanels, class Panels>
    __device__ __forceinline__ void begin_rows(Panels const&, index_t) const {}
    using origin_type = no_origin;
    /// Of panel P of the warp's rows, which begin at `row`, and a block of positions.
    template <int P, class Panels>
    __device__ __forceinline__ no_origin origin(Panels const&, index_t, int) const {
        return {};
    }

    /// Fills the tables, all threads of the block; to be followed by a barrier.
    template <class Panels>
    __device__ static void fill(decode_table<Format> const& from, Panels const&, std::byte* tables) {
        auto* const to = reinterpret_cast<std::uint32_t*>(tables);
        if constexpr (is_looked_up) {
            for (int i = static_cast<int>(threadIdx.x); i < Pieces * entries * copies; i += static_cast<int>(blockDim.x)) {
                int const entry = i / copies % entries;
                int const piece = i / copies / entries;
                constexpr int mask = (1 << Format::bits) - 1;
                int const low = width <= 4 ? entry & ((1 << width % 8) - 1) : entry;
                int const high = width <= 4 ? entry >> width % 8 : entry;
                to[i] = piece_of<Pieces>(from.values[low & mask], piece) | piece_of<Pieces>(from.values[high & mask], piece) << 16;
            }
        }
    }

    /// Piece P of fragment `Step` of the block.
    template <int Step, int P, int Words>
    __device__ __forceinline__ void decode(std::uint32_t const (&words)[Words], no_origin, std::uint32_t (&a)[4]) const {
        if constexpr (Format::is_dense)
            dense<Step, P>(words, a);
        else if constexpr (is_looked_up)
            look_up<Step, P>(words, a);
        else
            integer<Step>(words, a);
    }

private:
    template <int Step, int Words>
    __device__ __forceinline__ void integer(std::uint32_t const (&words)[Words], std::uint32_t (&a)[4]) const {
        if constexpr (width <= 4) {
            constexpr int steps = 4 / width;
            constexpr std::uint32_t mask = ((1u << width) - 1u) * 0x10001u;
            constexpr std::uint32_t shift_of_zero = (0x4300u + static_cast<std::uint32_t>(Format::zero)) * 0x10001u;
            std::uint32_t const word = words[Step / steps];
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                std::uint32_t const code = ptx::and_or(word >> (width * (r + 4 * (Step % steps))), mask, 0x43004300u);
                // code * 1 - (128 + zero): fma on every architecture, exact
                __nv_bfloat162 const v = __hfma2(as_pair(code), as_pair(0x3f803f80u), __hneg2(as_pair(shift_of_zero)));
                a[r] = *reinterpret_cast<std::uint32_t const*>(&v);
            }
        } else {
            constexpr float base = 8388608.0f + static_cast<float>(Format::zero);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                std::uint32_t const word = words[2 * Step + r / 2];
                float const low = __uint_as_float(__byte_perm(word, 0x4b000000u, r % 2 == 0 ? 0x7440 : 0x7442)) - base;
                float const high = __uint_as_float(__byte_perm(word, 0x4b000000u, r % 2 == 0 ? 0x7441 : 0x7443)) - base;
                a[r] = pack_bf16(low, high);
            }
        }
    }
    template <int Step, int P, int Words>
    __device__ __forceinline__ void look_up(std::uint32_t const (&words)[Words], std::uint32_t (&a)[4]) const {
        std::uint32_t const* const t = table + P * entries * copies;
        if constexpr (width <= 4) {
            constexpr int steps = 4 / width;
            std::uint32_t const word = words[Step / steps];
#pragma unroll
            for (int r = 0; r < 4; ++r) a[r] = t[(word >> (2 * width * (r + 4 * (Step % steps))) & (entries - 1u)) * copies];
        } else {
#pragma unroll
            for (int r = 0; r < 4; ++r) {
                std::uint32_t const word = words[2 * Step + r / 2] >> (r % 2 * 16);
                a[r] = __byte_perm(t[(word & 255u) * copies], t[(word >> 8 & 255u) * copies], 0x5410);
            }
        }
    }
    template <int Step, int P, int Words>
    __device__ __forceinline__ void dense(std::uint32_t const (&words)[Words], std::uint32_t (&a)[4]) const {
        using element = typename Format::element_type;
#pragma unroll
        for (int r = 0; r < 4; ++r) {
            if constexpr (std::is_same_v<element, bf16>) {
                a[r] = words[4 * Step + r];
            } else if constexpr (std::is_same_v<element, fp16>) {
                float2 const v = __half22float2(*reinterpret_cast<__half2 const*>(&words[4 * Step + r]));
                a[r] = piece_of<P, Pieces>(v.x) | piece_of<P, Pieces>(v.y) << 16;
            } else {
                a[r] = piece_of<P, Pieces>(__uint_as_float(words[8 * Step + 2 * r])) |
                       piece_of<P, Pieces>(__uint_as_float(words[8 * Step + 2 * r + 1])) << 16;
            }
        }
    }
    __device__ static __forceinline__ __nv_bfloat162 as_pair(std::uint32_t bits) {
        return *reinterpret_cast<__nv_bfloat162 const*>(&bits);
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
