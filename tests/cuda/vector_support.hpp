// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of look-ups and vector codes on a device, over operands of tests/cases/vector_operands.hpp.

#include "cuda_support.hpp"

#include "cases/vector_operands.hpp"

#include <tessera/operators/apply_reference.cuh>
#include <tessera/operators/apply_vector.cuh>

#include <algorithm>

namespace tessera_test {

/// The definition on the device, which sums in double: y, and an element of W in float32, have a rounding each.
template <class Op>
void check_defined(Op const& w, index_t m) {
    guarded<float> x{m, w.cols()};
    guarded<float> y{m, w.rows()};
    x.fill(29);
    y.clear();
    apply_case<Op> const expected{w, std::as_const(x).view(), 2};
    auto const placed = ts::place(device{}, w);
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    ts::apply(ts::cuda_reference<90>{}, placed, dx.view(), dy.view());
    wait();
    dy.fetch();
    CHECK(y.is_intact());
    CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
}

/// Products and transposed ones over shapes, x as it is and in bf16; the same bits for a row alone; the definition on the device.
template <class Make>
void check_vectors(std::string const& name) {
    INFO(name);
    double worst = 0;
    product_shape const shapes[] = {{0, 3, 5}, {2, 0, 7}, {2, 5, 0}, {1, 1, 1}, {3, 17, 31}, {9, 15, 33}, {2, 7, 65}, {16, 4, 257}, {40, 66, 300}, {130, 270, 1030}};
    for (product_shape const s : shapes) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Make const owner{s.n, s.k};
        ts::linear const w{owner.view()};
        index_t const m = std::min<index_t>(s.m, 40);
        worst = std::fmax(worst, check_operator(w, m));
        worst = std::fmax(worst, check_operator(ts::transposed(w), m));
        for (index_t const rows : {index_t{1}, s.m})
            worst = std::fmax(worst, check_operator<ts::bf16, ts::bf16>(ts::linear{owner.view(), ts::as_bf16{}}, rows));
        if (s.n != 66) continue;
        check_defined(w, 3);
        check_defined(ts::transposed(w), 3);
        guarded<float> x{m, s.k};
        guarded<float> y{m, s.n};
        x.fill(37);
        auto const placed = ts::place(device{}, w);
        apply_there(placed.view(), x, y);
        check_bits(placed.view(), x, y);
    }
    MESSAGE(name << ": worst error / tolerance " << worst);
}

} // namespace tessera_test
