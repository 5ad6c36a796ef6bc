// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Decoding from caches whose elements are small integers times a scale, on matrix tiles (simd/digits.hpp): int8, and codes of
/// 4 bits whose values are multiples of one number (int4, uint4 with zero points, e2m1). Queries, and the weights of 64 keys,
/// are integers of 30 bits here: 4 digits that are rows of tiles, so that no code becomes a float.
///
/// A key of 128 columns takes 12 ns (int8) and 15 (int4 in groups of 64) with 4 rows of queries in the caches, 22 and 16.5
/// from DRAM, which gives it in 16.5 and 8.5; converted to floats it took 33 and 60. Measured on one thread of a Xeon with AMX.

#include "../../simd/decode.hpp"
#include "../../simd/digits.hpp"
#include "../../storage/integer_codes.hpp"
#include "attention_tile.hpp"

#include <algorithm>
#include <cstring>
#include <type_traits>

namespace tessera::inline TESSERA_ABI::detail {

/// Lines of a cache that are wanted soon, asked for little by little: a burst fills the processor's few miss buffers, and what
/// comes after it waits. 64 lines after each other took 1.3 times as long as two for every register of a key.
class cache_ahead {
public:
    cache_ahead() noexcept = default;
    /// `rows` rows of `bytes`, `stride` bytes apart, in `steps` steps.
    cache_ahead(void const* data, index_t bytes, index_t stride, index_t rows, index_t steps) noexcept
        : at_{static_cast<char const*>(data)}, steps_{maximum(steps, 1)} {
        if (rows <= 0 || bytes <= 0) return;
        bool const is_whole = stride - bytes < config::cache_line; // one run of lines
        row_ = is_whole ? bytes + (rows - 1) * stride : bytes;
        skip_ = is_whole ? 0 : stride - round_up(bytes, config::cache_line);
        left_ = row_;
        lines_ = ceil_div(row_, config::cache_line) * (is_whole ? 1 : rows);
    }
    TESSERA_FORCE_INLINE void step(index_t n = 1) noexcept {
        for (due_ += n * lines_; due_ >= steps_; due_ -= steps_) {
            simd::prefetch_level_2(at_);
            at_ += config::cache_line;
            left_ -= config::cache_line;
            if (left_ > 0) continue;
            at_ += skip_;
            left_ = row_;
        }
    }

private:
    char const* at_ = nullptr;
    index_t steps_ = 1;
    index_t lines_ = 0; ///< in all
    index_t due_ = 0;   ///< lines times steps
    index_t row_ = 0;
    index_t left_ = 0;
    index_t skip_ = 0;
};

/// The same where steps differ: each of them asks for the same number of lines whenever it comes, because what varies is
/// mispredicted. `finish` asks for what is left.
class regular_ahead {
public:
    regular_ahead() noexcept = default;
    regular_ahead(void const* data, index_t bytes, index_t stride, index_t rows, index_t steps) noexcept
        : at_{static_cast<char const*>(data)} {
        if (rows <= 0 || bytes <= 0) return;
        bool const is_whole = stride - bytes < config::cache_line; // one run of lines
        row_ = is_whole ? bytes + (rows - 1) * stride : bytes;
        skip_ = is_whole ? 0 : stride - round_up(bytes, config::cache_line);
        left_ = row_;
        lines_ = ceil_div(row_, config::cache_line) * (is_whole ? 1 : rows);
        rate_ = (lines_ << shift) / maximum(steps, 1);
    }
    TESSERA_FORCE_INLINE void step(index_t n) noexcept { ask(minimum((n * rate_ + half) >> shift, lines_)); }
    void finish() noexcept { ask(lines_); }

private:
    static constexpr int shift = 20;
    static constexpr index_t half = index_t{1} << (shift - 1);

    TESSERA_FORCE_INLINE void ask(index_t lines) noexcept {
        lines_ -= lines;
        for (; lines > 0; --lines) {
            simd::prefetch_level_2(at_);
            at_ += config::cache_line;
            left_ -= config::cache_line;
            if (left_ > 0) continue;
            at_ += skip_;
            left_ = row_;
        }
    }

