// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of sparse storage on the processors.

#include "cases/sparse_operands.hpp"
#include "unit/operators/operator_laws.hpp"

#include <tessera/sparse/place.hpp>

namespace tessera_test {

/// The law of stored matrices, forward and transposed; a row has the same bits whatever else is in the batch.
template <class Storage, class Archs = archs_by_width>
void report_sparse_law() {
    double const worst = check_both_ways<Storage, Archs>(
        product_shapes<Storage>(), []<class Arch>(Arch, auto const& w, auto const& x, auto const& y) { check_batch_invariant<Arch>(w, x, y); });
    MESSAGE("worst error / tolerance " << worst);
}

} // namespace tessera_test
