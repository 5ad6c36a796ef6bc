// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How `quantize` chooses scales, zero points and codes: see quantize.hpp, which says what they are.

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/view.hpp"
#include "../kernels/cpu/quantize.hpp"
#include "../kernels/ref/quantize.hpp"
#include "../storage/buffer.hpp"
#include "../storage/quantized.hpp"
#include "range.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// How a block's scale is rounded to the type it is stored in. M is the format's largest magnitude.
enum class scale_rule : std::uint8_t {
    by_scheme,   ///< `floor_power` for symmetric schemes with e8m0 scales, `least_error` for e8m0 under a super scale, else `nearest`
    nearest,     ///< max |w| / M to nearest: the largest weight may saturate by what the scale lost
    up,          ///< the next one that is not below max |w| / M: nothing saturates (torchao: RCEIL; ZeroQuant-FP: M1)
    down,        ///< the next one that is not above max |w| / M (ZeroQuant-FP: M2 as published)
    floor_power, ///< 2^(floor(log2 max |w|) - floor(log2 M)): OCP Microscaling; the largest weight may saturate by a quarter
    least_error, ///< of `up` and `down` the one with the smaller squared error of the block, `up` where they are equal
};

/// How codes are chosen. OCP Microscaling's conversion is the default of its schemes; microxcaling's "nearest" differs in the
/// ties of the codes: `rounding::half_away`.
struct quantize_options {
    rounding mode = rounding::nearest_even;
    /// Seed of stochastic rounding; weight (n, k) takes random number n * columns + k.
    std::uint64_t seed = 0;
    scale_rule scales = scale_rule::by_scheme;
};

namespace detail {

/// The largest magnitude that a format has with both signs.
template <class Format>
inline constexpr float symmetric_limit = [] {
    if constexpr (requires { Format::symmetric_magnitude; })
        return Format::symmetric_magnitude;
    else if constexpr (Format::is_integer)
        return static_cast<float>(Format::max_value);
    else
        return Format::max_magnitude;
}();

/// floor(log2 x) of a positive finite number.
[[nodiscard]] inline int binary_exponent(float x) noexcept {
    if (x >= std::numeric_limits<float>::min()) return static_cast<int>(detail::bit_cast<std::uint32_t>(x) >> 23) - 127;
    float_parts const p = take_apart(x);
    return bit_width(p.significand) - 1 + p.exponent;
}

/// Rows [n0, n1) and columns [k0, k1).
struct block_bounds {
    index_t n0;
    index_t n1;
    index_t k0;
    index_t k1;
};

/// f(block) for the blocks of `Granularity` in `within`, row by row.
template <class Granularity, class F>
void for_each_block(block_bounds const& within, F const& f) {
    index_t const rows = Granularity::rows == 0 ? maximum(within.n1 - within.n0, 1) : Granularity::rows;
    index_t const columns = Granularity::columns == 0 ? maximum(within.k1 - within.k0, 1) : Granularity::columns;
    for (index_t n = within.n0; n < within.n1; n += rows)
        for (index_t k = within.k0; k < within.k1; k += columns)
            f(block_bounds{n, minimum(n + rows, within.n1), k, minimum(k + columns, within.k1)});
}

/// (high - low) / steps, at most the largest float, for low <= 0 <= high: the difference itself may be beyond it.
inline float affine_scale(float low, float high, float steps) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    float const span = high - low;
    if (span <= largest) return span / steps;
    float const scale = (0.5f * high - 0.5f * low) / (0.5f * steps);
    return scale <= largest ? scale : largest;
}

/// The largest integer of at most `limit` whose product with the scale is a finite float.
inline float integer_reach(float scale, float limit) noexcept {
    if (scale <= std::numeric_limits<float>::max() / 512) return limit; // at most 255: no need to divide
    double const finite = std::floor(static_cast<double>(std::numeric_limits<float>::max()) / static_cast<double>(scale));
    return finite < static_cast<double>(limit) ? static_cast<float>(finite) : limit;
}

/// Whether the product of two positive finite floats, rounded to float, is infinite. In double, where it is exact: of a float
/// product with a constant that is infinite, g++ 13 and 14 conclude at -O2 that the other factor is.
inline bool overflows(float a, float b) noexcept {
    constexpr double halfway = 0x1.ffffffp127; // between the largest float and 2^128, to which it rounds
    return static_cast<double>(a) * static_cast<double>(b) >= halfway;
}

