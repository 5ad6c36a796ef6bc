// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// One panel of coded weights times int8 rows of x, by integer dot products.
///
///     acc[m][n] += factor * sum over groups g of
///                  scale[n][g] * sum over segments s of g of xscale[m][s] * (dot(u, xq) - z * sum(xq))
///                + minimum[n][g] * sum over s of xscale[m][s] * sum(xq)
///
/// u unsigned codes or what a table has for them (storage/integer_codes.hpp; its unit is part of scale), xq int8 codes of x, z the format's zero or the group's zero point. A segment is the part of a group
/// under one scale of x, and short enough that 32 bits hold its sum. Integers are exact, and groups are added in order, so
/// the result does not depend on how many rows are computed together.
///
/// Where groups of 16 columns share a record (storage/prepacked.hpp), a group's sum is multiplied by its integer scale, and sums stay
/// integers as far as the scale of x reaches; the super scale multiplies them once.
///
/// Without VNNI, products of bytes are added in 16 bits as long as these hold them (simd/dot.hpp), 8-bit codes taken as signed.

#include "../../simd/decode.hpp"
#include "../../simd/dot.hpp"
#include "../../storage/prepacked.hpp"
#include "../forms.hpp"
#include "group_factors.hpp"

#include <bit>
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
/// The same of weights that are read faster than memory gives them: bytes, numbers. The next line where the processor reads on by itself.
TESSERA_FORCE_INLINE index_t stream_distance() noexcept { return simd::reads_on() ? config::cache_line : prefetch_distance; }

/// Whether they are such, by dot products of bytes.
template <class Weights>
inline constexpr bool is_stream = Weights::source::bits == 8 && integer_codes<typename Weights::source>::kind == integer_codes_kind::codes;

/// A line of weights, early. Where the processor reads on, it has the first cache for what it fetches itself, and codes that take longer to
/// decode than to read are asked for into the second.
template <class Weights>
TESSERA_FORCE_INLINE void prefetch_weights(std::byte const* p) noexcept {
    if (!is_stream<Weights> && simd::reads_on())
        simd::prefetch_level_2(p);
    else
        simd::prefetch(p);
}

/// `distance` of NP panels of `bytes` side by side that are read at `offset`: behind the end of one begin the next ones, not its
/// neighbour.
template <int NP>
TESSERA_FORCE_INLINE index_t prefetch_ahead(index_t distance, index_t bytes, index_t offset) noexcept {
    if constexpr (NP == 1) return distance;
    index_t const ahead = minimum(distance, bytes);
    return offset + ahead < bytes ? ahead : ahead + (NP - 1) * bytes;
}

/// Rows of x that one pass over a panel computes at most: what the registers hold.
template <class Arch>
inline constexpr int row_block = simd::lanes<Arch> == 16 ? 8 : 4;

/// The same of integer products: where 16-bit sums of a group are all that is in registers, twice as many.
template <class Arch, class Weights>
inline constexpr int int8_row_block =
    simd::narrow_depth<integer_codes<typename Weights::source>::bits, Arch> >= 2 ? 8 : row_block<Arch>;

/// The same of dense panels, two at a time.
template <class Arch>
inline constexpr int dense_row_block = simd::lanes<Arch> == 16 ? 12 : 4;

/// Calls f.template operator()<MR>(m) for blocks of rows that cover [m0, m1), MR `Most` or a power of two.
template <int Most, class F>
TESSERA_FORCE_INLINE void for_row_blocks(index_t m0, index_t m1, F const& f) noexcept {
    for (; m0 + Most <= m1; m0 += Most) f.template operator()<Most>(m0);
    if constexpr (Most > 1)
        if (m0 < m1) for_row_blocks<static_cast<int>(std::bit_floor(static_cast<unsigned>(Most - 1)))>(m0, m1, f);
}

/// Sums that take the columns of MR rows and NP panels in turn: a dot product of one instruction waits for the one before, and long
/// segments have room for more than that.
template <class Arch, class Weights, class Form, int MR, int NP>
inline constexpr int sum_chains = []() -> int {
    using source = typename Weights::source;
    if (simd::narrow_depth<integer_codes<source>::bits, Arch> >= 2 || longest_segment<source, Form> < 64 || simd::lanes<Arch> < 16) return 1;
    return MR * NP < 8 ? 8 / (MR * NP) : 1;
}();

