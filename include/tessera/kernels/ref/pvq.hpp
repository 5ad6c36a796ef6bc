// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of products with vector codes: a row of W is decoded, group by group, when its turn comes.
///
///     y[n] += factor * sum over k of prepared(x)[k] W(n, k)         transposed: y[k] += factor * sum over n of x[n] W(n, k)

#include "../../core/workspace.hpp"
#include "../kernel.hpp"
#include "../pvq_operand.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Format, class Gain, class Preparation>
struct kernel<op::apply, reference, linear<pvq_matrix<Format, Gain>, Preparation>> {
    using operand = linear<pvq_matrix<Format, Gain>, Preparation>;

    /// Counts what `row` carves.
    static void plan(operand const& w, workspace_sizer& sizer) {
        sizer.carve<double>(w.cols());
        sizer.carve<float>(w.cols());
    }
    static void row(operand const& w, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const prepared = scope.carve<double>(w.cols());
        float* const weights = scope.carve<float>(w.cols());
        detail::reference_prepare<Preparation>(x, w.cols(), prepared);
        for (index_t n = 0; n < w.rows(); ++n) {
            w.storage().decode(n, n + 1, 0, w.cols(), weights, w.cols());
            double dot = 0;
            for (index_t k = 0; k < w.cols(); ++k) dot += prepared[k] * static_cast<double>(weights[k]);
            y[n] += factor * dot;
        }
    }
};

template <class Format, class Gain, class Preparation>
struct kernel<op::apply, reference, transposed_operator<linear<pvq_matrix<Format, Gain>, Preparation>>> {
    using operand = transposed_operator<linear<pvq_matrix<Format, Gain>, Preparation>>;

    static void plan(operand const& t, workspace_sizer& sizer) {
        sizer.carve<double>(t.rows());
        sizer.carve<float>(t.rows());
    }
    static void row(operand const& t, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const sum = scope.carve<double>(t.rows());
        float* const weights = scope.carve<float>(t.rows());
        for (index_t k = 0; k < t.rows(); ++k) sum[k] = 0;
        for (index_t n = 0; n < t.cols(); ++n) {
            t.inner().storage().decode(n, n + 1, 0, t.rows(), weights, t.rows());
            for (index_t k = 0; k < t.rows(); ++k) sum[k] += x[n] * static_cast<double>(weights[k]);
        }
        for (index_t k = 0; k < t.rows(); ++k) y[k] += factor * sum[k];
    }
};

} // namespace tessera::inline TESSERA_ABI
