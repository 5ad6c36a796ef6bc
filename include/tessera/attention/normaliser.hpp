// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What may change the softmax of attention. Both stand in the pipeline of a score, anywhere:
///
///     auto const with_sinks = ts::causal | ts::sinks{logits};
///     auto const preset = ts::causal | ts::unified_maximum{0.0f, -60.0f, 60.0f};
///
/// **Sinks**: every head has one more score, of no key and with no value (gpt-oss): out = sum_j p_j v_j with
/// p_j = e^(s_j - L), L = log(e^sink + sum_j e^(s_j)). L is the log-sum-exp that attention returns. A query that sees no key
/// gets zeros and L = sink. Parts of the keys that are merged afterwards must have the sink in one of them only.
///
/// **Unified maximum** (FlashDecoding++, arXiv:2311.01282): exponentials are of s - maximum for a preset maximum, so that sums
/// are never rescaled. A score that a query sees must have low < s - maximum < high; where one does not, the keys of that
/// query's block and part are computed again with their true maximum: the result is right whatever the preset, as long as no
/// value's magnitude passes 3.4e38 e^-high. low is at least -80 and high at most 80, less the logarithm of the number of keys.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../kernels/score.hpp"

#include <string>

namespace tessera::inline TESSERA_ABI {

/// One score without a key for every head; see the file comment.
struct sinks {
    vector_view<float const> logits; // (heads)
    vector_view<float> gradient;     // (heads), added to by the gradient of attention; or null

    constexpr explicit sinks(vector_view<float const> l) noexcept : logits{l} {}
    constexpr sinks(vector_view<float const> l, vector_view<float> g) noexcept : logits{l}, gradient{g} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V>) const noexcept {
        return s;
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile) const noexcept { return tessera::visibility::full; }
    TESSERA_HOST_DEVICE float sink(index_t head) const noexcept { return logits[head]; }
    void accumulate_sink(index_t head, double ds) const noexcept {
        if (gradient.data_handle() != nullptr) gradient[head] += static_cast<float>(ds);
    }
    template <class Visit>
    void for_each_array(Visit const& visit) const {
        visit("logits of sinks", logits.data_handle(), logits.size());
    }
    void check(char const* operation, index_t heads) const {
        check::equal(operation, "number of logits of sinks", logits.extent(0), heads, "heads of q");
        check::not_null(operation, "logits of sinks", logits.data_handle(), heads);
        if (gradient.data_handle() == nullptr) return;
        check::equal(operation, "number of gradients of sinks", gradient.extent(0), heads, "heads of q");
        if (heads > 1) check::at_least(operation, "stride of the gradients of sinks", gradient.stride(0), 1); // heads in parallel
    }
};

/// Exponentials of scores less a preset maximum; see the file comment.
struct unified_maximum {
    unified_range range;

    constexpr explicit unified_maximum(float maximum, float low = -60.0f, float high = 60.0f) noexcept
        : range{maximum, low, high} {}
    template <class V>
    TESSERA_HOST_DEVICE constexpr V operator()(V s, coord<V>) const noexcept {
        return s;
    }
    TESSERA_HOST_DEVICE constexpr tessera::visibility visibility(score_tile) const noexcept { return tessera::visibility::full; }
    TESSERA_HOST_DEVICE constexpr unified_range unified() const noexcept { return range; }
    void check(char const* operation, index_t) const {
        bool const finite = range.maximum - range.maximum == 0.0f;
        if (!(finite && range.low >= -80.0f && range.low < range.high && range.high <= 80.0f))
            detail::raise<shape_error>("tessera: " + std::string{operation} + ": range of unified_maximum is " +
                                       std::to_string(range.low) + " to " + std::to_string(range.high) + " about " +
                                       std::to_string(range.maximum) + ", expected -80 <= low < high <= 80 about a finite number");
    }
};

} // namespace tessera::inline TESSERA_ABI
