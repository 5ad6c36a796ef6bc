// SPDX-License-Identifier: MIT
// A sum refers to the memory of an owner: of a temporary it does not compile.
// expect: tessera: an operator of a temporary owner would refer to memory that is gone; give the owner a name
#include <tessera/operators/place.hpp>

namespace ts = tessera;

ts::matrix<float> const dense{3, 64};
ts::quantized_tensor<ts::int4_g32> const owner{3, 64};
#if defined(TESSERA_EXPECT_FAIL)
auto const w = ts::place(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{owner}) + ts::linear{dense};
#else
auto const placed = ts::place(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{owner});
auto const w = placed + ts::linear{dense};
#endif
