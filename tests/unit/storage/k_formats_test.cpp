// SPDX-License-Identifier: MIT
// Block formats of 256 weights: decode is bit-exact with gguf-py (tests/data/gguf), encode rounds to nearest.

#include <doctest/doctest.h>

#include <tessera/core/philox.hpp>
#include <tessera/storage/blocked.hpp>

#include <bit>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

static_assert(ts::two_level_format<ts::q2_k> && ts::two_level_format<ts::q3_k> && ts::two_level_format<ts::q4_k> &&
              ts::two_level_format<ts::q5_k> && ts::two_level_format<ts::q6_k>);
static_assert(ts::block_format<ts::q8_k> && !ts::two_level_format<ts::q8_k>);

std::vector<char> read_data(std::string const& name) {
    std::string const path = std::string{TESSERA_TEST_DATA} + "/gguf/" + name;
    std::FILE* const f = std::fopen(path.c_str(), "rb");
    REQUIRE_MESSAGE(f != nullptr, path);
    std::vector<char> bytes(1 << 20);
    bytes.resize(std::fread(bytes.data(), 1, bytes.size(), f));
    std::fclose(f);
    return bytes;
}

/// Normal data of magnitudes from 2^-20 to 2^11; groups of one sign, constant groups, zeros, an outlier.
std::vector<float> test_values(std::size_t blocks) {
    std::vector<float> x(256 * blocks);
    ts::philox const random{5};
    for (std::size_t i = 0; i < x.size(); ++i) {
        std::size_t const b = i / 256;
        std::size_t const g = i / 16;
        x[i] = random.normal(i) * std::exp2(static_cast<float>(b % 32) - 20);
        if (b % 5 == 1) x[i] = std::fabs(x[i]) * (b % 2 == 0 ? 1.0f : -1.0f);
        if (g % 11 == 3) x[i] = x[16 * g];
        if (g % 13 == 4) x[i] = 0;
        if (i % 997 == 0) x[i] *= 300;
    }
    return x;
}

} // namespace

TEST_CASE_TEMPLATE("decode is bit-exact with gguf-py", F, ts::q2_k, ts::q3_k, ts::q4_k, ts::q5_k, ts::q6_k) {
    using block = typename F::block;
    auto const bytes = read_data(std::string{F::name} + "_blocks.bin");
    std::uint32_t count = 0;
    std::memcpy(&count, bytes.data(), sizeof count);
    REQUIRE(bytes.size() == sizeof count + count * (sizeof(block) + 1024));
    std::vector<block> blocks(count);
    std::memcpy(static_cast<void*>(blocks.data()), bytes.data() + sizeof count, count * sizeof(block));
    std::vector<float> expected(256 * count);
    std::memcpy(expected.data(), bytes.data() + sizeof count + count * sizeof(block), expected.size() * sizeof(float));
    std::vector<float> y(expected.size());
    ts::decode_row<F>(blocks.data(), static_cast<ts::index_t>(y.size()), y.data());
    int different = 0;
    for (std::size_t i = 0; i < y.size(); ++i)
        different += std::bit_cast<std::uint32_t>(y[i]) != std::bit_cast<std::uint32_t>(expected[i]);
    CHECK(different == 0);

    // the parts say the same as the whole, and what they write they read
    for (block const& b : blocks) {
        block copy{};
        copy.scale = b.scale;
        if constexpr (F::has_minimum) copy.minimum = b.minimum;
        for (int g = 0; g < 256 / F::group_size; ++g) F::set_sub(copy, g, F::sub_scale(b, g), F::sub_minimum(b, g));
        for (int i = 0; i < 256; ++i) {
            F::set_code(copy, i, F::code(b, i));
            different += F::decode(b, i) != F::scale(b, i / F::group_size) * static_cast<float>(F::code(b, i)) +
                                                F::minimum(b, i / F::group_size);
        }
        different += std::memcmp(&copy, &b, sizeof b) != 0;
    }
    CHECK(different == 0);
}

