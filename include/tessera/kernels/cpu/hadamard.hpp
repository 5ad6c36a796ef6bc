// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Randomised Hadamard transforms on the CPU, in float32, rows in parallel: butterflies inside registers, then of 8 registers
/// at a time, n log2 n additions with a pass over the row for every 8-fold of its length; then, where the order has a block B,
/// B sums of B registers. Signs and the factor are one multiplication at the beginning or the end. Bytes and work of a row of
/// 4096 numbers: three passes of 16 KiB in the first-level cache and 49 K additions, 3 K instructions with AVX-512.

#include "../../core/view.hpp"
#include "../../simd/butterfly.hpp"
#include "../hadamard.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Sums and differences of Radix registers `h` registers apart, over all of z (v registers). First: and inside them.
template <class Arch, int Radix, bool First>
void hadamard_pass(float* z, index_t v, index_t h) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t lanes = simd::lanes<Arch>;
    for (index_t base = 0; base < v; base += Radix * h)
        for (index_t j = base; j < base + h; ++j) {
            floats r[Radix];
#pragma GCC unroll 8
            for (int i = 0; i < Radix; ++i) {
                r[i] = simd::load<Arch>(z + (j + i * h) * lanes);
                if constexpr (First) r[i] = simd::walsh_hadamard<Arch>(r[i]);
            }
#pragma GCC unroll 3
            for (int d = 1; d < Radix; d *= 2)
#pragma GCC unroll 8
                for (int i = 0; i < Radix; ++i)
                    if ((i & d) == 0) {
                        floats const low = r[i];
                        r[i] = low + r[i + d];
                        r[i + d] = low - r[i + d];
                    }
#pragma GCC unroll 8
            for (int i = 0; i < Radix; ++i) simd::store<Arch>(z + (j + i * h) * lanes, r[i]);
        }
}

/// z = H z for a power of two.
template <class Arch>
void walsh_hadamard_row(float* z, index_t n) noexcept {
    constexpr index_t lanes = simd::lanes<Arch>;
    if (n < lanes) {
        for (index_t h = 1; h < n; h *= 2)
            for (index_t i = 0; i < n; ++i)
                if ((i & h) == 0) {
                    float const low = z[i];
                    z[i] = low + z[i + h];
                    z[i + h] = low - z[i + h];
                }
        return;
    }
    index_t const v = n / lanes;
    index_t h = 1;
    bool first = true;
    while (first || h < v) {
        index_t const left = v / h;
        if (left >= 8) {
            first ? hadamard_pass<Arch, 8, true>(z, v, h) : hadamard_pass<Arch, 8, false>(z, v, h);
            h *= 8;
        } else if (left >= 4) {
            first ? hadamard_pass<Arch, 4, true>(z, v, h) : hadamard_pass<Arch, 4, false>(z, v, h);
            h *= 4;
        } else if (left >= 2) {
            first ? hadamard_pass<Arch, 2, true>(z, v, h) : hadamard_pass<Arch, 2, false>(z, v, h);
            h *= 2;
        } else {
            hadamard_pass<Arch, 1, true>(z, v, 1);
        }
        first = false;
    }
}

/// z = (H_B (x) 1) z, or its transpose: parts of `power` numbers are summed with the block's signs, a register at a time.
template <class Arch>
void hadamard_block_row(hadamard_shape const& s, float const* block, float* z) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t lanes = simd::lanes<Arch>;
    alignas(64) float column[quadratic_character::most * lanes];
    index_t const along = s.is_transposed ? s.block : 1;
    index_t const across = s.is_transposed ? 1 : s.block;
    for (index_t j = 0; j < s.power; j += lanes) {
        index_t const count = minimum(lanes, s.power - j);
        for (index_t b = 0; b < s.block; ++b)
            simd::load_partial<Arch>(z + b * s.power + j, count).store_aligned(column + b * lanes);
        for (index_t b = 0; b < s.block; b += 4) {
            floats sum[4] = {floats(0.0f), floats(0.0f), floats(0.0f), floats(0.0f)};
            for (index_t c = 0; c < s.block; ++c) {
                floats const value = floats::load_aligned(column + c * lanes);
#pragma GCC unroll 4
                for (int i = 0; i < 4; ++i) sum[i] = simd::fma(value, floats(block[(b + i) * across + c * along]), sum[i]);
            }
            for (int i = 0; i < 4; ++i) simd::store_partial<Arch>(z + (b + i) * s.power + j, sum[i], count);
        }
    }
}

