// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of any format for integer products: columns of a panel (storage/prepacked.hpp) as unsigned bytes, 256 of them at most, with
/// their scales and offsets, and `integer_layout`, what a product has to know of the format besides. The product that takes them
/// (product_columns.hpp) knows no format, so that it is compiled once for all.

#include "product_int8.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// What an integer product has to know of a format.
struct integer_layout {
    bool is_served = false;    ///< whether there is such a product
    bool takes_groups = false; ///< whether x may have a scale for every group of its columns, too
    bool is_pair = false;      ///< two bytes a code: 128 * (high - zero) + low
    bool is_joined = false;    ///< groups of 16 whose scales are integers under a super scale, and whose sums stay integers
    bool is_small = false;     ///< joined: sums of a group fit 16 bits
    offset_kind offset = offset_kind::none;
    int zero = 0;              ///< what is subtracted from a byte
    index_t group = 0;         ///< columns that share a scale; 0: the row
    index_t super_columns = 0; ///< joined: those under a super scale
};

template <class Weights>
constexpr integer_layout integer_layout_of() noexcept {
    using source = typename Weights::source;
    using codes = integer_codes<source>;
    integer_layout f;
    f.is_served = codes::kind != integer_codes_kind::none && (source::group % 32 == 0 || source::group <= 65536);
    f.takes_groups = f.is_served && (source::group % 32 == 0 || source::group == 16);
    f.is_pair = codes::kind == integer_codes_kind::pair;
    f.is_joined = Weights::joins_groups;
    f.is_small = 16 * 127 * maximum(codes::zero, (1 << codes::bits) - 1 - codes::zero) < 32768;
    f.offset = source::offset;
    f.zero = codes::zero;
    f.group = source::group;
    f.super_columns = Weights::joins_groups ? Weights::super_groups * source::group : 0;
    return f;
}

/// Columns of a panel for integer products. Groups follow each other, each in whole quads: four columns of R rows.
template <class Arch>
struct integer_columns {
    static constexpr index_t R = simd::lanes<Arch>;
    static constexpr index_t quad_bytes = 4 * R;
    static constexpr index_t most_columns = 256;
    static constexpr index_t most_quads = most_columns / 4;
    /// What the bytes of columns beyond a group's last are: nothing for a dot product, whatever x has there.
    static constexpr int padding = simd::dot4_bias<8, Arch>;

    // Strips are written whole: seven quads may come after the last.
    alignas(64) std::byte low[(most_quads + 7) * quad_bytes];
    alignas(64) std::byte high[(most_quads + 7) * quad_bytes]; ///< of pairs
    alignas(64) float scales[most_quads * R];                  ///< of every group; joined: the super scale's
    alignas(64) float minima[most_quads * R];
    alignas(64) std::int32_t integers[most_quads * R]; ///< zero points; joined: scales
    alignas(64) float super_minima[R];
    /// What is read later, to be asked for while these columns are multiplied: all at once would fill the first level's miss buffers.
    std::byte const* ahead;
    std::byte const* ahead_end;
};

/// Strips of codes as bytes.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE void decode_integer_strips(std::byte const* codes, index_t strips, [[maybe_unused]] std::byte* high, std::byte* low) noexcept {
    constexpr int quads = static_cast<int>(Weights::strip_columns / 4);
    constexpr index_t quad_bytes = integer_columns<Arch>::quad_bytes;
    for (index_t s = 0; s < strips; ++s, codes += Weights::strip_bytes, low += quads * quad_bytes) {
        simd::code_strip<Arch, Weights> const strip{codes};
#pragma GCC unroll 8
        for (int q = 0; q < quads; ++q) {
            simd::integer_quad<Arch, Weights>(strip, q).store_aligned(reinterpret_cast<std::int32_t*>(low + q * quad_bytes));
            if constexpr (integer_codes<typename Weights::source>::kind == integer_codes_kind::pair)
                simd::integer_quad<Arch, Weights, simd::byte_half::high>(strip, q)
                    .store_aligned(reinterpret_cast<std::int32_t*>(high + q * quad_bytes));
        }
        if constexpr (integer_codes<typename Weights::source>::kind == integer_codes_kind::pair) high += quads * quad_bytes;
    }
}

/// Columns of the quad that ends at `low` from column `from` on become `padding`.
template <class Arch, bool IsPair>
TESSERA_COLD void pad_last_quad(index_t from, [[maybe_unused]] std::byte* high, std::byte* low) noexcept {
    constexpr auto padding = static_cast<std::byte>(integer_columns<Arch>::padding);
    for (index_t r = integer_columns<Arch>::R; r > 0; --r)
        for (index_t j = from; j < 4; ++j) {
            low[j - 4 * r] = padding;
            if constexpr (IsPair) high[j - 4 * r] = padding;
        }
}

