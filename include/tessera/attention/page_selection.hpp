// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention to a few pages of a long context (Kinetics: Sadhukhan et al. 2025, arXiv:2506.05333). A page of `page` tokens is
/// represented by the mean of its keys; its score for a KV head is the mean over the query heads that read it of mean q . mean k
/// (the mean over a page's keys of q . k). Every KV head sees the first `sinks` tokens, the last `window` ones, and the `count`
/// whole pages of the rest with the largest scores, of equal ones the first. Where there are no more pages than that, it sees all.
///
///     ts::page_means means{kv_heads, key_dim, 16};
///     means.update(kv);                                                        // after every append and truncation
///     ts::select_pages(q, kv, means, ts::page_budget{4, 64, 64}, seen);        // one query token
///     ts::attention(exec, q, kv, out, ts::causal | ts::block_mask{seen, kv.end_position(), 16});
///
/// The mask's one row is that of every query up to the end: a step of decoding has one. Pages that are not seen are not read. A page
/// with a sink or a token of the window is seen whole. Choosing takes O(pages heads key_dim), on one thread; what does not fit is
/// a shape_error. All of that as one policy (eviction.hpp), with pages of the cache or any others:
///
///     ts::block_top_k policy{kv_heads, key_dim, 16, {4, 64, 64}};
///     policy.attend(exec, q, kv, out, ts::causal);
///
/// Calls with more queries than one (prompts), and short contexts, see all. Every call notes the pages that have become whole: a cache
/// of which tokens were forgotten is shown to the policy before others take their places, or gets a new one. The method leaves a
/// model's first layer dense.

#include "../core/error.hpp"
#include "../nn/arguments.hpp"
#include "../storage/kv_cache.hpp"
#include "attention.hpp"
#include "mask.hpp"

#include <algorithm>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// What every KV head sees; see the file comment.
struct page_budget {
    index_t sinks;  ///< first tokens
    index_t window; ///< last tokens
    index_t count;  ///< pages between them
};

/// Means of the keys of whole pages.
class page_means {
public:
    page_means(index_t kv_heads, index_t key_dim, index_t page) : kv_heads_{kv_heads}, key_dim_{key_dim}, page_{page} {
        check::at_least("page_means", "kv_heads", kv_heads, 0);
        check::at_least("page_means", "key_dim", key_dim, 0);
        check::within("page_means", "page", page, 1, index_t{1} << 30);
    }

    index_t page() const noexcept { return page_; }
    index_t kv_heads() const noexcept { return kv_heads_; }
    index_t key_dim() const noexcept { return key_dim_; }
    /// Whole pages; after a move, none.
    index_t pages() const noexcept { return static_cast<index_t>(means_.size()) == pages_ * kv_heads_ * key_dim_ ? pages_ : 0; }
    /// (key_dim) numbers.
    float const* mean(index_t page, index_t kv_head) const noexcept {
        return means_.data() + (page * kv_heads_ + kv_head) * key_dim_;
    }

    /// Adds the pages that have become whole, and forgets those that no longer are. The cache keeps its first tokens; other keys
    /// may have come into a page only where this was called after they had been truncated.
    template <class Cache>
    void update(Cache const& kv) {
        auto const v = kv.view();
        check::equal("page_means", "KV heads of the cache", v.kv_heads, kv_heads_, "those at construction");
        check::equal("page_means", "key_dim of the cache", v.key_dim, key_dim_, "that at construction");
        check::equal("page_means", "first position of the cache", v.first_position, 0, "where pages are counted from");
        pages_ = minimum(pages(), v.tokens / page_); // after a truncation
        means_.resize(static_cast<std::size_t>(v.tokens / page_ * kv_heads_ * key_dim_));
        for (; pages_ < v.tokens / page_; ++pages_)
            for (index_t h = 0; h < kv_heads_; ++h)
                for (index_t d = 0; d < key_dim_; ++d) {
                    double sum = 0;
                    for (index_t i = 0; i < page_; ++i) sum += double{v.keys(h, v.slot(pages_ * page_ + i), d)};
                    means_[static_cast<std::size_t>((pages_ * kv_heads_ + h) * key_dim_ + d)] =
                        static_cast<float>(sum / static_cast<double>(page_));
                }
    }

private:
    index_t kv_heads_;
    index_t key_dim_;
    index_t page_;
    index_t pages_ = 0;
    std::vector<float> means_; // (pages, kv_heads, key_dim)
};

