// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Panels of weights times float32 rows of x.
///
/// Few rows: codes are decoded in registers and used at once (`product_panel_float`), scale and offset applied once a
/// group:
///
///     acc[m][n] += scale[n][g] * (sum over k of value(code) * x[m][k]) + offset[n][g] * sum over k of x[m][k]
///
/// Many rows: a chunk of columns of a few panels is decoded to float32, which stays in the first-level cache (`decode_panel`), and
/// multiplied like dense panels (`product_panels_dense`), an outer product in registers: MR x NP accumulators, NP loads and MR
/// broadcasts a column.

#include "../../simd/decode.hpp"
#include "../../storage/prepacked.hpp"
#include "../forms.hpp"
#include "product_int8.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Rows of x, panels of weights and columns that are multiplied together where weights are decoded: the registers hold the sums, the
/// first-level cache the columns. 6 x 4 sums need 10 loads for 24 multiply-adds, 12 x 2 need 14.
template <class Arch>
inline constexpr int decoded_row_block = simd::lanes<Arch> == 16 ? 6 : 4;
template <class Arch>
inline constexpr int decoded_panel_block = simd::lanes<Arch> == 16 ? 4 : 2;
template <class Arch>
inline constexpr index_t decoded_chunk = simd::lanes<Arch> == 16 ? 128 : 256;

/// Sums that each row of x has in turn, so that few rows do not wait for their multiply-adds.
template <int MR>
inline constexpr int sums_a_row = MR >= 4 ? 1 : 4 / MR;

/// sum[m][.] += value of each of `Count` columns, from `First`, of one strip of codes * x[m][column].
template <class Arch, class Weights, int MR, int First = 0, int Count = static_cast<int>(Weights::strip_columns)>
TESSERA_FORCE_INLINE void multiply_strip(std::byte const* codes, float const* const (&x)[MR], index_t offset,
                                         simd::floats<Arch> (&sum)[MR][sums_a_row<MR>]) noexcept {
    using floats = simd::floats<Arch>;
    simd::code_strip<Arch, Weights> const strip{codes};
#pragma GCC unroll 32
    for (int c = 0; c < Count; ++c) {
        floats const value = simd::column_values(strip, First + c);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            floats& s = sum[m][c % sums_a_row<MR>];
            s = simd::fma(value, floats(x[m][offset + c]), s);
        }
    }
}

/// The same of the first columns of a strip: where a group ends inside it.
template <class Arch, class Weights, int MR>
TESSERA_COLD void multiply_strip_end(std::byte const* codes, index_t columns, float const* const (&x)[MR], index_t offset,
                                     simd::floats<Arch> (&sum)[MR][sums_a_row<MR>]) noexcept {
    using floats = simd::floats<Arch>;
    simd::code_strip<Arch, Weights> const strip{codes};
    for (int c = 0; c < columns; ++c) {
        floats const value = simd::column_values(strip, c);
        for (int m = 0; m < MR; ++m) sum[m][0] = simd::fma(value, floats(x[m][offset + c]), sum[m][0]);
    }
}

