// SPDX-License-Identifier: MIT
// Sparse storage that is about to go is refused like any other owner, also where only the storage is known.
// expect: explicit linear(Owner&&, Preparation = {}) = delete;
#include <tessera/kernels/operand.hpp>
#include <tessera/storage/csr.hpp>
#include <tessera/storage/n_of_m.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
bool is_empty() { return ts::linear{ts::n_of_m_tensor<2, 4, float>{}}.rows() == 0; }
#else
static_assert(ts::detail::is_owner<ts::n_of_m_tensor<2, 4, float>> && ts::detail::is_owner<ts::csr_tensor<float>>);
bool is_empty() {
    ts::n_of_m_tensor<2, 4, float> const w;
    return w.view().rows() == 0;
}
#endif