/// Columns [k0, k1) of a panel: whole groups, or a part of one that begins at a multiple of 256 of its columns; joined, a whole super
/// group. `together`: panels that are read side by side.
template <class Arch, class Weights>
void decode_integers(Weights const& w, std::byte const* panel, index_t k0, index_t k1, int together, integer_columns<Arch>& out) noexcept {
    using source = typename Weights::source;
    constexpr index_t R = simd::lanes<Arch>, quad_bytes = integer_columns<Arch>::quad_bytes;
    index_t g = k0 / w.group();
    // From the record's head on, if it begins here.
    index_t const begin = k0 == g * w.group() && Weights::within_record(g) == 0 ? w.record_offset(g)
                                                                               : w.codes_offset(g) + Weights::strip_offset(k0 - g * w.group());
    // Beyond what is decoded next; behind the end of one of two panels begin the next two, not its neighbour.
    auto const read_to = [&](index_t end) noexcept {
        index_t const bytes = w.panel_bytes(), distance = minimum(prefetch_distance + (end - begin), bytes);
        out.ahead = panel + begin + distance + (together == 2 && begin + distance >= bytes ? bytes : 0);
        out.ahead_end = out.ahead + (end - begin);
    };
    if constexpr (Weights::joins_groups) {
        static_assert(Weights::super_groups * source::group <= integer_columns<Arch>::most_columns);
        index_t const at = w.codes_offset(g);
        decode_integer_strips<Arch, Weights>(panel + at, (k1 - k0) / Weights::strip_columns, out.high, out.low);
        read_to(at + (k1 - k0) / Weights::strip_columns * Weights::strip_bytes);
        simd::store<Arch>(out.scales, super_scales<Arch, Weights>(panel + w.super_offset(g)));
        if constexpr (Weights::packs_minima) simd::store<Arch>(out.super_minima, super_minima<Arch, Weights>(panel + w.super_offset(g)));
        for (index_t i = 0; i < Weights::super_groups; ++i, ++g) {
            auto const levels = joined_levels<Arch, Weights>(panel + w.scales_offset(g));
            joined_scales<Arch, Weights>(levels).store_aligned(out.integers + i * R);
            if constexpr (Weights::packs_minima) simd::store<Arch>(out.minima + i * R, joined_minima<Arch>(levels));
        }
    } else {
        group_factors<Arch, Weights> factors;
        std::byte *low = out.low, *high = out.high;
        index_t loaded = g; // the factors are those of groups before
        index_t end = begin;
        auto const add_group = [&](index_t i, index_t first, index_t columns) noexcept {
            if (g >= loaded) {
                factors.load(w, panel, g);
                loaded = group_factors<Arch, Weights>::end(g, w.groups());
            }
            std::byte const* const scales = panel + w.scales_offset(g);
            simd::store<Arch>(out.scales + i * R, factors.integer_scales(scales));
            if constexpr (source::offset == offset_kind::minimum) simd::store<Arch>(out.minima + i * R, factors.minima(scales));
            if constexpr (source::offset == offset_kind::zero_point) zero_points_at<Arch, Weights>(scales).store_aligned(out.integers + i * R);
            index_t const codes = w.codes_offset(g) + Weights::strip_offset(first), strips = Weights::strips(columns);
            decode_integer_strips<Arch, Weights>(panel + codes, strips, high, low);
            end = codes + strips * Weights::strip_bytes;
            low += ceil_div(columns, 4) * quad_bytes;
            high += ceil_div(columns, 4) * quad_bytes;
        };
        index_t i = 0;
        // Whole groups first, of constant length.
        if constexpr (source::group > 0 && source::group <= integer_columns<Arch>::most_columns && source::group % 4 == 0)
            for (; k0 + source::group <= k1; k0 += source::group, ++i, ++g) add_group(i, 0, source::group);
        if constexpr (source::group > integer_columns<Arch>::most_columns || !has_whole_groups<source>)
            for (; k0 < k1; ++i, ++g) {
                index_t const first = k0 - g * w.group(), columns = minimum(k1 - k0, w.group_columns(g) - first);
                add_group(i, first, columns);
                if (columns % 4 != 0) pad_last_quad<Arch, integer_codes<source>::kind == integer_codes_kind::pair>(columns % 4, high, low);
                k0 += columns;
            }
        read_to(end);
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
