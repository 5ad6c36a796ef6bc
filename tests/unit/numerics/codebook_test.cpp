// SPDX-License-Identifier: MIT
// Codebooks: nearest value, ties, order of the table, options; NF4's rule "number of midpoints below x".

#include <tessera/numerics/codebook.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

namespace ts = tessera;

namespace {

/// Signed magnitudes, so neither ascending nor free of duplicates.
struct unordered_table {
    static constexpr char const* name = "unordered";
    static constexpr float values[8] = {0.0f, 0.5f, 1.0f, 4.0f, -0.0f, -0.5f, -1.0f, -4.0f};
};
using unordered = ts::codebook<unordered_table>;

std::uint32_t midpoints_below(double x) {
    std::uint32_t count = 0;
    for (std::uint32_t i = 0; i + 1 < 16; ++i)
        count +=
            (static_cast<double>(ts::nf4::decode(i)) + static_cast<double>(ts::nf4::decode(i + 1))) / 2 < x ? 1 : 0;
    return count;
}

template <class F>
void nearest_everywhere(float limit) {
    for (int i = -4000; i <= 4000; ++i) {
        float const x = limit * static_cast<float>(i) / 3900.0f;
        auto const code = F::encode(x);
        double const error = std::abs(static_cast<double>(F::decode(code)) - static_cast<double>(x));
        for (std::uint32_t other = 0; other < 1u << F::bits; ++other) {
            double const alternative = std::abs(static_cast<double>(F::decode(other)) - static_cast<double>(x));
            bool const right = error < alternative || (error == alternative && code <= other);
            CHECK_MESSAGE(right, x, " as ", code, ", not ", other);
        }
    }
}

} // namespace

TEST_CASE("nf4") {
    static_assert(ts::nf4::bits == 4 && ts::nf4::max_magnitude == 1.0f && !ts::nf4::is_integer);
    static_assert(ts::nf4::encode(0.1f) == 8);
    CHECK(std::string{ts::nf4::name} == "nf4");
    // QLoRA's table, as bitsandbytes prints it.
    double const published[16] = {-1, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
                                  -0.18477343022823334, -0.09105003625154495, 0, 0.07958029955625534, 0.16093020141124725,
                                  0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
                                  0.7229568362236023, 1};
    for (std::uint32_t code = 0; code < 16; ++code) {
        CHECK(static_cast<double>(ts::nf4::decode(code)) == published[code]);
        CHECK(ts::nf4::encode(ts::nf4::decode(code)) == code);
    }
    nearest_everywhere<ts::nf4>(1.0f);
    for (std::uint32_t i = 0; i + 1 < 16; ++i) {
        auto const middle = static_cast<float>(
            (static_cast<double>(ts::nf4::decode(i)) + static_cast<double>(ts::nf4::decode(i + 1))) / 2);
        for (float x : {std::nextafter(middle, -2.0f), middle, std::nextafter(middle, 2.0f)})
            CHECK(ts::nf4::encode(x) == midpoints_below(x));
    }
}

TEST_CASE("a codebook in any order") {
    nearest_everywhere<unordered>(4.5f);
    CHECK(std::string{unordered::name} == "unordered");
    CHECK(unordered::bits == 3);
    CHECK(unordered::max_magnitude == 4.0f);
    CHECK(unordered::encode(0.0f) == 0);
    CHECK(unordered::encode(-0.0f) == 0);
}

TEST_CASE("options") {
    CHECK(unordered::encode(0.75f) == 1); // a tie: the lower code
    CHECK(unordered::encode(-0.75f) == 5);
    CHECK(unordered::encode(0.75f, ts::rounding::half_away) == 2);
    CHECK(unordered::encode(-0.75f, ts::rounding::half_away) == 6);
    CHECK(unordered::encode(3.9f, ts::rounding::toward_zero) == 2);
    CHECK(unordered::encode(-3.9f, ts::rounding::toward_zero) == 6);
    CHECK(unordered::encode(1.75f, ts::rounding::stochastic, ts::overflow::saturate, 0xc0000000u) == 3);
    CHECK(unordered::encode(1.75f, ts::rounding::stochastic, ts::overflow::saturate, 0xbfffffffu) == 2);
    float const infinity = std::numeric_limits<float>::infinity();
    CHECK(unordered::encode(infinity) == 3);
    CHECK(unordered::encode(-infinity, ts::rounding::stochastic, ts::overflow::nan) == 7);
    CHECK(unordered::encode(std::numeric_limits<float>::quiet_NaN()) == 0);
    CHECK(ts::nf4::encode(std::numeric_limits<float>::quiet_NaN()) == 7);
}
