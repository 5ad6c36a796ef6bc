// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `apply` by the definition, and for owners on every backend: what `apply.hpp` (processors) and `apply.cuh` (CUDA devices)
/// share. It includes no kernels but the definitions.

#include "../kernels/epilogue.hpp"
#include "aliasing.hpp"
#include "door.hpp"
#include "reference.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Op, class X, class Y, class Epilogue>
void apply_reference(reference const& exec, Op const& w, matrix_view<X const> const& x, matrix_view<Y> const& y,
                     Epilogue const& finish) {
    workspace_scope scope{exec.scratch()};
    double* const row = scope.carve<double>(w.cols());
    double* const out = scope.carve<double>(w.rows());
    for (index_t m = 0; m < x.extent(0); ++m) {
        for (index_t k = 0; k < w.cols(); ++k) row[k] = static_cast<double>(static_cast<float>(x(m, k)));
        for (index_t n = 0; n < w.rows(); ++n) out[n] = 0;
        kernel<op::apply, reference, Op>::row(w, row, out, 1.0, exec.scratch());
        for (index_t n = 0; n < w.rows(); ++n) y(m, n) = static_cast<Y>(finish(static_cast<float>(out[n]), m, n));
    }
}

} // namespace detail

/// y = finish(x Wᵀ) by the definition; see operators/apply.hpp.
template <linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY, class AY,
          epilogue Epilogue = no_epilogue>
void apply(reference const& exec, Op const& w, view<X, EX, LX, AX> const& x, // (m, k)
           view<Y, EY, LY, AY> const& y,                                     // (m, n)
           Epilogue const& finish = {}) {
    auto const values = detail::activations("apply", x);
    check::equal("apply", "columns of x", x.extent(1), w.cols(), "columns of the operator");
    matrix_view<Y> const out = detail::results(y, x.extent(0), w.rows());
    check::no_overlap("apply", "x", footprint_of(values), "y", footprint_of(out));
    detail::check_reads("apply", w, finish, out);
    if (!out.empty()) detail::apply_reference(exec, w, values, out, finish);
}

/// Owners stand for their operator; so do owning tensors for views of them, x, y or both.
template <execution_policy Exec, operator_owner Owner, class X, class Y, epilogue Epilogue = no_epilogue>
    requires(!detail::is_matrix_owner<X> && !detail::is_matrix_owner<Y>)
void apply(Exec const& exec, Owner const& w, X const& x, Y const& y, Epilogue const& finish = {}) {
    apply(exec, w.view(), x, y, finish);
}
template <execution_policy Exec, class Op, class X, class Y, epilogue Epilogue = no_epilogue>
    requires((linear_operator<Op> || operator_owner<Op>) &&
             (detail::is_matrix_owner<X> || detail::is_matrix_owner<std::remove_cvref_t<Y>>))
void apply(Exec const& exec, Op const& w, X const& x, Y&& y, Epilogue const& finish = {}) {
    apply(exec, w, detail::without_owner(x), detail::without_owner(y), finish);
}

} // namespace tessera::inline TESSERA_ABI
