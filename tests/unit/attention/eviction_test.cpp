// SPDX-License-Identifier: MIT
// Policies over one paged cache, against their definitions in plain double: what is kept, what is seen, what comes out.

#include "attention_support.hpp"

#include <tessera/attention/eviction.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;
using pool_type = ts::kv_page_pool<ts::key<float>, ts::value<float>>;
using sequence = ts::paged_sequence<pool_type>;
static_assert(ts::eviction_policy<ts::sink_window, native, sequence> && ts::eviction_policy<ts::heavy_hitters, native, sequence> &&
              ts::eviction_policy<ts::block_top_k, native, sequence>);

constexpr index_t heads = 4, kv_heads = 2, dim = 8, most = 60;

/// A text of queries, keys and values, and what each KV head keeps of it.
struct story {
    ts::tensor<float, 3> q = random_tensor(most, heads, dim, 11), k = random_tensor(most, kv_heads, dim, 12),
                         v = random_tensor(most, kv_heads, dim, 13);
    std::vector<index_t> kept[kv_heads];

    static auto part(ts::tensor<float, 3> const& x, index_t first, index_t last) {
        return ts::slice(x.view(), ts::range{first, last}, ts::all, ts::all);
    }
    /// The probabilities that head h of query i gives these tokens.
    std::vector<double> probabilities(index_t i, index_t h, std::vector<index_t> const& tokens) const {
        std::vector<double> p;
        double sum = 0;
        for (index_t const t : tokens) {
            double s = 0;
            for (index_t d = 0; d < dim; ++d) s += double{q(i, h, d)} * k(t, h / 2, d);
            p.push_back(std::exp(s / std::sqrt(double{dim})));
            sum += p.back();
        }
        for (double& x : p) x /= sum;
        return p;
    }
    /// out (query i's row `row`) is the attention to these tokens, within the kernel's bound for that cache and score.
    template <class Cache, class Score>
    void check(ts::tensor<float, 3> const& out, index_t row, index_t i, index_t h, std::vector<index_t> const& tokens, Cache const& kv,
               Score const& score) const {
        std::vector<double> const p = probabilities(i, h, tokens);
        bound const allowed = bound_of(part(q, i - row, i - row + out.extent(0)), kv.view(), row, h, score);
        for (index_t d = 0; d < dim; ++d) {
            double expected = 0;
            for (std::size_t t = 0; t < tokens.size(); ++t) expected += p[t] * double{v(tokens[t], h / 2, d)};
            CHECK(std::fabs(double{out(row, h, d)} - expected) <=
                  allowed.out[static_cast<std::size_t>(d)] + 2 * ts::unit_roundoff<float> * std::fabs(expected));
        }
    }
    /// The cache holds the keys and values of `kept`.
    void check_rows(sequence const& kv) const {
        auto const view = kv.view();
        for (index_t g = 0; g < kv_heads; ++g) {
            REQUIRE(view.tokens == static_cast<index_t>(kept[g].size()));
            for (index_t t = 0; t < view.tokens; ++t)
                for (index_t d = 0; d < dim; ++d) {
                    CHECK(view.keys(g, view.slot(t), d) == k(kept[g][static_cast<std::size_t>(t)], g, d));
                    CHECK(view.values(g, view.slot(t), d) == v(kept[g][static_cast<std::size_t>(t)], g, d));
                }
        }
    }
    /// A prompt of 20 tokens, then one after the other: each(first token, last) after `attend`, then `evict`.
    template <class Policy, class F>
    void tell(sequence& kv, Policy& policy, F const& each) {
        for (index_t first = 0, last = 20; first < most; first = last, ++last) {
            ts::append(native{}, kv, part(k, first, last), part(v, first, last));
            for (auto& list : kept)
                for (index_t t = first; t < last; ++t) list.push_back(t);
            ts::tensor<float, 3> out(last - first, heads, dim);
            policy.attend(native{}, part(q, first, last), kv, out, ts::causal);
            each(first, last, out);
            policy.evict(native{}, kv);
        }
    }
    /// What a causal query sees of a head's tokens.
    static std::vector<index_t> until(std::vector<index_t> list, index_t i) {
        std::erase_if(list, [&](index_t t) { return t > i; });
        return list;
    }
};

} // namespace

