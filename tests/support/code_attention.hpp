// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention over caches of small integers, judged by the definition and float32's bound: what tests of decoding and of prefill
/// share. The definition reads the floats that the cache stands for, so that it is compiled once for all formats.

#include "cases/attention_case.hpp"

#include <tessera/attention/attention.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <utility>

namespace attention_tests {

struct sizes {
    index_t queries, keys, heads, dim;
};

/// The numbers that rows of a cache stand for.
template <class Rows>
ts::tensor<float, 3> floats_of(Rows const& rows, index_t tokens, index_t heads, index_t dim) {
    ts::tensor<float, 3> x(tokens, heads, dim);
    for (index_t t = 0; t < tokens; ++t)
        for (index_t h = 0; h < heads; ++h)
            for (index_t d = 0; d < dim; ++d) x(t, h, d) = rows(h, t, d);
    return x;
}

/// The worst error as a part of the bound, which it must not exceed; `spike`: a number in the first query.
template <class Key, class Value = Key, class Score = ts::causal_t>
double code_ratio(sizes const& s, Score const& score = {}, float spike = 0) {
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    CAPTURE(s.dim);
    ts::kv_cache<ts::key<Key>, ts::value<Value>> kv{s.keys, 2, s.dim};
    ts::append(ts::reference{}, kv, random_tensor(s.keys, 2, s.dim, 1), random_tensor(s.keys, 2, s.dim, 2));
    auto const keys = floats_of(kv.view().keys, s.keys, 2, s.dim), values = floats_of(kv.view().values, s.keys, 2, s.dim);
    ts::kv_view const floats{keys.view(), values.view()};
    auto q = random_tensor(s.queries, s.heads, s.dim, 3);
    if (spike != 0) q(0, 0, s.dim / 2) = spike;
    ts::tensor<float, 3> expected(s.queries, s.heads, s.dim), out(s.queries, s.heads, s.dim);
    ts::matrix<float> expected_lse(s.heads, s.queries), lse(s.heads, s.queries);
    ts::attention(ts::reference{}, q, floats, expected, score, expected_lse);
    ts::attention(ts::cpu{ts::serial{}}, q, kv, out, score, lse);
    double const worst = worst_ratio<float>(q.view(), floats, std::as_const(out).view(), std::as_const(expected).view(),
                                            std::as_const(lse).view(), std::as_const(expected_lse).view(), score);
    CHECK(worst <= 1);
    return worst;
}

} // namespace attention_tests
