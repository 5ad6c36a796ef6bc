// SPDX-License-Identifier: MIT
// From Eigen: its matrices are tessera's views and tessera's views are its maps, without copies. Here Eigen splits a weight
// into its strongest directions and a rest; tessera keeps the rest in 4 bits and multiplies both in one pass.

#include <tessera/interop/eigen.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/quant/quantize.hpp>

#include "tour.hpp"

#include <Eigen/Eigenvalues>

#include <cstdio>

namespace ts = tessera;

int main() {
    // A weight as Eigen has it: column-major. Its singular values fall off, as trained weights' do.
    auto const left = tour::normal(/*seed=*/1, 96, 96), right = tour::normal(2, 96, 160);
    Eigen::VectorXf falling(96);
    for (Eigen::Index i = 0; i < 96; ++i) falling(i) = 1.0f / static_cast<float>(i + 1);
    Eigen::MatrixXf const w = ts::eigen::map(left) * falling.asDiagonal() * ts::eigen::map(right);

    // `view_of` is a view of Eigen's memory: strides (1, n), nothing is copied.
    auto const view = ts::eigen::view_of(w);
    std::printf("w: %ld x %ld, strides %ld and %ld\n", long(view.extent(0)), long(view.extent(1)), long(view.stride(0)),
                long(view.stride(1)));
    auto const all = ts::quantize<ts::int4_g32>(view);

    // The 8 strongest directions of w (eigenvectors of w wᵀ) as two thin factors, and the rest of it in 4 bits.
    Eigen::SelfAdjointEigenSolver<Eigen::MatrixXf> const spectrum{w * w.transpose()};
    Eigen::MatrixXf const b = spectrum.eigenvectors().rightCols(8);
    Eigen::MatrixXf const a = b.transpose() * w;
    Eigen::MatrixXf const remainder = w - b * a;
    auto const rest = ts::quantize<ts::int4_g32>(ts::eigen::view_of(remainder));

    // Blocks, maps and references of Eigen's go wherever a view does.
    ts::cpu<> const exec;
    auto const x = tour::normal(3, 20, 160);
    ts::matrix<float> y{20, 96};
    Eigen::MatrixXf const exact = ts::eigen::map(x) * w.transpose();
    auto const error = [&] { return (ts::eigen::map(y) - exact).norm() / exact.norm(); };

    ts::apply(exec, ts::linear{all}, x, y);
    std::printf("all in int4:          relative error %.3f\n", double(error()));
    auto const strongest = ts::low_rank{ts::eigen::view_of(b), ts::eigen::view_of(a)};
    ts::apply(exec, ts::place(exec, strongest + ts::linear{rest}), x, y);
    std::printf("rank 8 + int4 rest:   relative error %.3f\n", double(error()));

    // Results are Eigen's as soon as they are there.
    Eigen::Index row = 0, column = 0;
    float const largest = ts::eigen::map(y).cwiseAbs().maxCoeff(&row, &column);
    std::printf("largest output: |y(%ld, %ld)| = %.1f\n", long(row), long(column), double{largest});
}
// Output:
// w: 96 x 160, strides 1 and 96
// all in int4:          relative error 0.096
// rank 8 + int4 rest:   relative error 0.025
// largest output: |y(4, 68)| = 65.8
