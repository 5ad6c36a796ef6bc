// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A row of a KV cache in a scheme (storage/kv_row.hpp) to floats: (value of the code - zero point) * scale, the bits of
/// `kv_row::value`. Scales are widened a register at a time, and so are codes of 1 to 4 bits and of 8; others go one by one.

#include "../../simd/unpack.hpp"
#include "../../storage/kv_row.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI::detail {

/// Elements [i, end) of a row, all of one group.
template <class Arch, class Scheme>
TESSERA_FORCE_INLINE void decode_kv_group(std::uint8_t const* row, index_t i, index_t end, float scale, float zero,
                                          float* to) noexcept {
    using format = typename Scheme::format;
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    constexpr int bits = format::bits;
    if constexpr (simd::has_unpack<Arch, bits>)
        if (i * bits % 8 == 0)
            for (; i + width <= end; i += width, to += width) {
                floats x = simd::unpack_values<Arch, format>(row + i * bits / 8);
                if constexpr (Scheme::is_affine) x = x - floats(zero);
                simd::store<Arch>(to, x * floats(scale));
            }
    for (; i < end; ++i, ++to) *to = (format::decode(bitpack::get<bits>(row, i)) - zero) * scale;
}

/// Elements [first, last) of a row of n, of codes in groups.
template <class Arch, class Scheme>
void decode_kv_groups(std::uint8_t const* row, index_t n, index_t first, index_t last, float* to) noexcept {
    using layout = kv_row<Scheme>;
    using scale_type = typename layout::scale_type;
    using stored_type = std::conditional_t<std::is_same_v<scale_type, fp32>, float, scale_type>;
    constexpr index_t width = simd::lanes<Arch>;
    index_t const group = layout::group(n);
    for (index_t i = first; i < last;) {
        index_t const g0 = i / group;
        index_t const groups = minimum(ceil_div(last, group) - g0, width);
        stored_type stored[width];
        alignas(64) float scales[width];
        std::memcpy(stored, row + bitpack::bytes(n, layout::bits) + g0 * layout::scale_bytes,
                    static_cast<std::size_t>(groups * layout::scale_bytes));
        simd::load_partial<Arch>(stored, groups).store_aligned(scales);
        for (index_t g = g0; g < g0 + groups; ++g) {
            index_t const end = minimum((g + 1) * group, last);
            decode_kv_group<Arch, Scheme>(row, i, end, scales[g - g0], layout::zero(row, n, g), to + (i - first));
            i = end;
        }
    }
}

/// Elements [first, last) of a row of n.
template <class Arch, class Scheme>
void decode_kv_row(std::uint8_t const* row, index_t n, index_t first, index_t last, float* to) noexcept {
    using layout = kv_row<Scheme>;
    if constexpr (requires { layout::decode(row, n, first, last, to); }) // vectors
        layout::decode(row, n, first, last, to);
    else
        decode_kv_groups<Arch, Scheme>(row, n, first, last, to);
}

} // namespace tessera::inline TESSERA_ABI::detail
