// SPDX-License-Identifier: MIT
// One law of bad input for every block format of GGUF: NaN and infinities, blocks of zeros, subnormal and largest weights, rows
// without blocks; and that blocks do not concern each other, and powers of two pass through. A format is a line.

#include <tessera/core/philox.hpp>
#include <tessera/storage/blocked.hpp>
#include <tessera/storage/grid_formats.hpp>
#include <tessera/storage/k_formats.hpp>
#include <tessera/storage/table_formats.hpp>
#include <tessera/storage/ternary_formats.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

/// A format without its type.
struct format_case {
    std::string name;
    index_t block;
    index_t alone; ///< consecutive weights that a NaN spreads to
    std::function<std::vector<float>(std::vector<float> const&)> decoded;
};

template <class Format>
format_case of(index_t alone = Format::block_size) {
    return {Format::name, Format::block_size, alone, [](std::vector<float> const& w) {
                auto const k = static_cast<index_t>(w.size());
                std::vector<typename Format::block> blocks(static_cast<std::size_t>(k / Format::block_size));
                ts::encode_row<Format>(w.data(), k, blocks.data());
                std::vector<float> out;
                for (index_t i = 0; i < k; ++i)
                    out.push_back(Format::decode(blocks[static_cast<std::size_t>(i / Format::block_size)], static_cast<int>(i % Format::block_size)));
                return out;
            }};
}

std::vector<format_case> formats() {
    return {of<ts::q4_0>(),    of<ts::q4_1>(),   of<ts::q5_0>(),  of<ts::q5_1>(),    of<ts::q8_0>(),       of<ts::q2_k>(),        of<ts::q3_k>(),
            of<ts::q4_k>(),    of<ts::q5_k>(),   of<ts::q6_k>(),  of<ts::q8_k>(),    of<ts::q1_0>(),       of<ts::q2_0>(),        of<ts::tq1_0>(),
            of<ts::tq2_0>(),   of<ts::iq4_nl>(), of<ts::iq4_xs>(), of<ts::gguf_mxfp4>(), of<ts::gguf_nvfp4>(16), of<ts::iq1_s>(),   of<ts::iq1_m>(),
            of<ts::iq2_xxs>(), of<ts::iq2_xs>(), of<ts::iq2_s>(), of<ts::iq3_xxs>(), of<ts::iq3_s>()};
}

std::vector<float> numbers(index_t count, std::uint64_t seed) {
    std::vector<float> w(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) w[static_cast<std::size_t>(i)] = 4 * ts::philox{seed}.normal(static_cast<std::uint64_t>(i));
    return w;
}

bool same(float a, float b) { return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b); }

} // namespace

TEST_CASE("rows of no blocks; blocks of zeros are zeros, beside others too") {
    for (auto const& f : formats()) {
        CAPTURE(f.name);
        CHECK(f.decoded({}).empty());
        auto w = numbers(3 * f.block, 1);
        auto const all = f.decoded(w);
        for (index_t i = f.block; i < 2 * f.block; ++i) w[static_cast<std::size_t>(i)] = 0;
        auto const back = f.decoded(w);
        index_t wrong = 0;
        for (std::size_t i = 0; i < back.size(); ++i) {
            bool const is_zero = static_cast<index_t>(i) / f.block == 1;
            wrong += is_zero ? !(std::fabs(back[i]) <= 0x1p-120f) : !same(back[i], all[i]);
            wrong += !std::isfinite(all[i]);
        }
        CHECK(wrong == 0);
    }
}

TEST_CASE("a NaN or an infinity makes its block NaN, and no other") {
    for (auto const& f : formats())
        for (float const bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()})
            for (index_t const at : {index_t{0}, f.block + 7, 3 * f.block - 1}) {
                CAPTURE(f.name);
                auto w = numbers(3 * f.block, 2);
                auto const good = f.decoded(w);
                w[static_cast<std::size_t>(at)] = bad;
                auto const back = f.decoded(w);
                index_t wrong = 0;
                for (index_t i = 0; i < 3 * f.block; ++i) {
                    auto const j = static_cast<std::size_t>(i);
                    wrong += i / f.alone == at / f.alone ? !std::isnan(back[j]) : !same(back[j], good[j]);
                }
                CHECK(wrong == 0);
            }
}

TEST_CASE("weights of every magnitude") {
    for (auto const& f : formats()) {
        CAPTURE(f.name);
        for (int exponent = -149; exponent <= 127; ++exponent) {
            float const unit = std::ldexp(1.0f, exponent);
            float const top = exponent == 127 ? std::numeric_limits<float>::max() : 1.75f * unit;
            auto w = std::vector<float>(static_cast<std::size_t>(f.block), 0.0f);
            float const some[] = {top, -top, 0.25f * unit, 0, -0.75f * unit, unit};
            for (std::size_t i = 0; i < w.size(); ++i) w[i] = some[i % 6];
            index_t wrong = 0;
            double extreme = 0;
            for (float const v : f.decoded(w)) {
                // Scales in fp16 end at 65504 (as in ggml: block_formats.hpp), and what they are of is then no number.
                wrong += exponent <= 13 && !std::isfinite(v);
                wrong += std::isfinite(v) && static_cast<double>(std::fabs(v)) > 2.1 * static_cast<double>(top) + 0x1p-20;
                extreme = std::fmax(extreme, static_cast<double>(std::fabs(v)));
            }
            CAPTURE(exponent);
            CHECK(wrong == 0);
            if (exponent >= -8 && exponent <= 10) { // within fp16's and e4m3's normal numbers
                CHECK(extreme <= 2 * static_cast<double>(top));
                CHECK(extreme >= 0.25 * static_cast<double>(top));
            }
        }
    }
}

TEST_CASE("powers of two pass through") {
    for (auto const& f : formats()) {
        CAPTURE(f.name);
        auto w = numbers(3 * f.block, 3);
        auto const one = f.decoded(w);
        for (float& x : w) x *= 16;
        auto const more = f.decoded(w);
        index_t wrong = 0;
        for (std::size_t i = 0; i < one.size(); ++i) wrong += !same(more[i], 16 * one[i]);
        CHECK(wrong == 0);
    }
}
