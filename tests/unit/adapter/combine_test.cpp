// SPDX-License-Identifier: MIT
// Several adapters as one and adapters inside weights, judged by what PEFT makes of them (tests/data/adapter).
#include <doctest/doctest.h>

#include <tessera/adapter/combine.hpp>
#include <tessera/adapter/dora.hpp>
#include <tessera/adapter/merge.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/interop/safetensors.hpp>
#include <tessera/storage/mapped_file.hpp>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace {

namespace ts = tessera;
using ts::index_t;

struct judge {
    ts::mapped_file bytes{std::string{TESSERA_TEST_DATA} + "/adapter/peft.safetensors"};
    ts::safetensors::file file = ts::safetensors::parse(bytes.bytes(), "peft.safetensors");

    ts::matrix_view<float const> matrix(std::string const& name) const {
        return ts::safetensors::as_dense<float>(*file.find_tensor(name));
    }
    float scale(std::string const& name) const { return value(name + ".scale", 0); }
    float value(std::string const& name, index_t i) const {
        return reinterpret_cast<float const*>(file.find_tensor(name)->bytes.data())[i];
    }
    ts::dense_low_rank term(std::string const& name) const {
        return ts::low_rank{matrix(name + ".B"), matrix(name + ".A"), scale(name)};
    }
};

/// W of an operator, row by row, with the absolute sums that bound its rounding.
ts::matrix<double> dense(ts::dense_low_rank const& w, ts::matrix<double>& magnitude) {
    ts::matrix<double> out{w.rows(), w.cols()};
    magnitude = ts::matrix<double>{w.rows(), w.cols()};
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t k = 0; k < w.cols(); ++k)
            for (index_t r = 0; r < w.rank(); ++r) {
                double const p = double{w.factor()} * double{w.b().storage()(n, r)} * double{w.a().storage()(r, k)};
                out(n, k) += p;
                magnitude(n, k) += std::fabs(p);
            }
    return out;
}

constexpr double unit = 0x1p-24;

void check_delta(ts::dense_low_rank const& w, ts::matrix_view<float const> const& expected) {
    ts::matrix<double> magnitude;
    auto const delta = dense(w, magnitude);
    // Both sides round each product, factor and sum of float32: rank + 4 roundings each.
    for (index_t n = 0; n < w.rows(); ++n)
        for (index_t k = 0; k < w.cols(); ++k)
            CHECK(std::fabs(delta(n, k) - double{expected(n, k)}) <= 2 * static_cast<double>(w.rank() + 4) * unit * magnitude(n, k));
}

/// y = x (W + term)ᵀ against PEFT's.
template <class Op>
void check_outputs(judge const& j, Op const& op, ts::dense_low_rank const& term, std::string const& name) {
    auto const x = j.matrix("x");
    auto const w = j.matrix("weight");
    auto const expected = j.matrix(name);
    ts::matrix<float> y{x.extent(0), w.extent(0)};
    ts::apply(ts::cpu<>{}, op, x, y);
    ts::matrix<double> magnitude;
    static_cast<void>(dense(term, magnitude));
    for (index_t m = 0; m < y.extent(0); ++m)
        for (index_t n = 0; n < y.extent(1); ++n) {
            double bound = 0;
            for (index_t k = 0; k < w.extent(1); ++k)
                bound += std::fabs(double{x(m, k)}) * (std::fabs(double{w(n, k)}) + magnitude(n, k));
            bound *= 2 * static_cast<double>(w.extent(1) + term.rank() + 6) * unit;
            CHECK(std::fabs(double{y(m, n)} - double{expected(m, n)}) <= bound);
        }
}

ts::matrix<float> random(index_t n, index_t k, std::uint64_t seed, float size = 1) {
    ts::matrix<float> w{n, k};
    ts::philox const r{seed};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = size * r.normal(static_cast<std::uint64_t>(i));
    return w;
}

} // namespace

TEST_CASE("terms that PEFT concatenates, blends, and runs at once") {
    judge const j;
    auto const w = ts::linear{j.matrix("weight")};
    for (char const* const name : {"one", "two", "three"}) {
        CAPTURE(name);
        check_delta(j.term(name), j.matrix(std::string{name} + ".delta"));
        check_outputs(j, w + j.term(name), j.term(name), std::string{name} + ".y");
    }
    auto const cat = ts::stack(j.term("one"), -0.5f * j.term("three"));
    CHECK(cat.rank() == 8);
    check_delta(cat.view(), j.matrix("cat.delta"));
    check_outputs(j, w + cat.view(), cat.view(), "cat.y");
    check_outputs(j, ts::place(ts::cpu<>{}, w + cat.view()), cat.view(), "cat.y");
    auto const linear = ts::blend(0.7f * j.term("one"), 0.3f * j.term("two"));
    CHECK(linear.rank() == 3);
    check_delta(linear.view(), j.matrix("linear.delta"));
    check_outputs(j, w + linear.view(), linear.view(), "linear.y");
    auto const both = ts::stack(j.term("one"), j.term("three"));
    check_outputs(j, w + both.view(), both.view(), "both.y");
    check_outputs(j, w + j.term("one") + j.term("three"), both.view(), "both.y");
}

