// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of attention: one query and head at a time, all scores first, everything in double.

#include "../attention.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

template <class Arguments>
struct kernel<op::attention, reference, Arguments> {
    struct plan_type {
        double* scores;
        double* sums;
    };

    template <class Arena>
    static plan_type plan(reference const&, attention_shape const* s, index_t n, Arena& arena) {
        index_t keys = 0;
        for (index_t b = 0; b < n; ++b) keys = maximum(keys, s[b].keys);
        return {arena.template carve<double>(keys), arena.template carve<double>(n == 0 ? 0 : s->value_dim)};
    }

    static void run(reference const&, Arguments const* a, index_t n, plan_type const& scratch) noexcept {
        for (index_t b = 0; b < n; ++b)
            for (index_t i = 0; i < a[b].q.extent(0); ++i)
                for (index_t h = 0; h < a[b].q.extent(1); ++h) row(a[b], i, h, scratch);
    }

    /// Query i of head h.
    TESSERA_HOST_DEVICE static void row(Arguments const& a, index_t i, index_t h, plan_type const& scratch) noexcept {
        constexpr double none = -static_cast<double>(INFINITY);
        index_t const kv_head = h / a.shape().group();
        double largest = none;
        if constexpr (detail::has_sink<decltype(a.score)>) largest = double{detail::sink_of(a.score, h)};
        double const sink = largest;
        for (index_t t = 0; t < a.kv.tokens; ++t) {
            double s = 0;
            for (index_t d = 0; d < a.kv.key_dim; ++d)
                s += static_cast<double>(static_cast<float>(a.q(i, h, d))) * double{a.kv.keys(kv_head, a.kv.slot(t), d)};
            coord<double> const at{a.first_query() + i, a.kv.first_position + t, 0.0, 0.0, h, a.batch};
            scratch.scores[t] = a.score(double{a.scale} * s, at);
            if (scratch.scores[t] > largest || scratch.scores[t] != scratch.scores[t]) largest = scratch.scores[t];
        }
        double sum = sink == none ? 0.0 : std::exp(sink - largest);
        for (index_t d = 0; d < a.kv.value_dim; ++d) scratch.sums[d] = 0;
        for (index_t t = 0; t < a.kv.tokens; ++t) {
            if (scratch.scores[t] == none) continue; // not seen: its value does not matter, were it NaN
            double const p = std::exp(scratch.scores[t] - largest);
            sum += p;
            for (index_t d = 0; d < a.kv.value_dim; ++d)
                scratch.sums[d] += p * double{a.kv.values(kv_head, a.kv.slot(t), d)};
        }
        using out_type = typename decltype(a.out)::value_type;
        for (index_t d = 0; d < a.kv.value_dim; ++d)
            a.out(i, h, d) = static_cast<out_type>(static_cast<float>(sum == 0 ? 0.0 : scratch.sums[d] / sum));
        a.set_log_sum_exp(h, i, static_cast<float>(sum == 0 ? none : largest + std::log(sum)));
    }
};

} // namespace tessera::inline TESSERA_ABI
