// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the functions of nn/ share: their arguments as strided views, and the checks at the door. Rows may lie any
/// distance apart; the elements of a row are contiguous. An output may be one of the inputs itself ("in place") where a
/// function says so; any other overlap is refused.

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/view.hpp"
#include "../numerics/half.hpp"

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// Elements that activations may have.
template <class T>
concept activation_element = std::same_as<std::remove_const_t<T>, float> || std::same_as<std::remove_const_t<T>, fp16> ||
                             std::same_as<std::remove_const_t<T>, bf16>;

namespace detail {

/// A view of any layout, or an owner with view(), as a run-time strided view.
template <std::size_t Rank, class V>
constexpr auto strided(V&& v) noexcept {
    using plain = std::remove_cvref_t<V>;
    if constexpr (is_view<plain>) {
        static_assert(plain::rank() == Rank, "tessera: this argument has the wrong number of dimensions");
        static_assert(activation_element<typename plain::element_type>,
                      "tessera: elements must be float, fp16 or bf16");
        return tensor_view<typename plain::element_type, Rank>{v};
    } else {
        return strided<Rank>(std::forward<V>(v).view());
    }
}

/// strided, read-only.
template <std::size_t Rank, class V>
constexpr auto input(V const& v) noexcept {
    auto const s = strided<Rank>(v);
    return tensor_view<typename decltype(s)::value_type const, Rank>{s};
}

template <std::size_t Rank, class V>
constexpr auto output(V&& v) noexcept {
    auto const s = strided<Rank>(std::forward<V>(v));
    static_assert(!std::is_const_v<typename decltype(s)::element_type>, "tessera: the output is read-only");
    return s;
}

/// A pointer where there are elements, and contiguous rows.
template <class View>
void check_rows(char const* operation, char const* argument, View const& v) {
    check::not_null(operation, argument, v.data_handle(), v.size());
    if (!has_unit_stride(v))
        raise_unequal(operation, (std::string{"stride inside a row of "} + argument).c_str(), v.stride(View::rank() - 1),
                      1, "rows are contiguous");
}

/// check_rows, and no two rows of an output share memory.
template <class T>
void check_output_rows(char const* operation, char const* argument, matrix_view<T> const& v) {
    check_rows(operation, argument, v);
    if (v.extent(0) > 1 && v.extent(1) > 0 && v.stride(0) < v.extent(1) && -v.stride(0) < v.extent(1))
        check::within(operation, "distance of the rows of the output", v.stride(0), v.extent(1),
                      std::numeric_limits<index_t>::max());
}

/// Input x and output y are the same elements, or share none.
template <class X, class Y>
void check_same_or_apart(char const* operation, char const* x_name, matrix_view<X> const& x, char const* y_name,
                         matrix_view<Y> const& y) {
    if (x.empty() || y.empty()) return;
    bool const same_steps = x.stride(0) * index_t{sizeof(X)} == y.stride(0) * index_t{sizeof(Y)} || x.extent(0) == 1;
    if (std::is_same_v<std::remove_const_t<X>, Y> && x.data_handle() == y.data_handle() && same_steps) return;
    if (same_steps && x.stride(0) > 0) {
        // Slices of one matrix: the byte ranges interleave, and what counts is whether the columns do.
        index_t const step = x.stride(0) * index_t{sizeof(X)};
        auto const a = reinterpret_cast<std::uintptr_t>(x.data_handle());
        auto const b = reinterpret_cast<std::uintptr_t>(y.data_handle());
        index_t const distance = b >= a ? static_cast<index_t>((b - a) % static_cast<std::uintptr_t>(step))
                                        : (step - static_cast<index_t>((a - b) % static_cast<std::uintptr_t>(step))) % step;
        if (distance >= x.extent(1) * index_t{sizeof(X)} && distance + y.extent(1) * index_t{sizeof(Y)} <= step) return;
    }
    auto const extent = [](auto const& v, index_t size) {
        return (v.stride(0) < 0 ? -1 : 1) * v.stride(0) * (v.extent(0) - 1) * size + v.extent(1) * size;
    };
    auto const lowest = [](auto const& v) { return v.data_handle() + (v.stride(0) < 0 ? v.stride(0) * (v.extent(0) - 1) : 0); };
    check::no_overlap(operation, x_name, lowest(x), extent(x, sizeof(X)), y_name, lowest(y), extent(y, sizeof(Y)));
}

/// A small input must not overlap an output at all.
template <class W, class Y>
void check_apart(char const* operation, char const* w_name, vector_view<W> const& w, char const* y_name,
                 matrix_view<Y> const& y) {
    check::no_overlap(operation, w_name, w.data_handle(), span_bytes(w), y_name, y.data_handle(), span_bytes(y));
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
