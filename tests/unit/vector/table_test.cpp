// SPDX-License-Identifier: MIT
// Codes with tables that are data: every width, tables of the tensor, of rows and of groups, scales; fitting; bad input.

#include "vector_support.hpp"

#include <tessera/quant/table_quantize.hpp>

#include <cmath>
#include <limits>

using namespace tessera_test;

TEST_CASE("4 bits, one table, scales of groups") {
    check_vector_law<random_tables<4, ts::per_tensor, ts::fp16, ts::scaled_by<ts::fp16, ts::group<32>>>, archs_by_width>();
}
TEST_CASE("7 bits as 4 + 2 + 1, a table of 11 columns") { check_vector_law<random_tables<7, ts::group<11>, float>>(); }
TEST_CASE("6 bits, one table, scales of 7 columns") {
    check_vector_law<random_tables<6, ts::per_tensor, ts::fp16, ts::scaled_by<float, ts::group<7>>>>();
}
#if defined(TESSERA_TEST_EVERY_ARCH)
TEST_CASE("the other widths") { // any_precision_test.cpp judges tables of rows, of 3 and 8 bits
    check_vector_law<random_tables<3, ts::per_channel>>();
    check_vector_law<random_tables<1, ts::per_tensor>>();
    check_vector_law<random_tables<2, ts::per_channel>>();
    check_vector_law<random_tables<8, ts::per_tensor>>();
    check_vector_law<random_tables<5, ts::per_tensor, float, ts::scaled_by<float, ts::per_channel>>>();
}
#endif

TEST_CASE("NormalFloat levels") {
    std::vector<float> const nf4 = ts::normal_float_levels(4);
    double worst = 0;
    for (std::size_t i = 0; i < 16; ++i) worst = std::fmax(worst, std::abs(double{nf4[i]} - double{ts::nf4_table::values[i]}));
    CHECK(worst <= 1.93e-7);
    double const nf3[] = {-1, -0.478629085, -0.217141780, 0, 0.160930144, 0.337915137, 0.562616888, 1};
    double const nf2[] = {-1, 0, 0.337915137, 1};
    for (std::size_t i = 0; i < 8; ++i) CHECK(std::abs(double{ts::normal_float_levels(3)[i]} - nf3[i]) <= 5e-10 + 0x1p-24);
    for (std::size_t i = 0; i < 4; ++i) CHECK(std::abs(double{ts::normal_float_levels(2)[i]} - nf2[i]) <= 5e-10 + 0x1p-24);
    CHECK_THROWS_AS(ts::normal_float_levels(9), ts::shape_error);
}

TEST_CASE("the published error of NF4 by groups on a Gaussian") {
    // Published: block 32 .00762, 64 .00847, 128 .00914, all to 1 %; 256 Ki weights add 0.3 % of their own, twice.
    ts::matrix<float> const w = normal_matrix(128, 2048);
    auto const error = [&]<class G>(G) {
        using storage = ts::table_quantized<4, ts::per_tensor, float, ts::scaled_by<float, G>>;
        auto const q = ts::quantize_with_table<storage>(w, ts::nf4_table::values);
        return mean_squared_error(q.view(), w);
    };
    CHECK(std::abs(error(ts::group<32>{}) / .00762 - 1) < .016);
    CHECK(std::abs(error(ts::group<64>{}) / .00847 - 1) < .016);
    CHECK(std::abs(error(ts::group<128>{}) / .00914 - 1) < .016);
}

TEST_CASE("fitted tables: Lloyd-Max on a Gaussian, ascending, nearest, exact on few values") {
    ts::matrix<float> const w = normal_matrix(1, 1 << 16);
    auto const q = ts::quantize_tables<ts::table_quantized<3, ts::per_tensor, float>>(w);
    CHECK(std::abs(mean_squared_error(q.view(), w) / 0.034547761 - 1) < .02);
    for (int i = 1; i < 8; ++i) CHECK(q.view().values()[i - 1] < q.view().values()[i]);
    for (index_t k = 0; k < 64; ++k) {
        double const here = std::abs(double{w(0, k)} - double{q.view()(0, k)});
        for (int i = 0; i < 8; ++i) CHECK(here <= std::abs(double{w(0, k)} - double{q.view().values()[i]}));
    }
    // Tables of rows know their numbers: no worse than the distribution's best.
    ts::matrix<float> const rows = normal_matrix(16, 1024);
    auto const of_rows = ts::quantize_tables<ts::table_quantized<4, ts::per_channel>>(rows);
    CHECK(mean_squared_error(of_rows.view(), rows) < 0.009501008);
    ts::matrix<float> few{2, 12};
    for (index_t i = 0; i < 24; ++i) few.data()[i] = static_cast<float>(i % 4) - 1.5f;
    auto const exact = ts::quantize_tables<ts::table_quantized<2, ts::per_channel>>(few);
    ts::matrix<float> const back = decoded(exact.view());
    CHECK(same_bits<float>(back.view(), few.view()));
    // The importance moves the table to where the weight is: one weight alone counts.
    ts::matrix<float> importance{2, 12};
    importance(0, 1) = 1;
    auto const weighted = ts::quantize_tables<ts::table_quantized<1, ts::per_tensor, float>>(few.view(), importance.view());
    CHECK(weighted.view()(0, 1) == few(0, 1));
    // Importance counts with the square of a group's scale, which need be no float.
    ts::matrix<float> const some = normal_matrix(3, 24);
    ts::matrix<float> ones{3, 24};
    for (index_t i = 0; i < 72; ++i) ones.data()[i] = 1;
    using scaled = ts::table_quantized<3, ts::per_tensor, float, ts::scaled_by<float, ts::group<8>>>;
    auto const near_one = ts::quantize_tables<scaled>(some.view(), ones.view());
    for (float const size : {0x1p100f, 0x1p-100f}) {
        ts::matrix<float> other{3, 24};
        for (index_t i = 0; i < 72; ++i) other.data()[i] = size * some.data()[i];
        auto const q = ts::quantize_tables<scaled>(other.view(), ones.view());
        for (index_t i = 0; i < 72; ++i) CHECK(q.view()(i / 24, i % 24) == size * near_one.view()(i / 24, i % 24));
    }
}

