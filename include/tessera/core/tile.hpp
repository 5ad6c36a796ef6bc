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

/// The tile of a product y (m, n). Many rows of x: at most `rows` by 64, where a kernel does not say otherwise a float32
/// accumulator of 32 KiB that stays in the first-level cache beside the operand. Few rows: about 32 tiles, so that threads
/// share them evenly, of 16 to 128 columns.
constexpr tile_size product_tile(auto_tile, index_t m, index_t n, index_t rows = 128) noexcept {
    if (m > 16) return {minimum(m, rows), 64};
    return {maximum(m, 1), minimum(maximum(round_up(n / 32, 16), 16), 128)};
}
template <index_t M, index_t N>
constexpr tile_size product_tile(tile<M, N>, index_t, index_t) noexcept {
    return {M, N};
}

} // namespace tessera::inline TESSERA_ABI
