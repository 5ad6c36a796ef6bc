// SPDX-License-Identifier: MIT
// GEAR's caches: golden numbers, what is exact, what is read back, attention over it.

#include "attention_support.hpp"

#include <tessera/attention/gear.hpp>
#include <tessera/core/thread_pool.hpp>

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

ts::gear_options options_of(double outliers, index_t group, index_t buffer, index_t rank) {
    return {outliers, group, buffer, rank, rank};
}

/// What is read back of one vector of four numbers, as the token of a value or as the channel of a key.
template <class Exec>
std::vector<float> round_trip(Exec const& exec, std::vector<float> const& x, double outliers, bool is_key) {
    auto const n = static_cast<index_t>(x.size());
    index_t const tokens = is_key ? n : 1, dim = is_key ? 1 : n;
    ts::gear_kv_cache<2, float> kv{tokens, 1, dim, options_of(outliers, 0, tokens, 0)};
    ts::tensor<float, 3> a(tokens, 1, dim);
    std::copy(x.begin(), x.end(), a.data());
    ts::append(exec, kv, a, a);
    std::vector<float> result;
    auto const v = kv.view();
    for (index_t i = 0; i < n; ++i)
        result.push_back(is_key ? v.keys(0, i, 0) : v.values(0, 0, i));
    return result;
}

/// Sum of squared errors of the keys, and of the values.
template <class Cache>
double error_of(Cache const& kv, ts::tensor<float, 3> const& k, ts::tensor<float, 3> const& v) {
    auto const view = kv.view();
    double sum = 0;
    for (index_t t = 0; t < view.tokens; ++t)
        for (index_t h = 0; h < view.kv_heads; ++h) {
            for (index_t d = 0; d < view.key_dim; ++d) sum += std::pow(double{view.keys(h, t, d)} - double{k(t, h, d)}, 2.0);
            for (index_t d = 0; d < view.value_dim; ++d) sum += std::pow(double{view.values(h, t, d)} - double{v(t, h, d)}, 2.0);
        }
    return sum;
}

} // namespace

TEST_CASE("gear: golden numbers of a vector of four, two bits") {
    std::vector<float> const x{0, 1, 2, 9};
    for (bool const is_key : {false, true}) {
        CHECK(round_trip(native{}, x, 0.0, is_key) == std::vector<float>{0, 0, 3, 9});
        // 0 and 9 are outliers, 3 is their mean; (3, 1, 2, 3) has steps of 2/3, and 2 lies between two of them.
        CHECK(round_trip(ts::reference{}, x, 0.5, is_key) == std::vector<float>{0, 1, std::fma(2.0f, 2.0f / 3, 1.0f), 9});
        CHECK(round_trip(native{}, {5, 5, 5, 5}, 0.5, is_key) == std::vector<float>{5, 5, 5, 5});
    }
}

TEST_CASE("gear: a residual of full rank is reproduced, and more of it with every rank") {
    index_t const n = 24, heads = 2, dim = 16;
    auto const k = random_tensor(n, heads, dim, 1), v = random_tensor(n, heads, dim, 2);
    ts::gear_kv_cache<2, float> kv{n, heads, dim, options_of(0.02, 8, 24, dim)};
    ts::append(native{}, kv, k, v);
    CHECK(kv.compressed() == n);
    auto const view = kv.view();
    constexpr double u = ts::unit_roundoff<float>;
    for (index_t t = 0; t < n; ++t)
        for (index_t h = 0; h < heads; ++h)
            for (index_t d = 0; d < dim; ++d) {
                // Q Qᵀ R = R: what is left is the roundings of the residual, of both factors and of `dim` multiply-adds.
                auto const row = view.values.compressed_row(h, t, dim);
                double terms = std::fabs(v(t, h, d)) + std::fabs(row.lows[d / 8]) + 3 * std::fabs(row.scales[d / 8]);
                for (index_t j = 0; j < row.rank; ++j) terms += std::fabs(double{row.a[j]} * row.b[j * dim + d]);
                CHECK(std::fabs(double{view.values(h, t, d)} - double{v(t, h, d)}) <= ts::gamma(dim + 4, u) * terms);
            }
    double last = std::numeric_limits<double>::infinity();
    for (index_t const rank : {0, 2, 4, 8, 16}) {
        ts::gear_kv_cache<2, float> some{n, heads, dim, options_of(0.02, 0, 24, rank)};
        ts::append(native{}, some, k, v);
        double const error = error_of(some, k, v);
        CHECK(error < last);
        last = error;
    }
    // Outliers cost less than the range that they would widen.
    auto wide = random_tensor(n, heads, dim, 2);
    for (index_t t = 0; t < n; ++t) wide(t, 0, t % dim) *= 100;
    ts::gear_kv_cache<2, float> without{n, heads, dim, options_of(0, 0, 24, 0)}, with{n, heads, dim, options_of(0.07, 0, 24, 0)};
    ts::append(native{}, without, k, wide);
    ts::append(native{}, with, k, wide);
    CHECK(error_of(with, k, wide) < error_of(without, k, wide));
}

