// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Placed sparse storage of CUDA devices: `prepacked<device_rows, csr<...>>` and `prepacked<device_rows, n_of_m<...>>`. Rows in their
/// order, each begun at a chunk of 8 entries, so that a lane loads 8 values and 8 columns at once. Entries that fill the last chunk
/// are there and are read, but meet no x. Parts begin at multiples of 128 bytes:
///
/// **csr**: rows (n): first chunk and number of entries, 32 bits each | scales (n), int8 only | columns (chunks, 8), 16 bits where k
/// allows, else 32 | values (chunks, 8).
///
/// **n_of_m**: scales (n), int8 only | positions (n, chunks of a row, 8 packed positions) | values (n, chunks of a row, 8).

#include "csr.hpp"
#include "n_of_m.hpp"
#include "prepacked.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The layout above.
struct device_rows {
    static constexpr index_t chunk = 8;
};

namespace detail {

/// Where a row of compressed rows is.
struct row_range {
    std::uint32_t first_chunk;
    std::uint32_t entries;
};
TESSERA_HOST_DEVICE constexpr index_t part_bytes(index_t bytes) noexcept { return round_up(bytes, 128); }

} // namespace detail

/// Compressed rows on a device; a view.
template <class T, class Granularity>
class prepacked<device_rows, csr<T, Granularity>> {
public:
    using layout = device_rows;
    using storage = csr<T, Granularity>;
    using stored_type = typename storage::stored_type;
    static constexpr bool has_scale = storage::has_scale;

    constexpr prepacked() noexcept = default;
    /// @param longest  chunks of the row that has most
    constexpr prepacked(std::byte const* data, index_t chunks, index_t longest, index_t nonzeros, index_t n, index_t k) noexcept
        : data_{data}, chunks_{chunks}, longest_{longest}, nonzeros_{nonzeros}, rows_{n}, cols_{k} {}

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr index_t nonzeros() const noexcept { return nonzeros_; }
    TESSERA_HOST_DEVICE constexpr index_t chunks() const noexcept { return chunks_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr bool has_narrow_columns() const noexcept { return cols_ <= 65536; }
    TESSERA_HOST_DEVICE constexpr index_t scales_at() const noexcept {
        return detail::part_bytes(rows_ * static_cast<index_t>(sizeof(detail::row_range)));
    }
    TESSERA_HOST_DEVICE constexpr index_t columns_at() const noexcept { return scales_at() + (has_scale ? detail::part_bytes(rows_ * 4) : 0); }
    TESSERA_HOST_DEVICE constexpr index_t values_at() const noexcept {
        return columns_at() + detail::part_bytes(chunks_ * device_rows::chunk * (has_narrow_columns() ? 2 : 4));
    }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        return values_at() + detail::part_bytes(chunks_ * device_rows::chunk * static_cast<index_t>(sizeof(stored_type)));
    }
    /// Lanes that a row of mean length keeps busy follow from this.
    TESSERA_HOST_DEVICE constexpr index_t mean_chunks() const noexcept { return ceil_div(chunks_, maximum(rows_, 1)); }
    TESSERA_HOST_DEVICE constexpr index_t longest_chunks() const noexcept { return longest_; }

private:
    std::byte const* data_ = nullptr;
    index_t chunks_ = 0;
    index_t longest_ = 0;
    index_t nonzeros_ = 0;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

/// N of every M weights on a device; a view.
template <index_t N, index_t M, class T, class Granularity>
class prepacked<device_rows, n_of_m<N, M, T, Granularity>> {
public:
    using layout = device_rows;
    using storage = n_of_m<N, M, T, Granularity>;
    using stored_type = typename storage::stored_type;
    static constexpr bool has_scale = storage::has_scale;
    static constexpr int position_bits = storage::position_bits;

    constexpr prepacked() noexcept = default;
    constexpr prepacked(std::byte const* data, index_t n, index_t k) noexcept : data_{data}, rows_{n}, cols_{k} {}

