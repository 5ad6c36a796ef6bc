// SPDX-License-Identifier: MIT
// An operator is a view: of a temporary owner of quantised weights it does not compile.
// expect: deleted
#include <tessera/kernels/operand.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
auto const w = ts::linear{ts::quantized_tensor<ts::int4_g32>{3, 64}, ts::int8_per_token{}};
#else
ts::quantized_tensor<ts::int4_g32> const owner{3, 64};
auto const w = ts::linear{owner, ts::int8_per_token{}};
#endif
