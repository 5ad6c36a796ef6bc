// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Int8 rows of x times panels of codes whose format is known at run time, as bytes and scales that its decoder writes
/// (integer_columns.hpp), by integer dot products:
///
///     acc[m][n] += factor * sum over groups g of
///                  scale[n][g] * sum over segments s of g of xscale[m][s] * (dot(u, xq) - z * sum(xq))
///                + minimum[n][g] * sum over s of xscale[m][s] * sum(xq)
///
/// Segments, integers and the order of additions are those of product_int8.hpp, and so are the bits. Formats are numbers here
/// (`integer_layout`): one kernel, compiled for a form of x.

#include "integer_columns.hpp"

#include <new>
#include <numeric>

namespace tessera::inline TESSERA_ABI::detail {

/// See the file comment.
template <class Arch, class Form>
class integer_product {
    using floats = simd::floats<Arch>;
    using ints = simd::ints<Arch>;
    static constexpr index_t R = simd::lanes<Arch>;
    static constexpr int bias = simd::dot4_bias<8, Arch>;
    static_assert(Form::block == 16);

public:
    using columns = integer_columns<Arch>;
    /// Scratch of `rows` rows of x: two panels' columns, what is kept of each row, sums of x.
    static index_t scratch_bytes(integer_layout const& f, index_t cols, index_t rows) noexcept {
        index_t const sums = has_sums(f) ? 0 : ceil_div(cols, f.group);
        return 2 * static_cast<index_t>(sizeof(columns)) + rows * row_floats * static_cast<index_t>(sizeof(float)) +
               round_up(rows * sums * static_cast<index_t>(sizeof(std::int32_t)), config::cache_line);
    }

    /// For rows [m0, m1) of x.
    integer_product(integer_layout const& f, Form const& x, index_t m0, index_t m1, std::byte* scratch) noexcept
        : f_{f}, x_{x}, m0_{m0}, m1_{m1}, cols_{x.columns}, group_{f.group == 0 ? x.columns : f.group}, longest_{longest_of(f)},
          chunk_{f.is_joined                     ? f.super_columns
                 : group_ > columns::most_columns ? columns::most_columns
                                                  : columns::most_quads / ceil_div(group_, 4) * group_},
          group_blocks_{has_sums(f) ? ceil_div(group_, 16) : 1},
          // Dot products leave `bias` times the sum out; of pairs twice, and 128 times the first of them counts.
          factor_{f.offset == offset_kind::zero_point ? 1 : bias - f.zero + (f.is_pair ? bias / 128 : 0)},
          columns_{::new (static_cast<void*>(scratch)) columns, ::new (static_cast<void*>(scratch + sizeof(columns))) columns},
          kept_{reinterpret_cast<float*>(scratch + 2 * sizeof(columns))}, sums_{x.row_sums(m0)}, sums_stride_{Form::blocks_of(x.columns)} {
        if (has_sums(f)) return;
        auto* const sums = reinterpret_cast<std::int32_t*>(kept_ + (m1 - m0) * row_floats);
        sums_ = sums;
        block_ = group_;
        sums_stride_ = ceil_div(cols_, group_);
        for (index_t m = m0; m < m1; ++m)
            for (index_t k = 0, b = 0; k < cols_; k += group_, ++b) {
                std::int32_t sum = 0;
                for (index_t i = k; i < minimum(k + group_, cols_); ++i) sum += x.row(m)[i];
                sums[(m - m0) * sums_stride_ + b] = sum;
            }
    }

