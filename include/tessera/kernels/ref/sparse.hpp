// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of products with sparse storage: sums over what is stored, in double.
///
///     y[n] += factor * sum over stored (n, k) of x[k] W(n, k)          transposed: y[k] += factor * ... x[n] W(n, k)

#include "../../core/workspace.hpp"
#include "../kernel.hpp"
#include "../sparse_operand.hpp"

namespace tessera::inline TESSERA_ABI {

template <sparse_storage Storage, class Preparation>
struct kernel<op::apply, reference, linear<Storage, Preparation>> {
    static void plan(linear<Storage, Preparation> const&, workspace_sizer&) noexcept {}
    static void row(linear<Storage, Preparation> const& w, double const* x, double* y, double factor, workspace&) {
        detail::require_as_is<Preparation>();
        for (index_t n = 0; n < w.rows(); ++n) {
            double dot = 0;
            w.storage().for_each_entry(n, [&](index_t k, float weight) { dot += x[k] * static_cast<double>(weight); });
            y[n] += factor * dot;
        }
    }
};

template <sparse_storage Storage, class Preparation>
struct kernel<op::apply, reference, transposed_operator<linear<Storage, Preparation>>> {
    using operand = transposed_operator<linear<Storage, Preparation>>;
    static void plan(operand const& t, workspace_sizer& sizer) { sizer.carve<double>(t.rows()); }
    static void row(operand const& t, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const sum = scope.carve<double>(t.rows());
        for (index_t k = 0; k < t.rows(); ++k) sum[k] = 0;
        for (index_t n = 0; n < t.cols(); ++n)
            t.inner().storage().for_each_entry(
                n, [&](index_t k, float weight) { sum[k] += x[n] * static_cast<double>(weight); });
        for (index_t k = 0; k < t.rows(); ++k) y[k] += factor * sum[k];
    }
};

} // namespace tessera::inline TESSERA_ABI
