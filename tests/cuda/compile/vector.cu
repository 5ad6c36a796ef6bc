// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: vector codes and pyramids.

#include <tessera/storage/vector_grid.hpp>
#include <tessera/tessera.cuh>

namespace ts = tessera;

void multiply(ts::cuda<90> const& exec, ts::vector_grid<2, 8> points, ts::pvq_matrix<ts::pvq<16, 24>, ts::gain_as<float>> pyramids,
              ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<float> y) {
    auto const layer = ts::place(exec, ts::linear{points} + ts::linear{pyramids});
    ts::apply(exec, layer, x, y);
}
