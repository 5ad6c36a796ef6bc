// SPDX-License-Identifier: MIT
// The parts of examples/compress: its encodings, the divergence, the plot and the command line.

#include <doctest/doctest.h>

#include "../../../examples/compress/divergence.hpp"
#include "../../../examples/compress/encodings.hpp"
#include "../../../examples/compress/options.hpp"
#include "../../../examples/compress/plot.hpp"

#include <tessera/numerics/fp6_fp4.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

namespace ts = tessera;
using ts::index_t;
using namespace compress;

ts::matrix<float> random_matrix(index_t n, index_t k) {
    ts::matrix<float> w{n, k};
    ts::philox const random{3};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    return w;
}

template <class Encoding>
double noise(ts::matrix<float> const& w, Encoding const& encoding) {
    ts::matrix<float> const error = compress::detail::error_of(w.view(), encoding);
    double sum = 0;
    for (index_t i = 0; i < error.size(); ++i) sum += static_cast<double>(error.data()[i]) * static_cast<double>(error.data()[i]);
    return sum;
}

using int3_g32 = rounded<ts::scheme<ts::int3, ts::group<32>, ts::fp16>>;

options parse(std::vector<char const*> const& arguments) { return parse_options(arguments); }

} // namespace

TEST_CASE("encodings: bytes are what the format says, tails included") {
    ts::matrix<float> const w = random_matrix(5, 96);
    CHECK(rounded<ts::int4_g32>{w.view()}.bytes() == 5 * (96 / 2 + 3 * 2));
    CHECK(rounded<ts::int4_g64>{w.view()}.bytes() == 5 * (96 / 2 + 2 * 2));
    CHECK(rounded<ts::uint4_g32>{w.view()}.bytes() == 5 * (96 / 2 + 3 * 3));
    CHECK(blocks<ts::q4_1>{w.view()}.bytes() == 5 * 3 * 20);
    CHECK(narrowed<ts::fp16>{w.view()}.bytes() == 5 * 96 * 2);
    CHECK(rounded<ts::mx_e2m1>{w.view()}.bytes() == 5 * (96 / 2 + 3));
    CHECK(with_low_rank<int3_g32, 2>{w.view()}.bytes() == int3_g32{w.view()}.bytes() + 2 * 2 * (5 + 96));
    // 480 weights, 1 % of them: 5 of fp16 with a column each, and where rows begin.
    CHECK(with_outliers<int3_g32, 10>{w.view()}.bytes() > int3_g32{w.view()}.bytes() + 5 * 6);
}

TEST_CASE("encodings: what is on the grid stays") {
    ts::matrix<float> w{3, 64};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i % 15 - 7) * 0.5f;
    CHECK(noise(w, rounded<ts::int4_g32>{w.view()}) == 0);
    CHECK(noise(w, narrowed<ts::bf16>{w.view()}) == 0);
    constexpr float six_bits[] = {0, 0.25f, -7.5f, 1, 6.5f, -3};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = six_bits[i % 6];
    CHECK(noise(w, rounded<ts::mx_e2m3>{w.view()}) == 0);
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] *= 0x1p-9f;
    CHECK(noise(w, rounded<ts::mx_e2m3>{w.view()}) == 0);
}

TEST_CASE("encodings: powers of two as scales, at the ends of what they can be") {
    ts::matrix<float> w{1, 33};
    for (index_t i = 0; i < 33; ++i) w(0, i) = 0;
    CHECK(noise(w, rounded<ts::mx_e2m1>{w.view()}) == 0);
    w(0, 0) = 1e-44f; // its scale would be below the smallest
    CHECK(noise(w, rounded<ts::mx_e2m1>{w.view()}) <= 1e-44);
    w(0, 0) = std::numeric_limits<float>::max(); // saturates: 6 times 2^125
    ts::matrix<float> const error = compress::detail::error_of(w.view(), rounded<ts::mx_e2m1>{w.view()});
    CHECK(std::fabs(error(0, 0)) <= 0.25f * std::numeric_limits<float>::max());
    w(0, 1) = std::numeric_limits<float>::infinity();
    float row[33] = {};
    rounded<ts::mx_e2m1>{w.view()}.add_row(0, row);
    CHECK(std::isnan(row[5]));
    CHECK(row[32] == 0); // another block
}

TEST_CASE("encodings: corrections take error away") {
    ts::matrix<float> w = random_matrix(24, 64);
    w(3, 5) = 40; // an outlier spoils its group
    double const plain = noise(w, int3_g32{w.view()});
    CHECK(noise(w, with_outliers<int3_g32, 10>{w.view()}) < 0.8 * plain);
    CHECK(noise(w, with_low_rank<int3_g32, 4>{w.view()}) < plain);
    // Of full rank nothing is left but the rounding of the factors to fp16: 24 columns of at most 1, each u off, times error.
    CHECK(noise(w, with_low_rank<int3_g32, 24>{w.view()}) <= 24 * 24 * 0x1p-22 * plain);
    // An error of rank 0.
    ts::matrix<float> zeros{4, 32};
    for (index_t i = 0; i < zeros.size(); ++i) zeros.data()[i] = 0;
    CHECK(noise(zeros, with_low_rank<int3_g32, 2>{zeros.view()}) == 0);
}

