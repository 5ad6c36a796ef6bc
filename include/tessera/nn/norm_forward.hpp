// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The forward norms, for the kernels of every backend; `norm.hpp` has those of processors, `nn.cuh` those of CUDA devices.

#include "../kernels/ref/norm.hpp"
#include "arguments.hpp"

#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

inline void check_epsilon(char const* operation, float epsilon) {
    if (!(epsilon >= 0.0f && epsilon <= std::numeric_limits<float>::max()))
        raise<shape_error>("tessera: " + std::string{operation} + ": epsilon is " + std::to_string(epsilon) +
                           ", expected a finite number that is not negative");
}

/// A vector with one element per column of x.
template <class W, class X>
void check_per_column(char const* operation, char const* argument, vector_view<W> const& w, matrix_view<X> const& x) {
    check::equal(operation, argument, w.extent(0), x.extent(1), "columns of x");
    check_rows(operation, argument, w);
}

/// x, y and the vectors of a forward norm.
template <class X, class W, class Y>
void check_norm(char const* operation, matrix_view<X> const& x, vector_view<W> const& weight, float epsilon,
                matrix_view<Y> const& y) {
    check_same_shape(operation, x, "rows of y", "columns of y", y);
    check_rows(operation, "x", x);
    check_output_rows(operation, "y", y);
    check_per_column(operation, "weight", weight, x);
    check_epsilon(operation, epsilon);
    check_same_or_apart(operation, "x", x, "y", y);
    check_apart(operation, "weight", weight, "y", y);
}

} // namespace detail

/// y = weight x / sqrt(mean(x^2) + epsilon), row by row.
template <execution_policy Exec>
void rms_norm(Exec const& exec,
              matrix_argument auto const& x,      // (m, n)
              vector_argument auto const& weight, // (n)
              float epsilon,
              matrix_argument auto&& y) {         // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input<Exec>(x);
    auto const w = detail::input<Exec>(weight);
    auto const to = detail::output<Exec>(y);
    detail::check_norm("rms_norm", from, w, epsilon, to);
    kernel<op::rms_norm, Exec, typename decltype(from)::value_type>::run(exec, from, w, epsilon, to);
}

/// y = weight (x - mean(x)) / sqrt(variance(x) + epsilon) + bias, row by row.
template <execution_policy Exec>
void layer_norm(Exec const& exec,
                matrix_argument auto const& x,      // (m, n)
                vector_argument auto const& weight, // (n)
                vector_argument auto const& bias,   // (n), elements as of weight
                float epsilon,
                matrix_argument auto&& y) {         // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input<Exec>(x);
    auto const w = detail::input<Exec>(weight);
    auto const b = detail::input<Exec>(bias);
    auto const to = detail::output<Exec>(y);
    static_assert(std::same_as<decltype(w), decltype(b)>, "tessera: layer_norm: weight and bias have different elements");
    detail::check_norm("layer_norm", from, w, epsilon, to);
    detail::check_per_column("layer_norm", "bias", b, from);
    detail::check_apart("layer_norm", "bias", b, "y", to);
    kernel<op::layer_norm, Exec, typename decltype(from)::value_type>::run(exec, from, w, b, epsilon, to);
}

} // namespace tessera::inline TESSERA_ABI
