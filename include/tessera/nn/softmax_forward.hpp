// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// softmax, for the kernels of every backend; `softmax.hpp` has those of processors, `nn.cuh` those of CUDA devices.

#include "../kernels/ref/softmax.hpp"
#include "arguments.hpp"

namespace tessera::inline TESSERA_ABI {

/// y = exp(x) / sum exp(x), row by row.
template <execution_policy Exec>
void softmax(Exec const& exec,
             matrix_argument auto const& x, // (m, n)
             matrix_argument auto&& y) {    // (m, n)
    detail::require_backend<Exec>();
    auto const from = detail::input<Exec>(x);
    auto const to = detail::output<Exec>(y);
    detail::check_same_shape("softmax", from, "rows of y", "columns of y", to);
    detail::check_rows("softmax", "x", from);
    detail::check_output_rows("softmax", "y", to);
    detail::check_same_or_apart("softmax", "x", from, "y", to);
    kernel<op::softmax, Exec, typename decltype(from)::value_type>::run(exec, from, to);
}

} // namespace tessera::inline TESSERA_ABI
