// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `table_quantized<Bits, Granularity, Value, Scale>`: a view of a matrix (n, k) whose codes are looked up in tables that are
/// data, one of 2^Bits values for each block of the granularity, and `table_quantized_tensor`, its owner. (A table that is
/// known when the program is compiled is a `codebook<Table>` format of `scheme`, with the integer products.)
///
///     W(n, k) = table(n, k)[code(n, k)] * scale(n, k)                  one rounding; without scales none
///
/// * codes (n, k): Bits of 1 to 8, rows packed by storage/bitpack.hpp;
/// * tables: Value (float or fp16): one (`per_tensor`), one a row (`per_channel`), one for N columns of a row (`group<N>`),
///   row-major, 2^Bits values each, in any order;
/// * scales: `unscaled`, or `scaled_by<fp16, group<N>>`: for N columns of a row (`per_channel`: the row), beside tables that are
///   not those of groups, whose values would hold the scale.
///
/// Every code is valid. Tables may hold any number, NaN and infinity included, which then are weights. Sources: FLUTE
/// (arXiv:2407.10960), SqueezeLLM (arXiv:2306.07629); the layout is our own.

#include "bitpack.hpp"
#include "buffer.hpp"
#include "scheme.hpp"
#include "vector_storage.hpp"

#include <concepts>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// The tables' values are the weights.
struct unscaled {};
/// A scale of type T (float or fp16) for each block of the granularity: `group<N>` or `per_channel`.
template <class T, granularity Granularity>
struct scaled_by {
    static_assert(std::same_as<T, float> || std::same_as<T, fp16>, "tessera: scaled_by<T, ...>: T is float or fp16");
    static_assert(Granularity::rows == 1, "tessera: scaled_by<T, Granularity>: the granularity is per_channel or group<N>");
};

namespace detail {

template <class Scale>
struct table_scale {
    static_assert(std::same_as<Scale, unscaled>, "tessera: the scales beside a table are unscaled or scaled_by<T, Granularity>");
    using stored = without_scale;
    static constexpr index_t columns = 0;
};
template <class T, granularity Granularity>
struct table_scale<scaled_by<T, Granularity>> {
    using stored = T;
    static constexpr index_t columns = Granularity::columns;
};

} // namespace detail

/// A matrix (n, k) of codes and tables; a view.
template <int Bits, granularity Granularity, class Value = fp16, class Scale = unscaled>
class table_quantized {
    static_assert(Bits >= 1 && Bits <= 8, "tessera: table_quantized<Bits, ...> has codes of 1 to 8 bits");
    static_assert(std::same_as<Value, float> || std::same_as<Value, fp16>, "tessera: a table's values are float or fp16");
    static_assert((Granularity::rows == 0 && Granularity::columns == 0) || Granularity::rows == 1,
                  "tessera: tables are per_tensor, per_channel or group<N>");

public:
    using is_tile_storage = void;
    using granularity_type = Granularity;
    using value_type = Value;
    using stored_scale = typename detail::table_scale<Scale>::stored;
    static constexpr int code_bits = Bits;
    static constexpr index_t dims = 1;
    static constexpr index_t table_size = index_t{1} << Bits;
    static constexpr bool has_scale = !std::is_same_v<stored_scale, detail::without_scale>;
    static constexpr detail::table_kind tables = Granularity::rows == 0      ? detail::table_kind::tensor
                                                 : Granularity::columns == 0 ? detail::table_kind::row
                                                                             : detail::table_kind::group;
    /// Columns that share a scale, or a table; 0: the row.
    static constexpr index_t group_columns = tables == detail::table_kind::group ? Granularity::columns : detail::table_scale<Scale>::columns;
    static_assert(tables != detail::table_kind::group || !has_scale,
                  "tessera: table_quantized: tables of groups have no scales beside them; multiply the values");

