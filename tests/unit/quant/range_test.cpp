// SPDX-License-Identifier: MIT
// Ranges and rounding of blocks: the registers' codes are the definition's, bit for bit; ranges are what their formulas say;
// Lloyd's algorithm finds the published levels of the normal distribution.

#include "support/instruction_sets.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/kernels/cpu/quantize.hpp>
#include <tessera/numerics/codebook.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/quant/range.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

/// Not in order, with two equal values and no 0.
struct odd_table {
    static constexpr char const* name = "odd";
    static constexpr float values[8] = {0.5f, -1.0f, 2.0f, 0.5f, -0.25f, 1.0f, -3.0f, 0.125f};
};

std::vector<float> some_weights(index_t n) {
    ts::philox const random{7};
    std::vector<float> w;
    for (index_t i = 0; i < n; ++i) w.push_back(random.normal(static_cast<std::uint64_t>(i)));
    return w;
}

template <class Arch, class Format>
void check_rounding(std::vector<float> const& w, ts::weight_grid<Format> const& grid) {
    CAPTURE(std::string{Arch::name} + " " + Format::name);
    CAPTURE(grid.scale);
    using definition = ts::kernel<ts::op::quantize, ts::reference, ts::weight_grid<Format>>;
    using fast = ts::kernel<ts::op::quantize, ts::cpu<Arch, ts::serial>, ts::weight_grid<Format>>;
    auto const n = static_cast<index_t>(w.size());
    for (index_t const k0 : {0, 3, 8})
        for (auto const mode : {ts::rounding::nearest_even, ts::rounding::stochastic}) {
            ts::code_choice const choice{mode, 11, 5};
            std::vector<std::uint8_t> expected(static_cast<std::size_t>(ts::bitpack::bytes(k0 + n + 8, Format::bits)), 0xa5);
            auto actual = expected;
            definition::encode(w.data(), n, grid, choice, expected.data(), k0);
            fast::encode(w.data(), n, grid, choice, actual.data(), k0);
            CHECK(expected == actual);
        }
    std::vector<float> expected(w.size());
    std::vector<float> actual(w.size());
    definition::round(w.data(), n, grid, expected.data());
    fast::round(w.data(), n, grid, actual.data());
    CHECK((w.empty() || std::memcmp(expected.data(), actual.data(), w.size() * sizeof(float)) == 0));
}

template <class Format>
void check_format(float zero, float low, float high) {
    auto w = some_weights(1283);
    for (std::uint32_t c = 0; c < 16; ++c) w.push_back((static_cast<float>(c) - 7.5f) * 0.25f); // ties
    tessera_test::archs_by_width::visit([&]<class Arch>(Arch) {
        for (float const scale : {0.25f, 0.3f, 1e-30f, 0.0f, std::numeric_limits<float>::quiet_NaN()})
            check_rounding<Arch, Format>(w, {scale, zero, low, high});
    });
    // Every length to a few registers, and weights that are no numbers.
    w.resize(200);
    w[3] = std::numeric_limits<float>::quiet_NaN();
    w[60] = std::numeric_limits<float>::infinity();
    w[61] = -0.0f;
    for (std::size_t n = 0; n < 140; ++n)
        check_rounding<ts::native_arch, Format>({w.begin(), w.begin() + static_cast<std::ptrdiff_t>(n)},
                                                {0.25f, zero, low, high});
}

} // namespace

TEST_CASE("rounding in registers is the definition's, bit for bit") {
    constexpr float none = std::numeric_limits<float>::infinity();
    check_format<ts::int4>(0, -7, 7);
    check_format<ts::uint4>(5, 0, 15);
    check_format<ts::uint3>(3, 0, 7);
    check_format<ts::e2m1>(0, -none, none);
    check_format<ts::nf4>(0, -none, none);
    check_format<ts::codebook<odd_table>>(0, -none, none);
    check_format<ts::minifloat<2, 1, ts::specials::finite, 140>>(0, -none, none); // zeros of both signs, no lanes
}

TEST_CASE("rounding in registers, more formats" * doctest::skip()) {
    constexpr float none = std::numeric_limits<float>::infinity();
    check_format<ts::int8>(0, -127, 127);
    check_format<ts::uint1>(0, 0, 1);
    check_format<ts::uint2>(1, 0, 3);
    check_format<ts::int5>(0, -15, 15);
    check_format<ts::e4m3fn>(0, -none, none);
    check_format<ts::e3m2>(0, -none, none);
}

