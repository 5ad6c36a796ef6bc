// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The index type and the few integer functions that shapes need.

#include "macros.hpp"

#include <cstddef>
#include <cstdint>

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

/// False for every T; delays a static_assert until instantiation.
template <class...>
inline constexpr bool always_false = false;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
