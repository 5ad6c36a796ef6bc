// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Elementwise operations: silu, gelu (both forms), gated units (swiglu), and the sum of a residual connection. Elements are
/// float, fp16 or bf16; the functions themselves are the types of kernels/activation.hpp.
///
/// Bounds of the error of the CPU kernels with float output, in units in the last place of the result, checked on every
/// 16th float and more (a product f(gate) up adds one rounding, a sum has one):
///
/// | function    | FMA                 | sse2         | below that                                              |
/// |-------------|---------------------|--------------|---------------------------------------------------------|
/// | `silu`      | 3.5 where x >= -80  | the same     | 3.5 + abs(x): the exponential is subnormal              |
/// | `gelu_erf`  | 6 where x >= -12    | 8 + x^2 / 2  | abs(x) more: the exponential is subnormal               |
/// | `gelu_tanh` | 3.5 where x >= -1   | the same     | 4 + 4.8 abs(x + 0.044715 x^3): that exponent's rounding |
///
/// NaN gives NaN. Minus infinity gives NaN too, as the formulas say (minus infinity times 0); plus infinity itself.
///
/// y may be an input itself; it may not overlap one in any other way.

#include "../kernels/cpu/activation.hpp"
#include "../kernels/ref/activation.hpp"
#include "arguments.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Inputs a and b of one shape and element type, and the output.
template <class A, class Y>
void check_elementwise(char const* operation, char const* a_name, matrix_view<A> const& a, matrix_view<Y> const& y) {
    check::equal(operation, "rows of y", y.extent(0), a.extent(0), (std::string{"rows of "} + a_name).c_str());
    check::equal(operation, "columns of y", y.extent(1), a.extent(1), (std::string{"columns of "} + a_name).c_str());
    check_rows(operation, a_name, a);
    check_output_rows(operation, "y", y);
    check_same_or_apart(operation, a_name, a, "y", y);
}

} // namespace detail

/// y = F(x).
template <execution_policy Exec, activation_function F>
void activate(Exec const& exec, F function,
              matrix_argument auto const& x, // (m, n)
              matrix_argument auto&& y) {    // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const to = detail::output(y);
    detail::check_elementwise(F::name, "x", from, to);
    kernel<op::activate, Exec, typename decltype(from)::value_type>::run(exec, function, from, to);
}

/// y = F(gate) up.
template <execution_policy Exec, activation_function F>
void gated(Exec const& exec, F function,
           matrix_argument auto const& gate, // (m, n)
           matrix_argument auto const& up,   // (m, n)
           matrix_argument auto&& y) {       // (m, n)
    detail::require_backend<Exec>();
    auto const g = detail::input(gate);
    auto const u = detail::input(up);
    auto const to = detail::output(y);
    detail::check_elementwise("gated", "gate", g, to);
    detail::check_elementwise("gated", "up", u, to);
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
    auto const first = detail::input(a);
    auto const second = detail::input(b);
    auto const to = detail::output(y);
    detail::check_elementwise("add", "a", first, to);
    detail::check_elementwise("add", "b", second, to);
    kernel<op::add, Exec, typename decltype(first)::value_type>::run(exec, first, second, to);
}

} // namespace tessera::inline TESSERA_ABI
