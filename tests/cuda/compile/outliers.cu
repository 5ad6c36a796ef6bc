// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: outliers in the pass of a coded matrix.

#include <tessera/sparse/sparse.cuh>

namespace ts = tessera;

void multiply(ts::cuda<90> const& exec, ts::linear<ts::quantized<ts::int4_g128>, ts::as_bf16> base, ts::linear<ts::csr<ts::fp16>> outliers,
              ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<ts::bf16> y) {
    auto const layer = ts::place(exec, base + outliers);
    ts::apply(exec, layer, x, y);
}
