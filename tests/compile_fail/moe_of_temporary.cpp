// SPDX-License-Identifier: MIT
// A mixture refers to its experts: of a temporary vector of them it does not compile.
// expect: deleted
#include <tessera/moe/moe.hpp>

namespace ts = tessera;

ts::matrix<float> const w(3, 4);
std::vector<ts::linear<ts::matrix_view<float const>>> const experts(3, ts::linear{w});
ts::top_k_router const router{w, 2, ts::softmax_gate{}};
#if defined(TESSERA_EXPECT_FAIL)
ts::moe const block{router, std::vector(3, ts::linear{w})};
#else
ts::moe const block{router, experts};
#endif