/// Writes which pages each query head sees, for `block_mask{seen, kv.end_position(), page}`.
template <class Cache>
void select_pages(array3_argument auto const& q, // (1, heads, key_dim)
                  Cache const& kv, page_means const& means, page_budget const& budget,
                  tensor_view<std::uint8_t, 3> seen) { // (heads, 1, pages of the cache, the last perhaps not whole)
    char const* const name = "select_pages";
    auto const queries = detail::input(q);
    auto const v = kv.view();
    index_t const page = means.page();
    index_t const pages = ceil_div(v.tokens, page);
    check::equal(name, "tokens of q", queries.extent(0), 1, "one step of decoding");
    check::equal(name, "KV heads of the means", means.kv_heads(), v.kv_heads, "KV heads of the cache");
    check::equal(name, "key_dim of the means", means.key_dim(), v.key_dim, "key_dim of the cache");
    if (v.kv_heads == 0)
        check::equal(name, "heads of q", queries.extent(1), 0, "there are no KV heads");
    else
        check::multiple(name, "heads of q", queries.extent(1), v.kv_heads);
    check::equal(name, "head_dim of q", queries.extent(2), v.key_dim, "head_dim of the keys");
    check::elements(name, "q", queries);
    check::equal(name, "rows of seen", seen.extent(0), queries.extent(1), "heads of q");
    check::equal(name, "rows of a head of seen", seen.extent(1), 1, "one query");
    check::equal(name, "columns of seen", seen.extent(2), pages, "pages of the cache");
    check::not_null(name, "seen", seen.data_handle(), seen.size());
    check::equal(name, "whole pages", means.pages(), v.tokens / page, "those of the cache");
    check::at_least(name, "sinks", budget.sinks, 0);
    check::at_least(name, "window", budget.window, 0);
    check::at_least(name, "count", budget.count, 0);
    index_t const first = ceil_div(minimum(budget.sinks, v.tokens), page);
    index_t const last = maximum(maximum(v.tokens - budget.window, 0) / page, first);
    index_t const group = means.kv_heads() == 0 ? 1 : queries.extent(1) / means.kv_heads();
    std::vector<index_t> order(static_cast<std::size_t>(last - first));
    std::vector<double> score(order.size());
    for (index_t g = 0; g < means.kv_heads(); ++g) {
        for (index_t p = first; p < last; ++p) {
            auto const i = static_cast<std::size_t>(p - first);
            order[i] = p;
            score[i] = 0;
            for (index_t h = g * group; h < (g + 1) * group; ++h)
                for (index_t d = 0; d < v.key_dim; ++d)
                    score[i] += static_cast<double>(static_cast<float>(queries(0, h, d))) * double{means.mean(p, g)[d]};
        }
        auto const chosen = order.begin() + minimum(budget.count, last - first);
        auto const score_of = [&](index_t p) { // a NaN is the least: it would have no place in an order
            double const x = score[static_cast<std::size_t>(p - first)];
            return x == x ? x : double{minus_infinity};
        };
        std::partial_sort(order.begin(), chosen, order.end(), [&](index_t a, index_t b) {
            return score_of(a) > score_of(b) || (score_of(a) == score_of(b) && a < b);
        });
        for (index_t h = g * group; h < (g + 1) * group; ++h) {
            for (index_t p = 0; p < pages; ++p) seen(h, 0, p) = p < first || p >= last;
            for (auto p = order.begin(); p != chosen; ++p) seen(h, 0, *p) = 1;
        }
    }
}

/// Every step of decoding reads the best pages; nothing is forgotten. See the file comment.
class block_top_k {
public:
    block_top_k(index_t kv_heads, index_t key_dim, index_t page, page_budget const& budget)
        : means_{kv_heads, key_dim, page}, budget_{budget} {
        check::at_least("block_top_k", "sinks", budget.sinks, 0);
        check::at_least("block_top_k", "window", budget.window, 0);
        check::at_least("block_top_k", "count", budget.count, 0);
    }

    page_means const& means() const noexcept { return means_; }

    template <execution_policy Exec, class Cache, score_functor Score = full_t>
    void attend(Exec const& exec, array3_argument auto const& q, Cache const& kv, array3_argument auto&& out, Score const& score = {}) {
        means_.update(kv);
        auto const queries = detail::input(q);
        index_t const page = means_.page();
        index_t const heads = queries.extent(1), pages = ceil_div(kv.tokens(), page);
        if (queries.extent(0) != 1 || pages <= budget_.count) return attention(exec, q, kv, out, score);
        seen_.resize(static_cast<std::size_t>(heads * pages));
        tensor_view<std::uint8_t, 3> const seen{seen_.data(), heads, index_t{1}, pages};
        select_pages(q, kv, means_, budget_, seen);
        attention(exec, q, kv, out, score | block_mask{seen, maximum(kv.end_position(), 1), page});
    }
    template <execution_policy Exec, class Cache>
    void evict(Exec const&, Cache&) noexcept {}

private:
    page_means means_;
    page_budget budget_;
    std::vector<std::uint8_t> seen_; // (heads, 1, pages)
};

} // namespace tessera::inline TESSERA_ABI
