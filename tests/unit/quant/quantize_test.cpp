// SPDX-License-Identifier: MIT
// quantize: codes are nearest(w / scale) from the smallest weights that float32 has to the largest, and decode to finite
// numbers; symmetric integers stay within the magnitude that both signs have.

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>
#include <tessera/quant/quantize.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr float largest = std::numeric_limits<float>::max();

template <class Scheme>
ts::quantized_tensor<Scheme> row(std::vector<float> const& w, ts::quantize_options const& options = {}) {
    return ts::quantize<Scheme>(ts::matrix_view<float const>{w.data(), 1, static_cast<index_t>(w.size())}, options);
}

/// The integer of code k of a row.
template <class Scheme>
int integer(ts::quantized_tensor<Scheme>& q, index_t k) {
    return Scheme::format::integer(ts::bitpack::get<Scheme::format::bits>(q.codes(), k));
}

/// A row of symmetric integers is the definition's, in double.
template <class Scheme>
void check_symmetric(std::vector<float> const& w) {
    auto q = row<Scheme>(w);
    auto const scale = static_cast<double>(static_cast<float>(q.scales()[0]));
    double const limit = Scheme::format::max_value;
    for (std::size_t k = 0; k < w.size(); ++k) {
        CAPTURE(w[k]);
        double const nearest = scale == 0 ? 0 : std::nearbyint(static_cast<double>(w[k]) / scale);
        CHECK(integer(q, static_cast<index_t>(k)) == std::fmin(std::fmax(nearest, -limit), limit));
    }
}

/// Scale and zero point are finite and in range; what is decoded is finite, and within a scale of the weight: half of one for
/// the code's rounding, or where that would not decode to a finite number, one.
template <class Scheme>
void check_affine(std::vector<float> const& w) {
    auto q = row<Scheme>(w);
    auto const scale = static_cast<double>(static_cast<float>(q.scales()[0]));
    CHECK(scale <= static_cast<double>(largest));
    CHECK(q.zero_points()[0] <= Scheme::format::max_value);
    auto const view = q.view();
    for (std::size_t k = 0; k < w.size(); ++k) {
        CAPTURE(w[k]);
        float const decoded = view(0, static_cast<index_t>(k));
        CHECK(std::isfinite(decoded));
        CHECK(std::fabs(static_cast<double>(decoded) - static_cast<double>(w[k])) <= scale * (1 + 0x1p-20));
    }
}

template <class Format>
using affine_of = ts::scheme<Format, ts::group<32>, ts::fp32, ts::affine>;

} // namespace

TEST_CASE("weights of any magnitude have the nearest code") {
    // 127 / 3.7e-37 and 1 / 2.9e-39 are the last reciprocals that float32 has; below, scales become subnormal and then 0.
    for (int exponent = -149; exponent <= 127; ++exponent) {
        CAPTURE(exponent);
        float const unit = std::ldexp(1.0f, exponent);
        std::vector<float> const w{unit, unit * 0.328125f, 0.0f, unit * -0.171875f, unit * -0.8125f};
        check_symmetric<ts::int8_per_channel>(w);
        check_symmetric<ts::scheme<ts::int4, ts::per_channel, ts::fp32>>(w);
        check_symmetric<ts::scheme<ts::int2, ts::per_channel, ts::bf16>>(w);
        if (exponent < -130) continue; // the scale's own rounding, and not the code's, is what is left
        check_affine<affine_of<ts::uint4>>(w);
        check_affine<affine_of<ts::uint8>>(w);
    }
    check_symmetric<ts::int8_per_channel>({3e-37f, 1e-37f, 0, -5e-38f});
    auto const nf4 = row<ts::nf4_g64>({1e-39f, 1e-41f, 0, -1e-40f});
    auto const view = nf4.view();
    CHECK(view(0, 0) == 1e-39f);
    CHECK(view(0, 1) == 0.0f);
    CHECK(view(0, 2) == 0.0f);
    CHECK(view(0, 3) == ts::nf4::decode(6) * 1e-39f); // -0.091 is next to -0.1
}

TEST_CASE("symmetric integers stay within the magnitude of both signs") {
    // A scale of 1.46 times the smallest float rounds down to it, and a scale in e4m3 by up to 1 in 17.
    std::vector<float> const tiny{std::ldexp(186.0f, -149), std::ldexp(-186.0f, -149), 0, std::ldexp(-100.0f, -149)};
    check_symmetric<ts::int8_per_channel>(tiny);
    using coarse = ts::scheme<ts::int8, ts::per_channel, ts::e4m3>;
    for (float const magnitude : {127.0f * 17, 1.06f * 127, 1e9f}) check_symmetric<coarse>({-magnitude, magnitude, -1.0f});
    for (std::uint64_t seed = 0; seed < 64; ++seed) {
        auto q = row<coarse>(std::vector<float>(16, -1.0624f * 127), {.mode = ts::rounding::stochastic, .seed = seed});
        for (index_t k = 0; k < 16; ++k) CHECK(integer(q, k) == -127);
    }
}

TEST_CASE("the largest weights have finite scales and decode to finite numbers") {
    for (std::vector<float> const& w :
         {std::vector<float>{3e38f, -3e38f, 0, 0}, {largest, -largest, 1.0f}, {largest, -0.98f * largest}, {-largest, 1e38f},
          {largest, 0.5f * largest}, {0.9f * largest, -0.97f * largest, 0.1f * largest}}) {
        check_affine<affine_of<ts::uint8>>(w);
        check_affine<affine_of<ts::uint4>>(w);
        check_affine<affine_of<ts::uint3>>(w);
    }
    // One step is wider than float32: the scale is the largest there is.
    auto one = row<affine_of<ts::uint1>>({largest, -largest, 0});
    CHECK(one.scales()[0] == largest);
    auto const decoded = one.view();
    for (index_t k = 0; k < 3; ++k) CHECK(std::isfinite(decoded(0, k)));
    // 31 * (largest / 31) rounds to infinity.
    auto const six = row<ts::scheme<ts::int6, ts::per_channel, ts::fp32>>({largest, -largest, 1e38f});
    for (index_t k = 0; k < 3; ++k) CHECK(std::isfinite(six.view()(0, k)));
}

TEST_CASE("a block that is not finite decodes to NaN") {
    for (float const bad : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                            std::numeric_limits<float>::quiet_NaN()}) {
        auto const symmetric = row<ts::int8_per_channel>({1.0f, bad, -2.0f});
        auto const affine = row<affine_of<ts::uint4>>({1.0f, bad, -2.0f});
        for (index_t k = 0; k < 3; ++k) {
            CHECK(std::isnan(symmetric.view()(0, k)));
            CHECK(std::isnan(affine.view()(0, k)));
        }
    }
    CHECK_THROWS_AS((row<ts::scheme<ts::int4, ts::per_channel, ts::e2m1>>({std::numeric_limits<float>::quiet_NaN()})),
                    ts::unsupported_error);
}
