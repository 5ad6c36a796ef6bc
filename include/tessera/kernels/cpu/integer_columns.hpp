// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Integer products of codes whose format is known at run time. What a format adds is `decode_integers`: columns of a panel
/// (storage/prepacked.hpp) as unsigned bytes with their scales, 256 columns at most, which stay in the first-level cache. The product
/// of these by int8 rows of x knows no format but by numbers, `integer_layout`, so that it is compiled once for all:
///
///     acc[m][n] += factor * sum over groups g of
///                  scale[n][g] * sum over segments s of g of xscale[m][s] * (dot(u, xq) - z * sum(xq))
///                + minimum[n][g] * sum over s of xscale[m][s] * sum(xq)
///
/// Segments, integers and the order of additions are those of product_int8.hpp, and so are the bits.

#include "product_int8.hpp"

#include <new>
#include <numeric>

namespace tessera::inline TESSERA_ABI::detail {

/// What an integer product has to know of a format.
struct integer_layout {
    bool is_served = false;    ///< whether there is such a product
    bool takes_groups = false; ///< whether x may have a scale for every group of its columns, too
    bool is_pair = false;      ///< two bytes a code: 128 * (high - zero) + low
    bool is_joined = false;    ///< groups of 16 whose scales are integers under a super scale, and whose sums stay integers
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
};

/// Strips of codes as bytes.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE void decode_integer_strips(std::byte const* codes, index_t strips, index_t ahead, [[maybe_unused]] std::byte* high,
                                                std::byte* low) noexcept {
    constexpr int quads = static_cast<int>(Weights::strip_columns / 4);
    constexpr index_t quad_bytes = integer_columns<Arch>::quad_bytes;
    for (index_t s = 0; s < strips; ++s, codes += Weights::strip_bytes, low += quads * quad_bytes) {
#pragma GCC unroll 8
        for (index_t line = 0; line < Weights::strip_bytes; line += config::cache_line) simd::prefetch(codes + line + ahead);
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

/// Columns [k0, k1) of a panel: whole groups, or a part of one that begins at a multiple of 256 of its columns; joined, a whole super
/// group. `together`: panels that are read side by side.
template <class Arch, class Weights>
void decode_integers(Weights const& w, std::byte const* panel, index_t k0, index_t k1, int together, integer_columns<Arch>& out) noexcept {
    using source = typename Weights::source;
    constexpr index_t R = simd::lanes<Arch>, quad_bytes = integer_columns<Arch>::quad_bytes;
    index_t const panel_bytes = w.panel_bytes();
    auto const ahead = [&](index_t offset) noexcept {
        return together == 1 ? prefetch_distance : prefetch_ahead<2>(panel_bytes, offset);
    };
    index_t g = k0 / w.group();
    if constexpr (Weights::joins_groups) {
        static_assert(Weights::super_groups * source::group <= integer_columns<Arch>::most_columns);
        index_t const at = w.codes_offset(g);
        prefetch_head(w, panel, g, ahead(w.record_offset(g)));
        decode_integer_strips<Arch, Weights>(panel + at, (k1 - k0) / Weights::strip_columns, ahead(at), out.high, out.low);
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
        for (index_t i = 0; k0 < k1; ++i, ++g) {
            if (g >= loaded) {
                factors.load(w, panel, g);
                loaded = group_factors<Arch, Weights>::end(g, w.groups());
            }
            prefetch_head(w, panel, g, ahead(w.record_offset(g)));
            std::byte const* const scales = panel + w.scales_offset(g);
            simd::store<Arch>(out.scales + i * R, factors.integer_scales(scales));
            if constexpr (source::offset == offset_kind::minimum) simd::store<Arch>(out.minima + i * R, factors.minima(scales));
            if constexpr (source::offset == offset_kind::zero_point)
                zero_points_at<Arch, Weights>(scales).store_aligned(out.integers + i * R);
            index_t const first = k0 - g * w.group();
            index_t const columns = minimum(k1 - k0, w.group_columns(g) - first);
            index_t const at = w.codes_offset(g) + Weights::strip_offset(first);
            decode_integer_strips<Arch, Weights>(panel + at, Weights::strips(columns), ahead(at), high, low);
            low += ceil_div(columns, 4) * quad_bytes;
            high += ceil_div(columns, 4) * quad_bytes;
            if (columns % 4 != 0)
                for (index_t r = 0; r < R; ++r)
                    for (index_t j = columns % 4; j < 4; ++j) {
                        low[4 * r + j - quad_bytes] = static_cast<std::byte>(integer_columns<Arch>::padding);
                        if constexpr (integer_codes<source>::kind == integer_codes_kind::pair)
                            high[4 * r + j - quad_bytes] = static_cast<std::byte>(integer_columns<Arch>::padding);
                    }
            k0 += columns;
        }
    }
}

/// The product; see the file comment.
template <class Arch, class Form>
class integer_product {
    using floats = simd::floats<Arch>;
    using ints = simd::ints<Arch>;
    static constexpr index_t R = simd::lanes<Arch>;
    static constexpr int bias = simd::dot4_bias<8, Arch>;
    static_assert(Form::block == 16);

public:
    using columns = integer_columns<Arch>;
    /// What is kept of a row of x and two panels: the result, sums of an unfinished group and of an unfinished segment.
    static constexpr index_t row_bytes = 3 * 2 * R * static_cast<index_t>(sizeof(float));
    /// Scratch of `rows` rows of x: two panels' columns, what is kept, sums of x that its form has not.
    static index_t scratch_bytes(integer_layout const& f, index_t cols, index_t rows) noexcept {
        return 2 * static_cast<index_t>(sizeof(columns)) + rows * row_bytes +
               round_up(has_sums(f) ? 0 : rows * ceil_div(cols, f.group) * static_cast<index_t>(sizeof(std::int32_t)), config::cache_line);
    }

    /// For rows [m0, m1) of x.
    integer_product(integer_layout const& f, Form const& x, index_t m0, index_t m1, std::byte* scratch) noexcept
        : f_{f}, x_{x}, m0_{m0}, m1_{m1}, cols_{x.columns}, group_{f.group == 0 ? x.columns : f.group}, longest_{longest_segment_of(f)},
          columns_{::new (static_cast<void*>(scratch)) columns, ::new (static_cast<void*>(scratch + sizeof(columns))) columns},
          kept_{reinterpret_cast<float*>(scratch + 2 * sizeof(columns))} {
        if (has_sums(f)) return;
        auto* const sums = reinterpret_cast<std::int32_t*>(scratch + 2 * static_cast<index_t>(sizeof(columns)) + (m1 - m0) * row_bytes);
        blocks_ = ceil_div(cols_, group_);
        for (index_t m = m0; m < m1; ++m)
            for (index_t b = 0; b < blocks_; ++b) {
                std::int32_t sum = 0;
                for (index_t k = b * group_; k < minimum((b + 1) * group_, cols_); ++k) sum += x.row(m)[k];
                sums[(m - m0) * blocks_ + b] = sum;
            }
        sums_ = sums;
    }

    /// NP panels, decoded by decode(panel, k0, k1, NP, columns): emit(q, m, the results of row m by panel q).
    template <int NP, class Decode, class Emit>
    void run(std::byte const* const (&panel)[NP], Decode const& decode, Emit const& emit) const noexcept {
        for (index_t m = m0_; m < m1_; ++m)
            for (int q = 0; q < NP; ++q) simd::store<Arch>(kept(m, result, q), floats(0.0f));
        columns const* w[NP];
        for (int q = 0; q < NP; ++q) w[q] = columns_[q];
        for (index_t k0 = 0; k0 < cols_;) {
            index_t const k1 = chunk_end(k0);
            for (int q = 0; q < NP; ++q) decode(panel[q], k0, k1, NP, *columns_[q]);
            for_row_blocks<row_block<Arch>>(m0_, m1_, [&]<int MR>(index_t m) {
                if (f_.is_joined)
                    add_joined<MR, NP>(w, k0, m);
                else
                    add_groups<MR, NP>(w, k0, k1, m);
            });
            k0 = k1;
        }
        for (index_t m = m0_; m < m1_; ++m)
            for (int q = 0; q < NP; ++q) {
                floats value = floats::load_aligned(kept(m, result, q));
                if constexpr (Form::scale_group == 0) value = value * floats(x_.scale(m, 0));
                emit(q, m, value);
            }
    }

private:
    enum part { result, unfinished_group, unfinished_segment };

    /// Whether the sums of x over a format's groups are those of blocks of its form.
    static bool has_sums(integer_layout const& f) noexcept { return f.group % 16 == 0 && (f.group == 16 || f.group % 32 == 0); }
    /// `longest_segment` of product_int8.hpp.
    static index_t longest_segment_of(integer_layout const& f) noexcept {
        if (f.group % 32 != 0) return f.group;
        if (Form::scale_group == 0) return f.group == 0 ? longest_integer_sum : minimum(longest_integer_sum, f.group);
        return std::gcd(longest_integer_sum, std::gcd(Form::scale_group, f.group));
    }
    /// As many whole groups as fit, or a part of one.
    index_t chunk_end(index_t k) const noexcept {
        if (f_.is_joined) return k + f_.super_columns;
        if (group_ > columns::most_columns) return minimum(k + columns::most_columns, minimum((k / group_ + 1) * group_, cols_));
        return minimum(k + columns::most_quads / ceil_div(group_, 4) * group_, cols_);
    }
    float* kept(index_t m, part what, int q) const noexcept { return kept_ + ((m - m0_) * 6 + what * 2 + q) * R; }

    /// The sum of row m over `columns` columns of a group, from the beginning of a segment.
    std::int32_t sum_of(index_t m, index_t first, index_t columns) const noexcept {
        if (sums_ != nullptr) return sums_[(m - m0_) * blocks_ + first / group_];
        std::int32_t const* const sums = x_.row_sums(m) + first / 16;
        std::int32_t sum = sums[0];
        for (index_t b = 1; b < ceil_div(columns, 16); ++b) sum += sums[b];
        return sum;
    }
    /// The same of a whole group as the product sees x.
    float scaled_sum_of(index_t m, index_t first, index_t columns) const noexcept {
        auto const scaled = [&](index_t k, index_t count) noexcept {
            auto const sum = static_cast<float>(sum_of(m, k, count));
            if constexpr (Form::scale_group == 0)
                return sum;
            else
                return sum * x_.scale(m, k / Form::scale_group);
        };
        if (f_.group % 32 != 0) return scaled(first, columns);
        float total = scaled(first, minimum(columns, 32));
        for (index_t k = 32; k < columns; k += 32) total += scaled(first + k, minimum(columns - k, 32));
        return total;
    }

    /// sum += the dot products of `quads` quads with x from column k.
    template <int MR, int NP>
    TESSERA_FORCE_INLINE static void dot(std::byte const* const (&codes)[NP], std::int8_t const* const (&x)[MR], index_t k, index_t quads,
                                         ints (&sum)[NP][MR]) noexcept {
        index_t q = 0;
        for (; q + 4 <= quads; q += 4)
#pragma GCC unroll 4
            for (index_t j = 0; j < 4; ++j) dot_quad<MR, NP>(codes, q + j, x, k, sum);
        for (; q < quads; ++q) dot_quad<MR, NP>(codes, q, x, k, sum);
    }
    template <int MR, int NP>
    TESSERA_FORCE_INLINE static void dot_quad(std::byte const* const (&codes)[NP], index_t q, std::int8_t const* const (&x)[MR], index_t k,
                                              ints (&sum)[NP][MR]) noexcept {
        ints code[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) code[p] = ints::load_aligned(reinterpret_cast<std::int32_t const*>(codes[p] + q * columns::quad_bytes));
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
            ints const four = simd::broadcast_bytes4<Arch>(x[i] + k + 4 * q);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) sum[p][i] = simd::dot4_less<8, Arch>(sum[p][i], code[p], four);
        }
    }

    /// Rows m to m + MR by the groups, or the part of a group, of columns [k0, k1).
    template <int MR, int NP>
    void add_groups(columns const* const (&w)[NP], index_t k0, index_t k1, index_t m) const noexcept {
        std::int8_t const* row[MR];
        floats y[NP][MR];
        for (int i = 0; i < MR; ++i) {
            row[i] = x_.row(m + i);
            for (int p = 0; p < NP; ++p) y[p][i] = floats::load_aligned(kept(m + i, result, p));
        }
        index_t begin = k0 / group_ * group_; // of the group
        for (index_t k = k0, quad = 0, g = 0; k < k1; ++g, begin += group_) {
            index_t const end = minimum(begin + group_, cols_);
            index_t const stop = minimum(end, k1);
            floats total[NP][MR];
            for (int i = 0; i < MR; ++i)
                for (int p = 0; p < NP; ++p) total[p][i] = k == begin ? floats(0.0f) : floats::load_aligned(kept(m + i, unfinished_group, p));
            index_t segment = k == begin ? begin : begin + (k - begin) / longest_ * longest_;
            while (k < stop) {
                index_t const segment_end = minimum(segment + longest_, end), next = minimum(segment_end, stop);
                ints sum[NP][MR];
                if (k == segment)
                    start<MR, NP>(w, g, m, segment, segment_end - segment, sum);
                else
                    for (int i = 0; i < MR; ++i)
                        for (int p = 0; p < NP; ++p)
                            sum[p][i] = ints::load_aligned(reinterpret_cast<std::int32_t const*>(kept(m + i, unfinished_segment, p)));
                index_t const quads = ceil_div(next - k, 4);
                std::byte const* codes[NP];
                if (f_.is_pair) { // whose segments are never cut
                    for (int p = 0; p < NP; ++p) codes[p] = w[p]->high + quad * columns::quad_bytes;
                    dot<MR, NP>(codes, row, k, quads, sum);
                    for (int i = 0; i < MR; ++i) {
                        ints const less(bias == 0 ? 0 : bias * sum_of(m + i, segment, segment_end - segment));
                        for (int p = 0; p < NP; ++p) sum[p][i] = simd::move_right<Arch>(sum[p][i], -7) + less;
                    }
                }
                for (int p = 0; p < NP; ++p) codes[p] = w[p]->low + quad * columns::quad_bytes;
                dot<MR, NP>(codes, row, k, quads, sum);
                quad += quads;
                k = next;
                if (next == segment_end) {
#pragma GCC unroll 8
                    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
                        for (int p = 0; p < NP; ++p) {
                            floats const value = xsimd::to_float(sum[p][i]);
                            if constexpr (Form::scale_group == 0)
                                total[p][i] = total[p][i] + value;
                            else
                                total[p][i] = simd::fma(value, floats(x_.scale(m + i, segment / Form::scale_group)), total[p][i]);
                        }
                    segment = next;
                } else {
                    for (int i = 0; i < MR; ++i)
                        for (int p = 0; p < NP; ++p)
                            sum[p][i].store_aligned(reinterpret_cast<std::int32_t*>(kept(m + i, unfinished_segment, p)));
                }
            }
            if (k < end) {
                for (int i = 0; i < MR; ++i)
                    for (int p = 0; p < NP; ++p) simd::store<Arch>(kept(m + i, unfinished_group, p), total[p][i]);
                break;
            }
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                floats const scale = floats::load_aligned(w[p]->scales + g * R);
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) y[p][i] = simd::fma(total[p][i], scale, y[p][i]);
            }
            if (f_.offset == offset_kind::minimum)
                for (int i = 0; i < MR; ++i) {
                    floats const sum(scaled_sum_of(m + i, begin, end - begin));
                    for (int p = 0; p < NP; ++p) y[p][i] = simd::fma(floats::load_aligned(w[p]->minima + g * R), sum, y[p][i]);
                }
        }
        for (int i = 0; i < MR; ++i)
            for (int p = 0; p < NP; ++p) simd::store<Arch>(kept(m + i, result, p), y[p][i]);
    }
    /// sum = -zero * the sums of x over a segment, zero the format's or the group's, less what dot products leave out.
    template <int MR, int NP>
    TESSERA_FORCE_INLINE void start(columns const* const (&w)[NP], index_t g, index_t m, index_t first, index_t columns_here,
                                    ints (&sum)[NP][MR]) const noexcept {
        for (int i = 0; i < MR; ++i) {
            std::int32_t const of_x = sum_of(m + i, first, columns_here);
            for (int p = 0; p < NP; ++p) {
                if (f_.offset == offset_kind::zero_point)
                    sum[p][i] = (ints(bias) - ints::load_aligned(w[p]->integers + g * R)) * ints(of_x);
                else
                    sum[p][i] = ints((bias - f_.zero) * of_x);
            }
        }
    }

    /// Rows m to m + MR by the super group that begins at column k0.
    template <int MR, int NP>
    void add_joined(columns const* const (&w)[NP], index_t k0, index_t m) const noexcept {
        constexpr index_t group = 16;
        index_t const groups = f_.super_columns / group;
        // Groups under one scale of x.
        index_t const run = Form::scale_group == 0 ? groups : std::gcd(groups, Form::scale_group / group);
        std::int8_t const* row[MR];
        floats total[NP][MR], minima[NP][MR];
        ints sums[NP][MR];
        for (int i = 0; i < MR; ++i) {
            row[i] = x_.row(m + i);
            for (int p = 0; p < NP; ++p) {
                total[p][i] = minima[p][i] = floats(0.0f);
                sums[p][i] = ints(0);
            }
        }
        bool const has_minima = f_.offset == offset_kind::minimum;
        for (index_t g = 0; g < groups; ++g) {
            index_t const k = k0 + g * group;
            ints sum[NP][MR];
            std::byte const* codes[NP];
            for (int p = 0; p < NP; ++p) codes[p] = w[p]->low + g * (group / 4) * columns::quad_bytes;
            for (int i = 0; i < MR; ++i) {
                std::int32_t const of_x = x_.row_sums(m + i)[k / group];
                for (int p = 0; p < NP; ++p) sum[p][i] = ints((bias - f_.zero) * of_x);
            }
            dot<MR, NP>(codes, row, k, group / 4, sum);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                ints const scale = ints::load_aligned(w[p]->integers + g * R);
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) sums[p][i] = sums[p][i] + sum[p][i] * scale;
            }
            if (has_minima)
                for (int i = 0; i < MR; ++i) {
                    floats const of_x(scaled_sum_of(m + i, k, group));
                    for (int p = 0; p < NP; ++p) minima[p][i] = simd::fma(floats::load_aligned(w[p]->minima + g * R), of_x, minima[p][i]);
                }
            if ((g + 1) % run == 0)
                for (int i = 0; i < MR; ++i)
                    for (int p = 0; p < NP; ++p) {
                        floats const value = xsimd::to_float(sums[p][i]);
                        if constexpr (Form::scale_group == 0)
                            total[p][i] = total[p][i] + value;
                        else
                            total[p][i] = simd::fma(value, floats(x_.scale(m + i, k / Form::scale_group)), total[p][i]);
                        sums[p][i] = ints(0);
                    }
        }
        for (int i = 0; i < MR; ++i)
            for (int p = 0; p < NP; ++p) {
                float* const y = kept(m + i, result, p);
                floats value = simd::fma(total[p][i], floats::load_aligned(w[p]->scales), floats::load_aligned(y));
                if (has_minima) value = simd::fma(minima[p][i], floats::load_aligned(w[p]->super_minima), value);
                simd::store<Arch>(y, value);
            }
    }

    integer_layout f_;
    Form const& x_;
    index_t m0_, m1_, cols_, group_, longest_;
    columns* columns_[2];
    float* kept_;
    std::int32_t const* sums_ = nullptr; // over groups that are no whole blocks of x
    index_t blocks_ = 0;
};

} // namespace tessera::inline TESSERA_ABI::detail
