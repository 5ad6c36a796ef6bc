// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of a product by L-Mul: products of codes as numerics/lmul.hpp says, summed in double.

#include "../lmul.hpp"
#include "apply.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Storage, class Format>
struct kernel<op::apply, reference, linear<Storage, l_mul<Format>>> {
    using operand = linear<Storage, l_mul<Format>>;

    static void plan(operand const&, workspace_sizer&) noexcept {}
    static void row(operand const& w, double const* x, double* y, double factor, workspace&) noexcept {
        for (index_t n = 0; n < w.rows(); ++n) {
            double dot = 0;
            for (index_t k = 0; k < w.cols(); ++k)
                dot += static_cast<double>(
                    l_multiply<Format>(static_cast<float>(x[k]), detail::reference_element(w.storage(), n, k)));
            y[n] += factor * dot;
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
