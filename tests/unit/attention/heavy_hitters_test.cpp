// SPDX-License-Identifier: MIT
// Caches that keep the keys that receive most attention, and pages that are left out.

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
    constexpr index_t most = std::numeric_limits<index_t>::max();
    ts::heavy_hitters keeps_all{1, 4, most, most};
    ts::tensor<float, 3> out(1, 1, 4);
    keeps_all.attend(native{}, query({1}), kv, out, ts::causal);
    keeps_all.evict(native{}, kv);
    CHECK(kv.tokens() == 3);
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

TEST_CASE("page_means: a page's score is the mean of its keys' scores") {
    ts::kv_cache<ts::key<float>, ts::value<float>> kv{2, 1, 2};
    ts::tensor<float, 3> k(2, 1, 2);
    k(0, 0, 0) = k(1, 0, 1) = 1;
    ts::append(ts::reference{}, kv, k, k);
    ts::page_means means{1, 2, 2};
    means.update(kv);
    CHECK(2 * means.mean(0, 0)[0] + 1 * means.mean(0, 0)[1] == 1.5f); // q = (2, 1): scores 2 and 1
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
    ts::select_pages(q, kv, means, {std::numeric_limits<index_t>::max(), 0, 0}, seen);
    CHECK(std::count(bytes.begin(), bytes.end(), std::uint8_t{1}) == heads * 11);
    // Pages of NaN are the last to be seen.
    for (index_t t = 32; t < n; ++t) k(t, 0, 5) = std::numeric_limits<float>::quiet_NaN();
    ts::kv_cache<ts::key<float>, ts::value<ts::fp16>> poisoned{100, 2, 16};
    ts::append(native{}, poisoned, k, v);
    ts::page_means of_poisoned{2, 16, 8};
    of_poisoned.update(poisoned);
    ts::select_pages(q, poisoned, of_poisoned, {0, 3, 4}, seen);
    for (index_t p = 0; p < 11; ++p) CHECK(seen(0, 0, p) == (p < 4 || p == 10 ? 1 : 0));
    CHECK_THROWS_AS(ts::select_pages(k, kv, means, {4, 10, 8}, seen), ts::shape_error);
    ts::page_means const others{1, 16, 8};
    CHECK_THROWS_WITH_AS(ts::select_pages(q, kv, others, {4, 10, 8}, seen),
                         "tessera: select_pages: KV heads of the means is 1, expected 2 (KV heads of the cache)", ts::shape_error);
}
