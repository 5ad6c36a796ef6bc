// SPDX-License-Identifier: MIT
// Batches of requests, merging of parts, sinks and the unified maximum.

#include "attention_support.hpp"

#include <tessera/attention/batch.hpp>
#include <tessera/attention/merge.hpp>
#include <tessera/attention/normaliser.hpp>
#include <tessera/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

} // namespace

TEST_CASE("attention_batch gives every request its own result, to the bit") {
    struct request {
        index_t queries, keys;
    };
    // A prompt, a chunk of one with 5 tokens before it, steps of decoding, nothing to ask, nothing to see.
    request const requests[] = {{40, 40}, {3, 8}, {1, 1500}, {0, 9}, {1, 70}, {2, 0}, {33, 200}};
    std::vector<ts::kv_cache<ts::key<float>, ts::value<ts::fp16>>> caches;
    std::vector<std::int32_t> offsets{0};
    for (auto const& r : requests) {
        caches.emplace_back(r.keys, 2, 24, 40);
        ts::append(native{}, caches.back(), random_tensor(r.keys, 2, 24, static_cast<std::uint64_t>(r.keys)),
                   random_tensor(r.keys, 2, 40, static_cast<std::uint64_t>(r.keys + 1)));
        offsets.push_back(offsets.back() + static_cast<std::int32_t>(r.queries));
    }
    index_t const tokens = offsets.back();
    auto const q = random_tensor(tokens, 6, 24, 3);
    ts::vector_view<std::int32_t const> const begins{offsets.data(), static_cast<index_t>(offsets.size())};
    auto const check = [&](auto const& exec) {
        ts::tensor<float, 3> out(tokens, 6, 40), expected(tokens, 6, 40);
        ts::matrix<float> lse(6, tokens), expected_lse(6, tokens);
        ts::attention_batch(exec, q, begins, caches, out, ts::causal, lse);
        for (std::size_t b = 0; b < caches.size(); ++b) {
            ts::range const rows{offsets[b], offsets[b + 1]};
            ts::attention(exec, ts::slice(q.view(), rows, ts::all, ts::all), caches[b],
                          ts::slice(expected.view(), rows, ts::all, ts::all), ts::causal,
                          ts::columns(expected_lse.view(), rows.first, rows.last));
        }
        CHECK(equal_bits(out, expected));
        CHECK(std::equal(lse.data(), lse.data() + lse.size(), expected_lse.data()));
    };
    check(ts::reference{});
    check(native{});
    ts::thread_pool pool{3};
    check(ts::cpu{ts::threads{pool}});

    // A score finds its request.
    auto const louder = [](auto s, auto at) noexcept { return s * decltype(s)(at.batch == 2 ? 2.0f : 1.0f); };
    ts::tensor<float, 3> out(tokens, 6, 40), expected(1, 6, 40);
    ts::attention_batch(native{}, q, begins, caches, out, ts::causal | louder);
    ts::attention(native{}, ts::slice(q.view(), ts::range{43, 44}, ts::all, ts::all), caches[2], expected,
                  ts::causal | [](auto s, auto) noexcept { return s * decltype(s)(2.0f); });
    CHECK(std::equal(expected.data(), expected.data() + expected.size(), &out(43, 0, 0)));

    std::vector<std::int32_t> wrong = offsets;
    wrong[2] = 39;
    CHECK_THROWS_WITH_AS(ts::attention_batch(native{}, q, ts::vector_view<std::int32_t const>{wrong.data(), begins.extent(0)},
                                             caches, out, ts::causal),
                         "tessera: attention_batch: an offset is 39, expected 40 to 80", ts::shape_error);
}

TEST_CASE("a chunk of a prompt: 3 queries behind 5 tokens see 6, 7 and 8 keys, and get what the whole prompt gives them") {
    auto const q = random_tensor(8, 4, 8, 1), k = random_tensor(8, 2, 8, 2), v = random_tensor(8, 2, 8, 3);
    ts::range const chunk{5, 8};
    ts::tensor<float, 3> whole(8, 4, 8), part(3, 4, 8);
    ts::attention(ts::reference{}, q, k, v, whole, ts::causal);
    ts::attention(ts::reference{}, ts::slice(q.view(), chunk, ts::all, ts::all), k, v, part, ts::causal);
    CHECK(std::equal(part.data(), part.data() + part.size(), &whole(5, 0, 0)));
    ts::matrix<float> lse(4, 3);
    ts::attention(native{}, ts::tensor<float, 3>(3, 4, 8), k, v, part, ts::causal, lse); // scores of 0
    for (index_t i = 0; i < 3; ++i) CHECK(std::nearbyint(1000 * std::exp(lse(2, i))) == static_cast<float>(1000 * (6 + i)));
}