/// The same of other formats: the largest of their numbers up to `limit`, their largest, whose product with the scale is finite.
template <class Format>
float finite_reach(float scale, float limit) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    if (!(scale <= largest) || !overflows(scale, limit)) return limit;
    std::uint32_t const code = Format::encode(largest / scale, rounding::toward_zero, overflow::saturate);
    float const reach = Format::decode(code);
    return overflows(scale, reach) ? Format::decode(code - 1) : reach;
}

/// F::encode of a positive number, saturating, to nearest or toward zero; in few steps where it is a normal one.
template <class F>
std::uint32_t encode_scale(float x, rounding mode) noexcept {
    if constexpr (requires { F::card.mantissa_bits; } && F::bits <= 16) {
        constexpr float_card c = F::card;
        constexpr int shift = 23 - c.mantissa_bits;
        constexpr float least = c.smallest_normal > std::numeric_limits<float>::min() ? c.smallest_normal
                                                                                      : std::numeric_limits<float>::min();
        if (c.smallest_normal > 0 && x >= least && x <= c.max_finite) {
            std::uint32_t bits = detail::bit_cast<std::uint32_t>(x) - (static_cast<std::uint32_t>(127 - c.bias) << 23);
            constexpr std::uint32_t half = 1u << (shift - 1);
            if (mode == rounding::nearest_even) // ties of one bit of precision go up
                bits += c.mantissa_bits == 0 ? half : half - 1 + (bits >> shift & 1u);
            return bits >> shift < c.max_code ? bits >> shift : c.max_code;
        }
    }
    return F::encode(x, mode, overflow::saturate);
}

/// F::decode of such a code.
template <class F>
float decode_scale(std::uint32_t code) noexcept {
    if constexpr (requires { F::card.mantissa_bits; } && F::bits <= 16) {
        constexpr float_card c = F::card;
        if (code >= 1u << c.mantissa_bits && code <= c.max_code)
            return detail::bit_cast<float>((code << (23 - c.mantissa_bits)) + (static_cast<std::uint32_t>(127 - c.bias) << 23));
    }
    return F::decode(code);
}

/// The code of a scale: x >= 0 or NaN, rounded to `Format` by nearest, up or down; saturates. Formats without 0 give their
/// smallest for it.
template <class Format>
std::uint32_t scale_code(float x, scale_rule rule) noexcept {
    if (x == 0 && !(Format::decode(0) > 0)) return Format::encode(0.0f);
    if (x == 0) return 0;
    if (x != x) return Format::encode(x);
    bool const is_directed = rule == scale_rule::up || rule == scale_rule::down;
    std::uint32_t const code =
        encode_scale<Format>(x, is_directed ? rounding::toward_zero : rounding::nearest_even);
    // Codes of positive numbers ascend; the one above the largest is none, or not finite.
    bool const has_next = std::uint64_t{code} + 1 < std::uint64_t{1} << Format::bits;
    if (rule != scale_rule::up || !(decode_scale<Format>(code) < x) || !has_next) return code;
    float const next = decode_scale<Format>(code + 1);
    return next > decode_scale<Format>(code) && next <= Format::max_magnitude ? code + 1 : code;
}

/// Levels of a code above the lowest, or the largest magnitude.
template <class Scheme>
inline constexpr float code_steps = Scheme::is_affine ? static_cast<float>((1 << Scheme::format::bits) - 1)
                                                      : symmetric_limit<typename Scheme::format>;

/// The weights that codes under a scale and zero point (0 where the scheme has none) stand for.
template <class Scheme>
weight_grid<typename Scheme::format> grid_of_scale(float scale, float zero) noexcept {
    using format = typename Scheme::format;
    constexpr float steps = code_steps<Scheme>;
    weight_grid<format> grid{.scale = scale, .zero = zero};
    if constexpr (format::is_integer) {
        float const reach = integer_reach(scale, steps);
        grid.low = zero - reach;
        grid.high = zero + reach;
    } else if constexpr (requires { format::symmetric_magnitude; }) {
        grid.high = finite_reach<format>(scale, steps);
        grid.low = -grid.high;
    } else if (float const reach = finite_reach<format>(scale, steps); reach < steps) {
        grid.high = reach;
        grid.low = -reach;
    }
    return grid;
}

