// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows of x in bf16 times panels of any weights, by bf16 dot products with float32 sums.
///
/// Weights are decoded to float32, rounded to bf16, and laid out in pairs of columns: row q of 64 bytes holds columns 2 q and
/// 2 q + 1 of the panel's 16 rows, what both `vdpbf16ps` and a tile read. No scale is left to apply afterwards, which is what
/// makes this faster than int8 in groups of 32 (product_amx.hpp): of 16 x 16 results a tile makes 32 columns in 16 cycles, and
/// decoding a panel's 32 columns, about 90 cycles, is shared by all rows of x.
///
/// Many rows: matrix tiles, 32 rows by two panels at a time. Few rows, or no permission to use tiles: dot products.

#include "../../simd/amx.hpp"
#include "product_float.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Whether bf16 tiles serve panels on an architecture, and the sizes of their scratch.
template <class Arch, class Weights>
struct bf16_shape {
    /// Columns that are decoded together: of four panels they fill 32 KiB.
    static constexpr index_t chunk = 256;
    /// Panels that share the reads of x.
    static constexpr index_t panels = 4;
    static constexpr bool is_served = [] {
        if constexpr (!simd::multiplies_bf16<Arch> || Weights::layout::rows != 16)
            return false;
        else if constexpr (is_dense_panel<Weights>)
            return true;
        else
            return Weights::source::group % 32 == 0 || // a chunk begins inside no vector, and ends with a group
                   ((Weights::joins_groups || Weights::source::group % Weights::strip_columns == 0) && chunk % maximum(Weights::source::group, 1) == 0);
    }();
    static constexpr index_t chunk_bytes = chunk * 32;

    /// Scratch for m rows of x by tiles: decoded chunks, then 16 x 16 sums.
    static constexpr index_t tile_bytes(index_t m) noexcept {
        return panels * (chunk_bytes + round_up(m, 16) * 16 * static_cast<index_t>(sizeof(float)));
    }
    /// Scratch for few rows: a decoded panel.
    static constexpr index_t dot_bytes(index_t columns) noexcept { return round_up(columns, 32) * 32; }
};

#if defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)

/// Columns [first, last) of a panel, first a multiple of 32; padded with 0 to a multiple of 32.
template <class Arch, index_t R, class Storage>
void decode_pairs(prepacked<panel<R, 4>, Storage> const& w, std::byte const* data, index_t first, index_t last,
                  bf16* out) noexcept {
    using weights = prepacked<panel<R, 4>, Storage>;
    using source = typename weights::source;
    using floats = simd::floats<Arch>;
    bf16* const end = out + round_up(last - first, 32) * R;
    while (first < last) {
        index_t const g = first / w.group();
        index_t const here = minimum(last, g * w.group() + w.group_columns(g)) - first;
        std::byte const* codes = data + w.codes_offset(g) + weights::strip_offset(first - g * w.group());
        floats const scale = group_scales<Arch>(w, data, g);
        floats offset(0.0f);
        if constexpr (source::offset == offset_kind::minimum) offset = group_minima<Arch>(w, data, g);
        if constexpr (source::offset == offset_kind::zero_point) offset = xsimd::to_float(group_zero_points<Arch>(w, data, g));
        auto const column = [&](simd::code_strip<Arch, weights> const& strip, int c) noexcept {
            floats value = simd::column_values(strip, c);
            if constexpr (source::offset == offset_kind::zero_point) value = value - offset;
            return source::offset == offset_kind::minimum ? simd::fma(value, scale, offset) : value * scale;
        };
        for (index_t s = weights::strips(here); s > 0; --s, codes += weights::strip_bytes) {
#pragma GCC unroll 8
            for (index_t v = 0; v < weights::strip_bytes; v += weights::vector_bytes) simd::prefetch(codes + v + prefetch_distance);
            simd::code_strip<Arch, weights> const strip{codes};
            constexpr auto columns = static_cast<int>(weights::joins_groups ? source::group : weights::strip_columns);
            if (weights::first_column(g) == 0)
#pragma GCC unroll 16
                for (int c = 0; c < columns; c += 2, out += 2 * R)
                    simd::store_bf16_pairs(out, column(strip, c), column(strip, c + 1));
            else // the second of two groups in a strip
#pragma GCC unroll 16
                for (int c = columns; c < weights::strip_columns; c += 2, out += 2 * R)
                    simd::store_bf16_pairs(out, column(strip, c), column(strip, c + 1));
        }
        first += here;
    }
    for (; out < end; out += 2 * R) simd::store_bf16_pairs(out, floats(0.0f), floats(0.0f));
}
template <class Arch, index_t R, class T>
void decode_pairs(prepacked<panel<R, 1>, matrix_view<T const>> const&, std::byte const* data, index_t first, index_t last,
                  bf16* out) noexcept {
    using floats = simd::floats<Arch>;
    T const* const column = reinterpret_cast<T const*>(data);
    for (index_t k = first; k < round_up(last, 32); k += 2, out += 2 * R) {
        floats const even = k < last ? simd::load<Arch>(column + k * R) : floats(0.0f);
        floats const odd = k + 1 < last ? simd::load<Arch>(column + (k + 1) * R) : floats(0.0f);
        simd::prefetch(reinterpret_cast<std::byte const*>(column + k * R) + prefetch_distance);
        simd::store_bf16_pairs(out, even, odd);
    }
}

