// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: products of 8-bit floats, and of int4 and int8.

#include <tessera/tessera.cuh>

namespace ts = tessera;

void multiply(ts::cuda<90> const& exec, ts::quantized<ts::scheme<ts::e4m3fn, ts::block<128, 128>>> q, ts::quantized<ts::int4_g128> i,
              ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<ts::bf16> y) {
    auto const layer = ts::place(exec, ts::linear{q, ts::fp8_per_group<128>{}} + ts::linear{i, ts::int8_per_token{}});
    exec.reserve(ts::workspace_bytes(exec, layer, x));
    ts::apply(exec, layer, x, y);
}
