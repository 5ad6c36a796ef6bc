// SPDX-License-Identifier: MIT
/// @file
/// What `place` for CUDA devices packs of look-ups and vector codes, read on the host by the layout's own words: every element is the storage's.

#include "cases/vector_operands.hpp"

#include <tessera/storage/device_codebooks.hpp>
#include <tessera/storage/device_table.hpp>

#include <doctest/doctest.h>

#include <cstring>
#include <utility>

namespace {

using namespace tessera_test;

template <class Storage>
void check_layout(Storage const& w) {
    using panels = ts::prepacked<ts::device_panel, Storage>;
    panels const shape{nullptr, w};
    ts::buffer<std::byte> data{shape.bytes()};
    for (std::byte& b : data) b = std::byte{0};
    for (index_t t = shape.tiles(); t-- > 0;) ts::detail::pack_device_tile(w, shape, t, data.data());
    panels const there = shape.at(data.data());
    CHECK(there.rows() == w.rows());
    CHECK(there.cols() == w.cols());
    ts::matrix<float> const expected = decoded(w);
    index_t wrong = 0;
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t k = 0; k < w.cols(); ++k) {
            float v = there.value(n, k);
            if constexpr (panels::format::has_scales) v *= static_cast<float>(there.scales()[there.scale_of(n, k)]);
            wrong += std::memcmp(&v, &expected(n, k), sizeof v) != 0;
            wrong += there.column(there.position(k)) != k;
        }
    CHECK(wrong == 0);
}

template <class Make>
void check_layouts() {
    for (auto const& [n, k] : {std::pair<index_t, index_t>{3, 5}, {0, 7}, {5, 0}, {1, 1}, {17, 31}, {15, 33}, {7, 65}, {66, 300}, {270, 1030}}) {
        CAPTURE(n);
        CAPTURE(k);
        Make const owner{n, k};
        check_layout(owner.view());
    }
}

TEST_CASE("tables and nested codes") {
    check_layouts<random_tables<4, ts::per_tensor, ts::fp16, ts::scaled_by<ts::fp16, ts::group<32>>>>();
    check_layouts<random_tables<2, ts::per_tensor, float, ts::scaled_by<float, ts::per_channel>>>();
    check_layouts<random_tables<8, ts::per_tensor>>();
    check_layouts<random_tables<3, ts::per_channel>>();
    check_layouts<random_tables<1, ts::per_channel, float, ts::scaled_by<ts::fp16, ts::group<24>>>>();
    check_layouts<random_tables<7, ts::group<11>, float>>();
    check_layouts<random_tables<4, ts::group<128>>>();
    check_layouts<random_nested<3>>();
    check_layouts<random_nested<8>>();
}
TEST_CASE("points of grids") {
    check_layouts<random_grid_codes<1, 4>>();
    check_layouts<random_grid_codes<1, 11>>();
    check_layouts<random_grid_codes<2, 8>>();
    check_layouts<random_grid_codes<2, 16>>();
    check_layouts<random_grid_codes<4, 4>>();
    check_layouts<random_grid_codes<4, 12>>();
    check_layouts<random_grid_codes<8, 8>>();
    check_layouts<random_grid_codes<8, 16>>();
}
TEST_CASE("codebooks") {
    check_layouts<random_vectors<8, 6, 4>>();
    check_layouts<random_vectors<6, 7, 3, 12>>();
    check_layouts<random_vectors<1, 5, 0, 32>>();
    check_layouts<random_vectors<16, 12, 9, 1>>();
}
TEST_CASE("more rows of vector codes than kernels count are refused") {
    ts::vector_codebooks_shape shape{index_t{1} << 24, {}};
    ts::vector_codebooks const w{shape, {}, {}, {}};
    using panels = ts::prepacked<ts::device_panel, ts::vector_codebooks>;
    CHECK_THROWS_WITH_AS(panels(nullptr, w), "tessera: place: rows of vector codes is 16777216, expected 0 to 16777215", ts::shape_error);
}

} // namespace
