// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What was routed where.

#include "plan.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// The loads of the experts of one call in a few numbers; the loads, and each token's experts, go where `routing_details` says.
struct routing_report {
    index_t tokens = 0;
    index_t choices = 0; ///< experts of a token
    index_t experts = 0;
    index_t used = 0;    ///< experts with a token
    index_t largest = 0; ///< most tokens of an expert
    double entropy = 0;  ///< of the loads, in bits: log2(experts) where all are equal

    /// The largest load over the mean one: 1 where all are equal; 0 where nothing was routed.
    double imbalance() const noexcept {
        auto const pairs = static_cast<double>(tokens * choices);
        return pairs > 0 ? static_cast<double>(largest) * static_cast<double>(experts) / pairs : 0.0;
    }
};

/// Where a call writes what it routed; views without elements are left out.
struct routing_details {
    vector_view<index_t> counts{};     // (experts): tokens of each
    matrix_view<std::int32_t> index{}; // (tokens, k): experts of a token, best first
    matrix_view<float> weight{};       // (tokens, k)
};

namespace detail {

inline routing_report report_of(expert_plan const& plan) noexcept {
    routing_report r{plan.tokens(), plan.choices(), plan.experts(), 0, 0, 0.0};
    auto const pairs = static_cast<double>(plan.slots());
    for (index_t e = 0; e < plan.experts(); ++e) {
        index_t const n = plan.count(e);
        if (n == 0) continue;
        ++r.used;
        r.largest = maximum(r.largest, n);
        r.entropy += static_cast<double>(n) / pairs * std::log2(pairs / static_cast<double>(n));
    }
    return r;
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
