// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `quantize<Scheme>(w)`: a matrix in a quantised scheme, each weight rounded on its own (round to nearest, min-max range).
///
/// For every block of weights that share a scale:
///
/// * symmetric:  scale = max |w| / M,  M the largest magnitude that both signs have (7 for int4, 6 for e2m1, 1 for nf4);
///               code = nearest(w / scale)
/// * affine:     scale = (max(w, 0) - min(w, 0)) / (2^b - 1),  zero point = round(-min(w, 0) / scale),
///               code = nearest(w / scale + zero point)
///
/// The scale is rounded to its stored type first, by a `scale_rule`, and codes are chosen for the rounded one (quotients are
/// those of float32 division): symmetric integers lie in -M to M whatever the rounding did to it, and integer codes of finite
/// weights decode to finite numbers. Scales of two levels: super scale = the widest block's scale / the largest number of the
/// scales' format, rounded to nearest (up where scales are); every block's scale is chosen under it, never 0 where a weight is
/// not 0. Scales in e8m0 under a super scale are 2^-14 to 1, the super scale the widest block's.
///
/// Bad input:
///
/// * A block with a NaN or infinity has a NaN scale, so all of it decodes to NaN, and it has no part in its super scale; where
///   the scale's type has no NaN it is refused with unsupported_error.
/// * A block of zeros, or of weights too small for the scale's type, has scale 0 and decodes to zeros. Where the type has no 0
///   (e8m0), it has the smallest scale and codes of 0, as OCP Microscaling asks: byte 0; in `bipolar` formats, which have no 0,
///   it decodes to that scale with the weights' signs.
/// * Scales may be subnormal: their own rounding is then what is left of the error. Where a scale is beyond its type, it is the
///   type's largest, and weights saturate.
/// * A block of one weight is that weight up to the rounding of its scale. Blocks at the end of a row, and blocks wider than
///   the row, are the columns there are; a matrix without rows or columns has no scales.
///
/// Source: "A White Paper on Neural Network Quantization", arXiv:2106.08295, section 2.2; OCP Microscaling Formats 1.0, section 6.3.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"
#include "../storage/quantized.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

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

struct weight_range {
    float low = 0;
    float high = 0;
    bool finite = true;

    float magnitude() const noexcept { return high > -low ? high : -low; }
};

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
    double const finite = std::floor(static_cast<double>(std::numeric_limits<float>::max()) / static_cast<double>(scale));
    return finite < static_cast<double>(limit) ? static_cast<float>(finite) : limit;
}

/// The code of a scale: x >= 0 or NaN, rounded to `Format` by nearest, up or down; saturates. Formats without 0 give their
/// smallest for it.
template <class Format>
std::uint32_t scale_code(float x, scale_rule rule) {
    if (x == 0 && !(Format::decode(0) > 0)) return Format::encode(0.0f);
    if (x == 0) return 0;
    if (x != x) {
        std::uint32_t const code = Format::encode(x);
        if (Format::decode(code) == Format::decode(code))
            raise<unsupported_error>(std::string{"tessera: quantize: a block of weights is not finite, and "} + Format::name +
                                     " scales have no NaN to say so");
        return code;
    }
    bool const is_directed = rule == scale_rule::up || rule == scale_rule::down;
    std::uint32_t const code =
        Format::encode(x, is_directed ? rounding::toward_zero : rounding::nearest_even, overflow::saturate);
    // Codes of positive numbers ascend; the one above the largest is none, or not finite.
    bool const has_next = std::uint64_t{code} + 1 < std::uint64_t{1} << Format::bits;
    if (rule != scale_rule::up || !(Format::decode(code) < x) || !has_next) return code;
    float const next = Format::decode(code + 1);
    return next > Format::decode(code) && next <= Format::max_magnitude ? code + 1 : code;
}

