// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Grids of 256 points in panels whose products are integer ones: `prepacked<grid_panels, Storage>`. Such a product rounds the
/// points to signed bytes of one unit,
///
///     unit = max |grid| / 127        q[c][d] = round_half_even(grid[c][d] * (127 / max |grid|))        W = q * unit * scale
///
/// (all 0 where 127 / max is not finite; a grid that is not finite has unit NaN): its error, unit^2 / 12 a weight for points of variance 1, is
/// a hundredth of that of the best grid of 256 points in the plane. First, once:
///
///     grid: 256 x dims floats | q: dims x 256 | q + 128 in quads of four components: dims / 4 x 256 x 4 | unit
///
/// where a quad of entry 64 b + 4 l + i is in register 4 b + i, lane l, of 16 lanes, and components that do not exist are 0. Then
/// panels of 64 rows: scales, groups x 64 | codes, ceil(k / dims) x 64. Row 16 i + 4 l + t is byte 16 l + 4 i + t: bytes of four
/// columns that are interleaved within 128 bits become registers of 16 rows by four columns. Missing rows have code and scale 0.

#include "prepacked.hpp"
#include "vector_storage.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// Panels of 64 rows of one-byte codes.
struct grid_panels {
    static constexpr index_t rows = 64;
};

namespace detail {

/// How points become signed bytes.
struct grid_rounding {
    float unit = 0;
    float inverse = 0;

    template <class Storage>
    static grid_rounding of(Storage const& w) noexcept {
        float largest = 0;
        for (std::uint32_t c = 0; c < 256; ++c)
            for (int d = 0; d < static_cast<int>(Storage::dims); ++d) {
                float const v = std::fabs(w.table_value(0, 0, c, d));
                largest = !(v <= std::numeric_limits<float>::max()) ? std::numeric_limits<float>::quiet_NaN() : v > largest ? v : largest;
                if (largest != largest) return {largest, 0.0f};
            }
        float const inverse = 127.0f / largest;
        bool const usable = inverse <= std::numeric_limits<float>::max();
        return {usable ? largest / 127.0f : 0.0f, usable ? inverse : 0.0f};
    }
    int operator()(float v) const noexcept { return inverse == 0.0f ? 0 : static_cast<int>(std::nearbyint(v * inverse)); }
};

/// The weights of an integer product, by definition: out[k] = W(n, k).
template <byte_grid_storage Storage>
void decode_rounded_row(Storage const& w, index_t n, double* out) noexcept {
    grid_rounding const round = grid_rounding::of(w);
    for (index_t k = 0; k < w.cols(); ++k) {
        std::uint16_t code;
        w.load_codes(n, k / Storage::dims, 1, &code);
        double const q = round(w.table_value(0, 0, code, static_cast<int>(k % Storage::dims)));
        out[k] = q * static_cast<double>(round.unit) * static_cast<double>(static_cast<float>(w.scale(n, k / w.group())));
    }
}

} // namespace detail