/// sum += the dot products of a stretch of `Strips` strips of codes of NP panels with MR rows of x. The panels' sums are independent, which
/// keeps the units busy where few rows would leave them waiting, and share the loads of x. Where there are 16-bit products
/// (`narrow_depth`), these add up first.
template <class Arch, class Weights, simd::byte_half Half, int Strips, int Chains, int MR, int NP>
TESSERA_FORCE_INLINE void dot_stretch(std::byte const* const (&codes)[NP], index_t ahead, std::int8_t const* const (&x)[MR],
                                      index_t offset, simd::ints<Arch> (&sum)[Chains][NP][MR]) noexcept {
    using ints = simd::ints<Arch>;
    constexpr int bits = integer_codes<typename Weights::source>::bits;
    constexpr int depth = simd::narrow_depth<bits, Arch>;
    constexpr int quads = static_cast<int>(Weights::strip_columns / 4);
    ints narrow[NP][MR];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (index_t line = 0; line < Strips * Weights::strip_bytes; line += config::cache_line)
            prefetch_weights<Weights>(codes[p] + line + ahead);
#pragma GCC unroll 8
    for (int q = 0; q < Strips * quads; ++q) {
        ints code[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
            code[p] = simd::integer_quad<Arch, Weights, Half>(
                simd::code_strip<Arch, Weights>{codes[p] + q / quads * Weights::strip_bytes}, q % quads);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            ints const four = simd::broadcast_bytes4<Arch>(x[m] + offset + 4 * q);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                if constexpr (depth < 2) {
                    sum[q % Chains][p][m] = simd::dot4_less<bits, Arch>(sum[q % Chains][p][m], code[p], four);
                } else {
                    narrow[p][m] = q % depth == 0 ? simd::dot4_narrow<Arch>(code[p], four)
                                                  : simd::dot4_narrow<Arch>(narrow[p][m], code[p], four);
                    if (q % depth == depth - 1 || q == Strips * quads - 1) sum[0][p][m] = simd::widen_narrow<Arch>(sum[0][p][m], narrow[p][m]);
                }
            }
        }
    }
}

/// The same of any number of strips.
template <class Arch, class Weights, simd::byte_half Half, int Chains, int MR, int NP>
TESSERA_FORCE_INLINE void dot_strips(std::byte const* const (&codes)[NP], index_t strips, index_t ahead,
                                     std::int8_t const* const (&x)[MR], index_t offset, simd::ints<Arch> (&sum)[NP][MR]) noexcept {
    // What adds up in 16 bits, but not more than 32 columns; a cache line.
    constexpr int depth = minimum(simd::narrow_depth<integer_codes<typename Weights::source>::bits, Arch>, 8);
    constexpr int together = static_cast<int>(maximum(maximum(depth, Chains) * 4 / Weights::strip_columns,
                                                      maximum(config::cache_line / Weights::strip_bytes, 1)));
    simd::ints<Arch> chain[Chains][NP][MR];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
            for (int c = 0; c < Chains; ++c) chain[c][p][m] = c == 0 ? sum[p][m] : simd::ints<Arch>(0);
    std::byte const* stretch[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) stretch[p] = codes[p];
    auto const step = [&]<int Strips>(std::integral_constant<int, Strips>) {
        dot_stretch<Arch, Weights, Half, Strips, Chains, MR, NP>(stretch, ahead, x, offset, chain);
        offset += Strips * Weights::strip_columns;
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) stretch[p] += Strips * Weights::strip_bytes;
    };
    index_t s = 0;
    for (; s + together <= strips; s += together) step(std::integral_constant<int, together>{});
    if constexpr (together > 1)
        for (; s < strips; ++s) step(std::integral_constant<int, 1>{});
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            sum[p][m] = chain[0][p][m];
#pragma GCC unroll 8
            for (int c = 1; c < Chains; ++c) sum[p][m] = sum[p][m] + chain[c][p][m];
        }
}

/// Asks for what is before a record's codes, early, when its first group's turn comes.
template <class Weights>
TESSERA_FORCE_INLINE void prefetch_head(Weights const& w, std::byte const* panel, index_t g, index_t ahead) noexcept {
    if (Weights::within_record(g) != 0) return;
    std::byte const* const head = panel + w.record_offset(g) + ahead;
    for (index_t line = 0; line < Weights::head_bytes; line += config::cache_line) simd::prefetch(head + line);
}