TEST_CASE("a tie is the lower code") {
    ts::matrix<float> w{1, 4};
    w(0, 0) = 1.0f;
    w(0, 1) = 0.5f;
    w(0, 2) = -0.5f;
    w(0, 3) = 0.75f;
    float const table[] = {-1, 0, 1, 2};
    auto const q = ts::quantize_with_table<ts::table_quantized<2, ts::per_tensor>>(w, table);
    CHECK(q.view().code(0, 0) == 2);
    CHECK(q.view().code(0, 1) == 1);
    CHECK(q.view().code(0, 2) == 0);
    CHECK(q.view().code(0, 3) == 2);
}

TEST_CASE("bad input") {
    float const nan = std::numeric_limits<float>::quiet_NaN();
    ts::matrix<float> w = normal_matrix(3, 20);
    w(1, 5) = std::numeric_limits<float>::infinity();
    w(2, 7) = nan;
    for (index_t k = 8; k < 16; ++k) w(0, k) = 0.0f;
    auto const rows = ts::quantize_tables<ts::table_quantized<3, ts::per_channel>>(w);
    auto const groups = ts::quantize_with_table<ts::table_quantized<4, ts::per_tensor, float, ts::scaled_by<ts::fp16, ts::group<8>>>>(
        w, ts::nf4_table::values);
    auto const both = ts::quantize_tables<ts::table_quantized<3, ts::per_tensor, float, ts::scaled_by<ts::fp16, ts::group<8>>>>(w);
    for (index_t k = 0; k < 20; ++k) {
        CHECK(std::isfinite(rows.view()(0, k)));
        CHECK(std::isnan(rows.view()(1, k)));
        CHECK(std::isnan(rows.view()(2, k)));
        CHECK(std::isnan(groups.view()(1, k)) == (k < 8));
        CHECK(std::isnan(both.view()(2, k)) == (k < 8));
        if (k >= 8 && k < 16) CHECK(groups.view()(0, k) == 0.0f);
    }
    ts::matrix<float> large{1, 4};
    large(0, 0) = 3e38f;
    auto const capped =
        ts::quantize_with_table<ts::table_quantized<4, ts::per_tensor, float, ts::scaled_by<ts::fp16, ts::group<8>>>>(large, ts::nf4_table::values);
    CHECK(capped.view()(0, 0) == 65504.0f);
    // Rounded to fp16, the largest of the one table and the scale of the other (3.003) would give more than the largest float.
    float const above_one[] = {-1, 1.0006f};
    float const three[] = {-1, 3.4e38f / 3.0007f};
    large(0, 0) = std::numeric_limits<float>::max();
    auto const wide = ts::quantize_with_table<ts::table_quantized<1, ts::per_tensor, ts::fp16, ts::scaled_by<float, ts::group<8>>>>(large, above_one);
    auto const half = ts::quantize_with_table<ts::table_quantized<1, ts::per_tensor, float, ts::scaled_by<ts::fp16, ts::group<8>>>>(large, three);
    for (float const v : {wide.view()(0, 0), half.view()(0, 0)}) {
        CHECK(std::isfinite(v));
        CHECK(v > 3.39e38f);
    }
    // Without scales the table is NaN where a weight is.
    float const ends[] = {-1, 1};
    auto const unscaled = ts::quantize_with_table<ts::table_quantized<1, ts::per_tensor>>(w, ends);
    CHECK(std::isnan(unscaled.view()(0, 0)));
    float const endless[] = {-1, std::numeric_limits<float>::infinity()};
    CHECK_THROWS_AS((ts::quantize_with_table<ts::table_quantized<1, ts::per_tensor>>(large, endless)), ts::shape_error);
    // K = 0, a group larger than K, one weight.
    CHECK(ts::quantize_tables<ts::table_quantized<3, ts::group<8>>>(ts::matrix<float>{3, 0}).bytes() == 0);
    auto const single = ts::quantize_tables<ts::table_quantized<3, ts::group<64>, float>>(normal_matrix(1, 1));
    CHECK(single.view()(0, 0) == normal_matrix(1, 1)(0, 0));
    float const falling[] = {1, 0};
    CHECK_THROWS_AS((ts::quantize_with_table<ts::table_quantized<1, ts::per_tensor>>(w, falling)), ts::shape_error);
    CHECK_THROWS_AS((ts::quantize_with_table<ts::table_quantized<2, ts::per_tensor>>(w, falling)), ts::shape_error);
    ts::matrix<float> const narrow{3, 19};
    CHECK_THROWS_AS((ts::quantize_tables<ts::table_quantized<2, ts::per_tensor>>(w.view(), narrow.view())), ts::shape_error);
    CHECK_THROWS_AS((ts::table_quantized<2, ts::per_tensor>{nullptr, nullptr, nullptr, 1, 1}), ts::shape_error);
}
