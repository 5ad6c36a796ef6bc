// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <tessera/core/philox.hpp>

#include <cmath>
#include <set>

namespace ts = tessera;

// Known answers of Random123 1.14 (tests/kat_vectors, philox4x32 with 10 rounds).
static_assert(ts::philox::block({0, 0, 0, 0}, {0, 0}) ==
              ts::philox::counter_type{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(ts::philox::block({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}) ==
              ts::philox::counter_type{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(ts::philox::block({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
              ts::philox::counter_type{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

TEST_CASE("bits are the blocks of (counter, stream) under the seed, in order") {
    std::uint64_t const seed = 0x0123456789abcdef;
    std::uint64_t const stream = 0xfedcba9876543210;
    ts::philox const random{seed, stream};
    for (std::uint64_t const i : {std::uint64_t{0}, std::uint64_t{5}, std::uint64_t{1000003}, std::uint64_t{1} << 40}) {
        std::uint64_t const block = i / 4;
        auto const expected = ts::philox::block({static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
                                                 0x76543210, 0xfedcba98},
                                                {0x89abcdef, 0x01234567});
        CHECK(random.bits(i) == expected[i % 4]);
    }
}

TEST_CASE("seeds and streams give different numbers") {
    std::set<std::uint32_t> seen;
    for (std::uint64_t seed = 0; seed < 10; ++seed)
        for (std::uint64_t stream = 0; stream < 10; ++stream)
            for (std::uint64_t i = 0; i < 10; ++i) seen.insert(ts::philox{seed, stream}.bits(i));
    CHECK(seen.size() == 1000);
}

TEST_CASE("uniform lies in [0, 1), normal has mean 0 and variance 1") {
    constexpr int n = 200000;
    double sum = 0;
    double normal_sum = 0;
    double squares = 0;
    bool is_inside = true;
    ts::philox const random{11};
    for (std::uint64_t i = 0; i < n; ++i) {
        double const v = static_cast<double>(random.uniform(i));
        is_inside = is_inside && v >= 0 && v < 1;
        sum += v;
        double const g = static_cast<double>(random.normal(i));
        is_inside = is_inside && std::abs(g) <= 6;
        normal_sum += g;
        squares += g * g;
    }
    CHECK(is_inside);
    // Six standard deviations of each mean.
    CHECK(std::abs(sum / n - 0.5) <= 6 * std::sqrt(1.0 / 12 / n));
    CHECK(std::abs(normal_sum / n) <= 6 / std::sqrt(double{n}));
    CHECK(std::abs(squares / n - 1) <= 6 * std::sqrt(2.0 / n)); // Irwin-Hall has a smaller fourth moment than the normal
}
