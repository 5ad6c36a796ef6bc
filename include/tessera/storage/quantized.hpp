// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `quantized<Scheme>`: a view of a quantised matrix in its canonical, portable form, and `quantized_tensor<Scheme>`, its
/// owner. Three arrays, or four:
///
/// * codes (n, k): bit-packed rows (storage/bitpack.hpp), `row_bytes` apart;
/// * scales (ceil(n / rows), ceil(k / columns)), row-major, `rows` x `columns` being the granularity's block; formats of less
///   than a byte take one;
/// * super scales in the same way, by the super granularity; only where scales have two levels;
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
    using scale_levels = detail::scale_levels<typename Scheme::scale_type>;
    using scale_type = typename stored_scale<typename scale_levels::lower>::type;
    using super_scale_type = typename stored_scale<typename scale_levels::upper>::type;
    using granularity_type = typename Scheme::granularity_type;
    using super_granularity_type = typename scale_levels::upper_granularity;
    static constexpr int bits = format::bits;

    constexpr quantized() noexcept = default;

    /// Arrays as in the file comment; rows of codes are `bitpack::bytes(k, bits)` apart.
    quantized(std::uint8_t const* codes, scale_type const* scales, std::uint8_t const* zero_points, index_t n, index_t k)
        requires(!Scheme::has_two_levels)
        : quantized{codes, scales, nullptr, zero_points, n, k} {}
    /// The same with super scales: null where scales have one level.
    quantized(std::uint8_t const* codes, scale_type const* scales, super_scale_type const* super_scales,
              std::uint8_t const* zero_points, index_t n, index_t k)
        : codes_{codes}, scales_{scales}, super_scales_{super_scales}, zero_points_{zero_points}, rows_{n}, cols_{k} {
        check::within("quantized", "rows", n, 0, index_t{1} << 48);
        check::within("quantized", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        check::not_null("quantized", "codes", codes, n * k);
        check::not_null("quantized", "scales", scales, scale_rows() * scale_columns());
        if (Scheme::has_two_levels) check::not_null("quantized", "super scales", super_scales, super_scale_count(n, k));
        if (Scheme::is_affine) check::not_null("quantized", "zero points", zero_points, scale_rows() * scale_columns());
    }

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr index_t row_bytes() const noexcept { return bitpack::bytes(cols_, bits); }
    TESSERA_HOST_DEVICE constexpr index_t scale_rows() const noexcept { return scale_rows(rows_); }
    TESSERA_HOST_DEVICE constexpr index_t scale_columns() const noexcept { return scale_columns(cols_); }

    /// Rows and columns of the array of scales of an (n, k) matrix.
    TESSERA_HOST_DEVICE static constexpr index_t scale_rows(index_t n) noexcept { return blocks(n, granularity_type::rows); }
    TESSERA_HOST_DEVICE static constexpr index_t scale_columns(index_t k) noexcept {
        return blocks(k, granularity_type::columns);
    }
    /// Super scales of an (n, k) matrix; 0 where scales have one level.
    TESSERA_HOST_DEVICE static constexpr index_t super_scale_count(index_t n, index_t k) noexcept {
        return Scheme::has_two_levels ? blocks(n, super_granularity_type::rows) * blocks(k, super_granularity_type::columns) : 0;
    }

    TESSERA_HOST_DEVICE constexpr std::uint8_t const* codes() const noexcept { return codes_; }
    TESSERA_HOST_DEVICE constexpr scale_type const* scales() const noexcept { return scales_; }
    /// Null where scales have one level.
    TESSERA_HOST_DEVICE constexpr super_scale_type const* super_scales() const noexcept { return super_scales_; }
    TESSERA_HOST_DEVICE constexpr std::uint8_t const* zero_points() const noexcept { return zero_points_; }

    /// Stored bytes: codes, scales, super scales, zero points.
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        index_t const per_scale = static_cast<index_t>(sizeof(scale_type)) + (Scheme::is_affine ? 1 : 0);
        return rows_ * row_bytes() + scale_rows() * scale_columns() * per_scale +
               super_scale_count(rows_, cols_) * static_cast<index_t>(sizeof(super_scale_type));
    }
    /// f(pointer, bytes) for each of the arrays that there are.
    template <class F>
    void for_each_array(F const& f) const {
        index_t const scales = scale_rows() * scale_columns();
        f(codes_, rows_ * row_bytes());
        f(scales_, scales * static_cast<index_t>(sizeof(scale_type)));
        if constexpr (Scheme::has_two_levels)
            f(super_scales_, super_scale_count(rows_, cols_) * static_cast<index_t>(sizeof(super_scale_type)));
        if constexpr (Scheme::is_affine) f(zero_points_, scales);
    }

    TESSERA_HOST_DEVICE constexpr std::uint32_t code(index_t n, index_t k) const noexcept {
        return bitpack::get<bits>(codes_ + n * row_bytes(), k);
    }
    TESSERA_HOST_DEVICE constexpr index_t scale_index(index_t n, index_t k) const noexcept {
        return block_of(n, granularity_type::rows) * scale_columns() + block_of(k, granularity_type::columns);
    }
    TESSERA_HOST_DEVICE constexpr index_t super_scale_index(index_t n, index_t k) const noexcept {
        return block_of(n, super_granularity_type::rows) * blocks(cols_, super_granularity_type::columns) +
               block_of(k, super_granularity_type::columns);
    }
    /// The scale of an element; of two levels their product.
    TESSERA_HOST_DEVICE constexpr float scale(index_t n, index_t k) const noexcept {
        auto const lower = static_cast<float>(scales_[scale_index(n, k)]);
        if constexpr (Scheme::has_two_levels)
            return static_cast<float>(super_scales_[super_scale_index(n, k)]) * lower;
        else
            return lower;
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
    /// Blocks of `each` that cover `size`, and the one that i is in; 0: everything is one.
    TESSERA_HOST_DEVICE static constexpr index_t blocks(index_t size, index_t each) noexcept {
        return each == 0 ? (size > 0) : ceil_div(size, maximum(each, 1));
    }
    TESSERA_HOST_DEVICE static constexpr index_t block_of(index_t i, index_t each) noexcept {
        return each == 0 ? 0 : i / maximum(each, 1);
    }

    std::uint8_t const* codes_ = nullptr;
    scale_type const* scales_ = nullptr;
    super_scale_type const* super_scales_ = nullptr;
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
    using super_scale_type = typename view_type::super_scale_type;

    quantized_tensor() noexcept = default;

    quantized_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        check::within("quantized_tensor", "rows", n, 0, index_t{1} << 48);
        check::within("quantized_tensor", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        codes_ = buffer<std::uint8_t>{n * bitpack::bytes(k, view_type::bits)};
        scales_ = buffer<scale_type>{view_type::scale_rows(n) * view_type::scale_columns(k)};
        if (Scheme::is_affine) zero_points_ = buffer<std::uint8_t>{scales_.size()};
        for (std::uint8_t& c : codes_) c = 0;
        for (scale_type& s : scales_) s = scale_type{};
        if (Scheme::has_two_levels) super_scales_ = buffer<super_scale_type>{view_type::super_scale_count(n, k)};
        for (super_scale_type& s : super_scales_) s = super_scale_type{};
        for (std::uint8_t& z : zero_points_) z = 0;
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    scale_type* scales() noexcept { return scales_.data(); }
    super_scale_type* super_scales() noexcept { return super_scales_.data(); }
    std::uint8_t* zero_points() noexcept { return zero_points_.data(); }

    view_type view() const& {
        return {codes_.data(), scales_.data(), super_scales_.data(), zero_points_.data(), rows_, cols_};
    }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint8_t> codes_;
    buffer<scale_type> scales_;
    buffer<super_scale_type> super_scales_;
    buffer<std::uint8_t> zero_points_;
};

namespace detail {

template <class Scheme>
inline constexpr bool is_owner<quantized_tensor<Scheme>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