/// The tables that the rows share: the factor times the signs, and the block.
inline void fill_hadamard_tables(hadamard_shape const& s, float factor, float* tables) noexcept {
    index_t const n = s.padded();
    for (index_t i = 0; i < n; i += 32) {
        std::uint32_t const bits = s.has_signs ? philox{s.seed}.bits(static_cast<std::uint64_t>(i / 32)) : 0;
        for (index_t j = i; j < minimum(i + 32, n); ++j) tables[j] = (bits >> (j % 32) & 1u) != 0 ? -factor : factor;
    }
    fill_hadamard_block(s.block, tables + round_up(n, 16));
}

/// One row in place: z has s.padded() numbers.
template <class Arch>
void hadamard_row(hadamard_shape const& s, float const* tables, float* z) noexcept {
    float const* const block = tables + round_up(s.padded(), 16);
    if (!s.is_transposed)
        for (index_t i = 0; i < s.padded(); ++i) z[i] *= tables[i];
    for (index_t first = 0; first < s.padded(); first += s.group) {
        for (index_t b = 0; b < s.block; ++b) walsh_hadamard_row<Arch>(z + first + b * s.power, s.power);
        if (s.block > 1) hadamard_block_row<Arch>(s, block, z + first);
    }
    if (s.is_transposed)
        for (index_t i = 0; i < s.padded(); ++i) z[i] *= tables[i];
}

} // namespace detail

template <class Arch, class Parallel>
struct kernel<op::hadamard, cpu<Arch, Parallel>, float> {
    using exec_type = cpu<Arch, Parallel>;

    /// Floats that each worker needs where y is not float32 with contiguous rows of whole groups.
    static index_t row_floats(detail::hadamard_shape const& s) noexcept { return round_up(s.padded(), 16); }

    /// x (m, s.cols()), y (m, s.rows()), which may be x. @param tables s.table_floats(); @param rows row_floats(s) a worker.
    template <class X, class Y>
    static void run(exec_type const& exec, detail::hadamard_shape const& s, float factor, matrix_view<X const> const& x,
                    matrix_view<Y> const& y, float* tables, float* rows) noexcept {
        detail::fill_hadamard_tables(s, factor, tables);
        bool const in_place = std::is_same_v<Y, float> && has_unit_stride(y) && s.rows() == s.padded();
        parallel_for(exec.parallel(), x.extent(0), detail::prepare_grain(s.padded()),
                     [&](index_t first, index_t last, index_t worker) noexcept {
                         for (index_t m = first; m < last; ++m) {
                             float* z = rows + worker * row_floats(s);
                             if constexpr (std::is_same_v<Y, float>)
                                 if (in_place) z = y.data_handle() + m * y.stride(0);
                             float const* const from = detail::float_span<Arch>(x, m, 0, s.cols(), z);
                             if (from != z) std::memmove(z, from, static_cast<std::size_t>(s.cols()) * sizeof(float));
                             for (index_t i = s.cols(); i < s.padded(); ++i) z[i] = 0.0f;
                             detail::hadamard_row<Arch>(s, tables, z);
                             if (!in_place)
                                 for (index_t i = 0; i < s.rows(); ++i) y(m, i) = static_cast<Y>(z[i]);
                         }
                     });
    }
};

} // namespace tessera::inline TESSERA_ABI