TEST_CASE("gear: prompts and tokens one by one; attention reads what is stored") {
    index_t const heads = 4, kv_heads = 2, dim = 40, value_dim = 72;
    ts::gear_kv_cache<4> kv{300, kv_heads, dim, value_dim}, pooled{300, kv_heads, dim, value_dim};
    ts::thread_pool pool{3};
    ts::cpu const threads{ts::threads{pool}};
    auto const append = [&](index_t n, std::uint64_t seed) {
        auto const k = random_tensor<ts::fp16>(n, kv_heads, dim, seed);
        auto const v = random_tensor(n, kv_heads, value_dim, seed + 1);
        ts::append(native{}, kv, k, v);
        ts::append(threads, pooled, k, v);
    };
    append(200, 1);
    CHECK(kv.compressed() == 192);
    CHECK(kv.view().keys.compressed_row(1, 191, dim).rank == 4);
    for (std::uint64_t i = 0; i < 58; ++i) append(1, 10 + i);
    CHECK(kv.compressed() == 256);
    CHECK(kv.view().keys.compressed_row(1, 200, dim).rank == 2);
    CHECK(kv.tokens() == 258);
    CHECK(kv.bytes() - 64 * kv_heads * (dim + value_dim) * 4 < 256 * kv_heads * (dim + value_dim)); // 8 bits a number, but for the buffer
    // The same numbers in float32.
    auto const v = kv.view();
    ts::kv_cache<ts::key<float>, ts::value<float>> decoded{300, kv_heads, dim, value_dim};
    ts::tensor<float, 3> k(v.tokens, kv_heads, dim), x(v.tokens, kv_heads, value_dim);
    for (index_t t = 0; t < v.tokens; ++t)
        for (index_t h = 0; h < kv_heads; ++h) {
            for (index_t d = 0; d < dim; ++d) k(t, h, d) = v.keys(h, t, d);
            for (index_t d = 0; d < value_dim; ++d) x(t, h, d) = v.values(h, t, d);
        }
    ts::append(native{}, decoded, k, x);
    for (index_t const queries : {1, 3, 40}) {
        auto const q = random_tensor(queries, heads, dim, 7);
        ts::tensor<float, 3> a(queries, heads, value_dim), b(queries, heads, value_dim), c(queries, heads, value_dim);
        auto const run = [&](auto const& score) {
            ts::matrix<float> lse(heads, queries), expected_lse(heads, queries);
            ts::attention(ts::reference{}, q, decoded, a, score, expected_lse);
            ts::attention(native{}, q, kv, b, score, lse);
            ts::attention(threads, q, pooled, c, score);
            CHECK(equal_bits(b, c));
            CHECK(worst_ratio<float>(q.view(), decoded.view(), std::as_const(b).view(), std::as_const(a).view(), std::as_const(lse).view(),
                                     std::as_const(expected_lse).view(), score, 2) <= 1);
        };
        run(ts::window{250});
    }
    CHECK_THROWS_WITH_AS(append(43, 1), "tessera: append: tokens of k is 43, expected 0 to 42", ts::shape_error);
    CHECK(kv.tokens() == 258);
    kv.clear();
    append(0, 1);
    CHECK(kv.tokens() == 0);
    CHECK_THROWS_AS((ts::gear_kv_cache<4>{4, 1, 8, options_of(-1, 0, 1, 0)}), ts::shape_error);
    pooled.clear();
    append(100, 1);
    auto const moved = std::move(kv);
    CHECK(moved.tokens() == 100);
    CHECK(kv.tokens() == 0);
    CHECK_THROWS_AS(append(1, 1), ts::shape_error);
}

