// SPDX-License-Identifier: MIT
// The law of stored matrices for N of every M weights: one word of positions a record, several groups a word, two words a
// group, M that is no power of two.

#include "sparse_support.hpp"

using namespace tessera_test;

TEST_CASE("2 of 4") { report_sparse_law<n_of_m_storage_of<2, 4, float>>(); }
TEST_CASE_TEMPLATE("2 of 4 of fewer bits", T, ts::bf16, ts::int8) { report_sparse_law<n_of_m_storage_of<2, 4, T>, best_arch>(); }
TEST_CASE("1 of 2") { report_sparse_law<n_of_m_storage_of<1, 2, float>, best_arch>(); }
TEST_CASE("3 of 4, one scale") { report_sparse_law<n_of_m_storage_of<3, 4, ts::int8, ts::per_tensor>, best_arch>(); }
TEST_CASE("4 of 8") { report_sparse_law<n_of_m_storage_of<4, 8, ts::fp16>, best_arch>(); }
TEST_CASE("5 of 12") { report_sparse_law<n_of_m_storage_of<5, 12, float>, best_arch>(); }
TEST_CASE("11 of 16") { report_sparse_law<n_of_m_storage_of<11, 16, ts::bf16>>(); }

TEST_CASE("a weight that is not kept meets no x") {
    ts::matrix<float> dense{5, 40};
    for (index_t n = 0; n < 5; ++n)
        for (index_t k : {9, 11, static_cast<int>(12 + n)}) dense(n, k) = 1.0f; // of columns 8 to 11 the first is not kept
    auto const w = ts::sparsify<ts::n_of_m<2, 4, float>>(dense);
    archs_by_width::visit([&]<class Arch>(Arch) {
        ts::cpu<Arch, ts::serial> const exec;
        for (index_t const m : {1, 4}) {
            guarded<float> x{m, 40};
            guarded<float> y{m, 5};
            for (index_t i = 0; i < m; ++i)
                for (index_t k = 0; k < 40; ++k) x.view()(i, k) = k == 8 ? HUGE_VALF : 1.0f;
            apply_to(exec, ts::linear{w}, x, y);
            for (index_t n = 0; n < 5; ++n) CHECK(y.view()(m - 1, n) == 3.0f);
        }
    });
}
