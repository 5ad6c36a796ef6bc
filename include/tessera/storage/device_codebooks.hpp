// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage of CUDA devices for vector codes of columns (`vector_codebooks`): what products decode in registers, though no code
/// belongs to one lane.
///
/// **Positions.** Columns in the order of the storage, every group of columns padded to whole blocks of 64 positions: a block has one
/// codebook. As in device panels a lane holds 16 adjacent positions of a block.
///
/// **Memory.** For each part (outliers, the rest): indices (blocks, vectors of rows, 64) of 1 or 2 bytes, residual indices likewise where there
/// are any; then scale and bias of every position, fp16 side by side (1 and 0 where the storage has none; 0 and 0 of padding); the column of every
/// position, plus 1 (0: padding), and the position of every column; the parts' centroids and residuals as the storage has them. All from multiples of
/// 16 bytes on.

#include "device_panel.hpp"
#include "vector_codebooks.hpp"

#include <cmath>
#include <cstring>
#include <limits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <>
struct device_format<vector_codebooks> {
    static constexpr bool has_stored_tables = true;
    static constexpr bool is_dense = false;
    static constexpr bool is_integer = false;
    static constexpr int bits = 0;
    static constexpr int width = 0; ///< nothing of panels: kernels stream x alone
    static constexpr bool has_scales = false;
    static constexpr bool has_offsets = false;
    static constexpr index_t group = 0;
    using scale_type = float;
};
/// Numbers that the products of a weight, which is a float, need.
template <>
inline constexpr int weight_pieces<vector_codebooks> = 3;

/// A part of the columns in that memory: offsets in bytes.
struct device_codebook_part {
    int first_block = 0;
    int blocks_of_group = 1;
    int groups = 0;
    int vector = 1;             ///< rows of a code
    std::uint32_t inverse = 0;  ///< 2^32 / vector, rounded up, of vectors of 2 rows or more; rows are less than 2^24
    int index_bytes = 0;
    int residual_bytes = 0;
    int index_bits = 0;
    int residual_bits = 0;
    index_t vectors = 0; ///< of a column
    index_t codes = 0;
    index_t residual_codes = 0;
    index_t centroids = 0;
    index_t residuals = 0;

    TESSERA_HOST_DEVICE constexpr index_t vector_of(index_t n) const noexcept {
        return vector == 1 ? n : static_cast<index_t>(static_cast<std::uint64_t>(n) * inverse >> 32);
    }
    /// The codebooks of a block of the row; of padding blocks the last.
    TESSERA_HOST_DEVICE constexpr index_t group_of(int block) const noexcept { return minimum((block - first_block) / blocks_of_group, groups - 1); }
    /// Of indices: those of a vector of rows in a block.
    TESSERA_HOST_DEVICE constexpr index_t code_of(int block, index_t i) const noexcept { return ((block - first_block) * vectors + i) * device_panel::block; }
};

} // namespace detail

/// See the file comment. Rows are less than 2^24.
template <>
class prepacked<device_panel, vector_codebooks> : public detail::panel_codes<detail::device_format<vector_codebooks>, device_panel::block> {
    using codes = detail::panel_codes<detail::device_format<vector_codebooks>, device_panel::block>;

public:
    using layout = device_panel;
    using storage = vector_codebooks;
    using format = detail::device_format<vector_codebooks>;
    using scale_type = float;
    using part_type = detail::device_codebook_part;

    static constexpr index_t group = 0;
    static constexpr index_t group_positions = 0;
    static constexpr bool shares_scales = false;

    constexpr prepacked() noexcept = default;
    /// Of a storage, with its memory at `data`.
    prepacked(std::byte const* data, vector_codebooks const& w) : data_{data}, rows_{w.rows()}, cols_{w.cols()} {
        check::within("place", "rows of vector codes", rows_, 0, (index_t{1} << 24) - 1);
        if (rows_ == 0 || cols_ == 0) return;
        vector_codebooks_shape const& shape = w.shape();
        has_gaps_ = w.columns().positions != nullptr;
        has_scales_ = w.has_scale();
        int block = 0;
        for (int p = 0; p < 2; ++p) block = set_part(p, shape, block);
        blocks_ = round_up(index_t{block}, codes::step_blocks);
        for (int p = 0; p < 2; ++p) {
            codebook_layout const& s = shape.part[p];
            if (s.columns == 0) continue;
            index_t const last = p == 0 && shape.part[1].columns > 0 ? part_[1].first_block : blocks_;
            index_t const indices = (last - part_[p].first_block) * part_[p].vectors * device_panel::block;
            part_[p].codes = carve(indices * part_[p].index_bytes);
            part_[p].residual_codes = carve(indices * part_[p].residual_bytes);
        }
        columns_ = carve(positions() * 4);
        map_ = carve(positions() * 4);
        inverse_map_ = carve(cols_ * 4);
        for (int p = 0; p < 2; ++p) {
            part_[p].centroids = carve(shape.part[p].centroid_count() * 2);
            part_[p].residuals = carve(shape.part[p].residual_count() * 2);
        }
    }
    /// The same elsewhere.
    prepacked at(std::byte const* data) const noexcept {
        prepacked there = *this;
        there.data_ = data;
        return there;
    }

