// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rotations for texts longer than those a model was trained on, by f = context / trained context:
///
///     linear  positions are divided by f: every pair of dimensions turns f times slower (Chen et al. 2023, arXiv:2306.15595)
///     ntk     base' = base f^(d / (d - 2)): the slowest pair turns f times slower, the fastest as ever (NTK-aware scaling; Peng et
///             al. 2023, arXiv:2309.00071, section 3.1). Neighbours stay as far apart as they were in training.
///
/// Neither needs training; both lose something, ntk less. A context within the trained one is not scaled.

#include "hyperparameters.hpp"

#include <tessera/nn/rope_table.hpp>

#include <cmath>
#include <vector>

namespace generate {

enum class rope_scaling { none, linear, ntk };

constexpr char const* name_of(rope_scaling s) noexcept {
    constexpr char const* names[] = {"none", "linear", "ntk"};
    return names[static_cast<int>(s)];
}

/// Radians a position, for every pair.
inline std::vector<double> rope_frequencies(hyperparameters const& s, index_t context, rope_scaling how) {
    double const factor = context > s.context && how != rope_scaling::none
                              ? static_cast<double>(context) / static_cast<double>(s.context)
                              : 1.0;
    double const dims = static_cast<double>(s.rope_dims);
    // With one pair, which is the fastest and the slowest, there is nothing between them: it is scaled.
    bool const by_base = how == rope_scaling::ntk && s.rope_dims > 2;
    double const base = by_base ? s.rope_base * std::pow(factor, dims / (dims - 2)) : s.rope_base;
    std::vector<double> out;
    for (index_t i = 0; i < s.rope_dims / 2; ++i)
        out.push_back(std::pow(base, -2.0 * static_cast<double>(i) / dims) / (by_base ? 1.0 : factor));
    return out;
}

inline tessera::rope_table scaled_rotations(hyperparameters const& s, index_t context, rope_scaling how) {
    std::vector<double> const frequencies = rope_frequencies(s, context, how);
    return {context, tessera::vector_view<double const>{frequencies.data(), static_cast<index_t>(frequencies.size())}};
}

} // namespace generate