    char const* at_ = nullptr;
    index_t lines_ = 0; ///< not yet asked for
    index_t rate_ = 0;  ///< lines a step, times 2^shift
    index_t row_ = 0;
    index_t left_ = 0;
    index_t skip_ = 0;
};

/// Keys of a tile of decoding: operands, sums and weights of more would not stay in the first-level cache.
inline constexpr index_t decode_keys = 64;

/// Scratch memory of one worker.
struct code_scratch {
    std::int8_t* queries = nullptr; // operands B: [groups of 4 rows][tiles][16][64]
    float* units = nullptr;         // [rows]
    std::int8_t* keys = nullptr;    // operand A: [64][key_dim padded]
    std::int8_t* values = nullptr;  // operands B: [value_dim / 64][4][16][64]
    std::int8_t* weights = nullptr; // operands A: [groups of 4 rows][groups of columns][16][64]
    float* value_units = nullptr;   // [groups of 4 rows][groups of columns][4]
    std::int32_t* sums = nullptr;   // [groups of columns or their operands][4][16][16]
    float* scales = nullptr;        // [groups][64]

    template <class Arena>
    static code_scratch carve(index_t rows, index_t key_dim, index_t value_dim, Arena& arena) {
        index_t const row_groups = ceil_div(rows, 4);
        index_t const keys = round_up(key_dim, 64);
        index_t const values = round_up(value_dim, 64);
        index_t const groups = maximum(keys, values) / 16;
        constexpr index_t n = decode_keys;
        code_scratch s;
        s.queries = arena.template carve<std::int8_t>(saturated_product(row_groups, keys / 16, 1024));
        s.units = arena.template carve<float>(4 * row_groups);
        s.keys = arena.template carve<std::int8_t>(n, keys);
        s.values = arena.template carve<std::int8_t>(n, values);
        s.weights = arena.template carve<std::int8_t>(saturated_product(row_groups, values / 16, 16 * n));
        s.value_units = arena.template carve<float>(saturated_product(row_groups, values / 16, 4));
        s.sums = arena.template carve<std::int32_t>(groups, 16 * n);
        s.scales = arena.template carve<float>(groups, n);
        return s;
    }
};

/// What kernels need to know of the elements of a cache.
template <class T>
struct code_format {
    static constexpr bool is_coded = false;
};
template <>
struct code_format<std::int8_t> {
    static constexpr bool is_coded = true;
    static constexpr bool has_scales = false; ///< in the row
    static constexpr bool is_affine = false;
    static constexpr int bits = 8;
    static constexpr index_t group(index_t n) noexcept { return n; }
    static constexpr index_t row_bytes(index_t n) noexcept { return n; }
    static constexpr std::int8_t const* table = nullptr;
};
template <class Format, class Granularity, class Scale, class Zero>
struct code_format<kv_code<scheme<Format, Granularity, Scale, Zero>>> {
    using layout = kv_row<scheme<Format, Granularity, Scale, Zero>>;
    using format = Format;
    static constexpr int bits = format::bits;
    static constexpr bool has_scales = true;
    static constexpr bool is_affine = layout::is_affine;
    static constexpr index_t group(index_t n) noexcept { return layout::group(n); }
    static constexpr index_t row_bytes(index_t n) noexcept { return layout::bytes(n); }

private:
    struct source {
        static constexpr int bits = format::bits;
        static constexpr float value(std::uint32_t c) noexcept { return format::decode(c); }
    };
    /// A group is whole operands of 64 columns, or 64 columns are whole groups: of one zero point, since that is subtracted.
    static constexpr bool has_columns = layout::columns % 64 == 0 || (!is_affine && (layout::columns == 32 || layout::columns == 16));

public:
    /// What a step of a byte is worth; 0: codes are no bytes.
    static constexpr float unit = [] {
        if constexpr (bits == 8) return format::is_integer && !is_affine ? 1.0f : 0.0f;
        if constexpr (bits == 4) return unit_of_values<source>(is_affine ? 15.0f : 127.0f);
        return 0.0f;
    }();
    static constexpr bool is_coded = has_columns && unit > 0;

