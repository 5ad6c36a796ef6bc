// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: operations on rows.

#include <tessera/tessera.cuh>

namespace ts = tessera;

void rows(ts::cuda<90> const& exec, ts::device_matrix_view<ts::bf16 const> x, ts::device_vector_view<ts::bf16 const> weight,
          ts::device_matrix_view<ts::bf16> y) {
    ts::rms_norm(exec, x, weight, 1e-5f, y);
    ts::softmax(exec, x, y);
    ts::swiglu(exec, x, x, y);
}
