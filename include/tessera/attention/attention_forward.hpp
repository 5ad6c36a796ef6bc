// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The calls of attention, for the kernels of every backend; `attention.hpp` has those of processors and says what holds,
/// `attention.cuh` those of CUDA devices.

#include "../kernels/ref/attention.hpp"
#include "../nn/arguments.hpp"
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

/// The position behind the last key and query, for `check_score`.
template <class K, class V>
index_t checked_end_position(char const* name, kv_view<K, V> const& kv) {
    constexpr index_t far = index_t{1} << 60;
    check::within(name, "first position of the keys", kv.first_position, 0, far);
    check::within(name, "tokens after the keys", kv.tokens_after, 0, far);
    return kv.query_end();
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

/// One that was asked for: null is none only where there is nothing to write.
template <class Q>
void check_log_sum_exp(char const* name, tensor_view<Q const, 3> const& q, matrix_view<float> const& lse) {
    check::equal(name, "rows of log_sum_exp", lse.extent(0), q.extent(1), "heads of q");
    check::equal(name, "columns of log_sum_exp", lse.extent(1), q.extent(0), "tokens of q");
    check::elements(name, "log_sum_exp", lse);
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
    check_score_extents("attention", score, q.extent(1), checked_end_position("attention", kv));
    if constexpr (!is_cuda<Exec>) check_score_contents("attention", score); // a device's memory is not the host's to read
    auto const resolved = resolved_score(score, kv.key_dim);
    using rest_type = std::remove_const_t<decltype(resolved.rest)>;
    using arguments_type = attention_arguments<Q, K, V, O, rest_type>;
    using attention_kernel = kernel<op::attention, Exec, arguments_type>;
    arguments_type const arguments{q, kv, out, lse, resolved.factor, resolved.rest};
    if constexpr (is_cuda<Exec>) {
        attention_kernel::run_one(exec, arguments);
    } else {
        attention_shape const shape = arguments.shape();
        workspace_scope scope{exec.scratch()};
        attention_kernel::run(exec, &arguments, 1, attention_kernel::plan(exec, &shape, 1, scope));
    }
}

} // namespace detail

/// out = softmax(score(q kᵀ)) v; see the file comment.
template <execution_policy Exec, kv_argument KV, score_functor Score = full_t>
void attention(Exec const& exec,
               array3_argument auto const& q, // (tokens, heads, key_dim)
               KV const& kv,                  // (kv tokens, kv_heads, key_dim), (..., value_dim)
               array3_argument auto&& out,    // (tokens, heads, value_dim)
               Score const& score = {}) {
    detail::run_attention(exec, detail::input<Exec>(q), detail::kv_of(kv), detail::output<Exec>(out), score, {});
}

/// The same, with the logarithm of the sum of exponentials of every query's scores.
template <execution_policy Exec, kv_argument KV, score_functor Score>
void attention(Exec const& exec,
               array3_argument auto const& q,         // (tokens, heads, key_dim)
               KV const& kv,                          // (kv tokens, kv_heads, key_dim), (..., value_dim)
               array3_argument auto&& out,            // (tokens, heads, value_dim)
               Score const& score,
               matrix_argument auto&& log_sum_exp) {  // (heads, tokens)
    auto const lse = detail::output<Exec>(log_sum_exp);
    detail::check_log_sum_exp("attention", detail::input<Exec>(q), lse);
    detail::run_attention(exec, detail::input<Exec>(q), detail::kv_of(kv), detail::output<Exec>(out), score, lse);
}

/// The same with keys and values in tensors.
template <execution_policy Exec, score_functor Score = full_t>
void attention(Exec const& exec,
               array3_argument auto const& q, // (tokens, heads, key_dim)
               array3_argument auto const& k, // (kv tokens, kv_heads, key_dim)
               array3_argument auto const& v, // (kv tokens, kv_heads, value_dim)
               array3_argument auto&& out,    // (tokens, heads, value_dim)
               Score const& score = {}) {
    attention(exec, q, kv_view{detail::input<Exec>(k), detail::input<Exec>(v)}, out, score);
}
template <execution_policy Exec, score_functor Score>
void attention(Exec const& exec,
               array3_argument auto const& q,         // (tokens, heads, key_dim)
               array3_argument auto const& k,         // (kv tokens, kv_heads, key_dim)
               array3_argument auto const& v,         // (kv tokens, kv_heads, value_dim)
               array3_argument auto&& out,            // (tokens, heads, value_dim)
               Score const& score,
               matrix_argument auto&& log_sum_exp) {  // (heads, tokens)
    attention(exec, q, kv_view{detail::input<Exec>(k), detail::input<Exec>(v)}, out, score, log_sum_exp);
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
