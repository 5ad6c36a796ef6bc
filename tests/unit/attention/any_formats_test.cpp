// SPDX-License-Identifier: MIT
// Caches of run-time formats: every standard format of keys beside every one of values, against the definition over the numbers that
// the cache stands for. any_cache_test.cpp has the bits of typed caches, rings, pages and pools.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using formats = ts::standard_kv_formats;

constexpr index_t tokens = 150, kv_heads = 2, heads = 6, dim = 64, value_dim = 40;

void check_pair(int keys, int values) {
    ts::kv_choice const choice{keys, values};
    CAPTURE(formats::name(choice));
    ts::any_kv_cache kv{choice, tokens, kv_heads, dim, value_dim};
    ts::append(native{}, kv, random_tensor(tokens, kv_heads, dim, 1), random_tensor(tokens, kv_heads, value_dim, 2));
    auto const view = kv.view();
    auto const decoded = [&](auto const& rows, index_t n) {
        ts::tensor<float, 3> x(tokens, kv_heads, n);
        for (index_t t = 0; t < tokens; ++t)
            for (index_t h = 0; h < kv_heads; ++h)
                for (index_t d = 0; d < n; ++d) x(t, h, d) = rows(h, t, d);
        return x;
    };
    auto const k = decoded(view.keys, dim), v = decoded(view.values, value_dim);
    ts::kv_view const plain{k.view(), v.view()};
    for (index_t const queries : {1, 3, 40}) {
        auto const q = random_tensor(queries, heads, dim, 9);
        ts::tensor<float, 3> out(queries, heads, value_dim), expected(queries, heads, value_dim);
        ts::matrix<float> lse(heads, queries), expected_lse(heads, queries);
        ts::attention(native{}, q, kv, out, ts::causal, lse);
        ts::attention(ts::reference{}, q, plain, expected, ts::causal, expected_lse);
        bound_terms terms; // a row's scale, which the definition has in every element and kernels in the sum
        terms.roundings = 2;
        terms.weight_step = 2 * ts::unit_roundoff<float>;
        CHECK(worst_ratio<float>(q.view(), plain, std::as_const(out).view(), std::as_const(expected).view(), std::as_const(lse).view(),
                                 std::as_const(expected_lse).view(), ts::causal, 0, terms) <= 1);
    }
}

} // namespace

TEST_CASE("any_kv_cache: every format of keys, every format of values") {
    for (int i = 0; i < formats::size; ++i) check_pair(i, (i + 5) % formats::size);
}

TEST_CASE("any_kv_cache: every format of keys with every format of values" * doctest::skip()) {
    for (int i = 0; i < formats::size; ++i)
        for (int j = 0; j < formats::size; ++j) check_pair(i, j);
}
