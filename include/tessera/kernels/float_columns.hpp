// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Forms of x with rows beside each other, for terms that meet columns of it. Where they do not pay there is no such form
/// (`data` is null), and terms read rows; the same goes for some rows of x, or rows in another order (`slice`).

#include "../core/types.hpp"
#include "../storage/scheme.hpp"

namespace tessera::inline TESSERA_ABI {

/// One weight multiplies a register of rows: x (rows, columns) in blocks of `width` rows: element (m, k) at block(m / width)[k * width + m % width]; rows that do not
/// exist are 0. R: float lanes.
template <index_t R>
struct float_columns {
    using lies_in_blocks = void;

    float const* data = nullptr;
    index_t rows = 0;
    index_t columns = 0;
    index_t width = 0;

    /// Fewest rows for which this beats gathering from each row: a gathered element costs about 0.65 cycles, a register of
    /// this form 1.5 to 2.
    static constexpr index_t fewest_rows = 4;
    /// One, two or four registers.
    static constexpr index_t width_of(index_t rows) noexcept { return rows <= R ? R : rows <= 2 * R ? 2 * R : 4 * R; }

    bool exists() const noexcept { return data != nullptr; }
    index_t blocks() const noexcept { return ceil_div(rows, width); }
    float const* block(index_t b) const noexcept { return data + b * columns * width; }
    float_columns slice(index_t, index_t count) const noexcept { return {nullptr, count, columns, width_of(count)}; }
};

/// Registers of weights multiply `Width` rows, one number of each after the other: x (rows, columns) in chunks of `Chunk` columns,
/// within them in blocks of `Width` rows: one stream for all rows, while a chunk's weights stay in the first-level cache.
/// Preparation: as_is, or as_bf16 for values that bf16 has.
template <index_t Width, index_t Chunk, class Preparation = as_is>
struct float_panels {
    using lies_in_blocks = void;
    static constexpr index_t width = Width;
    static constexpr index_t chunk = Chunk;
    /// Fewest rows: those for which weights are decoded once.
    static constexpr index_t fewest_rows = 9;

    float const* data = nullptr;
    index_t rows = 0;
    index_t columns = 0;

    bool exists() const noexcept { return data != nullptr; }
    index_t padded_rows() const noexcept { return round_up(rows, Width); }
    /// Element (m, k) of the chunk that begins at column `first`; that of (m, k + 1) is `Width` further.
    float const* at(index_t m, index_t first) const noexcept {
        return data + first * padded_rows() + m / Width * Width * minimum(chunk, columns - first) + m % Width;
    }
    float_panels slice(index_t, index_t count) const noexcept { return {nullptr, count, columns}; }
};

} // namespace tessera::inline TESSERA_ABI
