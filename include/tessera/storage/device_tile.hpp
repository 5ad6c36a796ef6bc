// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage of CUDA devices whose matrix units multiply bytes: `prepacked<device_tile, Storage>`. Codes are the units' bytes
/// (8-bit floats as they are, integers in two's complement), in the order in which shared memory wants them, so that the copy engine
/// brings a tile by one copy of a line of memory.
///
/// **Codes.** (blocks of 128 rows, an even number of them, blocks of 128 columns, 128 rows, 128 bytes): the 16 bytes with number c of
/// row r lie at place c ^ r % 8. Rows and columns that are not there are 0.
///
/// **Scales.** float32: of 8-bit floats one for each of those blocks, of integers one a row (0 for rows that are not there).

#include "code_source.hpp"
#include "device_panel.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The layout above.
struct device_tile {
    static constexpr index_t rows = 128;
    static constexpr index_t columns = 128;
};

namespace detail {

/// Whether a granularity's blocks are made of whole blocks of 128 x 128.
template <class G>
inline constexpr bool has_whole_tiles = G::rows % 128 == 0 && G::columns % 128 == 0;
template <class Format>
inline constexpr bool is_unit_float8 = std::is_same_v<Format, e4m3fn> || std::is_same_v<Format, e5m2>;

/// Schemes that device tiles hold: 8-bit floats of Hopper with a scale for each tile, and 8-bit integers with one for each row.
template <class Storage>
inline constexpr bool is_float8_tile = false;
template <class Format, class G, element_format Scale>
inline constexpr bool is_float8_tile<quantized<scheme<Format, G, Scale, symmetric>>> = is_unit_float8<Format> && has_whole_tiles<G>;
template <class Storage>
inline constexpr bool is_int8_tile = false;
template <class G, element_format Scale>
inline constexpr bool is_int8_tile<quantized<scheme<int8, G, Scale, symmetric>>> = G::rows <= 1 && G::columns == 0;

} // namespace detail

/// A matrix in device tiles; a view of device memory.
template <class Storage>
class prepacked<device_tile, Storage> {
public:
    using layout = device_tile;
    using storage = Storage;
    using format = detail::device_format<Storage>;
    static constexpr bool is_float8 = detail::is_float8_tile<Storage>;
    static_assert(is_float8 || detail::is_int8_tile<Storage>, "tessera: device tiles hold 8-bit floats with a scale for whole tiles, and int8 with one for rows");

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t row_blocks() const noexcept { return round_up(ceil_div(rows_, device_tile::rows), 2); }
    TESSERA_HOST_DEVICE constexpr index_t column_blocks() const noexcept { return ceil_div(cols_, device_tile::columns); }
    TESSERA_HOST_DEVICE constexpr index_t code_bytes() const noexcept {
        return row_blocks() * column_blocks() * (device_tile::rows * device_tile::columns);
    }
    TESSERA_HOST_DEVICE constexpr index_t scale_count() const noexcept {
        return is_float8 ? row_blocks() * column_blocks() : row_blocks() * device_tile::rows;
    }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept { return code_bytes() + scale_count() * static_cast<index_t>(sizeof(float)); }
    TESSERA_HOST_DEVICE constexpr float const* scales() const noexcept { return reinterpret_cast<float const*>(data_ + code_bytes()); }
    TESSERA_HOST_DEVICE constexpr index_t scale_index(index_t n, index_t k) const noexcept {
        return is_float8 ? n / device_tile::rows * column_blocks() + k / device_tile::columns : n;
    }
    /// Where a code is.
    TESSERA_HOST_DEVICE constexpr index_t locate(index_t n, index_t k) const noexcept {
        index_t const block = n / device_tile::rows * column_blocks() + k / device_tile::columns;
        index_t const in_row = (k % 128 / 16 ^ n % 8) * 16 + k % 16;
        return (block * device_tile::rows + n % device_tile::rows) * 128 + in_row;
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

namespace detail {

/// Writes one block of 128 rows of canonical storage; `data` is the whole zeroed memory on the host.
template <class Storage>
void pack_device_block(Storage const& w, prepacked<device_tile, Storage> const& to, index_t block, std::byte* data) noexcept {
    using source = code_source<Storage>;
    auto* const scales = reinterpret_cast<float*>(data + to.code_bytes());
    index_t const last = minimum((block + 1) * device_tile::rows, to.rows());
    for (index_t n = block * device_tile::rows; n < last; ++n) {
        for (index_t k = 0; k < to.cols(); ++k) {
            std::uint32_t const code = source::code(w, n, k);
            if constexpr (to.is_float8)
                data[to.locate(n, k)] = static_cast<std::byte>(code);
            else
                data[to.locate(n, k)] = static_cast<std::byte>(static_cast<int>(code) - source::zero);
        }
        for (index_t k = 0; k < to.cols(); k += device_tile::columns) scales[to.scale_index(n, k)] = source::scale(w, n, k);
    }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
