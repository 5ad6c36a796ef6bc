// SPDX-License-Identifier: MIT
// What is erased has no weights to encode again.
// expect: tessera: merge: the base is a view or an owner of dense, quantised or blocked weights
#include <tessera/adapter/merge.hpp>
#include <tessera/dispatch/any_operator.hpp>

namespace ts = tessera;

void merge(ts::any_operator<ts::cpu<>> const& w, ts::dense_low_rank const& adapter) {
#if defined(TESSERA_EXPECT_FAIL)
    static_cast<void>(ts::merge(w, adapter));
#else
    static_cast<void>(w.view() + adapter);
#endif
}
