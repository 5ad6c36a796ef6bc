// SPDX-License-Identifier: MIT
// The CUDA policy is declared everywhere and works where its kernels are.
// expect: tessera: cuda<Sm> needs #include <tessera/tessera.cuh> in a file compiled by nvcc
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using backend = ts::cuda<90>;
#else
using backend = ts::cpu<ts::native_arch, ts::serial>;
#endif

void multiply(ts::matrix_view<float const> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(backend{}, ts::linear{w}, x, y);
}