TEST_CASE_TEMPLATE("encode rounds to nearest", F, ts::q2_k, ts::q3_k, ts::q4_k, ts::q5_k, ts::q6_k) {
    auto const x = test_values(96);
    std::vector<typename F::block> blocks(96);
    ts::encode_row<F>(x.data(), static_cast<ts::index_t>(x.size()), blocks.data());
    constexpr float max_code = F::min_code + (1 << F::code_bits) - 1;
    for (std::size_t b = 0; b < blocks.size(); ++b)
        for (int g = 0; g < 256 / F::group_size; ++g) {
            float const* const group = &x[256 * b + static_cast<std::size_t>(g * F::group_size)];
            float const step = F::scale(blocks[b], g);
            float const ends[] = {step * F::min_code + F::minimum(blocks[b], g), step * max_code + F::minimum(blocks[b], g)};
            float low = 0, high = 0, extreme = 0;
            for (int i = 0; i < F::group_size; ++i) {
                // Between the ends of the codes half a step; beyond them the distance. Then three roundings to float32.
                float const v = group[i];
                float const beyond = std::fmax(v - std::fmax(ends[0], ends[1]), std::fmin(ends[0], ends[1]) - v);
                float const limit = std::fmax(std::fabs(step) / 2, beyond) + 3 * 0x1p-23f * std::fabs(v);
                REQUIRE(std::fabs(F::decode(blocks[b], g * F::group_size + i) - v) <= limit);
                low = std::fmin(low, v);
                high = std::fmax(high, v);
                if (std::fabs(v) > std::fabs(extreme)) extreme = v;
            }
            // The scale that the range asks for, but for rounding: to half a sub-scale, to a whole one where the largest has
            // the other sign, and of the super scale to fp16.
            float const wanted = F::has_minimum ? (high - low) / max_code : extreme / F::min_code;
            float const unit = std::fabs(F::super_scale(blocks[b]));
            if (unit >= 0x1p-14f) REQUIRE(std::fabs(step - wanted) <= unit * (F::has_minimum ? 0.5f : 1.0f) + std::fabs(wanted) * 0x1p-10f);
        }
}

TEST_CASE("q8_k: the error of one round trip is half a step, and sums are sums") {
    auto const x = test_values(8);
    std::vector<ts::q8_k::block> blocks(8);
    ts::encode_row<ts::q8_k>(x.data(), static_cast<ts::index_t>(x.size()), blocks.data());
    for (std::size_t b = 0; b < blocks.size(); ++b) {
        int sum = 0;
        for (int i = 0; i < 256; ++i) {
            float const v = x[256 * b + static_cast<std::size_t>(i)];
            REQUIRE(std::fabs(ts::q8_k::decode(blocks[b], i) - v) <= std::fabs(blocks[b].scale) * 0.5f + 3 * 0x1p-23f * std::fabs(v));
            sum += blocks[b].codes[i];
            if (i % 16 == 15) {
                REQUIRE(blocks[b].sums[i / 16] == sum);
                sum = 0;
            }
        }
    }
}

TEST_CASE_TEMPLATE("a block with a NaN or an infinity decodes to NaN; extreme blocks are defined", F, ts::q2_k, ts::q3_k, ts::q4_k,
                   ts::q5_k, ts::q6_k, ts::q8_k) {
    using limits = std::numeric_limits<float>;
    float x[256];
    typename F::block b{};
    for (float const bad : {limits::quiet_NaN(), limits::infinity(), -limits::infinity()})
        for (int const at : {0, 17, 255}) {
            for (int i = 0; i < 256; ++i) x[i] = static_cast<float>(i - 128);
            x[at] = bad;
            F::encode(x, b);
            for (int i = 0; i < 256; ++i) REQUIRE(std::isnan(F::decode(b, i)));
        }
    for (float const a : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f})
        for (float const c : {limits::max(), -limits::max(), limits::denorm_min(), 0.0f}) {
            for (int i = 0; i < 256; ++i) x[i] = i % 3 == 0 ? a : c;
            F::encode(x, b);
            if (a < 1 && a >= 0 && c < 1 && c >= 0)
                for (int i = 0; i < 256; ++i) REQUIRE(std::fabs(F::decode(b, i)) <= limits::denorm_min());
        }
}
