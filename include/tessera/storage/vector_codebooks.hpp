// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `vector_codebooks`: a view of a matrix (n, k) whose codes stand for v neighbours in a column (VPTQ, arXiv:2409.17066), and
/// `vector_codebooks_tensor`, its owner. Columns stand in an order of their own, by importance say: the first ones are outliers with
/// a codebook of theirs, the others lie in equal groups (the last may be shorter) with a codebook each.
///
///     W(n, k) = scale[k] * (C[code][n mod v] + R[residual code][n mod v]) + bias[k]
///
/// sum rounded to float32, then one fused multiply-add; v, C, R are those of the part and group that the column's position is in.
///
/// * codes of a group: ceil(n / v) rows of one number for each column, `residual code << index bits | code`, least significant bit
///   first, each row padded to 32 bits; groups follow each other;
/// * centroids and residuals: fp16 [groups][2^bits][v]; residual bits 0: none;
/// * positions (k): int32, each of 0 to k - 1 once; null: columns stand in their order;
/// * scale, bias (k): fp16; null: 1 and 0.
///
/// Every code is valid; rows at and beyond n in a last vector are padding. Vectors have 1 to 32 numbers, indices 1 to 16 bits.

#include "../numerics/half.hpp"
#include "bitpack.hpp"
#include "buffer.hpp"
#include "vector_storage.hpp"

#include <cmath>
#include <cstdint>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// How a part of the columns is coded.
struct codebook_layout {
    index_t columns = 0;       ///< of the part
    index_t group_columns = 1; ///< that share a codebook
    int vector = 8;            ///< rows of a code
    int index_bits = 8;
    int residual_bits = 0;

    constexpr index_t groups() const noexcept { return ceil_div(columns, group_columns); }
    constexpr index_t centroid_count() const noexcept { return columns == 0 ? 0 : groups() * vector << index_bits; }
    constexpr index_t residual_count() const noexcept { return columns == 0 || residual_bits == 0 ? 0 : groups() * vector << residual_bits; }
    constexpr index_t vectors(index_t n) const noexcept { return ceil_div(n, vector); }
    /// Bytes of a row of codes of `count` columns.
    constexpr index_t row_bytes(index_t count) const noexcept { return ceil_div(count * (index_bits + residual_bits), 32) * 4; }
    /// Columns of group g.
    constexpr index_t columns_of(index_t g) const noexcept { return minimum(group_columns, columns - g * group_columns); }
    constexpr index_t code_bytes(index_t n) const noexcept {
        if (columns == 0) return 0;
        return vectors(n) * ((groups() - 1) * row_bytes(group_columns) + row_bytes(columns_of(groups() - 1)));
    }
};

/// The shape of a matrix of vector codes: its outliers, and the others.
struct vector_codebooks_shape {
    index_t rows = 0;
    codebook_layout part[2]; ///< outliers, the rest
    constexpr index_t cols() const noexcept { return part[0].columns + part[1].columns; }
};

namespace detail {

/// A column's part, group, and place in the group.
struct codebook_place {
    int part;
    index_t group;
    index_t within;
};

constexpr codebook_place codebook_place_of(vector_codebooks_shape const& s, index_t position) noexcept {
    int const part = position < s.part[0].columns ? 0 : 1;
    index_t const at = position - (part == 0 ? 0 : s.part[0].columns);
    return {part, at / s.part[part].group_columns, at % s.part[part].group_columns};
}

inline void check_codebooks(vector_codebooks_shape const& s) {
    check::within("vector_codebooks", "rows", s.rows, 0, index_t{1} << 40);
    for (codebook_layout const& p : s.part) {
        check::within("vector_codebooks", "columns of a part", p.columns, 0, minimum(index_t{1} << 31, (index_t{1} << 44) / maximum(s.rows, 1)) - 1);
        check::within("vector_codebooks", "columns of a group", p.group_columns, 1, index_t{1} << 31);
        check::within("vector_codebooks", "numbers of a vector", p.vector, 1, 32);
        check::within("vector_codebooks", "bits of an index", p.index_bits, 1, 16);
        check::within("vector_codebooks", "bits of a residual index", p.residual_bits, 0, 16);
    }
    // A placed column takes at most 64 bytes of a panel (storage/vector_panels.hpp), whose offsets have 32 bits.
    check::within("vector_codebooks", "columns", s.cols(), 0, (index_t{1} << 26) - 1);
}

} // namespace detail

