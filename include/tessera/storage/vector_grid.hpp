// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `vector_grid<Dims, Bits>`: a view of a matrix (n, k) whose codes of Bits bits stand for Dims neighbours in a row, a point of
/// one grid of 2^Bits points for all, times an fp16 scale of every `group` columns; `vector_grid_tensor`, its owner.
///
///     W(n, i Dims + d) = grid[code(n, i)][d] * scale(n, column / group)                one rounding
///
/// * codes: rows of ceil(k / Dims) codes, least significant bit first (1 to 16 bits), each row from a byte on;
/// * grid: 2^Bits x Dims float32, row-major; any numbers;
/// * scales (n, ceil(k / group)): fp16; group is a multiple of Dims.
///
/// Products take x as it is or in bf16; with 8 bits and two dimensions or more in int8, too, where points are rounded to signed bytes
/// (storage/grid_panels.hpp).
///
/// Every code is valid; a last code of a row whose columns end before it is padding. Where weights were rotated before they were
/// quantised (HIGGS, quant/higgs.hpp) this is the matrix of rotated weights.

#include "../numerics/half.hpp"
#include "bitpack.hpp"
#include "buffer.hpp"
#include "vector_storage.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// Codes of points of a grid; a view.
template <index_t Dims, int Bits>
class vector_grid {
    static_assert(Dims == 1 || Dims == 2 || Dims == 4 || Dims == 8, "tessera: vector_grid<Dims, Bits>: vectors of 1, 2, 4 or 8");
    static_assert(Bits >= 1 && Bits <= 16, "tessera: vector_grid<Dims, Bits>: codes have 1 to 16 bits");

public:
    using is_tile_storage = void;
    using stored_scale = fp16;
    static constexpr int code_bits = Bits;
    static constexpr index_t dims = Dims;
    static constexpr index_t points = index_t{1} << Bits;
    static constexpr detail::table_kind tables = detail::table_kind::tensor;

    constexpr vector_grid() noexcept = default;
    vector_grid(std::uint8_t const* codes, float const* grid, fp16 const* scales, index_t n, index_t k, index_t group)
        : codes_{codes}, grid_{grid}, scales_{scales}, rows_{n}, cols_{k}, group_{group} {
        check_shape(n, k, group);
        check::not_null("vector_grid", "the array of codes", codes, n * k);
        check::not_null("vector_grid", "the grid", grid, n * k);
        check::not_null("vector_grid", "the array of scales", scales, n * k);
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    /// Columns that share a scale.
    constexpr index_t group() const noexcept { return group_; }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, group_); }
    constexpr index_t row_bytes() const noexcept { return row_bytes(cols_); }
    static constexpr index_t row_bytes(index_t k) noexcept { return ceil_div(ceil_div(k, Dims) * Bits, 8); }
    constexpr std::uint8_t const* codes() const noexcept { return codes_; }
    constexpr float const* grid() const noexcept { return grid_; }
    constexpr fp16 const* scales() const noexcept { return scales_; }

    /// Stored bytes: codes and scales; the grid belongs to the format.
    constexpr index_t bytes() const noexcept {
        return rows_ * (row_bytes() + groups() * static_cast<index_t>(sizeof(fp16)));
    }

    std::uint32_t code(index_t n, index_t i) const noexcept { return bitpack::read(codes_ + n * row_bytes(), i * Bits, Bits); }
    void load_codes(index_t n, index_t first, index_t count, std::uint16_t* codes) const noexcept {
        for (index_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint16_t>(code(n, first + i));
    }
    constexpr float table_value(index_t, index_t, std::uint32_t code, int d) const noexcept {
        return grid_[static_cast<index_t>(code) * Dims + d];
    }
    constexpr fp16 scale(index_t n, index_t g) const noexcept { return scales_[n * groups() + g]; }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        detail::decode_lookups(*this, n0, n1, k0, k1, out, stride);
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(codes_, rows_ * row_bytes());
        f(grid_, rows_ * cols_ == 0 ? 0 : points * Dims * static_cast<index_t>(sizeof(float)));
        f(scales_, rows_ * groups() * static_cast<index_t>(sizeof(fp16)));
    }

    static void check_shape(index_t n, index_t k, index_t group) {
        check::within("vector_grid", "rows", n, 0, index_t{1} << 40);
        check::within("vector_grid", "columns", k, 0, minimum(index_t{1} << 40, (index_t{1} << 48) / maximum(n, 1)));
        check::within("vector_grid", "group", group, 1, index_t{1} << 40);
        check::multiple("vector_grid", "group", group, Dims);
    }

private:
    std::uint8_t const* codes_ = nullptr;
    float const* grid_ = nullptr;
    fp16 const* scales_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t group_ = Dims;
};

/// Owner of codes and scales, which are zeros until written; the grid must outlive it. A move leaves an empty one.
template <index_t Dims, int Bits>
class vector_grid_tensor {
public:
    using view_type = vector_grid<Dims, Bits>;

    vector_grid_tensor() noexcept = default;
    vector_grid_tensor(float const* grid, index_t n, index_t k, index_t group) : rows_{n}, cols_{k}, group_{group}, grid_{grid} {
        view_type::check_shape(n, k, group);
        check::not_null("vector_grid_tensor", "the grid", grid, n * k);
        codes_ = buffer<std::uint8_t>{n * view_type::row_bytes(k)};
        scales_ = buffer<fp16>{n * ceil_div(k, group)};
        for (std::uint8_t& c : codes_) c = 0;
        for (fp16& s : scales_) s = fp16{0.0f};
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    fp16* scales() noexcept { return scales_.data(); }
    /// Sets code i of row n.
    void set_code(index_t n, index_t i, std::uint32_t code) noexcept {
        bitpack::write(codes_.data() + n * view_type::row_bytes(cols_), i * Bits, Bits, code);
    }

    view_type view() const& { return {codes_.data(), grid_.get(), scales_.data(), rows_, cols_, maximum(group_, Dims)}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    detail::emptied_by_move<index_t> group_;
    detail::emptied_by_move<float const*> grid_;
    buffer<std::uint8_t> codes_;
    buffer<fp16> scales_;
};

namespace detail {

template <index_t Dims, int Bits>
inline constexpr bool is_owner<vector_grid_tensor<Dims, Bits>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
