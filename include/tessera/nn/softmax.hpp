// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// softmax over the rows of x.
///
/// Error of the CPU kernel, u = 2^-24, m the largest element: |dy_k| <= (gamma(n + 8) + u (|x_k - m| + d)) y_k + 2^-149 to
/// first order, d the mean of |x - m| weighted by y: 1 ulp of each exponential, the rounding of its argument, the sum, the
/// last product; weights below 2^-126 of the largest lose digits gradually.
///
/// A row of minus infinities (a fully masked one) gives zeros; NaN or plus infinity in a row make it NaN. y may be x itself.

#include "../kernels/cpu/softmax.hpp"
#include "../kernels/ref/softmax.hpp"
#include "arguments.hpp"

namespace tessera::inline TESSERA_ABI {

/// y = exp(x) / sum exp(x), row by row.
template <execution_policy Exec>
void softmax(Exec const& exec,
             matrix_argument auto const& x, // (m, n)
             matrix_argument auto&& y) {    // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const to = detail::output(y);
    detail::check_same_shape("softmax", from, "rows of y", "columns of y", to);
    detail::check_rows("softmax", "x", from);
    detail::check_output_rows("softmax", "y", to);
    detail::check_same_or_apart("softmax", "x", from, "y", to);
    kernel<op::softmax, Exec, typename decltype(from)::value_type>::run(exec, from, to);
}

} // namespace tessera::inline TESSERA_ABI
