// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Matrices as bit planes, for products by xor and popcount (arXiv:2409.17870, bipolar-INT). `bit_planes<Bits>` is a view of a
/// matrix (n, k), `bit_plane_tensor<Bits>` its owner, `pack_bit_planes` makes one of row-scaled integers or bipolar weights.
///
///     w(n, k) = scale(n) * v + offset(n)        v = sum over i of 2^i (2 b_i - 1), b_i bit i of the code
///
/// `bipolar<Bits>` weights need no offset. An integer q in two's complement is v = 2 q + 1 with half the scale and an offset, so
/// that every row-scaled integer format is bit planes, without loss but for the offset's rounding to float32.
///
/// A row is a sequence of chunks of 512 columns, a chunk its Bits planes, lowest first, a plane 8 words of 64 bits: bit b of word
/// j is column 64 j + b. Columns past the end are 0 in every plane, here as in x, so that they never differ. No backend wants
/// another order: placed bit planes are a copy.

#include "../core/error.hpp"
#include "../numerics/bipolar.hpp"
#include "buffer.hpp"
#include "code_source.hpp"

#include <cstdint>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// A preparation: x as `bipolar<Bits>` in bit planes, one scale a row (token), max|x| / (2^Bits - 1). For `bit_planes` alone.
template <int Bits>
struct bipolar_per_token {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: bipolar_per_token<Bits> needs 1 to 8 bits");
};

namespace detail {

template <int Bits>
inline constexpr bool is_preparation<bipolar_per_token<Bits>> = true;

/// Columns and words of a chunk's plane.
inline constexpr index_t plane_columns = 512;
inline constexpr index_t plane_words = plane_columns / 64;

/// Words of a row of k columns in so many planes.
constexpr index_t plane_row_words(index_t k, int bits) noexcept { return ceil_div(k, plane_columns) * plane_words * bits; }

/// Where bit k of plane i is in a row.
constexpr index_t plane_word(index_t k, int i, int bits) noexcept {
    return (k / plane_columns * bits + i) * plane_words + k % plane_columns / 64;
}

} // namespace detail

/// A matrix (n, k) in bit planes; a view.
template <int Bits>
class bit_planes {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: bit_planes<Bits>: needs 1 to 8 bits");

public:
    static constexpr int bits = Bits;
    using format = bipolar<Bits>;

