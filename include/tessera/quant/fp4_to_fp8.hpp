// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// FP4 weights as FP8 ones without loss: where the scales of a row are powers of two times one number, e2m1 codes become e4m3fn
/// codes by an addition to the exponent, and one scale a row remains (ZeroQuant-FP, arXiv:2307.09782, the constraints M1 and M2).
///
///     using m2 = ts::scheme<ts::e2m1, ts::group<128>, ts::two_level<ts::e8m0, ts::per_channel>>;
///     auto const narrow = ts::quantize<m2>(w);
///     auto const wide = ts::to_fp8(narrow); // scheme<e4m3fn, per_channel>: the same weights, for products in FP8
///
/// e2m1 * 2^-j needs a last place of 2^(-1 - j), and e4m3fn's lowest is 2^-9: 8 octaves. The widest group is moved up by 2^6 (6
/// becomes 384, the largest is 448), which makes them 14. `quantize` keeps scales of M2 within these.

#include "../core/error.hpp"
#include "../storage/quantized.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

/// Octaves below the widest group that the conversion spans.
inline constexpr int fp4_octaves = 14;

/// The e4m3fn code of 2^6 * 2^-octaves * an e2m1 code's value, exact; 0 <= octaves <= fp4_octaves.
[[nodiscard]] constexpr std::uint32_t fp8_of_fp4(std::uint32_t code, int octaves) noexcept {
    std::uint32_t const sign = (code & 8u) << 4;
    std::uint32_t const magnitude = code & 7u;
    if (magnitude == 0) return sign;
    // Field and mantissa bit of the value as a normal number: 0.5, the only subnormal, is 2^-1 * 1.
    int const field = static_cast<int>(magnitude >> 1) + 12 - octaves;
    std::uint32_t const mantissa = magnitude == 1 ? 0u : (magnitude & 1u) << 2;
    if (field > 0) return sign | static_cast<std::uint32_t>(field) << 3 | mantissa;
    return sign | (8u | mantissa) >> (1 - field);
}

namespace detail {

/// Scale and codes of every row; the scales of q are bytes of e8m0.
template <class Scheme>
void fp8_codes(quantized<Scheme> const& q, quantized_tensor<scheme<e4m3fn, per_channel>>& out) {
    for (index_t n = 0; n < q.rows() && q.cols() > 0; ++n) { // rows without columns have no scale
        int widest = 0;
        int narrowest = 254;
        for (index_t k = 0; k < q.cols(); ++k) {
            int const byte = q.scales()[q.scale_index(n, k)].to_bits();
            if (byte == 255 || (q.code(n, k) & 7u) == 0) continue; // NaN and 0 are that under any scale
            widest = byte > widest ? byte : widest;
            narrowest = byte < narrowest ? byte : narrowest;
        }
        if (widest - narrowest > fp4_octaves)
            raise<unsupported_error>("tessera: to_fp8: scales of row " + std::to_string(n) + " span " +
                                     std::to_string(widest - narrowest) + " octaves, expected at most 14");
        double row_scale = power_of_two(widest - 127 - 6);
        if constexpr (Scheme::has_two_levels) row_scale *= static_cast<double>(static_cast<float>(q.super_scales()[n]));
        auto const stored = static_cast<float>(row_scale);
        if (static_cast<double>(stored) != row_scale && row_scale == row_scale)
            raise<unsupported_error>("tessera: to_fp8: the scale of row " + std::to_string(n) + " is none in float32");
        out.scales()[n] = stored;
        for (index_t k = 0; k < q.cols(); ++k) {
            int const byte = q.scales()[q.scale_index(n, k)].to_bits();
            out.codes()[n * q.cols() + k] =
                static_cast<std::uint8_t>(byte == 255 ? e4m3fn::card.nan_code : fp8_of_fp4(q.code(n, k), widest - byte));
        }
    }
}

} // namespace detail

/// Every weight of q as e4m3fn under one scale a row. Throws unsupported_error where the scales of a row's weights that are not 0
/// span more than 14 octaves: then it could not be exact.
template <index_t N>
quantized_tensor<scheme<e4m3fn, per_channel>> to_fp8(quantized<scheme<e2m1, group<N>, e8m0>> const& q) {
    quantized_tensor<scheme<e4m3fn, per_channel>> out{q.rows(), q.cols()};
    detail::fp8_codes(q, out);
    return out;
}
template <index_t N>
quantized_tensor<scheme<e4m3fn, per_channel>> to_fp8(quantized<scheme<e2m1, group<N>, two_level<e8m0, per_channel>>> const& q) {
    quantized_tensor<scheme<e4m3fn, per_channel>> out{q.rows(), q.cols()};
    detail::fp8_codes(q, out);
    return out;
}
template <class Scheme>
auto to_fp8(quantized_tensor<Scheme> const& q) {
    return to_fp8(q.view());
}

} // namespace tessera::inline TESSERA_ABI
