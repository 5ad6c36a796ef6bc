// SPDX-License-Identifier: MIT
// A low-rank operator is a view: of temporary owners it does not compile.
// expect: deleted
#include <tessera/operators/linear_operator.hpp>

namespace ts = tessera;

ts::matrix<float> const b(5, 2);
#if defined(TESSERA_EXPECT_FAIL)
auto const w = ts::low_rank{b, ts::matrix<float>(2, 4)};
#else
ts::matrix<float> const a(2, 4);
auto const w = ts::low_rank{b, a};
#endif
