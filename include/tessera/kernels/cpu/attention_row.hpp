// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A row of a KV cache in a scheme (storage/kv_row.hpp) to floats: (value of the code - zero point) * scale, the bits of
/// `kv_row::value`. Codes of 4 and 8 bits a register at a time, others one by one.

#include "../../simd/unpack.hpp"
#include "../../storage/kv_row.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Elements [first, last) of a row of n.
template <class Arch, class Scheme>
void decode_kv_row(std::uint8_t const* row, index_t n, index_t first, index_t last, float* to) noexcept {
    using layout = kv_row<Scheme>;
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    constexpr int bits = layout::bits;
    for (index_t i = first; i < last;) {
        index_t const g = i / layout::group(n);
        index_t const end = minimum((g + 1) * layout::group(n), last);
        float const scale = layout::scale(row, n, g);
        float const zero = layout::zero(row, n, g);
        if constexpr (bits == 4 || bits == 8)
            for (; i + width <= end && i * bits % 8 == 0; i += width) {
                floats const x = simd::unpack_values<Arch, typename layout::format>(row + i * bits / 8);
                simd::store<Arch>(to + (i - first), (x - floats(zero)) * floats(scale));
            }
        for (index_t const stop = bits == 4 && i < end && i % 2 != 0 ? i + 1 : end; i < stop; ++i)
            to[i - first] = (layout::format::decode(bitpack::get<bits>(row, i)) - zero) * scale;
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
