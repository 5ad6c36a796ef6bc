// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// One panel of coded weights times int8 rows of x, by integer dot products.
///
///     acc[m][n] += factor * sum over groups g of
///                  scale[n][g] * sum over segments s of g of xscale[m][s] * (dot(u, xq) - z * sum(xq))
///                + minimum[n][g] * sum over s of xscale[m][s] * sum(xq)
///
/// u unsigned codes, xq int8 codes of x, z the format's zero or the group's zero point. A segment is the part of a group
/// under one scale of x, and short enough that 32 bits hold its sum. Integers are exact, and groups are added in order, so
/// the result does not depend on how many rows are computed together.
///
/// Per vector of 4-bit codes and row: 2 dot products; per vector: 1 load, 3 logical operations; per group and row: a
/// conversion and 2 or 3 multiply-adds.

#include "../../simd/decode.hpp"
#include "../../simd/dot.hpp"
#include "../../storage/prepacked.hpp"
#include "../forms.hpp"

#include <numeric>

namespace tessera::inline TESSERA_ABI::detail {

/// Columns after which an integer sum moves to float. 32 bits would hold 65536 of 255 * 127; 128 is what suits a tile
/// product, and both give the same bits only if both convert at the same columns.
inline constexpr index_t longest_integer_sum = 128;

/// Columns of a segment: a constant, so that loops over grouped formats have constant lengths. It lies in one group of the
/// weights and under one scale of x. Groups that are no multiple of 32 have one sum each (`int8_rows`), so one segment.
template <class Source, class Form>
inline constexpr index_t longest_segment = [] {
    if (Source::group % 32 != 0) return Source::group;
    if (Form::scale_group == 0) return Source::group == 0 ? longest_integer_sum : minimum(longest_integer_sum, Source::group);
    return std::gcd(longest_integer_sum, std::gcd(Form::scale_group, Source::group));
}();

/// How far ahead of the reader weights are asked for: a streamed page ends every 4 KiB, and the hardware stops there.
inline constexpr index_t prefetch_distance = 4096;

/// The dot products of `vectors` vectors of codes with MR rows of x.
template <class Arch, class Weights, int MR>
TESSERA_FORCE_INLINE void dot_vectors(std::byte const* codes, index_t vectors, std::int8_t const* const (&x)[MR],
                                      index_t offset, simd::ints<Arch> (&sum)[MR]) noexcept {
    using ints = simd::ints<Arch>;
    constexpr int bits = Weights::source::bits;
    for (index_t v = 0; v < vectors; ++v, codes += Weights::vector_bytes, offset += Weights::vector_columns) {
        simd::prefetch(codes + prefetch_distance);
        ints const word = simd::load_bytes<Arch>(codes);
        if constexpr (Weights::width == 4) {
            ints const mask(0x0f0f0f0f);
            ints const low = word & mask;
            ints const high = (word >> 4) & mask;
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                sum[m] = simd::dot4<bits, Arch>(sum[m], low, simd::broadcast_bytes4<Arch>(x[m] + offset));
                sum[m] = simd::dot4<bits, Arch>(sum[m], high, simd::broadcast_bytes4<Arch>(x[m] + offset + 4));
            }
        } else {
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m)
                sum[m] = simd::dot4<bits, Arch>(sum[m], word, simd::broadcast_bytes4<Arch>(x[m] + offset));
        }
    }
}

/// Scales of group g of a panel, whose record is at `record`, as float32; one lane a row. Products of two levels are exact.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_scales(std::byte const* panel, std::byte const* record, index_t g) noexcept {
    auto const scales = simd::load<Arch>(reinterpret_cast<typename Weights::scale_type const*>(record));
    if constexpr (Weights::super_groups > 0)
        return scales * simd::load<Arch>(reinterpret_cast<fp16 const*>(panel + Weights::super_offset(g)));
    else
        return scales;
}
/// The same of minima.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_minima(std::byte const* panel, std::byte const* record, index_t g) noexcept {
    auto const minima =
        simd::load<Arch>(reinterpret_cast<typename Weights::scale_type const*>(record + Weights::scale_bytes));
    if constexpr (Weights::super_groups > 0)
        return minima * simd::load<Arch>(reinterpret_cast<fp16 const*>(panel + Weights::super_offset(g) + Weights::super_scale_bytes));
    else
        return minima;
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> record_zero_points(std::byte const* record) noexcept {
    return simd::load_zero_points<Arch>(reinterpret_cast<std::uint8_t const*>(record + Weights::scale_bytes));
}
/// The same where the record has not been looked up.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_scales(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return group_scales<Arch, Weights>(panel, panel + w.record_offset(g), g);
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::floats<Arch> group_minima(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return group_minima<Arch, Weights>(panel, panel + w.record_offset(g), g);
}
template <class Arch, class Weights>
TESSERA_FORCE_INLINE simd::ints<Arch> group_zero_points(Weights const& w, std::byte const* panel, index_t g) noexcept {
    return record_zero_points<Arch, Weights>(panel + w.record_offset(g));
}

