// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys or values compressed as GEAR does (attention/gear.hpp): blocks of tokens, each with
///
///     x(t, d) = D(t, d) + sum over r of A(t, r) B(r, d)         for every head
///     D(t, d) = code(t, d) scale + low, or an outlier as it was
///
/// and behind the last block tokens in float32. Codes are bit-packed by rows (head, token). A scale and a low end belong to `group`
/// tokens of one dim (keys), or to `group` dims of one token (values).

#include "bitpack.hpp"
#include "kv_cache.hpp"

#include <cmath>
#include <cstdint>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Codes of Bits bits; what comes with them is kept as T, fp16 or float.
template <int Bits, class T = fp16>
struct gear_code {
    std::uint8_t byte;
};

/// Tokens that were compressed together, all heads.
template <class T>
struct gear_block {
    index_t first = 0;
    index_t tokens = 0;
    index_t rank = 0;
    index_t row_groups = 0;       ///< scales of a row of values; 0: `token_groups` have one for every dim
    index_t token_groups = 0;
    index_t group = 1;            ///< tokens or dims that share a scale
    buffer<std::uint8_t> codes;   // (kv_heads, tokens) rows
    buffer<T> scales;             // (kv_heads, token_groups, dim) or (kv_heads, tokens, row_groups)
    buffer<T> lows;               // the same
    buffer<T> a;                  // (kv_heads, tokens, rank)
    buffer<T> b;                  // (kv_heads, rank, dim)
    buffer<std::uint32_t> starts; // (kv_heads * tokens + 1), of a row's outliers
    buffer<std::uint16_t> dims;   // of outliers
    buffer<T> exact;              // their values

    index_t bytes() const noexcept {
        return codes.bytes() + scales.bytes() + lows.bytes() + a.bytes() + b.bytes() + starts.bytes() + dims.bytes() + exact.bytes();
    }
};

/// Where the parts of one row are.
template <class T>
struct gear_row {
    std::uint8_t const* codes;
    T const* scales;
    T const* lows;
    index_t group; ///< dims that share a scale
    T const* a;
    T const* b;    // (rank, dim)
    index_t rank;
    std::uint16_t const* dims;
    T const* exact;
    index_t outliers;
};

namespace detail {

template <int Bits, class T>
inline constexpr bool is_kv_code<gear_code<Bits, T>> = true;
template <int Bits, class T>
inline constexpr bool is_kv_code<gear_code<Bits, T> const> = true;

/// One side of a cache.
template <int Bits, class T>
struct gear_side {
    gear_block<T> const* blocks = nullptr;
    std::int32_t const* block_of = nullptr; ///< by chunk
    index_t chunk = 1;                      ///< blocks are made of chunks of so many tokens
    index_t compressed = 0;                 ///< tokens in blocks
    float const* tail = nullptr;            // (kv_heads, chunk, dim), of the others

    bool is_tail(index_t slot) const noexcept { return slot >= compressed; }
    float const* tail_row(index_t head, index_t slot, index_t dim) const noexcept {
        return tail + (head * chunk + slot - compressed) * dim;
    }
    gear_row<T> compressed_row(index_t head, index_t slot, index_t dim) const noexcept {
        gear_block<T> const& k = blocks[block_of[slot / chunk]];
        index_t const t = slot - k.first;
        index_t const row = head * k.tokens + t;
        index_t const scales = k.row_groups > 0 ? row * k.row_groups : (head * k.token_groups + t / k.group) * dim;
        std::uint32_t const first = k.starts[row];
        return {k.codes.data() + row * bitpack::bytes(dim, Bits), k.scales.data() + scales, k.lows.data() + scales,
                k.row_groups > 0 ? k.group : 1, k.a.data() + row * k.rank, k.b.data() + head * k.rank * dim, k.rank,
                k.dims.data() + first, k.exact.data() + first, static_cast<index_t>(k.starts[row + 1] - first)};
    }
};

} // namespace detail

/// A side of a GEAR cache as attention reads it.
template <int Bits, class T>
struct kv_rows<gear_code<Bits, T> const> : detail::gear_side<Bits, T> {
    static constexpr bool has_low_rank_terms = true;
    gear_code<Bits, T> const* data = nullptr; ///< not null; rows are not arrays
    index_t head_stride = 0;
    index_t slot_stride = 0;
    index_t dim_stride = 1;
    float const* scales = nullptr;
    index_t scale_stride = 0;
    index_t dim = 0;

    gear_code<Bits, T> const* row(index_t, index_t) const noexcept { return data; }
    float const* scale_row(index_t, index_t) const noexcept { return nullptr; }
    float operator()(index_t head, index_t slot, index_t d) const noexcept {
        if (this->is_tail(slot)) return this->tail_row(head, slot, dim)[d];
        gear_row<T> const r = this->compressed_row(head, slot, dim);
        index_t const g = d / r.group;
        float x = std::fma(static_cast<float>(bitpack::get<Bits>(r.codes, d)), static_cast<float>(r.scales[g]), static_cast<float>(r.lows[g]));
        for (index_t i = 0; i < r.outliers; ++i)
            if (r.dims[i] == d) x = static_cast<float>(r.exact[i]);
        for (index_t j = 0; j < r.rank; ++j) x = std::fma(static_cast<float>(r.a[j]), static_cast<float>(r.b[j * dim + d]), x);
        return x;
    }
};

} // namespace tessera::inline TESSERA_ABI
