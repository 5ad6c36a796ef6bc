// SPDX-License-Identifier: MIT
// Ternary weights: all codes, absmean as published with its golden numbers, five to a byte, packed checkpoints.

#include "support/message_of.hpp"

#include <doctest/doctest.h>

#include <tessera/quant/ternary.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

/// The quantile of the normal distribution at p, by bisection of its distribution function.
double normal_quantile(double p) {
    double low = -9;
    double high = 9;
    for (int i = 0; i < 60; ++i) {
        double const middle = (low + high) / 2;
        (std::erfc(-middle / std::sqrt(2.0)) / 2 < p ? low : high) = middle;
    }
    return (low + high) / 2;
}

using tessera_test::message_of;

} // namespace

TEST_CASE("ternary: every code and the nearest value") {
    for (std::uint32_t code = 0; code < 3; ++code) {
        CHECK(ts::ternary::decode(code) == static_cast<float>(code) - 1.0f);
        CHECK(ts::ternary::encode(ts::ternary::decode(code)) == code);
    }
    CHECK(ts::ternary::decode(3) == 2.0f);
    CHECK(ts::ternary::decode(5) == 0.0f); // bits above the format's are ignored
    CHECK(ts::ternary::encode(0.5f) == 1u);
    CHECK(ts::ternary::encode(0.500001f) == 2u);
    CHECK(ts::ternary::encode(-0.5f, ts::rounding::half_away) == 0u);
    CHECK(ts::ternary::encode(1e30f) == 2u);
    CHECK(ts::ternary::encode(-std::numeric_limits<float>::infinity()) == 0u);
    CHECK(ts::ternary::encode(std::numeric_limits<float>::quiet_NaN()) == 1u);
}

TEST_CASE("absmean on a unit Gaussian") {
    // Stratified quantiles: the mean of a smooth function over 2^16 of them is right to about 1e-5.
    index_t const count = 1 << 16;
    ts::matrix<float> w{256, count / 256};
    for (index_t i = 0; i < count; ++i)
        w.view()(i / 256, i % 256) = static_cast<float>(normal_quantile((static_cast<double>(i) + 0.5) / count));
    auto const q = ts::quantize_absmean(w);
    double error = 0;
    index_t zeros = 0;
    for (index_t i = 0; i < count; ++i) {
        double const t = static_cast<double>(q.view()(i / 256, i % 256));
        zeros += t == 0;
        error += std::pow(t - static_cast<double>(w.view()(i / 256, i % 256)), 2);
    }
    CHECK(std::abs(error / count - 0.263382) < 1e-4);
    CHECK(std::abs(static_cast<double>(zeros) / count - 0.310064) < 1e-4);
    CHECK(std::abs(static_cast<double>(q.view().scales()[0]) - std::sqrt(2 / std::acos(-1.0))) < 1e-4);
}

TEST_CASE("absmean: granularities, zeros and what is not finite") {
    float data[2][6] = {{1, -1, 0.2f, 0, 0, 0}, {4, 0, -2, 0.5f, 7, 7}};
    ts::matrix_view<float const> const w{&data[0][0], 2, 6};
    auto const tensor = ts::quantize_absmean(w);
    CHECK(tensor.view().scales()[0] == 1.0f / (1.0f / static_cast<float>((22.5 + double{0.2f}) / 12)));
    auto const rows = ts::quantize_absmean<ts::ternary_per_channel>(w);
    CHECK(rows.view()(0, 0) == rows.view().scales()[0]);
    CHECK(rows.view()(0, 2) == rows.view().scales()[0]); // 0.2 of a mean of 0.37
    CHECK(rows.view()(1, 3) == 0.0f);
    auto const groups = ts::quantize_absmean<ts::scheme<ts::ternary, ts::group<4>, ts::fp16>>(w);
    CHECK(groups.view().scale_columns() == 2);
    CHECK(groups.view()(0, 5) == 0.0f); // a group of zeros: scale 1e-5, weights 0
    CHECK(groups.view()(1, 5) == 7.0f);
    data[1][5] = std::numeric_limits<float>::infinity();
    auto const bad = ts::quantize_absmean<ts::ternary_per_channel>(w);
    CHECK(std::isnan(bad.view()(1, 0)));
    CHECK(!std::isnan(bad.view()(0, 0)));
    CHECK(ts::quantize_absmean(ts::matrix_view<float const>{nullptr, 0, 5}).rows() == 0);
    CHECK(ts::quantize_absmean(ts::matrix_view<float const>{nullptr, 5, 0}).cols() == 0);
}

TEST_CASE("five to a byte and back") {
    using scheme = ts::scheme<ts::ternary, ts::group<7>>;
    for (index_t const k : {0, 1, 4, 5, 6, 23, 25}) {
        CAPTURE(k);
        ts::quantized_tensor<scheme> q{3, k};
        auto const view = q.view();
        for (index_t n = 0; n < 3; ++n)
            for (index_t j = 0; j < k; ++j)
                ts::bitpack::set<2>(q.codes() + n * view.row_bytes(), j, static_cast<std::uint32_t>((j * j + 2 * n + j / 3) % 3));
        for (index_t s = 0; s < view.scale_rows() * view.scale_columns(); ++s) q.scales()[s] = static_cast<float>(s + 1);
        auto const packed = ts::pack_base3(q);
        CHECK(packed.view().row_bytes(k) == (k + 4) / 5);
        auto const back = ts::unpack_base3(packed);
        for (index_t n = 0; n < 3; ++n)
            for (index_t j = 0; j < k; ++j) {
                CHECK(packed.view()(n, j) == view(n, j));
                CHECK(back.view()(n, j) == view(n, j));
            }
    }
    // All 243 bytes are sums of their digits; five columns of the largest is 242.
    for (int byte = 0; byte < 243; ++byte) {
        auto const& d = ts::detail::digits_of_base3.digit[byte];
        CHECK(d[0] + 3 * d[1] + 9 * d[2] + 27 * d[3] + 81 * d[4] == byte);
    }
    ts::quantized_tensor<ts::ternary_per_tensor> bad{1, 2};
    ts::bitpack::set<2>(bad.codes(), 1, 3);
    CHECK(message_of([&] { ts::pack_base3(bad); }) ==
          "tessera: pack_base3: code 3 at row 0, column 1, expected 0 to 2: -1, 0 and 1");
}

TEST_CASE("rows of a packed checkpoint") {
    // Six rows: two rows of bytes, of which the second half of the last two is empty.
    std::uint8_t const bytes[2][1] = {{0b00'10'01'00}, {0b00'00'10'01}};
    auto const q = ts::ternary_from_packed_rows(ts::matrix_view<std::uint8_t const>{&bytes[0][0], 2, 1}, 6, 0.5f);
    float const expected[6] = {-0.5f, 0, 0, 0.5f, 0.5f, -0.5f};
    for (index_t n = 0; n < 6; ++n) CHECK(q.view()(n, 0) == expected[n]);
    CHECK(message_of([&] { ts::ternary_from_packed_rows(ts::matrix_view<std::uint8_t const>{&bytes[0][0], 2, 1}, 9, 1.0f); })
              .find("rows of packed") != std::string::npos);
}
