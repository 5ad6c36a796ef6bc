// SPDX-License-Identifier: MIT
// Block formats: decode and encode are bit-exact with gguf-py (tests/data/gguf), plus the card's other sentences.

#include <doctest/doctest.h>

#include <tessera/storage/blocked.hpp>

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

static_assert(ts::block_format<ts::q4_0> && ts::block_format<ts::q4_1> && ts::block_format<ts::q5_0> &&
              ts::block_format<ts::q5_1> && ts::block_format<ts::q8_0>);
static_assert(!ts::two_level_format<ts::q4_0>);
static_assert(!ts::block_format<ts::fp16>);
static_assert(std::is_trivially_copyable_v<ts::blocked<ts::q4_1>>);

std::vector<char> read_data(std::string const& name) {
    std::string const path = std::string{TESSERA_TEST_DATA} + "/gguf/" + name;
    std::FILE* const f = std::fopen(path.c_str(), "rb");
    REQUIRE_MESSAGE(f != nullptr, path);
    std::vector<char> bytes(1 << 20);
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), f));
    std::fclose(f);
    return bytes;
}

/// `count`, then that many A, then that many B.
template <class A, class B>
struct table {
    std::vector<A> a;
    std::vector<B> b;
    table(std::string const& name, std::size_t a_each, std::size_t b_each) {
        auto const bytes = read_data(name);
        std::uint32_t count = 0;
        REQUIRE(bytes.size() > sizeof(count));
        std::memcpy(&count, bytes.data(), sizeof(count));
        a.resize(count * a_each);
        b.resize(count * b_each);
        REQUIRE(bytes.size() == sizeof(count) + a.size() * sizeof(A) + b.size() * sizeof(B));
        std::memcpy(static_cast<void*>(a.data()), bytes.data() + sizeof(count), a.size() * sizeof(A));
        std::memcpy(static_cast<void*>(b.data()), bytes.data() + sizeof(count) + a.size() * sizeof(A),
                    b.size() * sizeof(B));
    }
};

} // namespace

TEST_CASE_TEMPLATE("decode is bit-exact with gguf-py", F, ts::q4_0, ts::q4_1, ts::q5_0, ts::q5_1, ts::q8_0) {
    using block = typename F::block;
    table<block, float> const t{std::string{F::name} + "_blocks.bin", 1, 32};
    std::vector<float> y(t.b.size());
    ts::decode_row<F>(t.a.data(), static_cast<ts::index_t>(y.size()), y.data());
    int different = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
        different += std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(t.b[i]);
    CHECK(different == 0);

    // the parts say the same as the whole
    for (std::size_t b = 0; b < t.a.size(); ++b)
        for (int i = 0; i < 32; ++i)
            different += F::decode(t.a[b], i) !=
                         F::scale(t.a[b]) * static_cast<float>(F::code(t.a[b], i)) + F::minimum(t.a[b]);
    CHECK(different == 0);
}

TEST_CASE_TEMPLATE("encode is bit-exact with gguf-py", F, ts::q4_0, ts::q4_1, ts::q5_0, ts::q5_1, ts::q8_0) {
    using block = typename F::block;
    table<float, block> const t{std::string{F::name} + "_encode.bin", 32, 1};
    std::vector<block> out(t.b.size());
    ts::encode_row<F>(t.a.data(), static_cast<ts::index_t>(t.a.size()), out.data());
    int different = 0;
    for (std::size_t i = 0; i < out.size(); ++i) different += std::memcmp(&out[i], &t.b[i], sizeof(block)) != 0;
    CHECK(different == 0);
}

TEST_CASE_TEMPLATE("the error of one round trip is at most a step", F, ts::q4_0, ts::q4_1, ts::q5_0, ts::q5_1, ts::q8_0) {
    using block = typename F::block;
    table<float, block> const t{std::string{F::name} + "_encode.bin", 32, 1};
    for (std::size_t b = 0; b < t.b.size(); ++b) {
        float low = t.a[32 * b];
        float high = low;
        float most = 0;
        for (std::size_t i = 0; i < 32; ++i) {
            low = std::fmin(low, t.a[32 * b + i]);
            high = std::fmax(high, t.a[32 * b + i]);
            most = std::fmax(most, std::fabs(t.a[32 * b + i]));
        }
        // Half a step, a whole one at the end that q4_0 and q5_0 have no code for; then what rounding scale and minimum to fp16
        // costs: half a unit in the last place, 2^-11 relative or 2^-25 absolute (subnormal), times the largest code;
        // then the handful of float32 roundings.
        constexpr bool lacks_end = std::is_same_v<F, ts::q4_0> || std::is_same_v<F, ts::q5_0>;
        constexpr int codes = std::is_same_v<F, ts::q8_0> ? 127 : lacks_end ? -F::min_code : (1 << F::code_bits) - 1;
        float const step = (F::has_minimum ? high - low : most) / static_cast<float>(codes);
        float const scale_error = std::fmax(step * 0x1p-11f, 0x1p-25f) * static_cast<float>(codes);
        float const minimum_error = F::has_minimum ? std::fmax(std::fabs(low) * 0x1p-11f, 0x1p-25f) : 0.0f;
        float const limit = step * (lacks_end ? 1.0f : 0.5f) + scale_error + minimum_error + 8 * most * 0x1p-24f;
        float worst = 0;
        for (int i = 0; i < 32; ++i)
            worst = std::fmax(worst, std::fabs(F::decode(t.b[b], i) - t.a[32 * b + static_cast<std::size_t>(i)]));
        REQUIRE_MESSAGE(worst <= limit, "block " << b);
    }
}

