// SPDX-License-Identifier: MIT
// An operator does not refer to sparse storage that is about to go.
// expect: deleted
#include <tessera/sparse/place.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
bool is_empty() { return ts::linear{ts::csr_tensor<float>{}}.rows() == 0; }
#else
bool is_empty() {
    ts::csr_tensor<float> const w;
    return ts::linear{w}.rows() == 0;
}
#endif
