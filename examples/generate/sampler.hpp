// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Chooses the next token from the logits: greedily, or at random after these steps, in this order (that of
/// transformers): divide by the temperature, keep the `top_k` largest, keep the smallest set of the most probable ones
/// whose sum reaches `top_p`, keep those of at least `min_p` times the largest probability.
///
/// The i-th call uses the i-th number of a counter-based generator, so a seed and the logits determine the text.

#include "tokenizer.hpp"

#include <tessera/core/error.hpp>
#include <tessera/core/philox.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace generate {

struct sampling {
    float temperature = 0.0f; ///< 0: greedy
    float top_p = 1.0f;       ///< in (0, 1]; 1: all
    float min_p = 0.0f;       ///< in [0, 1]; 0: all
    int top_k = 0;            ///< 0: all
    std::uint64_t seed = 0;
};

class sampler {
public:
    /// @throws tessera::shape_error when an option is out of its range
    explicit sampler(sampling const& options = {}) : options_{options}, random_{options.seed} {
        auto const check = [](bool holds, char const* name, float value, char const* range) {
            if (!holds)
                tessera::detail::raise<tessera::shape_error>("sampler: " + std::string{name} + " is " +
                                                             std::to_string(value) + ", expected " + range);
        };
        constexpr float most = std::numeric_limits<float>::max();
        check(options.temperature >= 0 && options.temperature <= most, "temperature", options.temperature, "0 or more");
        check(options.top_p > 0 && options.top_p <= 1, "top-p", options.top_p, "more than 0 and at most 1");
        check(options.min_p >= 0 && options.min_p <= 1, "min-p", options.min_p, "0 to 1");
        check(options.top_k >= 0, "top-k", static_cast<float>(options.top_k), "0 or more");
    }

    /// The next token; of equal logits the first. NaN is never chosen.
    /// @throws tessera::shape_error when no logit is a number above minus infinity
    token_id operator()(std::span<float const> logits) {
        token_id const best = argmax(logits);
        if (options_.temperature == 0.0f || options_.top_k == 1) return best;
        float const u = random_.uniform(calls_++);
        if (logits[static_cast<std::size_t>(best)] == std::numeric_limits<float>::infinity()) return best;
        weigh(logits, logits[static_cast<std::size_t>(best)]);
        keep_top_k();
        keep_top_p();
        keep_min_p();
        return draw(u);
    }

private:
    struct candidate {
        double weight; ///< probability times a constant
        token_id id;
        friend bool operator<(candidate const& a, candidate const& b) noexcept { // the first of equals is larger
            return a.weight < b.weight || (a.weight == b.weight && a.id > b.id);
        }
    };

    static token_id argmax(std::span<float const> logits) {
        float best = -std::numeric_limits<float>::infinity();
        token_id at = -1;
        // Most blocks hold nothing better, which a loop without a branch finds out many times faster.
        constexpr std::size_t block = 256;
        for (std::size_t first = 0; first < logits.size(); first += block) {
            auto const here = logits.subspan(first, std::min(block, logits.size() - first));
            int better = 0;
            for (float const x : here) better |= x > best;
            if (better == 0) continue;
            for (std::size_t i = 0; i < here.size(); ++i)
                if (here[i] > best) {
                    best = here[i];
                    at = static_cast<token_id>(first + i);
                }
        }
        if (at < 0)
            tessera::detail::raise<tessera::shape_error>("sampler: none of " + std::to_string(logits.size()) +
                                                         " logits is a number above minus infinity");
        return at;
    }

    void weigh(std::span<float const> logits, float largest) {
        kept_.clear();
        double const inverse = 1.0 / static_cast<double>(options_.temperature);
        for (std::size_t i = 0; i < logits.size(); ++i) {
            double const w = std::exp((static_cast<double>(logits[i]) - static_cast<double>(largest)) * inverse);
            if (w > 0) kept_.push_back({w, static_cast<token_id>(i)}); // false for NaN
        }
    }

    void keep_top_k() {
        auto const k = static_cast<std::size_t>(options_.top_k);
        if (k == 0 || k >= kept_.size()) return;
        auto const end = kept_.begin() + static_cast<std::ptrdiff_t>(k);
        std::nth_element(kept_.begin(), end, kept_.end(), [](candidate const& a, candidate const& b) { return b < a; });
        kept_.erase(end, kept_.end());
    }

    /// A heap yields the largest first: a few tokens of a whole vocabulary are enough, sorting it all is not needed.
    void keep_top_p() {
        if (options_.top_p >= 1.0f) return;
        double total = 0;
        for (candidate const& c : kept_) total += c.weight;
        double const wanted = total * static_cast<double>(options_.top_p);
        std::make_heap(kept_.begin(), kept_.end());
        double sum = 0;
        auto end = kept_.end();
        while (end != kept_.begin() && sum < wanted) {
            std::pop_heap(kept_.begin(), end);
            --end;
            sum += end->weight;
        }
        kept_.erase(kept_.begin(), end);
    }

    void keep_min_p() {
        if (options_.min_p <= 0.0f) return;
        double const least = std::max_element(kept_.begin(), kept_.end())->weight * static_cast<double>(options_.min_p);
        std::erase_if(kept_, [&](candidate const& c) { return c.weight < least; });
    }

    /// In the order of ids, so that which of equal sets was built how does not matter.
    token_id draw(float u) {
        std::sort(kept_.begin(), kept_.end(), [](candidate const& a, candidate const& b) { return a.id < b.id; });
        double total = 0;
        for (candidate const& c : kept_) total += c.weight;
        double rest = static_cast<double>(u) * total;
        for (candidate const& c : kept_) {
            if (rest < c.weight) return c.id;
            rest -= c.weight;
        }
        return kept_.back().id; // rounding
    }

    sampling options_;
    tessera::philox random_;
    std::uint64_t calls_ = 0;
    std::vector<candidate> kept_;
};

} // namespace generate