    /// One panel or two, decoded by decode(panel, k0, k1, panels, columns): emit(q, m, the results of row m by panel q). A panel alone is
    /// multiplied twice, which saves the compile time of kernels of its own.
    template <class Decode, class Emit>
    void run(std::byte const* const (&panel)[2], int panels, Decode const& decode, Emit const& emit) const noexcept {
        for (index_t m = m0_; m < m1_; ++m)
            for (int q = 0; q < NP; ++q) simd::store<Arch>(kept(m, result) + q * R, floats(0.0f));
        columns const* const w[NP] = {columns_[0], columns_[panels - 1]};
        index_t const groups = maximum(chunk_ / group_, 1); // of a chunk
        for (index_t k0 = 0, g = 0; k0 < cols_;) {
            index_t k1 = minimum(k0 + chunk_, cols_);
            if (group_ > columns::most_columns) {
                g = k0 / group_;
                k1 = minimum(k1, (g + 1) * group_); // a part of one
            }
            for (int q = 0; q < panels; ++q) decode(panel[q], k0, k1, panels, *columns_[q]);
            // Eight quads, or a shorter group, are a step.
            index_t const steps = ceil_div(m1_ - m0_, 8) * (k1 - k0) / (f_.is_joined ? 16 : minimum(group_, 32));
            stream ahead{{w[0]->ahead, w[1]->ahead}, w[0]->ahead_end, 0};
            ahead.step_bytes = round_up(ceil_div(ahead.end - ahead.next[0], maximum(steps, 1)), config::cache_line);
            if (f_.is_joined)
                for_row_blocks<joined_rows>(m0_, m1_, [&]<int MR>(index_t m) { add_joined<MR>(w, k0, g, m, ahead); });
            else if (longest_ >= group_ && group_ <= columns::most_columns)
                for_row_blocks<row_block<Arch>>(m0_, m1_, [&]<int MR>(index_t m) { add_short_groups<MR>(w, k0, k1, g, m, ahead); });
            else
                for_row_blocks<long_rows>(m0_, m1_, [&]<int MR>(index_t m) { add_groups<MR>(w, k0, k1, g, m, ahead); });
            k0 = k1;
            g += groups;
        }
        for (index_t m = m0_; m < m1_; ++m)
            for (int q = 0; q < panels; ++q) {
                floats value = floats::load_aligned(kept(m, result) + q * R);
                if constexpr (Form::scale_group == 0) value = value * floats(x_.scale(m, 0));
                emit(q, m, value);
            }
    }

private:
    /// Panels that are multiplied together: two streams of memory, which share the loads of x.
    static constexpr int NP = 2;
    /// What is kept of a row of x and two panels: the result, sums of an unfinished group and of an unfinished segment.
    enum part { result, unfinished_group, unfinished_segment };
    static constexpr index_t row_floats = 3 * 2 * R;
    /// Rows of x at a time: of joined and of long groups there is more to keep.
    static constexpr int joined_rows = minimum(row_block<Arch>, 4);
    static constexpr int long_rows = minimum(row_block<Arch>, 4);

    /// `longest_segment` of product_int8.hpp.
    static index_t longest_of(integer_layout const& f) noexcept {
        if (f.group % 32 != 0) return f.group;
        if (Form::scale_group == 0) return f.group == 0 ? longest_integer_sum : minimum(longest_integer_sum, f.group);
        return std::gcd(longest_integer_sum, std::gcd(Form::scale_group, f.group));
    }
    float* kept(index_t m, part what) const noexcept { return kept_ + (m - m0_) * row_floats + what * 2 * R; }
    /// Whether the form of x has the sums over a format's groups, as blocks of 16.
    static bool has_sums(integer_layout const& f) noexcept { return f.group % 32 == 0 || f.group == 16; }
    /// The sum of row m over columns from `first`, where a block begins.
    std::int32_t sum_of(index_t m, index_t first, index_t count) const noexcept {
        std::int32_t const* const sums = sums_ + (m - m0_) * sums_stride_;
        std::int32_t sum = 0;
        for (index_t b = first / block_; b < ceil_div(first + count, block_); ++b) sum += sums[b];
        return sum;
    }
    /// The same of a group, as the product sees x.
    float scaled_sum_of(index_t m, index_t first, index_t count) const noexcept {
        index_t const step = f_.group % 32 == 0 ? 32 : group_; // blocks of the form that the format's own type has
        float total = 0;
        for (index_t k = 0; k < count; k += step) {
            auto scaled = static_cast<float>(sum_of(m, first + k, minimum(step, count - k)));
            if constexpr (Form::scale_group != 0) scaled *= x_.scale(m, (first + k) / Form::scale_group);
            total = k == 0 ? scaled : total + scaled;
        }
        return total;
    }

