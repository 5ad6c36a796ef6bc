// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Conversion between element types on the CPU: blocks of four registers, the same bits as kernels/ref/convert.hpp.
/// Contiguous rows are read and written in place; ends of rows and strided elements go through a block of their own.

#include "../../core/exec.hpp"
#include "../../core/view.hpp"
#include "../../simd/convert_block.hpp"
#include "../ref/convert.hpp"

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Elements that one parallel chunk converts at least: large against the start of a chunk, small against a cache.
inline constexpr index_t convert_grain = 32768;

/// How far ahead of the loop lines are asked for.
inline constexpr index_t prefetch_bytes = 1024;

/// Outputs of so many bytes pass the caches by: who reads them next finds the first of them gone from most caches anyway, and
/// a line that is written whole need not be read from memory first.
inline constexpr index_t streamed_bytes = index_t{16} << 20;

/// n elements, the first block_size<Arch> at most, `x_step` and `y_step` elements apart.
template <class Arch, overflow Beyond, class X, class Y>
void convert_part(X const* x, index_t x_step, Y* y, index_t y_step, index_t n) noexcept {
    alignas(64) X from[simd::block_size<Arch>];
    alignas(64) Y to[simd::block_size<Arch>];
    std::memset(static_cast<void*>(from), 0, sizeof from);
    for (index_t i = 0; i < n; ++i) from[i] = x[i * x_step];
    simd::store_block<Arch, Beyond>(to, simd::load_block<Arch>(from));
    for (index_t i = 0; i < n; ++i) y[i * y_step] = to[i];
}

/// The longest whole number of blocks of contiguous elements, past the caches, from the first line of y on; returns where it
/// ends, counted from x and y.
template <class Arch, overflow Beyond, class X, class Y>
index_t convert_streamed(X const* x, Y* y, index_t n) noexcept {
    constexpr index_t block = simd::block_size<Arch>;
    auto const behind = static_cast<index_t>(reinterpret_cast<std::uintptr_t>(y) % 64);
    if (behind % index_t{sizeof(Y)} != 0) return 0;
    index_t i = minimum(n, (64 - behind) % 64 / index_t{sizeof(Y)});
    for (index_t k = 0; k < i; k += block)
        convert_part<Arch, Beyond>(x + k, index_t{1}, y + k, index_t{1}, minimum(block, i - k));
    alignas(64) Y to[block];
    for (; i + block <= n; i += block) {
        simd::prefetch_block<Arch>(x + i + prefetch_bytes / index_t{sizeof(X)});
        simd::store_block<Arch, Beyond>(to, simd::load_block<Arch>(x + i));
        simd::stream_block<Arch>(y + i, to);
    }
    simd::end_streaming<Arch>();
    return i;
}

/// A stretch of one row.
template <class Arch, overflow Beyond, class X, class Y>
void convert_row(X const* x, index_t x_step, Y* y, index_t y_step, index_t n, bool is_streamed) noexcept {
    constexpr index_t block = simd::block_size<Arch>;
    index_t i = 0;
    if (x_step == 1 && y_step == 1) {
        if constexpr (std::is_same_v<X, Y> && std::is_same_v<X, float>) {
            std::memcpy(y, x, static_cast<std::size_t>(n) * sizeof(float));
            return;
        }
        if constexpr (simd::has_streaming<Arch>)
            if (is_streamed) i = convert_streamed<Arch, Beyond>(x, y, n);
        for (; i + block <= n; i += block) {
            // The processor's own prefetching stops at every page; this saves up to 40 % of the time from DRAM.
            simd::prefetch_block<Arch>(x + i + prefetch_bytes / index_t{sizeof(X)});
            simd::prefetch_block<Arch>(y + i + prefetch_bytes / index_t{sizeof(Y)});
            simd::store_block<Arch, Beyond>(y + i, simd::load_block<Arch>(x + i));
        }
    }
    for (; i < n; i += block)
        convert_part<Arch, Beyond>(x + i * x_step, x_step, y + i * y_step, y_step, minimum(block, n - i));
}

} // namespace detail

template <class Arch, class Parallel, class X, class Y, overflow Beyond>
struct kernel<op::convert, cpu<Arch, Parallel>, conversion<X, Y, Beyond>> {
    static void run(cpu<Arch, Parallel> const& exec,
                    matrix_view<X const> const& x,      // (m, n)
                    matrix_view<Y> const& y) noexcept { // (m, n)
        index_t rows = x.extent(0);
        index_t columns = x.extent(1);
        if (rows == 0 || columns == 0) return;
        bool const contiguous =
            x.stride(1) == 1 && y.stride(1) == 1 && x.stride(0) == columns && y.stride(0) == columns;
        if (contiguous) {
            columns *= rows;
            rows = 1;
        }
        // A chunk is a piece of a long row, or several short rows.
        index_t const piece = minimum(columns, detail::convert_grain);
        index_t const pieces = ceil_div(columns, piece);
        index_t const grain = maximum(1, detail::convert_grain / piece);
        bool const is_streamed = rows * columns >= detail::streamed_bytes / index_t{sizeof(Y)};
        parallel_for(exec.parallel(), rows * pieces, grain, [&](index_t first, index_t last, index_t) noexcept {
            for (index_t c = first; c < last; ++c) {
                index_t const i = c / pieces;
                index_t const j = c % pieces * piece;
                detail::convert_row<Arch, Beyond>(x.data_handle() + i * x.stride(0) + j * x.stride(1), x.stride(1),
                                                  y.data_handle() + i * y.stride(0) + j * y.stride(1), y.stride(1),
                                                  minimum(piece, columns - j), is_streamed);
            }
        });
    }
};

} // namespace tessera::inline TESSERA_ABI
