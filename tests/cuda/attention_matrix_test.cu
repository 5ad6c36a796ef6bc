// SPDX-License-Identifier: MIT
/// @file
/// Shapes of attention by matrix units.

#include "attention_support.cuh"

namespace {

using namespace attention_tests;

} // namespace

namespace {

template <class T, index_t D>
void check_matrix_shapes(tally& ratios) {
    bound_terms const terms = matrix_terms<T>();
    for (index_t const queries : {1, 2, 16, 17, 64, 127, 129})
        for (index_t const keys : {1, 15, 17, 64, 127, 128, 129, 300, 600}) check_shape<T, T>(ratios, {queries, keys, 2, 1, D, D}, ts::causal, 0, terms);
    for (index_t const group : {1, 3, 4, 8, 13})
        for (index_t const queries : {1, 3, 40}) check_shape<T, T>(ratios, {queries, 200, 2 * group, 2, D, D}, ts::causal, 0, terms);
    for (index_t const keys : {1100, 2500}) {
        check_shape<T, T>(ratios, {1, keys, 8, 2, D, D}, ts::causal, 0, terms);
        check_shape<T, T>(ratios, {70, keys, 1, 1, D, D}, ts::full, 0, terms);
    }
    check_shape<T, T>(ratios, {0, 5, 2, 1, D, D}, ts::full, 0, terms);
    check_shape<T, T>(ratios, {300, 0, 2, 1, D, D}, ts::full, 0, terms);
}

} // namespace

TEST_CASE("attention: shapes by matrix units, bf16, 64") {
    tally ratios;
    check_matrix_shapes<ts::bf16, 64>(ratios);
    MESSAGE("worst error / bound " << ratios.worst);
}
TEST_CASE("attention: shapes by matrix units, bf16, 128") {
    tally ratios;
    check_matrix_shapes<ts::bf16, 128>(ratios);
    MESSAGE("worst error / bound " << ratios.worst);
}
TEST_CASE("attention: shapes by matrix units, fp16") {
    tally ratios;
    check_matrix_shapes<ts::fp16, 128>(ratios);
    MESSAGE("worst error / bound " << ratios.worst);
}

TEST_CASE("attention: a ring") {
    tally ratios;
    for (index_t const queries : {1, 60}) {
        check_shape<float, float, ts::ring>(ratios, {queries, 333, 2, 1, 16, 16}, ts::causal, 0, {}, 200);
        check_shape<ts::bf16, ts::bf16, ts::ring>(ratios, {queries, 333, 2, 1, 64, 64}, ts::causal, 0, matrix_terms<ts::bf16>(), 200);
    }
}

