// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The forms that x takes inside a product: what `prepare` writes and terms read. Views into a workspace.
///
/// An operand with preparation P and a scale for every G columns wants `prepared_form<P, ...>`; operands that want the
/// same form share one.

#include "../core/types.hpp"
#include "../numerics/half.hpp"
#include "../storage/integer_codes.hpp"
#include "../storage/scheme.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// x in float32 with contiguous rows. SumGroup > 0: with the sum of every SumGroup columns; -1: of the row; 0: no sums.
/// Preparation: as_is, or as_bf16 for values that bf16 has.
template <index_t SumGroup, class Preparation = as_is>
struct float_rows {
    float const* data = nullptr;  ///< (rows, columns), `stride` apart
    float const* sums = nullptr;  ///< (rows, sums of a row)
    index_t rows = 0;
    index_t columns = 0;
    index_t stride = 0;

    static constexpr index_t sums_of(index_t columns) noexcept {
        return SumGroup == 0 ? 0 : SumGroup < 0 ? 1 : ceil_div(columns, maximum(SumGroup, 1));
    }
    float const* row(index_t m) const noexcept { return data + m * stride; }
    float sum(index_t m, index_t group) const noexcept { return sums[m * sums_of(columns) + group]; }
    /// Rows [first, first + count).
    float_rows slice(index_t first, index_t count) const noexcept {
        return {row(first), sums + first * sums_of(columns), count, columns, stride};
    }
};

/// x in int8 with a float scale for every ScaleGroup columns (0: for the row) and the integer sum of every block of
/// `Block` columns. A block starts at a multiple of `padded_block` bytes; bytes between are 0.
template <index_t ScaleGroup, index_t Block>
struct int8_rows {
    static constexpr index_t scale_group = ScaleGroup;
    static constexpr index_t block = Block;
    static constexpr index_t padded_block = round_up(Block, 8);

    std::int8_t const* codes = nullptr; ///< (rows, stride)
    float const* scales = nullptr;      ///< (rows, scales of a row)
    std::int32_t const* sums = nullptr; ///< (rows, blocks of a row)
    float const* scaled_sums = nullptr; ///< sums times their scale; with one scale a row, not yet times it
    index_t rows = 0;
    index_t columns = 0;

    static constexpr index_t scales_of(index_t columns) noexcept {
        return ScaleGroup == 0 ? 1 : ceil_div(columns, maximum(ScaleGroup, 1));
    }
    static constexpr index_t blocks_of(index_t columns) noexcept { return ceil_div(columns, Block); }
    /// Whole cache lines, so that kernels may read a vector at any block; an odd number of them, so that rows which are
    /// read together do not fall into one set of the cache.
    static constexpr index_t stride_of(index_t columns) noexcept {
        return (round_up(blocks_of(columns) * padded_block, 64) / 64 | 1) * 64;
    }
    std::int8_t const* row(index_t m) const noexcept { return codes + m * stride_of(columns); }
    float scale(index_t m, index_t g) const noexcept { return scales[m * scales_of(columns) + g]; }
    std::int32_t const* row_sums(index_t m) const noexcept { return sums + m * blocks_of(columns); }
    /// The sum of x over `count` columns from `first`, the beginning of a block, as the product sees x.
    float scaled_sum(index_t m, index_t first, index_t count) const noexcept {
        float const* const p = scaled_sums + m * blocks_of(columns) + first / Block;
        float total = p[0];
        for (index_t b = 1; b < ceil_div(count, Block); ++b) total += p[b];
        return total;
    }
    /// Rows [first, first + count).
    int8_rows slice(index_t first, index_t count) const noexcept {
        return {row(first), scales + first * scales_of(columns), row_sums(first), scaled_sums + first * blocks_of(columns),
                count, columns};
    }
};

/// x in bf16. Rows are padded with 0 to whole cache lines, of which there is an odd number: rows that are read together do not
/// fall into one set of the cache.
struct bf16_rows {
    bf16 const* data = nullptr; ///< (rows, stride)
    index_t rows = 0;
    index_t columns = 0;

    static constexpr index_t stride_of(index_t columns) noexcept { return (ceil_div(columns, 32) | 1) * 32; }
    bf16 const* row(index_t m) const noexcept { return data + m * stride_of(columns); }
    /// Rows [first, first + count).
    bf16_rows slice(index_t first, index_t count) const noexcept { return {row(first), count, columns}; }
};

namespace detail {

template <class Source, class Preparation>
struct select_form {
    static_assert(integer_codes<Source>::kind != integer_codes_kind::none,
                  "tessera: an int8 preparation needs integers, or a format of at most 6 bits without NaN and infinity in groups "
                  "that are 16 or a multiple of 32; use as_is with this one");
    static_assert(activation_group<Preparation> <= 0 || Source::group % 32 == 0 || Source::group == 16,
                  "tessera: int8_per_group<N> needs weights whose group is 16 or a multiple of 32; use int8_per_token");
    static_assert(Source::group % 32 == 0 || Source::group <= 65536,
                  "tessera: an int8 preparation needs a group that is a multiple of 32, or of at most 65536: its sums have 32 bits");
    using type = int8_rows<activation_group<Preparation>, Source::group % 32 == 0 ? 32 : Source::group>;
};
template <class Source, class Preparation>
struct select_float_form {
    static constexpr bool needs_sums = Source::offset != offset_kind::none;
    using type = float_rows<needs_sums ? (Source::group == 0 ? index_t{-1} : Source::group) : index_t{0}, Preparation>;
};
template <class Source>
struct select_form<Source, as_is> : select_float_form<Source, as_is> {};
template <class Source>
struct select_form<Source, as_bf16> : select_float_form<Source, as_bf16> {};

} // namespace detail

/// What an operand whose codes are described by `Source` wants for a preparation.
template <class Source, class Preparation>
using prepared_form = typename detail::select_form<Source, Preparation>::type;

} // namespace tessera::inline TESSERA_ABI
