// SPDX-License-Identifier: MIT
// The attention that keys receive, caches that keep the best of them, and pages that are left out.

#include "attention_support.hpp"

#include <tessera/attention/heavy_hitters.hpp>
#include <tessera/attention/page_selection.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

/// Keys are unit vectors and a query is the logarithm of its probabilities.
ts::tensor<float, 3> query(std::initializer_list<float> const& p) {
    ts::tensor<float, 3> q(1, 1, 4);
    index_t d = 0;
    for (float const x : p) q(0, 0, d++) = x > 0 ? std::log(x) : -100.0f;
    return q;
}
ts::tensor<float, 3> unit(index_t d) {
    ts::tensor<float, 3> k(1, 1, 4);
    k(0, 0, d) = 1;
    return k;
}

} // namespace

TEST_CASE("attention_mass: what all queries give a key") {
    auto const check = [](index_t queries, index_t keys, index_t group) {
        auto const q = random_tensor(queries, 2 * group, 20, 1), k = random_tensor(keys, 2, 20, 2);
        ts::kv_view const kv{k.view(), k.view()};
        ts::tensor<float, 3> out(queries, 2 * group, 20);
        ts::matrix<float> lse(2 * group, queries), expected(2, keys), mass(2, keys);
        for (index_t i = 0; i < mass.size(); ++i) expected.data()[i] = mass.data()[i] = 1.0f; // it is added to
        ts::attention(native{}, q, kv, out, ts::window{50}, lse);
        ts::attention_mass(ts::reference{}, q, kv, lse, ts::window{50}, expected);
        ts::attention_mass(native{}, q, kv, lse, ts::window{50}, mass);
        // A weight's error is that of its score, of the subtraction and of the exponential (attention_support.hpp); the
        // log-sum-exp is the same number for both. Then come a sum over queries, one more addition, and the definition's rounding.
        constexpr double u = ts::unit_roundoff<float>;
        double const scale = 1 / std::sqrt(20.0);
        double total = 0, total_allowed = 0;
        for (index_t t = 0; t < keys; ++t)
            for (index_t g = 0; g < 2; ++g) {
                double sum = 0, error = 0;
                for (index_t i = 0; i < queries; ++i)
                    for (index_t h = g * group; h < (g + 1) * group; ++h) {
                        double dot = 0, size = 0;
                        for (index_t d = 0; d < 20; ++d) {
                            dot += double{q(i, h, d)} * k(t, g, d);
                            size += std::fabs(double{q(i, h, d)} * k(t, g, d));
                        }
                        if (ts::window{50}(0.0, ts::coord<double>{keys - queries + i, t, 0.0, 0.0, h}) != 0.0) continue;
                        double const x = scale * dot - lse(h, i);
                        sum += std::exp(x);
                        error += std::exp(x) * std::expm1(ts::gamma(22, u) * scale * size + 2 * u * std::fabs(x) + 4 * u);
                    }
                double const allowed = error + ts::gamma(queries * group, u) * (sum + error) + 2 * u * (1 + sum + error);
                CHECK(std::fabs(double{mass(g, t)} - double{expected(g, t)}) <= allowed);
                total += mass(g, t) - 1.0;
                total_allowed += allowed;
            }
        // Every query that sees a key gives 1, to the error of its log-sum-exp; those before the first key see nothing.
        for (index_t i = 0; i < queries; ++i)
            for (index_t h = 0; h < 2 * group; ++h)
                total_allowed += std::expm1(bound_of(q.view(), kv, i, h, ts::window{50}).log_sum_exp);
        CHECK(std::fabs(total - static_cast<double>(std::min(queries, keys) * 2 * group)) <= total_allowed);
    };
    check(1, 100, 4);
    check(37, 1100, 3);
    check(70, 20, 1);
}