template <class Scheme, class Exec, class Range>
class quantizer {
public:
    using format = typename Scheme::format;
    using view_type = quantized<Scheme>;
    using levels = typename view_type::scale_levels;
    using lower = typename levels::lower;
    using upper = typename levels::upper;
    using granularity_type = typename Scheme::granularity_type;
    using grid_type = weight_grid<format>;
    using rounding_kernel = kernel<op::quantize, Exec, grid_type>;
    static constexpr bool is_power = std::is_same_v<lower, e8m0>;
    static constexpr float steps = code_steps<Scheme>;
    /// The largest scale under a super scale.
    static constexpr float lower_limit = is_power ? 1.0f : symmetric_limit<lower>;
    static constexpr bool asks_for_range = !std::is_same_v<Range, min_max_range>;
    /// Blocks whose ranges, scales and codes a backend finds several at a time.
    static constexpr bool may_go_together = granularity_type::rows == 1 && granularity_type::columns != 0 && !asks_for_range &&
                                            !Scheme::is_affine && requires { rounding_kernel::takes_together(index_t{}); };
    static constexpr index_t together = 16;
    /// Weights that a parallel chunk rounds at least.
    static constexpr index_t grain = 16384;

    /// Columns of w are adjacent.
    quantizer(Exec const& exec, matrix_view<float const> const& w, Range const& range, quantize_options const& options,
              quantized_tensor<Scheme>& out)
        : exec_{exec}, w_{w}, range_{range}, options_{options}, out_{out},
          row_bytes_{bitpack::bytes(w.extent(1), format::bits)},
          block_rows_{granularity_type::rows == 0 ? maximum(w.extent(0), 1) : granularity_type::rows},
          block_columns_{granularity_type::columns == 0 ? maximum(w.extent(1), 1) : granularity_type::columns} {
        if (options_.scales == scale_rule::by_scheme)
            options_.scales = !is_power           ? scale_rule::nearest
                              : levels::are_two   ? scale_rule::least_error
                              : Scheme::is_affine ? scale_rule::nearest
                                                  : scale_rule::floor_power;
        if (options_.scales == scale_rule::floor_power && (levels::are_two || Scheme::is_affine))
            raise<unsupported_error>("tessera: quantize: scale_rule::floor_power is for symmetric schemes with scales of one level");
    }

    void run() {
        index_t const block_size =
            minimum(block_rows_, w_.extent(0)) * minimum(block_columns_, w_.extent(1)); // of the largest
        index_t const workers = static_cast<index_t>(exec_.parallel().concurrency());
        if (asks_for_range) scratch_ = buffer<float>{2 * block_size * (granularity_type::rows == 0 ? 1 : workers)};
        scratch_size_ = block_size;
        view_type const view = out_.view();
        if constexpr (levels::are_two) {
            ranges_ = buffer<weight_range>{view.scale_rows() * view.scale_columns()};
            if constexpr (granularity_type::rows == 1)
                for_each_row([&](index_t n, index_t worker) noexcept {
                    index_t const blocks = ceil_div(w_.extent(1), block_columns_);
                    cover_blocks(n, 0, blocks, ranges_.data() + n * blocks, worker);
                });
            else
                for_each_block([&](block_bounds const& b, index_t worker) noexcept {
                    ranges_.data()[view.scale_index(b.n0, b.k0)] = covered(b, worker);
                });
            index_t index = 0;
            detail::for_each_block<typename levels::upper_granularity>(
                {0, w_.extent(0), 0, w_.extent(1)}, [&](block_bounds const& b) { choose_super_scale(b, index++); });
            if constexpr (granularity_type::rows == 1)
                for_each_row([&](index_t n, index_t worker) noexcept { quantize_row(n, worker); });
            else
                for_each_block([&](block_bounds const& b, index_t) noexcept {
                    index_t const at = view.scale_index(b.n0, b.k0);
                    encode(b, choose_grid(b, at, ranges_.data()[at], super_scale_of(view, b)));
                });
        } else if constexpr (granularity_type::rows == 1) {
            for_each_row([&](index_t n, index_t worker) noexcept { quantize_row(n, worker); });
        } else {
            for_each_block([&](block_bounds const& b, index_t worker) noexcept {
                encode(b, choose_grid(b, view.scale_index(b.n0, b.k0), covered(b, worker), 1.0f));
            });
        }
        if (is_refused_)
            raise<unsupported_error>(std::string{"tessera: quantize: a block of weights is not finite, and "} + lower::name +
                                     " scales have no NaN to say so");
    }

private:
    template <class F>
    void for_each_row(F const& f) const noexcept {
        index_t const chunk = maximum(1, grain / maximum(w_.extent(1), 1));
        parallel_for(exec_.parallel(), w_.extent(0), chunk, [&](index_t first, index_t last, index_t worker) noexcept {
            for (index_t n = first; n < last; ++n) f(n, worker);
        });
    }