    constexpr bit_planes() noexcept = default;
    /// Arrays as in the file comment; offsets may be null: none.
    bit_planes(std::uint64_t const* words, float const* scales, float const* offsets, index_t n, index_t k)
        : words_{words}, scales_{scales}, offsets_{offsets}, rows_{n}, cols_{k} {
        check::within("bit_planes", "rows", n, 0, index_t{1} << 48);
        check::within("bit_planes", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        check::not_null("bit_planes", "words", words, n * k);
        check::not_null("bit_planes", "scales", scales, n);
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t row_words() const noexcept { return detail::plane_row_words(cols_, Bits); }
    constexpr std::uint64_t const* row(index_t n) const noexcept { return words_ + n * row_words(); }
    constexpr float scale(index_t n) const noexcept { return scales_[n]; }
    constexpr float offset(index_t n) const noexcept { return offsets_ != nullptr ? offsets_[n] : 0.0f; }
    constexpr bool has_offsets() const noexcept { return offsets_ != nullptr; }
    constexpr std::uint64_t const* words() const noexcept { return words_; }
    constexpr float const* scales() const noexcept { return scales_; }
    constexpr float const* offsets() const noexcept { return offsets_; }
    /// Stored bytes: planes, scales, offsets.
    constexpr index_t bytes() const noexcept {
        return rows_ * (row_words() * 8 + (has_offsets() ? 8 : 4));
    }

    /// The unsigned code of a weight.
    constexpr std::uint32_t code(index_t n, index_t k) const noexcept {
        std::uint32_t u = 0;
        for (int i = 0; i < Bits; ++i)
            u |= static_cast<std::uint32_t>(row(n)[detail::plane_word(k, i, Bits)] >> (k % 64) & 1u) << i;
        return u;
    }
    /// One decoded weight.
    constexpr float operator()(index_t n, index_t k) const noexcept {
        return scale(n) * format::decode(code(n, k)) + offset(n);
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(words_, rows_ * row_words() * 8);
        f(scales_, rows_ * 4);
        if (has_offsets()) f(offsets_, rows_ * 4);
    }

private:
    std::uint64_t const* words_ = nullptr;
    float const* scales_ = nullptr;
    float const* offsets_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// What a matrix in bit planes adds to scale * v.
enum class plane_offsets : std::uint8_t {
    none, ///< nothing
    rows, ///< a float a row
};

/// Owner of a matrix in bit planes; zero bits, scales and offsets until written. A move leaves an empty one.
template <int Bits>
class bit_plane_tensor {
public:
    using view_type = bit_planes<Bits>;

    bit_plane_tensor() noexcept = default;
    bit_plane_tensor(index_t n, index_t k, plane_offsets offsets = plane_offsets::none) : rows_{n}, cols_{k} {
        check::within("bit_plane_tensor", "rows", n, 0, index_t{1} << 48);
        check::within("bit_plane_tensor", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
        words_ = buffer<std::uint64_t>{n * detail::plane_row_words(k, Bits)};
        scales_ = buffer<float>{n};
        offsets_ = buffer<float>{offsets == plane_offsets::rows ? n : 0};
        for (std::uint64_t& w : words_) w = 0;
        for (float& s : scales_) s = 0;
        for (float& o : offsets_) o = 0;
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint64_t* words() noexcept { return words_.data(); }
    float* scales() noexcept { return scales_.data(); }
    float* offsets() noexcept { return offsets_.data(); }
    void set(index_t n, index_t k, std::uint32_t code) noexcept {
        for (int i = 0; i < Bits; ++i) {
            std::uint64_t& w = words_.data()[n * detail::plane_row_words(cols_, Bits) + detail::plane_word(k, i, Bits)];
            std::uint64_t const bit = std::uint64_t{1} << (k % 64);
            w = (code >> i & 1u) != 0 ? w | bit : w & ~bit;
        }
    }

    view_type view() const& { return {words_.data(), scales_.data(), offsets_.size() > 0 ? offsets_.data() : nullptr, rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint64_t> words_;
    buffer<float> scales_;
    buffer<float> offsets_;
};

/// Codes with one scale a row (or for the matrix) as bit planes: bipolar weights as they are; integers, symmetric or affine, as
/// scale / 2 * v + offset, where only the offset, scale * (half the codes' range - zero), is rounded.
template <class Scheme>
bit_plane_tensor<Scheme::format::bits> pack_bit_planes(quantized<Scheme> const& w) {
    using format = typename Scheme::format;
    using source = code_source<quantized<Scheme>>;
    constexpr bool is_bipolar = std::is_same_v<format, bipolar<format::bits>>;
    static_assert(is_bipolar || format::is_integer, "tessera: pack_bit_planes takes integer and bipolar formats");
    static_assert(Scheme::granularity_type::columns == 0 && !Scheme::has_two_levels,
                  "tessera: pack_bit_planes needs one scale a row or one for the matrix");
    bit_plane_tensor<format::bits> out{w.rows(), w.cols(), is_bipolar ? plane_offsets::none : plane_offsets::rows};
    for (index_t n = 0; n < w.rows() && w.cols() > 0; ++n) {
        float const scale = w.scale(n, 0);
        out.scales()[n] = is_bipolar ? scale : 0.5f * scale;
        if constexpr (!is_bipolar) {
            float const middle = 0.5f * static_cast<float>((1 << format::bits) - 1);
            out.offsets()[n] = scale * (middle - static_cast<float>(source::zero + w.zero_point(n, 0)));
        }
        for (index_t k = 0; k < w.cols(); ++k) out.set(n, k, is_bipolar ? w.code(n, k) : source::code(w, n, k));
    }
    return out;
}
template <class Scheme>
auto pack_bit_planes(quantized_tensor<Scheme> const& w) {
    return pack_bit_planes(w.view());
}

/// As coded storage, for products with x in float32 and for decoding.
template <int Bits>
struct code_source<bit_planes<Bits>> {
    using storage = bit_planes<Bits>;
    using scale_type = float;
    static constexpr bool is_coded = true;
    static constexpr bool is_integer = false;
    static constexpr int bits = Bits;
    static constexpr int zero = 0;
    static constexpr offset_kind offset = offset_kind::minimum;
    static constexpr index_t group = 0;

    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept { return w.code(n, k); }
    static constexpr float value(std::uint32_t c) noexcept { return bipolar<Bits>::decode(c); }
    static constexpr float scale(storage const& w, index_t n, index_t) noexcept { return w.scale(n); }
    static constexpr float minimum(storage const& w, index_t n, index_t) noexcept { return w.offset(n); }
    static constexpr int zero_point(storage const&, index_t, index_t) noexcept { return 0; }
};

namespace detail {

template <int Bits>
inline constexpr bool is_owner<bit_plane_tensor<Bits>> = true;

template <class T>
struct as_storage;
template <int Bits>
struct as_storage<bit_planes<Bits>> {
    using type = bit_planes<Bits>;
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
