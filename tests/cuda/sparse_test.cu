// SPDX-License-Identifier: MIT
/// @file
/// Compressed rows and N of M on a device: the cases of tests/unit/sparse, sums with quantised bases, errors and capture.

#include "cuda_support.hpp"

#include "cases/sparse_operands.hpp"

#include <tessera/sparse/sparse.cuh>

namespace {

using namespace tessera_test;

/// One operator, placed as it is and transposed after it was placed: the reference's result, the same bits again and row by row.
template <class Op, class Placed>
double check_one(Op const& w, Placed const& placed, guarded<float> const& x, guarded<float>& y, bool checks_rows) {
    apply_case<Op> const expected{w, x.view()};
    apply_there(placed, x, y);
    double const ratio = expected.worst_ratio(ts::matrix_view<float const>{y.view()});
    CHECK(ratio <= 1.0);
    if (checks_rows) check_bits(placed, x, y);
    return ratio;
}

/// The law of tests/unit/sparse.
template <class Storage>
void report_sparse_law() {
    double worst = 0;
    index_t turn = 0;
    for (product_shape const s : product_shapes<Storage>()) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Storage const owner{s.n, s.k};
        ts::linear const w{owner.view()};
        auto const t = ts::transposed(w);
        ++turn;
        guarded<float> x{s.m, s.k, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> y{s.m, s.n, turn % 2, turn % 5 == 4 ? 3 : 1};
        guarded<float> dy{s.m, s.n, turn % 3, turn % 3 == 2 ? 2 : 1};
        guarded<float> dx{s.m, s.k, turn % 2, turn % 5 == 4 ? 3 : 1};
        x.fill(17);
        dy.fill(19);
        auto const placed = ts::place(device{}, w);
        worst = std::fmax(worst, check_one(w, placed.view(), x, y, turn % 4 == 1));
        worst = std::fmax(worst, check_one(t, ts::transposed(placed.view()), dy, dx, turn % 4 == 1));
        auto const turned = ts::place(device{}, t);
        worst = std::fmax(worst, check_one(t, turned.view(), dy, dx, turn % 4 == 1));
    }
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("csr") { report_sparse_law<csr_storage_of<float, ts::per_channel, 25>>(); }
TEST_CASE_TEMPLATE("csr of fewer bits", T, ts::fp16, ts::bf16, ts::int8) { report_sparse_law<csr_storage_of<T, ts::per_channel, 25>>(); }
TEST_CASE("csr, one scale") { report_sparse_law<csr_storage_of<ts::int8, ts::per_tensor, 3>>(); }
TEST_CASE("2 of 4") {
    report_sparse_law<n_of_m_storage_of<2, 4, float>>();
    report_sparse_law<n_of_m_storage_of<2, 4, ts::bf16>>();
    report_sparse_law<n_of_m_storage_of<2, 4, ts::int8>>();
}
TEST_CASE("other N of M") {
    report_sparse_law<n_of_m_storage_of<1, 2, float>>();
    report_sparse_law<n_of_m_storage_of<3, 4, ts::int8, ts::per_tensor>>();
    report_sparse_law<n_of_m_storage_of<4, 8, ts::fp16>>();
    report_sparse_law<n_of_m_storage_of<5, 12, float>>();
    report_sparse_law<n_of_m_storage_of<11, 16, ts::bf16>>();
}

TEST_CASE("many rows of x, and more columns than 16 bits number") {
    auto const w = ts::sparsify<ts::csr<float>>(random_sparse(1100, 37, 0.2), ts::magnitude_threshold{0});
    for (index_t const m : {1, 5, 150, 1030}) {
        check_operator(ts::linear{w.view()}, m);
        check_operator(ts::transposed(ts::linear{w.view()}), m);
    }
    ts::matrix<float> wide{9, 70001};
    for (index_t n = 0; n < 9; ++n)
        for (index_t k = n; k < 70001; k += 1000 + n) wide(n, k) = static_cast<float>(1 + k % 13);
    auto const v = ts::sparsify<ts::csr<float>>(wide, ts::magnitude_threshold{0});
    for (index_t const m : {1, 5}) {
        check_operator(ts::linear{v.view()}, m);
        check_operator(ts::transposed(ts::linear{v.view()}), m);
    }
}

TEST_CASE("a weight that is not stored meets no x") {
    ts::matrix<float> dense{5, 40};
    for (index_t n = 0; n < 5; ++n)
        for (index_t k : {9, 11, static_cast<int>(12 + n)}) dense(n, k) = 1.0f; // of columns 8 to 11 the first is not kept
    auto const check = [](ts::csr<float> const& w) {
        auto const placed = ts::place(device{}, ts::linear{w});
        for (index_t const m : {1, 4, 9}) {
            guarded<float> x{m, 40};
            guarded<float> y{m, 5};
            for (index_t i = 0; i < m; ++i)
                for (index_t k = 0; k < 40; ++k) x.view()(i, k) = k == 8 || k == 0 ? HUGE_VALF : 1.0f;
            apply_there(placed, x, y);
            for (index_t n = 0; n < 5; ++n) CHECK(y.view()(m - 1, n) == 3.0f);
        }
    };
    auto const compressed = ts::sparsify<ts::csr<float>>(dense, ts::magnitude_threshold{0});
    check(compressed.view());
    ts::matrix<float> halves{5, 39}; // a short last group, whose padding would meet no column
    for (index_t n = 0; n < 5; ++n) halves(n, 38) = 1.0f;
    for (index_t n = 0; n < 5; ++n)
        for (index_t k : {9, 11, static_cast<int>(12 + n)}) dense(n, k) = 1.0f;
    auto const kept = ts::sparsify<ts::n_of_m<2, 4, float>>(dense);
    guarded<float> x{3, 40};
    guarded<float> y{3, 5};
    for (index_t i = 0; i < 3; ++i)
        for (index_t k = 0; k < 40; ++k) x.view()(i, k) = k == 8 ? HUGE_VALF : 1.0f;
    apply_there(ts::place(device{}, ts::linear{kept.view()}), x, y);
    for (index_t n = 0; n < 5; ++n) CHECK(y.view()(2, n) == 3.0f);
    auto const last = ts::sparsify<ts::n_of_m<2, 4, float>>(halves);
    check_operator(ts::linear{last.view()}, 3);
}

TEST_CASE("outliers beside a quantised base, 16-bit x and y, transposes of sums") {
    auto const q = random_quantized<ts::int4_g128>(300, 512);
    auto const outliers = ts::sparsify<ts::csr<ts::fp16>>(random_sparse(300, 512, 0.02), ts::magnitude_threshold{0});
    auto const kept = ts::sparsify<ts::n_of_m<2, 4, ts::bf16>>(random_sparse(300, 512, 0.9));
    ts::linear const base{q.view()};
    for (index_t const m : {1, 4, 23, 70}) {
        CAPTURE(m);
        check_operator(base + ts::linear{outliers.view()}, m);
        check_operator(0.5f * ts::linear{outliers.view()} + base, m);
        check_operator<ts::bf16, ts::bf16>(base + ts::linear{outliers.view()}, m);
        check_operator<ts::fp16, float>(ts::linear{kept.view()}, m);
    }
    check_operator(ts::transposed(base + ts::linear{outliers.view()}), 5);
    check_operator(ts::rows(ts::linear{outliers.view()}, 10, 200), 3);
}

template <class Error, class F>
void check_error(std::string const& expected, F const& f) {
    try {
        f();
        FAIL("no error");
    } catch (Error const& e) {
        CHECK(std::string{e.what()} == expected);
    }
}

TEST_CASE("errors at the door; captured in a graph") {
    auto const w = ts::sparsify<ts::csr<ts::fp16>>(random_sparse(40, 64, 0.2), ts::magnitude_threshold{0});
    auto const placed = ts::place(device{}, ts::linear{w.view()});
    ts::device_matrix<float> wrong{2, 60};
    ts::device_matrix<float> to{2, 40};
    ts::matrix<float> host(2, 64);
    check_error<ts::shape_error>("tessera: apply: columns of x is 60, expected 64 (columns of the operator)",
                                 [&] { ts::apply(device{}, placed, wrong.view(), to.view()); });
    check_error<ts::shape_error>("tessera: apply: x is memory of the host, expected memory of CUDA device 0", [&] {
        ts::apply(device{}, placed, ts::device_matrix_view<float>{host.data(), 2, 64}, to.view());
    });
    check_captured(placed, 3);
}

} // namespace
