// SPDX-License-Identifier: MIT
// Scales: of two levels, in every type, rounded by every rule; the block formats of OCP Microscaling and NVFP4 by what the
// specifications say; bad input.

#include <tessera/quant/quantize.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float not_a_number = std::numeric_limits<float>::quiet_NaN();

template <class Scheme>
ts::quantized_tensor<Scheme> row(std::vector<float> const& w, ts::quantize_options const& options = {}) {
    return ts::quantize<Scheme>(ts::matrix_view<float const>{w.data(), 1, static_cast<index_t>(w.size())}, options);
}

/// Numbers that look normal, of the same bits everywhere.
std::vector<float> numbers(index_t count, std::uint64_t seed) {
    std::vector<float> w(static_cast<std::size_t>(count));
    for (index_t i = 0; i < count; ++i) w[static_cast<std::size_t>(i)] = ts::philox{seed}.normal(static_cast<std::uint64_t>(i));
    return w;
}

/// The value of every code before its scale.
template <class Scheme>
std::vector<float> values(ts::quantized_tensor<Scheme> const& q) {
    auto const view = q.view();
    std::vector<float> v;
    for (index_t k = 0; k < view.cols(); ++k) v.push_back(Scheme::format::decode(view.code(0, k)));
    return v;
}

/// A block worked out by hand: its weights, the byte of its scale, its values.
struct golden {
    std::vector<float> weights;
    int scale;
    std::vector<float> values;
};

template <class Scheme>
void check_goldens(std::vector<golden> const& goldens, ts::quantize_options const& options = {}) {
    for (auto const& g : goldens) {
        CAPTURE(g.weights[0]);
        auto q = row<Scheme>(g.weights, options);
        CHECK(int{q.scales()[0].to_bits()} == g.scale);
        CHECK(values(q) == g.values);
    }
}

} // namespace

TEST_CASE("Microscaling: the specification's conversion, ties to even") {
    check_goldens<ts::mx_e2m1>({{{6, 5, 2.5f, .25f}, 127, {6, 4, 2, 0}},
                                {{7.999f, 3.5f, 1.25f, .25f}, 127, {6, 4, 1, 0}},
                                {{8, 7, 5, 1}, 128, {4, 4, 2, .5f}},
                                {{7, 1, -.75f, .25f}, 127, {6, 1, -1, 0}},
                                {{1, .3f, .1f, .05f}, 125, {4, 1, .5f, 0}},
                                {{0, 0, 0, 0}, 0, {0, 0, 0, 0}}});
    check_goldens<ts::mx_e4m3>({{{448, 449, 480, .001f}, 127, {448, 448, 448, .001953125f}},
                                {{500, -3, .1f, 1}, 127, {448, -3, .1015625f, 1}}});
    check_goldens<ts::mx_e3m2>({{{31, 29, 1, .03f}, 127, {28, 28, 1, 0}}});
    check_goldens<ts::mx_e2m3>({{{7.75f, 7.25f, 1, .06f}, 127, {7.5f, 7, 1, 0}}});
    check_goldens<ts::mx_e5m2>({{{65000, 60000, 1, 0x1p-16f}, 127, {57344, 57344, 1, 0x1p-16f}}});
    // Steps of 1/64 up to 127/64: -2 is left out.
    check_goldens<ts::mx_int8>({{{1, -1.999f, 0.0078125f, 0.0234375f}, 127, {1, -1.984375f, 0, 0.03125f}}});
    // microxcaling's "nearest".
    check_goldens<ts::mx_e2m1>({{{6, 5, 2.5f, .25f}, 127, {6, 6, 3, .5f}}}, {.mode = ts::rounding::half_away});
}

TEST_CASE("Microscaling: ends of the exponents, blocks that are not finite") {
    auto largest = row<ts::mx_e2m1>({std::numeric_limits<float>::max(), 1, -0x1p127f});
    CHECK(largest.scales()[0].to_bits() == 252);
    CHECK(values(largest) == std::vector<float>{6, 0, -4});
    auto smallest = row<ts::mx_e2m1>({0x1p-149f, 0x1p-128f, -0x1p-127f}); // 2^-129 is no scale
    CHECK(smallest.scales()[0].to_bits() == 0);
    CHECK(values(smallest) == std::vector<float>{0, .5f, -1});
    for (float const bad : {not_a_number, infinity, -infinity}) {
        auto q = row<ts::mx_e4m3>({1, bad, 2});
        CHECK(q.scales()[0].to_bits() == 255);
        for (index_t k = 0; k < 3; ++k) CHECK(std::isnan(q.view()(0, k)));
    }
    // The next block is not concerned.
    std::vector<float> two(64, 1.0f);
    two[3] = not_a_number;
    auto const q = row<ts::mx_e4m3>(two);
    CHECK(std::isnan(q.view()(0, 31)));
    CHECK(q.view()(0, 32) == 1.0f);
}