TEST_CASE("merge_attention: parts of the keys give the whole, in any order") {
    index_t const keys = 120;
    auto const q = random_tensor(5, 4, 16, 1), k = random_tensor(keys, 2, 16, 2), v = random_tensor(keys, 2, 12, 3);
    ts::tensor<float, 3> whole(5, 4, 12);
    ts::matrix<float> whole_lse(4, 5);
    ts::attention(native{}, q, k, v, whole, ts::full, whole_lse);
    struct part {
        ts::tensor<float, 3> out{5, 4, 12};
        ts::matrix<float> lse{4, 5};
        operator ts::attention_part() const { return {out.view(), lse.view()}; }
    };
    auto const over = [&](index_t first, index_t last) {
        part p;
        ts::attention(native{}, q, ts::slice(k.view(), ts::range{first, last}, ts::all, ts::all),
                      ts::slice(v.view(), ts::range{first, last}, ts::all, ts::all), p.out, ts::full, p.lse);
        return p;
    };
    auto const merged = [](part const& a, part const& b) {
        part p;
        ts::merge_attention(native{}, a, b, p.out.view(), p.lse.view());
        return p;
    };
    part const a = over(0, 30), b = over(30, 100), c = over(100, 120), none = over(7, 7);
    // Each of at most three merges multiplies by a weight of error gamma(8 + |lse|) and adds: far below what is allowed.
    auto const equal = [&](part const& p) {
        double worst = 0;
        for (index_t i = 0; i < p.out.size(); ++i)
            worst = std::max(worst, std::fabs(double{p.out.data()[i]} - double{whole.data()[i]}));
        for (index_t i = 0; i < p.lse.size(); ++i)
            worst = std::max(worst, std::fabs(double{p.lse.data()[i]} - double{whole_lse.data()[i]}));
        return worst <= ts::gamma(keys + 60, ts::unit_roundoff<float>) * 4;
    };
    CHECK(equal(merged(merged(a, b), c)));
    CHECK(equal(merged(a, merged(c, b))));
    CHECK(equal(merged(merged(none, merged(b, a)), c)));
    part const same = merged(none, a);
    CHECK(equal_bits(same.out, a.out));
    CHECK(std::equal(same.lse.data(), same.lse.data() + same.lse.size(), a.lse.data()));
    CHECK(merged(none, none).lse(0, 0) == ts::minus_infinity);
    CHECK(merged(none, none).out(0, 0, 0) == 0.0f);
}

TEST_CASE("sinks: a row that sees nothing is zero, its log-sum-exp the sink") {
    float const logits[] = {2.5f, ts::minus_infinity};
    ts::sinks const sinks{ts::vector_view<float const>{logits, 2}};
    auto const check = [&](auto const& exec) {
        for (index_t const queries : {2, 30}) {
            auto const q = random_tensor(queries, 2, 8, 1), k = random_tensor(1, 1, 8, 2);
            ts::tensor<float, 3> out(queries, 2, 8), plain(queries, 2, 8);
            ts::matrix<float> lse(2, queries);
            ts::attention(exec, q, k, k, plain, ts::causal);
            ts::attention(exec, q, k, k, out, ts::causal | sinks, lse);
            CHECK(lse(0, 0) == 2.5f);
            CHECK(lse(1, 0) == ts::minus_infinity);
            CHECK(out(0, 0, 3) == 0.0f);
            CHECK(out(queries - 1, 1, 3) == plain(queries - 1, 1, 3)); // a sink of minus infinity is none
            CHECK(std::fabs(out(queries - 1, 0, 3)) < std::fabs(plain(queries - 1, 0, 3)));
        }
    };
    check(ts::reference{});
    check(native{});
}

