// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of products with storage that is read by tiles: rows are decoded by the storage's own definition,
/// `decode_tile`, and summed in double.
///
///     y[n] += factor * sum over k of x[k] W(n, k)          transposed: y[k] += factor * sum over n of x[n] W(n, k)

#include "../../core/workspace.hpp"
#include "../../storage/grid_panels.hpp"
#include "../kernel.hpp"
#include "../vector_operand.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

template <tile_storage Storage, class Preparation>
struct kernel<op::apply, reference, linear<Storage, Preparation>> {
    static void plan(linear<Storage, Preparation> const& w, workspace_sizer& sizer) {
        sizer.carve<double>(w.cols());
        sizer.carve<double>(w.cols()); // or floats
    }
    static void row(linear<Storage, Preparation> const& w, double const* x, double* y, double factor, workspace& arena) {
        detail::require_vector_preparation<Storage, Preparation>();
        workspace_scope scope{arena};
        if constexpr (detail::byte_grid_storage<Storage> && detail::activation_group<Preparation> >= 0) return integer_row(w, x, y, factor, scope);
        double* const prepared = scope.carve<double>(w.cols());
        float* const decoded = scope.carve<float>(w.cols());
        detail::reference_prepare<Preparation>(x, w.cols(), prepared);
        for (index_t n = 0; n < w.rows(); ++n) {
            w.storage().decode_tile(n, n + 1, 0, w.cols(), decoded, w.cols());
            double dot = 0;
            for (index_t k = 0; k < w.cols(); ++k) dot += prepared[k] * static_cast<double>(decoded[k]);
            y[n] += factor * dot;
        }
    }

private:
    /// Points of grids are rounded to bytes, too.
    static void integer_row(linear<Storage, Preparation> const& w, double const* x, double* y, double factor, workspace_scope& scope) {
        double* const prepared = scope.carve<double>(w.cols());
        double* const decoded = scope.carve<double>(w.cols());
        detail::reference_prepare<Preparation>(x, w.cols(), prepared);
        for (index_t n = 0; n < w.rows(); ++n) {
            detail::decode_rounded_row(w.storage(), n, decoded);
            double dot = 0;
            for (index_t k = 0; k < w.cols(); ++k) dot += prepared[k] * decoded[k];
            y[n] += factor * dot;
        }
    }
};

template <tile_storage Storage, class Preparation>
struct kernel<op::apply, reference, transposed_operator<linear<Storage, Preparation>>> {
    using operand = transposed_operator<linear<Storage, Preparation>>;
    static void plan(operand const& t, workspace_sizer& sizer) {
        sizer.carve<float>(t.rows());
        sizer.carve<double>(t.rows());
    }
    static void row(operand const& t, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        float* const decoded = scope.carve<float>(t.rows());
        double* const sum = scope.carve<double>(t.rows());
        for (index_t k = 0; k < t.rows(); ++k) sum[k] = 0;
        for (index_t n = 0; n < t.cols(); ++n) {
            t.inner().storage().decode_tile(n, n + 1, 0, t.rows(), decoded, t.rows());
            for (index_t k = 0; k < t.rows(); ++k) sum[k] += x[n] * static_cast<double>(decoded[k]);
        }
        for (index_t k = 0; k < t.rows(); ++k) y[k] += factor * sum[k];
    }
};

} // namespace tessera::inline TESSERA_ABI
