// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The door of products, for every backend: x and y as kernels take them, checked (contract 3).

#include "../core/overlap.hpp"
#include "../numerics/half.hpp"
#include "../storage/tensor.hpp"

#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class T>
inline constexpr bool is_matrix_owner = false;
template <class T>
inline constexpr bool is_matrix_owner<tensor<T, 2>> = true;

/// The view of a tensor; anything else as it is.
template <class X>
auto without_owner(X& x) noexcept {
    if constexpr (is_matrix_owner<std::remove_const_t<X>>)
        return x.view();
    else
        return x;
}

template <class T>
inline constexpr bool is_activation = std::is_same_v<T, float> || std::is_same_v<T, fp16> || std::is_same_v<T, bf16>;

/// x as the kernels take it.
template <class T, class E, class L, class A>
matrix_view<std::remove_cv_t<T> const> activations(char const* operation, view<T, E, L, A> const& x) {
    static_assert(E::rank() == 2 && is_activation<std::remove_cv_t<T>>,
                  "tessera: x and y are matrices of float, fp16 or bf16");
    check::at_least(operation, "rows of x", x.extent(0), 0);
    check::elements(operation, "x", x);
    return x;
}

/// y as the kernels take it.
template <class T, class E, class L, class A>
matrix_view<T> results(view<T, E, L, A> const& y, index_t m, index_t n, char const* operation = "apply") {
    static_assert(E::rank() == 2 && is_activation<T>, "tessera: x and y are matrices of float, fp16 or bf16");
    check::equal(operation, "rows of y", y.extent(0), m, "rows of x");
    check::equal(operation, "columns of y", y.extent(1), n, "rows of the operator");
    check::elements(operation, "y", y);
    check::distinct_elements(operation, "y", matrix_view<T>{y});
    return y;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