TEST_CASE("attention_with_mass: decoding keeps its scores; what is hidden is not read, a NaN stays one") {
    auto const check = [](auto const& kv, index_t queries, auto const& score, bool same_bits) {
        index_t const heads = 6, n = kv.tokens();
        auto const q = random_tensor(queries, heads, 24, 9);
        ts::tensor<float, 3> a(queries, heads, 24), b(queries, heads, 24);
        ts::matrix<float> lse(heads, queries), other(heads, queries), expected(2, n), mass(2, n);
        std::fill_n(expected.data(), 2 * n, 0.25f);
        std::fill_n(mass.data(), 2 * n, 0.25f);
        ts::attention(native{}, q, kv, a, score, lse);
        ts::attention_mass(native{}, q, kv, lse, score, expected);
        ts::attention_with_mass(native{}, q, kv, b, score, other, mass);
        CHECK(equal_bits(a, b));
        CHECK(std::equal(lse.data(), lse.data() + lse.size(), other.data()));
        for (index_t g = 0; g < 2; ++g)
            for (index_t t = 0; t < n; ++t) {
                // Scales of int8 keys come before the sum or after it: one score may be off by the roundings of a product of 24.
                double size = 0;
                for (index_t d = 0; d < 24; ++d) size += std::fabs(8.0 * kv.view().keys(g, t, d)); // |q| < 4, twice the scores' error
                double const allowed = same_bits ? 0 : std::expm1(ts::gamma(28, ts::unit_roundoff<float>) * size) * 3.0 * static_cast<double>(queries);
                CHECK(std::fabs(double{mass(g, t)} - double{expected(g, t)}) <= allowed);
            }
    };
    ts::kv_cache<ts::key<ts::fp16>, ts::value<float>> half{1300, 2, 24};
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<float>, ts::ring> bytes{70, 2, 24};
    for (index_t const n : {60, 1220}) {
        auto const k = random_tensor(n, 2, 24, 1), v = random_tensor(n, 2, 24, 2);
        ts::append(native{}, half, k, v);
        ts::append(native{}, bytes, k, v);
    }
    for (index_t const queries : {1, 3, 40}) {
        check(half, queries, ts::window{100}, true);
        check(bytes, queries, ts::window{100}, false);
    }
    // Keys that no query sees may be NaN; those that one sees are NaN in the definition, too.
    auto k = random_tensor(200, 1, 8, 1);
    auto const q = random_tensor(2, 1, 8, 2);
    for (index_t t = 0; t < 100; ++t) k(t, 0, 3) = std::numeric_limits<float>::quiet_NaN();
    ts::kv_view const kv{k.view(), k.view()};
    ts::tensor<float, 3> out(2, 1, 8);
    for (index_t const window : {90, 101}) {
        ts::matrix<float> lse(1, 2), mass(1, 200), expected(1, 200);
        std::fill_n(mass.data(), 200, 0.0f);
        std::fill_n(expected.data(), 200, 0.0f);
        ts::attention_with_mass(native{}, q, kv, out, ts::window{window}, lse, mass);
        ts::attention_mass(ts::reference{}, q, kv, lse, ts::window{window}, expected);
        for (index_t t = 0; t < 200; ++t) CHECK(std::isnan(mass(0, t)) == std::isnan(expected(0, t)));
        CHECK(std::isnan(mass(0, 150)) == (window == 101));
        CHECK(mass(0, 50) == 0.0f);
    }
    ts::matrix<float> lse(1, 2), narrow(1, 199);
    CHECK_THROWS_WITH_AS(ts::attention_with_mass(native{}, q, kv, out, ts::window{9}, lse, narrow),
                         "tessera: attention_with_mass: columns of mass is 199, expected 200 (tokens of the cache)", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::attention(native{}, q, kv, out, ts::window{9}, ts::matrix_view<float>{}),
                         "tessera: attention: rows of log_sum_exp is 0, expected 1 (heads of q)", ts::shape_error);
}

