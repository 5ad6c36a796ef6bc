// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The door of families of operators, for every backend: members of one shape, and whose rows of x are whose.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"

#include <span>

namespace tessera::inline TESSERA_ABI::detail {

inline void check_offsets(char const* operation, vector_view<index_t const> offsets, index_t members, index_t rows) {
    check::equal(operation, "size of the offsets", offsets.extent(0), members + 1, "number of operators and one more");
    check::elements(operation, "the offsets", offsets);
    check::equal(operation, "the first offset", offsets[0], 0, "the first row of x");
    for (index_t g = 0; g < members; ++g)
        check::within(operation, "an offset", offsets[g + 1], offsets[g], rows);
    check::equal(operation, "the last offset", offsets[members], rows, "rows of x");
}

/// All operators have the shape of the first.
template <class Op>
void check_family(char const* operation, std::span<Op const> w) {
    for (Op const& one : w) {
        check::equal(operation, "rows of an operator", one.rows(), w[0].rows(), "rows of the first");
        check::equal(operation, "columns of an operator", one.cols(), w[0].cols(), "columns of the first");
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
