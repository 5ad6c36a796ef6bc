// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Prefill from caches of small integers (attention_codes.hpp) on matrix tiles: keys are multiplied as codes with queries of 30 bits,
/// values with weights of 30 bits. Queries stay lanes: sums of a tile's digits are registers of queries, and scores and outputs lie
/// as those of attention_tile.hpp.

#include "../../simd/digit_tiles.hpp"
#include "../attention.hpp"
#include "attention_codes.hpp"
#include "attention_tile.hpp"

#include <cmath>
#include <limits>
#include <utility>

namespace tessera::inline TESSERA_ABI::detail {

/// Whether prefill multiplies the codes of such elements: a group of 16 columns would be as many products as floats need.
template <class Arch, class T>
inline constexpr bool prefill_multiplies_codes = false;
#if defined(__AMX_INT8__) && defined(__linux__)
template <class Arch, class T>
    requires multiplies_codes<Arch, T>
inline constexpr bool prefill_multiplies_codes<Arch, T> = code_format<T>::group(64) >= 32;
#endif

/// Scratch memory of one worker for one side of a cache.
struct prefill_code_scratch {
    std::int8_t* operands = nullptr; // of queries [tiles][vectors][columns / 32][4096], or of weights [2][4096]
    std::int8_t* codes = nullptr;    // of keys [tile::keys][columns], or of values [columns][tile::keys]
    std::int8_t* quads = nullptr;    // [64][columns]
    float* factors = nullptr;        // [tiles][tile::queries]
    float* units = nullptr;          // [tiles][tile::queries], or of groups
    float* scales = nullptr;         // [columns / 32][tile::keys]
    float* read = nullptr;           // [columns / 32][64]
    std::int32_t* sums = nullptr;    // [2][1024]

    template <class Arch, class Arena>
    static prefill_code_scratch carve(index_t tiles, index_t dim, Arena& arena) {
        using tile = attention_tile<Arch>;
        index_t const columns = round_up(dim, 64);
        prefill_code_scratch s;
        s.operands = arena.template carve<std::int8_t>(maximum(tiles, 1) * tile::vectors, maximum(columns / 32, 2), 4096);
        s.codes = arena.template carve<std::int8_t>(tile::keys + 16, columns + 64); // operands of a run may begin anywhere
        s.quads = arena.template carve<std::int8_t>(decode_keys, columns);
        s.factors = arena.template carve<float>(maximum(tiles, 1), tile::queries);
        s.units = arena.template carve<float>(maximum(maximum(tiles, 1) * tile::queries, columns / 32));
        s.scales = arena.template carve<float>(columns / 32, tile::keys + 16);
        s.read = arena.template carve<float>(columns / 32, decode_keys);
        s.sums = arena.template carve<std::int32_t>(2048);
        return s;
    }
};

/// One side of the cache in a block of queries.
template <class Arch, class T>
class prefill_code_side {
public:
    prefill_code_side(prefill_code_scratch const&, index_t) noexcept {}
};

#if defined(__AMX_INT8__) && defined(__linux__)
/// What of it knows no format.
template <class Arch>
class prefill_code_products {
protected:
    using tile = attention_tile<Arch>;
    using floats = simd::floats<Arch>;
    static constexpr index_t stride = tile::keys; ///< of transposed values
    static constexpr index_t scale_stride = tile::keys + 16;

public:
    prefill_code_products(prefill_code_scratch const& s, index_t dim, index_t group) noexcept
        : s_{s}, dim_{dim}, columns_{round_up(dim, 64)}, group_{maximum(group, 1)}, groups_{ceil_div(dim, group_)} {}

    /// scores[k * tile::queries + i] of a tile's queries and staged keys [first, first + n), and of what follows up to a multiple of 16.
    void scores(index_t t, index_t first, index_t n, float* scores, code_tiles<Arch> const& tiles) const noexcept {
        for (index_t m = 0; m < tile::vectors; ++m) {
            floats const unit = simd::load<Arch>(s_.units + t * tile::queries + m * tile::width);
            std::int8_t const* const q = query_operand(t, m);
            index_t k = 0;
            index_t g = 0;
            auto const next = [&]() noexcept -> product {
                index_t const o = group_ < 64 ? g : g * group_ / 64;
                product const x{s_.codes + (first + k) * columns_ + operand_column(o), q + o * simd::digit_operand,
                                group_ < 64 ? 1 : ceil_div(minimum(group_, dim_ - g * group_), 64), 16,
                                scores + k * tile::queries + m * tile::width, s_.scales + g * scale_stride + first + k, g > 0};
                if (++g == groups_) g = 0, k += 16;
                return x;
            };
            auto const use = [unit](product const& x, std::int32_t const* sums, index_t r) noexcept {
                floats const y = simd::digit_sum<Arch>(sums, r) * unit * floats(x.scales[r]);
                float* const to = x.to + r * tile::queries;
                simd::store<Arch>(to, x.adds ? y + simd::load<Arch>(to) : y);
            };
            in_turns(ceil_div(n, 16) * groups_, columns_, tiles, next, use);
        }
    }

