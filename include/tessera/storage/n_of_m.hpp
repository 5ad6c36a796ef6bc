// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `n_of_m<N, M, T>`: a view of a matrix (n, k) that keeps N of every M consecutive weights of a row, and
/// `n_of_m_tensor<N, M, T>`, its owner. T is float, fp16, bf16 or int8; M is 2 to 16. With g = ceil(k / M) groups a row:
///
/// * values (n, g N): T, for int8 the integer;
/// * positions (n, g N): the column within its group, ceil(log2 M) bits each, ascending in a group, packed by rows
///   (storage/bitpack.hpp);
/// * scales, int8 only: one a row (per_channel) or one (per_tensor).
///
/// The last group of a row may be shorter than M. Positions at and beyond its end are padding: they belong to no column.

#include "../core/error.hpp"
#include "bitpack.hpp"
#include "buffer.hpp"
#include "sparse_value.hpp"

#include <bit>
#include <cstdint>
#include <string>

namespace tessera::inline TESSERA_ABI {

/// A matrix (n, k) with N of every M weights; a view.
template <index_t N, index_t M, class T, class Granularity = per_channel>
class n_of_m {
    static_assert(M >= 2 && M <= 16 && N >= 1 && N <= M, "tessera: n_of_m<N, M, T> needs 2 <= M <= 16 and 1 <= N <= M");

public:
    using value_type = T;
    using granularity_type = Granularity;
    using stored_type = typename detail::sparse_value<T>::stored;
    static constexpr bool has_scale = detail::sparse_value<T>::has_scale;
    static constexpr index_t kept = N;
    static constexpr index_t group = M;
    static constexpr int position_bits = std::bit_width(static_cast<unsigned>(M - 1));

    constexpr n_of_m() noexcept = default;

    /// Checks every position, O(n k). @param positions rows `bitpack::bytes(groups * N, position_bits)` apart;
    /// @param scales null where T has none.
    n_of_m(stored_type const* values, std::uint8_t const* positions, float const* scales, index_t n, index_t k)
        : n_of_m{values, positions, scales, n, k, unchecked{}} {
        check_shape(n, k);
        check::not_null("n_of_m", "the array of values", values, n * row_slots());
        check::not_null("n_of_m", "the array of positions", positions, n * row_slots());
        check::not_null("n_of_m", "the array of scales", scales, detail::sparse_scales<T, Granularity>(n));
        for (index_t r = 0; r < n; ++r)
            for (index_t g = 0; g < groups(); ++g)
                for (index_t j = 0, least = 0; j < N; ++j) {
                    index_t const p = position(r, g * N + j);
                    if (p < least || p >= M) raise_position(r, g * N + j, p, least);
                    least = p + 1;
                }
    }

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, M); }
    /// Values of a row, padding of a short last group included.
    constexpr index_t row_slots() const noexcept { return groups() * N; }
    /// Kept weights, padding not counted.
    constexpr index_t nonzeros() const noexcept { return rows_ * (cols_ / M * N + minimum(N, cols_ % M)); }
    constexpr index_t row_bytes() const noexcept { return bitpack::bytes(row_slots(), position_bits); }
    constexpr stored_type const* values() const noexcept { return values_; }
    constexpr std::uint8_t const* positions() const noexcept { return positions_; }
    constexpr float const* scales() const noexcept { return scales_; }
    constexpr float scale(index_t n) const noexcept { return detail::sparse_scale<T, Granularity>(scales_, n); }
    constexpr stored_type value(index_t n, index_t slot) const noexcept { return values_[n * row_slots() + slot]; }
    /// Column within its group of slot `slot` of row n.
    constexpr index_t position(index_t n, index_t slot) const noexcept {
        return bitpack::get<position_bits>(positions_ + n * row_bytes(), slot);
    }
    constexpr index_t column(index_t n, index_t slot) const noexcept { return slot / N * M + position(n, slot); }

    /// Stored bytes of all arrays.
    constexpr index_t bytes() const noexcept {
        return rows_ * (row_slots() * static_cast<index_t>(sizeof(stored_type)) + row_bytes()) +
               detail::sparse_scales<T, Granularity>(rows_) * static_cast<index_t>(sizeof(float));
    }

    /// f(column, weight) for the kept weights of row n.
    template <class F>
    constexpr void for_each_entry(index_t n, F const& f) const {
        for (index_t s = 0; s < row_slots(); ++s)
            if (index_t const k = column(n, s); k < cols_) f(k, scale(n) * static_cast<float>(value(n, s)));
    }

    /// Element (n, k), 0 where it was not kept.
    constexpr float operator()(index_t n, index_t k) const noexcept {
        for (index_t s = k / M * N; s < k / M * N + N; ++s)
            if (column(n, s) == k) return scale(n) * static_cast<float>(value(n, s));
        return 0.0f;
    }

    /// f(pointer, bytes) for each array.
    template <class F>
    void for_each_array(F const& f) const {
        f(values_, rows_ * row_slots() * static_cast<index_t>(sizeof(stored_type)));
        f(positions_, rows_ * row_bytes());
        f(scales_, detail::sparse_scales<T, Granularity>(rows_) * static_cast<index_t>(sizeof(float)));
    }

    static void check_shape(index_t n, index_t k) {
        check::within("n_of_m", "rows", n, 0, index_t{1} << 48);
        check::within("n_of_m", "columns", k, 0, minimum(index_t{1} << 48, (index_t{1} << 56) / maximum(n, 1)));
    }

