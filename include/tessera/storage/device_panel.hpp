// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage of CUDA devices: `prepacked<device_panel, Storage>`, made for the matrix units, whose fragments it is
/// (m16n8k16: a warp holds 16 rows x 16 columns of W, a lane 8 of them). One layout for every format and every number of rows
/// of x.
///
/// **Positions.** Groups of columns are padded to a multiple of 16, so that a fragment has one scale for a row; the padded
/// columns are the matrix's positions. Blocks of 64 positions are cut into sub-blocks of q = 16, 32 or 64, the largest that no
/// group's end cuts. Of a sub-block, lane (g, t) holds positions q/4 t to q/4 (t + 1): those are adjacent in a row of x too.
///
/// **Codes.** (tiles of 256 rows, blocks, 16 panels of 16 rows, chunks, 32 lanes, 16 bytes): lane 4 g + t has rows g and g + 8
/// of its panel, 4 fragments of a block after each other, each of four registers (row g, row g + 8, and again) of two adjacent
/// positions. Codes of up to 4 bits take 1, 2 or 4, others 8; dense elements are themselves. Integer codes of a register lie 16
/// bits apart, which one mask finds; codes that are looked up lie side by side, which is an index.
///
/// **Scales, offsets.** (tiles, groups, 256), in the type they are stored in (two levels: their product, float32), and the
/// number that is added to scale * value as float32: the minimum, or -scale * zero point.

#include "prepacked.hpp"

#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The layout above.
struct device_panel {
    static constexpr index_t tile_rows = 256;
    static constexpr index_t block = 64;
};

namespace detail {

/// How a storage looks in device panels. Coded:
template <class Storage>
struct device_format {
    using source = code_source<Storage>;
    static_assert(source::is_coded && requires(Storage const& w) { source::code(w, index_t{}, index_t{}); },
                  "tessera: place: cuda<Sm> places dense matrices and formats with a code for every weight");
    static constexpr bool is_dense = false;
    static constexpr bool is_integer = source::is_integer;
    static constexpr int bits = source::bits;
    static constexpr int zero = source::zero;
    static constexpr int width = bits <= 1 ? 1 : bits <= 2 ? 2 : bits <= 4 ? 4 : 8;
    static constexpr bool has_scales = true;
    static constexpr bool has_offsets = source::offset != offset_kind::none;
    static constexpr index_t group = source::group;
    using scale_type = std::conditional_t<super_group<source> != 0, float, typename source::scale_type>;

    /// Float32 values of the codes that are looked up.
    static constexpr auto table() noexcept {
        std::array<float, std::size_t{1} << bits> values{};
        for (std::size_t c = 0; c < values.size(); ++c) values[c] = source::value(static_cast<std::uint32_t>(c));
        return values;
    }
};
/// Dense:
template <class T>
struct device_format<matrix_view<T const>> {
    static constexpr bool is_dense = true;
    static constexpr bool is_integer = false;
    static constexpr int bits = 8 * static_cast<int>(sizeof(T));
    static constexpr int zero = 0;
    static constexpr int width = bits;
    static constexpr bool has_scales = false;
    static constexpr bool has_offsets = false;
    static constexpr index_t group = 0;
    using scale_type = float;
    using element_type = T;
};

/// Positions that a code stands for: 1, but for points of grids (storage/device_table.hpp).
template <class Format>
inline constexpr int code_positions = 1;
template <class Format>
    requires requires { Format::dims; }
inline constexpr int code_positions<Format> = Format::dims;

/// The largest sub-block (q of the file comment) that no end of groups of so many positions cuts; 0: a row.
constexpr index_t sub_block_of(index_t group_positions) noexcept { return group_positions % 64 == 0 ? 64 : group_positions % 32 == 0 ? 32 : 16; }

/// Codes of panels: how many bytes they take, and where they are. SubBlock is q of the file comment.
template <class Format, index_t SubBlock>
struct panel_codes {
    static constexpr index_t sub_block = SubBlock;
    /// Blocks that kernels read at a time.
    static constexpr index_t step_blocks = Format::width <= 4 ? 2 : 1;
    /// Bytes of a lane in a block, and of a chunk of them.
    static constexpr index_t lane_bytes = 4 * Format::width;
    static constexpr index_t chunk_bytes = maximum(minimum(lane_bytes, 16), 4);
    static constexpr index_t panel_block_bytes = 32 * lane_bytes;
    static constexpr index_t block_bytes = 16 * panel_block_bytes;

    /// The row of a panel that lane (g, t) has first, or second.
    TESSERA_HOST_DEVICE static constexpr int row_of_lane(int g, int half) noexcept { return g + 8 * half; }

