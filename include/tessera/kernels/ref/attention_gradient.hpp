// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of the gradient of attention, in double: one query and head at a time, everything recomputed; out and
/// log_sum_exp are not read.

#include "../attention_gradient.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI {

template <class Arguments>
struct kernel<op::attention_gradient, reference, Arguments> {
    struct plan_type {
        double* raw;     // (keys)
        double* scores;  // (keys), then weights
        double* row;     // (value_dim), of out
        double* d_query; // (key_dim)
        double* d_keys;  // (keys, key_dim), of one KV head
        double* d_values;
    };

    template <class Arena>
    static plan_type plan(reference const&, attention_shape const& s, Arena& arena) {
        return {arena.template carve<double>(s.keys),           arena.template carve<double>(s.keys),
                arena.template carve<double>(s.value_dim),      arena.template carve<double>(s.key_dim),
                arena.template carve<double>(s.keys, s.key_dim), arena.template carve<double>(s.keys, s.value_dim)};
    }

    static void run(reference const&, Arguments const& a, plan_type const& p) noexcept {
        attention_shape const s = a.shape();
        for (index_t head = 0; head < s.kv_heads; ++head) {
            for (index_t i = 0; i < s.keys * s.key_dim; ++i) p.d_keys[i] = 0;
            for (index_t i = 0; i < s.keys * s.value_dim; ++i) p.d_values[i] = 0;
            for (index_t i = 0; i < s.queries; ++i)
                for (index_t h = head * s.group(); h < (head + 1) * s.group(); ++h) row(a, i, h, head, p);
            for (index_t t = 0; t < s.keys; ++t) {
                for (index_t d = 0; d < s.key_dim; ++d) a.d_k(t, head, d) = static_cast<float>(p.d_keys[t * s.key_dim + d]);
                for (index_t d = 0; d < s.value_dim; ++d)
                    a.d_v(t, head, d) = static_cast<float>(p.d_values[t * s.value_dim + d]);
            }
        }
    }

private:
    static constexpr double none = -std::numeric_limits<double>::infinity();

    template <class T>
    static double number(T x) noexcept {
        return double{static_cast<float>(x)};
    }
    static coord<double> at(Arguments const& a, index_t i, index_t t, index_t h) noexcept {
        return {a.first_query() + i, a.kv.first_position + t, 0.0, 0.0, h, a.batch};
    }

    /// Weights of one row, out's row, and the sink's weight.
    static double weigh(Arguments const& a, index_t i, index_t h, index_t head, plan_type const& p) noexcept {
        double largest = none;
        if constexpr (detail::has_sink<decltype(a.score)>) largest = double{detail::sink_of(a.score, h)};
        double const sink = largest;
        for (index_t t = 0; t < a.kv.tokens; ++t) {
            double s = 0;
            for (index_t d = 0; d < a.kv.key_dim; ++d) s += number(a.q(i, h, d)) * double{a.kv.keys(head, a.kv.slot(t), d)};
            p.raw[t] = double{a.scale} * s;
            p.scores[t] = a.score(p.raw[t], at(a, i, t, h));
            if (p.scores[t] > largest || p.scores[t] != p.scores[t]) largest = p.scores[t];
        }
        double sum = sink == none ? 0.0 : std::exp(sink - largest);
        for (index_t t = 0; t < a.kv.tokens; ++t)
            if (p.scores[t] != none) sum += p.scores[t] = std::exp(p.scores[t] - largest);
        for (index_t d = 0; d < a.kv.value_dim; ++d) p.row[d] = 0;
        for (index_t t = 0; t < a.kv.tokens; ++t) {
            if (p.scores[t] == none) continue;
            p.scores[t] /= sum;
            for (index_t d = 0; d < a.kv.value_dim; ++d)
                p.row[d] += p.scores[t] * double{a.kv.values(head, a.kv.slot(t), d)};
        }
        return sink == none ? 0.0 : std::exp(sink - largest) / sum;
    }

    static void row(Arguments const& a, index_t i, index_t h, index_t head, plan_type const& p) noexcept {
        double const sink = weigh(a, i, h, head, p);
        double delta = 0;
        for (index_t d = 0; d < a.kv.value_dim; ++d) delta += number(a.d_out(i, h, d)) * p.row[d];
        for (index_t d = 0; d < a.kv.key_dim; ++d) p.d_query[d] = 0;
        for (index_t t = 0; t < a.kv.tokens; ++t) {
            if (p.scores[t] == none) continue;
            double dp = 0;
            for (index_t d = 0; d < a.kv.value_dim; ++d) {
                dp += number(a.d_out(i, h, d)) * double{a.kv.values(head, a.kv.slot(t), d)};
                p.d_values[t * a.kv.value_dim + d] += p.scores[t] * number(a.d_out(i, h, d));
            }
            double const ds = p.scores[t] * (dp - delta);
            double const dr = double{a.scale} * detail::score_gradient(a.score, p.raw[t], at(a, i, t, h), ds);
            for (index_t d = 0; d < a.kv.key_dim; ++d) {
                p.d_query[d] += dr * double{a.kv.keys(head, a.kv.slot(t), d)};
                p.d_keys[t * a.kv.key_dim + d] += dr * number(a.q(i, h, d));
            }
        }
        if constexpr (detail::has_sink<decltype(a.score)>) detail::accumulate_sink(a.score, h, -sink * delta);
        for (index_t d = 0; d < a.kv.key_dim; ++d) a.d_q(i, h, d) = static_cast<float>(p.d_query[d]);
    }
};

} // namespace tessera::inline TESSERA_ABI
