// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache of bounded size that keeps what attention uses (H2O: Zhang et al. 2023, arXiv:2306.14048). Every KV head has a score
/// for each token in the cache, the sum of the probabilities that all queries so far gave it; where there are more than
/// heavy + recent tokens, the `recent` newest stay and of the others the `heavy` best, the older one where scores are equal.
///
///     ts::heavy_hitters keeper{kv_heads, capacity, 64, 192};
///     ts::append(exec, kv, k, v);
///     keeper.attend(exec, q, kv, out, ts::causal);              // attention, and the scores out of it
///     keeper.evict(exec, kv);
///
/// Scores are summed over the queries' heads that share a KV head, and never divided by a token's age: the method favours old
/// ones. Kept tokens move together in their order and every head keeps its own, so that the cache counts positions from 0
/// again: keys keep the rotations that they were given, a new token must be given those of its place in the text, and scores of
/// distance (ALiBi, windows) have lost their meaning. `causal` has not: all that is left comes before the next token.
///
/// `attend` keeps the probabilities of a decoding step; for a prompt it multiplies queries and keys once more (attention_mass.hpp). So
/// does `observe`, after any `attention`. `evict` is linear in tokens, and one thread's; of a paged sequence it makes the pages that
/// it writes the sequence's own, and gives back those behind them. What does not fit is a shape_error, and nothing is forgotten then.

#include "../storage/kv_pages.hpp"
#include "../storage/tensor.hpp"
#include "attention_mass.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// The scores of the tokens of one cache, and what stays of them; see the file comment.
class heavy_hitters {
public:
    heavy_hitters(index_t kv_heads, index_t capacity, index_t heavy, index_t recent)
        : heavy_{checked("heavy", heavy)}, recent_{checked("recent", recent)},
          mass_{checked("kv_heads", kv_heads, most_heads), checked("capacity", capacity, most_tokens)}, order_(static_cast<std::size_t>(capacity)) {}

    /// Tokens that have a score; later ones have none yet.
    index_t tokens() const noexcept { return tokens_; }
    float score(index_t kv_head, index_t token) const noexcept { return mass_(kv_head, token); }

    /// Adds what the last call of `attention` gave to every token.
    template <execution_policy Exec, class Cache, score_functor Score>
    void observe(Exec const& exec, array3_argument auto const& q, Cache const& kv, matrix_argument auto const& log_sum_exp,
                 Score const& score) {
        auto const mass = prepare(kv);
        attention_mass(exec, q, kv, log_sum_exp, score, mass);
        tokens_ = kv.tokens();
    }

    /// `attention`, which adds what it gives to every token.
    template <execution_policy Exec, class Cache, score_functor Score = full_t>
    void attend(Exec const& exec, array3_argument auto const& q, Cache const& kv, array3_argument auto&& out, Score const& score = {}) {
        auto const mass = prepare(kv);
        workspace_scope scope{exec.scratch()};
        auto const queries = detail::input(q);
        index_t const heads = queries.extent(1), n = queries.extent(0);
        matrix_view<float> const log_sum_exp{scope.template carve<float>(heads, n), heads, n};
        attention_with_mass(exec, q, kv, out, score, log_sum_exp, mass);
        tokens_ = kv.tokens();
    }