    /// Where a code is: a 32-bit word of the codes, and its lowest bit in it.
    struct place_of_code {
        index_t word;
        int bit;
    };
    /// Of the code for a position of row n in rows of `blocks` blocks.
    TESSERA_HOST_DEVICE static constexpr place_of_code locate(index_t n, index_t position, index_t blocks) noexcept {
        index_t const block = position / 64;
        auto const in_block = static_cast<int>(position % 64);
        constexpr auto q = static_cast<int>(sub_block);
        int const t = in_block % q / (q / 4);
        int const u = in_block % (q / 4);
        int const step = in_block / q * (q / 16) + u / 4;
        auto const row = static_cast<int>(n % 16);
        auto const in_lane = word_of_lane(step, u % 4 / 2, row / 8, u % 2);
        constexpr auto chunk_words = static_cast<int>(chunk_bytes / 4);
        index_t const lane = row % 8 * 4 + t;
        index_t const panel = (n / device_panel::tile_rows * blocks + block) * 16 + n % device_panel::tile_rows / 16;
        index_t const word = in_lane.word;
        return {(panel * panel_block_bytes + word / chunk_words * 32 * chunk_bytes + lane * chunk_bytes) / 4 + word % chunk_words, in_lane.bit};
    }

private:
    /// Of a lane's words of a block: fragment `step`, its first or second pair of positions, row g or g + 8, position of the pair.
    TESSERA_HOST_DEVICE static constexpr place_of_code word_of_lane(int step, int pair, int row, int half) noexcept {
        constexpr int w = Format::width;
        constexpr int dims = code_positions<Format>;
        int const reg = 2 * pair + row;
        if constexpr (dims >= 4) { // a code of a row of one fragment, or two
            constexpr int steps = 4 / maximum(w, 1);
            return {step / steps, dims * w * (row + 2 * (step % steps / (dims / 4)))};
        } else if constexpr (w <= 4) {
            constexpr int steps = 4 / maximum(w, 1);
            int const at = reg + 4 * (step % steps);
            return {step / steps, Format::is_integer ? w * at + 16 * half : 2 * w * at + (dims == 1 ? w * half : 0)};
        } else if constexpr (w == 8) {
            return {2 * step + reg / 2, 16 * (reg % 2) + (dims == 1 ? 8 * half : 0)};
        } else if constexpr (w == 16) {
            return {4 * step + reg, 16 * half};
        } else {
            return {8 * step + 2 * reg + half, 0};
        }
    }
};

/// Numbers of bf16 that make a value exactly: its 24 bits are cut into 8 and 8 and 8.
constexpr int bf16_pieces(float value) noexcept {
    auto const b = std::bit_cast<std::uint32_t>(value);
    if ((b & 0x7f800000u) == 0x7f800000u || (b & 0xffffu) == 0) return 1;
    float const rest = value - std::bit_cast<float>(b & 0xffff0000u);
    return (std::bit_cast<std::uint32_t>(rest) & 0xffffu) == 0 ? 2 : 3;
}

/// The same for every value of a format.
template <class Storage>
inline constexpr int weight_pieces = [] {
    using format = device_format<Storage>;
    int most = format::is_dense ? format::bits == 32 ? 3 : 1 : 1;
    if constexpr (std::is_same_v<Storage, matrix_view<fp16 const>>) most = 2;
    if constexpr (!format::is_dense && !format::is_integer)
        for (float const v : format::table()) most = bf16_pieces(v) > most ? bf16_pieces(v) : most;
    return most;
}();

} // namespace detail

