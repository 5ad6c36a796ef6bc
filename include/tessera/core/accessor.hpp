// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Accessor policies (P0009): how an offset becomes an element. `scaled_accessor` (P1673) makes a lazily scaled operand
/// a view like any other.

#include "types.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Plain pointer access.
template <class T>
struct default_accessor {
    using element_type = T;
    using reference = T&;
    using data_handle_type = T*;
    using offset_policy = default_accessor;

    constexpr default_accessor() noexcept = default;
    /// From the accessor of a less const element.
    template <class U>
        requires std::is_convertible_v<U (*)[], T (*)[]>
    TESSERA_HOST_DEVICE constexpr explicit(false) default_accessor(default_accessor<U>) noexcept {}

    TESSERA_HOST_DEVICE constexpr reference access(data_handle_type p, index_t i) const noexcept { return p[i]; }
    /// Of nothing, a part is nothing: an empty view may have no memory.
    TESSERA_HOST_DEVICE constexpr data_handle_type offset(data_handle_type p, index_t i) const noexcept {
        return p == nullptr ? p : p + i;
    }
};

/// Reads factor * element; read-only.
template <class T>
struct scaled_accessor {
    using element_type = T const;
    using reference = std::remove_cv_t<T>;
    using data_handle_type = T const*;
    using offset_policy = scaled_accessor;

    reference factor{1};

    TESSERA_HOST_DEVICE constexpr reference access(data_handle_type p, index_t i) const noexcept {
        return static_cast<reference>(factor * p[i]);
    }
    TESSERA_HOST_DEVICE constexpr data_handle_type offset(data_handle_type p, index_t i) const noexcept {
        return p == nullptr ? p : p + i;
    }
};

} // namespace tessera::inline TESSERA_ABI
