// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How many numbers attention must move between memory and a cache, and how many it does (Saha and Ye 2024, arXiv:2402.07443).
/// With n queries and keys of dimension d and a cache of M numbers, up to constants,
///
///     bound = min(n^2 d^2 / M, n^2 d / sqrt(M))
///
/// FlashAttention's tiles (M / d keys by min(M / d, d) queries) reach it where M >= d^2; smaller caches need square tiles of
/// sqrt(M), which cut d too. Caches of processors are on the first side: d = 128 needs 64 KiB.
///
/// The blocks of kernels/cpu/attention_prefill.hpp keep B queries and their outputs in half of the second-level cache and
/// read all keys and values for them: 2 n d + 2 n^2 d / B numbers. B is bounded where more would save nothing: at 8 register
/// tiles a number that is read takes part in 2 B = 768 operations (AVX-512), far more than a processor does while it reads one.

#include "../core/config.hpp"
#include "../core/types.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

/// The bound above, in numbers.
inline double attention_io_bound(index_t n, index_t d, index_t cache) noexcept {
    double const squares = static_cast<double>(n) * static_cast<double>(n);
    double const dim = static_cast<double>(d);
    double const m = static_cast<double>(cache);
    double const flash = squares * dim * dim / m;
    double const square = squares * dim / std::sqrt(m);
    return flash < square ? flash : square;
}

/// What blocks of `block` queries move, of n queries and keys.
constexpr double attention_io(index_t n, index_t d, index_t block) noexcept {
    return 2.0 * static_cast<double>(n) * static_cast<double>(d) * (1.0 + static_cast<double>(ceil_div(n, block)));
}

/// The largest block that a cache of so many numbers holds twice over: queries and outputs of dimension d each.
constexpr index_t attention_block(index_t d, index_t cache) noexcept {
    return maximum(cache / 2 / maximum(2 * d, 1), 1);
}

} // namespace tessera::inline TESSERA_ABI
