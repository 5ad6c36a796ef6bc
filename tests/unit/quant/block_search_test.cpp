// SPDX-License-Identifier: MIT
// encode_row_least_error: on every kind of block no worse than encode_row, and on normal numbers better than ggml's own encoders.

#include <doctest/doctest.h>

#include <tessera/core/philox.hpp>
#include <tessera/quant/block_search.hpp>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <numbers>
#include <string_view>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

static_assert(ts::searched_block_format<ts::q2_k> && ts::searched_block_format<ts::q3_k> && ts::searched_block_format<ts::q4_k> &&
              ts::searched_block_format<ts::q5_k> && ts::searched_block_format<ts::q6_k>);
static_assert(ts::searched_block_format<ts::iq1_s> && ts::searched_block_format<ts::iq1_m> && ts::searched_block_format<ts::iq2_xxs> &&
              ts::searched_block_format<ts::iq2_xs> && ts::searched_block_format<ts::iq2_s> && ts::searched_block_format<ts::iq3_xxs> &&
              ts::searched_block_format<ts::iq3_s>);
static_assert(!ts::searched_block_format<ts::q8_k> && !ts::searched_block_format<ts::q4_0>);

std::vector<float> normal_numbers(std::size_t count, float scale = 1, float shift = 0) {
    std::vector<float> x(count);
    ts::philox const random{5};
    for (std::size_t i = 0; i < count; ++i) x[i] = shift + scale * random.normal(i);
    return x;
}

template <class Format>
std::vector<typename Format::block> searched(std::vector<float> const& x) {
    std::vector<typename Format::block> blocks(x.size() / 256);
    ts::encode_row_least_error<Format>(x.data(), static_cast<index_t>(x.size()), blocks.data());
    return blocks;
}

/// Squared error of one block.
template <class Format>
double error_of(float const* x, typename Format::block const& b) {
    double sum = 0;
    for (int i = 0; i < 256; ++i) {
        double const d = static_cast<double>(x[i]) - static_cast<double>(Format::decode(b, i));
        sum += d * d;
    }
    return sum;
}

template <class Format>
void check_no_worse(std::vector<float> const& x) {
    auto const found = searched<Format>(x);
    for (std::size_t b = 0; b < found.size(); ++b) {
        typename Format::block plain;
        Format::encode(x.data() + 256 * b, plain);
        CHECK(error_of<Format>(x.data() + 256 * b, found[b]) <= error_of<Format>(x.data() + 256 * b, plain));
    }
}

/// The mean squared error on normal numbers, by Box and Muller: philox::normal has no tails.
template <class Format>
double normal_error(std::size_t count) {
    std::vector<float> x(count);
    ts::philox const random{5};
    for (std::size_t i = 0; i < x.size(); ++i) {
        double const radius = std::sqrt(-2 * std::log(1 - static_cast<double>(random.uniform(2 * i))));
        x[i] = static_cast<float>(radius * std::cos(2 * std::numbers::pi * static_cast<double>(random.uniform(2 * i + 1))));
    }
    auto const blocks = searched<Format>(x);
    double sum = 0;
    for (std::size_t b = 0; b < blocks.size(); ++b) sum += error_of<Format>(x.data() + 256 * b, blocks[b]);
    return sum / static_cast<double>(count);
}

} // namespace

TEST_CASE("less error than ggml's encoders leave") {
    // ggml 0.25.3 with an importance of ones (without one it leaves more), as many numbers: tests/data/gguf/ggml_gauss.py.
    CHECK(normal_error<ts::q2_k>(262144) < 7.18084e-02);
    CHECK(normal_error<ts::q3_k>(262144) < 2.08890e-02);
    CHECK(normal_error<ts::q4_k>(262144) < 5.01099e-03);
    CHECK(normal_error<ts::q5_k>(262144) < 1.24651e-03);
    CHECK(normal_error<ts::q6_k>(262144) < 2.99377e-04);
    // Standard errors of 8192 numbers are 2 % at most; what is left is 4 to 15 % less.
    CHECK(normal_error<ts::iq3_s>(8192) < 0.97 * .01870);
    CHECK(normal_error<ts::iq3_xxs>(8192) < .03287);
    CHECK(normal_error<ts::iq2_s>(8192) < 0.98 * .06183);
    CHECK(normal_error<ts::iq2_xs>(8192) < 0.97 * .08944);
    CHECK(normal_error<ts::iq2_xxs>(8192) < 0.97 * .11765);
    CHECK(normal_error<ts::iq1_m>(4096) < 0.92 * .2030);
    CHECK(normal_error<ts::iq1_s>(4096) < 0.92 * .2351);
}

