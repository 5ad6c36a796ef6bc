// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows of a prepared x in another order on the CPU: copies, so the numbers are those of the source, and an x that several
/// operands share is converted once.

#include "../../core/exec.hpp"
#include "../forms.hpp"
#include "../kernel.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Rows that one chunk copies: about 64 KiB.
constexpr index_t gather_grain(index_t row_bytes) noexcept { return maximum(1, 65536 / maximum(row_bytes, 1)); }

/// Row `to` of one array becomes row `from` of another; `from_step` and `to_step` elements lie between rows. The
/// destination was carved for this; const only for the terms that read it.
template <class T>
void copy_row(T const* source, index_t from_step, index_t from, T const* target, index_t to_step, index_t to,
              index_t count) noexcept {
    if (count > 0)
        std::memcpy(const_cast<T*>(target) + to * to_step, source + from * from_step,
                    static_cast<std::size_t>(count) * sizeof(T));
}

} // namespace detail

template <class Arch, class Parallel, index_t SumGroup, class Preparation>
struct kernel<op::gather, cpu<Arch, Parallel>, float_rows<SumGroup, Preparation>> {
    using type = float_rows<SumGroup, Preparation>;

    template <class Arena>
    static type plan(type const& from, index_t rows, Arena& arena) {
        type to;
        to.rows = rows;
        to.columns = from.columns;
        to.stride = round_up(from.columns, 16);
        to.data = arena.template carve<float>(rows, to.stride);
        if (SumGroup != 0) to.sums = arena.template carve<float>(rows, type::sums_of(to.columns));
        return to;
    }
    static void run(cpu<Arch, Parallel> const& exec, type const& from, index_t const* row, type const& to) noexcept {
        index_t const sums = type::sums_of(to.columns);
        parallel_for(exec.parallel(), to.rows, detail::gather_grain(to.columns * static_cast<index_t>(sizeof(float))),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i) {
                             detail::copy_row(from.data, from.stride, row[i], to.data, to.stride, i, to.columns);
                             detail::copy_row(from.sums, sums, row[i], to.sums, sums, i, sums);
                         }
                     });
    }
};

template <class Arch, class Parallel>
struct kernel<op::gather, cpu<Arch, Parallel>, bf16_rows> {
    template <class Arena>
    static bf16_rows plan(bf16_rows const& from, index_t rows, Arena& arena) {
        return {arena.template carve<bf16>(rows, bf16_rows::stride_of(from.columns)), rows, from.columns};
    }
    static void run(cpu<Arch, Parallel> const& exec, bf16_rows const& from, index_t const* row, bf16_rows const& to) noexcept {
        index_t const width = bf16_rows::stride_of(to.columns);
        parallel_for(exec.parallel(), to.rows, detail::gather_grain(width * static_cast<index_t>(sizeof(bf16))),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i)
                             detail::copy_row(from.data, width, row[i], to.data, width, i, width);
                     });
    }
};

template <class Arch, class Parallel, index_t ScaleGroup, index_t Block>
struct kernel<op::gather, cpu<Arch, Parallel>, int8_rows<ScaleGroup, Block>> {
    using type = int8_rows<ScaleGroup, Block>;

    template <class Arena>
    static type plan(type const& from, index_t rows, Arena& arena) {
        type to;
        to.rows = rows;
        to.columns = from.columns;
        to.codes = arena.template carve<std::int8_t>(rows, type::stride_of(to.columns));
        to.scales = arena.template carve<float>(rows, type::scales_of(to.columns));
        to.sums = arena.template carve<std::int32_t>(rows, type::blocks_of(to.columns));
        to.scaled_sums = arena.template carve<float>(rows, type::blocks_of(to.columns));
        return to;
    }
    static void run(cpu<Arch, Parallel> const& exec, type const& from, index_t const* row, type const& to) noexcept {
        index_t const codes = type::stride_of(to.columns);
        index_t const scales = type::scales_of(to.columns);
        index_t const blocks = type::blocks_of(to.columns);
        parallel_for(exec.parallel(), to.rows, detail::gather_grain(codes),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i) {
                             detail::copy_row(from.codes, codes, row[i], to.codes, codes, i, codes);
                             detail::copy_row(from.scales, scales, row[i], to.scales, scales, i, scales);
                             detail::copy_row(from.sums, blocks, row[i], to.sums, blocks, i, blocks);
                             detail::copy_row(from.scaled_sums, blocks, row[i], to.scaled_sums, blocks, i, blocks);
                         }
                     });
    }
};

} // namespace tessera::inline TESSERA_ABI