    /// out(d, query) = out(d, query) factor(query) + sum of v(key, d) p(key, query) for staged values [first, first + n). Where
    /// the weights' sum is no number, out becomes NaN.
    void add_values(float const* p, float const* p_sums, index_t first, index_t n, float const* factor, float* out,
                    code_tiles<Arch> const& tiles) const noexcept {
        for (index_t g = 0; g < groups_; ++g) {
            index_t const last = minimum((g + 1) * group_, dim_);
            for (index_t m = 0; m < tile::vectors; ++m) {
                floats const unit = simd::store_lane_weights(p + m * tile::width, tile::queries, n, s_.scales + g * scale_stride + first, s_.operands);
                floats const keep = simd::load<Arch>(factor + m * tile::width);
                floats const special = simd::load<Arch>(p_sums + m * tile::width) * floats(0.0f); // NaN where a weight is none
                index_t d = g * group_;
                auto const next = [&]() noexcept -> product {
                    product const x{s_.codes + d * stride + first, s_.operands, ceil_div(n, 64), minimum(last - d, 16),
                                    out + d * tile::queries + m * tile::width, nullptr, true};
                    d += 16;
                    return x;
                };
                auto const use = [unit = unit + special, keep](product const& x, std::int32_t const* sums, index_t r) noexcept {
                    float* const o = x.to + r * tile::queries;
                    simd::store<Arch>(o, simd::fma(simd::digit_sum<Arch>(sums, r), unit, simd::load<Arch>(o) * keep));
                };
                in_turns(ceil_div(last - d, 16), stride, tiles, next, use);
            }
        }
    }

protected:
    /// Operands of queries: one for 64 columns, or for a group that is narrower.
    index_t operands() const noexcept { return group_ < 64 ? groups_ : columns_ / 64; }
    index_t operand_column(index_t o) const noexcept { return group_ < 64 ? o * group_ / 64 * 64 : 64 * o; }
    std::int8_t* query_operand(index_t t, index_t m) const noexcept {
        return s_.operands + (t * tile::vectors + m) * operands() * simd::digit_operand;
    }

    prefill_code_scratch s_;
    index_t dim_;
    index_t columns_; ///< dim in whole operands
    index_t group_;   ///< columns that share a scale
    index_t groups_;

private:
    /// 16 rows of codes times 16 lanes, and where the sums go.
    struct product {
        std::int8_t const* a;
        std::int8_t const* b;
        index_t steps;
        index_t rows;
        float* to;
        float const* scales; ///< of rows
        bool adds;           ///< to what is there
    };
    /// Products next(), n times; while one is computed, the rows of the one before are used.
    template <class Next, class Use>
    TESSERA_FORCE_INLINE void in_turns(index_t n, index_t a_stride, code_tiles<Arch> const& tiles, Next const& next, Use const& use) const noexcept {
        if (n <= 0) return;
        std::int32_t* sums = s_.sums;
        std::int32_t* other = s_.sums + 1024;
        auto const use_all = [&](product const& x, std::int32_t const* from) noexcept {
            if (x.rows == 16)
                unrolled<16>([&](auto r) noexcept { use(x, from, r); });
            else
                for (index_t r = 0; r < x.rows; ++r) use(x, from, r);
        };
        product x = next();
        simd::start_digit_sums<0>(tiles, x.a, a_stride, x.b, x.steps);
        simd::start_digit_sums<2>(tiles, x.a, a_stride, x.b, x.steps);
        simd::store_digit_sums<0>(tiles, sums);
        for (index_t i = 1; i < n; ++i) {
            product const y = next();
            simd::start_digit_sums<0>(tiles, y.a, a_stride, y.b, y.steps);
            simd::store_digit_sums<2>(tiles, sums);
            simd::start_digit_sums<2>(tiles, y.a, a_stride, y.b, y.steps);
            use_all(x, sums);
            simd::store_digit_sums<0>(tiles, other);
            std::swap(sums, other);
            x = y;
        }
        simd::store_digit_sums<2>(tiles, sums);
        use_all(x, sums);
    }
};

template <class Arch, class T>
    requires prefill_multiplies_codes<Arch, T>
class prefill_code_side<Arch, T> : public prefill_code_products<Arch> {
    using products = prefill_code_products<Arch>;
    using typename products::tile;
    using products::columns_, products::dim_, products::group_, products::groups_, products::s_;
    using products::scale_stride, products::stride;
    using format = code_format<T>;
    using side = code_side<Arch, T>;
    static constexpr index_t half = decode_keys;

public:
    prefill_code_side(prefill_code_scratch const& s, index_t dim) noexcept : products{s, dim, format::group(dim)} {}

