// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Elementwise operations: silu, gelu (both forms), gated units (swiglu), their gradients, and the sum of a residual connection. Elements are
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
/// Derivatives have an absolute bound (they have zeros): u times
///
/// | function    |                                                                                                              |
/// |-------------|--------------------------------------------------------------------------------------------------------------|
/// | `silu`      | 8 s (1 + abs(x) t), s = sigmoid(x), t = sigmoid(-x)                                                          |
/// | `gelu_erf`  | 10 Phi (without FMA 72) + abs(x) phi (x^2 / 2 + 6)                                                           |
/// | `gelu_tanh` | (10 + 4 abs(v)) s (1 + abs(x) t v'), of v = 2 sqrt(2 / pi) (x + 0.044715 x^3)                                |
///
/// and they are NaN where x is infinite.
///
/// NaN gives NaN. Minus infinity gives NaN too, as the formulas say (minus infinity times 0); plus infinity itself.
///
/// y may be an input itself; it may not overlap one in any other way.

#include "../kernels/cpu/activation.hpp"
#include "activation_forward.hpp"

#include <string>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// dx = F'(x) dy; dx may be x or dy.
template <execution_policy Exec, differentiable_activation F>
void activate_backward(Exec const& exec, F function,
                       matrix_argument auto const& x,  // (m, n)
                       matrix_argument auto const& dy, // (m, n)
                       matrix_argument auto&& dx) {    // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const gradient = detail::input(dy);
    auto const to = detail::output(dx);
    std::string const name = std::string{F::name} + "_backward";
    detail::check_elementwise(name.c_str(), "x", from, "dx", to);
    detail::check_elementwise(name.c_str(), "dy", gradient, "dx", to);
    kernel<op::activate_backward, Exec, typename decltype(from)::value_type>::run(exec, function, from, gradient, to);
}

/// dgate = F'(gate) up dy, dup = F(gate) dy; either may be an input.
template <execution_policy Exec, differentiable_activation F>
void gated_backward(Exec const& exec, F function,
                    matrix_argument auto const& gate, // (m, n)
                    matrix_argument auto const& up,   // (m, n)
                    matrix_argument auto const& dy,   // (m, n)
                    matrix_argument auto&& dgate,     // (m, n)
                    matrix_argument auto&& dup) {     // (m, n)
    detail::require_backend<Exec>();
    auto const g = detail::input(gate);
    auto const u = detail::input(up);
    auto const gradient = detail::input(dy);
    auto const first = detail::output(dgate);
    auto const second = detail::output(dup);
    for (auto const& [name, to] : {std::pair{"dgate", first}, std::pair{"dup", second}}) {
        detail::check_elementwise("gated_backward", "gate", g, name, to);
        detail::check_elementwise("gated_backward", "up", u, name, to);
        detail::check_elementwise("gated_backward", "dy", gradient, name, to);
    }
    check::no_overlap("gated_backward", "dgate", footprint_of(first), "dup", footprint_of(second));
    kernel<op::gate_backward, Exec, typename decltype(g)::value_type>::run(exec, function, g, u, gradient, first, second);
}

/// dx = silu'(x) dy.
template <execution_policy Exec>
void silu_backward(Exec const& exec,
                   matrix_argument auto const& x,  // (m, n)
                   matrix_argument auto const& dy, // (m, n)
                   matrix_argument auto&& dx) {    // (m, n)
    activate_backward(exec, activation::silu{}, x, dy, dx);
}

/// dx = gelu'(x) dy, of the exact GELU.
template <execution_policy Exec>
void gelu_backward(Exec const& exec,
                   matrix_argument auto const& x,  // (m, n)
                   matrix_argument auto const& dy, // (m, n)
                   matrix_argument auto&& dx) {    // (m, n)
    activate_backward(exec, activation::gelu_erf{}, x, dy, dx);
}

/// The gradients of silu(gate) up.
template <execution_policy Exec>
void swiglu_backward(Exec const& exec,
                     matrix_argument auto const& gate, // (m, n)
                     matrix_argument auto const& up,   // (m, n)
                     matrix_argument auto const& dy,   // (m, n)
                     matrix_argument auto&& dgate,     // (m, n)
                     matrix_argument auto&& dup) {     // (m, n)
    gated_backward(exec, activation::silu{}, gate, up, dy, dgate, dup);
}

} // namespace tessera::inline TESSERA_ABI
