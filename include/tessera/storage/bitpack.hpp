// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of 1 to 8 bits, packed without gaps: code i of a row occupies bits [i*b, (i+1)*b) of the row's bytes, least
/// significant bit first. So at 4 bits the even code is the low half of its byte. Rows start on a byte.

#include "../core/types.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI::bitpack {

/// Bytes of n packed codes.
TESSERA_HOST_DEVICE constexpr index_t bytes(index_t n, int bits) noexcept { return ceil_div(n * bits, 8); }

/// Code i of a packed row.
template <int Bits>
TESSERA_HOST_DEVICE constexpr std::uint32_t get(std::uint8_t const* row, index_t i) noexcept {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: packed codes have 1 to 8 bits");
    if constexpr (Bits == 8) return row[i];
    index_t const bit = i * Bits;
    std::uint32_t word = row[bit / 8];
    if constexpr (8 % Bits != 0)
        if (bit % 8 + Bits > 8) word |= static_cast<std::uint32_t>(row[bit / 8 + 1]) << 8;
    return word >> (bit % 8) & ((1u << Bits) - 1u);
}

/// Sets code i of a packed row; other codes keep their value.
template <int Bits>
TESSERA_HOST_DEVICE constexpr void set(std::uint8_t* row, index_t i, std::uint32_t code) noexcept {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: packed codes have 1 to 8 bits");
    index_t const bit = i * Bits;
    int const shift = static_cast<int>(bit % 8);
    std::uint32_t const mask = ((1u << Bits) - 1u) << shift;
    std::uint32_t const value = code << shift & mask;
    row[bit / 8] = static_cast<std::uint8_t>((row[bit / 8] & ~mask) | value);
    if (mask > 0xffu) row[bit / 8 + 1] = static_cast<std::uint8_t>((row[bit / 8 + 1] & ~(mask >> 8)) | value >> 8);
}

} // namespace tessera::inline TESSERA_ABI::bitpack
