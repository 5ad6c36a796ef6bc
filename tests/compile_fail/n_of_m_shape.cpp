// SPDX-License-Identifier: MIT
// A group of n_of_m has at most 16 weights: it fits a register.
// expect: tessera: n_of_m<N, M, T> needs 2 <= M <= 16 and 1 <= N <= M
#include <tessera/storage/n_of_m.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
constexpr ts::index_t group = 32;
#else
constexpr ts::index_t group = 16;
#endif

ts::index_t count(ts::n_of_m<2, group, float> w) { return w.nonzeros(); }