TEST_CASE("extremes of a block, and whether it is finite") {
    auto w = some_weights(77);
    auto const check = [&] {
        tessera_test::archs_by_width::visit([&]<class Arch>(Arch) {
            for (index_t n = 0; n <= 77; ++n) {
                auto const a = ts::kernel<ts::op::quantize, ts::reference, ts::weight_grid<ts::int4>>::range(w.data(), n);
                auto const b =
                    ts::kernel<ts::op::quantize, ts::cpu<Arch, ts::serial>, ts::weight_grid<ts::int4>>::range(w.data(), n);
                CHECK(a.low == b.low);
                CHECK(a.high == b.high);
                CHECK(a.finite == b.finite);
            }
        });
    };
    check();
    w[40] = std::numeric_limits<float>::quiet_NaN();
    check();
    w[40] = -std::numeric_limits<float>::infinity();
    check();
    w[40] = std::numeric_limits<float>::max();
    check();
}

namespace {

/// Chooses for symmetric int4 with float scales.
template <class Range>
ts::weight_range chosen(std::vector<float> const& w, Range const& range, bool is_affine = false) {
    ts::range_question block{w, {}, is_affine, {}};
    for (float const x : w) block.extremes.include(x);
    std::vector<float> scratch(w.size());
    block.scratch = scratch;
    return range.choose(block, [&](ts::weight_range const& r) {
        return ts::detail::sums_of<ts::reference>(std::span<float const>{w}, ts::weight_grid<ts::int4>{r.magnitude() / 7, 0, -7, 7});
    });
}

double error_of(std::vector<float> const& w, float magnitude) {
    double sum = 0;
    float const scale = magnitude / 7;
    for (float const x : w) {
        double const code = std::clamp(std::nearbyint(static_cast<double>(x / scale)), -7.0, 7.0);
        double const d = static_cast<double>(x) - static_cast<double>(static_cast<float>(code) * scale);
        sum += d * d;
    }
    return sum;
}

} // namespace

TEST_CASE("ranges are what their formulas say") {
    auto w = some_weights(1000);
    w[500] = 9.0f;
    float const widest = 9.0f;
    CHECK(chosen(w, ts::min_max_range{}).high == widest);
    CHECK(chosen(w, ts::min_max_range{}).magnitude() == widest);

    auto sorted = w;
    std::sort(sorted.begin(), sorted.end());
    auto magnitudes = w;
    for (float& x : magnitudes) x = std::fabs(x);
    std::sort(magnitudes.begin(), magnitudes.end());
    CHECK(chosen(w, ts::percentile_range{0.99}).high == magnitudes[989]);
    CHECK(chosen(w, ts::percentile_range{0.99}).low == -magnitudes[989]);
    CHECK(chosen(w, ts::percentile_range{1.0}).high == widest);
    CHECK(chosen(w, ts::percentile_range{0.99}, true).low == sorted[4]);    // floor(0.005 * 999)
    CHECK(chosen(w, ts::percentile_range{0.99}, true).high == sorted[995]); // ceil(0.995 * 999)
    CHECK(chosen({0, 0, 0, 0, 1}, ts::percentile_range{0.5}).high == 1);

    float best = widest;
    for (int i = 64; i >= 1; --i) {
        float const share = widest * (static_cast<float>(i) / 64);
        if (error_of(w, share) < error_of(w, best)) best = share;
    }
    CHECK(chosen(w, ts::least_error_range{}).magnitude() == best);
    CHECK(best < widest);
    // Twice as many shares of twice the range hold all of these, and others.
    CHECK(error_of(w, chosen(w, ts::least_error_range{128, 2.0f}).magnitude()) <= error_of(w, best));
    constexpr float most = std::numeric_limits<float>::max();
    CHECK(chosen({most, most / 7}, ts::least_error_range{64, 2.0f}).magnitude() <= most);

    // Lloyd's scale is no worse than the widest, and is the least squares one for its own codes.
    float const fixed_point = chosen(w, ts::lloyd_max_range{1000}).magnitude();
    CHECK(error_of(w, fixed_point) < error_of(w, widest));
    auto const sums = ts::detail::sums_of<ts::reference>(std::span<float const>{w}, ts::weight_grid<ts::int4>{fixed_point / 7, 0, -7, 7});
    CHECK(std::fabs(sums.error - error_of(w, fixed_point)) <= 2 * 1000 * 0x1p-53 * sums.error); // sums of 1000 doubles
    CHECK(std::fabs(sums.cross / sums.square - 1) < 0x1p-10);
}

