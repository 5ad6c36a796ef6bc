// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How coded storage looks to the kernels. Every format of the library is, per row and group of columns,
///
///     w(n, k) = scale * (value(code) - zero point) + minimum
///
/// with an unsigned code of at most 8 bits; scale and minimum may be products of two levels, a float of a super group of
/// columns times an integer of the group, exact in float32. `code_source<Storage>` says this of a storage type: which parts exist, and how
/// to read them. One specialisation is all that a new storage needs to be placed, decoded and multiplied by every kernel.

#include "blocked.hpp"
#include "quantized.hpp"

#include <concepts>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// What is added to scale * value.
enum class offset_kind : std::uint8_t {
    none,       ///< nothing
    minimum,    ///< a float per group, of the scale's type
    zero_point, ///< -scale * an integer per group
};

/// Primary template: not coded storage.
template <class Storage>
struct code_source {
    static constexpr bool is_coded = false;
};

namespace detail {

/// Scales are placed in the type they are stored in when it is a float the machine converts, in such a type if it has all
/// their values, else as float32.
template <class T>
struct placed_scale_of {
    using type = float;
};
template <class T>
    requires(std::same_as<T, fp16> || std::same_as<T, bf16>)
struct placed_scale_of<T> {
    using type = T;
};
/// Whether T, a float, has all values of a format of at most 8 bits.
template <class Format, class T>
inline constexpr bool holds_values = [] {
    for (std::uint32_t c = 0; c < 1u << Format::bits; ++c) {
        float const value = Format::decode(c);
        if (value == value && static_cast<float>(T{value}) != value) return false;
    }
    return true;
}();
template <class T>
    requires(element_format<T> && T::bits <= 8)
struct placed_scale_of<T> {
    static constexpr auto stored() noexcept {
        if constexpr (requires { requires T::is_integer && T::min_value >= -128 && T::max_value <= 127; })
            return std::int8_t{};
        else if constexpr (holds_values<T, fp16>)
            return fp16{};
        else if constexpr (holds_values<T, bf16>)
            return bf16{};
        else
            return float{};
    }
    using type = decltype(stored());
};
template <class T>
using placed_scale = typename placed_scale_of<T>::type;

} // namespace detail

/// Schemes: codes of any format, scales by granularity, zero points where the scheme is affine.
template <class Scheme>
struct code_source<quantized<Scheme>> {
    using storage = quantized<Scheme>;
    using format = typename Scheme::format;
    /// Columns that share a scale; 0: the whole row.
    static constexpr index_t group = Scheme::granularity_type::columns;
    /// Scales of two levels are placed as two, if a type that the machine converts has all values of the lower ones; else their
    /// product is, in float32.
    static constexpr bool keeps_two_levels =
        Scheme::has_two_levels && group != 0 && !std::same_as<detail::placed_scale<typename storage::scale_type>, float>;
    using scale_type = std::conditional_t<Scheme::has_two_levels && !keeps_two_levels, float,
                                          detail::placed_scale<typename storage::scale_type>>;
    using super_scale_type = detail::placed_scale<typename storage::super_scale_type>;
    /// Columns that share a super scale; more than there are, where a row has one. 0: one level.
    static constexpr index_t super_group = !keeps_two_levels ? 0
                                           : storage::super_granularity_type::columns == 0
                                               ? group * tessera::minimum(index_t{1} << 32, (index_t{1} << 62) / tessera::maximum(group, 1))
                                               : storage::super_granularity_type::columns;
    /// Rows that share a scale, or a super scale; 0: all.
    static constexpr index_t scale_rows = Scheme::granularity_type::rows;
    static constexpr index_t super_scale_rows = storage::super_granularity_type::rows;

    static constexpr bool is_coded = true;
    /// Integer codes may go into integer dot products.
    static constexpr bool is_integer = format::is_integer;
    /// Bits of an unsigned code.
    static constexpr int bits = format::bits;
    /// Codes are integers times a unit: fixed point.
    static constexpr bool has_unit = requires { typename format::integer_format; format::unit; };
    static constexpr float unit = [] {
        if constexpr (has_unit)
            return format::unit;
        else
            return 1.0f;
    }();
    /// For integer codes and such: what is subtracted from the unsigned code.
    static constexpr int zero = [] {
        if constexpr (has_unit)
            return -format::integer_format::min_value;
        else if constexpr (format::is_integer)
            return -format::min_value;
        else
            return 0;
    }();
    static constexpr offset_kind offset = Scheme::is_affine ? offset_kind::zero_point : offset_kind::none;

    /// Unsigned code: signed integers are moved up by `zero`.
    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept {
        std::uint32_t const c = w.code(n, k);
        if constexpr (has_unit)
            return static_cast<std::uint32_t>(format::integer_format::integer(c) + zero);
        else if constexpr (is_integer)
            return static_cast<std::uint32_t>(format::integer(c) + zero);
        else
            return c;
    }
    /// The value of an unsigned code before scale and offset.
    static constexpr float value(std::uint32_t c) noexcept {
        if constexpr (is_integer || has_unit)
            return static_cast<float>(static_cast<int>(c) - zero) * unit;
        else
            return format::decode(c);
    }
    static constexpr float scale(storage const& w, index_t n, index_t k) noexcept { return w.scale(n, k); }
    static constexpr float super_scale(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<float>(w.super_scales()[w.super_scale_index(n, k)]);
    }
    static constexpr float sub_scale(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<float>(w.scales()[w.scale_index(n, k)]);
    }
    static constexpr float minimum(storage const&, index_t, index_t) noexcept { return 0.0f; }
    static constexpr int zero_point(storage const& w, index_t n, index_t k) noexcept { return w.zero_point(n, k); }
};

