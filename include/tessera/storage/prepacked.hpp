// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed storage (contract 9): the same codes and scales as the canonical form, in the order in which a kernel reads
/// them, as one stream. `prepacked<panel<R, D>, Storage>` is a view, `prepacked_tensor` its owner; `place` makes them.
/// Codes are moved, never requantised.
///
/// **panel<R, 4>, coded storage.** Panels of R rows (R = float lanes of the architecture), each a sequence of records:
///
///     for each super group: R super scales | R super minima (if the format has them)
///     for each group: R scales | R minima or R zero points (if the format has them)
///     for each group: codes
///
/// A record is as few groups of columns, whole super groups where scales have two levels, as make its head, what is before the
/// codes, whole vectors of 4 R bytes: every vector of codes is then aligned, and none is read from two cache lines. A head that no
/// number of groups makes whole (that of a row) is padded with 0; the last record has a whole head and the codes there are.
/// Super scales of rows, and of more than 16 groups, stand, padded, once before the records, as many as the row has super groups.
/// Where the R rows of every panel share their scales (blocks of rows, a multiple of R), a group's header is one scale and one zero
/// point, padded to R bytes; where they share their super scales, one of these stands for them all.
///
/// Groups of 16 columns under integers of two levels (Q2_K, Q3_K, Q6_K) share strips of codes, and a group's scale and minimum
/// a byte: scale + 16 minimum.
///
/// Codes are placed in planes of 8, 4, 2 and 1 bits (`code_planes`: 6 bits as 4 + 2), the widest with the lowest bits. They
/// come in strips of as many columns as a vector of the narrowest plane holds, a plane after the other, in vectors of 4 R bytes
/// of which byte 4 r + j belongs to row r: in a plane of p bits, vector v holds column (32 / p) v + 4 q + j of the strip from
/// bit p q of that byte. Groups are padded to whole strips with code `zero` (0 where codes are no integers of a unit), the last
/// panel with rows of scale 0.
///
/// **panel<R, 1>, dense storage** of T: panels of R rows; for each column, R elements.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "code_source.hpp"
#include "memory_arena.hpp"

#include <cstddef>

namespace tessera::inline TESSERA_ABI {

/// To be raised when bytes of panels change: what files keep of older ones is then packed anew.
inline constexpr int panel_layout_version = 6;

/// The planes in which codes are placed, widest first.
struct code_planes {
    int count = 0;
    int bits[3] = {};
    int shift[3] = {}; ///< where a plane's bits are in the code

    /// Bits that a code takes.
    constexpr int width() const noexcept { return bits[0] + bits[1] + bits[2]; }
    /// Columns of a strip: those of a vector of the narrowest plane.
    constexpr index_t columns() const noexcept { return 32 / bits[count - 1]; }
    /// Vectors of a strip.
    constexpr int vectors() const noexcept { return static_cast<int>(columns()) * width() / 32; }
    /// The vector of a strip that holds a column's bits of plane p, and the bit of its byte at which they begin.
    constexpr int vector(int p, int column) const noexcept {
        int first = 0;
        for (int i = 0; i < p; ++i) first += static_cast<int>(columns()) * bits[i] / 32;
        return first + column * bits[p] / 32;
    }
    constexpr int bit(int p, int column) const noexcept { return column % (32 / bits[p]) / 4 * bits[p]; }
};

namespace detail {

/// `width` bits as planes; 7 take 8, whose product is faster and hardly longer.
constexpr code_planes planes_of_width(int width) noexcept {
    code_planes planes;
    int shift = 0;
    for (int b = 8; b > 0; b /= 2)
        if (width == 7 ? b == 8 : (width & b) != 0) {
            planes.bits[planes.count] = b;
            planes.shift[planes.count++] = shift;
            shift += b;
        }
    return planes;
}
/// The planes of codes of `bits` bits in groups of `group` columns (0: rows): as few bits as whole strips in a group allow.
constexpr code_planes planes_of(int bits, index_t group) noexcept {
    for (int width = bits; width < 8; ++width) {
        code_planes const planes = planes_of_width(width);
        if (group % planes.columns() == 0 || width == 4) return planes;
    }
    return planes_of_width(8);
}

/// Groups that a super group has at most where records are made of whole ones: a row that ends inside a record has its whole head.
inline constexpr index_t most_record_groups = 16;
/// How many parts of so many bytes, each a multiple of a quarter of a vector, fill whole vectors.
constexpr index_t whole_vectors(index_t bytes, index_t vector_bytes) noexcept {
    index_t parts = 1;
    while (parts < 4 && parts * bytes % vector_bytes != 0) parts *= 2;
    return parts;
}

} // namespace detail

/// R rows side by side; D columns of a row are adjacent.
template <index_t R, index_t D>
struct panel {
    static constexpr index_t rows = R;
    static constexpr index_t depth = D;
};

/// Dense storage: any strided matrix of float, fp16 or bf16.
template <class T>
inline constexpr bool is_dense_storage = false;
template <class T>
inline constexpr bool is_dense_storage<matrix_view<T const>> = true;
template <class Storage>
concept dense_storage = is_dense_storage<Storage>;

/// Primary template: the two kinds below exist.
template <class Layout, class Storage>
class prepacked {
    static_assert(detail::always_false<Layout, Storage>,
                  "tessera: prepacked<Layout, Storage> needs panel<R, 4> with coded or panel<R, 1> with dense storage");
};

/// Codes in panels; see the file comment.
template <index_t R, coded_storage Storage>
class prepacked<panel<R, 4>, Storage> {
public:
    using layout = panel<R, 4>;
    using storage = Storage;
    using source = code_source<Storage>;
    using scale_type = typename source::scale_type;

