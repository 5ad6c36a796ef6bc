// SPDX-License-Identifier: MIT
// Elements of device memory are not read on the host.
// expect: tessera: a view of device memory has no elements here
#include <tessera/core/device_view.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
float first(ts::device_matrix_view<float> x) { return x(0, 0); }
#else
float first(ts::matrix_view<float> x) { return x(0, 0); }
#endif
