// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage of CUDA devices for codes that are looked up in tables that are data (tables, nested codes, points of grids): the
/// device panels of storage/device_panel.hpp, with the tables behind the scales. Every `lookup_storage` whose codes of up to 16 bits
/// stand for 1, 2, 4 or 8 neighbours becomes one; products decode them in registers.
///
/// **Codes.** Of b bits and D positions, in w = max(1, b / D) bits for each position, b rounded up to 1, 2, 4, 8 or 16. A lane
/// holds 16 adjacent positions of a row in a sub-block of 64, so that the numbers of a code belong to one lane: 1 is half a register, 2 are
/// a register, 4 two registers of a fragment, 8 those of two fragments.
///
/// **Scales.** Where the number of columns that share one is known when the program is compiled (`Storage::group_columns`, 0: the row), as
/// device panels have them. Otherwise groups are padded to whole blocks of 64 positions, and all blocks of a group find its one scale.
///
/// **Tables.** Of the tensor: one, as it is. Of rows, or groups of rows: (blocks of 32 rows, groups, 32 rows), each of 2^b values. In the type
/// that they are stored in. Positions without a column have a code whose values are finite, if there is one: x is 0 there. (The rest of a
/// last code that columns end in stays what the storage has.)

#include "device_panel.hpp"
#include "vector_storage.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Look-ups that have device panels.
template <class Storage>
concept device_lookup = lookup_storage<Storage> && Storage::code_bits >= 1 && Storage::code_bits <= 16 &&
                        (Storage::dims == 1 || Storage::dims == 2 || Storage::dims == 4 || Storage::dims == 8);

/// What values of tables are stored in: `Storage::value_type` (fp16), or float.
template <class Storage>
struct table_value_of {
    using type = float;
};
template <class Storage>
    requires std::is_same_v<typename Storage::value_type, fp16>
struct table_value_of<Storage> {
    using type = fp16;
};

/// Columns that share a scale or a table, 0: the row; -1: known at run time.
template <class Storage>
inline constexpr index_t fixed_group = -1;
template <class Storage>
    requires requires { Storage::group_columns; }
inline constexpr index_t fixed_group<Storage> = Storage::group_columns;

template <device_lookup Storage>
struct device_format<Storage> {
    using value_type = typename table_value_of<Storage>::type;
    static constexpr bool has_stored_tables = true;
    static constexpr table_kind tables = Storage::tables;
    static constexpr bool is_dense = false;
    static constexpr bool is_integer = false;
    static constexpr int bits = Storage::code_bits;
    static constexpr int dims = static_cast<int>(Storage::dims);
    static constexpr int zero = 0;
    static constexpr int width = maximum(1, (bits <= 1 ? 1 : bits <= 2 ? 2 : bits <= 4 ? 4 : bits <= 8 ? 8 : 16) / dims);
    static constexpr bool has_scales = !std::is_same_v<typename Storage::stored_scale, without_scale>;
    static constexpr bool has_offsets = false;
    using scale_type = std::conditional_t<has_scales, typename Storage::stored_scale, float>;
    static constexpr bool has_fixed_group = fixed_group<Storage> >= 0;
    /// Columns as kernels group them.
    static constexpr index_t group = has_fixed_group ? fixed_group<Storage> : device_panel::block;
    static constexpr index_t group_positions = round_up(group, dims == 8 ? 32 : 16);
};
/// Numbers that the products of a weight need: fp16 is the sum of 2 of bf16, float of 3.
template <device_lookup Storage>
inline constexpr int weight_pieces<Storage> = sizeof(typename device_format<Storage>::value_type) == 2 ? 2 : 3;

} // namespace detail

