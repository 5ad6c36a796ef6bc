// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: quantising, norms and rotations before it.

#include <tessera/quant/quantize.cuh>

namespace ts = tessera;

void quantise(ts::cuda<90> const& exec, ts::device_matrix_view<ts::bf16 const> x, ts::device_vector_view<ts::bf16 const> weight,
              ts::device_matrix_view<ts::bf16> y, ts::device_quantized<ts::int4_g128>& q,
              ts::device_quantized<ts::scheme<ts::e4m3fn, ts::per_channel>>& codes) {
    ts::quantize(exec, x, q);
    ts::rms_norm_rotate_quantize(exec, x, weight, 1e-5f, 128, codes);
    ts::walsh_hadamard(exec, x, y, 128);
}
