// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of routing (the table of kernels/routing.hpp) and of the combination of experts, in double.

#include "../kernel.hpp"
#include "../routing.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

namespace detail {

TESSERA_HOST_DEVICE inline double reference_sigmoid(double x) noexcept { return 1 / (1 + std::exp(-x)); }

/// What expert e is chosen by.
template <class Gate>
TESSERA_HOST_DEVICE double reference_choice(Gate const& gate, double logit, index_t e) noexcept {
    if constexpr (std::is_base_of_v<sigmoid_gate, Gate>)
        return reference_sigmoid(logit) + (gate.bias.extent(0) != 0 ? static_cast<double>(gate.bias[e]) : 0.0);
    else
        return static_cast<void>(gate), static_cast<void>(e), logit;
}

/// weight[j] of the chosen logit(j); `all(e)`, e < experts, are the others of a softmax over all.
template <class Gate, class Chosen, class All>
TESSERA_HOST_DEVICE void reference_weights(Gate const&, Chosen const& logit, index_t k, All const& all, index_t experts,
                                           double* weight) noexcept {
    if constexpr (std::is_base_of_v<sigmoid_gate, Gate>) {
        for (index_t j = 0; j < k; ++j) weight[j] = reference_sigmoid(logit(j));
    } else {
        constexpr bool over_all = std::is_base_of_v<softmax_gate, Gate>;
        constexpr double none = -static_cast<double>(INFINITY);
        double largest = none;
        double sum = 0;
        for (index_t i = 0; i < (over_all ? experts : k); ++i) largest = std::fmax(largest, over_all ? all(i) : logit(i));
        double const shift = largest == none ? 0.0 : largest;
        for (index_t i = 0; i < (over_all ? experts : k); ++i) sum += std::exp((over_all ? all(i) : logit(i)) - shift);
        for (index_t j = 0; j < k; ++j) weight[j] = sum == 0 ? 0.0 : std::exp(logit(j) - shift) / sum;
    }
}

} // namespace detail

template <class Gate>
struct kernel<op::route, reference, Gate> {
    using scratch = detail::route_scratch<double>;

    template <class Arena>
    static scratch plan(reference const&, index_t experts, Arena& arena) {
        return scratch::plan(1, experts, arena);
    }
    static void run(reference const&, Gate const& gate, matrix_view<float const> logits, matrix_view<std::int32_t> index,
                    matrix_view<float> weight, scratch const& s) noexcept {
        for (index_t t = 0; t < logits.extent(0); ++t) row(t, gate, logits, index, weight, s);
    }
    TESSERA_HOST_DEVICE static void row(index_t t, Gate const& gate, matrix_view<float const> logits, matrix_view<std::int32_t> index,
                                        matrix_view<float> weight, scratch const& s) noexcept {
        index_t const k = index.extent(1);
        auto const logit = [&](index_t e) noexcept { return static_cast<double>(logits(t, e)); };
        for (index_t e = 0; e < s.experts; ++e) s.choice[e] = detail::reference_choice(gate, logit(e), e);
        detail::select_experts(gate, s.choice, k, &index(t, 0), s);
        auto const chosen = [&](index_t j) noexcept { return logit(index(t, j)); };
        detail::reference_weights(gate, chosen, k, logit, s.experts, s.best);
        double sum = 0;
        for (index_t j = 0; j < k; ++j) sum += s.best[j];
        double const divisor = !detail::is_renormalized<Gate> ? 1.0 : sum == 0 ? HUGE_VAL : sum;
        for (index_t j = 0; j < k; ++j)
            weight(t, j) = static_cast<float>(static_cast<double>(gate.scale) * (s.best[j] / divisor));
    }
};

template <class Y>
struct kernel<op::combine, reference, Y> {
    static void run(reference const&, detail::combine_arguments const& a, matrix_view<Y> y) noexcept {
        for (index_t t = 0; t < y.extent(0); ++t) row(t, a, y);
    }
    TESSERA_HOST_DEVICE static void row(index_t t, detail::combine_arguments const& a, matrix_view<Y> y) noexcept {
        for (index_t n = 0; n < y.extent(1); ++n) {
            double sum = 0;
            for (index_t j = 0; j < a.choices; ++j)
                sum += static_cast<double>(a.weight(t, j)) * static_cast<double>(a.rows(a.slot[t * a.choices + j], n));
            if (a.has_shared)
                sum += (a.shared_weight != nullptr ? static_cast<double>(a.shared_weight[t]) : 1.0) *
                       static_cast<double>(a.shared(t, n));
            y(t, n) = static_cast<Y>(sum);
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
