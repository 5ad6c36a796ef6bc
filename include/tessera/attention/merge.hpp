// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention over parts of the keys, put together: out and log-sum-exp of a part are its partial state, and states merge in any
/// order (Mnemosyne, arXiv:2409.17264; the same as `merge` of kernels/attention.hpp with sums of 1):
///
///     L = log(e^L1 + e^L2)      out = e^(L1 - L) out1 + e^(L2 - L) out2
///
/// Prompts that sequences share, caches in several memories, machines that hold a part of the keys each: every part is
/// attended to on its own. Masks and biases that count positions must know where a part begins in the sequence and how many tokens
/// come behind it: the queries are the last ones of the sequence, not of the part.
///
///     ts::kv_view part = kv.view();       // holds tokens 60 to 119 of 200
///     part.first_position = 60;
///     part.tokens_after = 80;
///     ts::attention(exec, q, part, out, ts::causal, log_sum_exp);
///
/// A part that saw no key (log-sum-exp of minus infinity) is neutral, whatever its out holds. Shapes that do not fit and null
/// pointers are a shape_error.

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../kernels/score.hpp"
#include "../nn/arguments.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// What `attention` over some of the keys wrote.
struct attention_part {
    tensor_view<float const, 3> out;          // (tokens, heads, value_dim)
    matrix_view<float const> log_sum_exp;     // (heads, tokens)
};

namespace detail {

inline void merge_row(attention_part const& a, attention_part const& b, index_t token, index_t head,
                      tensor_view<float, 3> const& out, matrix_view<float> const& lse) noexcept {
    float const first = a.log_sum_exp(head, token);
    float const second = b.log_sum_exp(head, token);
    float const m = first < second ? second : first;
    float const x = first == minus_infinity ? 0.0f : std::exp(first - m);
    float const y = second == minus_infinity ? 0.0f : std::exp(second - m);
    float const sum = x + y;
    float const inverse = sum == 0.0f ? 0.0f : 1.0f / sum;
    for (index_t d = 0; d < out.extent(2); ++d)
        out(token, head, d) = (x == 0.0f ? 0.0f : x * inverse * a.out(token, head, d)) +
                              (y == 0.0f ? 0.0f : y * inverse * b.out(token, head, d));
    lse(head, token) = sum == 0.0f ? minus_infinity : m + std::log(sum);
}

} // namespace detail

/// Merges two parts. out and log_sum_exp may be those of a part itself; any other overlap is the caller's to avoid.
template <execution_policy Exec>
void merge_attention(Exec const& exec, attention_part const& a, attention_part const& b,
                     tensor_view<float, 3> out,         // (tokens, heads, value_dim)
                     matrix_view<float> log_sum_exp) {  // (heads, tokens)
    detail::require_backend<Exec>();
    char const* const name = "merge_attention";
    for (attention_part const* part : {&a, &b}) {
        char const* const rows[] = {"tokens of a part", "heads of a part", "head_dim of a part"};
        for (std::size_t r = 0; r < 3; ++r) check::equal(name, rows[r], part->out.extent(r), out.extent(r), "those of out");
        check::equal(name, "rows of a log_sum_exp", part->log_sum_exp.extent(0), out.extent(1), "heads of out");
        check::equal(name, "columns of a log_sum_exp", part->log_sum_exp.extent(1), out.extent(0), "tokens of out");
        check::elements(name, "out of a part", part->out);
        check::elements(name, "log_sum_exp of a part", part->log_sum_exp);
    }
    check::elements(name, "out", out);
    check::elements(name, "log_sum_exp", log_sum_exp);
    check::equal(name, "rows of log_sum_exp", log_sum_exp.extent(0), out.extent(1), "heads of out");
    check::equal(name, "columns of log_sum_exp", log_sum_exp.extent(1), out.extent(0), "tokens of out");
    index_t const grain = maximum(8192 / maximum(out.extent(1) * out.extent(2), 1), 1);
    parallel_for(exec.parallel(), out.extent(0), grain, [&](index_t first, index_t last, index_t) noexcept {
        for (index_t token = first; token < last; ++token)
            for (index_t head = 0; head < out.extent(1); ++head) detail::merge_row(a, b, token, head, out, log_sum_exp);
    });
}

} // namespace tessera::inline TESSERA_ABI