/// One-byte codes of a grid in panels; see the file comment. A view.
template <detail::byte_grid_storage Storage>
class prepacked<grid_panels, Storage> {
public:
    using is_tile_storage = void;
    using layout = grid_panels;
    using storage = Storage;
    using stored_scale = typename Storage::stored_scale;
    static constexpr int code_bits = 8;
    static constexpr index_t dims = Storage::dims;
    static constexpr detail::table_kind tables = detail::table_kind::tensor;
    static constexpr index_t panel_rows = grid_panels::rows;
    /// Quads that hold a point.
    static constexpr index_t quads = ceil_div(dims, 4);

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, Storage const& shape) noexcept
        : data_{data}, rows_{shape.rows()}, cols_{shape.cols()}, group_{shape.group()} {}
    constexpr prepacked(std::byte const* data, prepacked const& shape) noexcept : prepacked{shape} { data_ = data; }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t group() const noexcept { return group_; }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, group_); }
    constexpr index_t vectors() const noexcept { return ceil_div(cols_, dims); }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t panels() const noexcept { return cols_ == 0 ? 0 : ceil_div(rows_, panel_rows); }
    static constexpr index_t bytes_offset = 256 * dims * static_cast<index_t>(sizeof(float));
    static constexpr index_t quads_offset = bytes_offset + 256 * dims;
    static constexpr index_t unit_offset = quads_offset + 1024 * quads;
    static constexpr index_t all_shared_bytes = unit_offset + 64;
    constexpr index_t shared_bytes() const noexcept { return panels() == 0 ? 0 : all_shared_bytes; }
    constexpr index_t code_offset() const noexcept { return groups() * panel_rows * static_cast<index_t>(sizeof(stored_scale)); }
    constexpr index_t panel_bytes() const noexcept { return cols_ == 0 ? 0 : code_offset() + vectors() * panel_rows; }
    constexpr index_t bytes() const noexcept { return shared_bytes() + panels() * panel_bytes(); }
    constexpr std::byte const* panel_data(index_t p) const noexcept { return data_ + shared_bytes() + p * panel_bytes(); }
    /// Where a row's code is among those of its panel.
    static constexpr index_t place(index_t row) noexcept { return row % 16 / 4 * 16 + row / 16 * 4 + row % 4; }

    // The layout's definition.
    void load_codes(index_t n, index_t first, index_t count, std::uint16_t* codes) const noexcept {
        std::byte const* const at = panel_data(n / panel_rows) + code_offset() + place(n % panel_rows);
        for (index_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint16_t>(at[(first + i) * panel_rows]);
    }
    float table_value(index_t, index_t, std::uint32_t code, int d) const noexcept {
        return reinterpret_cast<float const*>(data_)[static_cast<index_t>(code) * dims + d];
    }
    stored_scale scale(index_t n, index_t g) const noexcept {
        return reinterpret_cast<stored_scale const*>(panel_data(n / panel_rows))[g * panel_rows + n % panel_rows];
    }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        detail::decode_lookups(*this, n0, n1, k0, k1, out, stride);
    }
    template <class F>
    void for_each_array(F const& f) const {
        f(data_, bytes());
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t group_ = dims;
};

/// Writes what all panels share.
template <class Storage>
void pack_shared(Storage const& w, prepacked<grid_panels, Storage> const& packed, std::byte* out) noexcept {
    using target = prepacked<grid_panels, Storage>;
    if (packed.panels() == 0) return;
    detail::grid_rounding const round = detail::grid_rounding::of(w);
    std::memset(out, 0, static_cast<std::size_t>(target::all_shared_bytes));
    auto* const grid = reinterpret_cast<float*>(out);
    for (index_t c = 0; c < 256; ++c)
        for (index_t d = 0; d < target::dims; ++d) {
            float const v = w.table_value(0, 0, static_cast<std::uint32_t>(c), static_cast<int>(d));
            int const q = round(v);
            grid[c * target::dims + d] = v;
            out[target::bytes_offset + 256 * d + c] = static_cast<std::byte>(q & 0xff);
            index_t const at = c / 64 * 64 + c % 4 * 16 + c % 64 / 4;
            out[target::quads_offset + d / 4 * 1024 + at * 4 + d % 4] = static_cast<std::byte>(q + 128);
        }
    std::memcpy(out + target::unit_offset, &round.unit, sizeof round.unit);
}

/// Writes panel p at `out`.
template <class Storage>
void pack_panel(Storage const& w, prepacked<grid_panels, Storage> const& packed, index_t p, std::byte* out) noexcept {
    using target = prepacked<grid_panels, Storage>;
    using scale_type = typename target::stored_scale;
    auto* const scales = reinterpret_cast<scale_type*>(out);
    std::byte* const codes = out + packed.code_offset();
    for (index_t r = 0; r < target::panel_rows; ++r) {
        index_t const n = p * target::panel_rows + r;
        bool const exists = n < w.rows();
        for (index_t g = 0; g < packed.groups(); ++g)
            scales[g * target::panel_rows + r] = exists ? w.scale(n, g) : static_cast<scale_type>(0.0f);
        std::byte* const at = codes + target::place(r);
        for (index_t first = 0; first < packed.vectors(); first += 32) {
            std::uint16_t code[32] = {};
            index_t const count = minimum(32, packed.vectors() - first);
            if (exists) w.load_codes(n, first, count, code);
            for (index_t i = 0; i < count; ++i) at[(first + i) * target::panel_rows] = static_cast<std::byte>(code[i]);
        }
    }
}

} // namespace tessera::inline TESSERA_ABI
