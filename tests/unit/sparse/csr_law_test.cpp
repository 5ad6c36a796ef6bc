// SPDX-License-Identifier: MIT
// The law of stored matrices for compressed rows.

#include "sparse_support.hpp"

using namespace tessera_test;

TEST_CASE("csr") { report_sparse_law<csr_storage_of<float, ts::per_channel, 25>>(); }
TEST_CASE_TEMPLATE("csr of fewer bits", T, ts::fp16, ts::bf16, ts::int8) {
    report_sparse_law<csr_storage_of<T, ts::per_channel, 25>, best_arch>();
}
TEST_CASE("csr, one scale") { report_sparse_law<csr_storage_of<ts::int8, ts::per_tensor, 3>, best_arch>(); }

namespace {

/// Many rows of x: all widths of columns, several blocks; and rows of W in windows of 64.
template <class Op>
void check_many(Op const& w, index_t m) {
    guarded<float> x{m, w.cols()};
    guarded<float> y{m, w.rows()};
    x.fill(3);
    apply_case<Op> const expected{w, x.view()};
    archs_by_width::visit([&]<class Arch>(Arch) {
        check_on<Arch>(w, x, expected, {m, w.rows(), w.cols()}, y);
    });
}

} // namespace

TEST_CASE("csr with many rows of x, and more columns than 16 bits number") {
    auto const w = ts::sparsify<ts::csr<float>>(random_sparse(1100, 37, 0.2), ts::magnitude_threshold{0});
    for (index_t const m : {1, 5, 150}) {
        check_many(ts::linear{w}, m);
        check_many(ts::transposed(ts::linear{w}), m);
    }
    ts::matrix<float> wide{9, 70001};
    for (index_t n = 0; n < 9; ++n)
        for (index_t k = n; k < 70001; k += 1000 + n) wide(n, k) = static_cast<float>(1 + k % 13);
    auto const v = ts::sparsify<ts::csr<float>>(wide, ts::magnitude_threshold{0});
    for (index_t const m : {1, 5}) {
        check_many(ts::linear{v}, m);
        check_many(ts::transposed(ts::linear{v}), m);
    }
}

TEST_CASE_TEMPLATE("the definition reads placed rows as it does stored ones, also in sums", T, float, ts::fp16, ts::int8) {
    auto const s = ts::sparsify<ts::csr<T>>(random_sparse(37, 70, 0.3), ts::magnitude_threshold{0});
    archs_by_width::visit([&]<class Arch>(Arch) {
        ts::cpu<Arch, ts::serial> const exec;
        auto const p = ts::place(exec, ts::linear{s});
        guarded<float> x{3, 70};
        x.fill(3);
        auto const by_definition = [&](auto const& op, guarded<float>& y) { ts::apply(ts::reference{}, op, x.view(), y.view()); };
        guarded<float> stored{3, 37}, placed{3, 37}, twice{3, 37}, two{3, 37};
        for (auto* y : {&stored, &placed, &twice, &two}) y->clear();
        by_definition(ts::linear{s}, stored);
        by_definition(p.view(), placed);
        by_definition(ts::linear{s} + ts::linear{s}, twice);
        by_definition(p.view() + p.view(), two);
        CHECK(same_bits(stored, placed)); // the same sums in the same order
        CHECK(same_bits(twice, two));
    });
}

TEST_CASE("a weight that is not stored meets no x") {
    ts::matrix<float> dense{5, 40};
    for (index_t n = 0; n < 5; ++n)
        for (index_t k = n; k < 40; k += 7 + n) dense(n, k) = 1.0f;
    auto const w = ts::sparsify<ts::csr<float>>(dense, ts::magnitude_threshold{0});
    archs_by_width::visit([&]<class Arch>(Arch) {
        ts::cpu<Arch, ts::serial> const exec;
        for (index_t const m : {1, 4}) {
            guarded<float> x{m, 40};
            guarded<float> y{m, 5};
            for (index_t i = 0; i < m; ++i)
                for (index_t k = 0; k < 40; ++k) x.view()(i, k) = k == 8 ? HUGE_VALF : 1.0f;
            apply_to(exec, ts::linear{w}, x, y);
            for (index_t n = 0; n < 5; ++n) CHECK(std::isinf(y.view()(0, n)) == (dense(n, 8) != 0.0f));
        }
    });
}