/// See the file comment.
class vector_codebooks {
public:
    using is_tile_storage = void;
    /// The arrays of a part; see the file comment.
    struct part_data {
        std::uint8_t const* codes = nullptr;
        fp16 const* centroids = nullptr;
        fp16 const* residuals = nullptr;
    };
    struct column_data {
        std::int32_t const* positions = nullptr;
        fp16 const* scale = nullptr;
        fp16 const* bias = nullptr;
    };

    constexpr vector_codebooks() noexcept = default;
    /// Checks shapes and positions. O(k).
    vector_codebooks(vector_codebooks_shape const& shape, part_data const& outliers, part_data const& rest, column_data const& columns)
        : shape_{shape}, part_{outliers, rest}, columns_{columns} {
        detail::check_codebooks(shape);
        for (int p = 0; p < 2; ++p) {
            check::not_null("vector_codebooks", "the array of codes", part_[p].codes, shape.part[p].code_bytes(shape.rows));
            check::not_null("vector_codebooks", "the array of centroids", part_[p].centroids, shape.part[p].centroid_count());
            check::not_null("vector_codebooks", "the array of residuals", part_[p].residuals, shape.part[p].residual_count());
        }
        if ((columns.scale == nullptr) != (columns.bias == nullptr))
            detail::raise<shape_error>("tessera: vector_codebooks: there is a scale or a bias alone, expected both or none of 2 arrays");
        if (columns.positions != nullptr) check_positions();
    }

    constexpr index_t rows() const noexcept { return shape_.rows; }
    constexpr index_t cols() const noexcept { return shape_.cols(); }
    constexpr vector_codebooks_shape const& shape() const noexcept { return shape_; }
    constexpr part_data const& part(int p) const noexcept { return part_[p]; }
    constexpr column_data const& columns() const noexcept { return columns_; }
    constexpr bool has_scale() const noexcept { return columns_.scale != nullptr; }
    float scale(index_t k) const noexcept { return has_scale() ? static_cast<float>(columns_.scale[k]) : 1.0f; }
    float bias(index_t k) const noexcept { return has_scale() ? static_cast<float>(columns_.bias[k]) : 0.0f; }
    /// Where column k stands.
    detail::codebook_place place(index_t k) const noexcept {
        return detail::codebook_place_of(shape_, columns_.positions == nullptr ? k : columns_.positions[k]);
    }
    /// residual code << index bits | code of a vector of a column.
    std::uint32_t code(detail::codebook_place const& at, index_t vector) const noexcept {
        codebook_layout const& s = shape_.part[at.part];
        int const bits = s.index_bits + s.residual_bits;
        index_t const row_bytes = s.row_bytes(s.columns_of(at.group));
        std::uint8_t const* const row = part_[at.part].codes + at.group * s.vectors(rows()) * s.row_bytes(s.group_columns) + vector * row_bytes;
        return bitpack::read(row, at.within * bits, bits);
    }
    fp16 const* centroid(int p, index_t group, std::uint32_t code) const noexcept {
        codebook_layout const& s = shape_.part[p];
        return part_[p].centroids + ((group << s.index_bits) + static_cast<index_t>(code)) * s.vector;
    }
    fp16 const* residual(int p, index_t group, std::uint32_t code) const noexcept {
        codebook_layout const& s = shape_.part[p];
        return part_[p].residuals + ((group << s.residual_bits) + static_cast<index_t>(code)) * s.vector;
    }

    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        for (index_t k = k0; k < k1; ++k) {
            auto const at = place(k);
            codebook_layout const& s = shape_.part[at.part];
            for (index_t n = n0; n < n1; ++n) {
                std::uint32_t const both = code(at, n / s.vector);
                float value = static_cast<float>(centroid(at.part, at.group, both & ((1u << s.index_bits) - 1u))[n % s.vector]);
                if (s.residual_bits > 0) value += static_cast<float>(residual(at.part, at.group, both >> s.index_bits)[n % s.vector]);
                out[(n - n0) * stride + k - k0] = has_scale() ? std::fma(scale(k), value, bias(k)) : value;
            }
        }
    }

    /// Stored bytes of all arrays.
    index_t bytes() const noexcept {
        index_t total = 0;
        for_each_array([&](void const*, index_t size) { total += size; });
        return total;
    }
    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        for (int p = 0; p < 2; ++p) {
            f(part_[p].codes, shape_.part[p].code_bytes(rows()));
            f(part_[p].centroids, shape_.part[p].centroid_count() * static_cast<index_t>(sizeof(fp16)));
            f(part_[p].residuals, shape_.part[p].residual_count() * static_cast<index_t>(sizeof(fp16)));
        }
        f(columns_.positions, columns_.positions == nullptr ? 0 : cols() * static_cast<index_t>(sizeof(std::int32_t)));
        for (fp16 const* a : {columns_.scale, columns_.bias}) f(a, a == nullptr ? 0 : cols() * static_cast<index_t>(sizeof(fp16)));
    }