/// Rows m0 .. m0 + MR of x by one panel of coded weights.
template <class Arch, class Weights, class Form, int MR>
void product_panel_float(Weights const& w, std::byte const* panel, Form const& x, index_t m0,
                         simd::floats<Arch> (&result)[MR]) noexcept {
    using source = typename Weights::source;
    using floats = simd::floats<Arch>;
    float const* row[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        row[m] = x.row(m0 + m);
        result[m] = floats(0.0f);
    }
    for (index_t g = 0; g < w.groups(); ++g) {
        index_t const columns = w.group_columns(g);
        std::byte const* codes = panel + w.codes_offset(g);
        prefetch_head(w, panel, g, prefetch_distance);
        floats sum[MR][sums_a_row<MR>];
        for (auto& row_sums : sum)
            for (floats& s : row_sums) s = floats(0.0f);
        index_t k = 0;
        if constexpr (Weights::joins_groups && Weights::strip_columns > source::group) { // two groups in a strip
            constexpr auto half = static_cast<int>(source::group);
            for (index_t v = 0; v < Weights::strip_bytes; v += Weights::vector_bytes) simd::prefetch(codes + v + prefetch_distance);
            if (Weights::first_column(g) == 0)
                multiply_strip<Arch, Weights, MR, 0, half>(codes, row, g * half, sum);
            else
                multiply_strip<Arch, Weights, MR, half, half>(codes, row, g * half, sum);
            k = half;
        }
        for (; k + Weights::strip_columns <= columns; k += Weights::strip_columns, codes += Weights::strip_bytes) {
#pragma GCC unroll 8
            for (index_t v = 0; v < Weights::strip_bytes; v += Weights::vector_bytes) simd::prefetch(codes + v + prefetch_distance);
            multiply_strip<Arch, Weights, MR>(codes, row, g * w.group() + k, sum);
        }
        if (k < columns) multiply_strip_end<Arch, Weights, MR>(codes, columns - k, row, g * w.group() + k, sum);
        floats const scale = group_scales<Arch>(w, panel, g);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 4
            for (int i = 1; i < sums_a_row<MR>; ++i) sum[m][0] = sum[m][0] + sum[m][i];
            result[m] = simd::fma(sum[m][0], scale, result[m]);
        }
        if constexpr (source::offset == offset_kind::minimum) {
            floats const offset = group_minima<Arch>(w, panel, g);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) result[m] = simd::fma(offset, floats(x.sum(m0 + m, g)), result[m]);
        }
        if constexpr (source::offset == offset_kind::zero_point) {
            floats const offset = floats(0.0f) - scale * xsimd::to_float(group_zero_points<Arch>(w, panel, g));
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) result[m] = simd::fma(offset, floats(x.sum(m0 + m, g)), result[m]);
        }
    }
}

/// Columns [first, last) of a panel of coded weights as float32: out[(k - first) * R + r]. Where groups of 16 share a record,
/// `first` and `last` are multiples of 16.
template <class Arch, class Weights>
void decode_panel(Weights const& w, std::byte const* panel, index_t first, index_t last, float* out) noexcept {
    using source = typename Weights::source;
    using floats = simd::floats<Arch>;
    while (first < last) {
        index_t const g = first / w.group();
        index_t const from = first - g * w.group();
        index_t const to = minimum(w.group_columns(g), last - g * w.group());
        floats const scale = group_scales<Arch>(w, panel, g);
        floats offset(0.0f);
        if constexpr (source::offset == offset_kind::minimum) offset = group_minima<Arch>(w, panel, g);
        if constexpr (source::offset == offset_kind::zero_point)
            offset = xsimd::to_float(group_zero_points<Arch>(w, panel, g));
        auto const decode = [&](simd::code_strip<Arch, Weights> const& strip, int c) noexcept {
            floats value = simd::column_values(strip, c);
            if constexpr (source::offset == offset_kind::zero_point) value = value - offset;
            value = source::offset == offset_kind::minimum ? simd::fma(value, scale, offset) : value * scale;
            simd::store<Arch>(out, value);
            out += simd::lanes<Arch>;
        };
        index_t k = from / Weights::strip_columns * Weights::strip_columns;
        std::byte const* codes = panel + w.codes_offset(g) + Weights::strip_offset(k);
        for (; k < to; k += Weights::strip_columns, codes += Weights::strip_bytes) {
#pragma GCC unroll 8
            for (index_t v = 0; v < Weights::strip_bytes; v += Weights::vector_bytes) simd::prefetch(codes + v + prefetch_distance);
            simd::code_strip<Arch, Weights> const strip{codes};
            if constexpr (Weights::joins_groups && Weights::strip_columns > source::group) { // two groups in a strip
                constexpr auto half = static_cast<int>(source::group);
                if (Weights::first_column(g) == 0)
#pragma GCC unroll 16
                    for (int c = 0; c < half; ++c) decode(strip, c);
                else
#pragma GCC unroll 16
                    for (int c = half; c < 2 * half; ++c) decode(strip, c);
            } else if (k >= from && k + Weights::strip_columns <= to) {
#pragma GCC unroll 32
                for (int c = 0; c < Weights::strip_columns; ++c) decode(strip, c);
            } else {
                auto const end = static_cast<int>(minimum(Weights::strip_columns, to - k));
                for (auto c = static_cast<int>(maximum(from - k, 0)); c < end; ++c) decode(strip, c);
            }
        }
        first = g * w.group() + to;
    }
}

