// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Gates of a mixture of experts as types: from the logits of a token, one per expert, to k experts and their weights.
///
/// | gate | chosen by | weight of expert e |
/// |---|---|---|
/// | `softmax_gate` | l_e | softmax over all experts, at e |
/// | `top_k_softmax_gate` | l_e | softmax over the chosen ones, at e |
/// | `sigmoid_gate` | s_e + bias_e, in the best groups | s_e = 1 / (1 + exp(-l_e)) |
/// | `renormalized<G>` | as G | G's over the sum of the chosen ones' |
///
/// each times the gate's `scale`. Mixtral and Qwen3-MoE are `renormalized<softmax_gate>`, Qwen2-MoE is `softmax_gate`,
/// DeepSeek-V3 is `renormalized<sigmoid_gate>` (auxiliary-loss-free balancing: the bias chooses, and does not weigh).
///
/// Experts come in descending order of what they are chosen by; of equal ones the smaller index is first. NaN ranks last, with
/// minus infinity. Groups are consecutive experts, ranked by the sum of their two best (of one expert: by it).
///
/// **kernel<op::route, Exec, Gate>**: `plan(exec, experts, arena)` carves scratch, `run(exec, gate, logits, index, weight,
/// scratch)` with matrices of contiguous rows. **kernel<op::combine, Exec, Y>**: `run(exec, arguments, y)`.

#include "../core/error.hpp"
#include "../core/view.hpp"

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Softmax over all experts; the weights of the chosen are what it gives them.
struct softmax_gate {
    static constexpr char const* name = "softmax";
    float scale = 1.0f;
    constexpr softmax_gate() noexcept = default;
    constexpr explicit softmax_gate(float factor) noexcept : scale{factor} {}
};

/// Softmax over the chosen experts.
struct top_k_softmax_gate {
    static constexpr char const* name = "softmax over the chosen";
    float scale = 1.0f;
    constexpr top_k_softmax_gate() noexcept = default;
    constexpr explicit top_k_softmax_gate(float factor) noexcept : scale{factor} {}
};

/// Sigmoid of each expert; a bias, and a limit to the best groups, take part in the choice alone.
struct sigmoid_gate {
    static constexpr char const* name = "sigmoid";
    vector_view<float const> bias{}; ///< (experts), or empty
    index_t groups = 1;              ///< equal parts of the experts
    index_t kept_groups = 1;         ///< how many of them a token may choose from
    float scale = 1.0f;
    constexpr sigmoid_gate() noexcept = default;
    constexpr explicit sigmoid_gate(float factor) noexcept : scale{factor} {}
    constexpr explicit sigmoid_gate(vector_view<float const> b, index_t group_count = 1, index_t kept = 1,
                                    float factor = 1.0f) noexcept
        : bias{b}, groups{group_count}, kept_groups{kept}, scale{factor} {}
};

/// The gate's weights over their sum.
template <class Gate>
struct renormalized : Gate {
    constexpr renormalized() noexcept = default;
    constexpr explicit renormalized(Gate const& gate) noexcept : Gate{gate} {}
};

/// A type like those above.
template <class G>
concept routing_gate = std::is_trivially_copyable_v<G> && requires(G const& gate) {
    { G::name } -> std::convertible_to<char const*>;
    { gate.scale } -> std::convertible_to<float>;
};

namespace detail {

template <class Gate>
inline constexpr bool is_renormalized = false;
template <class Gate>
inline constexpr bool is_renormalized<renormalized<Gate>> = true;

/// Scratch of the choice for one token: numbers T, one per expert each.
template <class T>
struct route_scratch {
    T* choice = nullptr;
    T* best = nullptr;
    T* group = nullptr;
    std::int32_t* index = nullptr;
    unsigned char* kept = nullptr; // of groups
    index_t experts = 0;

