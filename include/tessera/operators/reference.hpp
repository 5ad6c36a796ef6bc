// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of every operator of the algebra: `row` adds factor * (x Wᵀ) to y for one row of x, in double; `plan`
/// counts what it carves.

#include "../kernels/ref/apply.hpp"
#include "linear_operator.hpp"

namespace tessera::inline TESSERA_ABI {

template <class A, class B>
struct kernel<op::apply, reference, sum<A, B>> {
    static void plan(sum<A, B> const& s, workspace_sizer& sizer) {
        kernel<op::apply, reference, A>::plan(s.first(), sizer);
        kernel<op::apply, reference, B>::plan(s.second(), sizer);
    }
    static void row(sum<A, B> const& s, double const* x, double* y, double factor, workspace& arena) {
        kernel<op::apply, reference, A>::row(s.first(), x, y, factor, arena);
        kernel<op::apply, reference, B>::row(s.second(), x, y, factor, arena);
    }
};

template <class A, class B>
struct kernel<op::apply, reference, product<A, B>> {
    static void plan(product<A, B> const& p, workspace_sizer& sizer) {
        sizer.carve<double>(p.second().rows());
        kernel<op::apply, reference, B>::plan(p.second(), sizer);
        kernel<op::apply, reference, A>::plan(p.first(), sizer);
    }
    static void row(product<A, B> const& p, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const u = scope.carve<double>(p.second().rows());
        for (index_t r = 0; r < p.second().rows(); ++r) u[r] = 0;
        kernel<op::apply, reference, B>::row(p.second(), x, u, 1.0, arena);
        kernel<op::apply, reference, A>::row(p.first(), u, y, factor, arena);
    }
};

template <class A>
struct kernel<op::apply, reference, scaled_operator<A>> {
    static void plan(scaled_operator<A> const& s, workspace_sizer& sizer) {
        kernel<op::apply, reference, A>::plan(s.inner(), sizer);
    }
    static void row(scaled_operator<A> const& s, double const* x, double* y, double factor, workspace& arena) {
        kernel<op::apply, reference, A>::row(s.inner(), x, y, factor * static_cast<double>(s.factor()), arena);
    }
};

template <class B, class A>
struct kernel<op::apply, reference, low_rank<B, A>> : kernel<op::apply, reference, scaled_operator<product<B, A>>> {};

template <class Storage, class Preparation>
struct kernel<op::apply, reference, transposed_operator<linear<Storage, Preparation>>> {
    static void plan(transposed_operator<linear<Storage, Preparation>> const&, workspace_sizer&) noexcept {}
    static void row(transposed_operator<linear<Storage, Preparation>> const& t, double const* x, double* y, double factor,
                    workspace&) {
        auto const& w = t.inner();
        for (index_t k = 0; k < w.cols(); ++k) y[k] += factor * detail::reference_transposed_dot(w.storage(), k, w.rows(), x);
    }
};

template <class A>
struct kernel<op::apply, reference, row_slice<A>> {
    static void plan(row_slice<A> const& s, workspace_sizer& sizer) {
        sizer.carve<double>(s.inner().rows());
        kernel<op::apply, reference, A>::plan(s.inner(), sizer);
    }
    static void row(row_slice<A> const& s, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const whole = scope.carve<double>(s.inner().rows());
        for (index_t n = 0; n < s.inner().rows(); ++n) whole[n] = 0;
        kernel<op::apply, reference, A>::row(s.inner(), x, whole, factor, arena);
        for (index_t n = 0; n < s.rows(); ++n) y[n] += whole[s.first() + n];
    }
};

template <class A>
struct kernel<op::apply, reference, column_slice<A>> {
    static void plan(column_slice<A> const& s, workspace_sizer& sizer) {
        sizer.carve<double>(s.inner().cols());
        kernel<op::apply, reference, A>::plan(s.inner(), sizer);
    }
    static void row(column_slice<A> const& s, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const wide = scope.carve<double>(s.inner().cols());
        for (index_t k = 0; k < s.inner().cols(); ++k)
            wide[k] = k >= s.first() && k < s.first() + s.cols() ? x[k - s.first()] : 0.0;
        kernel<op::apply, reference, A>::row(s.inner(), wide, y, factor, arena);
    }
};

} // namespace tessera::inline TESSERA_ABI
