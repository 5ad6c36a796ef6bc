// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention over plain tensors or a KV cache.
///
///     ts::attention(exec, q, kv, out, ts::scaled{s} | ts::causal);        // kv: a kv_cache or a kv_view
///     ts::attention(exec, q, k, v, out, ts::causal);                       // keys and values in tensors
///     ts::attention(exec, q, kv, out, ts::causal, log_sum_exp);            // with the (heads, tokens) log-sum-exp
///
/// Scores, masks, biases and changes of the softmax: score.hpp, mask.hpp, neighborhood.hpp, bias.hpp, normaliser.hpp. Several
/// sequences at once: batch.hpp. Parts of the keys: merge.hpp. Gradients: attention_gradient.hpp.
///
/// Without a score, and in a score without `scaled`, the scale is 1 / sqrt(head_dim). Any number of query heads that is a
/// multiple of the KV heads; any head_dim; values may be wider or narrower than keys; q and out are float, fp16 or bf16.
/// Sums are in float32. The last query is at the last key's position, so one call serves a prefill, a chunk of one, and a
/// step of decoding: append first, then attend. (In a ring the first queries of a chunk find the oldest keys gone unless
/// the ring holds window + chunk - 1 tokens.)
///
/// A query that sees no key gets zeros and a log-sum-exp of minus infinity. Keys that a query does not see, and slots
/// behind the last token, do not change a bit of its output, were they NaN. With n keys in view, head_dim d and
/// u = 2^-24, a score has an error of at most gamma(d + 2) |scale| sum |q k| =: e, and out one of at most
/// (2 e + gamma(n + 20)) max |v|, before it is rounded to its element type.
///
/// Shapes that do not fit, null pointers and outputs that overlap an input are a shape_error; nothing is written then.
///
/// Calls are deterministic: keys are read in tiles, and decoding in parts of 1024 that merge in order, whatever the
/// number of threads.

#include "../kernels/cpu/attention.hpp"
#include "../kernels/ref/attention.hpp"
#include "append.hpp"
#include "score.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class T>
inline constexpr bool is_kv_view = false;
template <class K, class V>
inline constexpr bool is_kv_view<kv_view<K, V>> = true;

template <class F>
constexpr bool is_nothrow_score() noexcept {
    if constexpr (is_pipeline<F>)
        return is_nothrow_score<decltype(F::first)>() && is_nothrow_score<decltype(F::second)>();
    else
        return std::is_nothrow_invocable_v<F const&, double, coord<double>>;
}

} // namespace detail

/// A kv_view, or an owner whose view() is one.
template <class T>
concept kv_argument = detail::is_kv_view<T> || requires(T const& kv) {
    requires detail::is_kv_view<decltype(kv.view())>;
};

namespace detail {

template <kv_argument T>
constexpr auto kv_of(T const& kv) noexcept {
    if constexpr (is_kv_view<T>)
        return kv;
    else
        return kv.view();
}

/// Where the rows of a side of a cache lie.
template <class T, class K, class V>
footprint kv_footprint(kv_rows<T const> const& rows, kv_view<K, V> const& kv, index_t dim) noexcept {
    index_t const slots = kv.pages != nullptr ? kv.slots : kv.ring_size != 0 ? kv.ring_size : kv.tokens;
    index_t const sizes[] = {slots, kv.kv_heads, is_kv_code<T> ? rows.slot_stride : dim};
    index_t const strides[] = {rows.slot_stride, rows.head_stride, rows.dim_stride};
    using rows_view = tensor_view<T const, 3>;
    return footprint_of(rows_view{rows.data, typename rows_view::mapping_type{extents_from<3>(sizes), strides}});
}

template <class Q, class K, class V, class O>
void check_attention(char const* name, tensor_view<Q const, 3> const& q, kv_view<K, V> const& kv,
                     tensor_view<O, 3> const& out, matrix_view<float> const& lse) {
    check::equal(name, "head_dim of q", q.extent(2), kv.key_dim, "head_dim of the keys");
    if (kv.kv_heads == 0)
        check::equal(name, "heads of q", q.extent(1), 0, "there are no KV heads");
    else
        check::multiple(name, "heads of q", q.extent(1), kv.kv_heads);
    check::equal(name, "tokens of out", out.extent(0), q.extent(0), "tokens of q");
    check::equal(name, "heads of out", out.extent(1), q.extent(1), "heads of q");
    check::equal(name, "head_dim of out", out.extent(2), kv.value_dim, "head_dim of the values");
    check::elements(name, "q", q);
    check::elements(name, "out", out);
    check::not_null(name, "keys", kv.keys.data, dynamic_extents<3>{kv.tokens, kv.kv_heads, kv.key_dim}.size());
    check::not_null(name, "values", kv.values.data, dynamic_extents<3>{kv.tokens, kv.kv_heads, kv.value_dim}.size());
    footprint const from = footprint_of(q);
    footprint const keys = kv_footprint(kv.keys, kv, kv.key_dim);
    footprint const values = kv_footprint(kv.values, kv, kv.value_dim);
    auto const check_apart = [&](char const* output, footprint const& to) {
        check::no_overlap(name, "q", from, output, to);
        check::no_overlap(name, "keys", keys, output, to);
        check::no_overlap(name, "values", values, output, to);
    };
    check_apart("out", footprint_of(out));
    if (lse.data_handle() == nullptr) return;
    check::equal(name, "rows of log_sum_exp", lse.extent(0), q.extent(1), "heads of q");
    check::equal(name, "columns of log_sum_exp", lse.extent(1), q.extent(0), "tokens of q");
    check_apart("log_sum_exp", footprint_of(lse));
    check::no_overlap(name, "out", footprint_of(out), "log_sum_exp", footprint_of(lse));
}

template <class Score>
void check_nothrow() noexcept {
    static_assert(is_nothrow_score<Score>(),
                  "tessera: a score functor must be noexcept: V operator()(V s, coord<V> at) const noexcept");
}

template <class Exec, class Q, class K, class V, class O, class Score>
void run_attention(Exec const& exec, tensor_view<Q const, 3> const& q, kv_view<K, V> const& kv,
                   tensor_view<O, 3> const& out, Score const& score, matrix_view<float> const& lse) {
    require_backend<Exec>();
    check_nothrow<Score>();
    check_attention("attention", q, kv, out, lse);
    check_score("attention", score, q.extent(1));
    auto const resolved = resolved_score(score, kv.key_dim);
    using rest_type = std::remove_const_t<decltype(resolved.rest)>;
    using arguments_type = attention_arguments<Q, K, V, O, rest_type>;
    using attention_kernel = kernel<op::attention, Exec, arguments_type>;
    arguments_type const arguments{q, kv, out, lse, resolved.factor, resolved.rest};
    attention_shape const shape = arguments.shape();
    workspace_scope scope{exec.scratch()};
    attention_kernel::run(exec, &arguments, 1, attention_kernel::plan(exec, &shape, 1, scope));
}

} // namespace detail

