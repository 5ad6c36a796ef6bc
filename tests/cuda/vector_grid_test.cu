// SPDX-License-Identifier: MIT
/// @file
/// Products of points of grids and of codebooks on a device: the operands of tests/unit/vector, forward and transposed.

#include "vector_support.hpp"

namespace {

using namespace tessera_test;

TEST_CASE("vectors: points of grids") {
    check_vectors<random_grid_codes<1, 4>>("HIGGS, 1 dimension, 4 bits");
    check_vectors<random_grid_codes<1, 11>>("HIGGS, 1 dimension, 11 bits");
    check_vectors<random_grid_codes<2, 8>>("HIGGS, 2 dimensions, 8 bits");
    check_vectors<random_grid_codes<2, 16>>("HIGGS, 2 dimensions, 16 bits");
    check_vectors<random_grid_codes<4, 4>>("HIGGS, 4 dimensions, 4 bits");
    check_vectors<random_grid_codes<4, 12>>("HIGGS, 4 dimensions, 12 bits");
    check_vectors<random_grid_codes<8, 8>>("HIGGS, 8 dimensions, 8 bits");
    check_vectors<random_grid_codes<8, 16>>("HIGGS, 8 dimensions, 16 bits");
}
TEST_CASE("vectors: codebooks") {
    check_vectors<random_vectors<8, 6, 4>>("VPTQ, 8 rows, 6 + 4 bits");
    check_vectors<random_vectors<6, 7, 3, 12>>("VPTQ, 6 rows, 7 + 3 bits, outliers of 12");
    check_vectors<random_vectors<1, 5, 0, 32>>("VPTQ, 1 row, 5 bits, outliers of 32");
    check_vectors<random_vectors<16, 12, 9, 1>>("VPTQ, 16 rows, 12 + 9 bits, outliers of 1");
}
TEST_CASE("vectors: codebooks of columns in their order, without scales") {
    for (auto const& [outliers, group] : {std::pair<index_t, index_t>{0, 320}, {64, 256}, {0, 64}, {0, 100}, {320, 320}}) {
        CAPTURE(outliers);
        CAPTURE(group);
        ts::vector_codebooks_shape shape{77, {}};
        shape.part[0] = {outliers, 320, 4, 5, 0};
        shape.part[1] = {320 - outliers, group, 8, 9, 5};
        ts::vector_codebooks_tensor owner{shape};
        ts::philox const random{5};
        std::uint64_t at = 0;
        for (int p = 0; p < 2; ++p) {
            for (index_t i = 0; i < shape.part[p].centroid_count(); ++i) owner.centroids(p)[i] = ts::fp16{random.normal(at++)};
            for (index_t i = 0; i < shape.part[p].residual_count(); ++i) owner.residuals(p)[i] = ts::fp16{0.1f * random.normal(at++)};
        }
        auto const view = owner.view();
        for (index_t k = 0; k < 320; ++k) {
            auto const place = view.place(k);
            auto const& s = shape.part[place.part];
            for (index_t i = 0; i < s.vectors(77); ++i) owner.set_code(place, i, random.bits(at++) & ((1u << (s.index_bits + s.residual_bits)) - 1u));
        }
        ts::vector_codebooks const whole{shape, view.part(0), view.part(1), {}};
        check_operator(ts::linear{whole}, 9);
        check_operator(ts::transposed(ts::linear{whole}), 9);
        check_operator<ts::bf16, ts::bf16>(ts::linear{whole, ts::as_bf16{}}, 3);
        check_operator<ts::bf16, ts::bf16>(ts::linear{whole, ts::as_bf16{}}, 70);
    }
}
TEST_CASE("vectors: what is placed takes the bytes of its codes") {
    random_grid_codes<2, 8> const grid{512, 1024};
    CHECK(ts::place(device{}, ts::linear{grid.view()}).bytes() == 512 * 1024 / 2 + 512 * 16 * 2 + 256 * 2 * 4);
    random_nested<3> const nested{512, 1024};
    CHECK(ts::place(device{}, ts::linear{nested.view()}).bytes() == 512 * 1024 / 2 + 512 * 8 * 2); // 3 bits in 4
    random_vectors<8, 8, 8> const vectors{512, 1024};
    CHECK(ts::place(device{}, ts::linear{vectors.view()}).bytes() < 512 * 1024 / 2); // 16 bits for 8 rows, and small codebooks
}

} // namespace
