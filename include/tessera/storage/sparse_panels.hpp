// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed sparse storage: panels of R rows side by side (R = float lanes of the architecture), so that a lane is a row and
/// nothing has to be added across lanes. Nothing but what is kept takes part in a product: there is no padding to multiply.
///
/// **jagged<R>, csr.** Rows are sorted by length, longest first, in windows of 16 to 64 rows that no tile of a product cuts.
/// A table of windows (64-bit offsets), then windows of panels:
///
///     entries (64 bits) | R lengths (32 bits) | R scales (int8 only) | R rows within the window (bytes) | columns | values
///
/// Step j of a panel has entry j of each row that is so long: the first c rows, because they are sorted. Steps follow each
/// other without gaps, columns (16 bits where k allows, else 32) in one array and values in another.
///
/// **kept<R>, n_of_m.** Panels of R rows: R scales (int8 only), then records of as many groups as have their positions in
/// one 32-bit word of each row (or of one group that needs two):
///
///     words of R positions (slot s of the record in word s / (32 / bits), at bit s % (32 / bits) * bits) | for each slot, R values
///
/// Padding of a short last group and rows that do not exist have value 0.

#include "../core/tile.hpp"
#include "csr.hpp"
#include "n_of_m.hpp"
#include "prepacked.hpp"

#include <cstddef>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// R rows side by side, of different lengths.
template <index_t R>
struct jagged {
    static constexpr index_t rows = R;
};
/// R rows side by side, each with N of every M weights.
template <index_t R>
struct kept {
    static constexpr index_t rows = R;
};

/// A panel of compressed rows: where its parts are.
template <index_t R, class Stored, class Column, bool HasScale>
struct jagged_panel {
    static constexpr bool has_scale = HasScale;
    std::uint32_t const* lengths = nullptr; ///< descending
    float const* scales = nullptr;          ///< where HasScale
    std::uint8_t const* order = nullptr;    ///< row within the window of each lane
    Column const* columns = nullptr;
    Stored const* values = nullptr;
    std::byte const* next = nullptr; ///< the panel behind it

    static constexpr index_t header_bytes = round_up(8 + 4 * R + (HasScale ? 4 * R : 0) + R, 8);
    static constexpr index_t values_at(index_t entries) noexcept {
        return header_bytes + round_up(entries * static_cast<index_t>(sizeof(Column)), 4);
    }
    static constexpr index_t bytes(index_t entries) noexcept {
        return round_up(values_at(entries) + entries * static_cast<index_t>(sizeof(Stored)), 8);
    }
    static jagged_panel read(std::byte const* at) noexcept {
        auto const entries = static_cast<index_t>(*reinterpret_cast<std::uint64_t const*>(at));
        jagged_panel p;
        p.lengths = reinterpret_cast<std::uint32_t const*>(at + 8);
        p.scales = reinterpret_cast<float const*>(at + 8 + 4 * R);
        p.order = reinterpret_cast<std::uint8_t const*>(at + 8 + (HasScale ? 8 : 4) * R);
        p.columns = reinterpret_cast<Column const*>(at + header_bytes);
        p.values = reinterpret_cast<Stored const*>(at + values_at(entries));
        p.next = at + bytes(entries);
        return p;
    }
    index_t length(index_t lane) const noexcept { return static_cast<index_t>(lengths[lane]); }

    /// f(column, value as stored) for the entries of a lane.
    template <class F>
    void for_each(index_t lane, F const& f) const {
        index_t at = lane;
        index_t lanes = R; // that have an entry j, in order of their lengths
        for (index_t j = 0; j < length(lane); ++j) {
            while (length(lanes - 1) <= j) --lanes;
            f(static_cast<index_t>(columns[at]), values[at]);
            at += lanes;
        }
    }
};

