// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Vector codes of columns (storage/device_codebooks.hpp) to fragments of bf16, in registers. A lane has
/// two neighbouring rows of a panel, so that even vectors have both: it reads the indices of its 4 adjacent positions at once, and the two numbers
/// of each centroid, and residual. Other rows of a vector belong to other lanes, which read the same indices and neighbouring numbers. All of it
/// comes through the first-level cache.

#include "../../storage/device_codebooks.hpp"
#include "decode.cuh"
#include "ptx/cp_async.cuh"

namespace tessera::inline TESSERA_ABI::detail {

template <int Pieces>
struct fragment_decoder<device_format<vector_codebooks>, Pieces> {
    using format = device_format<vector_codebooks>;
    using panels = prepacked<device_panel, vector_codebooks>;
    static constexpr int table_bytes = 0;
    static constexpr bool gathers = true;

    template <int WarpPanels>
    __device__ static fragment_decoder of(std::byte*, int) {
        return {};
    }
    __device__ static void fill(decode_table<format> const&, panels const&, std::byte*) {}
    template <int WarpPanels>
    __device__ __forceinline__ void begin_rows(panels const&, index_t) const {}

    /// Of this lane: where numbers of a row are in the first vectors of the codebooks, and the indices of its 16 positions of the block.
    struct row_place {
        unsigned short const* centroids;
        unsigned short const* residuals; ///< null: none
        std::byte const* index;
        std::byte const* residual;
    };
    struct origin_type {
        row_place rows; ///< of both its rows of the panel where vectors are even, of the first one otherwise
        std::uint32_t const* columns; ///< scale and bias of its positions; null: 1 and 0
        device_codebook_part const* part;
        panels const* w;
        int row;
        int block;
    };
    template <int P>
    __device__ static __forceinline__ origin_type origin(panels const& w, index_t row, int block) {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        if constexpr (P == 0) prefetch(w, row, block + 4);
        device_codebook_part const& part = w.part(block);
        int const n = static_cast<int>(row) + 16 * P + panels::row_of_lane(lane / 4, 0);
        return {place_of(w, part, n, block), w.has_scales() ? w.columns() + index_t{block} * 64 + 16 * (lane % 4) : nullptr, &part, &w, n, block};
    }

    template <int Step, int P, int Words>
    __device__ __forceinline__ void decode(std::uint32_t const (&)[Words], origin_type const& o, std::uint32_t (&a)[4]) const {
        device_codebook_part const& part = *o.part;
        float v[2][4]; // of two rows
        if (part.vector % 2 == 0) {
            read<2, Step>(o.rows, part, v[0], v[1]);
        } else {
            read<1, Step>(o.rows, part, v[0], v[0]);
            read<1, Step>(place_of(*o.w, part, o.row + 1, o.block), part, v[1], v[1]);
        }
        if (o.columns != nullptr) {
            ::uint4 const columns = __ldg(reinterpret_cast<::uint4 const*>(o.columns + 4 * Step));
            std::uint32_t const of_column[4] = {columns.x, columns.y, columns.z, columns.w};
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                float2 const scale_and_bias = __half22float2(*reinterpret_cast<__half2 const*>(&of_column[j]));
                v[0][j] = fmaf(scale_and_bias.x, v[0][j], scale_and_bias.y);
                v[1][j] = fmaf(scale_and_bias.x, v[1][j], scale_and_bias.y);
            }
        }
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            a[h] = pair_of_pieces<P, Pieces>(v[h][0], v[h][1]);
            a[h + 2] = pair_of_pieces<P, Pieces>(v[h][2], v[h][3]);
        }
    }

private:
    /// Asks for a later block's indices of 32 rows, each lane for those of a vector, in the second-level cache.
    __device__ static __forceinline__ void prefetch(panels const& w, index_t row, int block) {
        if (block >= w.blocks()) return;
        device_codebook_part const& part = w.part(block);
        index_t const i = part.vector_of(row) + static_cast<int>(threadIdx.x) % 32;
        if (i > part.vector_of(row + 31) || i >= part.vectors) return;
        index_t const code = part.code_of(block, i);
        ptx::prefetch(w.at<std::byte>(part.codes + code * part.index_bytes));
        if (part.residual_bytes > 0) ptx::prefetch(w.at<std::byte>(part.residual_codes + code * part.residual_bytes));
    }
    __device__ static __forceinline__ row_place place_of(panels const& w, device_codebook_part const& part, int n, int block) {
        auto const whole = part.vector_of(n);
        auto const in_vector = n - whole * part.vector;
        // Rows of W that are not there have sums that are nobody's.
        index_t const code = part.code_of(block, minimum(whole, part.vectors - 1)) + 16 * (static_cast<int>(threadIdx.x) % 4);
        auto const group = part.group_of(block);
        return {w.at<unsigned short>(part.centroids) + (group << part.index_bits) * part.vector + in_vector,
                part.residual_bytes == 0 ? nullptr : w.at<unsigned short>(part.residuals) + (group << part.residual_bits) * part.vector + in_vector,
                w.at<std::byte>(part.codes) + code * part.index_bytes, w.at<std::byte>(part.residual_codes) + code * part.residual_bytes};
    }
    /// Numbers of the 4 positions of a fragment, in one row or two neighbours.
    template <int Rows, int Step>
    __device__ static __forceinline__ void read(row_place const& at, device_codebook_part const& part, float (&v)[4], float (&next)[4]) {
        gather<Rows>(at.centroids, part.vector, indices<Step>(at.index, part.index_bytes), v, next);
        if (at.residuals == nullptr) return;
        float r[4], of_next[4];
        gather<Rows>(at.residuals, part.vector, indices<Step>(at.residual, part.residual_bytes), r, of_next);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            v[j] = __fadd_rn(v[j], r[j]);
            if constexpr (Rows == 2) next[j] = __fadd_rn(next[j], of_next[j]);
        }
    }
    /// Those of 4 positions: two words of halves.
    template <int Step>
    __device__ static __forceinline__ ::uint2 indices(std::byte const* of_lane, int size) {
        if (size == 2) return __ldg(reinterpret_cast<::uint2 const*>(of_lane) + Step);
        std::uint32_t const bytes = __ldg(reinterpret_cast<std::uint32_t const*>(of_lane) + Step);
        return make_uint2(__byte_perm(bytes, 0, 0x4140), __byte_perm(bytes, 0, 0x4342));
    }
    template <int Rows>
    __device__ static __forceinline__ void gather(unsigned short const* of_row, int vector, ::uint2 indices, float (&v)[4], float (&next)[4]) {
        auto const stride = static_cast<std::uint32_t>(vector);
        std::uint32_t const index[4] = {indices.x & 0xffffu, indices.x >> 16, indices.y & 0xffffu, indices.y >> 16};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            unsigned short const* const from = of_row + index[j] * stride;
            if constexpr (Rows == 2) {
                std::uint32_t const both = __ldg(reinterpret_cast<std::uint32_t const*>(from));
                float2 const pair = __half22float2(*reinterpret_cast<__half2 const*>(&both));
                v[j] = pair.x;
                next[j] = pair.y;
            } else {
                v[j] = __half2float(__ushort_as_half(__ldg(from)));
            }
        }
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