/// MR rows of x as they lie in memory, for `product_panels_dense`. Four rows from a base each: a pointer a row would take more
/// registers than there are.
template <int MR>
struct strided_rows {
    static constexpr bool is_packed = false;
    float const* base[(MR + 3) / 4];
    index_t rows[4];

    TESSERA_FORCE_INLINE strided_rows(float const* x, index_t stride) noexcept : rows{0, stride, 2 * stride, 3 * stride} {
#pragma GCC unroll 4
        for (int i = 0; i < (MR + 3) / 4; ++i) base[i] = x + 4 * i * stride;
    }
    TESSERA_FORCE_INLINE float operator()(int m, index_t k) const noexcept { return base[m / 4][rows[m % 4] + k]; }
};
/// The same of `float_panels<Width, ...>`.
template <index_t Width>
struct packed_rows {
    static constexpr bool is_packed = true;
    float const* data;

    TESSERA_FORCE_INLINE float operator()(int m, index_t k) const noexcept { return data[k * Width + m]; }
};

/// result[m][p] = sum over k < columns of x(m, k) * w[p][k * stride ...], a register of lanes at a time. Where few
/// accumulators leave the multiply-add units waiting, columns are dealt to several sums, added in order at the end.
template <class Arch, class T, int MR, int NP, class Rows>
TESSERA_FORCE_INLINE void product_panels_dense(T const* const (&w)[NP], index_t stride, index_t columns, Rows const& x,
                          simd::floats<Arch> (&result)[MR][NP]) noexcept {
    using floats = simd::floats<Arch>;
    constexpr int ways = MR * NP >= 8 ? 1 : MR * NP >= 4 ? 2 : 4;
    floats sum[ways][MR][NP];
    for (auto& way : sum)
        for (auto& row : way)
            for (auto& s : row) s = floats(0.0f);
    index_t const ahead = MR <= 2 ? stream_distance() : prefetch_distance; // more rows take longer than memory
    index_t k = 0;
    for (; k + ways <= columns; k += ways) {
#pragma GCC unroll 8
        for (int u = 0; u < ways; ++u) {
            floats b[NP];
#pragma GCC unroll 8
            for (int p = 0; p < NP; ++p) {
                b[p] = simd::load<Arch>(w[p] + (k + u) * stride);
                if (!Rows::is_packed && u % 2 == 0) // packed rows meet weights that were just decoded
                    simd::prefetch(reinterpret_cast<std::byte const*>(w[p] + (k + u) * stride) + ahead);
            }
#pragma GCC unroll 16
            for (int m = 0; m < MR; ++m) {
                floats const a(x(m, k + u));
#pragma GCC unroll 8
                for (int p = 0; p < NP; ++p) sum[u][m][p] = simd::fma(a, b[p], sum[u][m][p]);
            }
        }
    }
    for (; k < columns; ++k)
#pragma GCC unroll 8
        for (int p = 0; p < NP; ++p) {
            floats const b = simd::load<Arch>(w[p] + k * stride);
#pragma GCC unroll 16
            for (int m = 0; m < MR; ++m) sum[0][m][p] = simd::fma(floats(x(m, k)), b, sum[0][m][p]);
        }
#pragma GCC unroll 16
    for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int p = 0; p < NP; ++p) {
            result[m][p] = sum[0][m][p];
#pragma GCC unroll 8
            for (int u = 1; u < ways; ++u) result[m][p] = result[m][p] + sum[u][m][p];
        }
}

} // namespace tessera::inline TESSERA_ABI::detail
