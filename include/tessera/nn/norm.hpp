// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Root-mean-square norm (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016) over the rows of x, and their
/// gradients. Elements are float, fp16 or bf16; the formulas are in kernels/ref/norm.hpp.
///
/// Error of the CPU kernels, u = 2^-24, gamma(k) = k u / (1 - k u), against the definition in double, before y is rounded
/// to its element type:
///
///     rms_norm     |dy| <= gamma(n / 2 + 6) |y|
///     layer_norm   |dy| <= gamma(n / 2 + 8) |y - b| + |w| r gamma(n + 1) mean|x| + u |y|
///
/// and to first order; squares are summed in float32, so |x| stays below 2^63. A row of zeros gives zeros (or b); NaN or
/// infinity in a row make it NaN.
///
/// y may be x itself; it may not overlap x in any other way, nor weight or bias.

#include "../kernels/cpu/norm.hpp"
#include "../kernels/ref/norm.hpp"
#include "norm_forward.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// x, dy, dx and dweight of a backward norm.
template <class X, class W, class D, class DW>
void check_norm_backward(char const* operation, matrix_view<X> const& x, vector_view<W> const& weight, float epsilon,
                         matrix_view<X> const& dy, matrix_view<D> const& dx, vector_view<DW> const& dweight) {
    check_same_shape(operation, x, "rows of dy", "columns of dy", dy);
    check_rows(operation, "dy", dy);
    check_norm(operation, x, weight, epsilon, dx);
    check_same_or_apart(operation, "dy", dy, "dx", dx);
    check_per_column(operation, "dweight", dweight, x);
    check_apart(operation, "dweight", dweight, "dx", dx);
    check_apart(operation, "dweight", dweight, "x", x);
    check_apart(operation, "dweight", dweight, "dy", dy);
}

} // namespace detail

/// Bytes of workspace that either backward norm takes for `rows` rows.
inline index_t norm_backward_workspace_bytes(index_t rows) {
    workspace_sizer sizer;
    sizer.carve<detail::float_moments>(rows);
    return sizer.bytes();
}

/// The gradients of rms_norm for the gradient dy of its output; dx may be dy or x itself. Both results are overwritten.
template <execution_policy Exec>
void rms_norm_backward(Exec const& exec,
                       matrix_argument auto const& x,      // (m, n)
                       vector_argument auto const& weight, // (n)
                       float epsilon,
                       matrix_argument auto const& dy,     // (m, n)
                       matrix_argument auto&& dx,         // (m, n)
                       vector_argument auto&& dweight) {  // (n)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const w = detail::input(weight);
    auto const d = detail::input(dy);
    auto const to = detail::output(dx);
    auto const dw = detail::output(dweight);
    detail::check_norm_backward("rms_norm_backward", from, w, epsilon, d, to, dw);
    using table = kernel<op::rms_norm_backward, Exec, typename decltype(from)::value_type>;
    if constexpr (std::same_as<Exec, reference>) {
        table::run(exec, from, w, epsilon, d, to, dw);
    } else {
        workspace_scope scope{exec.scratch()};
        table::run(exec, from, w, epsilon, d, scope.carve<detail::float_moments>(from.extent(0)), to, dw);
    }
}

/// The gradients of layer_norm for the gradient dy of its output; dx may be dy or x itself. All results are overwritten.
template <execution_policy Exec>
void layer_norm_backward(Exec const& exec,
                         matrix_argument auto const& x,      // (m, n)
                         vector_argument auto const& weight, // (n)
                         float epsilon,
                         matrix_argument auto const& dy,     // (m, n)
                         matrix_argument auto&& dx,         // (m, n)
                         vector_argument auto&& dweight,    // (n)
                         vector_argument auto&& dbias) {    // (n)
    detail::require_backend<Exec>();
    auto const from = detail::input(x);
    auto const w = detail::input(weight);
    auto const d = detail::input(dy);
    auto const to = detail::output(dx);
    auto const dw = detail::output(dweight);
    auto const db = detail::output(dbias);
    detail::check_norm_backward("layer_norm_backward", from, w, epsilon, d, to, dw);
    detail::check_per_column("layer_norm_backward", "dbias", db, from);
    detail::check_apart("layer_norm_backward", "dbias", db, "dx", to);
    check::no_overlap("layer_norm_backward", "dbias", footprint_of(db), "dweight", footprint_of(dw));
    using table = kernel<op::layer_norm_backward, Exec, typename decltype(from)::value_type>;
    if constexpr (std::same_as<Exec, reference>) {
        table::run(exec, from, w, epsilon, d, to, dw, db);
    } else {
        workspace_scope scope{exec.scratch()};
        table::run(exec, from, w, epsilon, d, scope.carve<detail::float_moments>(from.extent(0)), to, dw, db);
    }
}

} // namespace tessera::inline TESSERA_ABI