    /// Of a lane's two rows of a panel: neighbours, which one vector has where vectors are even.
    TESSERA_HOST_DEVICE static constexpr int row_of_lane(int g, int half) noexcept { return 2 * g + half; }

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept { return bytes_; }
    TESSERA_HOST_DEVICE constexpr index_t panels() const noexcept { return ceil_div(rows_, 16); }
    TESSERA_HOST_DEVICE constexpr index_t tiles() const noexcept { return ceil_div(rows_, device_panel::tile_rows); }
    TESSERA_HOST_DEVICE constexpr index_t groups() const noexcept { return cols_ > 0; }
    TESSERA_HOST_DEVICE static constexpr int stored_group(int g) noexcept { return g; }
    TESSERA_HOST_DEVICE constexpr index_t stored_groups() const noexcept { return groups(); }
    TESSERA_HOST_DEVICE static constexpr index_t scale_count() noexcept { return 0; }
    TESSERA_HOST_DEVICE constexpr index_t blocks() const noexcept { return blocks_; }
    TESSERA_HOST_DEVICE constexpr index_t positions() const noexcept { return blocks_ * device_panel::block; }
    /// There are scales and biases other than 1 and 0.
    TESSERA_HOST_DEVICE constexpr bool has_scales() const noexcept { return has_scales_; }
    /// There are columns whose position is not their number.
    TESSERA_HOST_DEVICE constexpr bool has_gaps() const noexcept { return has_gaps_; }
    TESSERA_HOST_DEVICE index_t column(index_t position) const noexcept { return index_t{at<std::int32_t>(map_)[position]} - 1; }
    TESSERA_HOST_DEVICE index_t position(index_t k) const noexcept { return at<std::int32_t>(inverse_map_)[k]; }

    /// The part that a block belongs to.
    TESSERA_HOST_DEVICE constexpr part_type const& part(int block) const noexcept { return part_[block >= part_[1].first_block ? 1 : 0]; }
    /// What lies at an offset of the memory.
    template <class T>
    TESSERA_HOST_DEVICE T const* at(index_t offset) const noexcept {
        return reinterpret_cast<T const*>(data_ + offset);
    }
    /// Scale and bias of positions, two numbers of fp16 each.
    TESSERA_HOST_DEVICE std::uint32_t const* columns() const noexcept { return at<std::uint32_t>(columns_); }
    /// W(n, k).
    TESSERA_HOST_DEVICE float value(index_t n, index_t k) const noexcept {
        index_t const p = position(k);
        auto const block = static_cast<int>(p / device_panel::block);
        part_type const& s = part(block);
        index_t const i = s.vector_of(n);
        index_t const code = s.code_of(block, i) + p % device_panel::block;
        index_t const in_vector = n - i * s.vector;
        float v = static_cast<float>(at<fp16>(s.centroids)[((s.group_of(block) << s.index_bits) + index(s.codes, s.index_bytes, code)) * s.vector + in_vector]);
        if (s.residual_bytes > 0)
            v += static_cast<float>(
                at<fp16>(s.residuals)[((s.group_of(block) << s.residual_bits) + index(s.residual_codes, s.residual_bytes, code)) * s.vector + in_vector]);
        std::uint32_t const scale_and_bias = columns()[p];
        return fmaf(static_cast<float>(fp16::from_bits(static_cast<std::uint16_t>(scale_and_bias))), v,
                    static_cast<float>(fp16::from_bits(static_cast<std::uint16_t>(scale_and_bias >> 16))));
    }

