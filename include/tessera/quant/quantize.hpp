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
/// The scale is rounded to its stored type first, and codes are chosen for the rounded one: symmetric integers lie in -M to
/// M whatever the rounding did to it, and integer codes of finite weights decode to finite numbers. A block of zeros, or of
/// weights too small for the scale's type, has scale 0 and decodes to zeros. A block with a NaN or infinity has a NaN scale,
/// so all of it decodes to NaN; where the scale's type has no NaN it is refused with unsupported_error. Source: "A White Paper on Neural Network Quantization", arXiv:2106.08295, section 2.2.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"
#include "../storage/quantized.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// How codes are chosen.
struct quantize_options {
    rounding mode = rounding::nearest_even;
    /// Seed of stochastic rounding; weight (n, k) takes random number n * columns + k.
    std::uint64_t seed = 0;
};

namespace detail {

/// The largest magnitude that a format has with both signs.
template <class Format>
inline constexpr float symmetric_limit = [] {
    if constexpr (Format::is_integer)
        return static_cast<float>(Format::max_value);
    else
        return Format::max_magnitude;
}();

struct weight_range {
    float low = 0;
    float high = 0;
    bool finite = true;
};

/// (high - low) / steps, at most the largest float, for low <= 0 <= high: the difference itself may be beyond it.
inline float affine_scale(float low, float high, float steps) noexcept {
    constexpr float largest = std::numeric_limits<float>::max();
    float const span = high - low;
    if (span <= largest) return span / steps;
    float const scale = (0.5f * high - 0.5f * low) / (0.5f * steps);
    return scale <= largest ? scale : largest;
}

/// w / scale: by the reciprocal, or by division where a small scale has none in float32. 0 where the scale is 0 or NaN.
class scale_divisor {
public:
    explicit scale_divisor(float scale) noexcept
        : scale_{scale}, inverse_{scale > 0 ? 1.0f / scale : 0.0f},
          divides_{inverse_ > std::numeric_limits<float>::max()} {}
    float operator()(float w) const noexcept { return divides_ ? w / scale_ : w * inverse_; }

private:
    float scale_;
    float inverse_;
    bool divides_;
};

/// The largest integer of at most `limit` whose product with the scale is a finite float.
inline float integer_reach(float scale, float limit) noexcept {
    double const finite = std::floor(static_cast<double>(std::numeric_limits<float>::max()) / static_cast<double>(scale));
    return finite < static_cast<double>(limit) ? static_cast<float>(finite) : limit;
}

template <class Scheme>
class quantizer {
public:
    using format = typename Scheme::format;
    using scale_format = typename Scheme::scale_type;
    using granularity_type = typename Scheme::granularity_type;

    quantizer(matrix_view<float const> const& w, quantize_options const& options, quantized_tensor<Scheme>& out)
        : w_{w}, options_{options}, out_{out} {}

    void run() {
        index_t const rows = granularity_type::rows == 0 ? w_.extent(0) : granularity_type::rows;
        index_t const columns = granularity_type::columns == 0 ? w_.extent(1) : granularity_type::columns;
        index_t scale = 0;
        for (index_t n = 0; n < w_.extent(0); n += maximum(rows, 1))
            for (index_t k = 0; k < w_.extent(1); k += maximum(columns, 1))
                block(n, minimum(n + rows, w_.extent(0)), k, minimum(k + columns, w_.extent(1)), scale++);
    }

private:
    void block(index_t n0, index_t n1, index_t k0, index_t k1, index_t index) {
        weight_range range;
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) {
                float const v = w_(n, k);
                range.low = v < range.low ? v : range.low;
                range.high = v > range.high ? v : range.high;
                range.finite = range.finite && std::fabs(v) <= std::numeric_limits<float>::max();
            }
        float const steps = Scheme::is_affine ? static_cast<float>((1 << format::bits) - 1) : symmetric_limit<format>;
        float const exact = Scheme::is_affine ? affine_scale(range.low, range.high, steps)
                                              : (range.high > -range.low ? range.high : -range.low) / steps;
        float const scale = store_scale(index, range.finite ? exact : std::numeric_limits<float>::quiet_NaN());
        scale_divisor const scaled{scale};
        float zero = 0;
        if constexpr (Scheme::is_affine) {
            zero = std::nearbyint(scaled(-range.low));
            zero = zero < steps ? zero : steps; // NaN, of a NaN scale, falls to the next line
            out_.zero_points()[index] = static_cast<std::uint8_t>(zero > 0 ? zero : 0);
            zero = static_cast<float>(out_.zero_points()[index]);
        }
        float const reach = integer_reach(scale, steps);
        philox const random{options_.seed};
        for (index_t n = n0; n < n1; ++n)
            for (index_t k = k0; k < k1; ++k) {
                auto const bits = options_.mode == rounding::stochastic
                                      ? random.bits(static_cast<std::uint64_t>(n * w_.extent(1) + k))
                                      : 0u;
                float v = scaled(w_(n, k)) + zero;
                if constexpr (format::is_integer) v = v < zero - reach ? zero - reach : v > zero + reach ? zero + reach : v;
                std::uint32_t const code = format::encode(v, options_.mode, overflow::saturate, bits);
                bitpack::set<format::bits>(out_.codes() + n * bitpack::bytes(w_.extent(1), format::bits), k, code);
            }
    }

    /// Stores a scale; returns what it became.
    float store_scale(index_t index, float scale) {
        using stored = typename quantized_tensor<Scheme>::scale_type;
        if constexpr (std::is_same_v<stored, float>) {
            out_.scales()[index] = scale;
            return scale;
        } else {
            auto const code = scale_format::encode(scale, rounding::nearest_even, overflow::saturate);
            float const value = scale_format::decode(code);
            if (scale != scale && value == value)
                raise<unsupported_error>(std::string{"tessera: quantize: a block of weights is not finite, and "} +
                                         scale_format::name + " scales have no NaN to say so");
            out_.scales()[index] = stored::from_bits(static_cast<decltype(stored{}.to_bits())>(code));
            return value;
        }
    }

    matrix_view<float const> w_;
    quantize_options options_;
    quantized_tensor<Scheme>& out_;
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
