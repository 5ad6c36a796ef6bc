// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What all attention kernels share: the arguments of a call, its sizes, and the monoid of partial results.
///
///     out(i, h, :) = sum_j p_j v(j, :) / sum_j p_j,   p_j = exp(score(q_i . k_j) - m),   m = max_j score(q_i . k_j)
///     log_sum_exp(h, i) = m + log(sum_j p_j)
///
/// Query head h reads KV head h / (heads / kv_heads). Query i of n is at position end - n + i, where end is the position
/// after the last key. A query that sees no key gets zeros and minus infinity.
///
/// `kernel<op::attention, Exec, Arguments>` has
///
///     template <class Arena> static plan_type plan(exec, attention_shape const*, n, Arena&)   // carves the scratch memory
///     static void run(exec, arguments const*, n, plan)                                        // noexcept
///
/// for n requests of equal head counts and dimensions.

#include "../core/slice.hpp"
#include "../core/view.hpp"
#include "../storage/kv_cache.hpp"
#include "kernel.hpp"
#include "score.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// The sizes of a call of `attention`: what its scratch memory depends on.
struct attention_shape {
    index_t queries = 0; ///< query tokens
    index_t heads = 0;
    index_t kv_heads = 0;
    index_t key_dim = 0;
    index_t value_dim = 0;
    index_t keys = 0; ///< tokens in the cache

    /// Query heads that share a KV head.
    TESSERA_HOST_DEVICE constexpr index_t group() const noexcept { return kv_heads == 0 ? 0 : heads / kv_heads; }
};

/// A part of a softmax-weighted sum: over some keys, `maximum` of their scores, `sum` of exp(score - maximum), and
/// output = sum of exp(score - maximum) v. Parts merge in any order: associative, commutative, with the default as
/// neutral element.
struct attention_state {
    float* output = nullptr; ///< `size` floats
    index_t size = 0;
    float maximum = minus_infinity;
    float sum = 0.0f;
};

/// into = into + from. Sizes are equal.
inline void merge(attention_state& into, attention_state const& from) noexcept {
    if (from.maximum == minus_infinity) return; // saw no key; and -inf - (-inf) below would be NaN
    float const m = into.maximum < from.maximum ? from.maximum : into.maximum;
    float const a = into.maximum == minus_infinity ? 0.0f : std::exp(into.maximum - m);
    float const b = std::exp(from.maximum - m);
    for (index_t d = 0; d < into.size; ++d)
        into.output[d] = (a == 0.0f ? 0.0f : a * into.output[d]) + (b == 0.0f ? 0.0f : b * from.output[d]);
    into.maximum = m;
    into.sum = a * into.sum + b * from.sum;
}

namespace detail {

/// Tokens [first, last) of a cache.
struct token_range {
    index_t first;
    index_t last;
};

/// The tokens of a cache that queries at positions [first_query, last_query) may see.
template <class Score, class K, class V>
TESSERA_HOST_DEVICE token_range tokens_seen(Score const& score, kv_view<K, V> const& kv, index_t first_query, index_t last_query) noexcept {
    key_span const span = keys_of(score, first_query, last_query);
    index_t const end = kv.end_position();
    index_t const first = minimum(maximum(span.first, kv.first_position), end) - kv.first_position;
    return {first, maximum(minimum(span.last, end) - kv.first_position, first)};
}

/// One call, after the checks: scores are score(scale * (q . k)).
template <class Query, class Key, class Value, class Out, class Score>
struct attention_arguments {
    tensor_view<Query const, 3> q;      // (tokens, heads, key_dim)
    kv_view<Key, Value> kv;
    tensor_view<Out, 3> out;            // (tokens, heads, value_dim)
    matrix_view<float> log_sum_exp;     // (heads, tokens), or null
    float scale = 1.0f;
    Score score;
    index_t batch = 0; ///< request of a batch

    TESSERA_HOST_DEVICE attention_shape shape() const noexcept {
        return {q.extent(0), q.extent(1), kv.kv_heads, kv.key_dim, kv.value_dim, kv.tokens};
    }
    /// Position of query 0 in the sequence.
    TESSERA_HOST_DEVICE index_t first_query() const noexcept { return kv.query_end() - q.extent(0); }
    TESSERA_HOST_DEVICE void set_log_sum_exp(index_t head, index_t i, float value) const noexcept {
        if (log_sum_exp.data_handle() != nullptr) log_sum_exp(head, i) = value;
    }
    /// What sums are multiplied by: 1 over the sum of exponentials, or 0. Writes the log-sum-exp.
    TESSERA_HOST_DEVICE float finish(index_t head, index_t i, float maximum, float sum) const noexcept {
        float factor = 1.0f;
        if (sum == 0.0f) maximum = minus_infinity;
        if constexpr (has_sink<Score>) {
            float const sink = sink_of(score, head);
            float const m = sink > maximum ? sink : maximum; // a NaN stays one
            factor = sum == 0.0f ? 0.0f : std::exp(maximum - m);
            sum = (sum == 0.0f ? 0.0f : sum * factor) + (sink == minus_infinity ? 0.0f : std::exp(sink - m));
            maximum = m;
        }
        if (log_sum_exp.data_handle() != nullptr)
            log_sum_exp(head, i) = sum == 0.0f ? minus_infinity : maximum + std::log(sum);
        return sum == 0.0f ? 0.0f : factor / sum;
    }
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