/// sum[p][m] = -zero * (sum of row m0 + m of x over the blocks of a segment of `columns` columns), zero the format's or the
/// group's, less what dot products leave out.
template <class Arch, class Weights, class Form, int MR, int NP>
TESSERA_FORCE_INLINE void start_sums(std::byte const* const (&scales)[NP], Form const& x, index_t m0, index_t first_block,
                                     index_t columns, simd::ints<Arch> (&sum)[NP][MR]) noexcept {
    using source = typename Weights::source;
    using ints = simd::ints<Arch>;
    constexpr int bias = simd::dot4_bias<integer_codes<source>::bits, Arch>;
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        std::int32_t of_x = 0;
        for (index_t b = 0; b < ceil_div(columns, Form::block); ++b) of_x += x.row_sums(m0 + m)[first_block + b];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            if constexpr (source::offset == offset_kind::zero_point)
                sum[p][m] = (ints(bias) - zero_points_at<Arch, Weights>(scales[p])) * ints(of_x);
            else
                sum[p][m] = ints((bias - integer_codes<source>::zero) * of_x);
        }
    }
}

/// Adds group g of NP panels, under super scales that are in `factors`, for rows m0 .. m0 + MR of x; result[m][p] has one lane per row of
/// panel p. Whole: it has as many columns as a group can have.
template <class Arch, class Weights, class Form, bool Whole, int MR, int NP>
TESSERA_FORCE_INLINE void add_group_int8(Weights const& w, std::byte const* const (&panel)[NP],
                                         group_factors<Arch, Weights> const (&factors)[NP], index_t g, Form const& x, index_t m0, std::int8_t const* const (&row)[MR],
                                         index_t distance, index_t panel_bytes, simd::floats<Arch> (*result)[NP]) noexcept {
    using source = typename Weights::source;
    using ints = simd::ints<Arch>;
    using floats = simd::floats<Arch>;
    constexpr index_t longest = longest_segment<source, Form>;
    constexpr int chains = sum_chains<Arch, Weights, Form, MR, NP>;
    constexpr bool is_group = source::group == longest && (source::group % 32 == 0 || source::group == 16); // one segment
    index_t const columns = Whole && source::group != 0 ? source::group : w.group_columns(g);
    std::byte const *scales[NP], *codes[NP];
    floats total[NP][MR];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
        prefetch_head(w, panel[p], g, prefetch_ahead<NP>(distance, panel_bytes, w.record_offset(g))); // codes ask for themselves
        scales[p] = panel[p] + w.scales_offset(g);
        codes[p] = panel[p] + w.codes_offset(g);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) total[p][m] = floats(0.0f);
    }
    for (index_t k = 0; k < (is_group ? 1 : columns); k += longest) {
        index_t const here = minimum(longest, columns - k), first_block = (g * w.group() + k) / Form::block;
        ints sum[NP][MR];
        start_sums<Arch, Weights, Form, MR, NP>(scales, x, m0, first_block, here, sum);
        index_t const strips = Weights::strips(here), x_at = first_block * Form::padded_block;
        index_t const ahead = prefetch_ahead<NP>(distance, panel_bytes, codes[0] - panel[0]);
        if constexpr (integer_codes<source>::kind == integer_codes_kind::pair) {
            dot_strips<Arch, Weights, simd::byte_half::high, chains, MR, NP>(codes, strips, ahead, row, x_at, sum);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
                for (int m = 0; m < MR; ++m) sum[p][m] = simd::move_right<Arch>(sum[p][m], -7);
        }
        dot_strips<Arch, Weights, simd::byte_half::low, chains, MR, NP>(codes, strips, ahead, row, x_at, sum);
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            codes[p] += strips * Weights::strip_bytes;
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                floats f = xsimd::to_float(sum[p][m]);
                if constexpr (Form::scale_group != 0) {
                    floats const s(x.scale(m0 + m, (g * w.group() + k) / maximum(Form::scale_group, 1)));
                    total[p][m] = is_group ? f * s : simd::fma(f, s, total[p][m]);
                } else {
                    total[p][m] = is_group ? f : total[p][m] + f;
                }
            }
        }
    }
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
        floats const scale = factors[p].integer_scales(scales[p]);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) result[m][p] = simd::fma(total[p][m], scale, result[m][p]);
        if constexpr (source::offset == offset_kind::minimum) {
            floats const minima = factors[p].minima(scales[p]);
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m)
                result[m][p] = simd::fma(minima, floats(x.scaled_sum(m0 + m, g * w.group(), columns)), result[m][p]);
        }
    }
}

