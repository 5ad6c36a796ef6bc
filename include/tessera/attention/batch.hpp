// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of several sequences in one call: any mixture of whole prompts, chunks of prompts and single tokens (Agrawal et al.
/// 2023, arXiv:2308.16369), each with keys and values of its own.
///
///     ts::attention_batch(exec, q, offsets, caches, out, ts::causal);      // request b: queries [offsets[b], offsets[b + 1])
///
/// Every request's results are those of `attention` with its queries and its keys, to the bit, whatever else is in the batch;
/// score functors find the request's number in `coord::batch`, and own no memory (they are copied into the workspace). A request
/// may have no queries or no keys. The work of all requests is one parallel loop. Errors are those of `attention`, and a
/// shape_error where offsets do not fit.

#include "attention.hpp"

#include <cstdint>
#include <new>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Requests with their keys, of equal dimensions.
template <class Exec, class Q, class Caches, class O, class Score>
void run_attention_batch(Exec const& exec, tensor_view<Q const, 3> const& q, vector_view<std::int32_t const> const& offsets,
                         Caches const& caches, tensor_view<O, 3> const& out, Score const& score,
                         matrix_view<float> const& lse) {
    require_backend<Exec>();
    check_nothrow<Score>();
    char const* const name = "attention_batch";
    auto const n = static_cast<index_t>(caches.size());
    check::equal(name, "number of offsets", offsets.extent(0), n + 1, "number of requests plus one");
    check::equal(name, "tokens of out", out.extent(0), q.extent(0), "tokens of q");
    check::not_null(name, "offsets", offsets.data_handle(), offsets.extent(0));
    check::equal(name, "first offset", offsets[0], 0, "where the first request begins");
    check::equal(name, "last offset", offsets[n], q.extent(0), "tokens of q");
    if (lse.data_handle() != nullptr) {
        check::equal(name, "rows of log_sum_exp", lse.extent(0), q.extent(1), "heads of q");
        check::equal(name, "columns of log_sum_exp", lse.extent(1), q.extent(0), "tokens of q");
    }
    check::no_overlap(name, "q", footprint_of(q), "out", footprint_of(out));
    check::no_overlap(name, "q", footprint_of(q), "log_sum_exp", footprint_of(lse));
    check::no_overlap(name, "out", footprint_of(out), "log_sum_exp", footprint_of(lse));
    index_t end_position = 0;
    for (index_t b = 0; b < n; ++b)
        end_position = maximum(end_position, checked_end_position(name, kv_of(caches[static_cast<std::size_t>(b)])));
    check_score(name, score, q.extent(1), end_position);

    using view_type = std::remove_const_t<decltype(kv_of(caches[0]))>;
    auto const resolved = resolved_score(score, q.extent(2));
    using rest_type = std::remove_const_t<decltype(resolved.rest)>;
    using arguments_type = attention_arguments<Q, typename view_type::key_type, typename view_type::value_type, O, rest_type>;
    using attention_kernel = kernel<op::attention, Exec, arguments_type>;
    workspace_scope scope{exec.scratch()};
    auto* const arguments = scope.carve<arguments_type>(n);
    auto* const shapes = scope.carve<attention_shape>(n);
    for (index_t b = 0; b < n; ++b) {
        check::within(name, "an offset", offsets[b + 1], offsets[b], q.extent(0));
        range const tokens{offsets[b], offsets[b + 1]};
        view_type const kv = kv_of(caches[static_cast<std::size_t>(b)]);
        check::equal(name, "KV heads of a request", kv.kv_heads, kv_of(caches[0]).kv_heads, "KV heads of the first");
        auto const* const a = ::new (static_cast<void*>(arguments + b))
            arguments_type{slice(q, tokens, all, all), kv,   slice(out, tokens, all, all),
                           lse.data_handle() == nullptr ? lse : columns(lse, tokens.first, tokens.last),
                           resolved.factor,            resolved.rest, b};
        check_attention(name, a->q, kv, a->out, a->log_sum_exp);
        check::no_overlap(name, "keys", kv_footprint(kv.keys, kv, kv.key_dim), "out", footprint_of(out));
        check::no_overlap(name, "values", kv_footprint(kv.values, kv, kv.value_dim), "out", footprint_of(out));
        check::no_overlap(name, "keys", kv_footprint(kv.keys, kv, kv.key_dim), "log_sum_exp", footprint_of(lse));
        check::no_overlap(name, "values", kv_footprint(kv.values, kv, kv.value_dim), "log_sum_exp", footprint_of(lse));
        shapes[b] = a->shape();
    }
    attention_kernel::run(exec, arguments, n, attention_kernel::plan(exec, shapes, n, scope));
}

} // namespace detail

/// A sequence of caches or kv_views of one type, as std::vector, std::array or std::span.
template <class T>
concept kv_sequence = requires(T const& caches) {
    { caches.size() } -> std::convertible_to<std::size_t>;
    requires kv_argument<std::remove_cvref_t<decltype(caches[0])>>;
};

/// See the file comment.
template <execution_policy Exec, kv_sequence Caches, score_functor Score = full_t>
void attention_batch(Exec const& exec,
                     array3_argument auto const& q,             // (tokens of all, heads, key_dim)
                     vector_view<std::int32_t const> offsets,   // (requests + 1), ascending from 0
                     Caches const& caches,                      // (requests)
                     array3_argument auto&& out,                // (tokens of all, heads, value_dim)
                     Score const& score = {}) {
    detail::run_attention_batch(exec, detail::input(q), offsets, caches, detail::output(out), score, {});
}
template <execution_policy Exec, kv_sequence Caches, score_functor Score>
void attention_batch(Exec const& exec,
                     array3_argument auto const& q,             // (tokens of all, heads, key_dim)
                     vector_view<std::int32_t const> offsets,   // (requests + 1), ascending from 0
                     Caches const& caches,                      // (requests)
                     array3_argument auto&& out,                // (tokens of all, heads, value_dim)
                     Score const& score,
                     matrix_argument auto&& log_sum_exp) {      // (heads, tokens of all)
    auto const lse = detail::output(log_sum_exp);
    detail::check_log_sum_exp("attention_batch", detail::input(q), lse);
    detail::run_attention_batch(exec, detail::input(q), offsets, caches, detail::output(out), score, lse);
}

} // namespace tessera::inline TESSERA_ABI
