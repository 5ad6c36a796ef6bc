// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// x into `float_panels`: squares of R rows by R columns (R = float lanes) are turned in registers.

#include "../../simd/transpose.hpp"
#include "../float_columns.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, index_t Width, index_t Chunk, class Preparation>
struct kernel<op::prepare, cpu<Arch, Parallel>, float_panels<Width, Chunk, Preparation>> {
    using type = float_panels<Width, Chunk, Preparation>;
    static constexpr index_t R = simd::lanes<Arch>;

    template <class T, class Arena>
    static type plan(matrix_view<T const> const& x, Arena& arena) {
        type form;
        form.rows = x.extent(0);
        form.columns = x.extent(1);
        if (form.rows >= type::fewest_rows) form.data = arena.template carve<float>(form.padded_rows(), maximum(form.columns, 1));
        return form;
    }

    template <class T>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<T const> const& x, type const& form) noexcept {
        if (!form.exists()) return;
        parallel_for(exec.parallel(), form.padded_rows() / Width, detail::prepare_grain(Width * form.columns),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t m = first * Width; m < last * Width; m += Width)
                             for (index_t k = 0; k < form.columns; k += type::chunk)
                                 for (index_t i = 0; i < Width; i += R) block(x, form, m, i, k, minimum(k + type::chunk, form.columns));
                     });
    }

private:
    /// Columns [k, end) of a chunk, rows i and on of the block that begins at m.
    template <class T>
    static void block(matrix_view<T const> const& x, type const& form, index_t m, index_t i, index_t k, index_t end) noexcept {
        alignas(64) float square[R * R];
        alignas(64) float turned[R * R];
        index_t const rows = minimum(R, Width - i);
        float* out = const_cast<float*>(form.at(m, k)) + i; // carved for this call; const only for the terms that read it
        for (index_t r = 0; r < R; ++r) simd::store<Arch>(square + r * R, simd::floats<Arch>(0.0f));
        for (; k < end; k += R) {
            index_t const columns = minimum(R, end - k);
            for (index_t r = 0; r < minimum(rows, form.rows - m - i); ++r) {
                float* const row = square + r * R;
                float const* const from = detail::float_span<Arch>(x, m + i + r, k, k + columns, row);
                if (from != row) simd::store<Arch>(row, simd::load_partial<Arch>(from, columns));
                if constexpr (std::is_same_v<Preparation, as_bf16>)
                    for (index_t c = 0; c < columns; ++c) row[c] = static_cast<float>(static_cast<bf16>(row[c]));
            }
            simd::transpose<Arch>(square, R, 1.0f, turned, R);
            for (index_t c = 0; c < columns; ++c, out += Width)
                simd::store_partial<Arch>(out, simd::load<Arch>(turned + c * R), rows);
        }
    }
};

/// Rows in another order are read as rows.
template <class Arch, class Parallel, index_t Width, index_t Chunk, class Preparation>
struct kernel<op::gather, cpu<Arch, Parallel>, float_panels<Width, Chunk, Preparation>> {
    using type = float_panels<Width, Chunk, Preparation>;
    template <class Arena>
    static type plan(type const& from, index_t rows, Arena&) noexcept {
        return from.slice(0, rows);
    }
    static void run(cpu<Arch, Parallel> const&, type const&, index_t const*, type const&) noexcept {}
};

} // namespace tessera::inline TESSERA_ABI
