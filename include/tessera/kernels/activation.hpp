// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Activation functions as types, with their definitions in double and those of their derivatives. A function is what a kernel is
/// given, so that a new one is a type here and an overload of `detail::activated` (and, where it is trained, of
/// `detail::activated_derivative`) in kernels/cpu/activation.hpp.

#include "../core/macros.hpp"

#include <cmath>
#include <concepts>

namespace tessera::inline TESSERA_ABI::activation {

/// x / (1 + e^-x), also named swish.
struct silu {
    static constexpr char const* name = "silu";
    TESSERA_HOST_DEVICE static double value(double x) noexcept { return x / (1 + std::exp(-x)); }
    /// s(x) (1 + x s(-x)), s the logistic function.
    static double derivative(double x) noexcept { return 1 / (1 + std::exp(-x)) * (1 + x / (1 + std::exp(x))); }
};

/// x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2: the exact GELU.
struct gelu_erf {
    static constexpr char const* name = "gelu_erf";
    TESSERA_HOST_DEVICE static double value(double x) noexcept { return x * 0.5 * std::erfc(x * -0.70710678118654752440); }
    /// Phi(x) + x phi(x), phi the density.
    static double derivative(double x) noexcept {
        return 0.5 * std::erfc(x * -0.70710678118654752440) + x * 0.39894228040143267794 * std::exp(-0.5 * x * x);
    }
};

/// x (1 + tanh u) / 2 = x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715 x^3): the approximation that GPT-2 uses.
struct gelu_tanh {
    static constexpr char const* name = "gelu_tanh";
    TESSERA_HOST_DEVICE static double value(double x) noexcept {
        double const u = 0.79788456080286535588 * (x + 0.044715 * x * x * x);
        return x / (1 + std::exp(-2 * u));
    }
    /// s(2u) (1 + x s(-2u) 2u').
    static double derivative(double x) noexcept {
        double const v = 2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x);
        double const slope = 2 * 0.79788456080286535588 * (1 + 3 * 0.044715 * x * x);
        return 1 / (1 + std::exp(-v)) * (1 + x * slope / (1 + std::exp(v)));
    }
};

} // namespace tessera::inline TESSERA_ABI::activation

namespace tessera::inline TESSERA_ABI {

/// A type like those above.
template <class F>
concept activation_function = requires(double x) {
    { F::value(x) } noexcept -> std::same_as<double>;
    { F::name } -> std::convertible_to<char const*>;
};

/// One whose gradient exists.
template <class F>
concept differentiable_activation = activation_function<F> && requires(double x) {
    { F::derivative(x) } noexcept -> std::same_as<double>;
};

} // namespace tessera::inline TESSERA_ABI