    /// What x gives to the short groups of a chunk: what their integer sums start with, its scale, its sums.
    template <int MR>
    struct terms {
        std::int32_t starts[columns::most_quads][MR];
        float scales[columns::most_quads][MR];
        float sums[columns::most_quads][MR];

        TESSERA_FORCE_INLINE void fill(integer_product const& of, index_t k0, index_t k1, index_t g0, index_t m) noexcept {
            index_t const group = of.group_, whole = (k1 - k0) / group, groups = ceil_div(k1 - k0, group), last = k1 - k0 - (groups - 1) * group;
            index_t const blocks = of.group_blocks_, first_block = g0 * blocks;
            for (int i = 0; i < MR; ++i) {
                std::int32_t const* from = of.sums_ + (m + i - of.m0_) * of.sums_stride_ + first_block;
                auto const take = [&](index_t g, std::int32_t sum) noexcept {
                    starts[g][i] = of.factor_ * sum;
                    sums[g][i] = static_cast<float>(sum);
                };
                if (blocks == 1)
                    for (index_t g = 0; g < whole; ++g) take(g, from[g]);
                else if (blocks == 2)
                    for (index_t g = 0; g < whole; ++g) take(g, from[2 * g] + from[2 * g + 1]);
                else
                    for (index_t g = 0; g < whole; ++g) take(g, of.sum_of(m + i, k0 + g * group, group));
                if (whole < groups) take(whole, of.sum_of(m + i, k0 + whole * group, last));
                if constexpr (Form::scale_group != 0)
                    for (index_t g = 0, k = k0; g < groups; ++g, k += group) scales[g][i] = of.x_.scale(m + i, k / Form::scale_group);
            }
            if (of.f_.offset != offset_kind::minimum) return;
            if constexpr (Form::scale_group != 0)
                for (index_t g = 0; g < groups; ++g)
                    for (int i = 0; i < MR; ++i) sums[g][i] *= scales[g][i];
            if (group > 32)
                for (index_t g = 0; g < groups; ++g)
                    for (int i = 0; i < MR; ++i) sums[g][i] = of.scaled_sum_of(m + i, k0 + g * group, g + 1 < groups ? group : last);
        }
    };