TEST_CASE("stack and blend: shapes") {
    auto const b = random(4, 2, 1);
    auto const a = random(2, 6, 2);
    auto const b3 = random(4, 3, 3);
    auto const a3 = random(3, 6, 4);
    auto const tall = random(5, 2, 5);
    auto const wide = random(2, 7, 6);
    ts::matrix<float> const b0{4, 0};
    ts::matrix<float> const a0{0, 6};
    ts::dense_low_rank const one = ts::low_rank{b, a, 2.0f};
    CHECK(ts::stack(one).rank() == 2);
    CHECK(ts::stack(one, ts::low_rank{b0, a0}).rank() == 2);
    CHECK(ts::stack(ts::low_rank{b0, a0}).rank() == 0);
    CHECK((0.5f * one).factor() == 1.0f);
    CHECK((one * 0.5f).rank() == 2);
    CHECK_THROWS_WITH_AS(ts::stack(std::span<ts::dense_low_rank const>{}), "tessera: stack: number of terms is 0, expected at least 1",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::stack(one, ts::low_rank{tall, a}), "tessera: stack: rows of a term is 5, expected 4 (rows of the first)",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::stack(one, ts::low_rank{b, wide}),
                         "tessera: stack: columns of a term is 7, expected 6 (columns of the first)", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::blend(one, ts::low_rank{b3, a3}), "tessera: blend: rank of a term is 3, expected 2 (rank of the first)",
                         ts::shape_error);
    auto owner = ts::stack(one);
    auto const moved = std::move(owner);
    CHECK(moved.rank() == 2);
    CHECK(owner.view().rows() == 0);
}

TEST_CASE("merged into float32: what PEFT's merge_and_unload gives") {
    judge const j;
    auto const check = [&](auto const& m, std::string const& name, ts::dense_low_rank const& term) {
        auto const expected = j.matrix(name);
        ts::matrix<double> magnitude;
        static_cast<void>(dense(term, magnitude));
        for (index_t n = 0; n < expected.extent(0); ++n)
            for (index_t k = 0; k < expected.extent(1); ++k) {
                // PEFT's sums are of float32; a norm has half a rounding a column more.
                double const bound = static_cast<double>(term.rank() + 6 + 20) * unit * (magnitude(n, k) + std::fabs(double{j.matrix("weight")(n, k)}));
                CHECK(std::fabs(double{m.weights(n, k)} - double{expected(n, k)}) <= 2 * bound);
                CHECK(m.error.max_error <= 2 * bound * 100);
            }
        CHECK(m.error.snr_db > 140); // one rounding to 24 bits
    };
    check(ts::merge(j.matrix("weight"), j.term("one")), "one.merged", j.term("one"));
    ts::vector<float> magnitude{12};
    for (index_t n = 0; n < 12; ++n) magnitude(n) = j.value("dora.magnitude", n);
    auto const base = ts::linear{j.matrix("weight")};
    auto const factors = ts::dora_factors(ts::cpu<>{}, base, j.term("dora"), magnitude);
    check(ts::merge(j.matrix("weight"), j.term("dora"), factors), "dora.merged", j.term("dora"));
    // Merged and beside: the same function.
    auto const m = ts::merge(j.matrix("weight"), j.term("dora"), factors);
    check_outputs(j, ts::linear{m.weights}, j.term("dora"), "dora.y");
}

TEST_CASE("merged into 16 bits: rounded once") {
    auto const b = random(9, 3, 1, 0.3f);
    auto const a = random(3, 40, 2, 0.1f);
    auto const term = ts::low_rank{b, a, 2.0f};
    auto const wide = random(9, 40, 3);
    auto const check = [&]<class T>(T) {
        ts::matrix<T> base{9, 40};
        for (index_t i = 0; i < base.size(); ++i) base.data()[i] = static_cast<T>(wide.data()[i]);
        auto const m = ts::merge(base, term);
        double worst = 0;
        for (index_t n = 0; n < 9; ++n)
            for (index_t k = 0; k < 40; ++k) {
                double exact = double{static_cast<float>(base(n, k))};
                for (index_t r = 0; r < 3; ++r) exact += 2 * double{b(n, r)} * double{a(r, k)};
                double const error = std::fabs(double{static_cast<float>(m.weights(n, k))} - exact);
                worst = std::max(worst, error);
                // No neighbour is nearer.
                auto const bits = m.weights(n, k).to_bits();
                for (int const step : {-1, 1}) {
                    auto const other = T::from_bits(static_cast<decltype(m.weights(n, k).to_bits())>(bits + step));
                    CHECK(error <= std::fabs(double{static_cast<float>(other)} - exact));
                }
            }
        CHECK(m.error.max_error == doctest::Approx(worst).epsilon(1e-12));
    };
    check(ts::bf16{});
    check(ts::fp16{});
    // Between two bf16, nearer to the upper by less than float32 shows: rounding twice gives the even, lower one.
    double const tie_and_more = 1.0 + 0x1p-8 + 0x1p-40;
    CHECK(static_cast<float>(ts::detail::round_once<ts::bf16>(tie_and_more)) == 1.0f + 0x1p-7f);
    CHECK(static_cast<float>(ts::detail::round_once<ts::bf16>(1.0 + 0x1p-8)) == 1.0f);
    CHECK(static_cast<float>(ts::detail::round_once<ts::bf16>(-tie_and_more)) == -1.0f - 0x1p-7f);
}