/// The dot products of `Quads` times four columns, from column `First` of a strip, in 16-bit halves or not; Started: added to sum.
template <class Arch, class Weights, int First, int Quads, bool Narrow, bool Started, int MR, int NP>
TESSERA_FORCE_INLINE void dot_joined_group(std::byte const* const (&strip)[NP], std::int8_t const* const (&x)[MR], index_t offset,
                                           simd::ints<Arch> (&sum)[NP][MR]) noexcept {
    using ints = simd::ints<Arch>;
    constexpr int bits = integer_codes<typename Weights::source>::bits;
#pragma GCC unroll 4
    for (int q = 0; q < Quads; ++q) {
        ints code[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) code[p] = simd::code_strip<Arch, Weights>{strip[p]}.quad(First / 4 + q);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            ints const four = simd::broadcast_bytes4<Arch>(x[m] + offset + 4 * q);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                if constexpr (Narrow)
                    sum[p][m] = q == 0 && !Started ? simd::dot4_narrow<Arch>(code[p], four)
                                                   : simd::dot4_narrow<Arch>(sum[p][m], code[p], four);
                else
                    sum[p][m] = simd::dot4<bits, Arch>(sum[p][m], code[p], four);
            }
        }
    }
}

/// sum += minimum * the sum of group g of rows of x.
template <class Arch, index_t Group, class Form, int MR>
TESSERA_FORCE_INLINE void add_joined_minima(simd::floats<Arch> const& minimum, Form const& x, index_t m0, index_t g,
                                            simd::floats<Arch> (&sum)[MR]) noexcept {
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m)
        sum[m] = simd::fma(minimum, simd::floats<Arch>(x.scaled_sum(m0 + m, g * Group, Group)), sum[m]);
}

/// Adds group g of NP panels, whose scales and strips are at hand: scale * (code - zero) * x to `sums`, in integers, and
/// minimum * x to `minima`. First: its column in a strip.
template <class Arch, class Weights, class Form, int First, bool WithMinima, int MR, int NP>
TESSERA_FORCE_INLINE void add_joined_group(std::byte const* const (&at)[NP], std::byte const* const (&strip)[NP], index_t g,
                                           Form const& x, index_t m0, std::int8_t const* const (&row)[MR], simd::ints<Arch> (&sums)[NP][MR],
                                           simd::floats<Arch> (&minima)[NP][MR]) noexcept {
    using source = typename Weights::source;
    using ints = simd::ints<Arch>;
    constexpr int bits = integer_codes<source>::bits;
    constexpr int zero = integer_codes<source>::zero;
    constexpr int depth = simd::narrow_depth<bits, Arch>;
    constexpr bool narrow = depth >= 2;
    constexpr int quads = narrow && depth < 4 ? 2 : 4; // that are multiplied by the scale together
    constexpr bool small = 16 * 127 * maximum(zero, (1 << bits) - 1 - zero) < 32768;
    ints scales[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
        ints const levels = joined_levels<Arch, Weights, narrow>(at[p]);
        scales[p] = joined_scales<Arch, Weights>(levels);
        if constexpr (WithMinima)
            add_joined_minima<Arch, source::group>(joined_minima<Arch, narrow>(levels), x, m0, g, minima[p]);
    }
    constexpr bool started = quads == 4 && zero != 0;
    ints start[MR]; // -zero * x: in the low half of a lane, half of it in both if it is too long, or as it is
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
        int const of_x = zero == 0 ? 0 : x.row_sums(m0 + m)[g];
        if constexpr (quads == 2) {
            start[m] = simd::broadcast_pair<Arch>(-(zero / 2) * of_x);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) sums[p][m] = simd::multiply_narrow<Arch>(sums[p][m], start[m], scales[p]);
        } else {
            start[m] = ints(narrow ? -zero * of_x & 0xffff : -zero * of_x);
        }
    }
#pragma GCC unroll 2
    for (int part = 0; part < 4 / quads; ++part) {
        ints sum[NP][MR];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) sum[p][m] = quads == 2 ? ints(0) : start[m];
        if (part == 0)
            dot_joined_group<Arch, Weights, First, quads, narrow, started, MR, NP>(strip, row, g * Form::padded_block, sum);
        else
            dot_joined_group<Arch, Weights, First + 8, quads, narrow, started, MR, NP>(strip, row, g * Form::padded_block + 8, sum);
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) {
                if constexpr (narrow)
                    sums[p][m] = simd::multiply_narrow<Arch>(sums[p][m], sum[p][m], scales[p]);
                else if constexpr (small)
                    sums[p][m] = simd::multiply_small<Arch>(sums[p][m], sum[p][m], scales[p]);
                else
                    sums[p][m] = sums[p][m] + sum[p][m] * scales[p];
            }
    }
}

