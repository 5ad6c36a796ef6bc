// SPDX-License-Identifier: MIT
// Block formats with ternary codes and with tables of values: decode is bit-exact with ggml and gguf-py (tests/data/gguf),
// encode too where ggml's definition is a rule, else within the errors that ggml allows itself (its test-quantize-fns).

#include "gguf_vectors.hpp"

#include <type_traits>

using namespace tessera_test;

TEST_CASE_TEMPLATE("decode is bit-exact with ggml", F, ts::q1_0, ts::q2_0, ts::tq1_0, ts::tq2_0, ts::iq4_nl, ts::iq4_xs, ts::gguf_mxfp4,
                   ts::gguf_nvfp4) {
    gguf_vectors<F> const t{"blocks"};
    CHECK(t.different_values() == 0);
    for (auto const& b : t.blocks) check_parts<F>(b); // as kernels see them
}

TEST_CASE_TEMPLATE("encode is bit-exact with ggml", F, ts::q1_0, ts::q2_0, ts::tq1_0, ts::tq2_0, ts::gguf_mxfp4, ts::gguf_nvfp4) {
    gguf_vectors<F> const t{"encode"};
    std::vector<typename F::block> out(t.blocks.size());
    ts::encode_row<F>(t.values.data(), static_cast<ts::index_t>(t.values.size()), out.data());
    int different = 0;
    for (std::size_t i = 0; i < out.size(); ++i) different += std::memcmp(&out[i], &t.blocks[i], sizeof out[i]) != 0;
    CHECK(different == 0);
}

TEST_CASE("encode: the errors that ggml allows itself") {
    CHECK(total_error<ts::q1_0>() <= 0.025);
    CHECK(total_error<ts::q2_0>() <= 0.01);
    CHECK(total_error<ts::tq1_0>() <= 0.01);
    CHECK(total_error<ts::tq2_0>() <= 0.01);
    CHECK(total_error<ts::iq4_nl>() <= 0.002);
    CHECK(total_error<ts::iq4_xs>() <= 0.002);
    CHECK(total_error<ts::gguf_mxfp4>() <= 0.002);
    CHECK(total_error<ts::gguf_nvfp4>() <= 0.003);
}

TEST_CASE_TEMPLATE("iq4: what was decoded is encoded again", F, ts::iq4_nl, ts::iq4_xs) {
    // Values on the grid: every code, scales of both signs; the end of the table is there, so the fit is exact.
    using block = typename F::block;
    float x[F::block_size];
    float y[F::block_size];
    for (float const scale : {0.5f, -0.25f}) {
        block b{};
        for (int i = 0; i < F::block_size; ++i) x[i] = scale * F::value(i % 32 < 16 ? i % 16 : (i * 7 + 3) % 16);
        F::encode(x, b);
        for (int i = 0; i < F::block_size; ++i) y[i] = F::decode(b, i);
        CHECK(std::memcmp(x, y, sizeof x) == 0);
    }
}

TEST_CASE("iq4_xs: fields are read as they are written") {
    gguf_vectors<ts::iq4_xs> const t{"blocks"};
    for (auto const& b : t.blocks) {
        ts::iq4_xs::block copy{};
        copy.scale = b.scale;
        for (int g = 0; g < 8; ++g) ts::iq4_xs::set_sub(copy, g, ts::iq4_xs::sub_scale(b, g), 0);
        for (int i = 0; i < 256; ++i) ts::iq4_xs::set_code(copy, i, ts::iq4_xs::code(b, i));
        REQUIRE(std::memcmp(&copy, &b, sizeof b) == 0);
    }
}

TEST_CASE_TEMPLATE("a group with a NaN or an infinity decodes to NaN; extreme blocks are defined", F, ts::q1_0, ts::q2_0, ts::tq1_0,
                   ts::tq2_0, ts::iq4_nl, ts::iq4_xs, ts::gguf_mxfp4, ts::gguf_nvfp4) {
    check_extremes<F, std::is_same_v<F, ts::gguf_nvfp4> ? 16 : F::block_size>();
}

TEST_CASE("NaN scales of mxfp4 and nvfp4, and MXFP4's rounding") {
    ts::gguf_mxfp4::block m{255, {}};
    CHECK(std::isnan(ts::gguf_mxfp4::decode(m, 0)));
    ts::gguf_nvfp4::block n{{0x7f, 0x38, 0xb8, 0}, {1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2}};
    CHECK(std::isnan(ts::gguf_nvfp4::decode(n, 0)));
    CHECK(ts::gguf_nvfp4::decode(n, 16) == 1.0f);
    CHECK(ts::gguf_nvfp4::decode(n, 32) == 1.0f); // the sign bit is none

    // OCP's shared exponent; ties go to the code that comes first (OCP: to even; 3.5 would be 4)
    float x[32] = {6, 5, 2.5f, 0.25f, 3.5f, 7.999f, -3.5f, -5};
    ts::gguf_mxfp4::encode(x, m);
    CHECK(m.exponent == 127);
    float const expected[] = {6, 4, 2, 0, 3, 6, -3, -4};
    for (int i = 0; i < 8; ++i) CHECK(ts::gguf_mxfp4::decode(m, i) == expected[i]);
    x[0] = 0x1p-140f;
    for (int i = 1; i < 32; ++i) x[i] = 0;
    ts::gguf_mxfp4::encode(x, m);
    CHECK(m.exponent == 0);
    CHECK(ts::gguf_mxfp4::decode(m, 0) == 0.0f);
}
