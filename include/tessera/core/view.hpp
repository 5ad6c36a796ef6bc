// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `view<T, Extents, Layout, Accessor>`: a non-owning, trivially copyable multidimensional array, with the names and
/// the meaning of std::mdspan; callable on a CUDA device.
///
/// Functions of the library take the three aliases below. They have run-time extents and strides, so that any slice of
/// any layout passes; kernels look at the strides once, at the door.

#include "accessor.hpp"
#include "layout.hpp"

#include <array>
#include <cstddef>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// A pointer, a mapping from indices to offsets, and an accessor that reads what is there; see the file comment.
template <class T, class Extents, class Layout = layout_right, class Accessor = default_accessor<T>>
class view : private Accessor { // a base, not [[no_unique_address]]: device code of nvcc 13 lays such members out in another way
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;
    using extents_type = Extents;
    using layout_type = Layout;
    using accessor_type = Accessor;
    using mapping_type = typename Layout::template mapping<Extents>;
    using reference = typename Accessor::reference;
    using data_handle_type = typename Accessor::data_handle_type;

    constexpr view() noexcept = default;

    TESSERA_HOST_DEVICE constexpr view(data_handle_type data, mapping_type const& mapping,
                                       Accessor const& accessor = {}) noexcept
        : Accessor{accessor}, data_{data}, mapping_{mapping} {}

    /// Contiguous data of the given extents: `matrix_view<float>{p, m, k}` is row-major.
    template <class... Index>
        requires(sizeof...(Index) == Extents::rank() && (std::is_convertible_v<Index, index_t> && ...) &&
                 sizeof...(Index) > 0)
    TESSERA_HOST_DEVICE constexpr explicit view(data_handle_type data, Index... sizes) noexcept
        : data_{data}, mapping_{contiguous(Extents{static_cast<index_t>(sizes)...})} {}

    /// From a view of a less const element, or of a layout that this one can express.
    template <class U, class OtherExtents, class OtherLayout, class OtherAccessor>
        requires(std::is_convertible_v<OtherAccessor, Accessor> &&
                 std::is_constructible_v<mapping_type, typename OtherLayout::template mapping<OtherExtents> const&> &&
                 OtherExtents::rank() == Extents::rank())
    TESSERA_HOST_DEVICE constexpr explicit(false)
        view(view<U, OtherExtents, OtherLayout, OtherAccessor> const& other) noexcept
        : Accessor(other.accessor()), data_{other.data_handle()}, mapping_{other.mapping()} {}

    TESSERA_HOST_DEVICE static constexpr std::size_t rank() noexcept { return Extents::rank(); }
    TESSERA_HOST_DEVICE constexpr index_t extent(std::size_t r) const noexcept { return mapping_.extents().extent(r); }
    TESSERA_HOST_DEVICE constexpr index_t stride(std::size_t r) const noexcept { return mapping_.stride(r); }
    TESSERA_HOST_DEVICE constexpr Extents const& extents() const noexcept { return mapping_.extents(); }
    TESSERA_HOST_DEVICE constexpr mapping_type const& mapping() const noexcept { return mapping_; }
    TESSERA_HOST_DEVICE constexpr Accessor const& accessor() const noexcept { return *this; }
    TESSERA_HOST_DEVICE constexpr data_handle_type data_handle() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t size() const noexcept { return mapping_.extents().size(); }
    TESSERA_HOST_DEVICE constexpr bool empty() const noexcept { return size() == 0; }

    template <class... Index>
        requires(sizeof...(Index) == Extents::rank() && (std::is_convertible_v<Index, index_t> && ...))
    TESSERA_HOST_DEVICE constexpr reference operator()(Index... index) const noexcept {
        return this->access(data_, mapping_(static_cast<index_t>(index)...));
    }

    /// Rank 1 only: v[i].
    TESSERA_HOST_DEVICE constexpr reference operator[](index_t i) const noexcept
        requires(Extents::rank() == 1)
    {
        return this->access(data_, mapping_(i));
    }

private:
    TESSERA_HOST_DEVICE static constexpr mapping_type contiguous(Extents const& e) noexcept {
        if constexpr (std::is_constructible_v<mapping_type, Extents const&>)
            return mapping_type{e};
        else
            return mapping_type{layout_right::mapping<Extents>{e}};
    }

    data_handle_type data_{};
    mapping_type mapping_{};
};

/// A strided array of run-time shape and rank `Rank`.
template <class T, std::size_t Rank>
using tensor_view = view<T, dynamic_extents<Rank>, layout_stride>;

/// (rows, columns), any strides.
template <class T>
using matrix_view = tensor_view<T, 2>;

/// (size), any stride.
template <class T>
using vector_view = tensor_view<T, 1>;

namespace detail {

template <class T>
inline constexpr bool is_view = false;
template <class T, class E, class L, class A>
inline constexpr bool is_view<view<T, E, L, A>> = true;

} // namespace detail

/// Bytes from the first to past the last element of a view with non-negative strides; 0 when it is empty.
template <class T, class E, class L, class A>
TESSERA_HOST_DEVICE constexpr index_t span_bytes(view<T, E, L, A> const& v) noexcept {
    return v.mapping().required_span_size() * static_cast<index_t>(sizeof(T));
}

/// True when the innermost dimension is contiguous (or has at most one element).
template <class T, class E, class L, class A>
TESSERA_HOST_DEVICE constexpr bool has_unit_stride(view<T, E, L, A> const& v) noexcept {
    return v.extent(v.rank() - 1) <= 1 || v.stride(v.rank() - 1) == 1;
}

} // namespace tessera::inline TESSERA_ABI