private:
    void check_positions() const {
        buffer<std::uint8_t> seen{cols()};
        for (std::uint8_t& s : seen) s = 0;
        for (index_t k = 0; k < cols(); ++k) {
            index_t const at = columns_.positions[k];
            if (at < 0 || at >= cols() || seen[at] != 0)
                detail::raise<shape_error>("tessera: vector_codebooks: the position of column " + std::to_string(k) + " is " +
                                           std::to_string(at) + ", expected each of 0 to " + std::to_string(cols() - 1) + " once");
            seen[at] = 1;
        }
    }

    vector_codebooks_shape shape_{};
    part_data part_[2]{};
    column_data columns_{};
};

/// Owner of vector codes; zeros until written, columns in their order, scales 1. A move leaves an empty one.
class vector_codebooks_tensor {
public:
    using view_type = vector_codebooks;

    vector_codebooks_tensor() noexcept = default;
    explicit vector_codebooks_tensor(vector_codebooks_shape const& shape) : shape_{shape} {
        detail::check_codebooks(shape);
        for (int p = 0; p < 2; ++p) {
            codes_[p] = buffer<std::uint8_t>{shape.part[p].code_bytes(shape.rows)};
            centroids_[p] = buffer<fp16>{shape.part[p].centroid_count()};
            residuals_[p] = buffer<fp16>{shape.part[p].residual_count()};
            for (std::uint8_t& c : codes_[p]) c = 0;
            for (fp16& c : centroids_[p]) c = fp16{0.0f};
            for (fp16& c : residuals_[p]) c = fp16{0.0f};
        }
        positions_ = buffer<std::int32_t>{shape.cols()};
        scale_ = buffer<fp16>{shape.cols()};
        bias_ = buffer<fp16>{shape.cols()};
        for (index_t k = 0; k < shape.cols(); ++k) {
            positions_[k] = static_cast<std::int32_t>(k);
            scale_[k] = fp16{1.0f};
            bias_[k] = fp16{0.0f};
        }
    }

    index_t rows() const noexcept { return shape_.get().rows; }
    index_t cols() const noexcept { return shape_.get().cols(); }
    index_t bytes() const { return view().bytes(); }
    vector_codebooks_shape const& shape() const noexcept { return shape_.get(); }
    fp16* centroids(int p) noexcept { return centroids_[p].data(); }
    fp16* residuals(int p) noexcept { return residuals_[p].data(); }
    std::int32_t* positions() noexcept { return positions_.data(); }
    fp16* scale() noexcept { return scale_.data(); }
    fp16* bias() noexcept { return bias_.data(); }
    /// Sets the code of a vector of the column at `at`.
    void set_code(detail::codebook_place const& at, index_t vector, std::uint32_t code) noexcept {
        codebook_layout const& s = shape_.get().part[at.part];
        int const bits = s.index_bits + s.residual_bits;
        std::uint8_t* const row = codes_[at.part].data() + at.group * s.vectors(rows()) * s.row_bytes(s.group_columns) +
                                  vector * s.row_bytes(s.columns_of(at.group));
        bitpack::write(row, at.within * bits, bits, code);
    }

    view_type view() const& {
        return {shape_.get(),
                {codes_[0].data(), centroids_[0].data(), residuals_[0].data()},
                {codes_[1].data(), centroids_[1].data(), residuals_[1].data()},
                {positions_.data(), scale_.data(), bias_.data()}};
    }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<vector_codebooks_shape> shape_;
    buffer<std::uint8_t> codes_[2];
    buffer<fp16> centroids_[2];
    buffer<fp16> residuals_[2];
    buffer<std::int32_t> positions_;
    buffer<fp16> scale_;
    buffer<fp16> bias_;
};

namespace detail {

template <>
inline constexpr bool is_owner<vector_codebooks_tensor> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
