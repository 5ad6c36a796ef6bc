// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Keys stored without positions, for attention on the CPU: a row is decoded, then turned as `rope` turns it, the same bits.

#include "../../storage/rotary_rows.hpp"
#include "attention_any.hpp"
#include "rope.hpp"

namespace tessera::inline TESSERA_ABI::detail {

template <class Arch, class T, class Style>
void stage_row(kv_rows<rotary_key<T, Style> const> const& rows, index_t head, index_t slot, index_t first, index_t n,
               float* to) noexcept {
    if (n != rows.dim) { // pairs may be cut
        for (index_t d = 0; d < n; ++d) to[d] = rows(head, slot, first + d);
        return;
    }
    stage_row<Arch>(rows.stored, head, slot, 0, n, to);
    rope_token<Arch>(Style{}, token_heads<float, float>{to, to, 1, n, n}, rows.cosine(slot), rows.sine(slot), rows.pairs);
}

} // namespace tessera::inline TESSERA_ABI::detail