    struct table_type {
        std::int8_t values[16] = {};
        constexpr table_type() noexcept {
            for (std::uint32_t c = 0; c < 16; ++c)
                if constexpr (bits == 4 && unit > 0) values[c] = static_cast<std::int8_t>(format::decode(c) / unit);
        }
    };
    static constexpr table_type lookup{};
    static constexpr std::int8_t const* table = lookup.values;
};

/// Whether decoding multiplies the codes of such elements.
template <class Arch, class T>
inline constexpr bool multiplies_codes = simd::multiplies_digits<Arch> && code_format<T>::is_coded;

/// One side of a tile of keys of one head. `row[i]` is the row of key i.
template <class Arch, class T>
class code_side;
/// The same for prefill: attention_prefill_codes.hpp.
template <class Arch, class T>
class prefill_code_side;

#if defined(__AMX_INT8__) && defined(__linux__)
template <class Arch>
using code_tiles = simd::amx_tiles<64>;

template <class Arch, class T>
class code_side {
    using format = code_format<T>;
    using floats = simd::floats<Arch>;
    static constexpr index_t width = simd::lanes<Arch>;
    static constexpr index_t most = decode_keys;

public:
    code_side(code_scratch const& s, index_t dim) noexcept
        : s_{s}, dim_{dim}, columns_{round_up(dim, 64)}, group_{format::group(dim)}, groups_{ceil_div(dim, maximum(group_, 1))},
          bytes_{bitpack::bytes(dim, format::bits)} {}

    /// Sums of more columns might not fit 32 bits.
    static constexpr bool fits(index_t dim) noexcept {
        return dim > 0 && minimum(format::group(dim), dim) <= 448;
    }

    /// Rows `stride` bytes apart.
    static void set_rows(std::uint8_t const* first, index_t stride, std::uint8_t const* (&row)[most]) noexcept {
        simd::store_rows(first, stride, most, row);
    }
    /// Rows of queries, `stride` apart, to operands. False: a number is not finite.
    bool set_queries(float const* q, index_t stride, index_t rows) noexcept {
        index_t const tiles = this->tiles();
        for (index_t r0 = 0; r0 < rows; r0 += 4) {
            std::int8_t* const to = s_.queries + r0 / 4 * tiles * 1024;
            std::fill_n(to, tiles * 1024, std::int8_t{0});
            for (index_t r = r0; r < minimum(r0 + 4, rows); ++r) {
                std::uint32_t const largest = simd::largest_magnitude(q + r * stride, dim_);
                if (largest >= simd::infinity_bits) return false;
                simd::fixed_point_scale const scale = simd::fixed_point_of(largest);
                s_.units[r] = scale.unit;
                for (index_t t = 0; t < tiles; ++t) {
                    index_t const chunk = tile_column(t);
                    index_t const first = group_ < 64 ? t * group_ - chunk : 0;
                    index_t const last = minimum(group_ < 64 ? first + group_ : 64, dim_ - chunk);
                    simd::store_query_digits<format::bits>(q + r * stride + chunk, first, last, scale.factor,
                                                           static_cast<int>(r - r0), to + 1024 * t);
                }
            }
        }
        return true;
    }

    // Steps of `ahead`, found by trying: bytes, which come as fast as memory gives them, are asked for where products of tiles run,
    // codes of 4 bits while they are staged.
    static constexpr index_t per_product = format::bits == 8 ? 110 : 20; // of values
    static constexpr index_t per_step = format::bits == 8 ? 55 : 20;     // of keys
    static constexpr index_t per_sum = 60;
    static constexpr index_t per_quad = format::bits == 8 ? 10 : 30;
    static constexpr index_t per_row = format::bits == 8 ? 7 : 14;
    /// Keys between a tile and those that are asked for meanwhile.
    static constexpr index_t lead = format::bits == 8 ? most : 0;

