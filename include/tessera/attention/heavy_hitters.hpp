// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache of bounded size that keeps what attention uses (H2O: Zhang et al. 2023, arXiv:2306.14048). Every KV head has a score
/// for each token in the cache, the sum of the probabilities that all queries so far gave it; where there are more than
/// heavy + recent tokens, the `recent` newest stay and of the others the `heavy` best, the older one where scores are equal.
///
///     ts::heavy_hitters keeper{kv_heads, capacity, 64, 192};
///     ts::append(exec, kv, k, v);
///     ts::attention(exec, q, kv, out, ts::causal, log_sum_exp);
///     keeper.observe(exec, q, kv, log_sum_exp, ts::causal);
///     keeper.evict(exec, kv);
///
/// Scores are summed over the queries' heads that share a KV head, and never divided by a token's age: the method favours old
/// ones. Kept tokens move together in their order and every head keeps its own, so that the cache counts positions from 0
/// again: keys keep the rotations that they were given, a new token must be given those of its place in the text, and scores of
/// distance (ALiBi, windows) have lost their meaning. `causal` has not: all that is left comes before the next token.
///
/// `observe` multiplies queries and keys once more; `evict` is linear in tokens, and one thread's. What does not fit is a
/// shape_error.

#include "../kernels/cpu/attention_mass.hpp"
#include "../kernels/ref/attention_mass.hpp"
#include "../storage/tensor.hpp"
#include "attention.hpp"

#include <algorithm>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Adds to mass the attention that keys receive, O(queries keys heads key_dim); log_sum_exp: what `attention` wrote with the same q, kv and score.
template <execution_policy Exec, kv_argument KV, score_functor Score>
void attention_mass(Exec const& exec,
                    array3_argument auto const& q,           // (tokens, heads, key_dim)
                    KV const& kv,                            // (kv tokens, kv_heads, key_dim)
                    matrix_argument auto const& log_sum_exp, // (heads, tokens)
                    Score const& score,
                    matrix_argument auto&& mass) {           // (kv_heads, kv tokens)
    detail::require_backend<Exec>();
    detail::check_nothrow<Score>();
    char const* const name = "attention_mass";
    auto const view = detail::kv_of(kv);
    auto const queries = detail::input(q);
    matrix_view<float const> const lse = detail::input(log_sum_exp);
    matrix_view<float> const sums = detail::output(mass);
    check::equal(name, "head_dim of q", queries.extent(2), view.key_dim, "head_dim of the keys");
    if (view.kv_heads == 0)
        check::equal(name, "heads of q", queries.extent(1), 0, "there are no KV heads");
    else
        check::multiple(name, "heads of q", queries.extent(1), view.kv_heads);
    check::equal(name, "rows of log_sum_exp", lse.extent(0), queries.extent(1), "heads of q");
    check::equal(name, "columns of log_sum_exp", lse.extent(1), queries.extent(0), "tokens of q");
    check::equal(name, "rows of mass", sums.extent(0), view.kv_heads, "KV heads");
    check::equal(name, "columns of mass", sums.extent(1), view.tokens, "tokens of the cache");
    check::elements(name, "q", queries);
    check::elements(name, "log_sum_exp", lse);
    check::elements(name, "mass", sums);
    check::not_null(name, "keys", view.keys.data, dynamic_extents<3>{view.tokens, view.kv_heads, view.key_dim}.size());
    check::no_overlap(name, "q", footprint_of(queries), "mass", footprint_of(sums));
    check::no_overlap(name, "log_sum_exp", footprint_of(lse), "mass", footprint_of(sums));
    check::no_overlap(name, "keys", detail::kv_footprint(view.keys, view, view.key_dim), "mass", footprint_of(sums));
    detail::check_score(name, score, queries.extent(1));
    auto const resolved = detail::resolved_score(score, view.key_dim);
    using view_type = std::remove_const_t<decltype(view)>;
    using arguments_type =
        detail::attention_mass_arguments<typename decltype(queries)::value_type, typename view_type::key_type,
                                         typename view_type::value_type, std::remove_const_t<decltype(resolved.rest)>>;
    using mass_kernel = kernel<op::attention_mass, Exec, arguments_type>;
    arguments_type const arguments{queries, view, lse, sums, resolved.factor, resolved.rest};
    workspace_scope scope{exec.scratch()};
    mass_kernel::run(exec, arguments, mass_kernel::plan(exec, arguments.shape(), scope));
}

/// The scores of the tokens of one cache, and what stays of them; see the file comment.
class heavy_hitters {
public:
    heavy_hitters(index_t kv_heads, index_t capacity, index_t heavy, index_t recent)
        : heavy_{heavy}, recent_{recent}, mass_{kv_heads, capacity}, order_(static_cast<std::size_t>(maximum(capacity, 0))) {
        check::at_least("heavy_hitters", "heavy", heavy, 0);
        check::at_least("heavy_hitters", "recent", recent, 0);
    }

    /// Tokens that have a score; later ones have none yet.
    index_t tokens() const noexcept { return tokens_; }
    float score(index_t kv_head, index_t token) const noexcept { return mass_(kv_head, token); }

    /// Adds what the last call of `attention` gave to every token.
    template <execution_policy Exec, class Cache, score_functor Score>
    void observe(Exec const& exec, array3_argument auto const& q, Cache const& kv, matrix_argument auto const& log_sum_exp,
                 Score const& score) {
        check::equal("heavy_hitters", "KV heads of the cache", kv.kv_heads(), mass_.extent(0), "those at construction");
        check::within("heavy_hitters", "tokens of the cache", kv.tokens(), tokens_, mass_.extent(1));
        for (index_t h = 0; h < mass_.extent(0); ++h)
            for (index_t t = tokens_; t < kv.tokens(); ++t) mass_(h, t) = 0.0f;
        tokens_ = kv.tokens();
        attention_mass(exec, q, kv, log_sum_exp, score, columns(mass_.view(), index_t{0}, tokens_));
    }

    /// Forgets tokens of a contiguous cache until heavy + recent are left.
    template <execution_policy Exec, class KeyFormat, class ValueFormat>
    void evict(Exec const&, kv_cache<key<KeyFormat>, value<ValueFormat>, contiguous>& kv) {
        check::equal("heavy_hitters", "KV heads of the cache", kv.kv_heads(), mass_.extent(0), "those at construction");
        check::equal("heavy_hitters", "tokens of the cache", kv.tokens(), tokens_, "tokens with a score");
        if (tokens_ <= heavy_ + recent_) return;
        auto const keys = kv.key_rows();
        auto const values = kv.value_rows();
        for (index_t h = 0; h < mass_.extent(0); ++h) {
            choose(h);
            for (index_t to = 0; to < heavy_ + recent_; ++to) {
                index_t const from = order_[static_cast<std::size_t>(to)];
                mass_(h, to) = mass_(h, from);
                move_row(keys, h, from, to);
                move_row(values, h, from, to);
            }
        }
        tokens_ = heavy_ + recent_;
        kv.truncate(tokens_);
    }

private:
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
        if (from == to) return; // rows only move forwards, over rows that have moved or gone
        std::copy_n(rows.row(head, from), rows.slot_stride, rows.row(head, to));
        if (rows.scales != nullptr) *rows.scale_row(head, to) = *rows.scale_row(head, from);
    }

    index_t heavy_;
    index_t recent_;
    index_t tokens_ = 0;
    matrix<float> mass_; // (kv_heads, capacity)
    std::vector<index_t> order_;
};

} // namespace tessera::inline TESSERA_ABI
