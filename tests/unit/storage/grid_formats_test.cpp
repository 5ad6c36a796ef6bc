// SPDX-License-Identifier: MIT
// Block formats with grids: decode is bit-exact with ggml and gguf-py (tests/data/gguf), encode within the errors that ggml allows
// itself (its test-quantize-fns); of the formats that it does not judge more bits have less error.

#include "gguf_vectors.hpp"

using namespace tessera_test;

TEST_CASE_TEMPLATE("decode is bit-exact with ggml", F, ts::iq1_s, ts::iq1_m, ts::iq2_xxs, ts::iq2_xs, ts::iq2_s, ts::iq3_xxs,
                   ts::iq3_s) {
    gguf_vectors<F> const t{"blocks"};
    CHECK(t.different_values() == 0);
    for (auto const& b : t.blocks) check_parts<F>(b); // as kernels see them
}

TEST_CASE_TEMPLATE("fields are read as they are written", F, ts::iq1_s, ts::iq1_m, ts::iq2_xxs, ts::iq2_xs, ts::iq2_s, ts::iq3_xxs,
                   ts::iq3_s) {
    gguf_vectors<F> const t{"blocks"};
    for (auto const& b : t.blocks) {
        typename F::block copy{};
        F::set_super(copy, ts::fp16{F::super_scale(b)});
        constexpr int width = F::level_bits == 3 ? 4 : 8;
        for (int g = 0; g < 256 / F::group_size; ++g) F::set_sub(copy, g, F::sub(b, g));
        for (int v = 0; v < 256 / width; ++v) F::set_entry(copy, v, F::entry(b, v));
        for (int v = 0; v < 32; ++v) F::set_signs(copy, v, F::signs(b, v));
        REQUIRE(std::memcmp(&copy, &b, sizeof b) == 0);
    }
}

TEST_CASE("encode: the errors that ggml allows itself") {
    double const iq2_s = total_error<ts::iq2_s>();
    double const iq2_xs = total_error<ts::iq2_xs>();
    double const iq2_xxs = total_error<ts::iq2_xxs>();
    double const iq1_m = total_error<ts::iq1_m>();
    CHECK(iq2_s <= 0.0075);
    CHECK(total_error<ts::iq3_xxs>() <= 0.005);
    CHECK(total_error<ts::iq3_s>() <= 0.004);
    CHECK(iq2_s < iq2_xs);
    CHECK(iq2_xs < iq2_xxs);
    CHECK(iq2_xxs < iq1_m);
    CHECK(iq1_m < total_error<ts::iq1_s>());
}

TEST_CASE_TEMPLATE("a block with a NaN or an infinity decodes to NaN; extreme blocks are defined", F, ts::iq1_m, ts::iq2_xxs, ts::iq3_s) {
    check_extremes<F, 256>();
}
