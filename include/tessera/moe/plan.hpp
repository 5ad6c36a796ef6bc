// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The plan of a routing: (token, choice) pairs in the order of experts. Pairs of one expert get consecutive slots, in the
/// order of (token, choice): a stable counting sort of O(tokens k + experts), by a histogram, a prefix sum and a permutation.
///
///     workspace_scope scope{exec.scratch()};
///     expert_plan const plan = plan_experts(exec, scope, index, experts);     // index (tokens, k)
///     apply_grouped(exec, std::span{operators}, plan.offsets(), gathered, y); // row s of both is of token plan.token(s)
///     combine(exec, plan, weight, y, out);

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"

#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// Where the pairs are; a view into the scope that it was carved from.
class expert_plan {
public:
    constexpr index_t tokens() const noexcept { return tokens_; }
    constexpr index_t choices() const noexcept { return choices_; } ///< k
    constexpr index_t experts() const noexcept { return experts_; }
    constexpr index_t slots() const noexcept { return tokens_ * choices_; }

    /// (experts + 1): slots of expert e are [offsets[e], offsets[e + 1]).
    vector_view<index_t const> offsets() const noexcept { return vector_view<index_t const>{offsets_, experts_ + 1}; }
    constexpr index_t count(index_t e) const noexcept { return offsets_[e + 1] - offsets_[e]; }
    constexpr index_t token(index_t slot) const noexcept { return token_[slot]; }
    constexpr index_t slot(index_t token, index_t choice) const noexcept { return slot_[token * choices_ + choice]; }

    index_t const* token_data() const noexcept { return token_; } ///< (slots)
    index_t const* slot_data() const noexcept { return slot_; }   ///< (tokens, k)

    /// Carves a plan; `fill` makes it. For code that plans its own memory.
    template <class Exec, class Arena>
    static expert_plan carve(Exec const&, index_t tokens, index_t choices, index_t experts, Arena& arena) {
        expert_plan p;
        p.tokens_ = tokens;
        p.choices_ = choices;
        p.experts_ = experts;
        p.offsets_ = arena.template carve<index_t>(experts + 1);
        p.token_ = arena.template carve<index_t>(p.slots());
        p.slot_ = arena.template carve<index_t>(p.slots());
        p.next_ = arena.template carve<index_t>(p.chunks(), experts);
        return p;
    }

    /// From experts in range. Chunks depend on the sizes alone, so the plan does not depend on the number of threads.
    template <class Exec>
    void fill(Exec const& exec, matrix_view<std::int32_t const> index) const noexcept {
        auto const expert = [&](index_t pair) noexcept { return index_t{index(pair / choices_, pair % choices_)}; };
        index_t const step = chunk();
        parallel_for(exec.parallel(), slots(), step, [&](index_t first, index_t last, index_t) noexcept {
            index_t* const histogram = next_ + first / step * experts_;
            for (index_t e = 0; e < experts_; ++e) histogram[e] = 0;
            for (index_t pair = first; pair < last; ++pair) ++histogram[expert(pair)];
        });
        index_t running = 0;
        for (index_t e = 0; e < experts_; ++e) {
            offsets_[e] = running;
            for (index_t c = 0; c < chunks(); ++c) {
                index_t const here = next_[c * experts_ + e];
                next_[c * experts_ + e] = running;
                running += here;
            }
        }
        offsets_[experts_] = running;
        parallel_for(exec.parallel(), slots(), step, [&](index_t first, index_t last, index_t) noexcept {
            index_t* const next = next_ + first / step * experts_;
            for (index_t pair = first; pair < last; ++pair) {
                index_t const s = next[expert(pair)]++;
                slot_[pair] = s;
                token_[s] = pair / choices_;
            }
        });
    }

private:
    /// Pairs that one thread sorts at a time: enough to pay for a parallel region, and for a histogram.
    constexpr index_t chunk() const noexcept { return maximum(16384, experts_); }
    constexpr index_t chunks() const noexcept { return ceil_div(slots(), chunk()); }

    index_t tokens_ = 0;
    index_t choices_ = 0;
    index_t experts_ = 0;
    index_t* offsets_ = nullptr;
    index_t* token_ = nullptr;
    index_t* slot_ = nullptr;
    index_t* next_ = nullptr; // (chunks, experts): where the next pair of a chunk goes
};

/// The plan of experts index(token, choice) in [0, experts). Throws shape_error where one is not.
template <execution_policy Exec>
expert_plan plan_experts(Exec const& exec, workspace_scope& scope, matrix_view<std::int32_t const> index, // (tokens, k)
                         index_t experts) {
    detail::require_backend<Exec>();
    check::within("plan_experts", "number of experts", experts, 0, std::numeric_limits<std::int32_t>::max());
    check::elements("plan_experts", "the indices", index);
    for (index_t t = 0; t < index.extent(0); ++t)
        for (index_t j = 0; j < index.extent(1); ++j)
            if (index(t, j) < 0 || index(t, j) >= experts)
                check::within("plan_experts", "an index", index(t, j), 0, experts - 1);
    expert_plan const plan = expert_plan::carve(exec, index.extent(0), index.extent(1), experts, scope);
    plan.fill(exec, index);
    return plan;
}

} // namespace tessera::inline TESSERA_ABI
