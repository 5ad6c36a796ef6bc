// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the functions of nn/ share: their arguments as strided views, and the checks at the door. Rows may lie any
/// distance apart; the elements of a row are contiguous. An output may be one of the inputs itself ("in place") where a
/// function says so; any other overlap is refused.

#include "../core/device_view.hpp"
#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../numerics/half.hpp"

#include <concepts>
#include <cstdint>
#include <string>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// Elements that activations may have.
template <class T>
concept activation_element = std::same_as<std::remove_const_t<T>, float> || std::same_as<std::remove_const_t<T>, fp16> ||
                             std::same_as<std::remove_const_t<T>, bf16>;

namespace detail {

template <class V, std::size_t Rank>
inline constexpr bool is_activation_view = false;
template <activation_element T, class E, class L, class A, std::size_t Rank>
inline constexpr bool is_activation_view<view<T, E, L, A>, Rank> = E::rank() == Rank;

template <class V, std::size_t Rank>
concept array_argument = is_activation_view<std::remove_cvref_t<V>, Rank> ||
                         requires(std::remove_reference_t<V>& v) {
                             requires is_activation_view<std::remove_cvref_t<decltype(v.view())>, Rank>;
                         };

} // namespace detail

/// A vector, matrix or three-dimensional array of activation elements: a view of any layout, or an owner with view().
template <class V>
concept vector_argument = detail::array_argument<V, 1>;
template <class V>
concept matrix_argument = detail::array_argument<V, 2>;
template <class V>
concept array3_argument = detail::array_argument<V, 3>;

namespace detail {

/// The argument as a run-time strided view, for the duration of the call.
template <class V>
constexpr auto strided(V& v) noexcept {
    if constexpr (is_view<std::remove_cv_t<V>>)
        return tensor_view<typename V::element_type, V::rank()>{v};
    else
        return v.view();
}

/// The same, read-only.
template <class V>
constexpr auto input(V const& v) noexcept {
    auto const s = strided(v);
    return tensor_view<typename decltype(s)::value_type const, decltype(s)::rank()>{s};
}

/// The same, writable.
template <class V>
constexpr auto output(V& v) noexcept {
    auto const s = strided(v);
    static_assert(!std::is_const_v<typename decltype(s)::element_type>, "tessera: the output is read-only");
    return s;
}

/// An argument where a policy computes, as a strided view: cuda<Sm> takes device memory, every other policy the host's.
template <class Exec, class V>
constexpr auto strided_for(V& v) noexcept {
    if constexpr (!is_view<std::remove_cv_t<V>>) {
        auto const w = v.view();
        return strided_for<Exec>(w);
    } else {
        static_assert(is_device_view<std::remove_cv_t<V>> == is_cuda<Exec>,
                      "tessera: cuda<Sm> takes views of device memory (device_matrix_view), every other policy the host's");
        if constexpr (is_device_view<std::remove_cv_t<V>>)
            return kernel_view(v);
        else
            return strided(v);
    }
}
template <class Exec, class V>
constexpr auto input(V const& v) noexcept {
    auto const s = strided_for<Exec>(v);
    return tensor_view<typename decltype(s)::value_type const, decltype(s)::rank()>{s};
}
template <class Exec, class V>
constexpr auto output(V& v) noexcept {
    auto const s = strided_for<Exec>(v);
    static_assert(!std::is_const_v<typename decltype(s)::element_type>, "tessera: the output is read-only");
    return s;
}

/// A pointer where there are elements, and contiguous rows.
template <class View>
void check_rows(char const* operation, char const* argument, View const& v) {
    check::elements(operation, argument, v);
    if (!has_unit_stride(v))
        raise_unequal(operation, (std::string{"stride inside a row of "} + argument).c_str(), v.stride(View::rank() - 1),
                      1, "rows are contiguous");
}

/// check_rows, and no two elements of an output are one.
template <class T>
void check_output_rows(char const* operation, char const* argument, matrix_view<T> const& v) {
    check_rows(operation, argument, v);
    check::distinct_elements(operation, argument, v);
}

/// Input x and output y are the same elements, or share none.
template <class X, class Y>
void check_same_or_apart(char const* operation, char const* x_name, matrix_view<X> const& x, char const* y_name,
                         matrix_view<Y> const& y) {
    if (!is_same_array(x, y)) check::no_overlap(operation, x_name, footprint_of(x), y_name, footprint_of(y));
}

/// A small input must not overlap an output at all.
template <class W, class Y>
void check_apart(char const* operation, char const* w_name, vector_view<W> const& w, char const* y_name,
                 matrix_view<Y> const& y) {
    check::no_overlap(operation, w_name, footprint_of(w), y_name, footprint_of(y));
}

/// y has the shape of x.
template <class X, class Y>
void check_same_shape(char const* operation, matrix_view<X> const& x, char const* y_rows, char const* y_columns,
                      matrix_view<Y> const& y) {
    check::equal(operation, y_rows, y.extent(0), x.extent(0), "rows of x");
    check::equal(operation, y_columns, y.extent(1), x.extent(1), "columns of x");
}

/// Rows that one parallel chunk takes: about 16 K elements, so that a single short row never pays for a parallel region.
constexpr index_t row_grain(index_t columns) noexcept { return maximum(1, 16384 / maximum(columns, 1)); }

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
