// SPDX-License-Identifier: MIT
// The law of stored matrices for N of every M weights: one word of positions a record, several groups a word, two words a
// group, M that is no power of two.

#include "sparse_support.hpp"

using namespace tessera_test;

TEST_CASE_TEMPLATE("2 of 4", T, float, ts::int8) { report_sparse_law<n_of_m_storage_of<2, 4, T>>(); }
TEST_CASE_TEMPLATE("2 of 4 halves", T, ts::fp16, ts::bf16) { report_sparse_law<n_of_m_storage_of<2, 4, T>, best_arch>(); }
TEST_CASE("1 of 2") { report_sparse_law<n_of_m_storage_of<1, 2, float>, best_arch>(); }
TEST_CASE("3 of 4, one scale") { report_sparse_law<n_of_m_storage_of<3, 4, ts::int8, ts::per_tensor>, best_arch>(); }
TEST_CASE("4 of 8") { report_sparse_law<n_of_m_storage_of<4, 8, ts::fp16>, best_arch>(); }
TEST_CASE("5 of 12") { report_sparse_law<n_of_m_storage_of<5, 12, float>, best_arch>(); }
TEST_CASE("11 of 16") { report_sparse_law<n_of_m_storage_of<11, 16, ts::bf16>>(); }