    bool fits(kv_rows<T const> const& rows) noexcept {
        return rows.dim_stride == 1 && side::fits(dim_) && simd::amx_is_allowed();
    }

    /// A tile's queries q[d * tile::queries + i] as operands. False: a number is not finite.
    bool set_queries(index_t t, float const* q) const noexcept {
        for (index_t m = 0; m < tile::vectors; ++m) {
            float* const factor = s_.factors + t * tile::queries + m * tile::width;
            float* const unit = s_.units + t * tile::queries + m * tile::width;
            float const* const x = q + m * tile::width;
            if (!simd::lane_fixed_point(x, tile::queries, dim_, factor, unit)) return false;
            for (index_t o = 0; o < this->operands(); ++o) {
                index_t const chunk = this->operand_column(o);
                index_t const first = group_ < 64 ? o * group_ - chunk : 0;
                index_t const last = minimum(group_ < 64 ? first + group_ : 64, dim_ - chunk);
                simd::store_lane_queries(x + chunk * tile::queries, tile::queries, first, last, format::bits, factor, this->query_operand(t, m) + o * simd::digit_operand);
            }
        }
        return true;
    }

    /// Reads n keys. A scale that is not finite makes a score NaN.
    void stage_keys(kv_rows<T const> const& rows, index_t head, index_t const* slots, index_t n) const noexcept {
        stage(rows, head, slots, n, std::numeric_limits<float>::quiet_NaN(), [&](side const&, auto const& row, index_t first, index_t count) noexcept {
            code_scratch to{};
            to.keys = s_.codes + first * columns_;
            regular_ahead none;
            side{to, dim_}.stage_keys(row, count, none);
        });
    }
    /// Reads n values. True: some are not finite, and 0 stands in their place.
    bool stage_values(kv_rows<T const> const& rows, index_t head, index_t const* slots, index_t n) const noexcept {
        return stage(rows, head, slots, n, 0.0f, [&](side const& codes, auto const& row, index_t first, index_t) noexcept {
            regular_ahead none;
            codes.stage_values(row, none);
            for (index_t d = 0; d < columns_; d += 64)
                simd::transpose_quads(s_.quads + half * d, format::bits, s_.codes + stride * d + first, stride);
        });
    }

private:
    /// f(side, rows, first, count) for 64 rows at a time, the last one repeated, and all scales; `special` for one that is not finite.
    /// Returns whether there are such.
    template <class F>
    bool stage(kv_rows<T const> const& rows, index_t head, index_t const* slots, index_t n, float special, F const& f) const noexcept {
        code_scratch to{};
        to.values = s_.quads;
        to.scales = s_.read;
        side const codes{to, dim_};
        for (index_t first = 0; first < n; first += half) {
            index_t const count = minimum(half, n - first);
            std::uint8_t const* row[half];
            for (index_t i = 0; i < half; ++i)
                row[i] = reinterpret_cast<std::uint8_t const*>(rows.row(head, slots[first + minimum(i, count - 1)]));
            f(codes, row, first, count);
            if constexpr (format::has_scales) {
                codes.read_scales(row, 0, count);
                for (index_t g = 0; g < groups_; ++g) std::copy_n(s_.read + half * g, count, s_.scales + g * scale_stride + first);
            } else {
                for (index_t i = first; i < first + count; ++i) s_.scales[i] = rows.scales == nullptr ? 1.0f : *rows.scale_row(head, slots[i]);
            }
        }
        bool has_special = false;
        for (index_t g = 0; g < groups_; ++g) {
            float* const scales = s_.scales + g * scale_stride;
            if (simd::largest_magnitude(scales, n) < simd::infinity_bits) continue;
            has_special = true;
            for (index_t i = 0; i < n; ++i)
                if (!std::isfinite(scales[i])) scales[i] = special;
        }
        return has_special;
    }
};
#endif

} // namespace tessera::inline TESSERA_ABI::detail