    /// v = what is kept of rows m to m + MR; the reverse; v = 0.
    template <class V, int MR>
    TESSERA_FORCE_INLINE void load_kept(index_t m, part what, V (&v)[NP][MR]) const noexcept {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) v[p][i] = V::load_aligned(reinterpret_cast<typename V::value_type const*>(kept(m + i, what) + p * R));
    }
    template <class V, int MR>
    TESSERA_FORCE_INLINE void store_kept(index_t m, part what, V const (&v)[NP][MR]) const noexcept {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) v[p][i].store_aligned(reinterpret_cast<typename V::value_type*>(kept(m + i, what) + p * R));
    }
    template <class V, int MR>
    TESSERA_FORCE_INLINE static void clear(V (&v)[NP][MR]) noexcept {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) v[p][i] = V(0);
    }
    /// total += integer sums, times the scales of x where they are not the row's.
    template <int MR>
    TESSERA_FORCE_INLINE static void add_sums(ints const (&sum)[NP][MR], [[maybe_unused]] float const (&x_scales)[MR],
                                              floats (&total)[NP][MR]) noexcept {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                floats const value = xsimd::to_float(sum[p][i]);
                if constexpr (Form::scale_group == 0)
                    total[p][i] = total[p][i] + value;
                else
                    total[p][i] = simd::fma(value, floats(x_scales[i]), total[p][i]);
            }
    }

    /// Memory that is asked for in steps.
    struct stream {
        std::byte const* next[NP];
        std::byte const* end; ///< of the first panel's; the others have as much
        index_t step_bytes;

        TESSERA_FORCE_INLINE void step() noexcept {
            if (next[0] >= end) return;
            for (index_t line = 0; line < step_bytes; line += config::cache_line)
#pragma GCC unroll 2
                for (int p = 0; p < NP; ++p) simd::prefetch(next[p] + line);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) next[p] += step_bytes;
        }
    };

    /// sum += the dot products of `quads` quads with x.
    template <int MR>
    TESSERA_FORCE_INLINE static void dot(std::byte const* const (&codes)[NP], std::int8_t const* const (&x)[MR], index_t quads,
                                         ints (&sum)[NP][MR], stream& ahead) noexcept {
        index_t q = 0;
        for (; q + 8 <= quads; q += 8) {
            ahead.step();
#pragma GCC unroll 8
            for (index_t j = 0; j < 8; ++j) dot_quad<MR>(codes, x, q + j, sum);
        }
        if (q == quads) return;
        ahead.step();
#pragma GCC unroll 1
        for (; q < quads; ++q) dot_quad<MR>(codes, x, q, sum);
    }
    template <int MR>
    TESSERA_FORCE_INLINE static void dot_quad(std::byte const* const (&codes)[NP], std::int8_t const* const (&x)[MR], index_t q,
                                              ints (&sum)[NP][MR]) noexcept {
        ints code[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) code[p] = ints::load_aligned(reinterpret_cast<std::int32_t const*>(codes[p] + q * columns::quad_bytes));
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
            ints const four = simd::broadcast_bytes4<Arch>(x[i] + 4 * q);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) sum[p][i] = simd::dot4_less<8, Arch>(sum[p][i], code[p], four);
        }
    }
    /// sum = what a segment in the chunk's group g starts with: -zero * sum(x), zero the format's or the group's, less what dot
    /// products leave out.
    template <int MR>
    TESSERA_FORCE_INLINE void start(columns const* const (&w)[NP], index_t g, std::int32_t const (&first)[MR], ints (&sum)[NP][MR]) const noexcept {
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
            ints const start(first[i]);
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) sum[p][i] = start;
        }
        if (f_.offset != offset_kind::zero_point) return;
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            ints const zero = ints(bias) - ints::load_aligned(w[p]->integers + g * R);
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i) sum[p][i] = sum[p][i] * zero;
        }
    }
    /// sum += the products of a segment, or a part of one, at `bytes`.
    template <int MR>
    TESSERA_FORCE_INLINE void add_codes(columns const* const (&w)[NP], index_t bytes, std::int8_t const* const (&x)[MR], index_t quads,
                                        ints (&sum)[NP][MR], stream& ahead) const noexcept {
        std::byte const* codes[NP];
        if (f_.is_pair) {
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) codes[p] = w[p]->high + bytes;
            dot<MR>(codes, x, quads, sum, ahead);
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i)
#pragma GCC unroll 2
                for (int p = 0; p < NP; ++p) sum[p][i] = simd::move_right<Arch>(sum[p][i], -7);
        }
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) codes[p] = w[p]->low + bytes;
        dot<MR>(codes, x, quads, sum, ahead);
    }

    /// Rows m to m + MR by the groups of columns [k0, k1), the first of which is g, a segment each.
    template <int MR>
    void add_short_groups(columns const* const (&w)[NP], index_t k0, index_t k1, index_t g, index_t m, stream& ahead) const noexcept {
        // Few results stay in registers.
        constexpr bool stays = MR * NP <= 8;
        std::int8_t const* row[MR];
        float* const results = kept(m, result);
        floats y[NP][MR];
        if constexpr (stays) load_kept(m, result, y);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) row[i] = x_.row(m + i) + k0;
        auto const add = [&](int p, int i, floats const& a, floats const& b) noexcept {
            float* const at = results + i * row_floats + p * R;
            if constexpr (stays)
                y[p][i] = simd::fma(a, b, y[p][i]);
            else
                simd::store<Arch>(at, simd::fma(a, b, floats::load_aligned(at)));
        };
        bool const has_minima = f_.offset == offset_kind::minimum;
        terms<MR> of_x;
        of_x.fill(*this, k0, k1, g, m);
        index_t const group = group_, group_quads = ceil_div(group_, 4); // not read again after every store
        index_t bytes = 0;
        for (index_t k = k0, at = 0; k < k1; k += group, ++at) {
            index_t const quads = k + group <= k1 ? group_quads : ceil_div(k1 - k, 4);
            ints sum[NP][MR];
            start<MR>(w, at, of_x.starts[at], sum);
            add_codes<MR>(w, bytes, row, quads, sum, ahead);
            bytes += quads * columns::quad_bytes;
            floats scale[NP];
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) scale[p] = floats::load_aligned(w[p]->scales + at * R);
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i) {
                row[i] += group;
                [[maybe_unused]] floats of_row(0.0f);
                if constexpr (Form::scale_group != 0) of_row = floats(of_x.scales[at][i]);
#pragma GCC unroll 2
                for (int p = 0; p < NP; ++p) {
                    floats value = xsimd::to_float(sum[p][i]);
                    if constexpr (Form::scale_group != 0) value = value * of_row;
                    add(p, i, value, scale[p]);
                }
            }
            if (has_minima) {
#pragma GCC unroll 2
                for (int p = 0; p < NP; ++p) scale[p] = floats::load_aligned(w[p]->minima + at * R);
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) {
                    floats const of_row(of_x.sums[at][i]);
#pragma GCC unroll 2
                    for (int p = 0; p < NP; ++p) add(p, i, scale[p], of_row);
                }
            }
        }
        if constexpr (stays) store_kept(m, result, y);
    }

    /// The same of groups of several segments, or a part of one.
    template <int MR>
    void add_groups(columns const* const (&w)[NP], index_t k0, index_t k1, index_t g, index_t m, stream& ahead) const noexcept {
        std::int8_t const* row[MR];
        floats y[NP][MR];
        load_kept(m, result, y);
        index_t bytes = 0;
        for (index_t k = k0, at = 0; k < k1; ++g, ++at) {
            index_t const begin = g * group_, end = minimum(begin + group_, cols_), stop = minimum(end, k1);
            floats total[NP][MR];
            if (k == begin)
                clear(total);
            else
                load_kept(m, unfinished_group, total);
            for (index_t segment = begin + (k - begin) / longest_ * longest_; k < stop; segment += longest_) {
                index_t const segment_end = minimum(segment + longest_, end), next = minimum(segment_end, stop), quads = ceil_div(next - k, 4);
                std::int32_t first[MR];
                float x_scales[MR] = {};
                ints sum[NP][MR];
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) {
                    row[i] = x_.row(m + i) + k;
                    first[i] = factor_ * sum_of(m + i, segment, segment_end - segment);
                    if constexpr (Form::scale_group != 0) x_scales[i] = x_.scale(m + i, segment / Form::scale_group);
                }
                if (k == segment)
                    start<MR>(w, at, first, sum);
                else // cut where a chunk ended; segments of pairs never are
                    load_kept(m, unfinished_segment, sum);
                add_codes<MR>(w, bytes, row, quads, sum, ahead);
                bytes += quads * columns::quad_bytes;
                k = next;
                if (next == segment_end)
                    add_sums(sum, x_scales, total);
                else
                    store_kept(m, unfinished_segment, sum);
            }
            if (k != end) {
                store_kept(m, unfinished_group, total);
                break;
            }
#pragma GCC unroll 2
            for (int p = 0; p < NP; ++p) {
                floats const scale = floats::load_aligned(w[p]->scales + at * R);
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) {
                    y[p][i] = simd::fma(total[p][i], scale, y[p][i]);
                    if (f_.offset == offset_kind::minimum)
                        y[p][i] = simd::fma(floats::load_aligned(w[p]->minima + at * R), floats(scaled_sum_of(m + i, begin, end - begin)), y[p][i]);
                }
            }
        }
        store_kept(m, result, y);
    }

    /// sums += the products of the chunk's group g of 16 with x, times the group's integers.
    template <int MR>
    TESSERA_FORCE_INLINE void add_joined_group(columns const* const (&w)[NP], index_t g, std::int32_t const (&first)[MR],
                                               std::int8_t const* const (&row)[MR], ints (&sums)[NP][MR]) const noexcept {
        ints sum[NP][MR];
        std::byte const* codes[NP];
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            codes[p] = w[p]->low + g * 4 * columns::quad_bytes;
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i) sum[p][i] = ints(first[i]);
        }