TEST_CASE("NVFP4: a float32 scale of the matrix, e4m3 scales of 16") {
    auto w = numbers(3 * 40, 7);
    auto q = ts::quantize<ts::nv_e2m1>(ts::matrix_view<float const>{w.data(), 3, 40});
    float most = 0;
    for (float const x : w) most = std::max(most, std::fabs(x));
    CHECK(q.super_scales()[0] == most / (6 * 448));
    auto const view = q.view();
    CHECK(view.bytes() == 3 * 20 + 3 * 3 * 1 + 4);
    for (index_t n = 0; n < 3; ++n)
        for (index_t k = 0; k < 40; ++k) {
            float block = 0;
            for (index_t j = k / 16 * 16; j < std::min<index_t>(k / 16 * 16 + 16, 40); ++j)
                block = std::max(block, std::fabs(w[static_cast<std::size_t>(n * 40 + j)]));
            ts::e4m3fn const scale{block / 6 / q.super_scales()[0]};
            CHECK(q.scales()[n * 3 + k / 16] == scale);
            float const combined = q.super_scales()[0] * static_cast<float>(scale);
            CHECK(view(n, k) == combined * ts::e2m1::decode(ts::e2m1::encode(w[static_cast<std::size_t>(n * 40 + k)] / combined)));
        }
    // A block that is not finite is its own; zeros are zeros; a very small block keeps its largest weight's sign and size.
    std::vector<float> mixed(64, 0.0f);
    mixed[0] = 1000;
    mixed[20] = infinity;
    mixed[40] = 1e-7f;
    auto const m = row<ts::nv_e2m1>(mixed);
    CHECK(m.view()(0, 0) == doctest::Approx(1000));
    CHECK(std::isnan(m.view()(0, 16)));
    CHECK(m.view()(0, 48) == 0.0f);
    CHECK(m.view().scales()[2].to_bits() == 1);
    auto const zeros = row<ts::nv_e2m1>(std::vector<float>(16));
    CHECK(zeros.view()(0, 5) == 0.0f);
}

TEST_CASE("scales under a super scale: which belongs to an element, and how near") {
    using s = ts::scheme<ts::int4, ts::group<8>, ts::two_level<ts::int6, ts::group<24>, ts::fp16>>;
    auto const w = numbers(5 * 61, 3);
    auto q = ts::quantize<s>(ts::matrix_view<float const>{w.data(), 5, 61});
    auto const view = q.view();
    CHECK(view.scale_columns() == 8);
    CHECK(view.super_scale_count(5, 61) == 15);
    CHECK(view.bytes() == 5 * 31 + 5 * 8 + 15 * 2);
    for (index_t n = 0; n < 5; ++n)
        for (index_t k = 0; k < 61; ++k) {
            float const upper = static_cast<float>(q.super_scales()[n * 3 + k / 24]);
            int const lower = static_cast<int>(q.scales()[n * 8 + k / 8]);
            CHECK(view.scale(n, k) == upper * static_cast<float>(lower));
            CHECK(lower >= 1);
            CHECK(lower <= 31);
            float block = 0;
            for (index_t j = k / 8 * 8; j < std::min<index_t>(k / 8 * 8 + 8, 61); ++j)
                block = std::max(block, std::fabs(w[static_cast<std::size_t>(n * 61 + j)]));
            // Half a code, and where the scale was rounded down, what seven codes lost by it.
            float const bound = 0.5f * view.scale(n, k) + 7 * std::max(0.0f, block / 7 - view.scale(n, k));
            CHECK(std::fabs(view(n, k) - w[static_cast<std::size_t>(n * 61 + k)]) <= bound * (1 + 0x1p-20f));
        }
    CHECK_THROWS_AS((row<s>({1, not_a_number, 2})), ts::unsupported_error);
    CHECK(ts::quantize<s>(ts::matrix_view<float const>{nullptr, 0, 61}).bytes() == 0);
    CHECK(ts::quantize<s>(ts::matrix_view<float const>{nullptr, 5, 0}).bytes() == 0);
}

