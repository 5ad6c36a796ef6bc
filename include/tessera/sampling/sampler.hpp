// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Choosing the next token from logits. In this order:
///
///     temperature   w_i = exp((logit_i - largest) / temperature); 0 takes the largest logit, the first of equals
///     top_k         keeps the k largest logits
///     top_p         keeps the fewest of these, largest first, with a share of at least p of their weights
///                   (Holtzman et al. 2020)
///     min_p         keeps those with w_i >= min_p; the largest weight is 1
///
/// then draws the first token at which the sum of the kept weights, in the order of tokens, exceeds u times their
/// total. Equal logits rank by index. The draw is a function of (logits, options, step) alone: u has 53 bits of the
/// Philox stream (seed, step). Weights are in double, within 2 units in the last place, so another machine draws
/// another token about once in 10^13 steps.
///
/// Special logits: minus infinity and NaN are never chosen; the first plus infinity always is.
///
/// Cost: logits are read in blocks of 256, by loops without branches that compilers turn into vector code. What is kept
/// is found by comparing logits with a bound, which few pass: the k-th best of some; where the weight is min_p; and, as
/// tokens of less than (1 - p) / n of the total make up less than 1 - p together, where the weight is that. Only tokens
/// above the bound are ranked, and these not sorted: a partition finds the last that is kept. Exponentials of all logits
/// are taken for their total alone: with top_p and no top_k, or without any filter.

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"

#include <algorithm>
#include <bit>
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
    double weight;
    float logit;
    index_t index;
};

/// The larger logit first, then the smaller index.
constexpr bool ranks_before(candidate const& a, candidate const& b) noexcept {
    return a.logit != b.logit ? a.logit > b.logit : a.index < b.index;
}

