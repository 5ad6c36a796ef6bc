// SPDX-License-Identifier: MIT
// Hooks of calibrated methods: re-encoding a subset changes its codes alone, and to the nearest; derivatives of decoding are
// finite differences of it, in every number that a weight is decoded with.

#include "support/random_matrix.hpp"

#include <tessera/numerics/error_bounds.hpp>
#include <tessera/quant/codec.hpp>
#include <tessera/quant/quantize.hpp>
#include <tessera/quant/table_quantize.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstddef>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

using tessera_test::random_matrix;

/// sum of gradient * decoded weight.
template <class View>
double loss(View const& q, ts::matrix<float> const& gradient) {
    double sum = 0;
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) sum += static_cast<double>(q(n, k)) * static_cast<double>(gradient(n, k));
    return sum;
}

/// How far differences of losses may be from derivatives: decoded weights and derivatives are rounded twice, their sums once, and
/// what the derivatives times the step come to is at most both sums of |gradient * weight|.
template <class View>
double roundings_of(View const& q, ts::matrix<float> const& gradient) {
    double sum = 0;
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) sum += std::fabs(static_cast<double>(q(n, k)) * static_cast<double>(gradient(n, k)));
    return ts::gamma(6, ts::unit_roundoff<float>) * sum;
}

/// The loss is linear in every number.
template <class Owner, class T>
void check_differences(Owner& q, ts::matrix<float> const& gradient, T* numbers, std::vector<float> const& expected) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
        T const before = numbers[i];
        double const base = loss(q.view(), gradient);
        double const from = static_cast<double>(static_cast<float>(before));
        numbers[i] = static_cast<T>(static_cast<float>(before) * 0.5f + 0.25f);
        double const step = static_cast<double>(static_cast<float>(numbers[i])) - from;
        double const slope = (loss(q.view(), gradient) - base) / step;
        double const roundings = roundings_of(q.view(), gradient);
        numbers[i] = before;
        CHECK(std::fabs(slope - static_cast<double>(expected[i])) <= (roundings + roundings_of(q.view(), gradient)) / std::fabs(step));
    }
}

std::vector<float> zeros(index_t n) { return std::vector<float>(static_cast<std::size_t>(n)); }
ts::vector_view<float> view_of(std::vector<float>& v) { return ts::vector_view<float>{v.data(), static_cast<index_t>(v.size())}; }

} // namespace

TEST_CASE("a subset is encoded anew, under the scales there are") {
    auto const w = random_matrix(6, 70, 1);
    auto const moved = random_matrix(6, 70, 2);
    using scheme = ts::scheme<ts::uint4, ts::group<32>, ts::fp16, ts::affine>;
    static_assert(ts::codec<ts::quantized_tensor<scheme>>);
    auto q = ts::quantize<scheme>(w);
    auto const before = ts::quantize<scheme>(w);
    std::vector<ts::weight_place> const places{{0, 0}, {0, 33}, {3, 69}, {5, 12}, {3, 69}};
    ts::encode_nearest(q, ts::matrix_view<float const>{moved.view()}, places);
    auto const changed = [&](index_t n, index_t k) {
        for (auto const& p : places)
            if (p.n == n && p.k == k) return true;
        return false;
    };
    for (index_t n = 0; n < 6; ++n)
        for (index_t k = 0; k < 70; ++k) {
            if (!changed(n, k)) {
                CHECK(q.view().code(n, k) == before.view().code(n, k));
                continue;
            }
            // No other code is nearer.
            float const scale = q.view().scale(n, k);
            auto const error = [&](std::uint32_t code) {
                return std::fabs(static_cast<double>(scale * (static_cast<float>(code) - static_cast<float>(q.view().zero_point(n, k)))) -
                                 static_cast<double>(moved(n, k)));
            };
            // The quotient, its sum with the zero point and decoding round.
            double const roundings = ts::gamma(4, ts::unit_roundoff<float>) * (std::fabs(static_cast<double>(moved(n, k))) + 32 * static_cast<double>(scale));
            for (std::uint32_t code = 0; code < 16; ++code) CHECK(error(q.view().code(n, k)) <= error(code) + roundings);
        }
    // All of it, with the weights it had, is what quantize chose; stochastic rounding included.
    for (auto const mode : {ts::rounding::nearest_even, ts::rounding::stochastic}) {
        ts::quantize_options const options{.mode = mode, .seed = 9};
        auto const expected = ts::quantize<ts::nv_e2m1>(w, options);
        auto again = ts::quantize<ts::nv_e2m1>(w);
        for (index_t n = 0; n < 6; ++n)
            for (index_t k = 0; k < 70; ++k)
                CHECK(ts::encode_nearest(again, ts::weight_place{n, k}, w(n, k), options) == expected.view()(n, k));
    }
    CHECK_THROWS_AS(ts::encode_nearest(q, ts::weight_place{6, 0}, 1.0f), ts::shape_error);
    std::vector<ts::weight_place> const outside{{0, 0}, {0, 70}};
    CHECK_THROWS_AS(ts::encode_nearest(q, ts::matrix_view<float const>{w.view()}, outside), ts::shape_error);
    CHECK(q.view().code(1, 1) == before.view().code(1, 1));
}

