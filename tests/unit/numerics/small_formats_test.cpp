// SPDX-License-Identifier: MIT
// Formats of few bits that are neither minifloats nor two's complement: bipolar integers, fixed point and k-hot codes, power
// exponents; and the published grids and errors of minifloats.

#include <tessera/core/philox.hpp>
#include <tessera/numerics/bipolar.hpp>
#include <tessera/numerics/codebook.hpp>
#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/numerics/power_exponent.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

namespace ts = tessera;

namespace {

template <class F>
std::vector<float> positives() {
    std::vector<float> v;
    for (std::uint32_t code = 0; code < 1u << (F::bits - 1); ++code) v.push_back(F::decode(code));
    return v;
}

/// Mean squared error on N(0, 1) of cells [edges[i], edges[i + 1]) that become values[i]; exact integrals.
double gaussian_error(std::vector<double> const& edges, std::vector<double> const& values) {
    auto const density = [](double x) { return std::isinf(x) ? 0.0 : std::exp(-x * x / 2) / std::sqrt(2 * std::acos(-1.0)); };
    auto const below = [](double x) { return 0.5 * std::erfc(-x / std::sqrt(2.0)); };
    double sum = 0;
    for (std::size_t i = 0; i < values.size(); ++i) {
        double const a = edges[i];
        double const b = edges[i + 1];
        double const zeroth = below(b) - below(a);
        double const first = density(a) - density(b);
        double const second = zeroth + (std::isinf(a) ? 0 : a * density(a)) - (std::isinf(b) ? 0 : b * density(b));
        sum += second - 2 * values[i] * first + values[i] * values[i] * zeroth;
    }
    return sum;
}

/// That of the nearest of a format's values times a scale.
template <class F>
double gaussian_error(double scale) {
    std::vector<double> values;
    for (std::uint32_t code = 0; code < 1u << F::bits; ++code) values.push_back(scale * static_cast<double>(F::decode(code)));
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    std::vector<double> edges{-std::numeric_limits<double>::infinity()};
    for (std::size_t i = 1; i < values.size(); ++i) edges.push_back((values[i - 1] + values[i]) / 2);
    edges.push_back(std::numeric_limits<double>::infinity());
    return gaussian_error(edges, values);
}

/// That of power-exponent codes whose largest value is `most`.
double power_error(int bits, double exponent, double most) {
    int const last = (1 << (bits - 1)) - 1;
    std::vector<double> values;
    std::vector<double> edges{-std::numeric_limits<double>::infinity()};
    for (int q = -last; q <= last; ++q) {
        values.push_back(most * ts::power_decode(q, bits, exponent));
        double const edge = q + 0.5;
        edges.push_back(std::copysign(most * std::pow(std::fabs(edge) / last, 1 / exponent), edge));
    }
    edges.back() = std::numeric_limits<double>::infinity();
    return gaussian_error(edges, values);
}

} // namespace

TEST_CASE("grids of minifloats") {
    using ts::minifloat;
    using ts::specials;
    using grid = std::vector<float>;
    CHECK(positives<ts::e2m1>() == grid{0, .5f, 1, 1.5f, 2, 3, 4, 6});
    CHECK(positives<minifloat<3, 0, specials::finite>>() == grid{0, .25f, .5f, 1, 2, 4, 8, 16});
    CHECK(positives<minifloat<1, 2, specials::finite>>() == grid{0, .5f, 1, 1.5f, 2, 2.5f, 3, 3.5f});
    CHECK(positives<minifloat<1, 1, specials::finite>>() == grid{0, 1, 2, 3});
    CHECK(positives<minifloat<2, 2, specials::finite>>() ==
          grid{0, .25f, .5f, .75f, 1, 1.25f, 1.5f, 1.75f, 2, 2.5f, 3, 3.5f, 4, 5, 6, 7});
    CHECK(positives<minifloat<3, 1, specials::finite>>() ==
          grid{0, .125f, .25f, .375f, .5f, .75f, 1, 1.5f, 2, 3, 4, 6, 8, 12, 16, 24});
    CHECK(ts::e3m2::card.smallest_subnormal == 0.0625f);
    // Saturation comes after rounding: up to half a step above the largest is the largest anyway, and so is all above it.
    CHECK(ts::e2m1::encode(1e9f) == 7);
    CHECK(ts::e4m3fn::decode(ts::e4m3fn::encode(465.0f, ts::rounding::nearest_even, ts::overflow::saturate)) == 448.0f);
}