    index_t score_steps(index_t rows) const noexcept {
        index_t const staging = format::bits == 8 ? 0 : most * per_row * ceil_div(columns_, block::columns);
        return staging + 4 * (per_step * maximum(groups_, columns_ / 64) + per_sum * groups_) * ceil_div(rows, 4);
    }
    /// scores[most r + i] = q(r) . k(i), for keys up to the next multiple of 16 at least. `stride`: of the rows, if they lie
    /// one after the other, else 0.
    void scores(std::uint8_t const* const (&row)[most], index_t stride, index_t n, index_t rows, float* scores,
                code_tiles<Arch> const& tiles, regular_ahead& ahead) const noexcept {
        // Bytes in whole operands need no copy.
        bool const is_direct = format::bits == 8 && stride != 0 && dim_ % 64 == 0 && n % 16 == 0;
        std::int8_t const* const keys = is_direct ? reinterpret_cast<std::int8_t const*>(row[0]) : s_.keys;
        if (!is_direct) stage_keys(row, n, ahead);
        index_t const key_stride = is_direct ? stride : columns_;
        read_scales(row, stride, n);
        for (index_t r = 0; r < rows; r += 4) {
            for (index_t g = 0; g < groups_; ++g) {
                index_t const first = group_ < 64 ? g : g * group_ / 64;
                index_t const steps = group_ < 64 ? 1 : ceil_div(minimum(group_, dim_ - g * group_), 64);
                std::int8_t const* const q = s_.queries + (r / 4 * this->tiles() + first) * 1024;
                std::int8_t const* const k = keys + tile_column(first);
                simd::start_score_sums(tiles, k, key_stride, n, q, steps, [&]() noexcept { ahead.step(per_step); });
                store(tiles, n, s_.sums + 16 * most * g);
            }
            for (index_t i = 0; i < n; i += 16) add_scores(i, minimum(rows - r, 4), s_.units + r, scores + most * r + i, ahead);
        }
    }

    index_t value_steps(index_t rows) const noexcept {
        index_t const parts = maximum(groups_, columns_ / 64) * ceil_div(rows, 4);
        return most / 4 * per_quad * ceil_div(columns_, block::columns) + 4 * (per_product + per_sum) * parts;
    }
    /// out(r, :) = out(r, :) factor(r) + sum of weights[most r + i] v(i, :).
    void add_values(std::uint8_t const* const (&row)[most], index_t stride, index_t n, index_t rows, float const* weights,
                    float const* factors, float* out, index_t out_stride, code_tiles<Arch> const& tiles,
                    regular_ahead& ahead) const noexcept {
        read_scales(row, stride, n);
        for (index_t g = 0; g < groups_; ++g) {
            float const* const own = format::has_scales ? s_.scales + most * g : nullptr;
            for (index_t r = 0; r < rows; r += 4) {
                index_t const at = r / 4 * groups_ + g;
                simd::store_weight_digits<format::has_scales>(weights + most * r, most, minimum(rows - r, 4), own, n,
                                                              s_.weights + 1024 * at, s_.value_units + 4 * at);
            }
        }
        stage_values(row, ahead); // a tile load waits for stores: not for those of the weights
        for (index_t r = 0; r < rows; r += 4) {
            std::int32_t* sums = s_.sums;
            for_each_part([&](index_t g, index_t d, index_t) noexcept {
                std::int8_t const* const w = s_.weights + 16 * most * (r / 4 * groups_ + g);
                std::int8_t const* const v = s_.values + d / 64 * 64 * most;
                simd::start_value_sums(tiles, w, v, [&]() noexcept { ahead.step(per_product); });
                store(tiles, 64, sums);
                sums += 1024;
            });
            sums = s_.sums;
            for_each_part([&](index_t g, index_t d, index_t last) noexcept {
                float const* const units = s_.value_units + 4 * (r / 4 * groups_ + g);
                for (index_t i = 0; i < minimum(rows - r, 4); ++i, ahead.step(per_sum))
                    add_sums(sums, static_cast<int>(i), d, last, factors[r + i], units[i], out + (r + i) * out_stride);
                sums += 1024;
            });
        }
    }

private:
    friend class prefill_code_side<Arch, T>; // reads rows alike
    static constexpr std::uint64_t low_bits = format::bits == 4 ? simd::nibble_map(format::table, false) : 0;
    static constexpr std::uint64_t high_bits = format::bits == 4 ? simd::nibble_map(format::table, true) : 0;
    static constexpr auto block_type() noexcept {
#if defined(__GFNI__)
        if constexpr (low_bits != 0) return std::type_identity<simd::linear_code_block<low_bits, high_bits>>{};
        else
#endif
            return std::type_identity<simd::code_block<format::bits>>{};
    }
    using block = typename decltype(block_type())::type;