    /// Forgets tokens of a contiguous or paged cache until heavy + recent are left.
    template <execution_policy Exec, class KeyFormat, class ValueFormat>
    void evict(Exec const&, kv_cache<key<KeyFormat>, value<ValueFormat>, contiguous>& kv) {
        if (is_too_much(kv)) keep_best(kv);
    }
    template <execution_policy Exec, class Pool>
    void evict(Exec const&, paged_sequence<Pool>& kv) {
        if (!is_too_much(kv)) return;
        kv.unshare(0, heavy_ + recent_);
        keep_best(kv);
    }
    template <execution_policy Exec, class Formats>
    void evict(Exec const&, basic_any_kv_cache<Formats>& kv) {
        if (kv.layout() != kv_layout::contiguous)
            detail::raise<shape_error>("tessera: heavy_hitters: the cache is a ring of " + std::to_string(kv.capacity()) +
                                       " tokens, expected a contiguous one");
        if (is_too_much(kv)) keep_best(kv);
    }

private:
    static constexpr index_t most_heads = index_t{1} << 20;
    static constexpr index_t most_tokens = index_t{1} << 36; // 2^56 scores, whose bytes are a number
    static index_t checked(char const* argument, index_t n, index_t most = std::numeric_limits<index_t>::max()) {
        check::at_least("heavy_hitters", argument, n, 0);
        check::within("heavy_hitters", argument, n, 0, most);
        return n;
    }

    /// Scores of the tokens in the cache, 0 for those that have none; they count once `tokens_` says so.
    template <class Cache>
    matrix_view<float> prepare(Cache const& kv) {
        check::equal("heavy_hitters", "KV heads of the cache", kv.kv_heads(), mass_.extent(0), "those at construction");
        check::within("heavy_hitters", "tokens of the cache", kv.tokens(), tokens_, mass_.extent(1));
        for (index_t h = 0; h < mass_.extent(0); ++h)
            for (index_t t = tokens_; t < kv.tokens(); ++t) mass_(h, t) = 0.0f;
        return columns(mass_.view(), index_t{0}, kv.tokens());
    }

    template <class Cache>
    bool is_too_much(Cache const& kv) const {
        check::equal("heavy_hitters", "KV heads of the cache", kv.kv_heads(), mass_.extent(0), "those at construction");
        check::equal("heavy_hitters", "tokens of the cache", kv.tokens(), tokens_, "tokens with a score");
        return tokens_ - recent_ > heavy_; // their sum may be no index
    }

    template <class Cache>
    void keep_best(Cache& kv) {
        auto const keys = kv.key_rows();
        auto const values = kv.value_rows();
        for (index_t h = 0; h < mass_.extent(0); ++h) {
            choose(h);
            for (index_t to = 0; to < heavy_ + recent_; ++to) {
                index_t const from = order_[static_cast<std::size_t>(to)];
                mass_(h, to) = mass_(h, from);
                move_row(keys, h, kv.slot(from), kv.slot(to));
                move_row(values, h, kv.slot(from), kv.slot(to));
            }
        }
        tokens_ = heavy_ + recent_;
        kv.truncate(tokens_);
    }

    /// The tokens that a head keeps, in their order, at the front of order_.
    void choose(index_t h) noexcept {
        index_t const old = tokens_ - recent_;
        auto const begin = order_.begin();
        for (index_t t = 0; t < tokens_; ++t) order_[static_cast<std::size_t>(t)] = t;
        auto const rank = [&](index_t t) noexcept { // a NaN is the least: it would have no place in an order
            float const x = mass_(h, t);
            return x == x ? x : minus_infinity;
        };
        std::nth_element(begin, begin + heavy_, begin + old, [&](index_t a, index_t b) {
            return rank(a) > rank(b) || (rank(a) == rank(b) && a < b);
        });
        std::sort(begin, begin + heavy_);
        std::copy(begin + old, begin + tokens_, begin + heavy_);
    }
    template <class T>
    static void move_row(kv_rows<T> const& rows, index_t head, index_t from, index_t to) noexcept {
        if (from == to) return; // tokens only move forwards, over those that have moved or gone
        std::copy_n(rows.row(head, from), rows.slot_stride, rows.row(head, to));
        if (rows.scales != nullptr) *rows.scale_row(head, to) = *rows.scale_row(head, from);
    }

    index_t heavy_;
    index_t recent_;
    detail::emptied_by_move<index_t> tokens_;
    matrix<float> mass_; // (kv_heads, capacity)
    std::vector<index_t> order_;
};

} // namespace tessera::inline TESSERA_ABI