TEST_CASE("errors of minifloats on normal numbers, with the best scale") {
    CHECK(gaussian_error<ts::e2m1>(0.487079) == doctest::Approx(0.012684904).epsilon(1e-7));
    CHECK(gaussian_error<ts::minifloat<3, 0, ts::specials::finite>>(0.262101) == doctest::Approx(0.037744990).epsilon(1e-7));
    CHECK(gaussian_error<ts::nf4>(2.863063) == doctest::Approx(0.009899316).epsilon(1e-7));
    // Three values: the least error, and that of the mean magnitude.
    constexpr double inf = std::numeric_limits<double>::infinity();
    auto const ternary = [](double s) { return gaussian_error({-inf, -s / 2, s / 2, inf}, {-s, 0, s}); };
    CHECK(std::fabs(ternary(1.224006) - 0.190174) < 1e-6);
    CHECK(ternary(1.22) > ternary(1.224006));
    CHECK(ternary(1.23) > ternary(1.224006));
    CHECK(std::fabs(ternary(std::sqrt(2 / std::acos(-1.0))) - 0.263382) < 1e-6);
}

namespace {

/// Independent numbers of N(0, 1), by Box and Muller's transform.
std::vector<float> normal_numbers(std::size_t n) {
    ts::philox const random{11};
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; i += 2) {
        double const radius = std::sqrt(-2 * std::log((static_cast<double>(random.bits(i)) + 0.5) * 0x1p-32));
        double const angle = 2 * std::numbers::pi * (static_cast<double>(random.bits(i + 1)) + 0.5) * 0x1p-32;
        x[i] = static_cast<float>(radius * std::cos(angle));
        x[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
    return x;
}

/// Blocks whose largest magnitude becomes `most`: the mean squared error is the published one, which is right to 1 %, to 4
/// standard errors.
template <class F>
void check_blocks(std::vector<float> const& x, float most, std::vector<double> const& published) {
    CAPTURE(std::string{F::name});
    std::size_t const sizes[] = {16, 32, 64, 128, 256, 1024};
    for (std::size_t s = 0; s < 6; ++s) {
        CAPTURE(sizes[s]);
        double sum = 0, squares = 0;
        std::size_t const blocks = x.size() / sizes[s];
        for (std::size_t b = 0; b < blocks; ++b) {
            float const* const w = x.data() + b * sizes[s];
            float largest = 0;
            for (std::size_t i = 0; i < sizes[s]; ++i) largest = std::fmax(largest, std::fabs(w[i]));
            float const scale = largest / most;
            double error = 0;
            for (std::size_t i = 0; i < sizes[s]; ++i)
                error += std::pow(static_cast<double>(w[i]) - static_cast<double>(scale * F::decode(F::encode(w[i] / scale))), 2);
            error /= static_cast<double>(sizes[s]);
            sum += error;
            squares += error * error;
        }
        auto const n = static_cast<double>(blocks);
        double const mean = sum / n;
        double const standard_error = std::sqrt((squares / n - mean * mean) / n);
        CHECK(std::fabs(mean - published[s]) <= 0.01 * published[s] + 4 * standard_error);
    }
}

} // namespace

TEST_CASE("errors of blocks of normal numbers under their largest magnitude") {
    auto const x = normal_numbers(std::size_t{1} << 17);
    check_blocks<ts::nf4>(x, 1, {.00654, .00762, .00847, .00914, .00975, .0109});
    check_blocks<ts::e2m1>(x, 6, {.00887, .0102, .0112, .0119, .0124, .0132});
    check_blocks<ts::int4>(x, 7, {.00728, .00942, .0116, .0137, .0160, .0205});
    check_blocks<ts::minifloat<3, 0, ts::specials::finite>>(x, 16, {.0283, .0326, .0355, .0370, .0379, .0381});
}

namespace {

template <int B>
void check_bipolar() {
    using f = ts::bipolar<B>;
    CAPTURE(B);
    int const most = (1 << B) - 1;
    for (std::uint32_t code = 0; code < 1u << B; ++code) {
        float const value = f::decode(code);
        // Its planes; two's complement with the highest bit flipped.
        int sum = 0;
        for (int i = 0; i < B; ++i) sum += (1 << i) * (2 * static_cast<int>(code >> i & 1u) - 1);
        CHECK(value == static_cast<float>(sum));
        int const flipped = static_cast<int>(code ^ 1u << (B - 1));
        int const q = flipped >= 1 << (B - 1) ? flipped - (1 << B) : flipped;
        CHECK(value == static_cast<float>(2 * q + 1));
        for (auto mode : {ts::rounding::nearest_even, ts::rounding::half_away, ts::rounding::toward_zero, ts::rounding::stochastic})
            CHECK(f::encode(value, mode, ts::overflow::saturate, 0xffffffffu) == code);
    }
    for (double x = 0; x < most + 3; x += 0.03125) {
        CAPTURE(x);
        auto const nearest = static_cast<double>(f::decode(f::encode(x)));
        double const bound = std::max(1.0, x - most);
        CHECK(std::fabs(nearest - x) <= bound);
        CHECK(f::encode(-x) == (x == 0 ? f::encode(x) : ~f::encode(x) & ((1u << B) - 1u)));
        auto const cut = static_cast<double>(f::decode(f::encode(x, ts::rounding::toward_zero)));
        CHECK((cut <= x || cut == 1));
        CHECK(x - cut < std::max(2.0, x - most + 1));
    }
    CHECK(f::encode(std::numeric_limits<float>::quiet_NaN()) == f::encode(0.0f));
    CHECK(f::encode(-std::numeric_limits<float>::infinity()) == 0);
    CHECK(f::encode(1e-40f) == f::encode(0.5f));
}

} // namespace

TEST_CASE("bipolar integers: odd, symmetric, sums of signs") {
    CHECK(ts::int1::decode(0) == -1.0f);
    CHECK(ts::int1::decode(1) == 1.0f);
    CHECK(std::vector<float>{ts::bipolar<2>::decode(0), ts::bipolar<2>::decode(1), ts::bipolar<2>::decode(2),
                             ts::bipolar<2>::decode(3)} == std::vector<float>{-3, -1, 1, 3});
    check_bipolar<1>();
    check_bipolar<2>();
    check_bipolar<3>();
    check_bipolar<5>();
    check_bipolar<8>();
    using f = ts::bipolar<4>;
    CHECK(f::decode(f::encode(2.0f)) == 1.0f); // ties: every other one
    CHECK(f::decode(f::encode(4.0f)) == 5.0f);
    CHECK(f::decode(f::encode(2.0f, ts::rounding::half_away)) == 3.0f);
    CHECK(f::decode(f::encode(-2.0f, ts::rounding::half_away)) == -3.0f);
    // Unbiased: of 2^32 random numbers as many give 1 as x is nearer to it; 0.25 is five eighths of the way from -1.
    auto const up = [](float x, std::uint32_t random) {
        return f::decode(f::encode(x, ts::rounding::stochastic, ts::overflow::saturate, random)) > x;
    };
    CHECK(!up(0.25f, 0x5fffffffu));
    CHECK(up(0.25f, 0x60000000u));
    CHECK(!up(3.5f, 0xbfffffffu));
    CHECK(up(3.5f, 0xc0000000u));
}

TEST_CASE("products of bipolar integers by xor and by and") {
    for (auto const& [x_bits, w_bits] : {std::pair{2, 3}, {4, 4}, {8, 1}}) {
        int const k = 37; // of 64 bits: the ends are zeros in both
        std::uint64_t x_planes[8] = {};
        std::uint64_t w_planes[8] = {};
        long direct = 0;
        std::uint32_t state = 1;
        auto const next = [&] { return state = state * 1664525u + 1013904223u, state >> 16; };
        for (int i = 0; i < k; ++i) {
            std::uint32_t const x = next() & ((1u << x_bits) - 1u);
            std::uint32_t const w = next() & ((1u << w_bits) - 1u);
            for (int b = 0; b < 8; ++b) {
                x_planes[b] |= std::uint64_t{x >> b & 1u} << i;
                w_planes[b] |= std::uint64_t{w >> b & 1u} << i;
            }
            direct += static_cast<long>((2 * static_cast<int>(x) - (1 << x_bits) + 1) * (2 * static_cast<int>(w) - (1 << w_bits) + 1));
        }
        long by_xor = 0;
        long by_and = 0;
        for (int i = 0; i < x_bits; ++i)
            for (int j = 0; j < w_bits; ++j) {
                by_xor += (1L << (i + j)) * (k - 2 * std::popcount(x_planes[i] ^ w_planes[j]));
                by_and += (1L << (i + j)) * (4 * std::popcount(x_planes[i] & w_planes[j]) - 2 * std::popcount(x_planes[i]) -
                                             2 * std::popcount(w_planes[j]) + k);
            }
        CHECK(by_xor == direct);
        CHECK(by_and == direct);
    }
}

TEST_CASE("casts to fixed point, every rounding and overflow") {
    using ts::fixed_overflow;
    using ts::fixed_rounding;
    CHECK(ts::fixed_cast(200, 8, 0, fixed_rounding::half_even, fixed_overflow::wrap) == -56);
    CHECK(ts::fixed_cast(200, 8, 0) == 127);
    CHECK(ts::fixed_cast(-200, 8, 0) == -128);
    CHECK(ts::fixed_cast(-200, 8, 0, fixed_rounding::half_even, fixed_overflow::saturate_symmetric) == -127);
    CHECK(ts::fixed_cast(-200, 8, 0, fixed_rounding::half_even, fixed_overflow::wrap) == 56);
    CHECK(ts::fixed_cast(std::numeric_limits<double>::infinity(), 8, 3) == 127);
    CHECK(ts::fixed_cast(std::numeric_limits<double>::quiet_NaN(), 8, 3) == 0);
    CHECK(ts::fixed_cast(0x1p40 + 1, 8, 3, fixed_rounding::half_even, fixed_overflow::wrap) == 8);
    CHECK(ts::fixed_cast(0x1p300, 8, 3, fixed_rounding::half_even, fixed_overflow::wrap) == 0);
    CHECK(ts::fixed_value(-3, 2) == -0.75);
    struct known {
        fixed_rounding mode;
        int results[6];
    };
    double const inputs[6] = {2.5, -2.5, 1.5, -1.5, 1.75, -1.25};
    for (auto const& [mode, results] :
         {known{fixed_rounding::floor, {2, -3, 1, -2, 1, -2}}, known{fixed_rounding::toward_zero, {2, -2, 1, -1, 1, -1}},
          known{fixed_rounding::half_up, {3, -2, 2, -1, 2, -1}}, known{fixed_rounding::half_down, {2, -3, 1, -2, 2, -1}},
          known{fixed_rounding::half_toward_zero, {2, -2, 1, -1, 2, -1}}, known{fixed_rounding::half_away, {3, -3, 2, -2, 2, -1}},
          known{fixed_rounding::half_even, {2, -2, 2, -2, 2, -1}}})
        for (int i = 0; i < 6; ++i) {
            CAPTURE(inputs[i]);
            CAPTURE(static_cast<int>(mode));
            CHECK(ts::fixed_cast(inputs[i], 8, 0, mode) == results[i]);
            CHECK(ts::fixed_cast(std::ldexp(inputs[i], -4), 12, 4, mode) == results[i]);
        }
    CHECK(ts::fixed_cast(-1e-300, 8, 4, fixed_rounding::floor) == -1);
    CHECK(ts::fixed_cast(-1e-300, 8, 4, fixed_rounding::half_down) == 0);
    static_assert(ts::fixed_cast(0.40625, 8, 4) == 6); // 6.5: to even
}

TEST_CASE("fixed-point formats") {
    using f = ts::fixed_point<8, 6>;
    for (std::uint32_t code = 0; code < 256; ++code) {
        auto const q = static_cast<std::int8_t>(code);
        CHECK(f::decode(code) == static_cast<float>(q) / 64);
        CHECK(f::encode(f::decode(code)) == code);
        CHECK(f::encode(static_cast<double>(q) / 64) == code);
    }
    CHECK(f::encode(5.0f) == 127);
    CHECK(f::encode(-5.0f) == 128);
    CHECK(f::encode(1.5f / 64) == 2);
    CHECK(f::encode(2.5f / 64) == 2);
    CHECK(f::symmetric_magnitude == 1.984375f);
    CHECK(ts::fixed_point<4, -3>::decode(7) == 56.0f);
    CHECK(std::string{f::name} == "fixed8p06");
    CHECK(std::string{ts::fixed_point<4, -3>::name} == "fixed4n03");
}

TEST_CASE("k-hot codes: the nearest with so many ones") {
    CHECK(ts::k_hot(7, 2) == 8);
    CHECK(ts::k_hot(11, 2) == 12);
    CHECK(ts::k_hot(13, 2) == 12);
    CHECK(ts::k_hot(-7, 2) == -8);
    for (int ones = 1; ones <= 4; ++ones)
        for (int q = -300; q <= 300; ++q) {
            CAPTURE(q);
            CAPTURE(ones);
            auto const found = static_cast<int>(ts::k_hot(q, ones));
            int best = 10000;
            for (int c = -512; c <= 512; ++c)
                if (std::popcount(static_cast<unsigned>(std::abs(c))) <= ones) best = std::min(best, std::abs(c - q));
            CHECK(std::popcount(static_cast<unsigned>(std::abs(found))) <= ones);
            CHECK(std::abs(found - q) == best);
            int const other = 2 * q - found; // the same distance away
            if (std::popcount(static_cast<unsigned>(std::abs(other))) <= ones && other != found)
                CHECK(std::countr_zero(static_cast<unsigned>(std::abs(found))) > std::countr_zero(static_cast<unsigned>(std::abs(other))));
        }
    // As a format: one rounding, to the nearest value; ties as above, between whole numbers to even.
    using f = ts::k_hot_point<8, 4, 2>;
    for (double x = -9; x <= 9; x += 1.0 / 128) {
        auto const found = static_cast<double>(f::decode(f::encode(x)));
        double best = 100;
        for (int q = -128; q <= 96; ++q)
            if (std::popcount(static_cast<unsigned>(std::abs(q))) <= 2) best = std::min(best, std::fabs(q / 16.0 - x));
        CAPTURE(x);
        CHECK(std::fabs(found - x) == best);
        auto const cut = static_cast<double>(f::decode(f::encode(x, ts::rounding::toward_zero)));
        CHECK(std::fabs(cut) <= std::fabs(x));
    }
    CHECK(f::decode(f::encode(2.5f / 16)) == 2.0f / 16);
    CHECK(f::decode(f::encode(11.0f / 16)) == 12.0f / 16);
    CHECK(f::decode(f::encode(11.0f / 16, ts::rounding::stochastic, ts::overflow::saturate, 0x7fffffffu)) == 10.0f / 16);
    CHECK(f::decode(f::encode(11.0f / 16, ts::rounding::stochastic, ts::overflow::saturate, 0x80000000u)) == 12.0f / 16);
    CHECK(f::symmetric_magnitude == 6.0f); // 96 / 16
    CHECK(f::decode(f::encode(100.0f)) == 6.0f);
    CHECK(f::decode(f::encode(-100.0f)) == -8.0f);
    CHECK(f::decode(f::encode(7.0f / 16)) == 0.5f);
}

TEST_CASE("power exponents: codes, and published errors on normal numbers") {
    using half = ts::power_exponent<4, 1, 2>;
    for (int q = -7; q <= 7; ++q) {
        auto const code = static_cast<std::uint32_t>(q) & 15u;
        CHECK(half::decode(code) == static_cast<float>(q * std::abs(q) / 49.0));
        CHECK(half::encode(half::decode(code)) == code);
        CHECK(ts::power_encode(ts::power_decode(q, 4, 0.5), 4, 0.5) == q);
    }
    using seventh = ts::power_exponent<8, 7, 10>;
    for (int q = -127; q <= 127; ++q) {
        auto const code = static_cast<std::uint32_t>(q) & 255u;
        double const expected = std::copysign(std::pow(std::abs(q) / 127.0, 1 / 0.7), q);
        CHECK(std::fabs(static_cast<double>(seventh::decode(code)) - expected) <= std::fabs(expected) * 0x1p-23);
        CHECK(seventh::encode(seventh::decode(code)) == code);
    }
    CHECK(ts::power_exponent<4, 1, 1>::decode(3) == static_cast<float>(3.0 / 7));
    CHECK(half::encode(5.0f) == 7);
    CHECK(half::encode(std::numeric_limits<float>::quiet_NaN()) == 0);
    CHECK(ts::power_encode(-5, 4, 0.5) == -7);
    CHECK(ts::power_encode(std::numeric_limits<double>::quiet_NaN(), 4, 0.5) == 0);

    auto const near = [](double error, double published) { CHECK(std::fabs(error - published) <= 0.5e-6); };
    near(power_error(4, 0.5, 4), .021796);
    near(power_error(4, 0.6, 4), .019860);
    near(power_error(4, 0.7, 4), .019516);
    near(power_error(4, 1.0, 4), .027216);
    near(power_error(3, 0.7, 4), .105751);
    near(power_error(3, 1.0, 4), .148147);
    near(power_error(4, 0.6, 5), .025962);
    near(power_error(4, 1.0, 5), .042517);
    CHECK(std::fabs(power_error(8, 0.6, 5) - 7.9e-5) <= 0.05e-5);
    CHECK(std::fabs(power_error(8, 1.0, 5) - 1.29e-4) <= 0.005e-4);
    auto const best_clip = [](int bits, double a) {
        double least = 1;
        for (double most = 1; most < 8; most += 0.001) least = std::min(least, power_error(bits, a, most));
        return least;
    };
    near(best_clip(4, 0.5), .015411);
    near(best_clip(4, 0.6), .013241);
    near(best_clip(4, 0.7), .012168);
    near(best_clip(4, 1.0), .012889);
    near(best_clip(3, 0.5), .064228);
    near(best_clip(3, 1.0), .046860);
}
