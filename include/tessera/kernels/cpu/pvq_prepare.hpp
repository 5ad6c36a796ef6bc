// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x into points of a pyramid on the CPU: `kernel<op::prepare, cpu, pvq_rows>`. Scalar, in double, a row at a time: about ten
/// nanoseconds a value with N = 32, which pays with many rows of W.

#include "../pvq_rows.hpp"
#include "gather.hpp"
#include "prepare.hpp"

#include <cstring>

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, class Format, index_t Block>
struct kernel<op::prepare, cpu<Arch, Parallel>, pvq_rows<Format, Block>> {
    using type = pvq_rows<Format, Block>;
    using base = kernel<op::prepare, cpu<Arch, Parallel>, typename type::base>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        return {base::plan(x, arena)};
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        parallel_for(exec.parallel(), form.rows, detail::prepare_grain(8 * form.columns),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t m = first; m < last; ++m) row(x, m, form);
                     });
    }

private:
    template <class T>
    static void row(matrix_view<T const> const& x, index_t m, type const& form) noexcept {
        // The arrays were carved for this call; const only for the terms that read them.
        auto* const codes = const_cast<std::int8_t*>(form.row(m));
        auto* const scales = const_cast<float*>(form.scales) + m * type::scales_of(form.columns);
        auto* const sums = const_cast<std::int32_t*>(form.row_sums(m));
        auto* const scaled_sums = const_cast<float*>(form.scaled_sums) + m * type::blocks_of(form.columns);
        std::memset(codes, 0, static_cast<std::size_t>(type::stride_of(form.columns)));
        for (index_t b = 0; b < type::blocks_of(form.columns); ++b) sums[b] = 0;
        for (index_t first = 0; first < form.columns; first += Format::group) {
            alignas(64) float staged[Format::group];
            std::int8_t p[Format::group];
            index_t const count = minimum(Format::group, form.columns - first);
            float const* const values = detail::float_span<Arch>(x, m, first, first + count, staged);
            float const scale = detail::pvq_activation<Format>(values, count, p);
            scales[first / Format::group] = scale;
            for (index_t k = 0; k < count; ++k) {
                index_t const block = (first + k) / Block;
                codes[block * type::padded_block + (first + k) % Block] = p[k];
                sums[block] += p[k];
            }
        }
        for (index_t b = 0; b < type::blocks_of(form.columns); ++b)
            scaled_sums[b] = static_cast<float>(sums[b]) * scales[b * Block / Format::group];
    }
};

/// Rows in another order are rows of int8.
template <class Arch, class Parallel, class Format, index_t Block>
struct kernel<op::gather, cpu<Arch, Parallel>, pvq_rows<Format, Block>> {
    using type = pvq_rows<Format, Block>;
    using base = kernel<op::gather, cpu<Arch, Parallel>, typename type::base>;

    template <class Arena>
    static type plan(type const& from, index_t rows, Arena& arena) {
        return {base::plan(from, rows, arena)};
    }
    static void run(cpu<Arch, Parallel> const& exec, type const& from, index_t const* row, type const& to) noexcept {
        base::run(exec, from, row, to);
    }
};

} // namespace tessera::inline TESSERA_ABI
