// SPDX-License-Identifier: MIT
// The theory that examples/rate_distortion compares with is what was published, its normal numbers are normal, and quantisers
// measured on them have the errors that theory gives them, to 4 standard errors.

#include "../../../examples/rate_distortion/theory.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/quant/range.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <utility>
#include <vector>

namespace ts = tessera;
using namespace rate_distortion;

TEST_CASE("the best scalar quantisers of the normal distribution, and those of equal steps") {
    // Max 1960; digits beyond his by quadrature.
    double const best[] = {0.363380228, 0.117481848, 0.034547761, 0.009501008, 0.002504668};
    double const steps[] = {0.363380228, 0.118846, 0.037440, 0.011543, 0.003495};
    for (int bits = 1; bits <= 5; ++bits) {
        std::size_t const levels = std::size_t{1} << bits;
        CHECK(lloyd_max(levels).error == doctest::Approx(best[bits - 1]).epsilon(2e-8));
        CHECK(uniform(levels).error == doctest::Approx(steps[bits - 1]).epsilon(1e-4));
        CHECK(lloyd_max(levels).error <= uniform(levels).error * (1 + 1e-12));
        CHECK(lloyd_max(levels).error > bound(bits));
    }
    CHECK(lloyd_max(4).levels[2] == doctest::Approx(0.452780).epsilon(1e-5));
    CHECK(lloyd_max(4).levels[3] == doctest::Approx(1.510418).epsilon(1e-6));
    for (auto const& [levels, step] : {std::pair{4u, .995687}, {8u, .586019}, {16u, .335201}, {32u, .188139}, {256u, .030762}})
        CHECK(uniform(levels).levels[levels / 2] == doctest::Approx(step / 2).epsilon(2e-5));
    CHECK(uniform(256).error == doctest::Approx(8.77e-5).epsilon(1e-3));
    // With a level at 0: all of 4 bits, and -7 to 7.
    auto const mid_tread = [](int low, int high, double step) {
        std::vector<double> levels;
        for (int q = low; q <= high; ++q) levels.push_back(step * q);
        return rate_distortion::detail::error_of(levels);
    };
    CHECK(std::fabs(mid_tread(-8, 7, .338608) - .011864) < 1e-6);
    CHECK(std::fabs(mid_tread(-7, 7, .353411) - .012889) < 1e-6);
    CHECK(std::fabs(mid_tread(-128, 127, .030766) - 8.77e-5) < 1e-7);
    CHECK(bound(2) == 0.0625);
}

TEST_CASE("quantisers measured") {
    // 2^18 numbers by Box and Muller's transform, as the program makes them.
    constexpr std::size_t n = std::size_t{1} << 18;
    ts::philox const random{5};
    std::vector<float> x(n);
    for (std::size_t i = 0; i < n; i += 2) {
        double const radius = std::sqrt(-2 * std::log((static_cast<double>(random.bits(i)) + 0.5) * 0x1p-32));
        double const angle = 2 * std::numbers::pi * (static_cast<double>(random.bits(i + 1)) + 0.5) * 0x1p-32;
        x[i] = static_cast<float>(radius * std::cos(angle));
        x[i + 1] = static_cast<float>(radius * std::sin(angle));
    }
    for (std::size_t const levels : {2u, 4u, 8u, 16u})
        for (quantiser const& q : {lloyd_max(levels), uniform(levels)}) {
            double sum = 0, squares = 0;
            for (float const v : x) {
                double least = 1e9;
                for (double const l : q.levels) least = std::fmin(least, std::fabs(static_cast<double>(v) - l));
                sum += least * least;
                squares += least * least * least * least;
            }
            double const mean = sum / n;
            double const standard_error = std::sqrt((squares / n - mean * mean) / n);
            CHECK(std::fabs(mean - q.error) <= 4 * standard_error);
        }
    // Levels that are trained on the numbers are no worse on them than the distribution's own, and near.
    std::vector<float> trained(8);
    double const error = ts::lloyd_max_levels(x, trained);
    CHECK(error <= lloyd_max(8).error * 1.02);
    CHECK(error >= lloyd_max(8).error * 0.98);
}
