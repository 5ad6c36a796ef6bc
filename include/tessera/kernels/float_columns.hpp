// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A form of x for terms that meet single columns of it: the rows of x beside each other, so that one weight multiplies a
/// register of them. With so few rows that a register would be mostly empty there is no such form (`data` is null), and
/// terms read rows.

#include "../core/types.hpp"

namespace tessera::inline TESSERA_ABI {

/// x (rows, columns) in blocks of `width` rows: element (m, k) at block(m / width)[k * width + m % width]; rows that do not
/// exist are 0. R: float lanes.
template <index_t R>
struct float_columns {
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
    /// Some rows, or rows in another order, are read as rows.
    float_columns slice(index_t, index_t count) const noexcept { return {nullptr, count, columns, width_of(count)}; }
};

} // namespace tessera::inline TESSERA_ABI