private:
    struct unchecked {};
    template <index_t, index_t, class, class>
    friend class n_of_m_tensor;

    constexpr n_of_m(stored_type const* values, std::uint8_t const* positions, float const* scales, index_t n, index_t k,
                     unchecked) noexcept
        : values_{values}, positions_{positions}, scales_{scales}, rows_{n}, cols_{k} {}

    [[noreturn]] TESSERA_COLD static void raise_position(index_t row, index_t slot, index_t actual, index_t least) {
        detail::raise<shape_error>("tessera: n_of_m: position " + std::to_string(slot) + " of row " + std::to_string(row) +
                                   " is " + std::to_string(actual) + ", expected " + std::to_string(least) + " to " +
                                   std::to_string(M - 1));
    }

    stored_type const* values_ = nullptr;
    std::uint8_t const* positions_ = nullptr;
    float const* scales_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// Owner of a matrix with N of every M weights; zeros at the first N positions of each group until `keep` says otherwise.
/// A move leaves an empty one.
template <index_t N, index_t M, class T, class Granularity = per_channel>
class n_of_m_tensor {
public:
    using view_type = n_of_m<N, M, T, Granularity>;
    using stored_type = typename view_type::stored_type;

    n_of_m_tensor() noexcept = default;
    n_of_m_tensor(index_t n, index_t k) : rows_{n}, cols_{k} {
        view_type::check_shape(n, k);
        values_ = buffer<stored_type>{n * view().row_slots()};
        positions_ = buffer<std::uint8_t>{n * view().row_bytes()};
        scales_ = buffer<float>{detail::sparse_scales<T, Granularity>(n)};
        for (stored_type& v : values_) v = static_cast<stored_type>(0.0f);
        for (std::uint8_t& p : positions_) p = 0;
        for (float& s : scales_) s = 0;
        for (index_t r = 0; r < n; ++r)
            for (index_t s = 0; s < view().row_slots(); ++s) set_position(r, s, s % N);
    }

    index_t rows() const noexcept { return rows_; }
    index_t cols() const noexcept { return cols_; }
    index_t nonzeros() const noexcept { return view().nonzeros(); }
    index_t bytes() const noexcept { return view().bytes(); }
    stored_type* values() noexcept { return values_.data(); }
    float* scales() noexcept { return scales_.data(); }

    /// The columns, within group g of row n, whose weights are kept: N of them, ascending, below M.
    void keep(index_t n, index_t g, index_t const (&positions)[N]) {
        check::within("n_of_m", "row", n, 0, rows_ - 1);
        check::within("n_of_m", "group", g, 0, view().groups() - 1);
        for (index_t j = 0; j < N; ++j)
            check::within("n_of_m", "a position", positions[j], j == 0 ? 0 : positions[j - 1] + 1, M - 1);
        for (index_t j = 0; j < N; ++j) set_position(n, g * N + j, positions[j]);
    }

    view_type view() const& noexcept {
        return {values_.data(), positions_.data(), scales_.data(), rows_, cols_, typename view_type::unchecked{}};
    }
    void view() const&& = delete;
    explicit(false) operator view_type() const& noexcept { return view(); }
    operator view_type() const&& = delete;

private:
    void set_position(index_t n, index_t slot, index_t p) {
        bitpack::set<view_type::position_bits>(positions_.data() + n * view().row_bytes(), slot,
                                               static_cast<std::uint32_t>(p));
    }

    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    buffer<stored_type> values_;
    buffer<std::uint8_t> positions_;
    buffer<float> scales_;
};

namespace detail {

template <index_t N, index_t M, class T, class Granularity>
inline constexpr bool is_owner<n_of_m_tensor<N, M, T, Granularity>> = true;

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