/// The same of all groups of a super group, the first of which is g.
template <class Arch, class Weights, class Form, int MR, int NP>
TESSERA_FORCE_INLINE void add_super_minima(Weights const& w, std::byte const* const (&panel)[NP], index_t g, Form const& x, index_t m0,
                                           simd::floats<Arch> (&minima)[NP][MR]) noexcept {
    for (index_t i = g; i < g + Weights::super_groups; ++i)
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            auto const levels = joined_levels<Arch, Weights>(panel[p] + w.scales_offset(i));
            add_joined_minima<Arch, Weights::source::group>(joined_minima<Arch>(levels), x, m0, i, minima[p]);
        }
}

/// Moves integer sums, the last of column k, to float32.
template <class Arch, class Form, int MR, int NP>
TESSERA_FORCE_INLINE void move_joined_sums(Form const& x, index_t m0, index_t k, simd::ints<Arch> (&sums)[NP][MR],
                                           simd::floats<Arch> (&total)[NP][MR]) noexcept {
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            auto const sum = xsimd::to_float(sums[p][m]);
            if constexpr (Form::scale_group == 0)
                total[p][m] = total[p][m] + sum;
            else
                total[p][m] = simd::fma(sum, simd::floats<Arch>(x.scale(m0 + m, k / Form::scale_group)), total[p][m]);
            sums[p][m] = simd::ints<Arch>(0);
        }
}

/// Adds the super group that begins with group g of NP panels: sums stay integers as long as the
/// scale of x is the same, and are multiplied by the super scale once.
template <class Arch, class Weights, class Form, int MR, int NP>
TESSERA_FORCE_INLINE void add_super_group_int8(Weights const& w, std::byte const* const (&panel)[NP], index_t g, Form const& x, index_t m0,
                                               std::int8_t const* const (&row)[MR], index_t distance, index_t panel_bytes,
                                               simd::floats<Arch> (*result)[NP]) noexcept {
    using source = typename Weights::source;
    using ints = simd::ints<Arch>;
    using floats = simd::floats<Arch>;
    constexpr index_t groups = Weights::super_groups;
    index_t const ahead = prefetch_ahead<NP>(distance, panel_bytes, w.record_offset(g));
    // Groups under one scale of x.
    constexpr index_t run = Form::scale_group == 0 ? groups : std::gcd(groups, Form::scale_group / source::group);
    constexpr bool with_minima = Weights::packs_minima && MR * NP <= 4; // else in a loop of their own: there are 32 registers
    constexpr int second = Weights::strip_columns > source::group ? static_cast<int>(source::group) : 0;
    floats total[NP][MR];
    floats minima[NP][MR];
    ints sums[NP][MR];
    std::byte const *scales[NP], *strip[NP];
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
        prefetch_head(w, panel[p], g, ahead);
        scales[p] = panel[p] + w.scales_offset(g);
        strip[p] = panel[p] + w.codes_offset(g);
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) {
            total[p][m] = floats(0.0f);
            minima[p][m] = floats(0.0f);
            sums[p][m] = ints(0);
        }
    }
    constexpr index_t pair_bytes = Weights::codes_bytes(source::group, 2);
    auto const step = [&](index_t strip_bytes) noexcept {
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            scales[p] += Weights::header_bytes;
            strip[p] += strip_bytes;
        }
    };
    for (index_t i = g; i < g + groups; i += 2) {
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
            for (index_t line = 0; line < pair_bytes; line += config::cache_line) prefetch_weights<Weights>(strip[p] + line + ahead);
        add_joined_group<Arch, Weights, Form, 0, with_minima, MR, NP>(scales, strip, i, x, m0, row, sums, minima);
        if constexpr (run == 1) move_joined_sums<Arch>(x, m0, i * source::group, sums, total);
        step(second == 0 ? pair_bytes / 2 : 0);
        add_joined_group<Arch, Weights, Form, second, with_minima, MR, NP>(scales, strip, i + 1, x, m0, row, sums, minima);
        if (run <= 2 || (i + 2 - g) % run == 0) move_joined_sums<Arch>(x, m0, i * source::group, sums, total);
        step(second == 0 ? pair_bytes / 2 : pair_bytes);
    }
    if constexpr (Weights::packs_minima && !with_minima) add_super_minima<Arch>(w, panel, g, x, m0, minima);