    /// Whether the groups under a super scale share strips.
    static constexpr bool joins_groups = detail::joins_groups<source>;
    /// Whether a byte holds a scale and a minimum.
    static constexpr bool packs_minima = joins_groups && source::offset == offset_kind::minimum;
    static constexpr code_planes planes =
        detail::planes_of(source::bits, joins_groups ? detail::super_group<source> : source::group);
    /// Columns and bytes of a strip of codes.
    static constexpr index_t strip_columns = planes.columns();
    static constexpr index_t vector_bytes = 4 * R;
    static constexpr index_t strip_bytes = planes.vectors() * vector_bytes;
    /// Whether one scale, or one super scale, stands for all rows of a panel.
    static constexpr bool shares_scales = detail::shares_scales<source, R>;
    static constexpr bool shares_super_scales = detail::shares_super_scales<source, R>;
    static constexpr index_t scale_bytes = (shares_scales ? 1 : R) * static_cast<index_t>(sizeof(scale_type));
    static constexpr index_t offset_bytes = packs_minima                                ? 0
                                            : source::offset == offset_kind::minimum    ? scale_bytes
                                            : source::offset == offset_kind::zero_point ? (shares_scales ? 1 : R)
                                                                                        : 0;
    static constexpr index_t header_bytes = round_up(scale_bytes + offset_bytes, shares_scales ? R : 1);
    /// Groups under one super scale; 0: scales have one level.
    static constexpr index_t super_groups = detail::super_group<source> / maximum(source::group, 1);
    using super_scale_type = typename detail::super_scale_of<source>::type;
    static constexpr index_t super_scale_bytes =
        super_groups == 0 ? 0 : (shares_super_scales ? 1 : R) * static_cast<index_t>(sizeof(super_scale_type));
    static constexpr index_t super_bytes = super_scale_bytes * (source::offset == offset_kind::minimum ? 2 : 1);
    /// Super groups and groups of a record, and the bytes before its codes; see the file comment.
    static constexpr bool has_row_supers = super_groups > detail::most_record_groups || (super_groups > 0 && shares_super_scales);
    static constexpr index_t record_supers =
        super_groups == 0 || has_row_supers ? 0 : detail::whole_vectors(super_bytes + super_groups * header_bytes, vector_bytes);
    static constexpr index_t record_groups = record_supers != 0 ? record_supers * super_groups
                                             : source::group == 0 ? 1
                                                                  : detail::whole_vectors(header_bytes, vector_bytes);
    static constexpr index_t head_bytes = round_up(record_supers * super_bytes + record_groups * header_bytes, vector_bytes);

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t panels() const noexcept { return ceil_div(rows_, R); }
    /// Columns that share a scale.
    constexpr index_t group() const noexcept { return source::group == 0 ? cols_ : source::group; }
    constexpr index_t groups() const noexcept { return cols_ == 0 ? 0 : ceil_div(cols_, group()); }
    /// Columns of group g.
    constexpr index_t group_columns(index_t g) const noexcept { return minimum(group(), cols_ - g * group()); }
    /// Strips of a group of `columns` columns.
    static constexpr index_t strips(index_t columns) noexcept { return ceil_div(columns, strip_columns); }
    /// Bytes of the codes of `groups` groups of `columns` columns.
    static constexpr index_t codes_bytes(index_t columns, index_t groups = 1) noexcept {
        return joins_groups ? groups * columns * strip_bytes / strip_columns : groups * strips(columns) * strip_bytes;
    }
    constexpr index_t record_bytes() const noexcept { return head_bytes + codes_bytes(group(), record_groups); }
    /// Bytes from the beginning of a group's codes to the strip of its column k.
    static constexpr index_t strip_offset(index_t k) noexcept { return k / strip_columns * strip_bytes; }
    constexpr index_t panel_bytes() const noexcept {
        index_t const last = groups() - 1;
        if (last < 0) return 0;
        return record_offset(last) + head_bytes + codes_bytes(group(), within_record(last)) + codes_bytes(group_columns(last));
    }
    /// Bytes from the beginning of a panel to the record of group g, to the scales of g, to the super scales that are above it, and
    /// to the strip in which its codes begin.
    constexpr index_t record_offset(index_t g) const noexcept {
        return row_supers_bytes() + record_of(g) * record_bytes();
    }
    constexpr index_t scales_offset(index_t g) const noexcept {
        return record_offset(g) + record_supers * super_bytes + within_record(g) * header_bytes;
    }
    constexpr index_t super_offset(index_t g) const noexcept {
        if constexpr (has_row_supers)
            return has_one_super ? 0 : g / maximum(super_groups, 1) * super_bytes;
        else
            return record_offset(g) + within_record(g) / maximum(super_groups, 1) * super_bytes;
    }
    constexpr index_t codes_offset(index_t g) const noexcept {
        index_t const within = within_record(g);
        return record_offset(g) + head_bytes +
               (joins_groups ? strip_offset(within * source::group) : codes_bytes(group(), within));
    }
    /// The column of that strip at which group g begins.
    static constexpr int first_column(index_t g) noexcept {
        return joins_groups ? static_cast<int>(g * source::group % strip_columns) : 0;
    }
    constexpr index_t bytes() const noexcept { return panels() * panel_bytes(); }
    constexpr std::byte const* panel_data(index_t p) const noexcept { return data_ + p * panel_bytes(); }

