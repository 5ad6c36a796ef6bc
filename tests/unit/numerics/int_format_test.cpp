// SPDX-License-Identifier: MIT
// int2 to int8 and uint1 to uint8: every code, every rounding at every quarter step, saturation.

#include <tessera/numerics/int_format.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

namespace ts = tessera;

namespace {

double rounded(double x, ts::rounding mode, std::uint32_t random) {
    double const magnitude = std::abs(x);
    double const low = std::floor(magnitude);
    double const fraction = magnitude - low;
    bool up = false;
    switch (mode) {
    case ts::rounding::nearest_even: up = fraction > 0.5 || (fraction == 0.5 && std::fmod(low, 2.0) == 1.0); break;
    case ts::rounding::half_away: up = fraction >= 0.5; break;
    case ts::rounding::toward_zero: break;
    case ts::rounding::stochastic: up = std::floor(fraction * 0x1p32) + random >= 0x1p32; break;
    }
    return std::copysign(low + (up ? 1 : 0), x);
}

template <class F>
void check(char const* name) {
    CAPTURE(name);
    CHECK(std::string{F::name} == name);
    static_assert(ts::element_format<F> && sizeof(F) == 1 && F::max_value - F::min_value + 1 == 1 << F::bits);
    for (int value = F::min_value; value <= F::max_value; ++value) {
        auto const code = static_cast<std::uint32_t>(value) & ((1u << F::bits) - 1);
        CHECK(F::decode(code) == static_cast<float>(value));
        CHECK(F::integer(code | 0xff00u) == value);
        CHECK(F{static_cast<float>(value)}.to_bits() == code);
        CHECK(static_cast<int>(F::from_bits(static_cast<std::uint8_t>(code))) == value);
    }
    long wrong = 0;
    for (double x = F::min_value - 3.0; x <= F::max_value + 3.0; x += 0.125) {
        for (double nudge : {0.0, 0x1p-30, -0x1p-30}) {
            for (auto mode : {ts::rounding::nearest_even, ts::rounding::half_away, ts::rounding::toward_zero,
                              ts::rounding::stochastic}) {
                for (std::uint32_t random : {0u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
                    double const y = x + nudge;
                    double const expected = std::clamp<double>(rounded(y, mode, random), F::min_value, F::max_value);
                    wrong += F::decode(F::encode(y, mode, ts::overflow::saturate, random)) == expected ? 0 : 1;
                    if (nudge == 0.0)
                        wrong += F::encode(static_cast<float>(y), mode, ts::overflow::nan, random) ==
                                         F::encode(y, mode, ts::overflow::saturate, random)
                                     ? 0
                                     : 1;
                }
            }
        }
    }
    CHECK(wrong == 0);
    float const infinity = std::numeric_limits<float>::infinity();
    CHECK(F::decode(F::encode(infinity)) == static_cast<float>(F::max_value));
    CHECK(F::decode(F::encode(-infinity)) == static_cast<float>(F::min_value));
    CHECK(F::decode(F::encode(3e38f)) == static_cast<float>(F::max_value));
    CHECK(F::decode(F::encode(-1e300)) == static_cast<float>(F::min_value));
    CHECK(F::decode(F::encode(1e-45f)) == 0.0f);
    CHECK(F::encode(std::numeric_limits<float>::quiet_NaN()) == 0);
}

} // namespace

TEST_CASE("signed integers") {
    check<ts::int2>("int2");
    check<ts::int3>("int3");
    check<ts::int4>("int4");
    check<ts::int5>("int5");
    check<ts::int6>("int6");
    check<ts::int7>("int7");
    check<ts::int8>("int8");
    CHECK(ts::int4::max_magnitude == 8.0f);
}

TEST_CASE("unsigned integers") {
    check<ts::uint1>("uint1");
    check<ts::uint2>("uint2");
    check<ts::uint3>("uint3");
    check<ts::uint4>("uint4");
    check<ts::uint5>("uint5");
    check<ts::uint6>("uint6");
    check<ts::uint7>("uint7");
    check<ts::uint8>("uint8");
    CHECK(ts::uint8::max_magnitude == 255.0f);
}
