// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Views of memory of a CUDA device: shape and strides like any view, and no way to read an element. Functions with a policy
/// `cuda<Sm>` take them, functions with any other policy do not; a kernel of one's own takes `kernel_view(v)`.

#include "view.hpp"

#include <cstddef>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The accessor of views whose elements are on a device.
template <class T>
struct device_accessor {
    using element_type = T;
    using reference = T&;
    using data_handle_type = T*;
    using offset_policy = device_accessor;

    constexpr device_accessor() noexcept = default;
    /// From the accessor of a less const element.
    template <class U>
        requires std::is_convertible_v<U (*)[], T (*)[]>
    TESSERA_HOST_DEVICE constexpr explicit(false) device_accessor(device_accessor<U>) noexcept {}

    /// Does not compile where it is called.
    template <class Index>
    TESSERA_HOST_DEVICE constexpr reference access(data_handle_type p, Index i) const noexcept {
        static_assert(detail::always_false<Index>, "tessera: a view of device memory has no elements here; copy it to the host, or "
                                                   "pass kernel_view(v) to a kernel");
        return p[i];
    }
    TESSERA_HOST_DEVICE constexpr data_handle_type offset(data_handle_type p, index_t i) const noexcept {
        return p == nullptr ? p : p + i;
    }
};

/// A strided array on a device, of run-time shape.
template <class T, std::size_t Rank>
using device_view = view<T, dynamic_extents<Rank>, layout_stride, device_accessor<T>>;
/// (rows, columns), any strides, on a device.
template <class T>
using device_matrix_view = device_view<T, 2>;
/// (size), any stride, on a device.
template <class T>
using device_vector_view = device_view<T, 1>;

namespace detail {

template <class V>
inline constexpr bool is_device_view = false;
template <class T, class E, class L>
inline constexpr bool is_device_view<view<T, E, L, device_accessor<T>>> = true;

} // namespace detail

/// The same elements for code that runs on the device.
template <class T, class E, class L>
TESSERA_HOST_DEVICE constexpr tensor_view<T, E::rank()> kernel_view(view<T, E, L, device_accessor<T>> const& v) noexcept {
    return tensor_view<T, E::rank()>{view<T, E, L>{v.data_handle(), v.mapping()}};
}

} // namespace tessera::inline TESSERA_ABI
