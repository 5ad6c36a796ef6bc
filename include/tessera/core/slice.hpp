// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Slices: `slice(v, all, 3, range{2, 5})` is std::submdspan for the three slice kinds that numeric code uses. An
/// integer drops its dimension, `range{first, last}` is half open, `all` keeps everything. The result has run-time
/// extents and `layout_stride`. `rows`, `columns` and `transposed` are the matrix words for the common ones.
///
/// Bounds are the caller's: slices are made inside kernels too.

#include "view.hpp"

#include <cstddef>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Keeps a whole dimension.
struct all_t {};
inline constexpr all_t all{};

/// [first, last) of a dimension.
struct range {
    index_t first = 0;
    index_t last = 0;
};

namespace detail {

template <class S>
inline constexpr bool drops_dimension = std::is_convertible_v<S, index_t>;

TESSERA_HOST_DEVICE constexpr index_t slice_first(index_t i) noexcept { return i; }
TESSERA_HOST_DEVICE constexpr index_t slice_first(range r) noexcept { return r.first; }
TESSERA_HOST_DEVICE constexpr index_t slice_first(all_t) noexcept { return 0; }
TESSERA_HOST_DEVICE constexpr index_t slice_size(range r, index_t) noexcept { return r.last - r.first; }
TESSERA_HOST_DEVICE constexpr index_t slice_size(all_t, index_t extent) noexcept { return extent; }

template <std::size_t Rank>
TESSERA_HOST_DEVICE constexpr dynamic_extents<Rank> extents_from(index_t const* sizes) noexcept {
    return [&]<std::size_t... R>(std::index_sequence<R...>) {
        return dynamic_extents<Rank>{sizes[R]...};
    }(std::make_index_sequence<Rank>{});
}

} // namespace detail

/// The part of `v` that the slices (one per dimension) select; see the file comment.
template <class T, class E, class L, class A, class... Slices>
    requires(sizeof...(Slices) == E::rank())
TESSERA_HOST_DEVICE constexpr auto slice(view<T, E, L, A> const& v, Slices... slices) noexcept {
    constexpr std::size_t kept = (std::size_t{0} + ... + (detail::drops_dimension<Slices> ? 0u : 1u));
    index_t sizes[kept + 1]{};
    index_t strides[kept + 1]{};
    index_t offset = 0;
    std::size_t from = 0;
    std::size_t to = 0;
    auto const one = [&](auto s) {
        offset += detail::slice_first(s) * v.stride(from);
        if constexpr (!detail::drops_dimension<decltype(s)>) {
            sizes[to] = detail::slice_size(s, v.extent(from));
            strides[to] = v.stride(from);
            ++to;
        }
        ++from;
    };
    (one(slices), ...);
    using extents_type = dynamic_extents<kept>;
    using result = view<T, extents_type, layout_stride, typename A::offset_policy>;
    return result{v.accessor().offset(v.data_handle(), offset),
                  typename result::mapping_type{detail::extents_from<kept>(sizes), strides}, v.accessor()};
}

/// Rows [first, last) of a matrix.
template <class T, class E, class L, class A>
    requires(E::rank() == 2)
TESSERA_HOST_DEVICE constexpr auto rows(view<T, E, L, A> const& v, index_t first, index_t last) noexcept {
    return slice(v, range{first, last}, all);
}

/// Columns [first, last) of a matrix.
template <class T, class E, class L, class A>
    requires(E::rank() == 2)
TESSERA_HOST_DEVICE constexpr auto columns(view<T, E, L, A> const& v, index_t first, index_t last) noexcept {
    return slice(v, all, range{first, last});
}

/// The matrix with its dimensions exchanged; no data moves.
template <class T, class E, class L, class A>
    requires(E::rank() == 2)
TESSERA_HOST_DEVICE constexpr auto transposed(view<T, E, L, A> const& v) noexcept {
    using result = view<T, dynamic_extents<2>, layout_stride, A>;
    index_t const strides[] = {v.stride(1), v.stride(0)};
    return result{v.data_handle(),
                  typename result::mapping_type{dynamic_extents<2>{v.extent(1), v.extent(0)}, strides}, v.accessor()};
}

/// The matrix read as factor * element (P1673's `scaled`).
template <class T, class E, class L>
TESSERA_HOST_DEVICE constexpr auto scaled_view(std::remove_cv_t<T> factor,
                                               view<T, E, L, default_accessor<T>> const& v) noexcept {
    using element = std::remove_cv_t<T>;
    return view<element const, E, L, scaled_accessor<element>>{v.data_handle(), v.mapping(),
                                                              scaled_accessor<element>{factor}};
}

} // namespace tessera::inline TESSERA_ABI
