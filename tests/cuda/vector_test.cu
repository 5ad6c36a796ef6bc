// SPDX-License-Identifier: MIT
/// @file
/// Products of storage without a code for every weight on a device: the operands of tests/unit/vector, forward and transposed.

#include "cuda_support.hpp"

#include "cases/vector_operands.hpp"

#include <tessera/operators/apply_vector.cuh>

namespace {

using namespace tessera_test;

template <class Make>
void check_vectors(std::string const& name) {
    INFO(name);
    double worst = 0;
    product_shape const shapes[] = {{0, 3, 5}, {2, 0, 7}, {2, 5, 0}, {1, 1, 1}, {3, 17, 31}, {9, 15, 33}, {2, 7, 65}, {16, 4, 257}, {40, 66, 300}, {13, 270, 1030}};
    for (product_shape const s : shapes) {
        CAPTURE(s.m);
        CAPTURE(s.n);
        CAPTURE(s.k);
        Make const owner{s.n, s.k};
        ts::linear const w{owner.view()};
        worst = std::fmax(worst, check_operator(w, s.m));
        worst = std::fmax(worst, check_operator(ts::transposed(w), s.m));
        if (s.k > 200) worst = std::fmax(worst, check_operator<ts::bf16, ts::bf16>(ts::linear{owner.view(), ts::as_bf16{}}, s.m));
    }
    MESSAGE(name << ": worst error / tolerance " << worst);
}

TEST_CASE("vectors: tables that are data") {
    check_vectors<random_tables<4, ts::per_tensor, ts::fp16, ts::scaled_by<ts::fp16, ts::group<32>>>>("4 bits, one table, scales of groups");
    check_vectors<random_tables<3, ts::per_channel>>("3 bits, a table a row");
    check_vectors<random_tables<7, ts::group<11>, float>>("7 bits, a table for 11 columns");
}
TEST_CASE("vectors: nested codes") {
    check_vectors<random_nested<3>>("3 of 8 planes");
    check_vectors<random_nested<8>>("8 of 8 planes");
}
TEST_CASE("vectors: points of grids, codebooks") {
    check_vectors<random_grid_codes<2, 8>>("HIGGS, 2 dimensions, 8 bits");
    check_vectors<random_grid_codes<4, 12>>("HIGGS, 4 dimensions, 12 bits");
    check_vectors<random_vectors<8, 6, 4>>("VPTQ, 8 rows, 6 + 4 bits");
    check_vectors<random_vectors<6, 7, 3, 12>>("VPTQ, 6 rows, 7 + 3 bits, outliers of 12");
}
TEST_CASE("vectors: pyramids") {
    report_device_law<random_pyramids<ts::pvq<32, 22, 3>>>("pvq<32, 22, 3>");
    report_device_law<random_pyramids<ts::pvq<16, 24>>>("pvq<16, 24>");
    report_device_law<random_pyramids<ts::pvq<32, 22, 3>>, ts::int8_per_token>("pvq<32, 22, 3>, int8_per_token");
    random_pyramids<ts::pvq<16, 24>> const owner{70, 200};
    check_operator(ts::transposed(ts::linear{owner.view()}), 9);
}

} // namespace
