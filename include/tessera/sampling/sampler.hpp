// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Choosing the next token from logits. In this order:
///
///     temperature   p_i = softmax(logit_i / temperature); 0 takes the largest logit, the first of equals
///     top_k         keeps the k most probable tokens
///     top_p         keeps the fewest most probable ones of these whose share reaches p (Holtzman et al. 2020)
///     min_p         keeps those with p_i >= min_p * max p
///
/// then draws from what is left, renormalised. Equal probabilities rank by index. The draw is a function of (logits,
/// options, step) alone: 53 bits of the Philox stream (seed, step), so a run repeats on any machine with the same logits.
///
/// Special logits: minus infinity and NaN are never chosen; the first plus infinity always is.

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// How to choose; the default draws from the whole distribution.
struct sampling_options {
    float temperature = 1.0f; ///< >= 0; 0: the most probable token, and the rest is ignored
    index_t top_k = 0;        ///< 0: all
    float top_p = 1.0f;       ///< in [0, 1]; at least one token is kept
    float min_p = 0.0f;       ///< in [0, 1]
    std::uint64_t seed = 0;
};

namespace detail {

struct candidate {
    double weight; ///< exp((logit - largest) / temperature)
    index_t index;
};

/// More probable first, then the smaller index.
constexpr bool ranks_before(candidate const& a, candidate const& b) noexcept {
    return a.weight != b.weight ? a.weight > b.weight : a.index < b.index;
}

/// The first largest element that is not NaN; -1 where there is none above minus infinity.
inline index_t first_largest(vector_view<float const> logits) noexcept {
    index_t best = -1;
    float largest = -std::numeric_limits<float>::infinity();
    for (index_t i = 0; i < logits.extent(0); ++i)
        if (logits[i] > largest) {
            largest = logits[i];
            best = i;
        }
    return best;
}

/// Moves the most probable candidates to the front, in rank order: the fewest whose weights reach `share` of `total`, but at
/// most `most`. Returns how many. O(n + k log n): the rest stays unsorted.
inline index_t rank(candidate* first, index_t n, index_t most, double share, double total) noexcept {
    auto const below = [](candidate const& a, candidate const& b) noexcept { return ranks_before(b, a); };
    std::make_heap(first, first + n, below);
    double sum = 0;
    index_t kept = 0;
    // pop_heap puts the largest last; the ranked ones gather at the end and are reversed to the front.
    while (kept < most && (kept == 0 || sum < share * total)) {
        std::pop_heap(first, first + (n - kept), below);
        ++kept;
        sum += first[n - kept].weight;
    }
    std::reverse(first, first + n);
    return kept;
}

inline double sum_of_weights(candidate const* c, index_t n) noexcept {
    double sum = 0;
    for (index_t i = 0; i < n; ++i) sum += c[i].weight;
    return sum;
}

/// Applies top_k, top_p and min_p; returns how many candidates are left at the front.
inline index_t filter(candidate* c, index_t n, sampling_options const& options) noexcept {
    if (options.top_k > 0 && options.top_k < n) n = rank(c, n, options.top_k, 2.0, sum_of_weights(c, n));
    if (options.top_p < 1.0f) n = rank(c, n, n, static_cast<double>(options.top_p), sum_of_weights(c, n));
    if (options.min_p > 0.0f) {
        double const least = static_cast<double>(options.min_p); // the largest weight is 1
        n = std::remove_if(c, c + n, [&](candidate const& x) noexcept { return x.weight < least; }) - c;
    }
    return n;
}

/// The candidate at `u` in [0, 1) of the cumulative weight.
inline index_t draw(candidate const* c, index_t n, double u) noexcept {
    double const target = u * sum_of_weights(c, n);
    double sum = 0;
    for (index_t i = 0; i < n; ++i) {
        sum += c[i].weight;
        if (sum > target) return c[i].index;
    }
    return c[n - 1].index;
}

} // namespace detail

/// Bytes of workspace that sampling from `vocabulary` logits takes.
inline index_t sampling_workspace_bytes(index_t vocabulary) noexcept {
    workspace_sizer sizer;
    sizer.carve<detail::candidate>(vocabulary);
    return sizer.bytes();
}

/// The index of the largest logit, the first of equals.
template <execution_policy Exec>
index_t greedy(Exec const&, vector_view<float const> logits /* (vocabulary) */) {
    check::not_null("greedy", "logits", logits.data_handle(), logits.size());
    index_t const best = detail::first_largest(logits);
    if (best < 0) check::within("greedy", "number of logits above minus infinity", 0, 1, logits.extent(0));
    return best;
}

/// A choice of options, checked once.
class sampler {
public:
    sampler() noexcept = default;
    explicit sampler(sampling_options const& options) : options_{options} {
        auto const in_unit_range = [](float v) { return v >= 0.0f && v <= 1.0f; };
        if (!(options.temperature >= 0.0f && options.temperature <= std::numeric_limits<float>::max()))
            refuse("temperature", options.temperature, "a finite number that is not negative");
        if (!in_unit_range(options.top_p)) refuse("top_p", options.top_p, "0 to 1");
        if (!in_unit_range(options.min_p)) refuse("min_p", options.min_p, "0 to 1");
        check::within("sampler", "top_k", options.top_k, 0, std::numeric_limits<index_t>::max());
    }

    sampling_options const& options() const noexcept { return options_; }

    /// The token of `step` (each generated token is a step). Single-threaded; scratch from the policy's workspace.
    template <execution_policy Exec>
    index_t operator()(Exec const& exec, vector_view<float const> logits /* (vocabulary) */, std::uint64_t step) const {
        check::not_null("sample", "logits", logits.data_handle(), logits.size());
        index_t const best = detail::first_largest(logits);
        if (best < 0) check::within("sample", "number of logits above minus infinity", 0, 1, logits.extent(0));
        float const largest = logits[best];
        if (options_.temperature == 0.0f || largest == std::numeric_limits<float>::infinity()) return best;

        workspace_scope scope{exec.scratch()};
        auto* const candidates = scope.carve<detail::candidate>(logits.extent(0));
        index_t n = 0;
        for (index_t i = 0; i < logits.extent(0); ++i) {
            double const distance = static_cast<double>(logits[i]) - static_cast<double>(largest);
            double const weight = std::exp(distance / static_cast<double>(options_.temperature));
            if (weight > 0) candidates[n++] = {weight, i}; // false for NaN
        }
        n = detail::filter(candidates, n, options_);
        philox const random{options_.seed, step};
        double const u = static_cast<double>(std::uint64_t{random.bits(0)} << 21 | random.bits(1) >> 11) * 0x1p-53;
        return detail::draw(candidates, n, u);
    }

private:
    [[noreturn]] TESSERA_COLD static void refuse(char const* name, float value, char const* expected) {
        detail::raise<shape_error>("tessera: sampler: " + std::string{name} + " is " + std::to_string(value) +
                                   ", expected " + expected);
    }

    sampling_options options_{};
};

} // namespace tessera::inline TESSERA_ABI