/// Compressed rows in panels; see the file comment.
template <index_t R, class T, class Granularity>
class prepacked<jagged<R>, csr<T, Granularity>> {
public:
    using layout = jagged<R>;
    using storage = csr<T, Granularity>;
    using stored_type = typename storage::stored_type;
    static constexpr bool has_scale = storage::has_scale;
    template <class Column>
    using panel_type = jagged_panel<R, stored_type, Column, has_scale>;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t bytes, index_t nonzeros, index_t n, index_t k) noexcept
        : data_{data}, bytes_{bytes}, nonzeros_{nonzeros}, rows_{n}, cols_{k} {}

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t nonzeros() const noexcept { return nonzeros_; }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t bytes() const noexcept { return bytes_; }

    /// Rows of a window: what divides the tiles of products with few and with many rows of x.
    constexpr index_t window_rows() const noexcept {
        index_t const few = product_tile(auto_tile{}, 1, rows_).n;
        index_t const many = product_tile(auto_tile{}, 17, rows_).n;
        index_t window = many;
        while (few % window != 0 || window > 64) window /= 2;
        return window;
    }
    constexpr index_t windows() const noexcept { return ceil_div(rows_, window_rows()); }
    /// Panels of window w: those of rows that exist.
    constexpr index_t window_panels(index_t w) const noexcept {
        return ceil_div(minimum(window_rows(), rows_ - w * window_rows()), R);
    }
    constexpr bool has_narrow_columns() const noexcept { return cols_ <= 65536; }
    std::byte const* window(index_t w) const noexcept { return data_ + reinterpret_cast<index_t const*>(data_)[w]; }

    /// Bytes that a window of so many nonzeros may take.
    constexpr index_t window_bytes(index_t entries) const noexcept {
        constexpr auto stored = static_cast<index_t>(sizeof(stored_type));
        return round_up(window_rows() / R * (panel_type<std::uint32_t>::header_bytes + 16) +
                            entries * ((has_narrow_columns() ? 2 : 4) + stored),
                        8);
    }
    /// Bytes of the table of windows; and readable bytes behind the last one, for loads of whole registers.
    constexpr index_t table_bytes() const noexcept {
        return round_up((windows() + 1) * static_cast<index_t>(sizeof(index_t)), config::cache_line);
    }
    static constexpr index_t slack = 2 * config::cache_line;

    /// f(panel type) with the type of columns that this matrix has.
    template <class F>
    decltype(auto) with_panel_type(F const& f) const {
        return has_narrow_columns() ? f(panel_type<std::uint16_t>{}) : f(panel_type<std::uint32_t>{});
    }

    /// f(column, weight) for the nonzeros of row n.
    template <class F>
    void for_each_entry(index_t n, F const& f) const {
        with_panel_type([&]<class Panel>(Panel) {
            index_t const w = n / window_rows();
            std::byte const* at = window(w);
            for (index_t p = 0; p < window_panels(w); ++p) {
                Panel const panel = Panel::read(at);
                at = panel.next;
                for (index_t lane = 0; lane < R; ++lane)
                    if (panel.order[lane] == n % window_rows())
                        panel.for_each(lane, [&](index_t k, stored_type v) {
                            f(k, (has_scale ? panel.scales[lane] : 1.0f) * static_cast<float>(v));
                        });
            }
        });
    }

private:
    std::byte const* data_ = nullptr;
    index_t bytes_ = 0;
    index_t nonzeros_ = 0;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// N of every M weights in panels; see the file comment.
template <index_t R, index_t N, index_t M, class T, class Granularity>
class prepacked<kept<R>, n_of_m<N, M, T, Granularity>> {
public:
    using layout = kept<R>;
    using storage = n_of_m<N, M, T, Granularity>;
    using stored_type = typename storage::stored_type;
    static constexpr bool has_scale = storage::has_scale;
    static constexpr int position_bits = storage::position_bits;
    /// Positions in a word of a row; groups and words of a record.
    static constexpr index_t word_slots = 32 / position_bits;
    static constexpr index_t record_groups = N <= word_slots ? word_slots / N : 1;
    static constexpr index_t record_words = ceil_div(record_groups * N, word_slots);
    static constexpr index_t header_bytes = has_scale ? R * static_cast<index_t>(sizeof(float)) : 0;
    static constexpr index_t positions_bytes = record_words * R * 4;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    constexpr index_t rows() const noexcept { return rows_; }
    constexpr index_t cols() const noexcept { return cols_; }
    constexpr index_t nonzeros() const noexcept { return rows_ * (cols_ / M * N + minimum(N, cols_ % M)); }
    constexpr std::byte const* data() const noexcept { return data_; }
    constexpr index_t panels() const noexcept { return ceil_div(rows_, R); }
    constexpr index_t groups() const noexcept { return ceil_div(cols_, M); }
    constexpr index_t records() const noexcept { return ceil_div(groups(), record_groups); }
    static constexpr index_t record_bytes(index_t groups) noexcept {
        return positions_bytes + groups * N * R * static_cast<index_t>(sizeof(stored_type));
    }
    constexpr index_t panel_bytes() const noexcept {
        return header_bytes + records() * positions_bytes + groups() * N * R * static_cast<index_t>(sizeof(stored_type));
    }
    constexpr index_t bytes() const noexcept { return panels() * panel_bytes(); }

    /// f(column, weight) for the kept weights of row n.
    template <class F>
    void for_each_entry(index_t n, F const& f) const {
        std::byte const* const panel = data_ + n / R * panel_bytes();
        float const scale = has_scale ? reinterpret_cast<float const*>(panel)[n % R] : 1.0f;
        for (index_t g = 0; g < groups(); ++g) {
            std::byte const* const record = panel + header_bytes + g / record_groups * record_bytes(record_groups);
            for (index_t j = 0; j < N; ++j) {
                index_t const slot = g % record_groups * N + j;
                std::uint32_t const word = reinterpret_cast<std::uint32_t const*>(record)[slot / word_slots * R + n % R];
                index_t const column =
                    g * M + static_cast<index_t>(word >> slot % word_slots * position_bits & ((1u << position_bits) - 1u));
                if (column < cols_)
                    f(column, scale * static_cast<float>(
                                          reinterpret_cast<stored_type const*>(record + positions_bytes)[slot * R + n % R]));
            }
        }
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

} // namespace tessera::inline TESSERA_ABI