    constexpr table_quantized() noexcept = default;
    /// @param scales null where there are none.
    table_quantized(std::uint8_t const* codes, Value const* values, stored_scale const* scales, index_t n, index_t k)
        : codes_{codes}, values_{values}, scales_{scales}, rows_{n}, cols_{k} {
        check_shape(n, k);
        check::not_null("table_quantized", "the array of codes", codes, n * k);
        check::not_null("table_quantized", "the array of tables", values, n * k == 0 ? 0 : table_count(n, k) * table_size);
        if constexpr (has_scale) check::not_null("table_quantized", "the array of scales", scales, scale_count(n, k));
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t row_bytes() const noexcept { return bitpack::bytes(cols_, Bits); }
    constexpr std::uint8_t const* codes() const noexcept { return codes_; }
    constexpr Value const* values() const noexcept { return values_; }
    constexpr stored_scale const* scales() const noexcept { return scales_; }
    /// Columns that share a scale, or a table.
    constexpr index_t group() const noexcept { return group_of(cols_); }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, group()); }
    /// Tables and scales of an (n, k) matrix.
    static constexpr index_t table_count(index_t n, index_t k) noexcept {
        return tables == detail::table_kind::tensor ? 1 : tables == detail::table_kind::row ? n : scale_count(n, k);
    }
    static constexpr index_t scale_count(index_t n, index_t k) noexcept { return n * ceil_div(k, group_of(k)); }

    /// Stored bytes: codes, tables, scales.
    constexpr index_t bytes() const noexcept {
        index_t const scales = has_scale ? scale_count(rows_, cols_) * static_cast<index_t>(sizeof(stored_scale)) : 0;
        return rows_ * row_bytes() + table_count(rows_, cols_) * table_size * static_cast<index_t>(sizeof(Value)) + scales;
    }

    constexpr std::uint32_t code(index_t n, index_t k) const noexcept { return bitpack::get<Bits>(codes_ + n * row_bytes(), k); }
    /// Codes [first, first + count) of row n.
    void load_codes(index_t n, index_t first, index_t count, std::uint16_t* codes) const noexcept {
        std::uint8_t const* const row = codes_ + n * row_bytes();
        for (index_t i = 0; i < count; ++i) codes[i] = static_cast<std::uint16_t>(bitpack::get<Bits>(row, first + i));
    }
    /// Value of a code in the table of row n, group g.
    constexpr float table_value(index_t n, index_t g, std::uint32_t code, int) const noexcept {
        index_t const table = tables == detail::table_kind::tensor ? 0
                              : tables == detail::table_kind::row  ? n
                                                                   : n * groups() + g;
        return static_cast<float>(values_[table * table_size + code]);
    }
    constexpr stored_scale scale(index_t n, index_t g) const noexcept { return scales_[n * groups() + g]; }

    constexpr float operator()(index_t n, index_t k) const noexcept {
        index_t const g = k / group();
        float const value = table_value(n, g, code(n, k), 0);
        if constexpr (has_scale)
            return value * static_cast<float>(scale(n, g));
        else
            return value;
    }
    void decode_tile(index_t n0, index_t n1, index_t k0, index_t k1, float* out, index_t stride) const noexcept {
        detail::decode_lookups(*this, n0, n1, k0, k1, out, stride);
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(codes_, rows_ * row_bytes());
        f(values_, rows_ * cols_ == 0 ? 0 : table_count(rows_, cols_) * table_size * static_cast<index_t>(sizeof(Value)));
        if constexpr (has_scale) f(scales_, scale_count(rows_, cols_) * static_cast<index_t>(sizeof(stored_scale)));
    }

    static void check_shape(index_t n, index_t k) {
        check::within("table_quantized", "rows", n, 0, index_t{1} << 40);
        check::within("table_quantized", "columns", k, 0, minimum(index_t{1} << 40, (index_t{1} << 48) / maximum(n, 1)));
    }

private:
    static constexpr index_t group_of(index_t k) noexcept {
        return group_columns == 0 ? maximum(k, 1) : group_columns;
    }

    std::uint8_t const* codes_ = nullptr;
    Value const* values_ = nullptr;
    stored_scale const* scales_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of codes and tables; zeros until written. A move leaves an empty one.
template <int Bits, granularity Granularity, class Value = fp16, class Scale = unscaled>
class table_quantized_tensor {
public:
    using view_type = table_quantized<Bits, Granularity, Value, Scale>;
    using stored_scale = typename view_type::stored_scale;

    table_quantized_tensor() noexcept = default;
    table_quantized_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        view_type::check_shape(n, k);
        codes_ = buffer<std::uint8_t>{n * bitpack::bytes(k, Bits)};
        values_ = buffer<Value>{view_type::table_count(n, k) * view_type::table_size};
        for (std::uint8_t& c : codes_) c = 0;
        for (Value& v : values_) v = static_cast<Value>(0.0f);
        if constexpr (view_type::has_scale) {
            scales_ = buffer<stored_scale>{view_type::scale_count(n, k)};
            for (stored_scale& s : scales_) s = static_cast<stored_scale>(0.0f);
        }
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t bytes() const { return view().bytes(); }
    std::uint8_t* codes() noexcept { return codes_.data(); }
    Value* values() noexcept { return values_.data(); }
    stored_scale* scales() noexcept { return scales_.data(); }

    view_type view() const& { return {codes_.data(), values_.data(), scales_.data(), rows_, cols_}; }
    void view() const&& = delete;
    explicit(false) operator view_type() const& { return view(); }
    operator view_type() const&& = delete;

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<std::uint8_t> codes_;
    buffer<Value> values_;
    buffer<stored_scale> scales_;
};

namespace detail {

template <int Bits, class G, class V, class S>
inline constexpr bool is_owner<table_quantized_tensor<Bits, G, V, S>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