/// MR rows of x from m by one panel whose columns lie decoded at `pairs`.
template <class Arch, int MR>
void product_panel_bf16(bf16 const* pairs, bf16_rows const& x, index_t m, simd::floats<Arch> (&result)[MR]) noexcept {
    using floats = simd::floats<Arch>;
    constexpr int ways = MR >= 4 ? 1 : 4; // a dot product takes six cycles
    floats sum[ways][MR];
    for (auto& way : sum)
        for (auto& s : way) s = floats(0.0f);
    index_t const columns = round_up(x.columns, 32);
    for (index_t k = 0; k < columns; k += 2 * ways)
#pragma GCC unroll 4
        for (int u = 0; u < ways; ++u)
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i)
                sum[u][i] = simd::dot_bf16_pairs(sum[u][i], pairs + (k + 2 * u) * 16, x.row(m + i) + k + 2 * u);
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) {
        result[i] = sum[0][i];
#pragma GCC unroll 4
        for (int u = 1; u < ways; ++u) result[i] = result[i] + sum[u][i];
    }
}

/// `count` panels, panel_bytes apart, by rows [m0, m1) of x, at least 16: emit(panel, m, value). The last block of 16 rows
/// starts early; what it has in common with the one before is computed twice and emitted once.
template <class Arch, class Weights, class Emit>
void product_panels_bf16(Weights const& w, std::byte const* data, index_t count, bf16_rows const& x, index_t m0, index_t m1,
                         std::byte* scratch, Emit const& emit) noexcept {
    using shape = bf16_shape<Arch, Weights>;
    using floats = simd::floats<Arch>;
    simd::amx_tiles<64> const tiles;
    auto* const parts = reinterpret_cast<float*>(scratch + shape::panels * shape::chunk_bytes);
    index_t const blocks = ceil_div(m1 - m0, 16);
    auto const part = [&](index_t b, index_t q) { return parts + (b * count + q) * 256; };
    auto const row_of = [&](index_t b) { return minimum(m0 + 16 * b, m1 - 16); };
    for (index_t i = 0; i < blocks * count * 256; i += 16) floats(0.0f).store_aligned(parts + i);
    constexpr index_t x_bytes = static_cast<index_t>(sizeof(bf16));
    for (index_t first = 0; first < w.cols(); first += shape::chunk) {
        index_t const last = minimum(first + shape::chunk, w.cols());
        index_t const steps = ceil_div(last - first, 32);
        for (index_t q = 0; q < count; ++q)
            decode_pairs<Arch>(w, data + q * w.panel_bytes(), first, last,
                               reinterpret_cast<bf16*>(scratch + q * shape::chunk_bytes));
        auto const multiply = [&]<int Rows, int Columns>(index_t b, index_t q) noexcept {
            std::byte const* rows[Rows];
            std::byte const* columns[Columns];
            float* sums[Rows * Columns];
            for (int i = 0; i < Rows; ++i) rows[i] = reinterpret_cast<std::byte const*>(x.row(row_of(b + i)) + first);
            for (int j = 0; j < Columns; ++j) columns[j] = scratch + (q + j) * shape::chunk_bytes;
            for (int i = 0; i < Rows; ++i)
                for (int j = 0; j < Columns; ++j) sums[i * Columns + j] = part(b + i, q + j);
            tiles.template add_bf16<Rows, Columns>(rows, bf16_rows::stride_of(x.columns) * x_bytes, columns, steps, sums);
        };
        for (index_t b = 0; b < blocks; b += 2)
            for (index_t q = 0; q < count; q += 2) {
                if (b + 1 < blocks)
                    q + 1 < count ? multiply.template operator()<2, 2>(b, q) : multiply.template operator()<2, 1>(b, q);
                else
                    q + 1 < count ? multiply.template operator()<1, 2>(b, q) : multiply.template operator()<1, 1>(b, q);
            }
    }
    for (index_t m = m0; m < m1; ++m) {
        index_t const b = (m - m0) / 16;
        for (index_t q = 0; q < count; ++q) emit(q, m, floats::load_aligned(part(b, q) + (m - row_of(b)) * 16));
    }
}

#endif

} // namespace tessera::inline TESSERA_ABI::detail