TEST_CASE_TEMPLATE("never worse than encode_row", Format, ts::q2_k, ts::q3_k, ts::q4_k, ts::q5_k, ts::q6_k, ts::iq3_s, ts::iq3_xxs, ts::iq2_s,
                   ts::iq2_xs, ts::iq2_xxs, ts::iq1_m, ts::iq1_s) {
    for (float const scale : {1.0f, 1e-3f, 300.0f, 1e-7f, 1e-30f, 1e-42f, 1e4f}) {
        CAPTURE(scale);
        check_no_worse<Format>(normal_numbers(512, scale));
        check_no_worse<Format>(normal_numbers(512, scale, 4 * scale));  // of one sign
        check_no_worse<Format>(normal_numbers(512, scale, -4 * scale));
    }
    auto x = normal_numbers(1024);
    x[7] = 1000;                                                        // outliers
    x[300] = -1000;
    for (std::size_t i = 512; i < 640; ++i) x[i] = 0;                   // groups of zeros
    for (std::size_t i = 640; i < 768; ++i) x[i] = -0.25f;              // constant groups
    for (std::size_t i = 768; i < 1024; ++i) x[i] = i % 32 == 5 ? x[i] : 0.0f; // one number a group
    check_no_worse<Format>(x);
    // Beyond fp16's scales: what encode_row writes.
    auto const large = normal_numbers(256, 1e30f);
    auto const found = searched<Format>(large);
    typename Format::block plain;
    Format::encode(large.data(), plain);
    CHECK(std::memcmp(&found[0], &plain, sizeof plain) == 0);
}

TEST_CASE_TEMPLATE("what a block can hold exactly, zeros, and what is not finite", Format, ts::q2_k, ts::q3_k, ts::q4_k, ts::q5_k, ts::q6_k, ts::iq3_s,
                   ts::iq3_xxs, ts::iq2_s, ts::iq2_xs, ts::iq2_xxs, ts::iq1_m, ts::iq1_s) {
    auto const of_zeros = searched<Format>(std::vector<float>(256));
    for (int i = 0; i < 256; ++i) CHECK(Format::decode(of_zeros[0], i) == 0.0f);
    for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
        auto x = normal_numbers(512);
        x[300] = bad;
        auto const blocks = searched<Format>(x);
        CHECK(error_of<Format>(x.data(), blocks[0]) < 256);
        for (int i = 0; i < 256; ++i) CHECK(std::isnan(Format::decode(blocks[1], i)));
    }
    if constexpr (std::string_view{Format::name}.front() == 'q') { // what was decoded is found again, but for roundings of the scales
        auto const first = searched<Format>(normal_numbers(256));
        std::vector<float> decoded(256);
        ts::decode_row<Format>(first.data(), 256, decoded.data());
        auto const second = searched<Format>(decoded);
        CHECK(error_of<Format>(decoded.data(), second[0]) <= 0.05 * error_of<Format>(normal_numbers(256).data(), first[0]));
    }
    // Again the same bytes, and nothing for no numbers.
    auto const x = normal_numbers(256);
    auto const first = searched<Format>(x);
    auto const again = searched<Format>(x);
    CHECK(std::memcmp(first.data(), again.data(), sizeof first[0]) == 0);
    ts::encode_row_least_error<Format>(nullptr, 0, nullptr);
    typename Format::block out;
    CHECK_THROWS_WITH_AS(ts::encode_row_least_error<Format>(x.data(), 255, &out),
                         "tessera: encode_row_least_error: k is 255, expected a multiple of 256", ts::shape_error);
}
