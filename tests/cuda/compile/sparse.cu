// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: compressed rows, 2 of 4, conversions.

#include <tessera/quant/convert.cuh>
#include <tessera/sparse/sparse.cuh>

namespace ts = tessera;

void multiply(ts::cuda<90> const& exec, ts::csr<ts::fp16> outliers, ts::n_of_m<2, 4, ts::bf16> kept, ts::device_matrix_view<ts::bf16 const> x,
              ts::device_matrix_view<ts::bf16> y, ts::device_matrix_view<ts::e4m3fn> codes) {
    auto const layer = ts::place(exec, ts::linear<ts::csr<ts::fp16>>{outliers} + ts::linear<ts::n_of_m<2, 4, ts::bf16>>{kept});
    ts::apply(exec, layer, x, y);
    ts::apply(exec, ts::transposed(layer.view()), x, y);
    ts::convert(exec, x, codes);
}
