// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How many queries and keys attention takes at a time: from the sizes of the caches, the dimensions and the types of what stays
/// in them. Queries decide what is moved, because every block of them reads all keys and values it sees (attention/io_bound.hpp);
/// keys decide only what a step's scores take.

#include "../core/config.hpp"
#include "../core/types.hpp"

namespace tessera::inline TESSERA_ABI {

/// Bytes of a core's caches. The default is what bits may depend on: constants, not what a machine has.
struct cache_sizes {
    index_t level_1 = config::level_1_bytes;
    index_t level_2 = config::level_2_bytes;
};

/// Queries of a block, keys of a step.
struct attention_tiles {
    index_t queries;
    index_t keys;
};

/// The elements that stay in the caches: of queries, of outputs that are not finished, of scores.
template <class Query = float, class Out = float, class Score = float>
struct attention_tile_choice {
    /// More would save nothing: at 8 register tiles of 48 queries a number of K or V takes part in 2 * 384 operations.
    static constexpr index_t most_register_tiles = 8;
    /// More would save nothing either: outputs are rescaled once a step, and a step multiplies them by so many keys.
    static constexpr index_t most_keys = 128;

    /// The largest power of two whose scores with one register tile of `unit` queries the first-level cache holds.
    static constexpr index_t keys(index_t unit, cache_sizes const& caches = {}) noexcept {
        index_t const row = maximum(unit, 1) * static_cast<index_t>(sizeof(Score));
        index_t n = 1;
        while (2 * n <= most_keys && 2 * n * row <= caches.level_1) n *= 2;
        return n;
    }
    /// As many register tiles as keep queries and outputs in half of the second-level cache; the other half is for keys and values.
    static constexpr index_t queries(index_t key_dim, index_t value_dim, index_t unit, cache_sizes const& caches = {}) noexcept {
        index_t const half = caches.level_2 / 2;
        // A dimension beyond the cache decides as much as one that fills it: nothing overflows.
        index_t const row = minimum(key_dim, half) * static_cast<index_t>(sizeof(Query)) +
                            minimum(value_dim, half) * static_cast<index_t>(sizeof(Out));
        return unit * minimum(maximum(half / maximum(row, 1) / maximum(unit, 1), 1), most_register_tiles);
    }
    static constexpr attention_tiles choose(index_t key_dim, index_t value_dim, index_t unit, cache_sizes const& caches = {}) noexcept {
        return {queries(key_dim, value_dim, unit, caches), keys(unit, caches)};
    }
};

} // namespace tessera::inline TESSERA_ABI
