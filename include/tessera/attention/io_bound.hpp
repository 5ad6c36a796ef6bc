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
/// read all keys and values for them: 2 n d + 2 n^2 d / B numbers. kernels/attention_tiles.hpp chooses B, and bounds it where more
/// would save nothing: at 8 register tiles a number that is read takes part in 2 B = 768 operations (AVX-512), far more than a
/// processor does while it reads one. In bytes a row of K and V counts as it is stored: fp16 halves what is moved, 4 bits take an eighth.

#include "../core/config.hpp"
#include "../core/types.hpp"
#include "../kernels/attention_tiles.hpp"

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

/// What blocks of `block` queries move, in bytes: queries and outputs once, keys and values once a block. `queries` are those of all
/// query heads of a KV head, which share its keys.
/// @param query_bytes of a row of q and one of the output; @param key_bytes of a row of k and one of v
constexpr double attention_io_bytes(index_t queries, index_t keys, index_t query_bytes, index_t key_bytes, index_t block) noexcept {
    return static_cast<double>(queries) * static_cast<double>(query_bytes) +
           static_cast<double>(ceil_div(queries, block)) * static_cast<double>(keys) * static_cast<double>(key_bytes);
}

/// The least that can be moved, in bytes, up to constants: the bound above where a number of q and out takes `query_size` bytes, one
/// of k and v `key_size`, and the cache `cache`; squares of it hold float32 scores. Every row is moved once at least.
inline double attention_io_bytes_bound(index_t queries, index_t keys, index_t d, double query_size, double key_size,
                                       index_t cache) noexcept {
    double const pairs = static_cast<double>(queries) * static_cast<double>(keys);
    double const dim = static_cast<double>(d);
    double const m = static_cast<double>(cache);
    double const flash = pairs * dim * dim * query_size * key_size / m;
    double const square = pairs * dim * (query_size + key_size) / 2 / std::sqrt(m / sizeof(float));
    double const once = 2 * dim * (static_cast<double>(queries) * query_size + static_cast<double>(keys) * key_size);
    return std::fmax(std::fmin(flash, square), once);
}

/// The largest block that a cache of so many numbers holds twice over: queries and outputs of dimension d each.
constexpr index_t attention_block(index_t d, index_t cache) noexcept {
    return maximum(cache / 2 / maximum(2 * d, 1), 1);
}

} // namespace tessera::inline TESSERA_ABI
