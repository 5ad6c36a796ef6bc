// SPDX-License-Identifier: MIT
// An operator is a view: of a temporary owner it does not compile.
// expect: deleted
#include <tessera/kernels/operand.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
auto const w = ts::linear{ts::matrix<float>(3, 4)};
#else
ts::matrix<float> const owner(3, 4);
auto const w = ts::linear{owner};
#endif