TEST_CASE("heavy_hitters: by hand") {
    using formats = ts::kv_formats<float>;
    ts::basic_any_kv_cache<formats> kv{formats::parse("fp32"), 4, 1, 4};
    ts::heavy_hitters keeper{1, 4, 1, 1};
    auto const step = [&](index_t d, std::initializer_list<float> const& p) {
        ts::append(native{}, kv, unit(d), unit(d));
        ts::tensor<float, 3> out(1, 1, 4);
        keeper.attend(native{}, query(p), kv, out, ts::scaled{1.0f} | ts::causal);
    };
    // A probability p comes back with the roundings of its logarithm l (l u), of the log-sum-exp (those of exponentials and their sum
    // of 4), of a difference (2 l u) and an exponential (4 u and l u); the sum of 4 steps has 4 more. l is at most log 10.
    auto const close = [](float score, double expected) {
        constexpr double u = ts::unit_roundoff<float>;
        double const l = std::log(10.0);
        return std::fabs(double{score} - expected) <= std::expm1(l * u + (4 + 2 * l + 4) * u + 2 * l * u + (4 + l) * u + 4 * u) * expected;
    };
    step(0, {1});
    step(1, {.6f, .4f});
    step(2, {.2f, .3f, .5f});
    double const scores[] = {1.0 + double{.6f} + double{.2f}, double{.4f} + double{.3f}, double{.5f}};
    for (index_t t = 0; t < 3; ++t) CHECK(close(keeper.score(0, t), scores[t]));
    keeper.evict(native{}, kv);
    CHECK(kv.tokens() == 2);
    CHECK(kv.view().keys(0, 0, 0) == 1.0f);
    CHECK(kv.view().keys(0, 1, 2) == 1.0f);
    CHECK(kv.view().values(0, 1, 2) == 1.0f);
    step(3, {.1f, 0, .5f, .4f});
    double const later[] = {scores[0] + double{.1f}, scores[2] + double{.5f}, double{.4f}};
    for (index_t t = 0; t < 3; ++t) CHECK(close(keeper.score(0, t), later[t]));
    keeper.evict(native{}, kv);
    CHECK(kv.view().keys(0, 0, 0) == 1.0f);
    CHECK(kv.view().keys(0, 1, 3) == 1.0f);
    keeper.evict(native{}, kv); // within the budget: nothing happens
    CHECK(kv.tokens() == 2);
    // A call that fails counts nothing.
    ts::append(native{}, kv, unit(1), unit(1));
    ts::matrix<float> const wrong(2, 1);
    CHECK_THROWS_AS(keeper.observe(native{}, query({1}), kv, wrong, ts::scaled{1.0f} | ts::causal), ts::shape_error);
    CHECK(keeper.tokens() == 2);
    CHECK_THROWS_AS((ts::heavy_hitters{1, 4, -1, 1}), ts::shape_error);
    ts::basic_any_kv_cache<formats> rolling{{0, 0}, 4, 1, 4, ts::kv_layout::ring};
    CHECK_THROWS_AS(keeper.evict(native{}, rolling), ts::shape_error);
}

TEST_CASE("heavy_hitters: every head keeps its own, the newest always, the older of equals") {
    index_t const n = 40;
    ts::kv_cache<ts::key<float>, ts::value<float>> kv{n, 3, 8};
    auto const k = random_tensor(n, 3, 8, 1), q = random_tensor(n, 6, 8, 2);
    ts::append(native{}, kv, k, k);
    ts::tensor<float, 3> out(n, 6, 8);
    ts::matrix<float> lse(6, n), mass(3, n);
    ts::attention(native{}, q, kv, out, ts::causal, lse);
    ts::heavy_hitters keeper{3, n, 5, 7};
    keeper.observe(native{}, q, kv, lse, ts::causal);
    ts::attention_mass(native{}, q, kv, lse, ts::causal, mass);
    keeper.evict(native{}, kv);
    CHECK(kv.tokens() == 12);
    for (index_t h = 0; h < 3; ++h) {
        std::vector<index_t> order(static_cast<std::size_t>(n - 7));
        std::iota(order.begin(), order.end(), 0);
        std::sort(order.begin(), order.end(), [&](index_t a, index_t b) {
            return mass(h, a) > mass(h, b) || (mass(h, a) == mass(h, b) && a < b);
        });
        order.resize(5);
        std::sort(order.begin(), order.end());
        for (index_t t = n - 7; t < n; ++t) order.push_back(t);
        for (index_t t = 0; t < 12; ++t)
            for (index_t d = 0; d < 8; ++d) CHECK(kv.view().keys(h, t, d) == k(order[static_cast<std::size_t>(t)], h, d));
    }
}

