// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How much attention keys receive: mass(g, t) += sum of the probabilities that all queries of the heads of KV head g give token t.
///
///     ts::attention_with_mass(exec, q, kv, out, score, log_sum_exp, mass);   // attention, and the mass out of it
///     ts::attention_mass(exec, q, kv, log_sum_exp, score, mass);             // after an `attention` of the same arguments
///
/// A probability needs the log-sum-exp of its row, and that is known behind the last key. So `attention_with_mass` keeps the scores of
/// few queries (those that `attention` treats as decoding: 4 rows and less with 16 lanes), (heads, queries, kv tokens) floats of
/// scratch, and multiplies nothing twice; of many queries the scores would be larger than the cache, and queries and keys are
/// multiplied again, in tiles that some query sees. `attention_mass` always does so. Sums are the same, where keys have no scale of
/// their own to the bit.
///
/// What does not fit is a shape_error, and nothing is written then.

#include "../kernels/cpu/attention_mass.hpp"
#include "../kernels/ref/attention_mass.hpp"
#include "attention.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Q, class K, class V, class L>
void check_attention_mass(char const* name, tensor_view<Q const, 3> const& q, kv_view<K, V> const& kv, matrix_view<L> const& lse,
                          matrix_view<float> const& mass) {
    check::equal(name, "head_dim of q", q.extent(2), kv.key_dim, "head_dim of the keys");
    if (kv.kv_heads == 0)
        check::equal(name, "heads of q", q.extent(1), 0, "there are no KV heads");
    else
        check::multiple(name, "heads of q", q.extent(1), kv.kv_heads);
    check::equal(name, "rows of log_sum_exp", lse.extent(0), q.extent(1), "heads of q");
    check::equal(name, "columns of log_sum_exp", lse.extent(1), q.extent(0), "tokens of q");
    check::equal(name, "rows of mass", mass.extent(0), kv.kv_heads, "KV heads");
    check::equal(name, "columns of mass", mass.extent(1), kv.tokens, "tokens of the cache");
    check::elements(name, "q", q);
    check::elements(name, "log_sum_exp", lse);
    check::elements(name, "mass", mass);
    check::not_null(name, "keys", kv.keys.data, dynamic_extents<3>{kv.tokens, kv.kv_heads, kv.key_dim}.size());
    check::no_overlap(name, "q", footprint_of(q), "mass", footprint_of(mass));
    check::no_overlap(name, "log_sum_exp", footprint_of(lse), "mass", footprint_of(mass));
    check::no_overlap(name, "keys", kv_footprint(kv.keys, kv, kv.key_dim), "mass", footprint_of(mass));
}

template <class Exec, class Q, class K, class V, class Score>
void run_attention_mass(Exec const& exec, tensor_view<Q const, 3> const& q, kv_view<K, V> const& kv, matrix_view<float const> const& lse,
                        Score const& score, matrix_view<float> const& mass) {
    auto const resolved = resolved_score(score, kv.key_dim);
    using arguments_type = attention_mass_arguments<Q, K, V, std::remove_const_t<decltype(resolved.rest)>>;
    using mass_kernel = kernel<op::attention_mass, Exec, arguments_type>;
    arguments_type const arguments{q, kv, lse, mass, resolved.factor, resolved.rest};
    workspace_scope scope{exec.scratch()};
    mass_kernel::run(exec, arguments, mass_kernel::plan(exec, arguments.shape(), scope));
}