template <class Scheme>
class quantizer {
public:
    using format = typename Scheme::format;
    using view_type = quantized<Scheme>;
    using levels = typename view_type::scale_levels;
    using lower = typename levels::lower;
    using upper = typename levels::upper;
    using granularity_type = typename Scheme::granularity_type;
    static constexpr bool is_power = std::is_same_v<lower, e8m0>;
    /// Levels of a code above the lowest, or the largest magnitude.
    static constexpr float steps =
        Scheme::is_affine ? static_cast<float>((1 << format::bits) - 1) : symmetric_limit<format>;
    /// The largest scale under a super scale.
    static constexpr float lower_limit = is_power ? 1.0f : symmetric_limit<lower>;

    quantizer(matrix_view<float const> const& w, quantize_options const& options, quantized_tensor<Scheme>& out)
        : w_{w}, options_{options}, out_{out}, row_bytes_{bitpack::bytes(w.extent(1), format::bits)} {
        if (options_.scales == scale_rule::by_scheme)
            options_.scales = !is_power           ? scale_rule::nearest
                              : levels::are_two   ? scale_rule::least_error
                              : Scheme::is_affine ? scale_rule::nearest
                                                  : scale_rule::floor_power;
        if (options_.scales == scale_rule::floor_power && (levels::are_two || Scheme::is_affine))
            raise<unsupported_error>("tessera: quantize: scale_rule::floor_power is for symmetric schemes with scales of one level");
    }

    void run() {
        block_bounds const all{0, w_.extent(0), 0, w_.extent(1)};
        if constexpr (levels::are_two) {
            index_t index = 0;
            for_each_block<typename levels::upper_granularity>(all, [&](block_bounds const& b) { super_block(b, index++); });
        } else {
            index_t index = 0;
            for_each_block<granularity_type>(all, [&](block_bounds const& b) {
                weight_range const range = range_of(b);
                fill(b, index++, range, wanted_scale(range), 1.0f);
            });
        }
    }

private:
    void super_block(block_bounds const& bounds, index_t index) {
        ranges_.clear();
        float widest = 0; // magnitude, or the scale of an affine block
        for_each_block<granularity_type>(bounds, [&](block_bounds const& b) {
            weight_range const range = range_of(b);
            ranges_.push_back(range);
            float const width = Scheme::is_affine ? wanted_scale(range) : range.magnitude();
            if (range.finite && width > widest) widest = width;
        });
        auto const rule = options_.scales == scale_rule::up ? scale_rule::up : scale_rule::nearest;
        float const super_scale = put<upper>(out_.super_scales(), index,
                                             scale_code<upper>(widest / (Scheme::is_affine ? lower_limit : lower_limit * steps), rule));
        auto range = ranges_.begin();
        view_type const view = out_.view();
        for_each_block<granularity_type>(bounds, [&](block_bounds const& b) {
            fill(b, view.scale_index(b.n0, b.k0), *range, wanted_scale(*range), super_scale);
            ++range;
        });
    }

