// SPDX-License-Identifier: MIT
// A router's gate is one of the gates.
// expect: tessera: top_k_router: the gate is not one of kernels/routing.hpp's kind
#include <tessera/moe/router.hpp>

namespace ts = tessera;

ts::matrix<float> const w(3, 4);
#if defined(TESSERA_EXPECT_FAIL)
ts::top_k_router const router{w, 2, ts::activation::silu{}};
#else
ts::top_k_router const router{w, 2, ts::softmax_gate{}};
#endif