    TESSERA_HOST_DEVICE constexpr index_t rows() const noexcept { return rows_; }
    TESSERA_HOST_DEVICE constexpr index_t cols() const noexcept { return cols_; }
    TESSERA_HOST_DEVICE constexpr std::byte const* data() const noexcept { return data_; }
    TESSERA_HOST_DEVICE constexpr index_t row_slots() const noexcept { return ceil_div(cols_, M) * N; }
    TESSERA_HOST_DEVICE constexpr index_t mean_chunks() const noexcept { return ceil_div(row_slots(), device_rows::chunk); }
    TESSERA_HOST_DEVICE constexpr index_t chunks() const noexcept { return rows_ * mean_chunks(); }
    TESSERA_HOST_DEVICE constexpr index_t nonzeros() const noexcept { return rows_ * (cols_ / M * N + minimum(N, cols_ % M)); }
    TESSERA_HOST_DEVICE constexpr index_t positions_at() const noexcept { return has_scale ? detail::part_bytes(rows_ * 4) : 0; }
    TESSERA_HOST_DEVICE constexpr index_t values_at() const noexcept { return positions_at() + detail::part_bytes(chunks() * position_bits); }
    TESSERA_HOST_DEVICE constexpr index_t bytes() const noexcept {
        return values_at() + detail::part_bytes(chunks() * device_rows::chunk * static_cast<index_t>(sizeof(stored_type)));
    }

private:
    std::byte const* data_ = nullptr;
    index_t rows_ = 0;
    index_t cols_ = 0;
};

namespace detail {

/// The view that a matrix will have at `data`.
template <class T, class G>
prepacked<device_rows, csr<T, G>> device_rows_of(csr<T, G> const& w, std::byte const* data) noexcept {
    index_t chunks = 0;
    index_t longest = 0;
    for (index_t n = 0; n < w.rows(); ++n) {
        index_t const of_row = ceil_div(w.row_end(n) - w.row_begin(n), device_rows::chunk);
        chunks += of_row;
        longest = maximum(longest, of_row);
    }
    return {data, chunks, longest, w.nonzeros(), w.rows(), w.cols()};
}
template <index_t N, index_t M, class T, class G>
prepacked<device_rows, n_of_m<N, M, T, G>> device_rows_of(n_of_m<N, M, T, G> const& w, std::byte const* data) noexcept {
    return {data, w.rows(), w.cols()};
}

/// Writes the layout to zeroed memory of the host.
template <class T, class G>
void pack_device_rows(csr<T, G> const& w, prepacked<device_rows, csr<T, G>> const& to, std::byte* data) noexcept {
    auto* const ranges = reinterpret_cast<row_range*>(data);
    auto* const scales = reinterpret_cast<float*>(data + to.scales_at());
    auto* const values = reinterpret_cast<typename csr<T, G>::stored_type*>(data + to.values_at());
    index_t chunk = 0;
    for (index_t n = 0; n < w.rows(); ++n) {
        index_t const entries = w.row_end(n) - w.row_begin(n);
        ranges[n] = {static_cast<std::uint32_t>(chunk), static_cast<std::uint32_t>(entries)};
        if constexpr (csr<T, G>::has_scale) scales[n] = w.scale(n);
        for (index_t i = 0; i < entries; ++i) {
            index_t const at = chunk * device_rows::chunk + i;
            std::int32_t const column = w.columns()[w.row_begin(n) + i];
            if (to.has_narrow_columns())
                reinterpret_cast<std::uint16_t*>(data + to.columns_at())[at] = static_cast<std::uint16_t>(column);
            else
                reinterpret_cast<std::int32_t*>(data + to.columns_at())[at] = column;
            values[at] = w.values()[w.row_begin(n) + i];
        }
        chunk += ceil_div(entries, device_rows::chunk);
    }
}
template <index_t N, index_t M, class T, class G>
void pack_device_rows(n_of_m<N, M, T, G> const& w, prepacked<device_rows, n_of_m<N, M, T, G>> const& to, std::byte* data) noexcept {
    using storage = n_of_m<N, M, T, G>;
    auto* const scales = reinterpret_cast<float*>(data);
    auto* const values = reinterpret_cast<typename storage::stored_type*>(data + to.values_at());
    for (index_t n = 0; n < w.rows(); ++n) {
        if constexpr (storage::has_scale) scales[n] = w.scale(n);
        auto* const positions = reinterpret_cast<std::uint8_t*>(data + to.positions_at() + n * to.mean_chunks() * storage::position_bits);
        for (index_t s = 0; s < w.row_slots(); ++s) {
            bitpack::set<storage::position_bits>(positions, s, static_cast<std::uint32_t>(w.position(n, s)));
            if (w.column(n, s) < w.cols()) values[n * to.mean_chunks() * device_rows::chunk + s] = w.value(n, s);
        }
    }
}

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