/// e^x for x <= 0, within 2 units in the last place; 0 below e^-708 and for NaN. No branch and no call: vector code.
inline double decay(double x) noexcept {
    constexpr double smallest = -708.0;
    constexpr double magic = 0x1.8p52; // adding it rounds to an integer and leaves that in the low bits
    double const inside = x > smallest ? x : smallest;
    double const shifted = inside * 0x1.71547652b82fep+0 + magic;
    double const n = shifted - magic;
    // ln 2 in two parts: the first product is exact.
    double const r = (inside - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
    // The Taylor series up to r^13 / 13!, written out: compilers do not turn loops with a loop inside into vector code.
    double const r2 = r * r;
    double const r4 = r2 * r2;
    double const low = (1. / 2 + r * (1. / 6)) + r2 * (1. / 24 + r * (1. / 120));
    double const middle = (1. / 720 + r * (1. / 5040)) + r2 * (1. / 40320 + r * (1. / 362880));
    double const high = (1. / 3628800 + r * (1. / 39916800)) + r2 * (1. / 479001600 + r * (1. / 6227020800));
    double const power = 1 + (r + r2 * (low + r4 * (middle + r4 * high)));
    double const scaled = std::bit_cast<double>(std::bit_cast<std::uint64_t>(power) +
                                                (std::bit_cast<std::uint64_t>(shifted) << 52));
    return x > smallest ? scaled : 0.0;
}

/// Logits, a block at a time.
class logit_blocks {
public:
    static constexpr index_t size = 256;

    explicit logit_blocks(vector_view<float const> logits) noexcept : logits_{logits} {}

    index_t count() const noexcept { return ceil_div(logits_.extent(0), size); }

    /// Block b: where it is, or a copy in `memory` (size), with minus infinity behind the last logit.
    float const* block(index_t b, float* memory) const noexcept {
        index_t const first = b * size;
        index_t const n = minimum(size, logits_.extent(0) - first);
        if (n == size && logits_.stride(0) == 1) return &logits_[first];
        for (index_t i = 0; i < n; ++i) memory[i] = logits_[first + i];
        for (index_t i = n; i < size; ++i) memory[i] = -std::numeric_limits<float>::infinity();
        return memory;
    }

    /// Calls f(logit, index) for those above `bound`, in order. f may raise the bound.
    template <class F>
    void above(float const& bound, F const& f) const noexcept {
        float memory[size];
        for (index_t b = 0; b < count(); ++b) {
            float const* const x = block(b, memory);
            float const least = bound;
            int any = 0;
            for (index_t i = 0; i < size; ++i) any |= x[i] > least;
            if (any == 0) continue;
            for (index_t i = 0; i < size; ++i)
                if (x[i] > bound) f(x[i], b * size + i);
        }
    }

private:
    vector_view<float const> logits_;
};

/// The first largest element that is not NaN; -1 where there is none above minus infinity.
inline index_t first_largest(vector_view<float const> logits) noexcept {
    index_t best = -1;
    float largest = -std::numeric_limits<float>::infinity();
    logit_blocks{logits}.above(largest, [&](float x, index_t i) noexcept {
        largest = x;
        best = i;
    });
    return best;
}

/// One draw of logits whose largest is finite.
class token_draw {
public:
    token_draw(vector_view<float const> logits, float largest, sampling_options const& options) noexcept
        : blocks_{logits}, n_{logits.extent(0)}, options_{options}, largest_{static_cast<double>(largest)},
          temperature_{static_cast<double>(options.temperature)} {}

    bool has_top_k() const noexcept { return options_.top_k > 0 && options_.top_k < n_; }
    bool has_filter() const noexcept { return has_top_k() || options_.top_p < 1.0f || options_.min_p > 0.0f; }

    /// The token at u in [0, 1) of everything. `sums` has room for a number a block.
    index_t from_all(double u, double* sums) const noexcept {
        double const target = u * total(sums);
        index_t b = 0;
        double sum = 0;
        index_t last = 0; // of the blocks with a weight; for a target that rounding puts at the end
        for (double before = 0; b < blocks_.count(); ++b) {
            if (sums[b] > 0) {
                last = b;
                sum = before;
            }
            before += sums[b];
            if (before > target) break;
        }
        double weights[logit_blocks::size];
        weigh(last, weights);
        index_t chosen = 0;
        for (index_t i = 0; i < logit_blocks::size && sum <= target; ++i) {
            sum += weights[i];
            if (weights[i] > 0) chosen = i;
        }
        return last * logit_blocks::size + chosen;
    }

    /// The token at u of what the filters keep. `c` has room for all tokens, `sums` for a number a block.
    index_t from_kept(double u, candidate* c, double* sums) const noexcept {
        auto const share = static_cast<double>(options_.top_p);
        auto const min_p = static_cast<double>(options_.min_p);
        double wanted = 0; // sum of the weights that top_p keeps
        index_t n = 0;
        if (has_top_k()) {
            n = best(c, options_.top_k);
            wanted = share * sum_of_weights(c, n);
        } else {
            double least = min_p;
            if (share < 1) {
                double const sum = total(sums);
                wanted = share * sum;
                least = std::max(least, (1 - share) * sum / static_cast<double>(n_) * (1 - 0x1p-20));
            }
            n = heavy(c, least);
        }
        // Weights fall along the ranks: what top_p keeps of those of at least min_p is what min_p leaves of top_p's.
        auto const is_light = [&](candidate const& x) noexcept { return !(x.weight > 0 && x.weight >= min_p); };
        n = std::remove_if(c, c + n, is_light) - c;
        if (share < 1) n = nucleus(c, n, wanted);
        // What is kept is the beginning of the ranking; now in the order of tokens.
        n = up_to(*std::max_element(c, c + n, ranks_before), c);
        double const target = u * sum_of_weights(c, n);
        double sum = 0;
        for (index_t i = 0; i < n; ++i) {
            sum += c[i].weight;
            if (sum > target) return c[i].index;
        }
        return c[n - 1].index;
    }

private:
    static double sum_of_weights(candidate const* c, index_t n) noexcept {
        double sum = 0;
        for (index_t i = 0; i < n; ++i) sum += c[i].weight;
        return sum;
    }

    double weight(float logit) const noexcept { return decay((static_cast<double>(logit) - largest_) / temperature_); }

    /// The weights of block b.
    void weigh(index_t b, double* weights) const noexcept {
        float memory[logit_blocks::size];
        float const* const x = blocks_.block(b, memory);
        double const largest = largest_; // copies: `weights` might be where the members are
        double const temperature = temperature_;
        for (index_t i = 0; i < logit_blocks::size; ++i)
            weights[i] = decay((static_cast<double>(x[i]) - largest) / temperature);
    }

    /// Sums of the weights of blocks; returns the sum of them all.
    double total(double* sums) const noexcept {
        constexpr index_t lanes = 8;
        double all = 0;
        for (index_t b = 0; b < blocks_.count(); ++b) {
            double weights[logit_blocks::size];
            weigh(b, weights);
            double part[lanes] = {};
            for (index_t i = 0; i < logit_blocks::size; i += lanes)
                for (index_t j = 0; j < lanes; ++j) part[j] += weights[i + j];
            sums[b] = ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
            all += sums[b];
        }
        return all;
    }

    /// The k largest logits; returns how many there are.
    index_t best(candidate* c, index_t k) const noexcept {
        float bound = -std::numeric_limits<float>::infinity();
        index_t n = 0;
        auto const prune = [&]() noexcept {
            std::nth_element(c, c + (k - 1), c + n, ranks_before);
            n = k;
        };
        blocks_.above(bound, [&](float x, index_t i) noexcept {
            c[n++] = {0, x, i};
            if (n / 2 < k) return;
            prune(); // as many again have passed: each is looked at a few times
            bound = c[k - 1].logit;
        });
        if (n > k) prune();
        for (index_t i = 0; i < n; ++i) c[i].weight = weight(c[i].logit);
        return n;
    }

    /// All tokens of at least this weight, and perhaps some of a little less; returns how many.
    index_t heavy(candidate* c, double least) const noexcept {
        double const distance = temperature_ * std::log(least);
        double const cut = largest_ + distance - 0x1p-40 * (std::fabs(largest_) + std::fabs(distance) + temperature_);
        constexpr float infinity = std::numeric_limits<float>::infinity();
        float bound = -infinity;
        if (cut > -static_cast<double>(std::numeric_limits<float>::max()))
            bound = std::nextafter(std::nextafter(static_cast<float>(cut), -infinity), -infinity);
        index_t n = 0;
        blocks_.above(bound, [&](float x, index_t i) noexcept { c[n++] = {weight(x), x, i}; });
        return n;
    }

    /// All tokens that do not rank after `last`, in order; returns how many.
    index_t up_to(candidate last, candidate* c) const noexcept {
        float const bound = std::nextafter(last.logit, -std::numeric_limits<float>::infinity());
        index_t n = 0;
        blocks_.above(bound, [&](float x, index_t i) noexcept {
            if (x > last.logit || i <= last.index) c[n++] = {weight(x), x, i};
        });
        return n;
    }

    /// Moves the fewest candidates, first in rank, whose weights reach `wanted` to the front; returns how many. O(n).
    static index_t nucleus(candidate* c, index_t n, double wanted) noexcept {
        index_t first = 0; // kept before it, and dropped from `last` on
        index_t last = n;
        double sum = 0;
        while (first < last) {
            index_t const middle = first + (last - first) / 2;
            std::nth_element(c + first, c + middle, c + last, ranks_before);
            double const before = sum + sum_of_weights(c + first, middle - first);
            if (middle > 0 && before >= wanted) {
                last = middle;
            } else {
                sum = before + c[middle].weight;
                first = middle + 1;
            }
        }
        return first;
    }

    logit_blocks blocks_;
    index_t n_;
    sampling_options const& options_;
    double largest_;
    double temperature_;
};

/// The first largest logit; throws where there is none above minus infinity.
inline index_t best_logit(char const* operation, vector_view<float const> logits) {
    check::at_least(operation, "number of logits", logits.extent(0), 1);
    check::elements(operation, "logits", logits);
    index_t const best = first_largest(logits);
    if (best < 0) check::within(operation, "number of logits above minus infinity", 0, 1, logits.extent(0));
    return best;
}

} // namespace detail

