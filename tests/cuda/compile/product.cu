// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: products of one coded format, dense matrices and their algebra.

#include <tessera/tessera.cuh>

namespace ts = tessera;

void multiply(ts::cuda<90> const& exec, ts::quantized<ts::int4_g128> q, ts::matrix_view<ts::bf16 const> b, ts::matrix_view<ts::bf16 const> a,
              ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<ts::bf16> y) {
    auto const layer = ts::place(exec, ts::linear{q} + ts::low_rank{b, a});
    exec.reserve(ts::workspace_bytes(exec, layer, x));
    ts::apply(exec, layer, x, y);
}
