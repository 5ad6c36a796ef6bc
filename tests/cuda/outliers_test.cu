// SPDX-License-Identifier: MIT
/// @file
/// Outliers in compressed rows as a part of their base's pass on a device: every number of rows of x that has one and some that have not,
/// clusters, strips, bases, low-rank terms beside them.

#include "cuda_support.hpp"

#include "cases/sparse_operands.hpp"

#include <tessera/sparse/sparse.cuh>

#include <algorithm>

namespace {

using namespace tessera_test;

/// A random matrix with an empty row, and one of 240 entries (or all), which the base's pass still takes.
ts::matrix<float> uneven_sparse(index_t n, index_t k, double density) {
    auto w = random_sparse(n, k, density);
    for (index_t i = 0; i < n; ++i) {
        index_t there = 0;
        for (index_t j = 0; j < k; ++j) there += w(i, j) != 0.0f;
        for (index_t j = 0; j < k; ++j) w(i, j) = i == 0 || i == n - 1 || there > 240 ? 0.0f : w(i, j);
    }
    index_t const entries = std::min<index_t>(k, 240);
    for (index_t i = 0; i < entries; ++i) w(n - 1, i * k / entries) = 0.5f + static_cast<float>(i % 7);
    return w;
}

/// x W^T with outliers in the pass of a base of zeros: they alone are in y, x as it is, and the tolerance is that of float32 sums.
template <class Op, class X = float>
void check_own_sums(Op const& w, index_t m) {
    CAPTURE(m);
    guarded<X> x{m, w.cols()};
    guarded<float> y{m, w.rows()};
    guarded<float> again{m, w.rows()};
    x.fill(23);
    apply_case<Op, X> const expected{w, std::as_const(x).view(), w.cols() + 8};
    auto const placed = ts::place(device{}, w);
    apply_there(placed, x, y);
    apply_there(placed, x, again);
    CHECK(expected.worst_ratio(ts::matrix_view<float const>{y.view()}) <= 1.0);
    CHECK(same_bits<float>(again.view(), y.view()));
}
TEST_CASE("outliers in the pass of a base") {
    struct of_size {
        index_t n, k;
    };
    // One strip of rows whose blocks share k; many; some that take two strips each with more than 8 rows of x; a last strip that is short.
    for (of_size const s : {of_size{33, 2048}, {300, 512}, {1, 64}, {5000, 64}, {4500, 700}}) {
        CAPTURE(s.n);
        CAPTURE(s.k);
        auto q = random_quantized<ts::int4_g128>(s.n, s.k);
        auto const view = q.view();
        for (index_t i = 0; i < view.scale_rows() * view.scale_columns(); ++i) q.scales()[i] = ts::fp16{0.0f};
        ts::linear const base{q.view(), ts::as_bf16{}};
        auto const of_16 = ts::sparsify<ts::csr<ts::fp16>>(uneven_sparse(s.n, s.k, 0.02), ts::magnitude_threshold{0});
        auto const of_8 = ts::sparsify<ts::csr<ts::int8>>(uneven_sparse(s.n, s.k, 0.1), ts::magnitude_threshold{0});
        auto const none = ts::sparsify<ts::csr<float>>(ts::matrix<float>(s.n, s.k), ts::magnitude_threshold{1});
        CHECK(none.nonzeros() == 0);
        for (index_t const m : {1, 2, 3, 8, 9, 16, 17, 33}) {
            if (s.n > 1000 && m != 1 && m != 3 && m != 16) continue;
            check_own_sums(base + ts::linear{of_16.view()}, m);
            check_own_sums(0.5f * ts::linear{of_8.view()} + base, m);
            check_own_sums<decltype(base + ts::linear{of_16.view()}), ts::bf16>(base + ts::linear{of_16.view()}, m);
            check_operator(base + ts::linear{none.view()}, m);
        }
    }
}
TEST_CASE("bases of other formats, three terms, epilogues") {
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(uneven_sparse(300, 1024, 0.02), ts::magnitude_threshold{0});
    ts::linear const rows{outliers.view()};
    guarded<ts::bf16> b{300, 16};
    guarded<ts::bf16> a{16, 1024};
    guarded<float> wide{16, 1024};
    b.fill(1, 0.3);
    a.fill(2, 0.3);
    wide.fill(2, 0.3);
    ts::low_rank const adapter{ts::linear{std::as_const(b).view()}, ts::linear{std::as_const(a).view()}, 0.5f};
    ts::low_rank const other{ts::linear{std::as_const(b).view()}, ts::linear{std::as_const(wide).view()}, 2.0f};
    auto const check = [&](auto const& base, index_t m) {
        check_operator<ts::bf16, ts::bf16>(base + rows, m);
        check_operator<ts::bf16, float>(base + rows + adapter, m);
    };
    auto const check_more = [&](auto const& base, index_t m) {
        check(base, m);
        check_operator<ts::bf16, float>(base + adapter + 0.25f * rows, m);
        check_operator<ts::bf16, float>(base + rows + other, m);
        check_operator<float, float>(base + (rows + adapter), m);
        check_operator<ts::fp16, float>(2.0f * (base + rows + adapter), m);
    };
    auto const int4 = random_quantized<ts::int4_g128>(300, 1024);
    auto const affine = random_quantized<ts::uint4_g32>(300, 1024);
    auto const table = random_quantized<ts::nf4_g64>(300, 1024);
    auto const channel = random_quantized<ts::int8_per_channel>(300, 1024);
    for (index_t const m : {1, 5, 16, 20}) {
        CAPTURE(m);
        check_more(ts::linear{int4.view(), ts::as_bf16{}}, m);
        check(ts::linear{affine.view(), ts::as_bf16{}}, m);
        check(ts::linear{table.view(), ts::as_bf16{}}, m);
        check(ts::linear{channel.view(), ts::as_bf16{}}, m);
    }
    guarded<float> x{5, 1024};
    guarded<float> r{5, 300};
    guarded<float> y{5, 300};
    guarded<float> expected{5, 300};
    x.fill(3);
    r.fill(4);
    ts::linear const base{int4.view(), ts::as_bf16{}};
    auto const placed = ts::place(device{}, base + rows);
    apply_there(placed, x, expected);
    on_device<float const> const dr{std::as_const(r).view()};
    apply_there(placed, x, y, ts::residual{ts::kernel_view(dr.view())});
    for (index_t m = 0; m < 5; ++m)
        for (index_t n = 0; n < 300; ++n) CHECK(y.view()(m, n) == expected.view()(m, n) + r.view()(m, n));
}

/// A row of W that is much longer than the others goes the other way; the same numbers.
TEST_CASE("one long row") {
    auto dense = random_sparse(200, 3000, 0.002);
    for (index_t j = 0; j < 3000; ++j) dense(77, j) = 0.25f + static_cast<float>(j % 5);
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(dense, ts::magnitude_threshold{0});
    auto const q = random_quantized<ts::int4_g32>(200, 3000);
    for (index_t const m : {1, 5, 16}) check_operator(ts::linear{q.view(), ts::as_bf16{}} + ts::linear{outliers.view()}, m);
}
TEST_CASE("captured in a graph") {
    auto const w = ts::sparsify<ts::csr<ts::fp16>>(random_sparse(40, 64, 0.2), ts::magnitude_threshold{0});
    auto const q = random_quantized<ts::int4_g32>(40, 64);
    auto const both = ts::place(device{}, ts::linear{q.view(), ts::as_bf16{}} + ts::linear{w.view()});
    for (index_t const m : {1, 3, 16}) check_captured(both, m);
}

} // namespace
