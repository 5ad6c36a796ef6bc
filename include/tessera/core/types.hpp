// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The index type and the few integer functions that shapes need.

#include "macros.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// Signed 64-bit index and extent, everywhere.
using index_t = std::int64_t;

/// ceil(a / b) for a >= 0, b > 0.
TESSERA_HOST_DEVICE constexpr index_t ceil_div(index_t a, index_t b) noexcept { return (a + b - 1) / b; }

/// The smallest multiple of b that is not below a; a >= 0, b > 0.
TESSERA_HOST_DEVICE constexpr index_t round_up(index_t a, index_t b) noexcept { return ceil_div(a, b) * b; }

/// The smaller and the larger of two.
TESSERA_HOST_DEVICE constexpr index_t minimum(index_t a, index_t b) noexcept { return a < b ? a : b; }
TESSERA_HOST_DEVICE constexpr index_t maximum(index_t a, index_t b) noexcept { return a < b ? b : a; }

namespace detail {

/// More bytes than any memory has, with room for rounding up: a sum of two such numbers does not overflow.
inline constexpr index_t too_many_bytes = index_t{1} << 61;

/// The product of extents (each >= 0), or the largest index where it is none: no memory holds that many elements, and what
/// is asked for it says so. 0 where one of them is 0.
template <class... Index>
constexpr index_t saturated_product(Index... extents) noexcept {
    constexpr index_t most = std::numeric_limits<index_t>::max();
    if (((extents == 0) || ...)) return 0;
    index_t product = 1;
    auto const include = [&product](index_t extent) noexcept {
#if defined(__GNUC__)
        if (__builtin_mul_overflow(product, extent, &product)) product = most;
#else
        product = product > most / extent ? most : product * extent;
#endif
    };
    (include(static_cast<index_t>(extents)), ...);
    return product;
}

/// False for every T; delays a static_assert until instantiation.
template <class...>
inline constexpr bool always_false = false;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