TEST_CASE("powers of two under a row's scale: ZeroQuant-FP's constraints") {
    auto const weights = [](std::vector<float> const& scales) {
        std::vector<float> w;
        for (float const s : scales) w.insert(w.end(), {6 * s, -6 * s});
        return w;
    };
    auto const scales = [](auto& q, index_t count) {
        std::vector<float> s;
        for (index_t g = 0; g < count; ++g) s.push_back(q.view().scale(0, 2 * g));
        return s;
    };
    using m1 = ts::scheme<ts::e2m1, ts::group<2>, ts::e8m0>;
    auto first = row<m1>(weights({0.7f, 1, 1.5f, 2}), {.scales = ts::scale_rule::up});
    CHECK(scales(first, 4) == std::vector<float>{1, 1, 2, 2});
    using m2 = ts::scheme<ts::e2m1, ts::group<2>, ts::two_level<ts::e8m0, ts::per_channel>>;
    std::vector<float> const given = weights({.8f, .5f, .41f, .2f, .1f});
    auto down = row<m2>(given, {.scales = ts::scale_rule::down});
    CHECK(scales(down, 5) == std::vector<float>{.8f, .4f, .4f, .2f, .1f});
    auto up = row<m2>(given, {.scales = ts::scale_rule::up});
    CHECK(scales(up, 5) == std::vector<float>{.8f, .8f, .8f, .2f, .1f});
    // By default each group takes the better one: 3 would saturate at 2.4, 2.46 does so by little, and 0.2 is no multiple of 0.4.
    auto best = row<m2>({4.8f, -4.8f, 3, -3, 2.46f, 0.2f});
    CHECK(scales(best, 3) == std::vector<float>{.8f, .8f, .4f});
    // A group of zeros, and one too small for 14 octaves.
    auto small = row<m2>({6, -6, 0, 0, 1e-9f, 2e-9f});
    CHECK(scales(small, 3) == std::vector<float>{1, 0x1p-14f, 0x1p-14f});
    CHECK(values(small) == std::vector<float>{6, -6, 0, 0, 0, 0});
}

namespace {

/// What a rule promises of a block's scale, for weights of both signs.
template <class Scale>
void check_rules(float unit) {
    using s = ts::scheme<ts::int4, ts::group<8>, Scale>;
    CAPTURE(std::string{Scale::name});
    auto w = numbers(64, 5);
    for (float& x : w) x *= unit;
    auto up = row<s>(w, {.scales = ts::scale_rule::up});
    auto down = row<s>(w, {.scales = ts::scale_rule::down});
    auto nearest = row<s>(w, {.scales = ts::scale_rule::nearest});
    auto best = row<s>(w, {.scales = ts::scale_rule::least_error});
    for (index_t g = 0; g < 8; ++g) {
        float most = 0;
        for (std::size_t k = 0; k < 8; ++k) most = std::max(most, std::fabs(w[static_cast<std::size_t>(g) * 8 + k]));
        auto const scale = [&](auto const& q) { return q.view().scale(0, 8 * g); };
        auto const error = [&](auto const& q) {
            double sum = 0;
            for (index_t k = 8 * g; k < 8 * g + 8; ++k)
                sum += std::pow(double{q.view()(0, k)} - double{w[static_cast<std::size_t>(k)]}, 2);
            return sum;
        };
        CHECK(scale(up) >= most / 7);
        CHECK(scale(down) <= most / 7);
        CHECK((scale(nearest) == scale(up) || scale(nearest) == scale(down)));
        CHECK(error(best) == std::min(error(up), error(down)));
    }
}

} // namespace

TEST_CASE("scales in every type, rounded by every rule") {
    check_rules<ts::fp32>(1);
    check_rules<ts::fp16>(1);
    check_rules<ts::bf16>(1);
    check_rules<ts::e8m0>(1);
    check_rules<ts::e4m3fn>(1);
    check_rules<ts::e5m2>(1);
    check_rules<ts::uint8>(100);
    check_rules<ts::int6>(50);
    using float_scales = ts::scheme<ts::e2m1, ts::group<32>>;
    auto power = row<float_scales>({7.9f, 1}, {.scales = ts::scale_rule::floor_power});
    CHECK(power.scales()[0] == 1.0f);
    CHECK_THROWS_AS((row<ts::uint4_g32>({1, 2}, {.scales = ts::scale_rule::floor_power})), ts::unsupported_error);
    CHECK_THROWS_AS((row<ts::nv_e2m1>({1, 2}, {.scales = ts::scale_rule::floor_power})), ts::unsupported_error);
}

