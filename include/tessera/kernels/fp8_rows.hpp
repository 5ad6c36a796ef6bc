// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The preparation `fp8_per_group<N, Format>`: x in 8-bit floats, a float32 scale for every N consecutive values of a row. With N =
/// 128 and weights in blocks of 128 x 128 it is DeepSeek-V3's product (arXiv:2412.19437, section 3.3.2):
///
///     scheme<e4m3fn, block<128, 128>>    times    fp8_per_group<128>
///
/// A group with the largest magnitude a has the scale s = a / largest(Format), and codes of x * (largest(Format) / a), both
/// quotients and the product rounded to float32, the code to nearest even. A group that has no such quotient (a below about
/// 1.3e-36, 0 included) becomes zeros, one with a value that is not finite NaN.

#include "../numerics/fp8.hpp"
#include "../storage/scheme.hpp"

#include <cfloat>
#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// A preparation; see the file comment.
template <index_t N, class Format = e4m3fn>
struct fp8_per_group {
    static_assert(N > 0, "tessera: fp8_per_group<N>: a group has at least one value");
    static_assert(Format::bits == 8 && !Format::is_integer, "tessera: fp8_per_group<N, Format>: needs an 8-bit float");
    using format = Format;
    static constexpr index_t group = N;

    /// What the product sees of a row: y[k] for x[k].
    TESSERA_HOST_DEVICE static void define_row(double const* x, index_t columns, double* y) noexcept {
        for (index_t first = 0; first < columns; first += N) {
            index_t const last = minimum(first + N, columns);
            float a = 0;
            for (index_t k = first; k < last; ++k) {
                auto const v = std::fabs(static_cast<float>(x[k]));
                a = v <= FLT_MAX ? (v > a ? v : a) : NAN;
            }
            bool const usable = a > 0 && Format::max_magnitude / a <= FLT_MAX;
            float const inverse = usable ? Format::max_magnitude / a : 0.0f;
            float const scale = usable ? a / Format::max_magnitude : 0.0f * a;
            for (index_t k = first; k < last; ++k) {
                double const v = Format::decode(Format::encode(static_cast<float>(x[k]) * inverse));
                y[k] = usable ? double{scale} * v : double{scale};
            }
        }
    }
};

namespace detail {

template <index_t N, class Format>
inline constexpr bool is_preparation<fp8_per_group<N, Format>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