#pragma GCC unroll 4
        for (index_t q = 0; q < 4; ++q) dot_quad<MR>(codes, row, q, sum);
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p) {
            ints const scale = ints::load_aligned(w[p]->integers + g * R);
            if (f_.is_small)
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) sums[p][i] = simd::multiply_small<Arch>(sums[p][i], sum[p][i], scale);
            else
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) sums[p][i] = sums[p][i] + sum[p][i] * scale;
        }
    }
    /// Rows m to m + MR by the super group that begins at column k0 with the row's group g0.
    template <int MR>
    void add_joined(columns const* const (&w)[NP], index_t k0, index_t g0, index_t m, stream& ahead) const noexcept {
        constexpr index_t group = 16;
        index_t const groups = f_.super_columns / group;
        // Groups under one scale of x.
        index_t const run = Form::scale_group == 0 ? groups : std::gcd(groups, Form::scale_group / group);
        bool const has_minima = f_.offset == offset_kind::minimum;
        terms<MR> of_x;
        of_x.fill(*this, k0, k0 + f_.super_columns, g0, m);
        std::int8_t const* row[MR];
        floats total[NP][MR], minima[NP][MR];
        clear(total);
        clear(minima);
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) row[i] = x_.row(m + i) + k0;
        for (index_t g = 0; g < groups;) {
            ints sums[NP][MR];
            clear(sums);
            for (index_t const end = g + run; g < end; ++g) {
                ahead.step();
                add_joined_group<MR>(w, g, of_x.starts[g], row, sums);
#pragma GCC unroll 8
                for (int i = 0; i < MR; ++i) row[i] += group;
                if (!has_minima) continue;
#pragma GCC unroll 2
                for (int p = 0; p < NP; ++p) {
                    floats const minimum = floats::load_aligned(w[p]->minima + g * R);
#pragma GCC unroll 8
                    for (int i = 0; i < MR; ++i) minima[p][i] = simd::fma(minimum, floats(of_x.sums[g][i]), minima[p][i]);
                }
            }
            add_sums(sums, of_x.scales[g - 1], total);
        }
        floats y[NP][MR];
        load_kept(m, result, y);
#pragma GCC unroll 2
        for (int p = 0; p < NP; ++p)
#pragma GCC unroll 8
            for (int i = 0; i < MR; ++i) {
                y[p][i] = simd::fma(total[p][i], floats::load_aligned(w[p]->scales), y[p][i]);
                if (has_minima) y[p][i] = simd::fma(minima[p][i], floats::load_aligned(w[p]->super_minima), y[p][i]);
            }
        store_kept(m, result, y);
    }

    integer_layout f_;
    Form const& x_;
    index_t m0_, m1_, cols_, group_, longest_;
    index_t chunk_; ///< columns that are decoded together
    index_t group_blocks_; ///< of sums of x
    int factor_;    ///< of the sum of x over a segment, in what its integer sum starts with
    columns* columns_[2];
    float* kept_;
    std::int32_t const* sums_; ///< of x over blocks of columns, from row m0 on
    index_t sums_stride_;
    index_t block_ = 16;
};

} // namespace tessera::inline TESSERA_ABI::detail
