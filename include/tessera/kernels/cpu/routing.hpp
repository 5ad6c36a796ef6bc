// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Routing and the combination of experts on the CPU, and the elementwise steps between their products. A token's logits are
/// read a few times from the first-level cache; what counts is that T tokens of E experts cost a small part of one expert.

#include "../../core/view.hpp"
#include "../../simd/math.hpp"
#include "../../simd/reduce.hpp"
#include "../kernel.hpp"
#include "../routing.hpp"
#include "activation.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// x = 1 / (1 + e^-x) for n elements.
template <class Arch>
void sigmoid_row(float const* x, index_t n, float* y) noexcept {
    simd::for_each<Arch>(n, [&](index_t i, index_t count) noexcept {
        simd::store_partial<Arch>(y + i, simd::sigmoid(simd::load_partial<Arch>(x + i, count)), count);
    });
}

/// weight[j] holds the chosen logits and becomes their weights; the logits of a softmax are `all`, or the chosen ones.
template <class Arch>
void softmax_weights(float const* all, index_t n, index_t k, float* weight) noexcept {
    using reals = simd::floats<Arch>;
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    float const top = simd::largest<Arch>(
        n, lowest, [&](index_t i, index_t count) noexcept { return simd::load_partial<Arch>(all + i, count); });
    reals const shift(top == lowest ? 0.0f : top);
    float const sum = simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        return simd::exp(simd::load_partial<Arch>(all + i, count) - shift);
    });
    reals const inverse(sum == 0.0f ? 0.0f : 1.0f / sum);
    simd::for_each<Arch>(k, [&](index_t i, index_t count) noexcept {
        simd::store_partial<Arch>(weight + i, simd::exp(simd::load_partial<Arch>(weight + i, count) - shift) * inverse, count);
    });
}

/// One token: k experts and their weights.
template <class Arch, class Gate>
void route_row(Gate const& gate, float const* logits, index_t k, std::int32_t* index, float* weight,
               route_scratch<float> const& s) noexcept {
    constexpr bool is_sigmoid = std::is_base_of_v<sigmoid_gate, Gate>;
    float const* choice = logits;
    if constexpr (is_sigmoid) {
        sigmoid_row<Arch>(logits, s.experts, s.choice);
        if (gate.bias.extent(0) != 0)
            for (index_t e = 0; e < s.experts; ++e) s.choice[e] += gate.bias[e];
        choice = s.choice;
    }
    select_experts(gate, choice, k, index, s);
    for (index_t j = 0; j < k; ++j) weight[j] = logits[index[j]];
    if constexpr (is_sigmoid)
        sigmoid_row<Arch>(weight, k, weight);
    else if constexpr (std::is_base_of_v<softmax_gate, Gate>)
        softmax_weights<Arch>(logits, s.experts, k, weight);
    else
        softmax_weights<Arch>(weight, k, k, weight);
    float factor = gate.scale;
    if constexpr (is_renormalized<Gate>) {
        float sum = 0;
        for (index_t j = 0; j < k; ++j) sum += weight[j];
        factor = sum == 0.0f ? 0.0f : factor / sum;
    }
    for (index_t j = 0; j < k; ++j) weight[j] *= factor;
}

/// to = F(gate) up for n elements.
template <class Arch, class F>
void gate_row(F f, float const* gate, float const* up, index_t n, float* to) noexcept {
    simd::for_each<Arch>(n, [&](index_t i, index_t count) noexcept {
        simd::store_partial<Arch>(
            to + i, activated(f, simd::load_partial<Arch>(gate + i, count)) * simd::load_partial<Arch>(up + i, count), count);
    });
}

} // namespace detail

template <class Arch, class Parallel, class Gate>
struct kernel<op::route, cpu<Arch, Parallel>, Gate> {
    using scratch = detail::route_scratch<float>;

    template <class Arena>
    static scratch plan(cpu<Arch, Parallel> const& exec, index_t experts, Arena& arena) {
        return scratch::plan(maximum(1, exec.parallel().concurrency()), experts, arena);
    }
    static void run(cpu<Arch, Parallel> const& exec, Gate const& gate, matrix_view<float const> logits,
                    matrix_view<std::int32_t> index, matrix_view<float> weight, scratch const& s) noexcept {
        parallel_for(exec.parallel(), logits.extent(0), maximum(1, 8192 / maximum(s.experts, 1)),
                     [&](index_t first, index_t last, index_t worker) noexcept {
                         for (index_t t = first; t < last; ++t)
                             detail::route_row<Arch>(gate, logits.data_handle() + t * logits.stride(0), index.extent(1),
                                                     index.data_handle() + t * index.stride(0),
                                                     weight.data_handle() + t * weight.stride(0), s.of(worker));
                     });
    }
};

template <class Arch, class Parallel, class Y>
struct kernel<op::combine, cpu<Arch, Parallel>, Y> {
    using reals = simd::floats<Arch>;

    static void run(cpu<Arch, Parallel> const& exec, detail::combine_arguments const& a, matrix_view<Y> y) noexcept {
        constexpr index_t piece = 2048;
        index_t const n = y.extent(1);
        index_t const pieces = ceil_div(n, piece);
        index_t const work = (a.choices + 1) * minimum(maximum(n, 1), piece);
        parallel_for(exec.parallel(), y.extent(0) * pieces, maximum(1, 65536 / work),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t p = first; p < last; ++p)
                             columns(a, y, p / pieces, p % pieces * piece, minimum(n, (p % pieces + 1) * piece));
                     });
    }

private:
    static void columns(detail::combine_arguments const& a, matrix_view<Y> const& y, index_t t, index_t n0,
                        index_t n1) noexcept {
        index_t const* const slot = a.slot + t * a.choices;
        float const shared_weight = a.shared_weight != nullptr ? a.shared_weight[t] : 1.0f;
        simd::for_each<Arch>(n1 - n0, [&](index_t at, index_t count) noexcept {
            index_t const n = n0 + at;
            reals sum(0.0f);
            for (index_t j = 0; j < a.choices; ++j)
                sum = simd::fma(reals(a.weight(t, j)),
                                simd::load_partial<Arch>(a.rows.data_handle() + slot[j] * a.rows.stride(0) + n, count), sum);
            if (a.has_shared)
                sum = simd::fma(reals(shared_weight),
                                simd::load_partial<Arch>(a.shared.data_handle() + t * a.shared.stride(0) + n, count), sum);
            if (has_unit_stride(y)) {
                simd::store_partial<Arch>(y.data_handle() + t * y.stride(0) + n, sum, count);
            } else {
                alignas(64) float lane[simd::lanes<Arch>];
                sum.store_aligned(lane);
                for (index_t i = 0; i < count; ++i) y(t, n + i) = static_cast<Y>(lane[i]);
            }
        });
    }
};

} // namespace tessera::inline TESSERA_ABI