TEST_CASE("a NaN is no small error") {
    ts::matrix<float> w{3, 4}, b{3, 1}, a{1, 4};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = static_cast<float>(i);
    w(1, 1) = std::numeric_limits<float>::quiet_NaN();
    auto const m = ts::merge(w, ts::low_rank{b, a, 1.0f});
    CHECK(std::isnan(m.error.max_error));
    ts::vector<float> magnitude{3};
    for (index_t n = 0; n < 3; ++n) magnitude(n) = 1;
    auto const factors = ts::dora_factors(ts::cpu<>{}, ts::linear{w}, ts::low_rank{b, a, 1.0f}, magnitude);
    CHECK(factors(0) > 0);
    CHECK(std::isnan(factors(1)));
}

TEST_CASE("merged into quantised weights: the error that is reported is the error there is") {
    auto const w = random(24, 96, 1);
    auto const b = random(24, 4, 2, 0.3f);
    auto const a = random(4, 96, 3, 0.3f);
    auto const term = ts::low_rank{b, a, 0.5f};
    ts::vector<float> factors{24};
    for (index_t n = 0; n < 24; ++n) factors(n) = 0.9f + 0.01f * static_cast<float>(n);
    auto const check = [&](auto const& base, auto const& m, float const* f) {
        double exact_power = 0, change_power = 0, error_power = 0, worst = 0;
        for (index_t n = 0; n < 24; ++n)
            for (index_t k = 0; k < 96; ++k) {
                double delta = 0;
                for (index_t r = 0; r < 4; ++r) delta += 0.5 * double{b(n, r)} * double{a(r, k)};
                double const before = double{base(n, k)};
                double const exact = (f == nullptr ? 1.0 : double{f[n]}) * (before + delta);
                double const error = double{m.weights.view()(n, k)} - exact;
                exact_power += exact * exact, change_power += (exact - before) * (exact - before), error_power += error * error;
                worst = std::max(worst, std::fabs(error));
            }
        CHECK(m.error.max_error == doctest::Approx(worst));
        CHECK(m.error.snr_db == doctest::Approx(10 * std::log10(exact_power / error_power)));
        CHECK(m.error.adapter_snr_db == doctest::Approx(10 * std::log10(change_power / error_power)));
        return m.error.snr_db;
    };
    auto const q = ts::quantize<ts::int4_g32>(w);
    double const four = check(q.view(), ts::merge(q, term), nullptr);
    CHECK(check(q.view(), ts::merge(q.view(), term, factors), factors.data()) > 15);
    auto const q8 = ts::quantize<ts::int8_per_channel>(w);
    CHECK(check(q8.view(), ts::merge(q8, term), nullptr) > four + 15);
    ts::blocked_tensor<ts::q8_0> blocks{24, 96};
    for (index_t n = 0; n < 24; ++n) ts::encode_row<ts::q8_0>(w.data() + 96 * n, 96, blocks.row(n));
    auto const m = ts::merge(blocks, term);
    CHECK(check(blocks.view(), m, nullptr) > four + 15);
    auto const again = ts::linear{m.weights};
    CHECK(again.rows() == 24);
    // Nothing is merged: the weights stay, up to what quantising them again does.
    ts::matrix<float> const zero{24, 4};
    CHECK(ts::merge(q8, ts::low_rank{zero, a}).error.snr_db == std::numeric_limits<double>::infinity());

    CHECK_THROWS_WITH_AS(ts::merge(random(23, 96, 1), term), "tessera: merge: rows of the adapter is 24, expected 23 (rows of the base)",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::merge(random(24, 95, 1), term), "tessera: merge: columns of the adapter is 96, expected 95 (columns of the base)",
                         ts::shape_error);
    ts::vector<float> const few{23};
    CHECK_THROWS_WITH_AS(ts::merge(w, term, few), "tessera: merge: number of factors is 23, expected 24 (rows of the adapter)", ts::shape_error);
}
