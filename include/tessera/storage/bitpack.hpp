// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Bits of rows, least significant first; rows start on a byte. All that tessera stores in bits lies so.
///
/// * Codes of 1 to 8 bits, packed without gaps: code i of a row occupies bits [i*b, (i+1)*b) of the row's bytes, so at 4 bits the
///   even code is the low half of its byte: `get<Bits>`, `set<Bits>`.
/// * Fields of a width that is known at run time: `read`, `write` to 32 bits, `read_wide`, `write_wide` any (pyramids' indices).

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

/// Bits [first, first + count), count from 1 to 32. Only bytes that hold one of them are read.
constexpr std::uint32_t read(std::uint8_t const* row, index_t first, int count) noexcept {
    std::uint64_t word = 0;
    index_t const begin = first / 8;
    index_t const end = ceil_div(first + count, 8);
    for (index_t b = begin; b < end; ++b) word |= static_cast<std::uint64_t>(row[b]) << (8 * (b - begin));
    return static_cast<std::uint32_t>(word >> (first % 8) & ((std::uint64_t{1} << count) - 1u));
}

/// Writes them; other bits keep their values.
constexpr void write(std::uint8_t* row, index_t first, int count, std::uint32_t value) noexcept {
    for (int i = 0; i < count;) {
        int const shift = static_cast<int>((first + i) % 8);
        int const part = count - i < 8 - shift ? count - i : 8 - shift;
        std::uint32_t const mask = ((1u << part) - 1u) << shift;
        std::uint8_t& byte = row[(first + i) / 8];
        byte = static_cast<std::uint8_t>((byte & ~mask) | (value >> i << shift & mask));
        i += part;
    }
}

/// The same of any width, as a number of several words (numerics/wide_uint.hpp).
template <class Wide>
constexpr Wide read_wide(std::uint8_t const* row, index_t first, int count) noexcept {
    Wide value;
    for (int i = 0; i < count; i += 64) {
        int const low = count - i < 32 ? count - i : 32;
        int const high = count - i < 32 ? 0 : count - i < 64 ? count - i - 32 : 32;
        std::uint64_t const upper = high == 0 ? 0 : read(row, first + i + 32, high); // else a byte behind the row
        value.set_word(i / 64, read(row, first + i, low) | upper << 32);
    }
    return value;
}
template <class Wide>
constexpr void write_wide(std::uint8_t* row, index_t first, int count, Wide const& value) noexcept {
    for (int i = 0; i < count; i += 32)
        write(row, first + i, count - i < 32 ? count - i : 32, static_cast<std::uint32_t>(value.word(i / 64) >> i % 64));
}

} // namespace tessera::inline TESSERA_ABI::bitpack
