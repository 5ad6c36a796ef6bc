// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `moe`: a mixture of experts as a block, y_t = sum over the experts e of t of weight(t, e) expert_e(x_t), plus what a
/// shared expert gives.
///
///     std::vector const experts{gated_expert{gate, up, down}, expert};               // or any linear operators
///     moe const block{top_k_router{w, /*k=*/2, renormalized{softmax_gate{}}}, experts, shared_expert{expert}};
///     auto const ready = place(exec, block);                                         // owns the panels of all experts
///     routing_report const report = apply(exec, ready, x, y);                        // x (tokens, width), y (tokens, n)
///
/// The steps, each a header of its own for other compositions: `route` (router.hpp), `plan_experts` (plan.hpp),
/// `apply_grouped` (operators/grouped.hpp), `combine` (combine.hpp). Here x is converted once for all that read it, an expert's
/// rows are multiplied together, and unequal experts share the threads by tiles; an expert without tokens costs nothing.
/// Scratch is O(tokens k (width + f + n)).
///
/// Same bits for any number of threads. The choice of experts is a step function of the logits, so of a tie within their
/// rounding either side can win, as the machine has it.
///
/// Errors: shape_error where shapes do not fit, data is null, or y overlaps x or the weights; nothing is written then.

#include "block.hpp"
#include "run.hpp"

#include <vector>

namespace tessera::inline TESSERA_ABI {

/// A mixture with all its weights in the order of a backend, expert after expert in one piece of memory.
template <class Exec, class R, class E, class S>
class placed<Exec, moe<R, E, S>> {
    using expert_view = detail::placed_view<Exec, E>;

public:
    using block_type = moe<detail::placed_view<Exec, R>, expert_view, detail::placed_view<Exec, S>>;

    /// @param arena where the weights go, to outlive this; null: memory of its own.
    placed(Exec const& exec, moe<R, E, S> const& block, memory_arena* arena = nullptr)
        : arena_{chunk_for(block)}, router_{exec, block.router(), arena != nullptr ? arena : &arena_},
          shared_{exec, block.shared(), arena != nullptr ? arena : &arena_} {
        experts_.reserve(block.experts().size());
        views_.reserve(block.experts().size());
        for (E const& e : block.experts()) {
            experts_.emplace_back(exec, e, arena != nullptr ? arena : &arena_);
            views_.push_back(experts_.back().view());
        }
    }
    block_type view() const& { return {router_.view(), views_, shared_.view()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept {
        index_t sum = router_.bytes() + shared_.bytes();
        for (auto const& e : experts_) sum += e.bytes();
        return sum;
    }

private:
    /// About what 4-bit weights need, and at most 64 MiB at a time: memory grows by further pieces.
    static index_t chunk_for(moe<R, E, S> const& block) noexcept {
        index_t elements = block.rows() * block.cols();
        if constexpr (detail::is_gated_expert<E>) elements = block.experts()[0].width() * (2 * block.cols() + block.rows());
        return minimum(index_t{64} << 20, elements / 8 * 5 * block.router().experts());
    }

    memory_arena arena_;
    placed<Exec, R> router_;
    placed<Exec, S> shared_;
    std::vector<placed<Exec, E>> experts_;
    std::vector<expert_view> views_;
};

/// Places a mixture for a policy; codes are moved, never requantised. Throws std::bad_alloc.
template <execution_policy Exec, class R, class E, class S>
    requires detail::is_cpu<Exec>
placed<Exec, moe<R, E, S>> place(Exec const& exec, moe<R, E, S> const& block) {
    return {exec, block};
}
/// The same, in an arena that must outlive the result.
template <execution_policy Exec, class R, class E, class S>
    requires detail::is_cpu<Exec>
placed<Exec, moe<R, E, S>> place(Exec const& exec, moe<R, E, S> const& block, memory_arena& arena) {
    return {exec, block, &arena};
}

} // namespace tessera::inline TESSERA_ABI
