// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: points of grids, a table a row, vectors of columns, pyramids.

#include <tessera/storage/table_quantized.hpp>
#include <tessera/storage/vector_codebooks.hpp>
#include <tessera/storage/vector_grid.hpp>
#include <tessera/tessera.cuh>

namespace ts = tessera;

template <class Op>
void multiply(ts::cuda<90> const& exec, Op const& w, ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<float> y) {
    ts::apply(exec, ts::place(exec, w), x, y);
}

void multiply_all(ts::cuda<90> const& exec, ts::vector_grid<2, 8> points, ts::table_quantized<4, ts::per_channel> tables, ts::vector_codebooks vectors,
                  ts::pvq_matrix<ts::pvq<16, 24>, ts::gain_as<float>> pyramids, ts::device_matrix_view<ts::bf16 const> x, ts::device_matrix_view<float> y) {
    multiply(exec, ts::linear{points, ts::as_bf16{}} + ts::linear{pyramids}, x, y);
    multiply(exec, ts::linear{tables, ts::as_bf16{}}, x, y);
    multiply(exec, ts::linear{vectors}, x, y);
}
