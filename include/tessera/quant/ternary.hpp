// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Weights to ternary ones as BitNet b1.58 (arXiv:2402.17764) and MatMul-free LM (arXiv:2406.02528) do it: absmean. For every
/// block of weights that share a scale (published: the tensor)
///
///     inverse = 1 / max(mean |w|, 1e-5)      t = clip(round_half_even(w inverse), -1, 1)      scale = 1 / inverse
///
/// in float32, the mean summed in double. So |w| above half the mean becomes 1, also where the scale is stored in another type
/// (which rounds the scale alone). On a unit Gaussian 31% of the weights become 0 and the squared error is 0.2634; the least that
/// ternary weights allow is 0.1902. A block with a NaN or infinity has a NaN scale: all of it decodes to NaN; where the scale's type has
/// no NaN it is refused with unsupported_error. A scale beyond its type is the type's largest.

#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../storage/ternary.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Ternary weights: one scale for the tensor (as published), for a row, for 128 columns.
using ternary_per_tensor = scheme<ternary, per_tensor, fp32>;
using ternary_per_channel = scheme<ternary, per_channel, fp32>;
using ternary_g128 = scheme<ternary, group<128>, fp16>;

namespace detail {

/// 1 / max(mean |w|, 1e-5) of a block; NaN where a weight is not finite.
inline float absmean_inverse(matrix_view<float const> const& w, index_t n0, index_t n1, index_t k0, index_t k1) noexcept {
    double sum = 0;
    for (index_t n = n0; n < n1; ++n)
        for (index_t k = k0; k < k1; ++k) sum += std::fabs(static_cast<double>(w(n, k)));
    auto const mean = static_cast<float>(sum / static_cast<double>((n1 - n0) * (k1 - k0)));
    if (!(mean <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
    return 1.0f / (mean > 1e-5f ? mean : 1e-5f);
}

/// A scale as it is stored, saturating.
template <class Scheme>
typename quantized_tensor<Scheme>::scale_type absmean_scale(float inverse) {
    using format = typename Scheme::scale_type;
    using stored = typename quantized_tensor<Scheme>::scale_type;
    constexpr float largest = std::numeric_limits<float>::max();
    float const scale = 1.0f / inverse > largest ? largest : 1.0f / inverse; // NaN stays
    std::uint32_t const code = format::encode(scale, rounding::nearest_even, overflow::saturate);
    if (scale != scale && !std::isnan(format::decode(code)))
        raise<unsupported_error>(std::string{"tessera: quantize_absmean: a block of weights is not finite, and "} + format::name +
                                 ", the type of scales, has no NaN");
    if constexpr (std::is_same_v<stored, float>)
        return scale;
    else
        return stored::from_bits(static_cast<decltype(stored{}.to_bits())>(code));
}

} // namespace detail

/// w (n, k) in ternary weights; see the file comment. O(n k).
template <class Scheme = ternary_per_tensor>
quantized_tensor<Scheme> quantize_absmean(matrix_view<float const> const& w) {
    static_assert(std::is_same_v<typename Scheme::format, ternary> && !Scheme::has_two_levels,
                  "tessera: quantize_absmean<Scheme> makes ternary weights with scales of one level");
    using shares = typename Scheme::granularity_type;
    check::elements("quantize_absmean", "w", w);
    quantized_tensor<Scheme> out{w.extent(0), w.extent(1)};
    index_t const rows = maximum(1, shares::rows == 0 ? w.extent(0) : shares::rows);
    index_t const columns = maximum(1, shares::columns == 0 ? w.extent(1) : shares::columns);
    index_t block = 0;
    for (index_t n0 = 0; n0 < w.extent(0); n0 += rows)
        for (index_t k0 = 0; k0 < w.extent(1); k0 += columns) {
            index_t const n1 = minimum(n0 + rows, w.extent(0));
            index_t const k1 = minimum(k0 + columns, w.extent(1));
            float const inverse = detail::absmean_inverse(w, n0, n1, k0, k1);
            out.scales()[block++] = detail::absmean_scale<Scheme>(inverse);
            for (index_t n = n0; n < n1; ++n)
                for (index_t k = k0; k < k1; ++k)
                    bitpack::set<2>(out.codes() + n * bitpack::bytes(w.extent(1), 2), k, ternary::encode(w(n, k) * inverse));
        }
    return out;
}
template <class Scheme = ternary_per_tensor>
quantized_tensor<Scheme> quantize_absmean(matrix<float> const& w) {
    return quantize_absmean<Scheme>(w.view());
}

/// The weights of a published BitNet checkpoint (Hugging Face's layout), moved, not requantised: bits 2i and 2i + 1 of packed
/// row r are the code of row i ceil(n / 4) + r. `scale` is what -1, 0 and 1 are multiplied by (some files store its inverse).
/// A code 3 is refused with format_error.
inline quantized_tensor<ternary_per_tensor> ternary_from_packed_rows(matrix_view<std::uint8_t const> const& packed, // (ceil(n / 4), k)
                                                                     index_t n, float scale) {
    check::elements("ternary_from_packed_rows", "packed", packed);
    check::at_least("ternary_from_packed_rows", "rows", n, 0);
    index_t const quarter = packed.extent(0);
    check::equal("ternary_from_packed_rows", "rows of packed", quarter, ceil_div(n, 4), "a quarter of the rows");
    quantized_tensor<ternary_per_tensor> out{n, packed.extent(1)};
    if (n > 0 && packed.extent(1) > 0) out.scales()[0] = scale;
    for (index_t row = 0; row < n; ++row)
        for (index_t k = 0; k < packed.extent(1); ++k) {
            std::uint32_t const code = static_cast<std::uint32_t>(packed(row % quarter, k)) >> (2 * (row / quarter)) & 3u;
            if (code > 2)
                detail::raise<format_error>("tessera: ternary_from_packed_rows: code 3 at row " + std::to_string(row) + ", column " +
                                    std::to_string(k) + ", expected 0 to 2: -1, 0 and 1");
            bitpack::set<2>(out.codes() + row * bitpack::bytes(out.cols(), 2), k, code);
        }
    return out;
}

} // namespace tessera::inline TESSERA_ABI
