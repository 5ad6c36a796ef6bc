// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The gradients of attention.
///
///     ts::attention(exec, q, kv, out, score, log_sum_exp);
///     ts::attention_gradient(exec, q, kv, out, log_sum_exp, d_out, d_q, d_k, d_v, score);
///
/// Weights are recomputed from the log-sum-exp, so nothing of the size of the scores is kept. d_q, d_k and d_v are overwritten;
/// the gradients of a score's own numbers (dense_bias, relative_bias, sinks) are added to. Every mask has a gradient, and every
/// functor with `derivative` (kernels/score.hpp). A query that sees no key has the gradient zero, and so has a key that no
/// query sees, whatever they hold; a NaN in a key or value that some query sees may reach the gradients of all.
///
/// d_k and d_v are of the values that a cache stands for, whatever its format.
///
/// The same bits for any number of threads; a KV head is the work of one. Errors are those of `attention`. About 2.5 times the
/// operations of `attention`.

#include "../kernels/cpu/attention_gradient.hpp"
#include "../kernels/ref/attention_gradient.hpp"
#include "attention.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class A>
void check_attention_gradient(A const& a) {
    char const* const name = "attention_gradient";
    auto const out = tensor_view<std::remove_const_t<typename decltype(a.out)::element_type>, 3>{
        const_cast<std::remove_const_t<typename decltype(a.out)::element_type>*>(a.out.data_handle()), a.out.mapping()};
    check_attention(name, a.q, a.kv, out, {});
    auto const check_shape = [&](char const* const(&names)[3], auto const& x, index_t tokens, index_t heads, index_t dim) {
        check::equal(name, names[0], x.extent(0), tokens, "tokens of its input");
        check::equal(name, names[1], x.extent(1), heads, "heads of its input");
        check::equal(name, names[2], x.extent(2), dim, "head_dim of its input");
    };
    check_shape({"tokens of d_out", "heads of d_out", "head_dim of d_out"}, a.d_out, a.q.extent(0), a.q.extent(1), a.kv.value_dim);
    check_shape({"tokens of d_q", "heads of d_q", "head_dim of d_q"}, a.d_q, a.q.extent(0), a.q.extent(1), a.kv.key_dim);
    check_shape({"tokens of d_k", "heads of d_k", "head_dim of d_k"}, a.d_k, a.kv.tokens, a.kv.kv_heads, a.kv.key_dim);
    check_shape({"tokens of d_v", "heads of d_v", "head_dim of d_v"}, a.d_v, a.kv.tokens, a.kv.kv_heads, a.kv.value_dim);
    check::equal(name, "rows of log_sum_exp", a.log_sum_exp.extent(0), a.q.extent(1), "heads of q");
    check::equal(name, "columns of log_sum_exp", a.log_sum_exp.extent(1), a.q.extent(0), "tokens of q");
    check::elements(name, "d_out", a.d_out);
    check::elements(name, "log_sum_exp", a.log_sum_exp);
    struct named {
        char const* name;
        footprint bytes;
    };
    named const outputs[] = {{"d_q", footprint_of(a.d_q)}, {"d_k", footprint_of(a.d_k)}, {"d_v", footprint_of(a.d_v)}};
    named const inputs[] = {{"q", footprint_of(a.q)},
                            {"keys", kv_footprint(a.kv.keys, a.kv, a.kv.key_dim)},
                            {"values", kv_footprint(a.kv.values, a.kv, a.kv.value_dim)},
                            {"out", footprint_of(a.out)},
                            {"d_out", footprint_of(a.d_out)},
                            {"log_sum_exp", footprint_of(a.log_sum_exp)}};
    check::elements(name, "d_q", a.d_q);
    check::elements(name, "d_k", a.d_k);
    check::elements(name, "d_v", a.d_v);
    for (std::size_t o = 0; o < 3; ++o) {
        for (named const& in : inputs) check::no_overlap(name, in.name, in.bytes, outputs[o].name, outputs[o].bytes);
        for (std::size_t p = 0; p < o; ++p)
            check::no_overlap(name, outputs[p].name, outputs[p].bytes, outputs[o].name, outputs[o].bytes);
    }
}

} // namespace detail

/// See the file comment. out, log_sum_exp: what `attention` wrote with the same q, kv and score.
template <execution_policy Exec, kv_argument KV, score_functor Score = full_t>
void attention_gradient(Exec const& exec,
                        array3_argument auto const& q,           // (tokens, heads, key_dim)
                        KV const& kv,                            // (kv tokens, kv_heads, key_dim), (..., value_dim)
                        array3_argument auto const& out,         // (tokens, heads, value_dim)
                        matrix_argument auto const& log_sum_exp, // (heads, tokens)
                        array3_argument auto const& d_out,       // (tokens, heads, value_dim)
                        array3_argument auto&& d_q,              // (tokens, heads, key_dim)
                        array3_argument auto&& d_k,              // (kv tokens, kv_heads, key_dim)
                        array3_argument auto&& d_v,              // (kv tokens, kv_heads, value_dim)
                        Score const& score = {}) {
    detail::require_backend<Exec>();
    detail::check_nothrow<Score>();
    auto const view = detail::kv_of(kv);
    auto const queries = detail::input(q);
    auto const results = detail::input(out);
    using query_type = typename decltype(queries)::value_type;
    using out_type = typename decltype(results)::value_type;
    static_assert(std::is_same_v<out_type, typename decltype(detail::input(d_out))::value_type>,
                  "tessera: out and d_out have the same element type");
    detail::check_score("attention_gradient", score, queries.extent(1), detail::checked_end_position("attention_gradient", view));
    auto const resolved = detail::resolved_score(score, view.key_dim);
    using rest_type = std::remove_const_t<decltype(resolved.rest)>;
    using view_type = std::remove_const_t<decltype(view)>;
    using arguments_type = detail::attention_gradient_arguments<query_type, typename view_type::key_type,
                                                                typename view_type::value_type, out_type, rest_type>;
    arguments_type const arguments{queries,
                                   view,
                                   results,
                                   detail::input(log_sum_exp),
                                   detail::input(d_out),
                                   detail::output(d_q),
                                   detail::output(d_k),
                                   detail::output(d_v),
                                   resolved.factor,
                                   resolved.rest};
    detail::check_attention_gradient(arguments);
    using gradient_kernel = kernel<op::attention_gradient, Exec, arguments_type>;
    workspace_scope scope{exec.scratch()};
    gradient_kernel::run(exec, arguments, gradient_kernel::plan(exec, arguments.shape(), scope));
}

} // namespace tessera::inline TESSERA_ABI
