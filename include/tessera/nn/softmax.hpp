// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// softmax over the rows of x, and its gradient.
///
/// Error of the CPU kernel, u = 2^-24, m the largest element: |dy_k| <= (gamma(n + 8) + u (|x_k - m| + d)) y_k + 2^-149 to
/// first order, d the mean of |x - m| weighted by y: 1 ulp of each exponential, the rounding of its argument, the sum, the
/// last product; weights below 2^-126 of the largest lose digits gradually.
///
/// A row of minus infinities (a fully masked one) gives zeros; NaN or plus infinity in a row make it NaN. y may be x itself.
///
/// Error of the gradient: (gamma(n) sum |y dy| + 2 u (|dy_k| + sum |y dy|)) y_k to first order.

#include "../kernels/cpu/softmax.hpp"
#include "softmax_forward.hpp"

namespace tessera::inline TESSERA_ABI {

/// The gradient with respect to x for the gradient dy of y = softmax(x); dx may be dy or y itself.
template <execution_policy Exec>
void softmax_backward(Exec const& exec,
                      matrix_argument auto const& y,  // (m, n), what softmax gave
                      matrix_argument auto const& dy, // (m, n)
                      matrix_argument auto&& dx) {    // (m, n)
    detail::require_backend<Exec>();
    char const* const name = "softmax_backward";
    auto const weights = detail::input(y);
    auto const d = detail::input(dy);
    auto const to = detail::output(dx);
    check::equal(name, "rows of dy", d.extent(0), weights.extent(0), "rows of y");
    check::equal(name, "columns of dy", d.extent(1), weights.extent(1), "columns of y");
    check::equal(name, "rows of dx", to.extent(0), weights.extent(0), "rows of y");
    check::equal(name, "columns of dx", to.extent(1), weights.extent(1), "columns of y");
    detail::check_rows(name, "y", weights);
    detail::check_rows(name, "dy", d);
    detail::check_output_rows(name, "dx", to);
    detail::check_same_or_apart(name, "y", weights, "dx", to);
    detail::check_same_or_apart(name, "dy", d, "dx", to);
    kernel<op::softmax_backward, Exec, typename decltype(weights)::value_type>::run(exec, weights, d, to);
}

} // namespace tessera::inline TESSERA_ABI
