// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How much of an output one step of a kernel makes. `auto_tile` asks one trait, which uses cache sizes and never k or
/// the number of threads: tiles choose m and n only, so they cannot change the order of a reduction (contract 6).

#include "config.hpp"
#include "types.hpp"

namespace tessera::inline TESSERA_ABI {

/// M rows of x by N rows of the operator.
template <index_t M, index_t N>
struct tile {
    static constexpr index_t m = M;
    static constexpr index_t n = N;
    static_assert(M > 0 && N > 0, "tessera: a tile has at least one row and one column");
};

/// Let the library choose.
struct auto_tile {};

/// A tile of run-time size.
struct tile_size {
    index_t m = 1;
    index_t n = 1;
};

/// The tile of a product y (m, n): at most 128 rows of x, so that a float32 accumulator of 64 columns (32 KiB) stays in
/// the first-level cache beside the operand; for few rows, more columns, so that one step reads about 64 KiB or more of
/// a 4-bit operand with k = 4096 and the cost of starting it vanishes.
constexpr tile_size product_tile(auto_tile, index_t m) noexcept {
    if (m <= 4) return {m < 1 ? 1 : m, 128};
    return {minimum(m, 128), 64};
}
template <index_t M, index_t N>
constexpr tile_size product_tile(tile<M, N>, index_t) noexcept {
    return {M, N};
}

} // namespace tessera::inline TESSERA_ABI