TEST_CASE("sums are the same on every instruction set") {
    auto const w = some_weights(1111);
    ts::weight_grid<ts::nf4> const grid{2.5f};
    auto const expected = ts::detail::sums_of<ts::reference>(std::span<float const>{w}, grid);
    tessera_test::archs_by_width::visit([&]<class Arch>(Arch) {
        auto const actual = ts::detail::sums_of<ts::cpu<Arch, ts::serial>>(std::span<float const>{w}, grid);
        CHECK(actual.error == expected.error);
        CHECK(actual.cross == expected.cross);
        CHECK(actual.square == expected.square);
    });
}

TEST_CASE("ranges that cannot be are refused") {
    CHECK_THROWS_WITH_AS(ts::percentile_range{1.5}.check(),
                         "tessera: quantize: fraction of percentile_range is 1.500000, expected 0 to 1", ts::unsupported_error);
    CHECK_THROWS_AS(ts::percentile_range{-0.1}.check(), ts::unsupported_error);
    CHECK_THROWS_AS(ts::percentile_range{std::numeric_limits<double>::quiet_NaN()}.check(), ts::unsupported_error);
    CHECK_THROWS_AS(ts::least_error_range{0}.check(), ts::shape_error);
    CHECK_THROWS_WITH_AS((ts::least_error_range{64, 0.5f}.check()),
                         "tessera: quantize: widest of least_error_range is 0.500000, expected 1 to 16", ts::unsupported_error);
    CHECK_THROWS_AS((ts::least_error_range{64, std::numeric_limits<float>::quiet_NaN()}.check()), ts::unsupported_error);
    CHECK_THROWS_AS(ts::lloyd_max_range{-1}.check(), ts::shape_error);
}

TEST_CASE("Lloyd's levels of the normal distribution") {
    // Numbers at the quantiles (i + 1/2) / n stand for the distribution: the error of doing so is of the order of the cell's
    // share, 1 / n, times the tail's spread; levels are compared to 1e-3, errors to 1e-3 of themselves.
    constexpr int n = 200000;
    std::vector<float> x(n);
    for (int i = 0; i < n; ++i) {
        double const p = (i + 0.5) / n;
        double z = 0; // by Newton's iteration of erfc from below
        for (int step = 0; step < 60; ++step) {
            double const f = 0.5 * std::erfc(-z / std::sqrt(2.0)) - p;
            double const density = std::exp(-z * z / 2) / std::sqrt(2 * 3.14159265358979323846);
            double const move = std::clamp(f / density, -0.5, 0.5);
            z -= move;
            if (std::fabs(move) < 1e-12) break;
        }
        x[static_cast<std::size_t>(i)] = static_cast<float>(z);
    }
    struct published {
        double error;
        std::vector<double> positive;
    };
    // Max 1960, to more digits: positive levels; the negative ones mirror them.
    std::vector<published> const all = {
        {0.363380, {0.797885}},
        {0.117482, {0.452780, 1.510418}},
        {0.0345478, {0.245094, 0.756005, 1.343909, 2.151946}},
        {0.00950101, {0.128395, 0.388048, 0.656759, 0.942340, 1.256231, 1.618046, 2.069017, 2.732590}}};
    for (published const& p : all) {
        std::size_t const half = p.positive.size();
        std::vector<float> levels(2 * half);
        CHECK(ts::lloyd_max_levels(x, levels, 5000) == doctest::Approx(p.error).epsilon(1e-3));
        for (std::size_t i = 0; i < half; ++i) {
            CHECK(levels[half + i] == doctest::Approx(p.positive[i]).epsilon(2e-3));
            CHECK(levels[half - 1 - i] == doctest::Approx(-p.positive[i]).epsilon(2e-3));
        }
    }
    std::vector<float> one(1);
    CHECK(ts::lloyd_max_levels(std::vector<float>{1, 2, 6}, one) == doctest::Approx(14.0 / 3));
    CHECK(one[0] == 3.0f);
    std::vector<float> three(3);
    CHECK(ts::lloyd_max_levels(std::vector<float>{4, 4}, three) == 0);
    CHECK_THROWS_AS(ts::lloyd_max_levels({}, one), ts::shape_error);
    CHECK_THROWS_AS(ts::lloyd_max_levels(std::vector<float>{1}, {}), ts::shape_error);
    CHECK_THROWS_AS(ts::lloyd_max_levels(std::vector<float>{1, std::numeric_limits<float>::infinity()}, one), ts::unsupported_error);
}
