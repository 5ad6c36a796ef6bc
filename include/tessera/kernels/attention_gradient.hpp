// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The arguments of the gradient of attention. With s_ij = score(scale q_i . k_j), p_ij = e^(s_ij - L_i) recomputed from the
/// log-sum-exp L, and g the gradient of out:
///
///     dv_j = sum_i p_ij g_i                    delta_i = g_i . out_i
///     ds_ij = p_ij (g_i . v_j - delta_i)       dr_ij = score_gradient of ds_ij (kernels/score.hpp)
///     dq_i = scale sum_j dr_ij k_j             dk_j = scale sum_i dr_ij q_i
///
/// Query heads that share a KV head add to the same dk and dv. `kernel<op::attention_gradient, Exec, Arguments>` has `plan` and
/// `run` as `kernel<op::attention, ...>`, for one request.

#include "attention.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// One call, after the checks.
template <class Query, class Key, class Value, class Out, class Score>
struct attention_gradient_arguments {
    tensor_view<Query const, 3> q;           // (tokens, heads, key_dim)
    kv_view<Key, Value> kv;
    tensor_view<Out const, 3> out;           // (tokens, heads, value_dim)
    matrix_view<float const> log_sum_exp;    // (heads, tokens)
    tensor_view<Out const, 3> d_out;         // (tokens, heads, value_dim)
    tensor_view<float, 3> d_q;               // (tokens, heads, key_dim)
    tensor_view<float, 3> d_k;               // (kv tokens, kv_heads, key_dim)
    tensor_view<float, 3> d_v;               // (kv tokens, kv_heads, value_dim)
    float scale = 1.0f;
    Score score;
    index_t batch = 0;

    attention_shape shape() const noexcept {
        return {q.extent(0), q.extent(1), kv.kv_heads, kv.key_dim, kv.value_dim, kv.tokens};
    }
    index_t first_query() const noexcept { return kv.query_end() - q.extent(0); }
};

} // namespace tessera::inline TESSERA_ABI::detail