/// Adds group g of a panel, whose record is at `record`, for rows m0 .. m0 + MR of x; result[m] has one lane per row of the panel.
template <class Arch, class Weights, class Form, int MR>
TESSERA_FORCE_INLINE void add_group_int8(Weights const& w, std::byte const* panel, std::byte const* record, index_t g,
                                         Form const& x, index_t m0,
                                         std::int8_t const* const (&row)[MR], simd::floats<Arch> (&result)[MR]) noexcept {
    using source = typename Weights::source;
    using ints = simd::ints<Arch>;
    using floats = simd::floats<Arch>;
    constexpr index_t longest = longest_segment<source, Form>;
    index_t const columns = w.group_columns(g);
    std::byte const* codes = record + Weights::header_bytes;
    floats total[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) total[m] = floats(0.0f);
    for (index_t k = 0; k < columns; k += longest) {
        index_t const here = minimum(longest, columns - k);
        index_t const first_block = (g * w.group() + k) / Form::block;
        ints sum[MR];
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            std::int32_t of_x = 0;
            for (index_t b = 0; b < ceil_div(here, Form::block); ++b) of_x += x.row_sums(m0 + m)[first_block + b];
            if constexpr (source::offset == offset_kind::zero_point)
                sum[m] = ints(0) - record_zero_points<Arch, Weights>(record) * ints(of_x);
            else
                sum[m] = ints(-source::zero * of_x);
        }
        index_t const vectors = Weights::vectors(here);
        dot_vectors<Arch, Weights, MR>(codes, vectors, row, first_block * Form::padded_block, sum);
        codes += vectors * Weights::vector_bytes;
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            floats const f = xsimd::to_float(sum[m]);
            if constexpr (Form::scale_group == 0)
                total[m] = total[m] + f;
            else
                total[m] = simd::fma(f, floats(x.scale(m0 + m, (g * w.group() + k) / maximum(Form::scale_group, 1))), total[m]);
        }
    }
    floats const scale = group_scales<Arch, Weights>(panel, record, g);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) result[m] = simd::fma(total[m], scale, result[m]);
    if constexpr (source::offset == offset_kind::minimum) {
        floats const offset = group_minima<Arch, Weights>(panel, record, g);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
            result[m] = simd::fma(offset, floats(x.scaled_sum(m0 + m, g * w.group(), columns)), result[m]);
    }
}

/// Rows m0 .. m0 + MR of x by NP panels: result[p][m] has one lane per row of panel p. Two panels are two streams of memory,
/// which DRAM serves faster than one.
template <class Arch, class Weights, class Form, int MR, int NP>
void product_panels_int8(Weights const& w, std::byte const* const (&panel)[NP], Form const& x, index_t m0,
                         simd::floats<Arch> (&result)[NP][MR]) noexcept {
    using floats = simd::floats<Arch>;
    std::int8_t const* row[MR];
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        row[m] = x.row(m0 + m);
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) result[p][m] = floats(0.0f);
    }
    index_t offset = 0;
    for (index_t g = 0; g < w.groups(); ++g, offset += Weights::record_bytes(w.group())) {
        if constexpr (Weights::super_groups > 0)
            if (g % Weights::super_groups == 0) offset += Weights::super_bytes;
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
            add_group_int8<Arch, Weights, Form, MR>(w, panel[p], panel[p] + offset, g, x, m0, row, result[p]);
    }
    if constexpr (Form::scale_group == 0)
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) result[p][m] = result[p][m] * floats(x.scale(m0 + m, 0));
}

} // namespace tessera::inline TESSERA_ABI::detail