    block_bounds bounds_of(index_t n, index_t block) const noexcept {
        index_t const k = block * block_columns_;
        return {n, n + 1, k, minimum(k + block_columns_, w_.extent(1))};
    }

    /// Of blocks that follow each other those that a backend takes together: all but a shorter last one.
    index_t count_together(index_t first, index_t count) const noexcept {
        if constexpr (may_go_together)
            if (options_.mode == rounding::nearest_even && rounding_kernel::takes_together(block_columns_))
                return minimum(count, w_.extent(1) / block_columns_ - first);
        return 0;
    }

    /// The intervals that scales of some blocks of a row are to cover.
    void cover_blocks(index_t n, index_t first, index_t count, weight_range* ranges, index_t worker) noexcept {
        index_t const whole = count_together(first, count);
        if constexpr (may_go_together) rounding_kernel::magnitudes(row(n, first * block_columns_), block_columns_, whole, ranges);
        for (index_t i = whole; i < count; ++i) ranges[i] = covered(bounds_of(n, first + i), worker);
    }

    float super_scale_of([[maybe_unused]] view_type const& view, [[maybe_unused]] block_bounds const& b) const noexcept {
        if constexpr (levels::are_two)
            return static_cast<float>(view.super_scales()[view.super_scale_index(b.n0, b.k0)]);
        else
            return 1.0f;
    }

    /// Blocks of one row, some at a time: a block's steps wait for each other, those of its neighbours do not.
    void quantize_row(index_t n, index_t worker) noexcept {
        weight_range ranges[together];
        grid_type grids[together];
        index_t const blocks = ceil_div(w_.extent(1), block_columns_);
        view_type const view = out_.view();
        for (index_t first = 0; first < blocks; first += together) {
            index_t const count = minimum(together, blocks - first);
            index_t const at = n * blocks + first;
            if constexpr (levels::are_two)
                std::copy_n(ranges_.data() + at, count, ranges);
            else
                cover_blocks(n, first, count, ranges, worker);
            choose_grids(n, first, count, ranges, view, grids);
            index_t const whole = count_together(first, count);
            if constexpr (may_go_together)
                rounding_kernel::encode_together(row(n, first * block_columns_), block_columns_, whole, grids,
                                                 out_.codes() + n * row_bytes_, first * block_columns_);
            for (index_t i = whole; i < count; ++i) encode(bounds_of(n, first + i), grids[i]);
        }
    }

    /// Stores scales of at most `together` blocks of a row. Those under one super scale that are rounded to nearest go together.
    void choose_grids(index_t n, index_t first, index_t count, weight_range const* ranges, view_type const& view,
                      grid_type* grids) noexcept {
        index_t const at = n * ceil_div(w_.extent(1), block_columns_) + first;
        block_bounds const last = bounds_of(n, first + count - 1);
        if constexpr (may_go_together && scales_in_registers<lower>) {
            float const super_scale = super_scale_of(view, last);
            bool is_shared = true;
            if constexpr (levels::are_two)
                is_shared = view.super_scale_index(n, first * block_columns_) == view.super_scale_index(n, last.k0);
            if (options_.scales == scale_rule::nearest && is_shared) {
                alignas(64) float wanted[together] = {};
                alignas(64) std::int32_t codes[together];
                alignas(64) float values[together];
                for (index_t i = 0; i < count; ++i) wanted[i] = wanted_scale(ranges[i]);
                nearest_scales<lower, levels::are_two, typename Exec::arch_type>(wanted, together, super_scale, codes, values);
                for (index_t i = 0; i < count; ++i) {
                    put<lower>(out_.scales(), at + i, static_cast<std::uint32_t>(codes[i]), values[i]);
                    if (!ranges[i].finite && values[i] == values[i]) is_refused_ = true;
                    grids[i] = grid_of(ranges[i], super_scale * values[i]);
                }
                return;
            }
        }
        for (index_t i = 0; i < count; ++i) {
            block_bounds const b = bounds_of(n, first + i);
            grids[i] = choose_grid(b, at + i, ranges[i], super_scale_of(view, b));
        }
    }

