// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: a mixture of experts of one coded format.

#include <tessera/moe/moe.cuh>

namespace ts = tessera;

using expert = ts::linear<ts::quantized<ts::int4_g128>, ts::as_bf16>;

void mix(ts::cuda<90> const& exec, ts::matrix_view<ts::bf16 const> router, std::vector<ts::gated_expert<expert>> const& experts,
         ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<ts::bf16> y) {
    using weight = ts::linear<ts::matrix_view<ts::bf16 const>>;
    ts::moe const block{ts::top_k_router{weight{router}, 8, ts::renormalized<ts::softmax_gate>{ts::softmax_gate{}}}, experts};
    auto const ready = ts::place(exec, block);
    exec.reserve(ts::workspace_bytes(exec, ready, x));
    ts::apply(exec, ready, x, y);
}