/// See the file comment.
template <detail::device_lookup Storage>
class prepacked<device_panel, Storage>
    : public detail::panel_codes<detail::device_format<Storage>, detail::sub_block_of(detail::device_format<Storage>::group_positions)> {
    using codes = detail::panel_codes<detail::device_format<Storage>, detail::sub_block_of(detail::device_format<Storage>::group_positions)>;

public:
    using layout = device_panel;
    using storage = Storage;
    using format = detail::device_format<Storage>;
    using scale_type = typename format::scale_type;
    using value_type = typename format::value_type;

    static constexpr index_t group = format::group;
    static constexpr index_t group_positions = format::group_positions;
    static constexpr bool shares_scales = !format::has_fixed_group;
    static constexpr index_t table_size = index_t{1} << format::bits;

    constexpr prepacked() noexcept = default;
    /// @param columns of a group; a fixed one is known.
    constexpr prepacked(std::byte const* data, index_t n, index_t k, index_t columns) noexcept
        : data_{data}, rows_{n}, cols_{k}, columns_{maximum(minimum(columns, k), 1)} {}
    /// Of a storage, with its memory at `data`.
    constexpr prepacked(std::byte const* data, Storage const& w) noexcept : prepacked{data, w.rows(), w.cols(), w.group()} {}
    /// The same elsewhere.
    constexpr prepacked at(std::byte const* data) const noexcept { return {data, rows_, cols_, columns_}; }

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t panels() const noexcept { return ceil_div(rows_, 16); }
    TESSERA_HOST_DEVICE constexpr index_t tiles() const noexcept { return ceil_div(rows_, device_panel::tile_rows); }
    /// Groups of a row that have a scale, or a table.
    TESSERA_HOST_DEVICE constexpr index_t stored_groups() const noexcept {
        return format::has_fixed_group && group == 0 ? (cols_ > 0) : ceil_div(cols_, columns());
    }
    /// Groups of a row as kernels take them.
    TESSERA_HOST_DEVICE constexpr index_t groups() const noexcept {
        return format::has_fixed_group ? stored_groups() : ceil_div(positions(), maximum(group_positions, 1));
    }
    /// The stored group of a kernel's.
    TESSERA_HOST_DEVICE constexpr int stored_group(int g) const noexcept {
        if constexpr (format::has_fixed_group)
            return g;
        else
            return static_cast<int>(static_cast<unsigned>(g) / static_cast<unsigned>(ceil_div(columns_, maximum(group_positions, 1))));
    }
    TESSERA_HOST_DEVICE constexpr index_t blocks() const noexcept {
        return round_up(ceil_div(positions(), device_panel::block), codes::step_blocks);
    }
    TESSERA_HOST_DEVICE constexpr index_t code_bytes() const noexcept { return tiles() * blocks() * codes::block_bytes; }
    TESSERA_HOST_DEVICE constexpr index_t scale_count() const noexcept {
        return format::has_scales ? tiles() * stored_groups() * device_panel::tile_rows : 0;
    }
    TESSERA_HOST_DEVICE constexpr index_t table_count() const noexcept {
        if constexpr (format::tables == detail::table_kind::tensor)
            return 1;
        else
            return tiles() * device_panel::tile_rows * table_groups();
    }
    TESSERA_HOST_DEVICE constexpr index_t table_bytes() const noexcept {
        return table_count() * table_size * format::dims * static_cast<index_t>(sizeof(value_type));
    }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        return rows_ == 0 || cols_ == 0 ? 0 : code_bytes() + scale_count() * static_cast<index_t>(sizeof(scale_type)) + table_bytes();
    }
    TESSERA_HOST_DEVICE constexpr scale_type const* scales() const noexcept {
        return reinterpret_cast<scale_type const*>(data_ + code_bytes());
    }
    TESSERA_HOST_DEVICE constexpr value_type const* tables() const noexcept {
        return reinterpret_cast<value_type const*>(data_ + code_bytes() + scale_count() * static_cast<index_t>(sizeof(scale_type)));
    }
    /// Where the table of row n and a stored group begins. That of row n + 1 follows, in blocks of 32 rows.
    TESSERA_HOST_DEVICE constexpr index_t table_index(index_t n, index_t g) const noexcept {
        if constexpr (format::tables == detail::table_kind::tensor)
            return 0;
        else
            return ((n / 32 * table_groups() + (format::tables == detail::table_kind::group ? g : 0)) * 32 + n % 32) * table_size * format::dims;
    }
    /// Of so many stored groups of a row.
    TESSERA_HOST_DEVICE static constexpr index_t scale_index(index_t groups, index_t n, index_t g) noexcept {
        return (n / device_panel::tile_rows * groups + g) * device_panel::tile_rows + n % device_panel::tile_rows;
    }
    /// The stored group of a position; the last one beyond the end.
    TESSERA_HOST_DEVICE constexpr index_t group_at(index_t position) const noexcept {
        return format::has_fixed_group && group == 0 ? 0 : minimum(position / padded(), stored_groups() - 1);
    }
    /// The stored group of column k, and where the scale of an element is.
    TESSERA_HOST_DEVICE constexpr index_t group_of(index_t k) const noexcept { return format::has_fixed_group && group == 0 ? 0 : k / columns(); }
    TESSERA_HOST_DEVICE constexpr index_t scale_of(index_t n, index_t k) const noexcept { return scale_index(stored_groups(), n, group_of(k)); }
    TESSERA_HOST_DEVICE constexpr bool has_gaps() const noexcept { return stored_groups() > 1 && columns() != padded(); }
    TESSERA_HOST_DEVICE constexpr index_t position(index_t k) const noexcept { return has_gaps() ? k / columns() * padded() + k % columns() : k; }
    TESSERA_HOST_DEVICE constexpr index_t column(index_t position) const noexcept {
        if (!has_gaps()) return position;
        index_t const within = position % padded();
        return within < columns() ? position / padded() * columns() + within : -1;
    }
    TESSERA_HOST_DEVICE constexpr auto locate(index_t n, index_t position) const noexcept { return codes::locate(n, position, blocks()); }
    /// W(n, k) less its scale.
    TESSERA_HOST_DEVICE constexpr float value(index_t n, index_t k) const noexcept {
        auto const at = locate(n, position(k));
        std::uint32_t const code = reinterpret_cast<std::uint32_t const*>(data_)[at.word] >> at.bit & static_cast<std::uint32_t>(table_size - 1);
        return static_cast<float>(tables()[table_index(n, group_of(k)) + static_cast<index_t>(code) * format::dims + k % format::dims]);
    }