TEST_CASE("unified maximum: the same results whatever the preset, out of range or not") {
    tally ratios;
    auto const check = [&](index_t queries, index_t keys, float preset, float low, float high, float loud) {
        auto q = random_tensor(queries, 4, 16, 1);
        for (index_t d = 0; d < 16; ++d) q(queries - 1, 1, d) *= loud;
        auto const k = random_tensor(keys, 2, 16, 2), v = random_tensor(keys, 2, 24, 3);
        ts::tensor<float, 3> expected(queries, 4, 24), out(queries, 4, 24);
        ts::matrix<float> expected_lse(4, queries), lse(4, queries);
        ts::attention(ts::reference{}, q, k, v, expected, ts::causal, expected_lse);
        ts::attention(native{}, q, k, v, out, ts::causal | ts::unified_maximum{preset, low, high}, lse);
        // What was judged with the true maximum has no larger error than that with a preset within the range: exponentials of
        // up to |low| have it too.
        double const wider = 1 + 2.0 * std::max(std::fabs(low), std::fabs(high)) / 16;
        CHECK(ratios(worst_ratio<float>(q.view(), ts::kv_view{k.view(), v.view()}, std::as_const(out).view(),
                                        std::as_const(expected).view(), std::as_const(lse).view(),
                                        std::as_const(expected_lse).view(), ts::causal) / wider));
    };
    for (index_t const queries : {1, 3, 60}) {
        check(queries, 1100, 0.0f, -60.0f, 60.0f, 1.0f);
        check(queries, 1100, 10.0f, -60.0f, 60.0f, 1.0f);
        check(queries, 1100, 0.0f, -60.0f, 60.0f, 100.0f); // one row is out of range
        check(queries, 1100, 0.0f, -1.0f, 1.0f, 1.0f);     // nearly all are
        check(queries, 3, 70.0f, -30.0f, 30.0f, 1.0f);     // the preset is far away
        check(queries, 0, 0.0f, -60.0f, 60.0f, 1.0f);
    }
    // By hand: scores 1, 3, 2 of values 1, 0, 4 give 1.068944, whatever the preset.
    ts::tensor<float, 3> one(1, 1, 1), scores(3, 1, 1), values(3, 1, 1), out(1, 1, 1);
    one(0, 0, 0) = 1;
    for (index_t t = 0; t < 3; ++t) {
        float const s[] = {1, 3, 2}, v[] = {1, 0, 4};
        scores(t, 0, 0) = s[t];
        values(t, 0, 0) = v[t];
    }
    for (float const preset : {0.0f, 2.0f, 10.0f})
        for (float const range : {60.0f, 3.0f}) { // with 10 and 3 all is computed again
            ts::attention(native{}, one, scores, values, out, ts::scaled{1.0f} | ts::unified_maximum{preset, -range, range});
            CHECK(std::fabs(double{out(0, 0, 0)} - 1.068944) <= 0.5e-6 + ts::gamma(40, ts::unit_roundoff<float>)); // six digits
        }
    // The paper's example: within (-3, 3) of 6 nothing is computed again; 9 - 6 is no longer within, and neither is 3 - 6.
    int calls = 0;
    auto const counting = [&calls](auto s, auto) noexcept { return ++calls, s; };
    auto const calls_of = [&](std::array<float, 4> const& four) {
        ts::tensor<float, 3> keys(4, 1, 1);
        std::copy(four.begin(), four.end(), keys.data());
        calls = 0;
        ts::attention(native{}, one, keys, keys, out, ts::scaled{1.0f} | counting | ts::unified_maximum{6.0f, -3.0f, 3.0f});
        return calls;
    };
    int const once = calls_of({4, 5, 6, 7});
    CHECK(calls_of({6, 6, 8.9f, 3.1f}) == once);
    CHECK(calls_of({3, 6, 9, 6}) > once);
    CHECK(calls_of({4, 6, 9, 6}) > once);
    CHECK(calls_of({3, 6, 8, 6}) > once);
    CHECK_THROWS_AS(ts::detail::check_score("attention", ts::unified_maximum{0.0f, -90.0f, 10.0f}, 1), ts::shape_error);
}
