// SPDX-License-Identifier: MIT
// The laws of every minifloat: each E and M with E + M + 1 <= 8, each set of special codes, other biases.

#include "format_laws.hpp"

#include <tessera/numerics/float_format.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

#include <cstring>
#include <string>
#include <type_traits>

namespace ts = tessera;
using tessera_test::card_value;
using tessera_test::erase_format;
using tessera_test::format_laws;

namespace {

template <int E, int M, ts::specials S, int Bias = ts::default_bias(E, S)>
void check(long& conversions) {
    if constexpr ((S != ts::specials::ieee || M >= 1) && (S != ts::specials::nan_only || E + M >= 2)) {
        format_laws laws{erase_format<ts::minifloat<E, M, S, Bias>>()};
        laws.run();
        conversions += laws.checked;
    }
}

template <int E, int M>
void check_fields(long& conversions) {
    check<E, M, ts::specials::ieee>(conversions);
    check<E, M, ts::specials::nan_only>(conversions);
    check<E, M, ts::specials::unsigned_zero>(conversions);
    check<E, M, ts::specials::finite>(conversions);
    if constexpr (M > 0) check_fields<E, M - 1>(conversions);
}

} // namespace

TEST_CASE("every minifloat of at most eight bits equals arithmetic in double") {
    long conversions = 0;
    check_fields<1, 6>(conversions);
    check_fields<2, 5>(conversions);
    check_fields<3, 4>(conversions);
    check_fields<4, 3>(conversions);
    check_fields<5, 2>(conversions);
    check_fields<6, 1>(conversions);
    check_fields<7, 0>(conversions);
    CHECK(conversions > 0);
}

TEST_CASE("biases that reach float32's subnormals and its largest binade") {
    long conversions = 0;
    check<4, 3, ts::specials::unsigned_zero, 11>(conversions);
    check<4, 3, ts::specials::ieee, 140>(conversions);
    check<3, 2, ts::specials::finite, 147>(conversions);
    check<4, 3, ts::specials::finite, -112>(conversions);
    check<2, 1, ts::specials::finite, -5>(conversions);
    CHECK(conversions > 0);
}

TEST_CASE("cards") {
    CHECK(ts::e4m3fn::card.max_finite == 448.0f);
    CHECK(ts::e4m3fn::card.smallest_normal == 0x1p-6f);
    CHECK(ts::e4m3fn::card.smallest_subnormal == 0x1p-9f);
    CHECK(ts::e5m2::card.max_finite == 57344.0f);
    CHECK(ts::e4m3::card.max_finite == 240.0f);
    CHECK(ts::e3m4::card.max_finite == 15.5f);
    CHECK(ts::e5m2fnuz::card.smallest_subnormal == 0x1p-17f);
    CHECK(ts::e4m3fnuz::card.max_finite == 240.0f);
    CHECK(ts::e4m3b11fnuz::card.max_finite == 30.0f);
    CHECK(ts::e3m2::max_magnitude == 28.0f);
    CHECK(ts::e2m3::max_magnitude == 7.5f);
    CHECK(ts::e2m1::max_magnitude == 6.0f);
    CHECK(ts::e8m0::max_magnitude == 0x1p127f);
    CHECK(ts::minifloat<1, 3>::card.smallest_normal == 0.0f);
    CHECK(std::string{ts::e4m3b11fnuz::name} == "e4m3b11fnuz");
    CHECK(std::string{ts::e4m3fn::name} == "e4m3fn");
    CHECK(std::string{ts::e4m3::name} == "e4m3");
    CHECK(std::string{ts::e2m1::name} == "e2m1");
    CHECK(std::string{ts::minifloat<2, 1>::name} == "e2m1i");
    CHECK(std::string{ts::minifloat<4, 3, ts::specials::finite, -112>::name} == "e4m3bn112f");
}