    /// f(block, its first column, true or false: it is whole).
    template <class F>
    void for_each_block(F const& f) const noexcept {
        for (index_t d = 0; d < columns_; d += block::columns) {
            block const b{bytes_ - d * format::bits / 8, format::table, d + 64 < columns_};
            if (b.is_whole())
                f(b, d, std::true_type{});
            else
                f(b, d, std::false_type{});
        }
    }
    /// Rows to operand A, 64 columns (or 128) of all of them at a time.
    void stage_keys(std::uint8_t const* const (&row)[most], index_t n, regular_ahead& ahead) const noexcept {
        for_each_block([&](block const& b, index_t d, auto whole) noexcept {
            index_t const at = d * format::bits / 8;
            std::int8_t* to = s_.keys + d;
            for (index_t i = 0; i < round_up(n, 16); i += 4, to += 4 * columns_) {
                unrolled<4>([&](auto j) noexcept {
                    std::uint8_t zeros[2];
                    b.template stage_row<whole>(row[i + j] + at, zeros_of(row[i + j], d, zeros), to + j * columns_);
                });
                if (i % 8 == 4) ahead.step(8 * per_row);
            }
        });
    }
    /// Rows to operands B.
    void stage_values(std::uint8_t const* const (&row)[most], regular_ahead& ahead) const noexcept {
        for_each_block([&](block const& b, index_t d, auto whole) noexcept {
            for (index_t i = 0; i < most; i += 4) {
                std::uint8_t const* const from[4] = {row[i], row[i + 1], row[i + 2], row[i + 3]};
                std::uint32_t zeros[2];
                b.template stage_quad<whole>(from, d * format::bits / 8, zeros_of(from, d, zeros), 1024,
                                             s_.values + 64 * (d + simd::quad_of_keys(i / 4)));
                if (i % 8 == 4) ahead.step(2 * per_quad);
            }
        });
    }
    /// f(g, first, last) for the columns of each group within 64 each.
    template <class F>
    void for_each_part(F const& f) const noexcept {
        for (index_t g = 0; g < groups_; ++g) {
            index_t const last = minimum((g + 1) * group_, dim_);
            for (index_t d = g * group_; d < last; d = d - d % 64 + 64) f(g, d, last);
        }
    }

    /// Operands of queries: one for 64 columns, or for a group that is narrower.
    index_t tiles() const noexcept { return group_ < 64 ? groups_ : columns_ / 64; }
    index_t tile_column(index_t t) const noexcept { return group_ < 64 ? t * group_ / 64 * 64 : 64 * t; }

    /// The zero points of columns d to d + 63 and of the 64 after them.
    std::uint8_t const* zeros_of(std::uint8_t const* row, index_t d, std::uint8_t (&zeros)[2]) const noexcept {
        if constexpr (!format::is_affine) {
            return nullptr;
        } else {
            for (index_t h = 0; h < 2; ++h) zeros[h] = zero(row, d + 64 * h);
            return zeros;
        }
    }
    std::uint32_t const* zeros_of(std::uint8_t const* const (&row)[4], index_t d, std::uint32_t (&zeros)[2]) const noexcept {
        if constexpr (!format::is_affine) {
            return nullptr;
        } else {
            for (index_t h = 0; h < 2; ++h)
                zeros[h] = zero(row[0], d + 64 * h) | std::uint32_t{zero(row[1], d + 64 * h)} << 8 |
                           std::uint32_t{zero(row[2], d + 64 * h)} << 16 | std::uint32_t{zero(row[3], d + 64 * h)} << 24;
            return zeros;
        }
    }
    std::uint8_t zero(std::uint8_t const* row, index_t d) const noexcept {
        return row[bytes_ + groups_ * format::layout::scale_bytes + minimum(d / group_, groups_ - 1)];
    }

