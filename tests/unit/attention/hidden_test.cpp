// SPDX-License-Identifier: MIT
// What a query does not see must not reach it: NaN and infinity in keys and values that are hidden from some queries, in
// tiles that other queries see, and in the unused part of a cache.

#include "attention_support.hpp"

#include <doctest/doctest.h>

namespace {

using namespace attention_tests;

constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

/// Causal, without saying what it hides of a tile.
constexpr auto causal_functor = [](auto s, auto at) noexcept {
    using value = decltype(s);
    using ts::select;
    return select(at.distance() < value(0.0f), value(ts::minus_infinity), s);
};

struct shape {
    index_t queries, keys, heads, kv_heads, dim;
};

template <class Format>
struct sequence {
    using cache = ts::kv_cache<ts::key<Format>, ts::value<Format>>;
    ts::tensor<float, 3> q;
    cache kv;

    /// `special` in one element of the key or the value of token t, head 0.
    sequence(shape const& s, index_t t = -1, float key = 0, float value = 0)
        : q{random_tensor(s.queries, s.heads, s.dim, 3)}, kv{s.keys, s.kv_heads, s.dim} {
        auto k = random_tensor(s.keys, s.kv_heads, s.dim, 1);
        auto v = random_tensor(s.keys, s.kv_heads, s.dim, 2);
        if (t >= 0 && key != 0) k(t, 0, s.dim / 2) = key;
        if (t >= 0 && value != 0) v(t, 0, s.dim / 2) = value;
        ts::append(ts::reference{}, kv, k, v);
    }
};

template <class Exec, class Format, class Score>
ts::tensor<float, 3> run(Exec const& exec, sequence<Format> const& x, Score const& score) {
    ts::tensor<float, 3> out(x.q.extent(0), x.q.extent(1), x.kv.value_dim());
    ts::attention(exec, x.q, x.kv, out, score);
    return out;
}

/// Where the definition gives a number, the very bits of the call without special values; else the same special value.
template <class Format, class Archs = tessera_test::archs_by_width, class Score>
void check(shape const& s, index_t t, float key, float value, Score const& score) {
    CAPTURE(s.queries);
    CAPTURE(s.dim);
    CAPTURE(t);
    CAPTURE(key);
    CAPTURE(value);
    sequence<Format> const clean{s};
    sequence<Format> const special{s, t, key, value};
    auto const expected = run(ts::reference{}, special, score);
    for_each_arch<Archs>([&](auto const& exec) {
        auto const before = run(exec, clean, score);
        auto const out = run(exec, special, score);
        index_t wrong = 0;
        for (index_t i = 0; i < out.size(); ++i) {
            float const e = expected.data()[i];
            float const o = out.data()[i];
            wrong += std::isfinite(e) ? o != before.data()[i] : std::isnan(e) ? !std::isnan(o) : o != e;
        }
        CHECK(wrong == 0);
    });
}

template <class Format, class Archs = tessera_test::archs_by_width, class Score>
void check_tokens(shape const& s, Score const& score) {
    for (index_t const t : {index_t{0}, index_t{63}, index_t{64}, index_t{127}, s.keys - 21, s.keys - 2, s.keys - 1}) {
        check<Format, Archs>(s, t, nan_value, 0, score); // an infinite key may give minus infinity, which hides it: another result
        for (float const x : {nan_value, infinity, -infinity}) check<Format, Archs>(s, t, 0, x, score);
    }
}

} // namespace

TEST_CASE("attention: NaN and infinity stay with the queries that see them") {
    for (index_t const queries : {1, 2, 4, 20, 150}) {
        check_tokens<float>({queries, 150, 4, 2, 20}, ts::causal);
        check_tokens<float>({queries, 150, 2, 2, 33}, ts::window{20});
        check_tokens<float>({queries, 150, 3, 1, 16}, ts::soft_cap{20.0f} | ts::causal);
        check_tokens<float>({queries, 150, 3, 1, 16}, causal_functor);
        check_tokens<float, tessera_test::best_arch>({queries, 150, 2, 1, 16}, ts::full); // nothing is hidden
    }
}

TEST_CASE("attention: NaN stays with the queries that see it, in every format of the cache") {
    for (index_t const queries : {1, 3, 40}) {
        check_tokens<ts::fp16, tessera_test::best_arch>({queries, 150, 4, 2, 20}, ts::causal | ts::window{20});
        check_tokens<ts::bf16, tessera_test::best_arch>({queries, 150, 4, 2, 20}, ts::causal | ts::window{20});
        check_tokens<ts::int8_per_token>({queries, 150, 4, 2, 20}, ts::causal | ts::window{20});
    }
}

TEST_CASE("attention: NaN in the last of several parts is not lost") {
    // The last part of a step of decoding has one key: its scores are NaN, and its maximum is of nothing.
    for (index_t const keys : {1025, 1040, 2049}) check<float>({1, keys, 2, 1, 16}, keys - 1, nan_value, 0, ts::causal);
}

TEST_CASE("attention: the unused part of a cache is not read") {
    auto const with_tail = [](auto const& exec, index_t queries, float tail) {
        using format = ts::int8_per_token;
        ts::kv_cache<ts::key<float>, ts::value<format>> kv{200, 2, 24};
        for (index_t h = 0; h < 2; ++h)
            for (index_t t = 0; t < 200; ++t) {
                for (index_t d = 0; d < 24; ++d) kv.key_rows().row(h, t)[d] = tail;
                *kv.value_rows().scale_row(h, t) = tail;
            }
        ts::append(exec, kv, random_tensor(130, 2, 24, 1), random_tensor(130, 2, 24, 2));
        ts::tensor<float, 3> out(queries, 4, 24);
        ts::attention(exec, random_tensor(queries, 4, 24, 3), kv, out, ts::causal);
        return out;
    };
    for_each_arch([&](auto const& exec) {
        for (index_t const queries : {1, 4, 130})
            CHECK(equal_bits(with_tail(exec, queries, nan_value), with_tail(exec, queries, 0.0f)));
    });
}