/// Of few queries, by their scores.
template <class Exec, class Q, class K, class V, class O, class Score>
void run_recorded_attention(Exec const& exec, tensor_view<Q const, 3> const& q, kv_view<K, V> const& kv, tensor_view<O, 3> const& out,
                            Score const& score, matrix_view<float> const& lse, matrix_view<float> const& mass) {
    auto const resolved = resolved_score(score, kv.key_dim);
    using rest_type = std::remove_const_t<decltype(resolved.rest)>;
    using arguments_type = recorded_attention<attention_arguments<Q, K, V, O, rest_type>>;
    using mass_arguments_type = attention_mass_arguments<Q, K, V, rest_type>;
    using attention_kernel = kernel<op::attention, Exec, arguments_type>;
    using mass_kernel = kernel<op::attention_mass, Exec, mass_arguments_type>;
    workspace_scope scope{exec.scratch()};
    index_t const size = saturated_product(q.extent(0), q.extent(1), kv.tokens);
    arguments_type const arguments{{q, kv, out, lse, resolved.factor, resolved.rest}, scope.template carve<float>(size)};
    mass_arguments_type const mass_arguments{q, kv, lse, mass, resolved.factor, resolved.rest};
    for (index_t i = 0; i < size; ++i) arguments.recorded[i] = minus_infinity;
    attention_shape const shape = arguments.shape();
    attention_kernel::run(exec, &arguments, 1, attention_kernel::plan(exec, &shape, 1, scope));
    mass_kernel::run_recorded(exec, mass_arguments, arguments.recorded, mass_kernel::plan(exec, shape, scope));
}

} // namespace detail

/// Adds to mass the attention that keys receive, O(queries keys heads key_dim); log_sum_exp: what `attention` wrote with the same q,
/// kv and score.
template <execution_policy Exec, kv_argument KV, score_functor Score>
void attention_mass(Exec const& exec,
                    array3_argument auto const& q,           // (tokens, heads, key_dim)
                    KV const& kv,                            // (kv tokens, kv_heads, key_dim)
                    matrix_argument auto const& log_sum_exp, // (heads, tokens)
                    Score const& score,
                    matrix_argument auto&& mass) {           // (kv_heads, kv tokens)
    detail::require_backend<Exec>();
    detail::check_nothrow<Score>();
    auto const view = detail::kv_of(kv);
    auto const queries = detail::input(q);
    matrix_view<float const> const lse = detail::input(log_sum_exp);
    matrix_view<float> const sums = detail::output(mass);
    detail::check_attention_mass("attention_mass", queries, view, lse, sums);
    detail::check_score("attention_mass", score, queries.extent(1), detail::checked_end_position("attention_mass", view));
    detail::run_attention_mass(exec, queries, view, lse, score, sums);
}

/// `attention` with its log-sum-exp, which also adds to mass the attention that keys receive; see the file comment.
template <execution_policy Exec, kv_argument KV, score_functor Score>
void attention_with_mass(Exec const& exec,
                         array3_argument auto const& q,        // (tokens, heads, key_dim)
                         KV const& kv,                         // (kv tokens, kv_heads, key_dim), (..., value_dim)
                         array3_argument auto&& out,           // (tokens, heads, value_dim)
                         Score const& score,
                         matrix_argument auto&& log_sum_exp,   // (heads, tokens)
                         matrix_argument auto&& mass) {        // (kv_heads, kv tokens)
    detail::require_backend<Exec>();
    detail::check_nothrow<Score>();
    char const* const name = "attention_with_mass";
    auto const view = detail::kv_of(kv);
    auto const queries = detail::input(q);
    auto const outputs = detail::output(out);
    matrix_view<float> const lse = detail::output(log_sum_exp);
    matrix_view<float> const sums = detail::output(mass);
    detail::check_attention_mass(name, queries, view, lse, sums);
    detail::check_attention(name, queries, view, outputs, lse);
    detail::check_score(name, score, queries.extent(1), detail::checked_end_position(name, view));
    check::no_overlap(name, "out", footprint_of(outputs), "mass", footprint_of(sums));
    check::no_overlap(name, "values", detail::kv_footprint(view.values, view, view.value_dim), "mass", footprint_of(sums));
    if constexpr (detail::is_cpu<Exec>)
        if (kernel<op::attention, Exec, detail::attention_arguments<float, float, float, float, full_t>>::is_decode(
                {queries.extent(0), queries.extent(1), view.kv_heads, view.key_dim, view.value_dim, view.tokens}))
            return detail::run_recorded_attention(exec, queries, view, outputs, score, lse, sums);
    detail::run_attention(exec, queries, view, outputs, score, lse);
    detail::run_attention_mass(exec, queries, view, matrix_view<float const>{lse}, score, sums);
}

} // namespace tessera::inline TESSERA_ABI
