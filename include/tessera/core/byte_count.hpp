// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Sizes of arrays whose bytes may be no index: what would overflow stops at the largest index, and whoever is asked for so
/// much memory throws.

#include "types.hpp"

#include <cstddef>
#include <limits>
#include <new>

namespace tessera::inline TESSERA_ABI::detail {

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

[[noreturn]] TESSERA_COLD inline void raise_too_many_bytes() {
#if TESSERA_EXCEPTIONS
    throw std::bad_array_new_length{};
#else
    ::operator delete(::operator new(static_cast<std::size_t>(-1))); // ends the program as any failed new does here
    __builtin_unreachable();
#endif
}

} // namespace tessera::inline TESSERA_ABI::detail
