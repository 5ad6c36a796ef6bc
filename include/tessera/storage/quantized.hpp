// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `quantized<Scheme>`: a view of a quantised matrix in its canonical, portable form, and `quantized_tensor<Scheme>`, its
/// owner. Three arrays:
///
/// * codes (n, k): bit-packed rows (storage/bitpack.hpp), `row_bytes` apart;
/// * scales (ceil(n / rows), ceil(k / columns)), row-major, `rows` x `columns` being the granularity's block;
/// * zero points, one byte a scale, in the same order; only for affine schemes.

#include "../core/error.hpp"
#include "bitpack.hpp"
#include "buffer.hpp"
#include "scheme.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// Type in which an element format is stored: itself for the 8- and 16-bit value types, float for fp32.
template <class Format>
struct stored_scale {
    using type = Format;
};
template <>
struct stored_scale<fp32> {
    using type = float;
};

/// A quantised matrix (n, k); a view.
template <class Scheme>
class quantized {
public:
    using scheme_type = Scheme;
    using format = typename Scheme::format;
    using scale_type = typename stored_scale<typename Scheme::scale_type>::type;
    using granularity_type = typename Scheme::granularity_type;
    static constexpr int bits = format::bits;

    constexpr quantized() noexcept = default;

    /// Arrays as in the file comment; rows of codes are `bitpack::bytes(k, bits)` apart.
    quantized(std::uint8_t const* codes, scale_type const* scales, std::uint8_t const* zero_points, index_t n, index_t k)
        : codes_{codes}, scales_{scales}, zero_points_{zero_points}, rows_{n}, cols_{k} {
        check::within("quantized", "rows", n, 0, index_t{1} << 48);
        check::within("quantized", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        check::not_null("quantized", "codes", codes, n * k);
        check::not_null("quantized", "scales", scales, scale_rows() * scale_columns());
        if (Scheme::is_affine) check::not_null("quantized", "zero points", zero_points, scale_rows() * scale_columns());
    }

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr index_t row_bytes() const noexcept { return bitpack::bytes(cols_, bits); }
    TESSERA_HOST_DEVICE constexpr index_t scale_rows() const noexcept { return scale_rows(rows_); }
    TESSERA_HOST_DEVICE constexpr index_t scale_columns() const noexcept { return scale_columns(cols_); }

    /// Rows and columns of the array of scales of an (n, k) matrix.
    TESSERA_HOST_DEVICE static constexpr index_t scale_rows(index_t n) noexcept {
        return granularity_type::rows == 0 ? (n > 0) : ceil_div(n, maximum(granularity_type::rows, 1));
    }
    TESSERA_HOST_DEVICE static constexpr index_t scale_columns(index_t k) noexcept {
        return granularity_type::columns == 0 ? (k > 0) : ceil_div(k, maximum(granularity_type::columns, 1));
    }

    TESSERA_HOST_DEVICE constexpr std::uint8_t const* codes() const noexcept { return codes_; }
    TESSERA_HOST_DEVICE constexpr scale_type const* scales() const noexcept { return scales_; }
    TESSERA_HOST_DEVICE constexpr std::uint8_t const* zero_points() const noexcept { return zero_points_; }

    /// Stored bytes: codes, scales, zero points.
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        index_t const per_scale = static_cast<index_t>(sizeof(scale_type)) + (Scheme::is_affine ? 1 : 0);
        return rows_ * row_bytes() + scale_rows() * scale_columns() * per_scale;
    }

    TESSERA_HOST_DEVICE constexpr std::uint32_t code(index_t n, index_t k) const noexcept {
        return bitpack::get<bits>(codes_ + n * row_bytes(), k);
    }
    TESSERA_HOST_DEVICE constexpr index_t scale_index(index_t n, index_t k) const noexcept {
        index_t const i = granularity_type::rows == 0 ? 0 : n / maximum(granularity_type::rows, 1);
        index_t const j = granularity_type::columns == 0 ? 0 : k / maximum(granularity_type::columns, 1);
        return i * scale_columns() + j;
    }
    TESSERA_HOST_DEVICE constexpr float scale(index_t n, index_t k) const noexcept {
        return static_cast<float>(scales_[scale_index(n, k)]);
    }
    TESSERA_HOST_DEVICE constexpr int zero_point(index_t n, index_t k) const noexcept {
        if constexpr (Scheme::is_affine)
            return zero_points_[scale_index(n, k)];
        else
            return 0;
    }

    /// One decoded weight: scale * (value of the code - zero point), in float32; the difference is exact.
    TESSERA_HOST_DEVICE constexpr float operator()(index_t n, index_t k) const noexcept {
        return scale(n, k) * (format::decode(code(n, k)) - static_cast<float>(zero_point(n, k)));
    }

private:
    std::uint8_t const* codes_ = nullptr;
    scale_type const* scales_ = nullptr;
    std::uint8_t const* zero_points_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of a quantised matrix; zero codes and scales until written. A move leaves an empty one.
template <class Scheme>
class quantized_tensor {
public:
    using view_type = quantized<Scheme>;
    using scale_type = typename view_type::scale_type;

    quantized_tensor() noexcept = default;

    quantized_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        check::within("quantized_tensor", "rows", n, 0, index_t{1} << 48);
        check::within("quantized_tensor", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        codes_ = buffer<std::uint8_t>{n * bitpack::bytes(k, view_type::bits)};
        scales_ = buffer<scale_type>{view_type::scale_rows(n) * view_type::scale_columns(k)};
        if (Scheme::is_affine) zero_points_ = buffer<std::uint8_t>{scales_.size()};
        for (std::uint8_t& c : codes_) c = 0;
        for (scale_type& s : scales_) s = scale_type{};
        for (std::uint8_t& z : zero_points_) z = 0;
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    scale_type* scales() noexcept { return scales_.data(); }
    std::uint8_t* zero_points() noexcept { return zero_points_.data(); }

    view_type view() const& { return {codes_.data(), scales_.data(), zero_points_.data(), rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint8_t> codes_;
    buffer<scale_type> scales_;
    buffer<std::uint8_t> zero_points_;
};

namespace detail {

template <class Scheme>
inline constexpr bool is_owner<quantized_tensor<Scheme>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