/// A matrix in device panels; a view of device memory.
template <class Storage>
class prepacked<device_panel, Storage>
    : public detail::panel_codes<detail::device_format<Storage>, detail::sub_block_of(round_up(detail::device_format<Storage>::group, 16))> {
    using codes = detail::panel_codes<detail::device_format<Storage>, detail::sub_block_of(round_up(detail::device_format<Storage>::group, 16))>;

public:
    using layout = device_panel;
    using storage = Storage;
    using format = detail::device_format<Storage>;
    using scale_type = typename format::scale_type;

    static constexpr index_t group = format::group;
    /// Positions of a group; 0: the whole row.
    static constexpr index_t group_positions = group == 0 ? 0 : round_up(group, 16);
    /// Groups of positions that find one scale: none.
    static constexpr bool shares_scales = false;
    TESSERA_HOST_DEVICE static constexpr int stored_group(int g) noexcept { return g; }

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t panels() const noexcept { return ceil_div(rows_, 16); }
    TESSERA_HOST_DEVICE constexpr index_t tiles() const noexcept { return ceil_div(rows_, device_panel::tile_rows); }
    /// Groups of a row, 1 where the row is one.
    TESSERA_HOST_DEVICE constexpr index_t groups() const noexcept { return group == 0 ? (cols_ > 0) : ceil_div(cols_, maximum(group, 1)); }
    TESSERA_HOST_DEVICE constexpr index_t stored_groups() const noexcept { return groups(); }
    /// Blocks of a row, in whole steps.
    TESSERA_HOST_DEVICE constexpr index_t blocks() const noexcept {
        index_t const positions = group == 0 ? cols_ : groups() * group_positions;
        return round_up(ceil_div(positions, device_panel::block), codes::step_blocks);
    }
    TESSERA_HOST_DEVICE constexpr index_t code_bytes() const noexcept { return tiles() * blocks() * codes::block_bytes; }
    TESSERA_HOST_DEVICE constexpr index_t scale_count() const noexcept {
        return format::has_scales ? tiles() * groups() * device_panel::tile_rows : 0;
    }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        index_t const per_scale = static_cast<index_t>(sizeof(scale_type)) + (format::has_offsets ? 4 : 0);
        return code_bytes() + scale_count() * per_scale;
    }
    TESSERA_HOST_DEVICE constexpr scale_type const* scales() const noexcept {
        return reinterpret_cast<scale_type const*>(data_ + code_bytes());
    }
    TESSERA_HOST_DEVICE constexpr float const* offsets() const noexcept {
        return reinterpret_cast<float const*>(data_ + code_bytes() + scale_count() * static_cast<index_t>(sizeof(scale_type)));
    }
    TESSERA_HOST_DEVICE static constexpr index_t scale_index(index_t groups, index_t n, index_t g) noexcept {
        return (n / device_panel::tile_rows * groups + g) * device_panel::tile_rows + n % device_panel::tile_rows;
    }
    /// Where the scale of an element is.
    TESSERA_HOST_DEVICE constexpr index_t scale_of(index_t n, index_t k) const noexcept {
        return scale_index(groups(), n, group == 0 ? 0 : k / maximum(group, 1));
    }
    /// There are positions without a column between those of columns.
    static constexpr bool has_gaps() noexcept { return group != group_positions; }
    /// The position of column k, and its column (-1: padding).
    TESSERA_HOST_DEVICE static constexpr index_t position(index_t k) noexcept {
        return group == 0 ? k : k / maximum(group, 1) * group_positions + k % maximum(group, 1);
    }
    TESSERA_HOST_DEVICE static constexpr index_t column(index_t position) noexcept {
        if (group == group_positions) return position;
        index_t const within = position % maximum(group_positions, 1);
        return within < group ? position / maximum(group_positions, 1) * group + within : -1;
    }

    TESSERA_HOST_DEVICE constexpr auto locate(index_t n, index_t position) const noexcept { return codes::locate(n, position, blocks()); }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

namespace detail {

template <class T>
constexpr std::uint32_t dense_code(T value) noexcept {
    if constexpr (std::is_same_v<T, float>)
        return std::bit_cast<std::uint32_t>(value);
    else
        return value.to_bits();
}

/// Writes one tile of 256 rows of canonical storage; `data` is the whole zeroed panel memory on the host.
template <class Storage>
void pack_device_tile(Storage const& w, prepacked<device_panel, Storage> const& to, index_t tile, std::byte* data) noexcept {
    using panels = prepacked<device_panel, Storage>;
    using format = typename panels::format;
    auto* const words = reinterpret_cast<std::uint32_t*>(data);
    auto* const scales = reinterpret_cast<typename panels::scale_type*>(data + to.code_bytes());
    auto* const offsets = reinterpret_cast<float*>(data + to.code_bytes() + to.scale_count() * static_cast<index_t>(sizeof(*scales)));
    index_t const first = tile * device_panel::tile_rows;
    index_t const last = minimum(first + device_panel::tile_rows, to.rows());
    // Integers have no code 0 with value 0 where they are signed: padding between groups meets x = 0 anyway.
    for (index_t n = first; n < last; ++n) {
        for (index_t k = 0; k < to.cols(); ++k) {
            auto const at = to.locate(n, panels::position(k));
            if constexpr (format::is_dense)
                words[at.word] |= dense_code(w(n, k)) << at.bit;
            else
                words[at.word] |= format::source::code(w, n, k) << at.bit;
        }
        if constexpr (format::has_scales)
            for (index_t g = 0; g < to.groups(); ++g) {
                using source = typename format::source;
                index_t const k = g * panels::group;
                index_t const at = panels::scale_index(to.groups(), n, g);
                scales[at] = static_cast<typename panels::scale_type>(source::scale(w, n, k));
                if constexpr (source::offset == offset_kind::minimum)
                    offsets[at] = source::minimum(w, n, k);
                else if constexpr (source::offset == offset_kind::zero_point)
                    offsets[at] = -source::scale(w, n, k) * static_cast<float>(source::zero_point(w, n, k));
            }
    }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