/// Bytes of workspace that sampling from `vocabulary` logits takes.
inline index_t sampling_workspace_bytes(index_t vocabulary) {
    workspace_sizer sizer;
    sizer.carve<double>(ceil_div(vocabulary, detail::logit_blocks::size));
    sizer.carve<detail::candidate>(vocabulary);
    return sizer.bytes();
}

/// The index of the largest logit, the first of equals.
template <execution_policy Exec>
index_t greedy(Exec const&, vector_view<float const> logits /* (vocabulary) */) {
    return detail::best_logit("greedy", logits);
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
        index_t const best = detail::best_logit("sample", logits);
        float const largest = logits[best];
        if (options_.temperature == 0.0f || largest == std::numeric_limits<float>::infinity()) return best;

        detail::token_draw const draw{logits, largest, options_};
        philox const random{options_.seed, step};
        double const u = static_cast<double>(std::uint64_t{random.bits(0)} << 21 | random.bits(1) >> 11) * 0x1p-53;
        workspace_scope scope{exec.scratch()};
        auto* const sums = scope.carve<double>(ceil_div(logits.extent(0), detail::logit_blocks::size));
        if (!draw.has_filter()) return draw.from_all(u, sums);
        return draw.from_kept(u, scope.carve<detail::candidate>(logits.extent(0)), sums);
    }

private:
    [[noreturn]] TESSERA_COLD static void refuse(char const* name, float value, char const* expected) {
        detail::raise<shape_error>("tessera: sampler: " + std::string{name} + " is " + std::to_string(value) +
                                   ", expected " + expected);
    }

    sampling_options options_{};
};

} // namespace tessera::inline TESSERA_ABI