    /// The place of group g in its record.
    static constexpr index_t within_record(index_t g) noexcept { return g - record_of(g) * record_groups; }

    /// Scale r of those at `at`, of a panel's rows or the one that they share.
    template <bool Shared, class T>
    static T const& scale_at(std::byte const* at, index_t r) noexcept {
        return reinterpret_cast<T const*>(at)[Shared ? 0 : r];
    }

private:
    /// Whether a row has no more than one super scale.
    static constexpr bool has_one_super = super_groups >= index_t{1} << 24;
    /// Bytes of the super scales before the records.
    constexpr index_t row_supers_bytes() const noexcept {
        if constexpr (!has_row_supers)
            return 0;
        else if constexpr (has_one_super)
            return round_up(super_bytes, vector_bytes);
        else
            return round_up(ceil_div(groups(), super_groups) * super_bytes, vector_bytes);
    }
    /// Divided without a sign, which takes half the instructions.
    static constexpr index_t record_of(index_t g) noexcept {
        return static_cast<index_t>(static_cast<std::size_t>(g) / static_cast<std::size_t>(record_groups));
    }

    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Dense elements in panels; see the file comment.
template <index_t R, class T>
class prepacked<panel<R, 1>, matrix_view<T const>> {
public:
    using layout = panel<R, 1>;
    using storage = matrix_view<T const>;
    using element_type = T;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t panels() const noexcept { return ceil_div(rows_, R); }
    constexpr index_t panel_bytes() const noexcept { return R * cols_ * static_cast<index_t>(sizeof(T)); }
    constexpr index_t bytes() const noexcept { return panels() * panel_bytes(); }
    /// The R elements of column k of panel p.
    T const* column(index_t p, index_t k) const noexcept {
        return reinterpret_cast<T const*>(data_ + p * panel_bytes()) + R * k;
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

namespace detail {

template <class Weights>
inline constexpr bool is_dense_panel = false;
template <index_t R, class Storage>
inline constexpr bool is_dense_panel<prepacked<panel<R, 1>, Storage>> = true;

} // namespace detail

/// Owner of placed storage, or of a place in an arena. A move leaves an empty one.
template <class Layout, class Storage>
class prepacked_tensor {
public:
    using view_type = prepacked<Layout, Storage>;

    prepacked_tensor() noexcept = default;
    /// Memory of its own, to be written.
    prepacked_tensor(index_t n, index_t k)
        : own_{view_type{nullptr, n, k}.bytes()}, place_{{own_.data(), own_.data()}}, rows_{n}, cols_{k} {}
    /// Memory of an arena.
    prepacked_tensor(index_t n, index_t k, placement const& place) noexcept : place_{place}, rows_{n}, cols_{k} {}

    /// Where its bytes are to be written; null where they are there.
    std::byte* data() noexcept { return place_.get().target; }
    index_t bytes() const noexcept { return view().bytes(); }
    view_type view() const& noexcept { return {place_.get().data, rows_, cols_}; }
    void view() const&& = delete;

private:
    buffer<std::byte> own_;
    detail::emptied_by_move<placement> place_;
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
};

} // namespace tessera::inline TESSERA_ABI
