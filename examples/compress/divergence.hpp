// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How far one distribution of the next token is from another, over the whole vocabulary, in double:
///
///     KL(p || q) = sum p_i (log p_i - log q_i),   log p_i = l_i - log sum exp l

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>

namespace compress {

/// log of the sum of exp; minus infinity of none.
inline double log_sum_exp(std::span<float const> logits) noexcept {
    double largest = -INFINITY;
    for (float const l : logits) largest = std::max(largest, static_cast<double>(l));
    double sum = 0;
    for (float const l : logits) sum += std::exp(static_cast<double>(l) - largest);
    return largest + std::log(sum);
}

/// Of two sets of logits of one size, p the truth, whose log_sum_exp may be known.
inline double divergence(std::span<float const> p, std::span<float const> q, double norm_p) noexcept {
    double const norm_q = log_sum_exp(q);
    double sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        double const log_p = static_cast<double>(p[i]) - norm_p;
        sum += std::exp(log_p) * (log_p - (static_cast<double>(q[i]) - norm_q));
    }
    return std::max(sum, 0.0); // rounding makes it negative where both are the same
}

inline double divergence(std::span<float const> p, std::span<float const> q) noexcept {
    return divergence(p, q, log_sum_exp(p));
}

/// Index of the largest, the first of equals.
inline std::size_t most_probable(std::span<float const> logits) noexcept {
    return static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

} // namespace compress