    /// Writes what belongs to one tile of 256 rows of `w`; the first one writes what all share. `data` is the whole zeroed memory on the host.
    void pack(vector_codebooks const& w, index_t tile, std::byte* data) const noexcept {
        auto const store = [&](index_t offset, int size, index_t i, std::uint32_t code) {
            auto const two = static_cast<std::uint16_t>(code);
            auto const one = static_cast<std::uint8_t>(code);
            std::memcpy(data + offset + i * size, size == 1 ? static_cast<void const*>(&one) : &two, static_cast<std::size_t>(size));
        };
        for (index_t k = 0; k < cols_; ++k) {
            detail::codebook_place const place = w.place(k);
            codebook_layout const& shape = w.shape().part[place.part];
            part_type const& part = part_[place.part];
            int const block = part.first_block + static_cast<int>(place.group) * part.blocks_of_group + static_cast<int>(place.within / device_panel::block);
            index_t const position = block * device_panel::block + place.within % device_panel::block;
            index_t const first = ceil_div(tile * device_panel::tile_rows, shape.vector);
            index_t const last = minimum(ceil_div((tile + 1) * device_panel::tile_rows, shape.vector), part.vectors);
            for (index_t i = first; i < last; ++i) {
                std::uint32_t const both = w.code(place, i);
                index_t const at = part.code_of(block, i) + position % device_panel::block;
                store(part.codes, part.index_bytes, at, both & ((1u << shape.index_bits) - 1u));
                if (part.residual_bytes > 0) store(part.residual_codes, part.residual_bytes, at, both >> shape.index_bits);
            }
            if (tile != 0) continue;
            std::uint32_t const scale_and_bias = std::uint32_t{fp16{w.scale(k)}.to_bits()} | std::uint32_t{fp16{w.bias(k)}.to_bits()} << 16;
            std::memcpy(data + columns_ + position * 4, &scale_and_bias, 4);
            auto const stored = static_cast<std::int32_t>(k + 1); // 0: padding
            std::memcpy(data + map_ + position * 4, &stored, 4);
            auto const back = static_cast<std::int32_t>(position);
            std::memcpy(data + inverse_map_ + k * 4, &back, 4);
        }
        if (tile != 0 || bytes_ == 0) return;
        for (int p = 0; p < 2; ++p) {
            codebook_layout const& shape = w.shape().part[p];
            if (shape.columns == 0) continue;
            std::memcpy(data + part_[p].centroids, w.part(p).centroids, static_cast<std::size_t>(shape.centroid_count()) * sizeof(fp16));
            if (shape.residual_bits > 0)
                std::memcpy(data + part_[p].residuals, w.part(p).residuals, static_cast<std::size_t>(shape.residual_count()) * sizeof(fp16));
        }
    }

private:
    TESSERA_HOST_DEVICE index_t index(index_t offset, int size, index_t i) const noexcept {
        return size == 1 ? index_t{at<std::uint8_t>(offset)[i]} : index_t{at<std::uint16_t>(offset)[i]};
    }
    /// Returns the first block behind the part.
    int set_part(int p, vector_codebooks_shape const& shape, int block) {
        codebook_layout const& s = shape.part[p];
        part_type& to = part_[p];
        to.first_block = p == 1 && s.columns == 0 ? std::numeric_limits<int>::max() : block;
        if (s.columns == 0) return block;
        index_t const of_group = ceil_div(minimum(s.group_columns, s.columns), device_panel::block);
        index_t const of_last = ceil_div(s.columns_of(s.groups() - 1), device_panel::block);
        bool const is_last = p == 1 || shape.part[1].columns == 0;
        if ((s.groups() > 1 && s.group_columns % device_panel::block != 0) || (!is_last && s.columns % device_panel::block != 0)) has_gaps_ = true;
        to.blocks_of_group = static_cast<int>(of_group);
        to.groups = static_cast<int>(s.groups());
        to.vector = s.vector;
        to.inverse = s.vector == 1 ? 0 : static_cast<std::uint32_t>(ceil_div(index_t{1} << 32, s.vector));
        to.index_bits = s.index_bits;
        to.residual_bits = s.residual_bits;
        to.index_bytes = s.index_bits <= 8 ? 1 : 2;
        to.residual_bytes = s.residual_bits == 0 ? 0 : s.residual_bits <= 8 ? 1 : 2;
        to.vectors = s.vectors(shape.rows);
        return block + static_cast<int>((s.groups() - 1) * of_group + of_last);
    }
    index_t carve(index_t size) noexcept {
        index_t const offset = bytes_;
        bytes_ += round_up(size, 16);
        return offset;
    }

    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t blocks_ = 0;
    index_t bytes_ = 0;
    index_t columns_ = 0;
    index_t map_ = 0;
    index_t inverse_map_ = 0;
    part_type part_[2] = {};
    bool has_gaps_ = false;
    bool has_scales_ = false;
};

namespace detail {

inline void pack_device_tile(vector_codebooks const& w, prepacked<device_panel, vector_codebooks> const& to, index_t tile, std::byte* data) noexcept {
    to.pack(w, tile, data);
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