TEST_CASE("values are bytes, and conversions are constant expressions") {
    static_assert(sizeof(ts::e4m3fn) == 1 && std::is_trivial_v<ts::e4m3fn> && std::is_trivial_v<ts::e8m0>);
    static_assert(ts::e4m3fn{448.0f}.to_bits() == 0x7e && ts::e4m3fn{464.0f}.to_bits() == 0x7e);
    static_assert(ts::e4m3fn{465.0f}.to_bits() == 0x7f);
    static_assert(ts::e4m3fn::encode(1e9f, ts::rounding::nearest_even, ts::overflow::saturate) == 0x7e);
    static_assert(static_cast<float>(ts::e5m2::from_bits(0x3c)) == 1.0f);
    static_assert(ts::e2m1{-2.4}.to_bits() == 0xc);
    static_assert(ts::e8m0{3.0f}.to_bits() == 129 && ts::e8m0{0.0f}.to_bits() == 255);
    CHECK(ts::e4m3fn{1.5f} == ts::e4m3fn{1.5});
    CHECK(ts::e4m3fn{1.0f} < ts::e4m3fn{1.5f});
    CHECK_FALSE(ts::e4m3fn::from_bits(0x7f) == ts::e4m3fn::from_bits(0x7f));
    CHECK(ts::e5m2{-0.0f} == ts::e5m2{0.0f});
}

TEST_CASE("double is rounded once") {
    // 1 + 1/16 + 2^-40 lies above the middle of e4m3's 1 and 1.125; as a float it would be the tie, which goes down.
    CHECK(static_cast<float>(ts::e4m3fn{1.0625 + 0x1p-40}) == 1.125f);
    CHECK(static_cast<float>(ts::e4m3fn{static_cast<float>(1.0625 + 0x1p-40)}) == 1.0f);
}

TEST_CASE("stochastic rounding is right on average") {
    // 1.03125 is a quarter of the way from 1 to 1.125: exactly a quarter of all equidistant draws go up.
    int up = 0;
    for (std::uint32_t i = 0; i < 4096; ++i)
        up += ts::e4m3fn::encode(1.03125f, ts::rounding::stochastic, ts::overflow::nan, i << 20) == 0x39 ? 1 : 0;
    CHECK(up == 1024);
}

TEST_CASE("e8m0") {
    for (std::uint32_t code = 0; code < 255; ++code) {
        float const value = ts::e8m0::decode(code);
        CHECK(static_cast<double>(value) == std::ldexp(1.0, static_cast<int>(code) - 127));
        for (auto mode :
             {ts::rounding::nearest_even, ts::rounding::half_away, ts::rounding::toward_zero, ts::rounding::stochastic})
            CHECK(ts::e8m0::encode(value, mode) == code);
        if (code < 254) {
            CHECK(ts::e8m0::encode(value * 1.5f) == code + 1);
            CHECK(ts::e8m0::encode(value * 1.5f, ts::rounding::half_away) == code + 1);
            float const below = std::nextafter(value * 1.5f, 0.0f);
            CHECK(ts::e8m0::encode(below) == (code == 0 ? 1 : code)); // the subnormal binade of ml_dtypes
            CHECK(ts::e8m0::encode(below, ts::rounding::half_away) == code);
            CHECK(ts::e8m0::encode(value * 1.875f, ts::rounding::toward_zero) == code);
            CHECK(ts::e8m0::encode(value * 1.25f, ts::rounding::stochastic, ts::overflow::nan, 0xc0000000u) ==
                  code + 1);
            CHECK(ts::e8m0::encode(value * 1.25f, ts::rounding::stochastic, ts::overflow::nan, 0xbfffffffu) == code);
        }
    }
    CHECK(std::isnan(ts::e8m0::decode(255)));
    CHECK(ts::e8m0::encode(3e38f) == 255);
    CHECK(ts::e8m0::encode(3e38f, ts::rounding::nearest_even, ts::overflow::saturate) == 254);
    CHECK(ts::e8m0::encode(-1.0f) == 255);
    CHECK(ts::e8m0::encode(std::numeric_limits<double>::quiet_NaN()) == 255);
    CHECK(ts::e8m0::encode(1e-300) == 0);
    CHECK(ts::e8m0{1.0f} < ts::e8m0{2.0f});
    CHECK_FALSE(ts::e8m0::from_bits(255) == ts::e8m0::from_bits(255));
}
