// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows of a GEAR cache as floats, for attention on the CPU: codes times scales, outliers over them, then the low-rank terms.
///
/// Decoding keeps these terms apart, X = D + A B: scores get (q Bᵀ) Aᵀ, outputs (p A) B, `rank` multiply-adds a key and row of queries
/// instead of rank times dim a key. A tile's D is decoded with its channels' scales in registers.

#include "../../numerics/int_format.hpp"
#include "../../simd/unpack.hpp"
#include "../../storage/gear_rows.hpp"
#include "attention_tile.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Codes of a row as floats.
template <class Arch, int Bits>
void unpack_gear_codes(std::uint8_t const* codes, index_t n, float* to) noexcept {
    constexpr index_t width = simd::lanes<Arch>;
    index_t i = 0;
    if constexpr (simd::has_unpack<Arch, Bits>)
        for (; i + width <= n; i += width)
            simd::store<Arch>(to + i, simd::unpack_values<Arch, small_integer<Bits, signedness::is_unsigned>>(codes + i * Bits / 8));
    for (; i < n; ++i) to[i] = static_cast<float>(bitpack::get<Bits>(codes, i));
}

/// Codes of a row times scales.
template <class Arch, int Bits, class T>
void decode_gear_row(gear_row<T> const& r, index_t dim, float* to) noexcept {
    constexpr index_t width = simd::lanes<Arch>;
    if constexpr (simd::has_unpack<Arch, Bits>)
        if (r.group % width == 0 && dim % width == 0) {
            for (index_t g = 0, d = 0; d < dim; ++g) {
                simd::floats<Arch> const scale(static_cast<float>(r.scales[g])), low(static_cast<float>(r.lows[g]));
                for (index_t const end = minimum(d + r.group, dim); d < end; d += width) {
                    auto const x = simd::unpack_values<Arch, small_integer<Bits, signedness::is_unsigned>>(r.codes + d * Bits / 8);
                    simd::store<Arch>(to + d, simd::fma(x, scale, low));
                }
            }
            return;
        }
    unpack_gear_codes<Arch, Bits>(r.codes, dim, to);
    if (r.group == 1)
        simd::for_each<Arch>(dim, [&](index_t i, index_t count) noexcept {
            auto const x = simd::fma(simd::load_partial<Arch>(to + i, count), simd::load_partial<Arch>(r.scales + i, count),
                                     simd::load_partial<Arch>(r.lows + i, count));
            simd::store_partial<Arch>(to + i, x, count);
        });
    else
        for (index_t d = 0; d < dim; d += r.group) {
            simd::floats<Arch> const scale(static_cast<float>(r.scales[d / r.group])), low(static_cast<float>(r.lows[d / r.group]));
            simd::for_each<Arch>(minimum(r.group, dim - d), [&](index_t i, index_t count) noexcept {
                simd::store_partial<Arch>(to + d + i, simd::fma(simd::load_partial<Arch>(to + d + i, count), scale, low), count);
            });
        }
}

template <class Arch, int Bits, class T>
void stage_row(kv_rows<gear_code<Bits, T> const> const& rows, index_t head, index_t slot, index_t first, index_t n,
               float* to) noexcept {
    index_t const dim = rows.dim;
    if (n != dim) {
        for (index_t d = 0; d < n; ++d) to[d] = rows(head, slot, first + d);
        return;
    }
    if (rows.is_tail(slot)) return read_row<Arch>(rows.tail_row(head, slot, dim), 1, dim, 1.0f, to);
    gear_row<T> const r = rows.compressed_row(head, slot, dim);
    decode_gear_row<Arch, Bits>(r, dim, to);
    for (index_t i = 0; i < r.outliers; ++i) to[r.dims[i]] = static_cast<float>(r.exact[i]);
    for (index_t j = 0; j < r.rank; ++j) {
        simd::floats<Arch> const a(static_cast<float>(r.a[j]));
        T const* const b = r.b + j * dim;
        simd::for_each<Arch>(dim, [&](index_t i, index_t count) noexcept {
            simd::store_partial<Arch>(to + i, simd::fma(a, simd::load_partial<Arch>(b + i, count), simd::load_partial<Arch>(to + i, count)),
                                      count);
        });
    }
}

