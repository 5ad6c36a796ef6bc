// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rows of a GEAR cache as floats, for attention on the CPU: codes times scales, outliers over them, then the low-rank terms.

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

} // namespace tessera::inline TESSERA_ABI::detail
