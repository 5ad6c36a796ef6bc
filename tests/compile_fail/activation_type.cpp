// SPDX-License-Identifier: MIT
// Activations are float, fp16 or bf16.
// expect: tessera: x and y are matrices of float, fp16 or bf16
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using activation = double;
#else
using activation = ts::bf16;
#endif

void multiply(ts::matrix_view<float const> w, ts::matrix_view<activation const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w}, x, y);
}