private:
    /// Columns of a stored group, and their positions.
    TESSERA_HOST_DEVICE constexpr index_t columns() const noexcept {
        if constexpr (format::has_fixed_group && group != 0)
            return group;
        else
            return columns_;
    }
    TESSERA_HOST_DEVICE constexpr index_t padded() const noexcept {
        if constexpr (format::has_fixed_group && group != 0)
            return group_positions;
        else
            return round_up(columns_, device_panel::block);
    }
    TESSERA_HOST_DEVICE constexpr index_t positions() const noexcept { return has_gaps() ? stored_groups() * padded() : cols_; }
    TESSERA_HOST_DEVICE constexpr index_t table_groups() const noexcept {
        return format::tables == detail::table_kind::group ? stored_groups() : 1;
    }

    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t columns_ = 1; ///< of a group
};

namespace detail {

/// Writes one tile of 256 rows of look-ups; `data` is the whole zeroed panel memory on the host.
template <device_lookup Storage>
void pack_device_tile(Storage const& w, prepacked<device_panel, Storage> const& to, index_t tile, std::byte* data) noexcept {
    using panels = prepacked<device_panel, Storage>;
    using format = typename panels::format;
    constexpr index_t dims = format::dims;
    if (to.bytes() == 0) return;
    panels const there = to.at(data);
    auto* const words = reinterpret_cast<std::uint32_t*>(data);
    auto* const scales = const_cast<typename panels::scale_type*>(there.scales());
    auto* const tables = const_cast<typename panels::value_type*>(there.tables());
    index_t const first = tile * device_panel::tile_rows;
    index_t const last = minimum(first + device_panel::tile_rows, to.rows());
    auto const write_table = [&](index_t n, index_t g) {
        auto* const table = tables + to.table_index(n, g);
        for (index_t i = 0; i < panels::table_size * dims; ++i)
            table[i] = static_cast<typename panels::value_type>(w.table_value(n, g, static_cast<std::uint32_t>(i / dims), static_cast<int>(i % dims)));
    };
    auto const padding_code = [&](index_t n, index_t g) {
        for (index_t c = 0; c < panels::table_size; ++c) {
            bool is_finite = true;
            for (int d = 0; d < format::dims; ++d) is_finite = is_finite && std::isfinite(w.table_value(n, g, static_cast<std::uint32_t>(c), d));
            if (is_finite) return static_cast<std::uint32_t>(c);
        }
        return 0u;
    };
    if (format::tables == table_kind::tensor && tile == 0) write_table(0, 0);
    for (index_t n = first; n < last; ++n) {
        for (index_t g = 0; g < to.stored_groups(); ++g) {
            if constexpr (format::has_scales) scales[panels::scale_index(to.stored_groups(), n, g)] = w.scale(n, g);
            if (format::tables == table_kind::group || (format::tables == table_kind::row && g == 0)) write_table(n, g);
        }
        constexpr index_t chunk = 64;
        std::uint16_t codes[chunk] = {};
        index_t loaded = -chunk; // those from here on are in `codes`
        for (index_t p = 0; p < to.blocks() * device_panel::block; p += dims) {
            index_t const k = to.column(p);
            std::uint32_t code = 0;
            if (k >= 0 && k < to.cols()) {
                if (index_t const i = k / dims; i < loaded || i >= loaded + chunk) {
                    loaded = i;
                    w.load_codes(n, i, minimum(chunk, ceil_div(to.cols(), dims) - i), codes);
                }
                code = codes[k / dims - loaded];
            } else {
                code = padding_code(n, to.group_at(p));
            }
            auto const at = to.locate(n, p);
            words[at.word] |= code << at.bit;
        }
    }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