namespace detail {

/// What a placed group of blocks stores as its scale; of two levels the lower one.
template <class Format>
constexpr auto block_scale() noexcept {
    if constexpr (two_level_format<Format>)
        return std::int8_t{};
    else if constexpr (requires { typename Format::placed_scale; })
        return typename Format::placed_scale{}; // a scale whose type no machine converts
    else
        return decltype(Format::block::scale){};
}

} // namespace detail

/// Blocks of GGUF files: integer codes or codes of a table, scales and minima in each block.
template <block_format Format>
struct code_source<blocked<Format>> {
    using storage = blocked<Format>;
    using scale_type = decltype(detail::block_scale<Format>());

    static constexpr bool is_coded = true;
    static constexpr bool is_integer = !table_format<Format>;
    static constexpr int bits = Format::code_bits;
    static constexpr int zero = -Format::min_code;
    static constexpr offset_kind offset = Format::has_minimum ? offset_kind::minimum : offset_kind::none;
    static constexpr index_t group = Format::group_size;
    /// Every row has whole blocks.
    static constexpr bool has_whole_groups = true;
    /// Two levels: columns that share a super scale, of type fp16. 0: one level.
    static constexpr index_t super_group = two_level_format<Format> ? Format::block_size : 0;
    /// Two levels: whether the groups of a block are placed together (storage/prepacked.hpp): short ones, whose sums are
    /// multiplied by integers of the group (at most 16 bits in either half of 16 columns), if a minimum fits a byte with its scale.
    /// A strip holds one or two groups (of 4 bits half a one), a block pairs of them.
    static constexpr bool joins_groups = [] {
        if constexpr (!two_level_format<Format> || !is_integer || group != 16 || Format::block_size % 32 != 0 || bits > 6 || bits == 4 || zero < 0 ||
                      2 * zero > 1 << bits || zero % 2 != 0)
            return false;
        else if constexpr (Format::has_minimum)
            return requires { requires Format::sub_bits <= 4; };
        else
            return true;
    }();

    static constexpr typename Format::block const& block_at(storage const& w, index_t n, index_t k) noexcept {
        return w.row(n)[k / Format::block_size];
    }
    static constexpr std::uint32_t code(storage const& w, index_t n, index_t k) noexcept {
        return static_cast<std::uint32_t>(
            Format::code(block_at(w, n, k), static_cast<int>(k % Format::block_size)) + zero);
    }
    static constexpr float value(std::uint32_t c) noexcept { return detail::value_of_code<Format>(static_cast<int>(c) - zero); }
    static constexpr int group_at(index_t k) noexcept { return static_cast<int>(k % Format::block_size) / Format::group_size; }
    static constexpr float scale(storage const& w, index_t n, index_t k) noexcept {
        return Format::scale(block_at(w, n, k), group_at(k));
    }
    static constexpr float minimum(storage const& w, index_t n, index_t k) noexcept {
        return Format::minimum(block_at(w, n, k), group_at(k));
    }
    static constexpr float super_scale(storage const& w, index_t n, index_t k) noexcept {
        return Format::super_scale(block_at(w, n, k));
    }
    static constexpr float super_minimum(storage const& w, index_t n, index_t k) noexcept {
        return Format::super_minimum(block_at(w, n, k));
    }
    static constexpr int sub_scale(storage const& w, index_t n, index_t k) noexcept {
        return Format::sub_scale(block_at(w, n, k), group_at(k));
    }
    static constexpr int sub_minimum(storage const& w, index_t n, index_t k) noexcept {
        return Format::sub_minimum(block_at(w, n, k), group_at(k));
    }
    static constexpr int zero_point(storage const&, index_t, index_t) noexcept { return 0; }
};

namespace detail {

/// Columns that share the upper level of a scale; 0 where scales have one level.
template <class Source>
inline constexpr index_t super_group = [] {
    if constexpr (requires { Source::super_group; })
        return index_t{Source::super_group};
    else
        return index_t{0};
}();

/// Whether the groups under a super scale are placed together.
template <class Source>
inline constexpr bool joins_groups = [] {
    if constexpr (requires { Source::joins_groups; })
        return Source::joins_groups;
    else
        return false;
}();

/// Whether no row ends inside a group.
template <class Source>
inline constexpr bool has_whole_groups = [] {
    if constexpr (requires { Source::has_whole_groups; })
        return Source::has_whole_groups;
    else
        return false;
}();

/// Whether R rows from a multiple of R on always share the scales of their groups, or super scales of some columns. Those of a row,
/// or of a matrix, take so little that they are placed for every row.
template <class Source, index_t R>
inline constexpr bool shares_scales = [] {
    if constexpr (requires { Source::scale_rows; })
        return Source::group != 0 && Source::scale_rows != 1 && Source::scale_rows % R == 0;
    else
        return false;
}();
template <class Source, index_t R>
inline constexpr bool shares_super_scales = [] {
    if constexpr (requires { Source::super_scale_rows; })
        return Source::super_scale_rows > 1 && Source::super_scale_rows % R == 0;
    else
        return false;
}();

/// What super scales are placed as.
template <class Source>
struct super_scale_of {
    using type = fp16;
};
template <class Source>
    requires requires { typename Source::super_scale_type; }
struct super_scale_of<Source> {
    using type = typename Source::super_scale_type;
};

} // namespace detail

/// Storage with codes.
template <class Storage>
concept coded_storage = code_source<Storage>::is_coded;

} // namespace tessera::inline TESSERA_ABI