/// Calls f(block, first, last) for the tokens of [slot, slot + n), counted from `slot`, that share a block and, of keys, scales.
template <int Bits, class T, class F>
void for_each_gear_run(kv_rows<gear_code<Bits, T> const> const& rows, index_t slot, index_t n, F const& f) noexcept {
    index_t const last = minimum(slot + n, rows.compressed);
    for (index_t s = slot, end = slot; s < last; s = end) {
        gear_block<T> const& block = rows.blocks[rows.block_of[s / rows.chunk]];
        index_t const t = s - block.first;
        index_t const whole = block.row_groups > 0 ? block.tokens : minimum((t / block.group + 1) * block.group, block.tokens);
        end = minimum(last, block.first + whole);
        f(block, s - slot, end - slot);
    }
}

/// Codes times scales of n keys that share them, the first at `row`.
template <class Arch, int Bits, class T>
void decode_gear_keys(gear_row<T> const& row, index_t dim, index_t n, float* to) noexcept {
    constexpr index_t width = simd::lanes<Arch>;
    index_t const bytes = bitpack::bytes(dim, Bits);
    index_t d = 0;
    if constexpr (simd::has_unpack<Arch, Bits>)
        for (; d + width <= dim; d += width) {
            auto const scale = simd::load<Arch>(row.scales + d), low = simd::load<Arch>(row.lows + d);
            std::uint8_t const* const codes = row.codes + d * Bits / 8;
            for (index_t i = 0; i < n; ++i) {
                auto const x = simd::unpack_values<Arch, small_integer<Bits, signedness::is_unsigned>>(codes + i * bytes);
                simd::store<Arch>(to + i * dim + d, simd::fma(x, scale, low));
            }
        }
    for (; d < dim; ++d)
        for (index_t i = 0; i < n; ++i)
            to[i * dim + d] = std::fma(static_cast<float>(bitpack::get<Bits>(row.codes + i * bytes, d)), static_cast<float>(row.scales[d]),
                                       static_cast<float>(row.lows[d]));
}

/// n rows from `slot` on without their low-rank terms: to[i * dim + d].
template <class Arch, int Bits, class T>
void stage_without_low_rank(kv_rows<gear_code<Bits, T> const> const& rows, index_t head, index_t slot, index_t n, float* to) noexcept {
    index_t const dim = rows.dim;
    for_each_gear_run(rows, slot, n, [&](gear_block<T> const& block, index_t first, index_t last) noexcept {
        gear_row<T> row = rows.compressed_row(head, slot + first, dim);
        if (block.row_groups == 0) decode_gear_keys<Arch, Bits>(row, dim, last - first, to + first * dim);
        std::uint32_t const* const starts = block.starts.data();
        index_t const before = head * block.tokens + slot - block.first; // row of token `slot`, which an earlier block may have
        for (index_t i = first; i < last; ++i) {
            if (block.row_groups > 0) {
                decode_gear_row<Arch, Bits>(row, dim, to + i * dim);
                row.codes += bitpack::bytes(dim, Bits);
                row.scales += block.row_groups;
                row.lows += block.row_groups;
            }
            for (std::uint32_t o = starts[before + i]; o < starts[before + i + 1]; ++o) to[i * dim + block.dims[o]] = static_cast<float>(block.exact[o]);
        }
    });
    for (index_t i = maximum(rows.compressed - slot, 0); i < n; ++i)
        read_row<Arch>(rows.tail_row(head, slot + i, dim), 1, dim, 1.0f, to + i * dim);
}

