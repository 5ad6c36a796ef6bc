// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Elementwise operations without gradients, for the kernels of every backend; `activation.hpp` has those of processors, `nn.cuh`
/// those of CUDA devices.

#include "../kernels/ref/activation.hpp"
#include "arguments.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// An input and an output, of one shape: the same elements or none.
template <class A, class Y>
void check_elementwise(char const* operation, char const* a_name, matrix_view<A> const& a, char const* y_name, matrix_view<Y> const& y) {
    check::equal(operation, (std::string{"rows of "} + y_name).c_str(), y.extent(0), a.extent(0), (std::string{"rows of "} + a_name).c_str());
    check::equal(operation, (std::string{"columns of "} + y_name).c_str(), y.extent(1), a.extent(1),
                 (std::string{"columns of "} + a_name).c_str());
    check_rows(operation, a_name, a);
    check_output_rows(operation, y_name, y);
    check_same_or_apart(operation, a_name, a, y_name, y);
}

} // namespace detail

/// y = F(x).
template <execution_policy Exec, activation_function F>
void activate(Exec const& exec, F function,
              matrix_argument auto const& x, // (m, n)
              matrix_argument auto&& y) {    // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input<Exec>(x);
    auto const to = detail::output<Exec>(y);
    detail::check_elementwise(F::name, "x", from, "y", to);
    kernel<op::activate, Exec, typename decltype(from)::value_type>::run(exec, function, from, to);
}

/// y = F(gate) up.
template <execution_policy Exec, activation_function F>
void gated(Exec const& exec, F function,
           matrix_argument auto const& gate, // (m, n)
           matrix_argument auto const& up,   // (m, n)
           matrix_argument auto&& y) {       // (m, n)
    detail::require_backend<Exec>();
    auto const g = detail::input<Exec>(gate);
    auto const u = detail::input<Exec>(up);
    auto const to = detail::output<Exec>(y);
    detail::check_elementwise("gated", "gate", g, "y", to);
    detail::check_elementwise("gated", "up", u, "y", to);
    kernel<op::gate, Exec, typename decltype(g)::value_type>::run(exec, function, g, u, to);
}

/// y = x / (1 + e^-x).
template <execution_policy Exec>
void silu(Exec const& exec,
          matrix_argument auto const& x, // (m, n)
          matrix_argument auto&& y) {    // (m, n)
    activate(exec, activation::silu{}, x, y);
}

/// y = x Phi(x), the exact GELU; `activate` with activation::gelu_tanh{} is the approximate one.
template <execution_policy Exec>
void gelu(Exec const& exec,
          matrix_argument auto const& x, // (m, n)
          matrix_argument auto&& y) {    // (m, n)
    activate(exec, activation::gelu_erf{}, x, y);
}

/// y = silu(gate) up.
template <execution_policy Exec>
void swiglu(Exec const& exec,
            matrix_argument auto const& gate, // (m, n)
            matrix_argument auto const& up,   // (m, n)
            matrix_argument auto&& y) {       // (m, n)
    gated(exec, activation::silu{}, gate, up, y);
}

/// y = a + b.
template <execution_policy Exec>
void add(Exec const& exec,
         matrix_argument auto const& a, // (m, n)
         matrix_argument auto const& b, // (m, n)
         matrix_argument auto&& y) {    // (m, n)
    detail::require_backend<Exec>();
    auto const first = detail::input<Exec>(a);
    auto const second = detail::input<Exec>(b);
    auto const to = detail::output<Exec>(y);
    detail::check_elementwise("add", "a", first, "y", to);
    detail::check_elementwise("add", "b", second, "y", to);
    kernel<op::add, Exec, typename decltype(first)::value_type>::run(exec, first, second, to);
}

} // namespace tessera::inline TESSERA_ABI