TEST_CASE("sink_window over pages") {
    for (index_t const page : {1, 3, 16}) {
        CAPTURE(page);
        pool_type pool{ts::ceil_div(most, page), page, kv_heads, dim};
        sequence kv{pool};
        ts::sink_window policy{4, 9};
        story s;
        s.tell(kv, policy, [&](index_t first, index_t last, auto const& out) {
            s.check_rows(kv);
            for (index_t i = first; i < last; ++i)
                for (index_t h = 0; h < heads; ++h) s.check(out, i - first, i, h, s.until(s.kept[h / 2], i), kv, ts::causal);
            // Whole pages of the text: with the first 4 tokens, and from that of the last 9 on.
            for (auto& list : s.kept)
                std::erase_if(list, [&](index_t t) { return t / page > (4 - 1) / page && t / page < (last - 9) / page; });
        });
        s.check_rows(kv);
        CHECK(kv.tokens() >= 13);
        CHECK(pool.free_pages() == pool.pages() - ts::ceil_div(kv.tokens(), page)); // the others' memory is free
        if (page == 1) CHECK(kv.tokens() == 13);
    }
    CHECK_THROWS_AS((ts::sink_window{-1, 9}), ts::shape_error);
}

TEST_CASE("heavy_hitters over pages: every head its own, shared pages are copied first") {
    index_t const heavy = 6, recent = 5;
    for (index_t const page : {1, 3, 16}) {
        CAPTURE(page);
        pool_type pool{2 * ts::ceil_div(most, page), page, kv_heads, dim};
        sequence kv{pool};
        std::vector<sequence> other; // holds the first tokens, too
        ts::heavy_hitters policy{kv_heads, most, heavy, recent};
        ts::kv_cache<ts::key<float>, ts::value<float>> flat{most, kv_heads, dim};
        ts::heavy_hitters same{kv_heads, most, heavy, recent};
        story s;
        std::vector<double> score[kv_heads];
        s.tell(kv, policy, [&](index_t first, index_t last, auto const& out) {
            s.check_rows(kv);
            for (index_t g = 0; g < kv_heads; ++g) score[g].resize(s.kept[g].size());
            for (index_t i = first; i < last; ++i)
                for (index_t h = 0; h < heads; ++h) {
                    auto const list = s.until(s.kept[h / 2], i);
                    s.check(out, i - first, i, h, list, kv, ts::causal);
                    auto const p = s.probabilities(i, h, list);
                    for (std::size_t t = 0; t < p.size(); ++t) score[h / 2][t] += p[t];
                }
            for (index_t g = 0; g < kv_heads && static_cast<index_t>(s.kept[g].size()) > heavy + recent; ++g) {
                auto const old = static_cast<index_t>(s.kept[g].size()) - recent;
                std::vector<std::size_t> order(static_cast<std::size_t>(old));
                std::iota(order.begin(), order.end(), std::size_t{0});
                std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return score[g][a] > score[g][b]; });
                CHECK(score[g][order[heavy - 1]] - score[g][order[heavy]] > 1e-5); // rounding does not decide
                order.resize(heavy);
                std::sort(order.begin(), order.end());
                for (index_t t = old; t < old + recent; ++t) order.push_back(static_cast<std::size_t>(t));
                std::vector<index_t> left;
                std::vector<double> their;
                for (std::size_t const t : order) left.push_back(s.kept[g][t]), their.push_back(score[g][t]);
                s.kept[g] = left;
                score[g] = their;
            }
            if (first == 0) other.push_back(kv.fork());
            // A contiguous cache does the same to the bit.
            ts::append(native{}, flat, s.part(s.k, first, last), s.part(s.v, first, last));
            ts::tensor<float, 3> again(last - first, heads, dim);
            same.attend(native{}, s.part(s.q, first, last), flat, again, ts::causal);
            same.evict(native{}, flat);
            CHECK(equal_bits(out, again));
        });
        s.check_rows(kv);
        CHECK(kv.tokens() == heavy + recent);
        auto const view = other.front().view();
        for (index_t g = 0; g < kv_heads; ++g)
            for (index_t t = 0; t < 20; ++t)
                for (index_t d = 0; d < dim; ++d) CHECK(view.keys(g, view.slot(t), d) == s.k(t, g, d));
    }
    // Where the pool has no pages for copies nothing is forgotten.
    pool_type pool{5, 4, kv_heads, dim};
    sequence kv{pool};
    ts::heavy_hitters policy{kv_heads, most, heavy, recent};
    story s;
    ts::append(native{}, kv, s.part(s.k, 0, 20), s.part(s.v, 0, 20));
    ts::tensor<float, 3> out(20, heads, dim);
    policy.attend(native{}, s.part(s.q, 0, 20), kv, out, ts::causal);
    {
        auto const other = kv.fork();
        CHECK_THROWS_AS(policy.evict(native{}, kv), ts::shape_error);
        CHECK((kv.tokens() == 20 && policy.tokens() == 20));
    }
    policy.evict(native{}, kv);
    CHECK((kv.tokens() == 11 && pool.free_pages() == 2));
}