TEST_CASE("derivatives of schemes are differences of decoding") {
    auto const w = random_matrix(4, 48, 3);
    auto const gradient = random_matrix(4, 48, 4);
    {
        auto q = ts::quantize<ts::scheme<ts::uint4, ts::group<32>, ts::fp32, ts::affine>>(w);
        auto scales = zeros(8);
        auto zero_points = zeros(8);
        ts::decode_backward(q.view(), gradient.view(), {view_of(scales), {}, view_of(zero_points), {}});
        check_differences(q, gradient, q.scales(), scales);
        for (std::size_t i = 0; i < 8; ++i) { // bytes: a step of one
            double const base = loss(q.view(), gradient);
            double const roundings = roundings_of(q.view(), gradient);
            ++q.zero_points()[i];
            CHECK(std::fabs(loss(q.view(), gradient) - base - static_cast<double>(zero_points[i])) <=
                  roundings + roundings_of(q.view(), gradient));
            --q.zero_points()[i];
        }
    }
    {
        auto q = ts::quantize<ts::scheme<ts::int4, ts::group<16>, ts::two_level<ts::e4m3fn, ts::per_channel>>>(w);
        auto scales = zeros(12);
        auto super_scales = zeros(4);
        auto entries = zeros(16);
        ts::decode_backward(q.view(), gradient.view(), {view_of(scales), view_of(super_scales), {}, view_of(entries)});
        check_differences(q, gradient, q.scales(), scales);
        check_differences(q, gradient, q.super_scales(), super_scales);
        double sum = 0; // values of the format's codes: the loss is linear in them, and homogeneous
        for (std::uint32_t c = 0; c < 16; ++c) sum += static_cast<double>(ts::int4::decode(c)) * static_cast<double>(entries[c]);
        CHECK(std::fabs(sum - loss(q.view(), gradient)) <= roundings_of(q.view(), gradient));
        auto const short_ones = zeros(11);
        auto too_short = short_ones;
        CHECK_THROWS_AS(ts::decode_backward(q.view(), gradient.view(), {view_of(too_short), {}, {}, {}}), ts::shape_error);
        CHECK(too_short == short_ones);
    }
}

TEST_CASE("derivatives and subsets of tables") {
    auto const w = random_matrix(4, 48, 5);
    auto const gradient = random_matrix(4, 48, 6);
    using storage = ts::table_quantized<3, ts::per_channel, float, ts::scaled_by<float, ts::group<16>>>;
    auto q = ts::quantize_tables<storage>(w.view());
    static_assert(ts::codec<decltype(q)>);
    auto scales = zeros(12);
    auto entries = zeros(32);
    ts::decode_backward(q.view(), gradient.view(), {view_of(scales), {}, {}, view_of(entries)});
    check_differences(q, gradient, q.scales(), scales);
    check_differences(q, gradient, q.values(), entries);
    auto const chosen = q.view().code(2, 7);
    CHECK(ts::encode_nearest(q, ts::weight_place{2, 7}, w(2, 7)) == q.view()(2, 7));
    CHECK(q.view().code(2, 7) == chosen);
    ts::encode_nearest(q, ts::weight_place{2, 7}, 100.0f);
    float most = 0;
    for (std::uint32_t c = 0; c < 8; ++c) most = std::fmax(most, q.view().table_value(2, 0, c, 0));
    CHECK(q.view()(2, 7) == most * q.view().scale(2, 0));
}
