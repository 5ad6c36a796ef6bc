// SPDX-License-Identifier: MIT
// Block formats with ternary codes and with tables of values: decode is bit-exact with ggml and gguf-py (tests/data/gguf),
// encode too where ggml's definition is a rule, else within the errors that ggml allows itself (its test-quantize-fns).

#include <doctest/doctest.h>

#include <tessera/storage/code_source.hpp>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

namespace ts = tessera;

namespace {

std::vector<char> read_data(std::string const& name) {
    std::string const path = std::string{TESSERA_TEST_DATA} + "/gguf/" + name;
    std::FILE* const f = std::fopen(path.c_str(), "rb");
    REQUIRE_MESSAGE(f != nullptr, path);
    std::vector<char> bytes(1 << 20);
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), f));
    std::fclose(f);
    return bytes;
}

/// The two arrays of a file: blocks and values, in the order `Blocks` first or last.
template <class F>
struct vectors {
    std::vector<typename F::block> blocks;
    std::vector<float> values;
    vectors(std::string const& kind) {
        auto const bytes = read_data(std::string{F::name} + "_" + kind + ".bin");
        std::uint32_t count = 0;
        std::memcpy(&count, bytes.data(), sizeof count);
        blocks.resize(count);
        values.resize(count * F::block_size);
        std::size_t const sizes[] = {blocks.size() * sizeof blocks[0], values.size() * sizeof(float)};
        REQUIRE(bytes.size() == sizeof count + sizes[0] + sizes[1]);
        bool const values_first = kind == "encode";
        std::memcpy(static_cast<void*>(blocks.data()), bytes.data() + sizeof count + (values_first ? sizes[1] : 0), sizes[0]);
        std::memcpy(values.data(), bytes.data() + sizeof count + (values_first ? 0 : sizes[0]), sizes[1]);
    }
};

/// ggml's test-quantize-fns: root of the sum of squares, over n, for 4096 values 0.1 + 2 cos(i).
template <class F>
double total_error() {
    std::vector<float> x(4096), y(4096);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 0.1f + 2 * std::cos(static_cast<float>(i));
    std::vector<typename F::block> blocks(x.size() / F::block_size);
    ts::encode_row<F>(x.data(), 4096, blocks.data());
    ts::decode_row<F>(blocks.data(), 4096, y.data());
    double sum = 0;
    for (std::size_t i = 0; i < x.size(); ++i) sum += (double{x[i]} - y[i]) * (double{x[i]} - y[i]);
    return std::sqrt(sum) / 4096;
}

template <class F>
void check_parts(typename F::block const& b) {
    using source = ts::code_source<ts::blocked<F>>;
    ts::blocked<F> const w{&b, 1, F::block_size};
    for (int i = 0; i < F::block_size; ++i) {
        std::uint32_t const code = source::code(w, 0, i);
        REQUIRE(code < 1u << F::code_bits);
        REQUIRE(source::scale(w, 0, i) * source::value(code) == F::decode(b, i));
        using placed = typename source::scale_type;
        if constexpr (ts::two_level_format<F>)
            REQUIRE(static_cast<int>(static_cast<placed>(source::sub_scale(w, 0, i))) == source::sub_scale(w, 0, i));
        else
            REQUIRE(static_cast<float>(static_cast<placed>(source::scale(w, 0, i))) == source::scale(w, 0, i));
    }
}

} // namespace

TEST_CASE_TEMPLATE("decode is bit-exact with ggml", F, ts::q1_0, ts::q2_0, ts::tq1_0, ts::tq2_0, ts::iq4_nl, ts::iq4_xs, ts::gguf_mxfp4,
                   ts::gguf_nvfp4) {
    vectors<F> const t{"blocks"};
    std::vector<float> y(t.values.size());
    ts::decode_row<F>(t.blocks.data(), static_cast<ts::index_t>(y.size()), y.data());
    int different = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
        different += std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(t.values[i]);
    CHECK(different == 0);
    for (auto const& b : t.blocks) check_parts<F>(b); // as kernels see them
}

TEST_CASE_TEMPLATE("encode is bit-exact with ggml", F, ts::q1_0, ts::q2_0, ts::tq1_0, ts::tq2_0, ts::gguf_mxfp4, ts::gguf_nvfp4) {
    vectors<F> const t{"encode"};
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
    vectors<ts::iq4_xs> const t{"blocks"};
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
    using limits = std::numeric_limits<float>;
    constexpr int share = std::is_same_v<F, ts::gguf_nvfp4> ? 16 : F::block_size; // what one NaN spoils
    float x[F::block_size];
    typename F::block b{};
    for (float const bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()})
        for (int const at : {0, 17, F::block_size - 1}) {
            for (int i = 0; i < F::block_size; ++i) x[i] = static_cast<float>(i - 16);
            x[at] = bad;
            F::encode(x, b);
            for (int i = 0; i < F::block_size; ++i) REQUIRE(std::isnan(F::decode(b, i)) == (i / share == at / share));
        }
    for (float const a : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f, -0.0f})
        for (float const c : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f, -0.0f}) {
            for (int i = 0; i < F::block_size; ++i) x[i] = i % 3 == 0 ? a : c;
            F::encode(x, b);
            if (std::fabs(a) < 1 && std::fabs(c) < 1)
                for (int i = 0; i < F::block_size; ++i) REQUIRE(std::fabs(F::decode(b, i)) <= limits::denorm_min());
        }
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
