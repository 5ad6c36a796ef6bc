// SPDX-License-Identifier: MIT
// Weights that are not encoded again: a sparse matrix with a low-rank one in it is not sparse.
// expect: tessera: merge: the base is a view or an owner of dense, quantised or blocked weights
#include <tessera/adapter/merge.hpp>
#include <tessera/sparse/place.hpp>

namespace ts = tessera;

void merge(ts::csr<float> const& w, ts::dense_low_rank const& adapter) {
#if defined(TESSERA_EXPECT_FAIL)
    static_cast<void>(ts::merge(w, adapter));
#else
    static_cast<void>(ts::linear{w} + adapter);
#endif
}
