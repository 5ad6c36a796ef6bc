// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How much attention keys receive: mass(g, t) += sum of e^(s_ij - L_i) over the queries i and the query heads that read KV head g,
/// j being token t, recomputed from the log-sum-exp L. Without sinks every query and head brings 1 in all. A NaN stays one.
///
/// `kernel<op::attention_mass, Exec, Arguments>` has `plan` and `run` as `kernel<op::attention, ...>`, for one request.

#include "../attention.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// One call, after the checks.
template <class Query, class Key, class Value, class Score>
struct attention_mass_arguments {
    tensor_view<Query const, 3> q;        // (tokens, heads, key_dim)
    kv_view<Key, Value> kv;
    matrix_view<float const> log_sum_exp; // (heads, tokens)
    matrix_view<float> mass;              // (kv_heads, kv tokens)
    float scale = 1.0f;
    Score score;
    index_t batch = 0;

    attention_shape shape() const noexcept {
        return {q.extent(0), q.extent(1), kv.kv_heads, kv.key_dim, kv.value_dim, kv.tokens};
    }
    index_t first_query() const noexcept { return kv.query_end() - q.extent(0); }
};

} // namespace detail

template <class Arguments>
struct kernel<op::attention_mass, reference, Arguments> {
    struct plan_type {};

    template <class Arena>
    static plan_type plan(reference const&, attention_shape const&, Arena&) {
        return {};
    }

    static void run(reference const&, Arguments const& a, plan_type) noexcept {
        for (index_t h = 0; h < a.kv.kv_heads; ++h)
            for (index_t t = 0; t < a.kv.tokens; ++t) a.mass(h, t) = static_cast<float>(double{a.mass(h, t)} + received(a, h, t));
    }

private:
    static double received(Arguments const& a, index_t kv_head, index_t t) noexcept {
        index_t const group = a.shape().group();
        double sum = 0;
        for (index_t i = 0; i < a.q.extent(0); ++i)
            for (index_t h = kv_head * group; h < (kv_head + 1) * group; ++h) {
                if (a.log_sum_exp(h, i) == minus_infinity) continue; // saw nothing
                double s = 0;
                for (index_t d = 0; d < a.kv.key_dim; ++d)
                    s += static_cast<double>(static_cast<float>(a.q(i, h, d))) * double{a.kv.keys(kv_head, a.kv.slot(t), d)};
                s = a.score(double{a.scale} * s,
                            coord<double>{a.first_query() + i, a.kv.first_position + t, 0.0, 0.0, h, a.batch});
                if (s != -std::numeric_limits<double>::infinity()) sum += std::exp(s - double{a.log_sum_exp(h, i)});
            }
        return sum;
    }
};

} // namespace tessera::inline TESSERA_ABI