TEST_CASE("block_top_k over pages") {
    for (index_t const page : {1, 4, 16}) {
        CAPTURE(page);
        pool_type pool{ts::ceil_div(most, 4), 4, kv_heads, dim}; // other pages than the policy's
        sequence kv{pool};
        index_t const sinks = 2, window = 7, count = 2;
        ts::block_top_k policy{kv_heads, dim, page, {sinks, window, count}};
        story s;
        s.tell(kv, policy, [&](index_t first, index_t last, auto const& out) {
            s.check_rows(kv);
            index_t const n = last, pages = ts::ceil_div(n, page);
            for (index_t g = 0; g < kv_heads; ++g) {
                std::vector<bool> seen(static_cast<std::size_t>(pages), true);
                std::vector<std::pair<double, index_t>> scores; // of whole pages without a sink or a token of the window
                for (index_t p = 0; first > 0 && p < pages; ++p) {
                    if (p * page < sinks || (p + 1) * page > n - window) continue;
                    double sum = 0; // over heads and keys: as great as the mean, times a constant
                    for (index_t h = 2 * g; h < 2 * g + 2; ++h)
                        for (index_t t = p * page; t < (p + 1) * page; ++t)
                            for (index_t d = 0; d < dim; ++d) sum += double{s.q(first, h, d)} * s.k(t, g, d);
                    scores.emplace_back(-sum, p);
                }
                std::sort(scores.begin(), scores.end());
                for (std::size_t i = count; i < scores.size(); ++i) seen[static_cast<std::size_t>(scores[i].second)] = false;
                ts::seen_where const rule{[&](index_t query, index_t key, index_t) noexcept {
                    return key <= query && seen[static_cast<std::size_t>(key / page)];
                }};
                for (index_t i = first; i < last; ++i) {
                    auto list = s.until(s.kept[g], i);
                    std::erase_if(list, [&](index_t t) { return !seen[static_cast<std::size_t>(t / page)]; });
                    for (index_t h = 2 * g; h < 2 * g + 2; ++h) s.check(out, i - first, i, h, list, kv, rule);
                }
            }
        });
        CHECK(kv.tokens() == most);
    }
    CHECK_THROWS_AS((ts::block_top_k{kv_heads, dim, 0, {0, 0, 1}}), ts::shape_error);
    CHECK_THROWS_AS((ts::block_top_k{kv_heads, dim, 4, {0, 0, -1}}), ts::shape_error);
}
