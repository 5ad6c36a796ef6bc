// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage of CUDA devices for int4 times int8: `prepacked<device_nibbles, Storage>`. A nibble is an integer in two's
/// complement, which by two instructions becomes 16 times itself in a byte, four of them at a time: registers of the matrix units'
/// operand (m64k32: warp w of a panel of 64 rows has rows 16 w and the next 16, lane 4 g + t rows g and g + 8).
///
/// **Codes.** (tiles of 256 rows, blocks of 128 columns, 4 panels of 64 rows, 2 halves of 64 columns, 4 warps, 32 lanes, 16 bytes): of
/// each 32 columns 2 words, for columns 4 t to 4 t + 3 and those 16 further, byte i of a word for column 4 t + i, row g in its lower
/// nibble, row g + 8 in the upper. Rows and columns that are not there are 0.
///
/// **Scales.** (tiles, groups, 256), as they are stored; groups in whole blocks of columns.

#include "code_source.hpp"
#include "device_panel.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The layout above.
struct device_nibbles {
    static constexpr index_t rows = 256;
    static constexpr index_t columns = 128;
};

namespace detail {

/// int4, symmetric, in groups that divide 128 into whole 32 or are multiples of it.
template <class Storage>
inline constexpr bool is_nibbles = false;
template <index_t G, element_format Scale>
inline constexpr bool is_nibbles<quantized<scheme<int4, group<G>, Scale, symmetric>>> = G == 32 || G == 64 || G % 128 == 0;

} // namespace detail

/// A matrix in device nibbles; a view of device memory.
template <class Storage>
class prepacked<device_nibbles, Storage> {
public:
    using layout = device_nibbles;
    using storage = Storage;
    using format = detail::device_format<Storage>;
    static_assert(detail::is_nibbles<Storage>, "tessera: device nibbles hold int4 in groups of 32, 64 or a multiple of 128");
    static constexpr index_t group = code_source<Storage>::group;
    using scale_type = typename code_source<Storage>::scale_type;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t row_blocks() const noexcept { return ceil_div(rows_, device_nibbles::rows); }
    TESSERA_HOST_DEVICE constexpr index_t column_blocks() const noexcept { return ceil_div(cols_, device_nibbles::columns); }
    TESSERA_HOST_DEVICE constexpr index_t groups() const noexcept {
        return group < 128 ? column_blocks() * (128 / group) : ceil_div(cols_, group);
    }
    TESSERA_HOST_DEVICE constexpr index_t code_bytes() const noexcept { return row_blocks() * column_blocks() * (256 * 64); }
    TESSERA_HOST_DEVICE constexpr index_t scale_count() const noexcept { return row_blocks() * groups() * 256; }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        return code_bytes() + scale_count() * static_cast<index_t>(sizeof(scale_type));
    }
    TESSERA_HOST_DEVICE constexpr scale_type const* scales() const noexcept { return reinterpret_cast<scale_type const*>(data_ + code_bytes()); }
    TESSERA_HOST_DEVICE constexpr index_t scale_index(index_t n, index_t k) const noexcept {
        return (n / 256 * groups() + k / group) * 256 + n % 256;
    }
    /// Where a code is: a byte, and its lowest bit in it.
    struct place_of_code {
        index_t byte;
        int bit;
    };
    TESSERA_HOST_DEVICE constexpr place_of_code locate(index_t n, index_t k) const noexcept {
        index_t const panel = (n / 256 * column_blocks() + k / 128) * 4 + n % 256 / 64;
        index_t const lane = n % 8 * 4 + k % 16 / 4;
        index_t const word = k % 64 / 32 * 2 + k % 32 / 16;
        return {((panel * 2 + k % 128 / 64) * 4 + n % 64 / 16) * 512 + lane * 16 + word * 4 + k % 4, static_cast<int>(n % 16 / 8 * 4)};
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

namespace detail {

/// Writes one tile of 256 rows of canonical storage; `data` is the whole zeroed memory on the host.
template <class Storage>
void pack_device_block(Storage const& w, prepacked<device_nibbles, Storage> const& to, index_t block, std::byte* data) noexcept {
    using source = code_source<Storage>;
    using scale_type = typename prepacked<device_nibbles, Storage>::scale_type;
    auto* const scales = reinterpret_cast<scale_type*>(data + to.code_bytes());
    index_t const last = minimum((block + 1) * device_nibbles::rows, to.rows());
    for (index_t n = block * device_nibbles::rows; n < last; ++n) {
        for (index_t k = 0; k < to.cols(); ++k) {
            auto const at = to.locate(n, k);
            auto const value = static_cast<unsigned>(static_cast<int>(source::code(w, n, k)) - source::zero) & 15u;
            data[at.byte] |= static_cast<std::byte>(value << at.bit);
        }
        for (index_t k = 0; k < to.cols(); k += to.group) scales[to.scale_index(n, k)] = static_cast<scale_type>(source::scale(w, n, k));
    }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