/// Columns of A for tokens of one block: to[j * stride + i] is that of token first + i and rank j.
template <class T>
void turn_gear_factor(T const* a, index_t rank, index_t ranks, index_t n, float* to, index_t stride) noexcept {
    for (index_t i = 0; i < n; ++i)
        for (index_t j = 0; j < ranks; ++j) to[j * stride + i] = static_cast<float>(a[i * rank + j]);
}

/// Calls f(ranks, columns of A, B of the first of them, first, last) for the low-rank terms of n <= 64 rows from `slot` on.
template <int Bits, class T, class F>
void for_each_gear_term(kv_rows<gear_code<Bits, T> const> const& rows, index_t head, index_t slot, index_t n, F const& f) noexcept {
    constexpr index_t most = 8, stride = 64; // ranks at a time, tokens of a tile
    for_each_gear_run(rows, slot, n, [&](gear_block<T> const& block, index_t first, index_t last) noexcept {
        index_t const row = head * block.tokens + slot + first - block.first;
        for (index_t j = 0; j < block.rank; j += most) {
            alignas(64) float columns[most * stride];
            index_t const ranks = minimum(most, block.rank - j);
            turn_gear_factor(block.a.data() + row * block.rank + j, block.rank, ranks, last - first, columns, stride);
            f(ranks, columns, block.b.data() + (head * block.rank + j) * rows.dim, first, last);
        }
    });
}

/// s[r * stride + i] += (q(r) Bᵀ) Aᵀ(i) for n rows from `slot` on.
template <class Arch, int Bits, class T>
void add_low_rank_scores(kv_rows<gear_code<Bits, T> const> const& rows, index_t head, index_t slot, index_t n, float const* q,
                         index_t q_stride, index_t queries, float* s, index_t stride) noexcept {
    for_each_gear_term(rows, head, slot, n, [&](index_t ranks, float const* a, T const* b, index_t first, index_t last) noexcept {
        for (index_t r = 0; r < queries; ++r)
            for (index_t j = 0; j < ranks; ++j) {
                float const* const x = q + r * q_stride;
                T const* const y = b + j * rows.dim;
                simd::floats<Arch> const w(simd::sum<Arch>(rows.dim, [&](index_t i, index_t count) noexcept {
                    return simd::load_partial<Arch>(x + i, count) * simd::load_partial<Arch>(y + i, count);
                }));
                float* const to = s + r * stride + first;
                simd::for_each<Arch>(last - first, [&](index_t i, index_t count) noexcept {
                    simd::store_partial<Arch>(to + i, simd::fma(w, simd::load_partial<Arch>(a + j * 64 + i, count),
                                                                simd::load_partial<Arch>(to + i, count)), count);
                });
            }
    });
}

/// o(r) += (p(r) A) B for n rows from `slot` on; p(r, i) at p[r * stride + i].
template <class Arch, int Bits, class T>
void add_low_rank_values(kv_rows<gear_code<Bits, T> const> const& rows, index_t head, index_t slot, index_t n, float const* p,
                         index_t stride, index_t queries, float* o, index_t o_stride) noexcept {
    for_each_gear_term(rows, head, slot, n, [&](index_t ranks, float const* a, T const* b, index_t first, index_t last) noexcept {
        for (index_t r = 0; r < queries; ++r)
            for (index_t j = 0; j < ranks; ++j) {
                float const* const x = p + r * stride + first;
                simd::floats<Arch> const w(simd::sum<Arch>(last - first, [&](index_t i, index_t count) noexcept {
                    return simd::load_partial<Arch>(x + i, count) * simd::load_partial<Arch>(a + j * 64 + i, count);
                }));
                float* const to = o + r * o_stride;
                T const* const y = b + j * rows.dim;
                simd::for_each<Arch>(rows.dim, [&](index_t i, index_t count) noexcept {
                    simd::store_partial<Arch>(to + i, simd::fma(w, simd::load_partial<Arch>(y + i, count),
                                                                simd::load_partial<Arch>(to + i, count)), count);
                });
            }
    });
}

} // namespace tessera::inline TESSERA_ABI::detail
