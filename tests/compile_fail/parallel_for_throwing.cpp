// SPDX-License-Identifier: MIT
// An exception cannot cross a parallel region: functors are noexcept.
// expect: tessera: the function given to parallel_for must be noexcept and take (first, last, worker)
#include <tessera/core/parallel.hpp>

namespace ts = tessera;

void work() {
#if defined(TESSERA_EXPECT_FAIL)
    ts::parallel_for(ts::serial{}, 10, 1, [](ts::index_t, ts::index_t, ts::index_t) {});
#else
    ts::parallel_for(ts::serial{}, 10, 1, [](ts::index_t, ts::index_t, ts::index_t) noexcept {});
#endif
}