    void store(code_tiles<Arch> const& tiles, index_t n, std::int32_t* sums) const noexcept {
        tiles.template store<0>(sums);
        if (n > 16) tiles.template store<1>(sums + 256);
        if (n > 32) tiles.template store<2>(sums + 512);
        if (n > 48) tiles.template store<3>(sums + 768);
    }

    /// Scales of all groups to s_.scales, those of the same group side by side.
    void read_scales(std::uint8_t const* const (&row)[most], index_t stride, index_t n) const noexcept {
        if constexpr (format::has_scales) {
            using scale_type = typename format::layout::scale_type;
            using stored_type = std::conditional_t<std::is_same_v<scale_type, fp32>, float, scale_type>;
            constexpr index_t size = format::layout::scale_bytes;
            index_t const end = bytes_ + groups_ * size;
            if constexpr (size == 2)
                if (groups_ <= 2 && stride != 0 && stride < 1 << 20 && end >= 4)
                    return simd::gather_row_scales<Arch, scale_type>(row[0], stride, n, end, groups_, format::unit, s_.scales, most);
            if constexpr (size == 2)
                if (groups_ <= 4 && end >= 8)
                    return simd::gather_row_scales<Arch, scale_type>(row, n, end, groups_, format::unit, s_.scales, most);
            for (index_t g = 0; g < groups_; ++g) {
                stored_type stored[most];
                for (index_t i = 0; i < most; ++i) std::memcpy(stored + i, row[i] + bytes_ + g * size, sizeof *stored);
                for (index_t i = 0; i < most; i += width)
                    simd::store<Arch>(s_.scales + most * g + i, simd::load<Arch>(stored + i) * floats(format::unit));
            }
        }
    }

    /// The scores of 16 keys from i on for up to 4 rows.
    void add_scores(index_t i, index_t rows, float const* units, float* scores, regular_ahead& ahead) const noexcept {
        floats total[4];
        for (index_t g = 0; g < groups_; ++g, ahead.step(per_sum))
            simd::add_score_sums<Arch>(s_.sums + 16 * (most * g + i), format::has_scales ? s_.scales + most * g + i : nullptr, g > 0, total);
        simd::order_score_sums<Arch>(total);
        unrolled<4>([&](auto r) noexcept {
            if (r < rows) simd::store<Arch>(scores + most * r, total[r] * floats(units[r]));
        });
    }

    /// The sums of one row for columns [d, last), of 64 that tiles have.
    void add_sums(std::int32_t const* sums, int r, index_t d, index_t last, float factor, float unit, float* out) const noexcept {
        floats sum[4];
        simd::value_sums<Arch, format::bits>(sums, r, sum);
        index_t const chunk = d - d % 64;
        auto const add = [&](auto t) noexcept {
            float* const to = out + chunk + width * t;
            simd::store<Arch>(to, simd::fma(sum[t], floats(unit), simd::load<Arch>(to) * floats(factor)));
        };
        if (d == chunk && last >= chunk + 64) return unrolled<4>(add);
        unrolled<4>([&](auto t) noexcept {
            index_t const column = chunk + width * t;
            if (column >= d && column < last) add(t);
        });
    }

    code_scratch const& s_;
    index_t dim_;
    index_t columns_; ///< dim in whole operands
    index_t group_;   ///< columns that share a scale
    index_t groups_;
    index_t bytes_;   ///< of a row's codes
};
#else
template <class Arch>
struct code_tiles {};
#endif

} // namespace tessera::inline TESSERA_ABI::detail