TEST_CASE_TEMPLATE("a block with a NaN or an infinity decodes to NaN", F, ts::q4_0, ts::q4_1, ts::q5_0, ts::q5_1, ts::q8_0) {
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                            -std::numeric_limits<float>::infinity()})
        for (int at = 0; at < 32; ++at) {
            float x[32];
            for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i - 16);
            x[at] = bad;
            typename F::block b{};
            F::encode(x, b);
            for (int i = 0; i < 32; ++i) REQUIRE(std::isnan(F::decode(b, i)));
        }
}

TEST_CASE_TEMPLATE("extreme finite blocks encode without undefined behaviour", F, ts::q4_0, ts::q4_1, ts::q5_0, ts::q5_1, ts::q8_0) {
    constexpr float most = std::numeric_limits<float>::max();
    constexpr float least = std::numeric_limits<float>::denorm_min();
    for (float const a : {most, -most, least, -least, 0.0f, -0.0f})
        for (float const c : {most, -most, least, -least, 0.0f, -0.0f}) {
            float x[32];
            for (int i = 0; i < 32; ++i) x[i] = i % 3 == 0 ? a : c;
            typename F::block b{};
            F::encode(x, b);
            bool const tiny = std::fabs(a) <= least && std::fabs(c) <= least;
            if (tiny)
                for (int i = 0; i < 32; ++i) REQUIRE(F::decode(b, i) == 0.0f);
        }
}

TEST_CASE("decode and encode are constant expressions") {
    constexpr auto code = [] {
        float x[32]{};
        for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i);
        ts::q4_1::block b{};
        ts::q4_1::encode(x, b);
        return ts::q4_1::code(b, 31);
    }();
    static_assert(code == 15);
}

TEST_CASE("blocked: shape, strides, slices") {
    constexpr int n = 5;
    constexpr int k = 96;
    std::vector<ts::q8_0::block> blocks(n * 4);
    for (std::size_t i = 0; i < blocks.size(); ++i) {
        blocks[i].scale = ts::fp16{1.0f};
        for (int j = 0; j < 32; ++j) blocks[i].codes[j] = static_cast<std::int8_t>(4 * static_cast<int>(i) + j % 4);
    }
    ts::blocked<ts::q8_0> const w{blocks.data(), n, k, 4}; // every fourth block is not part of it
    CHECK(w.rows() == n);
    CHECK(w.cols() == k);
    CHECK(w.blocks_per_row() == 3);
    CHECK(w.row_stride() == 4);
    CHECK(w.bytes() == n * 3 * 34);
    for (int i = 0; i < n; ++i)
        for (int j = 0; j < k; ++j) REQUIRE(w(i, j) == static_cast<float>(4 * (4 * i + j / 32) + j % 4));

    auto const part = ts::columns(ts::rows(w, 1, 4), 32, 96);
    CHECK(part.rows() == 3);
    CHECK(part.cols() == 64);
    for (int i = 0; i < 3; ++i)
        for (int j = 0; j < 64; ++j) REQUIRE(part(i, j) == w(i + 1, j + 32));

    CHECK(ts::rows(w, 5, 5).rows() == 0);
    CHECK(ts::columns(w, 96, 96).cols() == 0);
    CHECK(ts::blocked<ts::q8_0>{}.bytes() == 0);
    CHECK(ts::blocked<ts::q8_0>{nullptr, 0, 64}.rows() == 0);
    CHECK(ts::blocked<ts::q8_0>{nullptr, 7, 0}.cols() == 0);
}

TEST_CASE("blocked: wrong shapes are refused with both numbers") {
    using w = ts::blocked<ts::q4_0>;
    ts::q4_0::block b[4]{};
    CHECK_THROWS_WITH_AS(w(b, 1, 33), "tessera: blocked: columns is 33, expected a multiple of 32", ts::shape_error);
    CHECK_THROWS_AS(w(b, -1, 32), ts::shape_error);
    CHECK_THROWS_AS(w(b, 1, -32), ts::shape_error);
    CHECK_THROWS_AS(w(nullptr, 1, 32), ts::shape_error);
    CHECK_THROWS_AS(w(b, 2, 64, 1), ts::shape_error);
    CHECK_THROWS_AS(w(b, std::numeric_limits<ts::index_t>::max(), 64), ts::shape_error);
    w const good{b, 2, 64};
    CHECK_THROWS_AS(ts::rows(good, 0, 3), ts::shape_error);
    CHECK_THROWS_AS(ts::rows(good, 2, 1), ts::shape_error);
    CHECK_THROWS_AS(ts::columns(good, 16, 64), ts::shape_error);
    CHECK_THROWS_AS(ts::columns(good, 0, 65), ts::shape_error);
    float x[33]{};
    CHECK_THROWS_AS(ts::encode_row<ts::q4_0>(x, 33, b), ts::shape_error);
    CHECK_THROWS_AS(ts::decode_row<ts::q4_0>(b, 33, x), ts::shape_error);
}