TEST_CASE("select_pages: sinks, a window and the best of the rest; enough pages are dense attention") {
    index_t const n = 83, heads = 6;
    ts::kv_cache<ts::key<float>, ts::value<ts::fp16>> kv{100, 2, 16};
    auto k = random_tensor(n, 2, 16, 1);
    auto const v = random_tensor(n, 2, 16, 2), q = random_tensor(1, heads, 16, 3);
    // Page 3 is KV head 0's best: along the sum of its queries.
    for (index_t t = 24; t < 32; ++t)
        for (index_t d = 0; d < 16; ++d) k(t, 0, d) += 3 * (q(0, 0, d) + q(0, 1, d) + q(0, 2, d));
    ts::page_means means{2, 16, 8};
    ts::append(native{}, kv, ts::slice(k.view(), ts::range{0, 50}, ts::all, ts::all), ts::slice(v.view(), ts::range{0, 50}, ts::all, ts::all));
    means.update(kv);
    CHECK(means.pages() == 6);
    ts::append(native{}, kv, ts::slice(k.view(), ts::range{50, n}, ts::all, ts::all), ts::slice(v.view(), ts::range{50, n}, ts::all, ts::all));
    means.update(kv);
    CHECK(means.pages() == 10);
    std::vector<std::uint8_t> bytes(static_cast<std::size_t>(heads * 11));
    ts::tensor_view<std::uint8_t, 3> const seen{bytes.data(), heads, 1, 11};
    ts::select_pages(q, kv, means, {4, 10, 2}, seen);
    for (index_t h = 0; h < heads; ++h) {
        int count = 0;
        for (index_t p = 0; p < 11; ++p) {
            count += seen(h, 0, p);
            CHECK(seen(h, 0, p) == seen(h / 3 * 3, 0, p)); // heads of a KV head share pages
        }
        CHECK(count == 1 + 2 + 2); // a sink's page, those of tokens 73 to 82, two chosen
        CHECK(seen(h, 0, 0) + seen(h, 0, 9) + seen(h, 0, 10) == 3);
    }
    CHECK(seen(0, 0, 3) == 1);
    auto const run = [&](auto const& score) {
        ts::tensor<float, 3> out(1, heads, 16);
        ts::attention(native{}, q, kv, out, score);
        return out;
    };
    ts::tensor<float, 3> some(1, heads, 16), expected(1, heads, 16);
    ts::matrix<float> lse(heads, 1), expected_lse(heads, 1);
    ts::seen_where const rule{[&](index_t, index_t key, index_t h) noexcept { return seen(h, 0, key / 8) != 0; }};
    ts::attention(native{}, q, kv, some, ts::causal | ts::block_mask{seen, kv.end_position(), 8}, lse);
    ts::attention(ts::reference{}, q, kv, expected, rule, expected_lse);
    CHECK(worst_ratio<float>(q.view(), kv.view(), std::as_const(some).view(), std::as_const(expected).view(),
                             std::as_const(lse).view(), std::as_const(expected_lse).view(), rule) <= 1);
    ts::select_pages(q, kv, means, {4, 10, 8}, seen);
    CHECK(equal_bits(run(ts::causal | ts::block_mask{seen, kv.end_position(), 8}), run(ts::causal)));
    CHECK_THROWS_AS(ts::select_pages(k, kv, means, {4, 10, 8}, seen), ts::shape_error);
    ts::page_means const others{1, 16, 8};
    CHECK_THROWS_WITH_AS(ts::select_pages(q, kv, others, {4, 10, 8}, seen),
                         "tessera: select_pages: KV heads of the means is 1, expected 2 (KV heads of the cache)", ts::shape_error);
}
