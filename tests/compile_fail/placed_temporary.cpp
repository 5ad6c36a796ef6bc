// SPDX-License-Identifier: MIT
// The operator of a placed temporary would refer to memory that is gone: it does not compile.
// expect: deleted
#include <tessera/operators/place.hpp>

namespace ts = tessera;

ts::quantized_tensor<ts::int4_g32> const owner{3, 64};
#if defined(TESSERA_EXPECT_FAIL)
auto const w = ts::place(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{owner}).view();
#else
auto const placed = ts::place(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{owner});
auto const w = placed.view();
#endif
