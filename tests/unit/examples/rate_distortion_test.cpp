// SPDX-License-Identifier: MIT
// The theory that examples/rate_distortion compares with is what was published, its normal numbers are normal, and quantisers
// measured on them have the errors that theory gives them, to 4 standard errors.

#include "../../../examples/rate_distortion/theory.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/numerics/codebook.hpp>
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

namespace {

/// Blocks whose largest magnitude becomes the largest value, against errors published to 1 %.
void check_blocks(std::vector<double> const& values, double most, std::vector<double> const& published) {
    cells const c = nearest(values);
    double const sizes[] = {16, 32, 64, 128, 256, 1024};
    for (std::size_t i = 0; i < 6; ++i) {
        CAPTURE(sizes[i]);
        double const error = block_error(c, sizes[i], [=](double m) { return scales{m / most, m / most}; });
        CHECK(std::fabs(error / published[i] - 1) <= 0.01);
        // As exact as is said: twice the steps change nothing.
        CHECK(std::fabs(block_error(c, sizes[i], [=](double m) { return scales{m / most, m / most}; }, largest::of_either_sign, 9, 2000) /
                            error - 1) <= 1e-3);
    }
}

} // namespace

TEST_CASE("blocks under their largest magnitude, in theory") {
    std::vector<double> nf4(std::begin(ts::nf4_table::values), std::end(ts::nf4_table::values));
    check_blocks(nf4, 1, {.00654, .00762, .00847, .00914, .00975, .0109});
    check_blocks({-6, -4, -3, -2, -1.5, -1, -.5, 0, .5, 1, 1.5, 2, 3, 4, 6}, 6, {.00887, .0102, .0112, .0119, .0124, .0132});
    check_blocks(integers(-7, 7).values, 7, {.00728, .00942, .0116, .0137, .0160, .0205});
    check_blocks({-16, -8, -4, -2, -1, -.5, -.25, 0, .25, .5, 1, 2, 4, 8, 16}, 16, {.0283, .0326, .0355, .0370, .0379, .0381});
    // Scales that are powers of two below: MXFP4, published to 1 %.
    double const mx = block_error(nearest({-6, -4, -3, -2, -1.5, -1, -.5, 0, .5, 1, 1.5, 2, 3, 4, 6}), 32, [](double m) {
        double const s = std::exp2(std::floor(std::log2(m)) - 2);
        return scales{s, s};
    });
    CHECK(std::fabs(mx / .0132 - 1) <= .01);
    // The 31st or 32nd of 32 magnitudes as the scale: the last is the largest.
    cells const c = integers(-7, 7);
    scale_rule const rule = [](double m) { return scales{m / 7, m / 7}; };
    CHECK(order_statistic_error(c, 32, 32, rule) == doctest::Approx(block_error(c, 32, rule)).epsilon(1e-3));
    CHECK(order_statistic_error(c, 128, 127, rule) < block_error(c, 128, rule)); // clipping one is worth it
    // One number is its own scale; two between their ends are codes 0 and 1.
    CHECK(block_error(integers(-7, 7), 1, [](double m) { return scales{m / 7, m / 7}; }) == doctest::Approx(0));
    CHECK(affine_error(2, [](double a, double b) { return nearest({a, b}); }) == doctest::Approx(0));
    // Numbers of a sphere: probabilities are 1 in all, and so is the mean square.
    double probability = 0, square = 0;
    for (double x = -12; x < 12; x += 1e-3) {
        double const p = rate_distortion::detail::density(x) * 1e-3 * (1 + sphere_excess(1, 64, x * x));
        probability += p;
        square += p * x * x;
    }
    CHECK(probability == doctest::Approx(1).epsilon(1e-9));
    CHECK(square == doctest::Approx(1).epsilon(1e-9));
}
