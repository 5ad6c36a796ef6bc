// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The arithmetic policy `l_mul<Format>` as a preparation, and the form of x that goes with it.

#include "../numerics/lmul.hpp"
#include "../storage/scheme.hpp"
#include "forms.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// A preparation: x and the decoded weights are rounded to `Format` (fp32, bf16, fp16 or an 8-bit float) and multiplied by L-Mul
/// (numerics/lmul.hpp), one integer addition each; products are values of `Format` and saturate, sums are float32.
template <class Format = bf16>
struct l_mul {
    static_assert(detail::fields_of<Format>.mantissa_bits >= 1, "tessera: l_mul<Format>: needs a mantissa bit");
    using format = Format;
};

namespace detail {

template <class Format>
inline constexpr bool is_preparation<l_mul<Format>> = true;

/// The smallest normal number of a format.
template <class Format>
inline constexpr float least_normal = Format::decode(1u << fields_of<Format>.mantissa_bits);

} // namespace detail

/// x in values of `Format`, subnormal ones as zeros.
template <class Format>
struct l_mul_rows {
    float const* data = nullptr;              ///< (rows, stride)
    std::uint8_t const* not_finite = nullptr; ///< (rows): whether a value is NaN or infinite
    index_t rows = 0;
    index_t columns = 0;

    static constexpr index_t stride_of(index_t columns) noexcept { return round_up(columns, 16); }
    float const* row(index_t m) const noexcept { return data + m * stride_of(columns); }
    /// Rows [first, first + count).
    l_mul_rows slice(index_t first, index_t count) const noexcept { return {row(first), not_finite + first, count, columns}; }
};

} // namespace tessera::inline TESSERA_ABI