TEST_CASE("divergence: closed forms") {
    // p = (1/4, 3/4), q = (1/2, 1/2): KL = log 2 - H(p).
    std::vector<float> const p{0, std::log(3.0f)}, q{5, 5};
    double const expected = 0.25 * std::log(0.5) + 0.75 * std::log(1.5);
    CHECK(std::fabs(divergence(p, q) - expected) <= 1e-7); // log 3 is rounded to float
    CHECK(divergence(p, p) == 0);
    std::vector<float> const large{1000, 1000}, moved{-1000, -1000};
    CHECK(divergence(large, moved) == 0);
    CHECK(std::fabs(log_sum_exp(large) - 1000 - std::log(2.0)) <= 1e-12);
    CHECK(most_probable(std::vector<float>{1, 3, 3, 2}) == 1);
}

TEST_CASE("plot: the front is what nothing beats") {
    panel p{"", {"x", false, false}, {"y", false, false}, {{1, 9, "a"}, {2, 9, "b"}, {2, 5, "c"}, {3, 6, "d"}, {4, 1, "e"}}};
    CHECK(pareto_front(p) == std::vector<std::size_t>{0, 2, 4});
    p.x.larger_is_better = true;
    CHECK(pareto_front(p) == std::vector<std::size_t>{4});
    p.y.larger_is_better = true;
    CHECK(pareto_front(p) == std::vector<std::size_t>{4, 3, 1});
    p.points.clear();
    CHECK(pareto_front(p).empty());
}

TEST_CASE("plot: points that an axis cannot show are left out, labels are escaped and apart") {
    plot p;
    p.title = "a < b & c";
    p.legend = {"one", "two"};
    panel on{"first", {"x", true, false}, {"y", true, false}, {}};
    for (int i = 0; i < 40; ++i) on.points.push_back({10.0 + 0.01 * i, 1, "label " + std::to_string(i), 0, false});
    on.points.push_back({1, 0, "zero", 1, false});
    on.points.push_back({-1, 2, "negative", 1, false});
    on.points.push_back({std::numeric_limits<double>::infinity(), 2, "infinite", 1, false});
    p.panels = {on, {"empty", {"x", true, false}, {"y", false, false}, {}}, {"one", {"x"}, {"y"}, {{3, 3, "alone"}}}};
    std::string const text = svg(p);
    CHECK(text.starts_with("<svg "));
    CHECK(text.ends_with("</svg>\n"));
    CHECK(text.find("a &lt; b &amp; c") != std::string::npos);
    for (char const* const left_out : {"zero", "negative", "nan", "inf"}) CHECK(text.find(left_out) == std::string::npos);
    CHECK(text.find("alone") != std::string::npos);

    // The boxes that labels take do not meet.
    std::vector<std::pair<double, double>> places;
    for (std::size_t at = text.find(">label"); at != std::string::npos; at = text.find(">label", at + 1)) {
        std::string const tag = text.substr(text.rfind("<text", at), at - text.rfind("<text", at));
        double const width = compress::detail::text_width("label 10");
        double const shift = tag.find("\"end\"") != std::string::npos ? width : tag.find("middle") != std::string::npos ? width / 2 : 0;
        places.emplace_back(std::stod(tag.substr(tag.find("x=\"") + 3)) - shift, std::stod(tag.substr(tag.find("y=\"") + 3)));
    }
    CHECK(places.size() > 5);
    for (std::size_t i = 0; i < places.size(); ++i)
        for (std::size_t j = 0; j < i; ++j)
            CHECK((std::fabs(places[i].first - places[j].first) > 35 || std::fabs(places[i].second - places[j].second) > 10));
}

TEST_CASE("compress options: defaults, and what is given") {
    auto const o = parse({});
    CHECK(o.model.ends_with(".gguf"));
    CHECK(o.output == ".");
    CHECK(!o.quick);
    auto const p = parse({"--quick", "--model=m.gguf", "--only", "int4,,Q4_0", "--output=o", "--threads", "2", "--text", "t"});
    CHECK(p.quick);
    CHECK(p.model == "m.gguf");
    CHECK(p.only == std::vector<std::string>{"int4", "Q4_0"});
    CHECK(p.output == "o");
    CHECK(p.threads == 2);
    CHECK(*p.text == "t");
    CHECK(parse({"-h"}).help);
}

TEST_CASE("compress options: what is wrong is refused with a sentence that names it") {
    auto const said = [](std::vector<char const*> const& arguments) {
        try {
            parse(arguments);
        } catch (usage_error const& e) {
            return std::string{e.what()};
        }
        return std::string{};
    };
    CHECK(said({"--fast"}) == "unknown option '--fast'");
    CHECK(said({"x"}) == "unknown option 'x'");
    CHECK(said({"--model"}) == "--model wants a value");
    CHECK(said({"--model="}) == "--model wants a value that is not empty");
    CHECK(said({"--only=,"}) == "--only wants a name");
    CHECK(said({"--quick=1"}) == "--quick takes no value");
    CHECK(said({"--threads=0"}) == "--threads is '0', expected a number from 1 to 1024");
    CHECK(said({"--threads=two"}) == "--threads is 'two', expected a number from 1 to 1024");
    CHECK(said({"--synthetic", "--model=m"}).find("different models") != std::string::npos);
    CHECK(said({"--synthetic", "--weights=w"}).find("different models") != std::string::npos);
    CHECK(said({"--weights=w", "--text=t"}).find("--text") != std::string::npos);
}
