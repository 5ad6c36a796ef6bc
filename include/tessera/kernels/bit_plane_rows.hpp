// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The form of x for products by bit planes, and the value that such a product sees.
///
///     a = max |x| of the row      scale = a / (2^Bits - 1)      code = bipolar<Bits>::encode(x ((2^Bits - 1) / a))
///
/// in float32. A row of zeros, or with a below (2^Bits - 1) / 2^128, has scale 0; one with NaN or infinity a scale of NaN.

#include "../storage/bit_planes.hpp"
#include "forms.hpp"

#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// x as `bipolar<Bits>` in bit planes, laid out as in storage/bit_planes.hpp.
template <int Bits>
struct bit_plane_rows {
    static constexpr int bits = Bits;

    std::uint64_t const* words = nullptr; ///< (rows, words of a row)
    float const* scales = nullptr;        ///< (rows)
    std::int64_t const* sums = nullptr;   ///< (rows): of the values, before the scale
    index_t rows = 0;
    index_t columns = 0;

    static constexpr index_t row_words_of(index_t columns) noexcept { return detail::plane_row_words(columns, Bits); }
    std::uint64_t const* row(index_t m) const noexcept { return words + m * row_words_of(columns); }
    /// Rows [first, first + count).
    bit_plane_rows slice(index_t first, index_t count) const noexcept {
        return {row(first), scales + first, sums + first, count, columns};
    }
};

namespace detail {

template <class Source, int Bits>
struct select_form<Source, bipolar_per_token<Bits>> {
    static_assert(always_false<Source>, "tessera: bipolar_per_token needs weights in bit planes: see pack_bit_planes");
};

/// The scale of a row whose largest magnitude is a (NaN where one is not finite), and what x is multiplied by.
struct bipolar_scale {
    float scale;
    float inverse;

    constexpr bipolar_scale(float a, int bits) noexcept : scale{0}, inverse{0} {
        auto const most = static_cast<float>((1 << bits) - 1);
        bool const usable = a > 0 && most / a <= std::numeric_limits<float>::max();
        scale = usable ? a / most : 0.0f * a;
        inverse = usable ? most / a : 0.0f;
    }
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