/// out = softmax(score(q kᵀ)) v; see the file comment.
template <execution_policy Exec, kv_argument KV, score_functor Score = full_t>
void attention(Exec const& exec,
               array3_argument auto const& q, // (tokens, heads, key_dim)
               KV const& kv,                  // (kv tokens, kv_heads, key_dim), (..., value_dim)
               array3_argument auto&& out,    // (tokens, heads, value_dim)
               Score const& score = {}) {
    detail::run_attention(exec, detail::input(q), detail::kv_of(kv), detail::output(out), score, {});
}

/// The same, with the logarithm of the sum of exponentials of every query's scores.
template <execution_policy Exec, kv_argument KV, score_functor Score>
void attention(Exec const& exec,
               array3_argument auto const& q,         // (tokens, heads, key_dim)
               KV const& kv,                          // (kv tokens, kv_heads, key_dim), (..., value_dim)
               array3_argument auto&& out,            // (tokens, heads, value_dim)
               Score const& score,
               matrix_argument auto&& log_sum_exp) {  // (heads, tokens)
    auto const lse = detail::output(log_sum_exp);
    check::elements("attention", "log_sum_exp", lse);
    detail::run_attention(exec, detail::input(q), detail::kv_of(kv), detail::output(out), score, lse);
}

/// The same with keys and values in tensors.
template <execution_policy Exec, score_functor Score = full_t>
void attention(Exec const& exec,
               array3_argument auto const& q, // (tokens, heads, key_dim)
               array3_argument auto const& k, // (kv tokens, kv_heads, key_dim)
               array3_argument auto const& v, // (kv tokens, kv_heads, value_dim)
               array3_argument auto&& out,    // (tokens, heads, value_dim)
               Score const& score = {}) {
    attention(exec, q, kv_view{detail::input(k), detail::input(v)}, out, score);
}
template <execution_policy Exec, score_functor Score>
void attention(Exec const& exec,
               array3_argument auto const& q,         // (tokens, heads, key_dim)
               array3_argument auto const& k,         // (kv tokens, kv_heads, key_dim)
               array3_argument auto const& v,         // (kv tokens, kv_heads, value_dim)
               array3_argument auto&& out,            // (tokens, heads, value_dim)
               Score const& score,
               matrix_argument auto&& log_sum_exp) {  // (heads, tokens)
    attention(exec, q, kv_view{detail::input(k), detail::input(v)}, out, score, log_sum_exp);
}

/// Bytes of scratch that a call of these sizes carves from the policy's workspace.
template <execution_policy Exec>
index_t workspace_bytes(Exec const& exec, attention_shape const& shape) {
    detail::require_backend<Exec>();
    using arguments = detail::attention_arguments<float, float, float, float, full_t>;
    workspace_sizer sizer;
    static_cast<void>(kernel<op::attention, Exec, arguments>::plan(exec, &shape, 1, sizer));
    return sizer.bytes();
}

} // namespace tessera::inline TESSERA_ABI
