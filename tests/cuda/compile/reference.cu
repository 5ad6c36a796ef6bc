// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: definitions that a device's threads run.

#include <tessera/tessera.cuh>

namespace ts = tessera;

void definitions(ts::cuda_reference<90> const& exec, ts::device_matrix_view<ts::bf16 const> x, ts::device_vector_view<ts::bf16 const> weight,
                 ts::device_matrix_view<ts::bf16> y, ts::placed<ts::cuda<90>, ts::linear<ts::quantized<ts::uint4_g32>, ts::int8_per_token>> const& w,
                 ts::device_matrix_view<float const> logits, ts::device_matrix_view<std::int32_t> index, ts::device_matrix_view<float> of_experts) {
    ts::rms_norm(exec, x, weight, 1e-5f, y);
    ts::softmax(exec, x, y);
    ts::swiglu(exec, x, x, y);
    ts::apply(exec, w, x, y);
    ts::apply(exec, ts::transposed(w.view()), x, y);
    ts::choose_experts(exec, ts::renormalized{ts::softmax_gate{}}, logits, index, of_experts);
}
