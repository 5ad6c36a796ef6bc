// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Names that are settled but not built yet, so that all five families share one vocabulary from the start. Each is
/// declared here until its header takes it over; `is_built<T>` says which side of that line a type is on, and making an
/// object of a planned type fails with a sentence.

#include "core/types.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The body of a planned template: cannot be made, says so.
template <class... T>
struct planned {
    planned() { static_assert(always_false<T...>, "tessera: this type is planned and not built yet"); }
};

} // namespace detail

/// KV cache layout: pages of N tokens, shared between sequences.
template <index_t N>
class paged : detail::planned<paged<N>> {};

/// False for the types of this file.
template <class T>
inline constexpr bool is_built = true;
template <index_t N>
inline constexpr bool is_built<paged<N>> = false;

} // namespace tessera::inline TESSERA_ABI
