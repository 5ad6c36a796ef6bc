// SPDX-License-Identifier: MIT
// Prefill from caches of small integers: where the processor has matrix tiles, codes are multiplied as they are, with queries and
// weights in digits. Judged by the definition and float32's bound.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace attention_tests;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

struct sizes {
    index_t queries, keys, heads, dim;
};

template <class Format, class Score = ts::causal_t>
double ratio(sizes const& s, Score const& score = {}, float spike = 0) {
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.dim);
    ts::kv_cache<ts::key<Format>, ts::value<Format>> kv{s.keys, 2, s.dim};
    ts::append(ts::reference{}, kv, random_tensor(s.keys, 2, s.dim, 1), random_tensor(s.keys, 2, s.dim, 2));
    auto q = random_tensor(s.queries, s.heads, s.dim, 3);
    if (spike != 0) q(0, 0, s.dim / 2) = spike;
    ts::tensor<float, 3> expected(s.queries, s.heads, s.dim), out(s.queries, s.heads, s.dim);
    ts::matrix<float> expected_lse(s.heads, s.queries), lse(s.heads, s.queries);
    ts::attention(ts::reference{}, q, kv, expected, score, expected_lse);
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, score, lse);
    double const worst = worst_ratio<float>(q.view(), kv.view(), std::as_const(out).view(), std::as_const(expected).view(),
                                            std::as_const(lse).view(), std::as_const(expected_lse).view(), score);
    CHECK(worst <= 1);
    return worst;
}

} // namespace

TEST_CASE("prefill of codes: tiles of keys, of columns, of queries; their edges") {
    double worst = 0;
    for (sizes const s : {sizes{16, 16, 2, 64}, {5, 1, 4, 8}, {33, 79, 8, 128}, {6, 300, 6, 72}, {70, 130, 2, 192}, {200, 200, 2, 40}}) {
        worst = std::max(worst, ratio<ts::int8_per_token>(s));
        worst = std::max(worst, ratio<ts::int4_g64>(s));
    }
    CHECK(worst >= 0.05);
    ratio<ts::scheme<ts::e2m1, ts::group<32>, ts::fp16>>({20, 141, 4, 96});
    ratio<ts::uint4_g128>({20, 141, 4, 160});
}

TEST_CASE("prefill of codes: windows begin within a tile, rows that see nothing, one large number in a query") {
    ratio<ts::int8_per_token>({90, 300, 4, 64}, ts::causal | ts::window{75});
    for (float const spike : {1e4f, 1e-4f}) ratio<ts::int4_g64>({20, 200, 8, 128}, ts::causal, spike);
    ratio<ts::int4_g64>({90, 90, 4, 64}, [](auto s, auto at) noexcept {
        using value = decltype(s);
        using ts::select;
        value const near = select(at.distance() < value(30.0f), s, value(ts::minus_infinity));
        return select(at.distance() < value(5.0f), value(ts::minus_infinity), near);
    });
}

TEST_CASE("prefill of codes: queries that are not finite, scales that are NaN, and what no query sees") {
    auto const keys = random_tensor(200, 2, 64, 1);
    auto values = random_tensor(200, 2, 64, 2);
    values(199, 0, 3) = nan_value; // the whole group's; the last query alone sees it
    ts::kv_cache<ts::key<ts::int4_g64>, ts::value<ts::int4_g64>> kv{200, 2, 64};
    ts::append(ts::reference{}, kv, keys, values);
    auto q = random_tensor(50, 4, 64, 3);
    ts::tensor<float, 3> out(50, 4, 64), first(49, 4, 64);
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    bool right = true;
    for (index_t i = 0; i < 50; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (i == 49 && h < 2);
    CHECK(right);
    q(7, 3, 5) = nan_value;
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, ts::causal);
    right = true;
    for (index_t i = 0; i < 49; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (i == 7 && h == 3);
    CHECK(right);
    // A score that is no number makes its query's output NaN, and no other's.
    q(7, 3, 5) = 1;
    values(199, 0, 3) = 1;
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> clean{200, 2, 64};
    ts::append(ts::reference{}, clean, keys, values);
    ts::attention(ts::cpu{ts::serial{}}, q, clean, out, ts::causal | [](auto s, auto at) noexcept {
        using value = decltype(s);
        using ts::select;
        return select(at.distance() > value(170.0f), value(nan_value), s);
    });
    right = true;
    for (index_t i = 0; i < 50; ++i)
        for (index_t h = 0; h < 4; ++h)
            for (index_t d = 0; d < 64; ++d) right &= std::isnan(out(i, h, d)) == (150 + i > 170);
    CHECK(right);
}
