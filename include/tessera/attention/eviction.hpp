// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What a bounded KV cache keeps, or reads: policies of equal members over one paged cache (storage/kv_pages.hpp).
///
///     ts::kv_page_pool<ts::key<ts::int8_per_token>, ts::value<ts::fp16>> pool{1000, 16, kv_heads, head_dim};
///     ts::paged_sequence sequence{pool};
///     ts::sink_window policy{4, 1024}; // first tokens and last ones (StreamingLLM, arXiv:2309.17453), or
///     // ts::heavy_hitters policy{kv_heads, capacity, 64, 192};      what attention used, every KV head its own (H2O), or
///     // ts::block_top_k policy{kv_heads, key_dim, 16, {4, 64, 64}}; a step reads the best pages of each KV head (Kinetics)
///
///     ts::append(exec, sequence, k, v);
///     policy.attend(exec, q, sequence, out, ts::causal); // attention, and what the policy learns from it
///     policy.evict(exec, sequence);                      // forgets what it does not keep
///
/// A program's own policy is a type with these two members. What was forgotten is out of the cache's positions: see heavy_hitters.hpp.

#include "../storage/kv_pages.hpp"
#include "heavy_hitters.hpp"
#include "page_selection.hpp"

namespace tessera::inline TESSERA_ABI {

/// Keeps at least the first `sinks` tokens and the last `window` ones: pages between them are given back whole, nothing moves, and
/// pages that other sequences share stay shared.
class sink_window {
public:
    sink_window(index_t sinks, index_t window) : sinks_{sinks}, window_{window} {
        check::at_least("sink_window", "sinks", sinks, 0);
        check::at_least("sink_window", "window", window, 0);
    }

    template <execution_policy Exec, class Cache, score_functor Score = full_t>
    void attend(Exec const& exec, array3_argument auto const& q, Cache const& kv, array3_argument auto&& out, Score const& score = {}) {
        attention(exec, q, kv, out, score);
    }
    template <execution_policy Exec, class Pool>
    void evict(Exec const&, paged_sequence<Pool>& kv) {
        kv.keep(sinks_, window_);
    }

private:
    index_t sinks_;
    index_t window_;
};

/// Whether P is such a policy; see the file comment.
template <class P, class Exec, class Cache>
concept eviction_policy = requires(P& policy, Exec const& exec, Cache& kv, tensor_view<float const, 3> q, tensor_view<float, 3> out) {
    policy.attend(exec, q, kv, out, causal);
    policy.evict(exec, kv);
};

} // namespace tessera::inline TESSERA_ABI
