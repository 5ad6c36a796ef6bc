// SPDX-License-Identifier: MIT
/// @file
/// Compiled for sm_80 where nvcc is, run nowhere: a product with a low-rank term; 8-bit floats, which are multiplied in float32 there.

#include <tessera/tessera.cuh>

namespace ts = tessera;

void multiply(ts::cuda<80> const& exec, ts::quantized<ts::int4_g128> q, ts::matrix_view<ts::bf16 const> b, ts::matrix_view<ts::bf16 const> a,
              ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<ts::bf16> y) {
    auto const layer = ts::place(exec, ts::linear{q, ts::as_bf16{}} + ts::low_rank{b, a});
    exec.reserve(ts::workspace_bytes(exec, layer, x));
    ts::apply(exec, layer, x, y);
}
void multiply_fp8(ts::cuda<80> const& exec, ts::quantized<ts::scheme<ts::e4m3fn, ts::block<128, 128>>> q, ts::device_matrix_view<ts::bf16 const> x,
                  ts::device_matrix_view<ts::bf16> y) {
    auto const layer = ts::place(exec, ts::linear{q, ts::fp8_per_group<128>{}});
    ts::apply(exec, layer, x, y);
}