    template <class Arena>
    static route_scratch plan(index_t workers, index_t experts, Arena& arena) {
        index_t const n = round_up(workers * experts, 16);
        route_scratch s;
        s.choice = arena.template carve<T>(n);
        s.best = arena.template carve<T>(n);
        s.group = arena.template carve<T>(n);
        s.index = arena.template carve<std::int32_t>(n);
        s.kept = arena.template carve<unsigned char>(n);
        s.experts = experts;
        return s;
    }
    TESSERA_HOST_DEVICE route_scratch of(index_t worker) const noexcept {
        index_t const at = worker * experts;
        return {choice + at, best + at, group + at, index + at, kept + at, experts};
    }
};

/// The k largest of value(0), ..., value(n - 1) among those with admits(i), best first; of equal ones the smaller index.
template <class T, class Value, class Admits>
TESSERA_HOST_DEVICE void select_largest(index_t n, index_t k, Value const& value, Admits const& admits, std::int32_t* index, T* best) noexcept {
    constexpr T none = -static_cast<T>(INFINITY);
    index_t found = 0;
    for (index_t i = 0; i < n; ++i) {
        if (!admits(i)) continue;
        T v = value(i);
        if (v != v) v = none;
        if (found == k && !(v > best[k - 1])) continue;
        index_t at = found < k ? found++ : k - 1;
        for (; at > 0 && v > best[at - 1]; --at) {
            best[at] = best[at - 1];
            index[at] = index[at - 1];
        }
        best[at] = v;
        index[at] = static_cast<std::int32_t>(i);
    }
}

/// What a group is ranked by: the sum of its two best.
template <class T>
TESSERA_HOST_DEVICE T group_rank(T const* choice, index_t size) noexcept {
    T first = -static_cast<T>(INFINITY);
    T second = first;
    for (index_t i = 0; i < size; ++i) {
        if (choice[i] > first) {
            second = first;
            first = choice[i];
        } else if (choice[i] > second) {
            second = choice[i];
        }
    }
    return size > 1 ? first + second : first;
}

/// The k experts of largest `choice`, in the groups that the gate keeps.
template <class T, class Gate>
TESSERA_HOST_DEVICE void select_experts(Gate const& gate, T const* choice, index_t k, std::int32_t* index, route_scratch<T> const& s) noexcept {
    auto const value = [&](index_t e) noexcept { return choice[e]; };
    if constexpr (std::is_base_of_v<sigmoid_gate, Gate>) {
        if (gate.kept_groups < gate.groups) {
            index_t const size = s.experts / gate.groups;
            for (index_t g = 0; g < gate.groups; ++g) {
                s.group[g] = group_rank(choice + g * size, size);
                s.kept[g] = 0;
            }
            select_largest(gate.groups, gate.kept_groups, [&](index_t g) noexcept { return s.group[g]; },
                           [](index_t) noexcept { return true; }, s.index, s.best);
            for (index_t g = 0; g < gate.kept_groups; ++g) s.kept[s.index[g]] = 1;
            return select_largest(s.experts, k, value, [&](index_t e) noexcept { return s.kept[e / size] != 0; }, index, s.best);
        }
    }
    select_largest(s.experts, k, value, [](index_t) noexcept { return true; }, index, s.best);
}

/// The parameters of a gate fit E experts of which k are chosen.
template <routing_gate Gate>
void check_gate(char const* operation, Gate const& gate, index_t experts, index_t k) {
    check::at_least(operation, "number of experts", experts, 1);
    check::within(operation, "number of chosen experts", k, 1, experts);
    if constexpr (std::is_base_of_v<sigmoid_gate, Gate>) {
        if (gate.bias.extent(0) != 0) {
            check::equal(operation, "size of the gate's bias", gate.bias.extent(0), experts, "number of experts");
            check::not_null(operation, "the gate's bias", gate.bias.data_handle(), experts);
        }
        check::within(operation, "groups of the gate", gate.groups, 1, experts);
        check::multiple(operation, "number of experts", experts, gate.groups);
        check::within(operation, "kept groups of the gate", gate.kept_groups, 1, gate.groups);
        check::within(operation, "number of chosen experts", k, 1, experts / gate.groups * gate.kept_groups);
    }
}

/// y_t = sum over j, in order, of weight(t, j) * rows(slot(t, j)) + shared_weight(t) * shared(t).
struct combine_arguments {
    index_t choices = 0;                    ///< k
    index_t const* slot = nullptr;          ///< (tokens, k)
    matrix_view<float const> weight{};      ///< (tokens, k)
    matrix_view<float const> rows{};        ///< (slots, n), contiguous rows
    matrix_view<float const> shared{};      ///< (tokens, n) with contiguous rows, or empty
    float const* shared_weight = nullptr;   ///< (tokens); null: 1
    bool has_shared = false;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