TEST_CASE("gear: decoding keeps low-rank terms apart, whatever blocks, groups and ranks") {
    // Tiles of 64 keys have parts of three blocks and of groups of 24 tokens; 10 ranks are more than are read at a time.
    index_t const heads = 6, kv_heads = 2;
    for (index_t const dim : {40, 64}) {
        ts::gear_kv_cache<3, float> kv{230, kv_heads, dim, options_of(0.05, 24, 40, 10)};
        for (index_t const n : {120, 40, 25, 38}) {
            auto const k = random_tensor(n, kv_heads, dim, static_cast<std::uint64_t>(n));
            auto const v = random_tensor(n, kv_heads, dim, static_cast<std::uint64_t>(n) + 1);
            ts::append(native{}, kv, k, v);
        }
        CHECK((kv.tokens() == 223 && kv.compressed() == 200));
        // The definition on what the cache stands for. Terms of A B are rounded one by one: they are as large as q times |D| + |A| |B|,
        // a cache of which says how far scores may be off; values alike.
        auto const view = kv.view();
        ts::kv_cache<ts::key<float>, ts::value<float>> decoded{230, kv_heads, dim};
        ts::tensor<float, 3> k(view.tokens, kv_heads, dim), v(view.tokens, kv_heads, dim);
        double growth = 1; // of sums of magnitudes by the terms
        for (index_t t = 0; t < view.tokens; ++t)
            for (index_t h = 0; h < kv_heads; ++h) {
                double whole = 0, apart = 0;
                for (index_t d = 0; d < dim; ++d) {
                    k(t, h, d) = view.keys(h, t, d);
                    v(t, h, d) = view.values(h, t, d);
                }
                if (view.keys.is_tail(t)) continue;
                for (auto const* rows : {&view.keys, &view.values}) {
                    auto const row = rows->compressed_row(h, t, dim);
                    for (index_t d = 0; d < dim; ++d) {
                        double low = 0, terms = 0;
                        for (index_t j = 0; j < row.rank; ++j) {
                            low += double{row.a[j]} * row.b[j * dim + d];
                            terms += std::fabs(double{row.a[j]} * row.b[j * dim + d]);
                        }
                        whole += std::fabs(double{(*rows)(h, t, d)});
                        apart += std::fabs(double{(*rows)(h, t, d)} - low) + terms;
                    }
                }
                growth = std::max(growth, apart / whole);
            }
        ts::append(native{}, decoded, k, v);
        auto const roundings = static_cast<index_t>(growth + 1) * (10 + 4); // ranks, and products of three
        for (index_t const queries : {1, 3}) {
            auto const q = random_tensor(queries, heads, dim, 7);
            auto const run = [&](auto const& score) {
                ts::tensor<float, 3> out(queries, heads, dim), expected(queries, heads, dim);
                ts::matrix<float> lse(heads, queries), expected_lse(heads, queries);
                ts::attention(ts::reference{}, q, decoded, expected, score, expected_lse);
                ts::attention(native{}, q, kv, out, score, lse);
                double const ratio = worst_ratio<float>(q.view(), decoded.view(), std::as_const(out).view(), std::as_const(expected).view(),
                                                        std::as_const(lse).view(), std::as_const(expected_lse).view(), score, roundings);
                CAPTURE(ratio);
                CHECK(ratio <= 1);
            };
            run(ts::full);
            run(ts::causal | ts::window{70});
        }
    }
}

TEST_CASE("gear: numbers that are not finite stay in their vector") {
    auto k = random_tensor(8, 1, 8, 1), v = random_tensor(8, 1, 8, 2);
    v(3, 0, 2) = std::numeric_limits<float>::quiet_NaN();
    ts::gear_kv_cache<4> kv{8, 1, 8, options_of(0.02, 0, 8, 2)};
    ts::append(native{}, kv, k, v);
    for (index_t t = 0; t < 8; ++t) CHECK(std::isnan(kv.view().values(0, t, 5)) == (t == 3));
    auto const q = random_tensor(1, 1, 8, 3);
    ts::tensor<float, 3> out(1, 1, 8);
    ts::attention(native{}, q, kv, out, ts::causal);
    CHECK(std::isnan(out(0, 0, 0)));
    ts::attention(native{}, q, kv, out, ts::window{4}); // who does not see it is not touched
    for (index_t d = 0; d < 8; ++d) CHECK(std::isfinite(out(0, 0, d)));
}
