// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `pvq_per_group<Format>`: a preparation. x becomes, in each group of N columns, a point of the pyramid with a scale: small
/// integers, which int8 kernels multiply as they are.
///
///     auto const w = linear{q, pvq_per_group<pvq<32, 96>>{}};      // 32 activations as 96 pulses, weights of any integer format
///
/// The point is the search-free encoder's (numerics/pvq_encode.hpp), the scale <x, p> / |p|^2 in float32: least squared error. A
/// group of zeros has scale 0; a group with a NaN or infinity has scale NaN, so the rows of y that depend on it are NaN. No index
/// is made: what this prepares is used at once.

#include "../numerics/pvq_encode.hpp"
#include "../storage/pvq_gain.hpp"
#include "forms.hpp"

#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The point of a group of `count` columns and its scale.
template <class Format>
float pvq_activation(float const* x, index_t count, std::int8_t* p) noexcept { // (N)
    double const gain = pvq_encode<Format>(x, count, p, pvq_encoder::search_free);
    constexpr auto most = static_cast<double>(std::numeric_limits<float>::max());
    return pvq_scale<float>(static_cast<float>(gain > most ? most : gain), p, Format::group);
}

} // namespace detail

/// See the file comment.
template <class Format>
struct pvq_per_group {
    static_assert(Format::group % 32 == 0, "tessera: pvq_per_group<pvq<N, K>> needs an N that is a multiple of 32");

    /// The definition: y[k] = the value of x[k] that the product sees; x and y may be the same.
    static void define_row(double const* x, index_t columns, double* y) noexcept {
        for (index_t first = 0; first < columns; first += Format::group) {
            float group[Format::group];
            std::int8_t p[Format::group];
            index_t const count = minimum(Format::group, columns - first);
            for (index_t k = 0; k < count; ++k) group[k] = static_cast<float>(x[first + k]);
            auto const scale = static_cast<double>(detail::pvq_activation<Format>(group, count, p));
            for (index_t k = 0; k < count; ++k) y[first + k] = scale * p[k];
        }
    }
};

/// x as points of a pyramid: int8 rows with other integers.
template <class Format, index_t Block>
struct pvq_rows : int8_rows<Format::group, Block> {
    using base = int8_rows<Format::group, Block>;
    /// Rows [first, first + count).
    pvq_rows slice(index_t first, index_t count) const noexcept { return {base::slice(first, count)}; }
};

namespace detail {

template <class Format>
inline constexpr index_t activation_group<pvq_per_group<Format>> = Format::group;

template <class Source, class Format>
struct select_form<Source, pvq_per_group<Format>> {
    using base = typename select_form<Source, int8_per_group<Format::group>>::type;
    using type = pvq_rows<Format, base::block>;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