    /// f(block, worker), rows of blocks in parallel. Blocks of all rows are one task each: their rows are the parallelism.
    template <class F>
    void for_each_block(F const& f) const {
        block_bounds const all{0, w_.extent(0), 0, w_.extent(1)};
        if constexpr (granularity_type::rows == 0) {
            detail::for_each_block<granularity_type>(all, [&](block_bounds const& b) { f(b, index_t{0}); });
        } else {
            index_t const chunk = maximum(1, grain / maximum(block_rows_ * w_.extent(1), 1));
            parallel_for(exec_.parallel(), ceil_div(w_.extent(0), block_rows_), chunk,
                         [&](index_t first, index_t last, index_t worker) noexcept {
                             block_bounds const rows{first * block_rows_, minimum(last * block_rows_, w_.extent(0)), 0,
                                                     w_.extent(1)};
                             detail::for_each_block<granularity_type>(rows, [&](block_bounds const& b) { f(b, worker); });
                         });
        }
    }

    /// f(first row, last row) of parts of a block; in parallel where the block is all rows.
    template <class F>
    void for_each_part(block_bounds const& b, F const& f) const noexcept {
        if constexpr (granularity_type::rows == 0)
            parallel_for(exec_.parallel(), b.n1 - b.n0, maximum(1, grain / maximum(b.k1 - b.k0, 1)),
                         [&](index_t first, index_t last, index_t) noexcept { f(b.n0 + first, b.n0 + last); });
        else
            f(b.n0, b.n1);
    }

    float const* row(index_t n, index_t k) const noexcept { return w_.data_handle() + n * w_.stride(0) + k; }

    weight_range extremes(block_bounds const& b) const noexcept {
        weight_range range;
        for (index_t n = b.n0; n < b.n1; ++n) range.include(rounding_kernel::range(row(n, b.k0), b.k1 - b.k0));
        return range;
    }

    /// The interval that the block's scale is to cover.
    weight_range covered(block_bounds const& b, index_t worker) noexcept {
        weight_range const all = extremes(b);
        if constexpr (asks_for_range) {
            if (!all.finite || all.magnitude() == 0) return all;
            auto const size = static_cast<std::size_t>((b.n1 - b.n0) * (b.k1 - b.k0));
            float* const own = scratch_.data() + 2 * worker * scratch_size_;
            bool const is_one_array = b.n1 - b.n0 == 1 || w_.stride(0) == b.k1 - b.k0;
            if (!is_one_array)
                for (index_t n = b.n0; n < b.n1; ++n)
                    std::copy_n(row(n, b.k0), b.k1 - b.k0, own + scratch_size_ + (n - b.n0) * (b.k1 - b.k0));
            std::span<float const> const weights{is_one_array ? row(b.n0, b.k0) : own + scratch_size_, size};
            return range_.choose({weights, all, Scheme::is_affine, {own, size}}, [&](weight_range const& r) noexcept {
                float const scale = levels::are_two ? wanted_scale(r) : decode_scale<lower>(lower_code(wanted_scale(r), 1.0f, first_rule()));
                return sums_of<Exec>(weights, grid_of(r, scale));
            });
        } else {
            return all;
        }
    }

    void choose_super_scale(block_bounds const& bounds, index_t index) {
        float widest = 0; // magnitude, or the scale of an affine block
        view_type const view = out_.view();
        detail::for_each_block<granularity_type>(bounds, [&](block_bounds const& b) {
            weight_range const range = ranges_.data()[view.scale_index(b.n0, b.k0)];
            float const width = Scheme::is_affine ? wanted_scale(range) : range.magnitude();
            if (range.finite && width > widest) widest = width;
        });
        auto const rule = options_.scales == scale_rule::up ? scale_rule::up : scale_rule::nearest;
        put<upper>(out_.super_scales(), index,
                   scale_code<upper>(widest / (Scheme::is_affine ? lower_limit : lower_limit * steps), rule));
    }

    /// The scale before it is rounded to its type.
    float wanted_scale(weight_range const& range) const noexcept {
        if (!range.finite) return std::numeric_limits<float>::quiet_NaN();
        if (Scheme::is_affine) return affine_scale(range.low, range.high, steps);
        float const magnitude = range.magnitude();
        if (options_.scales != scale_rule::floor_power) return magnitude / steps;
        if (magnitude == 0) return 0;
        int const exponent = binary_exponent(magnitude) - binary_exponent(steps);
        return exact_float(false, 1, exponent < -127 ? -127 : exponent);
    }