    weight_range range_of(block_bounds const& b) const noexcept {
        weight_range range;
        for (index_t n = b.n0; n < b.n1; ++n)
            for (index_t k = b.k0; k < b.k1; ++k) {
                float const v = w_(n, k);
                range.low = v < range.low ? v : range.low;
                range.high = v > range.high ? v : range.high;
                range.finite = range.finite && std::fabs(v) <= std::numeric_limits<float>::max();
            }
        return range;
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

    /// Chooses scale, zero point and codes of a block.
    void fill(block_bounds const& b, index_t index, weight_range const& range, float wanted, float super_scale) {
        scale_rule const rule = options_.scales;
        std::uint32_t code = lower_code(wanted, super_scale, rule == scale_rule::least_error ? scale_rule::up : rule);
        if (rule == scale_rule::least_error) {
            std::uint32_t const down = lower_code(wanted, super_scale, scale_rule::down);
            if (down != code && squared_error(b, range, super_scale * lower::decode(down)) <
                                    squared_error(b, range, super_scale * lower::decode(code)))
                code = down;
        }
        float const scale = super_scale * put<lower>(out_.scales(), index, code);
        float const zero = zero_point(range, scale);
        if constexpr (Scheme::is_affine) out_.zero_points()[index] = static_cast<std::uint8_t>(zero);
        float const reach = integer_reach(scale, steps);
        philox const random{options_.seed};
        for (index_t n = b.n0; n < b.n1; ++n)
            for (index_t k = b.k0; k < b.k1; ++k) {
                auto const bits = options_.mode == rounding::stochastic
                                      ? random.bits(static_cast<std::uint64_t>(n * w_.extent(1) + k))
                                      : 0u;
                bitpack::set<format::bits>(out_.codes() + n * row_bytes_, k,
                                           code_of_weight(w_(n, k), scale, zero, reach, options_.mode, bits));
            }
    }

    std::uint32_t lower_code(float wanted, float super_scale, scale_rule rule) const {
        if constexpr (!levels::are_two) return scale_code<lower>(wanted, rule);
        float ratio = super_scale > 0 ? wanted / super_scale : wanted != wanted ? wanted : 0;
        if (is_power && ratio > 1) ratio = 1; // what rounding the super scale down left above it
        if (is_power && ratio < 0x1p-14f) ratio = 0x1p-14f;
        std::uint32_t const code = scale_code<lower>(ratio, rule);
        return ratio > 0 && lower::decode(code) == 0 ? 1u : code; // some of the block is better than none
    }

    /// Integers under affine scales; 0 elsewhere.
    static float zero_point(weight_range const& range, float scale) noexcept {
        if (!Scheme::is_affine || !(scale > 0)) return 0;
        float const zero = std::nearbyint(-range.low / scale);
        return zero < steps ? zero : steps;
    }

    static std::uint32_t code_of_weight(float w, float scale, float zero, float reach, rounding mode,
                                        std::uint32_t bits) noexcept {
        float v = (scale > 0 ? w / scale : 0.0f) + zero;
        if constexpr (format::is_integer)
            v = v < zero - reach ? zero - reach : v > zero + reach ? zero + reach : v;
        else if constexpr (requires { format::symmetric_magnitude; })
            v = v < -steps ? -steps : v > steps ? steps : v;
        return format::encode(v, mode, overflow::saturate, bits);
    }

    double squared_error(block_bounds const& b, weight_range const& range, float scale) const noexcept {
        float const zero = zero_point(range, scale);
        float const reach = integer_reach(scale, steps);
        double sum = 0;
        for (index_t n = b.n0; n < b.n1; ++n)
            for (index_t k = b.k0; k < b.k1; ++k) {
                auto const code = code_of_weight(w_(n, k), scale, zero, reach, rounding::nearest_even, 0);
                double const error = static_cast<double>(scale * (format::decode(code) - zero)) - static_cast<double>(w_(n, k));
                sum += error * error;
            }
        return sum;
    }

    /// Stores a scale's code; returns its value.
    template <class Format, class Stored>
    static float put(Stored* scales, index_t index, std::uint32_t code) noexcept {
        if constexpr (std::is_same_v<Stored, float>)
            scales[index] = Format::decode(code);
        else
            scales[index] = Stored::from_bits(static_cast<decltype(Stored{}.to_bits())>(code));
        return Format::decode(code);
    }

    matrix_view<float const> w_;
    quantize_options options_;
    quantized_tensor<Scheme>& out_;
    index_t row_bytes_;
    std::vector<weight_range> ranges_;
};

} // namespace detail

/// w (n, k) in `Scheme`; see the file comment. O(n k).
template <class Scheme>
quantized_tensor<Scheme> quantize(matrix_view<float const> const& w, quantize_options const& options = {}) {
    check::elements("quantize", "w", w);
    quantized_tensor<Scheme> result{w.extent(0), w.extent(1)};
    detail::quantizer<Scheme>{w, options, result}.run();
    return result;
}
template <class Scheme>
quantized_tensor<Scheme> quantize(matrix<float> const& w, quantize_options const& options = {}) {
    return quantize<Scheme>(w.view(), options);
}

} // namespace tessera::inline TESSERA_ABI