namespace {

template <class Scheme>
void check_bad_input() {
    CAPTURE(std::string{Scheme::format::name} + ", " + Scheme::scale_type::name);
    using levels = typename ts::quantized<Scheme>::scale_levels;
    // No rows, no columns; a group of one; a row shorter than a group, and one of a group and one more.
    for (index_t const k : {0, 1, 2, 31, 33}) {
        auto const w = numbers(3 * k, 9);
        auto q = ts::quantize<Scheme>(ts::matrix_view<float const>{w.data(), 3, k});
        for (index_t n = 0; n < 3; ++n)
            for (index_t j = 0; j < k; ++j) CHECK(std::isfinite(q.view()(n, j)));
    }
    CHECK(ts::quantize<Scheme>(ts::matrix_view<float const>{nullptr, 0, 5}).rows() == 0);
    auto const zeros = row<Scheme>(std::vector<float>(40));
    for (index_t k = 0; k < 40; ++k) CHECK(std::fabs(zeros.view()(0, k)) <= (Scheme::format::decode(0) == 0 ? 0.0f : 0x1p-120f));
    // Weights and scales that are subnormal, and the largest: finite, of the right sign.
    for (float const unit : {1e-45f, 1e-42f, 1e-39f, 1e-30f, 1e30f, 3e38f}) {
        auto const q = row<Scheme>({unit, -unit, 0.25f * unit, 0});
        for (index_t k = 0; k < 4; ++k) {
            CHECK(std::isfinite(q.view()(0, k)));
            if (k < 2) CHECK((k == 0 ? q.view()(0, k) : -q.view()(0, k)) >= 0.0f);
        }
    }
    // The largest weights under scales that were rounded up: codes stop where the product is finite.
    if constexpr (!Scheme::is_affine) {
        constexpr float most = std::numeric_limits<float>::max();
        for (auto const mode : {ts::rounding::nearest_even, ts::rounding::half_away, ts::rounding::stochastic}) {
            auto const q = row<Scheme>({most, -most, most / 3}, {.mode = mode, .scales = ts::scale_rule::up});
            for (index_t k = 0; k < 3; ++k) CHECK(std::isfinite(q.view()(0, k)));
        }
    }
    // One weight alone comes back as near as its scale's type allows.
    for (float const w : {1.0f, -1.0f, 0.037f}) {
        auto const one = row<Scheme>({w});
        float const back = one.view()(0, 0);
        bool const is_coarse = std::is_same_v<typename levels::lower, ts::e8m0>;
        CHECK(std::fabs(back - w) <= (is_coarse ? 0.25f : 0x1p-4f) * std::fabs(w));
    }
}

} // namespace

TEST_CASE("bad input, in every kind of scheme") {
    check_bad_input<ts::scheme<ts::int3, ts::group<1>, ts::fp32>>();
    check_bad_input<ts::scheme<ts::int8, ts::group<16>, ts::bf16>>();
    check_bad_input<ts::scheme<ts::uint4, ts::group<32>, ts::fp32, ts::affine>>();
    check_bad_input<ts::scheme<ts::uint1, ts::group<5>, ts::fp32, ts::affine>>();
    check_bad_input<ts::scheme<ts::bipolar<1>, ts::group<32>, ts::fp32>>();
    check_bad_input<ts::scheme<ts::bipolar<3>, ts::group<32>, ts::e8m0>>();
    check_bad_input<ts::scheme<ts::fixed_point<6, 3>, ts::block<2, 16>, ts::fp32>>();
    check_bad_input<ts::mx_e4m3>();
    check_bad_input<ts::nv_e2m1>();
    check_bad_input<ts::scheme<ts::uint4, ts::group<16>, ts::two_level<ts::uint8, ts::per_channel>, ts::affine>>();
    check_bad_input<ts::scheme<ts::e2m1, ts::group<32>, ts::two_level<ts::e8m0, ts::per_channel>>>();
}

TEST_CASE("names tell layouts apart") {
    CHECK(std::string{ts::two_level<ts::int6, ts::group<256>, ts::fp16>::name} == "int6 under fp16 of 1 x 256");
    CHECK(std::string{ts::nv_e2m1::scale_type::name} == "e4m3fn under fp32 of 0 x 0");
    static_assert(ts::quantized<ts::nv_e2m1>::super_scale_count(4, 100) == 1);
    static_assert(ts::quantized<ts::mx_e2m1>::super_scale_count(4, 100) == 0);
}