    scale_rule first_rule() const noexcept {
        return options_.scales == scale_rule::least_error ? scale_rule::up : options_.scales;
    }

    /// Stores scale and zero point of a block.
    grid_type choose_grid(block_bounds const& b, index_t index, weight_range const& range, float super_scale) noexcept {
        float const wanted = wanted_scale(range);
        std::uint32_t code = lower_code(wanted, super_scale, first_rule());
        if (options_.scales == scale_rule::least_error) {
            std::uint32_t const down = lower_code(wanted, super_scale, scale_rule::down);
            if (down != code && squared_error(b, grid_of(range, super_scale * decode_scale<lower>(down))) <
                                    squared_error(b, grid_of(range, super_scale * decode_scale<lower>(code))))
                code = down;
        }
        float const stored = put<lower>(out_.scales(), index, code);
        if (!range.finite && stored == stored) is_refused_ = true;
        grid_type const grid = grid_of(range, super_scale * stored);
        if constexpr (Scheme::is_affine) out_.zero_points()[index] = static_cast<std::uint8_t>(grid.zero);
        return grid;
    }

    void encode(block_bounds const& b, grid_type const& grid) noexcept {
        for_each_part(b, [&](index_t first, index_t last) noexcept {
            for (index_t n = first; n < last; ++n)
                rounding_kernel::encode(row(n, b.k0), b.k1 - b.k0, grid,
                                        {options_.mode, options_.seed, static_cast<std::uint64_t>(n * w_.extent(1) + b.k0)},
                                        out_.codes() + n * row_bytes_, b.k0);
        });
    }

    std::uint32_t lower_code(float wanted, float super_scale, scale_rule rule) const noexcept {
        if constexpr (!levels::are_two) return scale_code<lower>(wanted, rule);
        float ratio = super_scale > 0 ? wanted / super_scale : wanted != wanted ? wanted : 0;
        if (is_power && ratio > 1) ratio = 1; // what rounding the super scale down left above it
        if (is_power && ratio < 0x1p-14f) ratio = 0x1p-14f;
        std::uint32_t const code = scale_code<lower>(ratio, rule);
        return ratio > 0 && decode_scale<lower>(code) == 0 ? 1u : code; // some of the block is better than none
    }

    static grid_type grid_of(weight_range const& range, float scale) noexcept {
        float zero = 0;
        if (Scheme::is_affine && scale > 0) {
            zero = std::nearbyint(-range.low / scale);
            zero = zero < steps ? zero : steps;
        }
        return grid_of_scale<Scheme>(scale, zero);
    }

    double squared_error(block_bounds const& b, grid_type const& grid) const noexcept {
        constexpr index_t chunk = 256;
        alignas(64) float rounded[chunk];
        double sum = 0;
        for (index_t n = b.n0; n < b.n1; ++n)
            for (index_t k = b.k0; k < b.k1; k += chunk) {
                index_t const count = minimum(chunk, b.k1 - k);
                rounding_kernel::round(row(n, k), count, grid, rounded);
                for (index_t i = 0; i < count; ++i) {
                    double const error = static_cast<double>(rounded[i]) - static_cast<double>(row(n, k)[i]);
                    sum += error * error;
                }
            }
        return sum;
    }

    /// Stores a scale's code; returns its value.
    template <class Format, class Stored>
    static float put(Stored* scales, index_t index, std::uint32_t code) noexcept {
        return put<Format>(scales, index, code, decode_scale<Format>(code));
    }
    template <class Format, class Stored>
    static float put(Stored* scales, index_t index, std::uint32_t code, float value) noexcept {
        if constexpr (std::is_same_v<Stored, float>)
            scales[index] = value;
        else
            scales[index] = Stored::from_bits(static_cast<decltype(Stored{}.to_bits())>(code));
        return value;
    }

    Exec const& exec_;
    matrix_view<float const> w_;
    Range const& range_;
    quantize_options options_;
    quantized_tensor<Scheme>& out_;
    index_t row_bytes_;
    index_t block_rows_;
    index_t block_columns_;
    buffer<weight_range> ranges_; // of blocks, where their super scales come first
    buffer<float> scratch_;       // for each worker two blocks
    index_t scratch_size_ = 0;
    std::atomic<bool> is_refused_{false};
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
