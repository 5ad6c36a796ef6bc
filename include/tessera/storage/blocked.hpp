// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `blocked<Format>`: a matrix of weights stored as blocks along k, in the byte layout that GGUF files carry. The formats are
/// described in block_formats.hpp (q4_0 to q8_0), k_formats.hpp (q2_k to q8_k), ternary_formats.hpp (q2_0, tq1_0, tq2_0),
/// table_formats.hpp (q1_0, iq4_nl, iq4_xs, gguf_mxfp4, gguf_nvfp4) and grid_formats.hpp (iq1_s to iq3_s).

#include "../core/error.hpp"
#include "../core/types.hpp"
#include "block_formats.hpp"
#include "buffer.hpp"
#include "grid_formats.hpp"
#include "k_formats.hpp"
#include "table_formats.hpp"
#include "ternary_formats.hpp"

#include <cstring>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// A matrix (n, k) of blocks along k; a view. k is a multiple of the block size.
template <block_format Format>
class blocked {
public:
    using format = Format;
    using block = typename Format::block;

    constexpr blocked() noexcept = default;

    /// Contiguous rows.
    blocked(block const* data, index_t n, index_t k) : blocked{data, n, k, k / Format::block_size} {}

    /// Rows that begin `row_stride` blocks apart.
    blocked(block const* data, index_t n, index_t k, index_t row_stride)
        : data_{data}, rows_{n}, cols_{k}, row_stride_{row_stride} {
        constexpr index_t most = std::numeric_limits<index_t>::max() / static_cast<index_t>(sizeof(block));
        check::within("blocked", "rows", n, 0, most);
        check::within("blocked", "columns", k, 0, most);
        check::multiple("blocked", "columns", k, Format::block_size);
        if (n > 1) check::within("blocked", "row stride", row_stride, k / Format::block_size, most / n);
        check::not_null("blocked", "data", data, n == 0 ? 0 : k);
    }

    TESSERA_HOST_DEVICE constexpr block const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    /// blocks from the beginning of one row to that of the next
    TESSERA_HOST_DEVICE constexpr index_t row_stride() const noexcept { return row_stride_; }
    TESSERA_HOST_DEVICE constexpr index_t blocks_per_row() const noexcept { return cols_ / Format::block_size; }
    /// stored bytes, without what a stride skips
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        return rows_ * blocks_per_row() * static_cast<index_t>(sizeof(block));
    }
    TESSERA_HOST_DEVICE constexpr block const* row(index_t i) const noexcept { return data_ + i * row_stride_; }

    /// One decoded weight.
    TESSERA_HOST_DEVICE constexpr float operator()(index_t n, index_t k) const noexcept {
        return Format::decode(row(n)[k / Format::block_size], static_cast<int>(k % Format::block_size));
    }

private:
    block const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
    index_t row_stride_ = 0;
};

/// Owner of a matrix of blocks; zero bytes until written. A move leaves an empty one.
template <block_format Format>
class blocked_tensor {
public:
    using view_type = blocked<Format>;
    using block = typename Format::block;

    blocked_tensor() noexcept = default;
    blocked_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        check::within("blocked_tensor", "rows", n, 0, index_t{1} << 48);
        check::within("blocked_tensor", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        check::multiple("blocked_tensor", "columns", k, Format::block_size);
        blocks_ = buffer<block>{n * (k / Format::block_size)};
        if (blocks_.size() > 0) std::memset(static_cast<void*>(blocks_.data()), 0, static_cast<std::size_t>(blocks_.bytes()));
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const noexcept { return blocks_.bytes(); }
    block* row(index_t n) noexcept { return blocks_.data() + n * (cols_ / Format::block_size); }

    view_type view() const& { return {blocks_.data(), rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<block> blocks_;
};

namespace detail {

template <class Format>
inline constexpr bool is_owner<blocked_tensor<Format>> = true;

} // namespace detail

/// Rows [first, last).
template <block_format Format>
blocked<Format> rows(blocked<Format> const& w, index_t first, index_t last) {
    check::within("rows", "last", last, 0, w.rows());
    check::within("rows", "first", first, 0, last);
    return {w.row(first), last - first, w.cols(), w.row_stride()};
}

/// Columns [first, last); both are multiples of the block size.
template <block_format Format>
blocked<Format> columns(blocked<Format> const& w, index_t first, index_t last) {
    check::within("columns", "last", last, 0, w.cols());
    check::within("columns", "first", first, 0, last);
    check::multiple("columns", "first", first, Format::block_size);
    return {w.data() + first / Format::block_size, w.rows(), last - first, w.row_stride()};
}

/// y = the k values of a row of blocks; k is a multiple of the block size.
template <block_format Format>
void decode_row(typename Format::block const* blocks, index_t k, float* y) {
    check::multiple("decode_row", "k", k, Format::block_size);
    for (index_t i = 0; i < k; ++i)
        y[i] = Format::decode(blocks[i / Format::block_size], static_cast<int>(i % Format::block_size));
}

/// The blocks of k values; k is a multiple of the block size.
template <block_format Format>
void encode_row(float const* x, index_t k, typename Format::block* blocks) {
    check::multiple("encode_row", "k", k, Format::block_size);
    for (index_t b = 0; b < k / Format::block_size; ++b) Format::encode(x + b * Format::block_size, blocks[b]);
}

} // namespace tessera::inline TESSERA_ABI