#pragma GCC unroll 2
    for (int p = 0; p < NP; ++p) {
        floats const scale = super_scales<Arch, Weights>(panel[p] + w.super_offset(g));
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) result[m][p] = simd::fma(total[p][m], scale, result[m][p]);
        if constexpr (Weights::packs_minima) {
            floats const minimum = super_minima<Arch, Weights>(panel[p] + w.super_offset(g));
#pragma GCC unroll 8
            for (int m = 0; m < MR; ++m) result[m][p] = simd::fma(minima[p][m], minimum, result[m][p]);
        }
    }
}

/// Rows of x whose results wait in memory while panels stream by.
inline constexpr index_t int8_rows_together = 16;

/// Rows m .. m + MR of x by groups [first, last) of NP panels, asked for `distance` ahead: result[m][p] += their part.
template <class Arch, class Weights, class Form, int MR, int NP>
TESSERA_FORCE_INLINE void add_groups_int8(Weights const& w, std::byte const* const (&panel)[NP], index_t first, index_t last,
                                          index_t distance, Form const& x, index_t m, simd::floats<Arch> (*result)[NP]) noexcept {
    std::int8_t const* row[MR];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i) row[i] = x.row(m + i);
    // Few results stay in registers: each group's addition would wait for the one before to pass through memory.
    constexpr bool stays = MR * NP <= 8;
    simd::floats<Arch> local[stays ? MR : 1][NP];
    if constexpr (stays)
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) local[i][p] = result[i][p];
    simd::floats<Arch>(*const sums)[NP] = stays ? local : result;
    index_t const panel_bytes = w.panel_bytes(); // once: prefetches keep the compiler from moving it
    if constexpr (Weights::joins_groups) {
        for (index_t g = first; g < last; g += Weights::super_groups)
            add_super_group_int8<Arch, Weights, Form, MR, NP>(w, panel, g, x, m, row, distance, panel_bytes, result);
        return;
    }
    group_factors<Arch, Weights> factors[NP];
    auto const load_factors = [&](index_t g) noexcept {
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) factors[p].load(w, panel[p], g);
    };
    index_t const whole = minimum(last, w.cols() / w.group());
    index_t g = first;
    while (g < whole) {
        load_factors(g);
        for (index_t const end = group_factors<Arch, Weights>::end(g, whole); g < end; ++g)
            add_group_int8<Arch, Weights, Form, true, MR, NP>(w, panel, factors, g, x, m, row, distance, panel_bytes, sums);
    }
    if constexpr (stays)
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) result[i][p] = local[i][p];
    if constexpr (!has_whole_groups<typename Weights::source>) {
        if (g == last) return;
        load_factors(g);
        add_group_int8<Arch, Weights, Form, false, MR, NP>(w, panel, factors, g, x, m, row, distance, panel_bytes, result);
    }
}

/// Rows m0 .. m0 + rows of x, at most `int8_rows_together`, by NP panels: result[m][p] has one lane per row of panel p. Two
/// panels are also two streams of memory, which DRAM serves faster than one. All rows pass over some groups, then over the
/// next ones, so that codes come from the first-level cache but once.
template <class Arch, class Weights, class Form, int NP>
void product_panels_int8(Weights const& w, std::byte const* const (&panel)[NP], Form const& x, index_t m0, index_t rows,
                         simd::floats<Arch> (*result)[NP]) noexcept {
    using floats = simd::floats<Arch>;
    for (index_t m = 0; m < rows; ++m)
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) result[m][p] = floats(0.0f);
    bool const are_few = rows <= int8_row_block<Arch, Weights>; // one pass
    index_t const together = are_few ? maximum(w.groups(), 1)
                                     : maximum(prefetch_distance / 2 / maximum(w.record_bytes(), 1), 1) * Weights::record_groups;
    // Many rows pass over a group several times: the next one has the time to come from far.
    index_t const distance = is_stream<Weights> && are_few ? stream_distance() : prefetch_distance;
    for (index_t first = 0; first < w.groups(); first += together) {
        index_t const last = minimum(first + together, w.groups());
        for_row_blocks<int8_row_block<Arch, Weights>>(0, rows, [&]<int MR>(index_t m) {
            add_groups_int8<Arch, Weights, Form, MR, NP>(w, panel, first, last, distance, x, m0 + m, result + m);
        });
    }
    if constexpr (Form::scale_group == 0)
        for (index_t m = 0; m < rows; ++m)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) result[m][p] = result[m][p] * floats(x.scale(m0 + m, 0));
}

} // namespace tessera::inline TESSERA_ABI::detail
