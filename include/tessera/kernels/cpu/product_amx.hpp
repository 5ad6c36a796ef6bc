// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Many int8 rows of x times a panel of 16 rows of coded weights, by matrix tiles. The formula, its order of additions
/// and therefore its bits are those of product_int8.hpp; codes are unpacked once, less their zero, to signed bytes.
///
/// Per group of 32 columns and 16 x 16 results: one tile product (16 cycles), and for every row of x a load, a
/// conversion, a product with x's scale and one or two multiply-adds: the vector units, at about 32 cycles, are the limit.

#include "../../simd/amx.hpp"
#include "product_int8.hpp"

namespace tessera::inline TESSERA_ABI::detail {

#if defined(__AMX_INT8__) && defined(__linux__)

/// Columns of one tile step: 64 where segments divide by it.
template <class Weights, class Form>
inline constexpr int amx_depth = [] {
    constexpr index_t scale = Form::scale_group == 0 ? 64 : Form::scale_group;
    constexpr index_t group = Weights::source::group == 0 ? 64 : Weights::source::group;
    return scale % 64 == 0 && group % 64 == 0 ? 64 : 32;
}();

/// Whether tiles serve this pair: codes less their zero fit a signed byte, and groups are whole steps.
template <class Weights, class Form>
inline constexpr bool has_amx_product =
    Weights::layout::rows == 16 && Weights::source::group % 32 == 0 &&
    (Weights::source::offset != offset_kind::zero_point || Weights::source::bits <= 7);

/// Bytes of an unpacked panel: every group in whole steps.
template <class Weights, class Form>
index_t amx_unpacked_bytes(Weights const& w) noexcept {
    return w.groups() * round_up(w.group(), amx_depth<Weights, Form>) * 16;
}

/// One panel as rows of 64 bytes: row q of a group holds columns 4 q .. 4 q + 3 of 16 rows of W, signed.
template <class Arch, class Weights, class Form>
void unpack_panel_amx(Weights const& w, std::byte const* record, std::int8_t* out) noexcept {
    using source = typename Weights::source;
    index_t const padded = round_up(w.group(), amx_depth<Weights, Form>) * 16;
    for (index_t g = 0; g < w.groups(); ++g, out += padded) {
        __m512i zero = _mm512_set1_epi8(static_cast<char>(source::zero));
        if constexpr (source::offset == offset_kind::zero_point) {
            simd::ints<Arch> const z =
                simd::load_zero_points<Arch>(reinterpret_cast<std::uint8_t const*>(record + Weights::scale_bytes));
            zero = _mm512_mullo_epi32(z, _mm512_set1_epi32(0x01010101));
        }
        index_t const vectors = Weights::vectors(w.group_columns(g));
        std::byte const* codes = record + Weights::header_bytes;
        std::int8_t* to = out;
        for (index_t v = 0; v < vectors; ++v, codes += 64) {
            simd::prefetch(codes + prefetch_distance);
            __m512i const word = _mm512_loadu_si512(codes);
            if constexpr (Weights::width == 4) {
                __m512i const mask = _mm512_set1_epi8(15);
                _mm512_store_si512(to, _mm512_sub_epi8(_mm512_and_si512(word, mask), zero));
                _mm512_store_si512(to + 64, _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(word, 4), mask), zero));
                to += 128;
            } else {
                _mm512_store_si512(to, _mm512_sub_epi8(word, zero));
                to += 64;
            }
        }
        for (; to < out + padded; to += 64) _mm512_store_si512(to, _mm512_setzero_si512());
        record += Weights::record_bytes(w.group_columns(g));
    }
}

/// result[i][lane] for rows m .. m + 16 of x and the 16 rows of a panel that `unpack_panel_amx` unpacked to `codes`.
template <class Arch, class Weights, class Form, class Tiles>
void product_block_amx(Tiles const& tiles, Weights const& w, std::byte const* record, std::int8_t const* codes,
                       Form const& x, index_t m, simd::floats<Arch> (&result)[16]) noexcept {
    using source = typename Weights::source;
    using floats = simd::floats<Arch>;
    constexpr bool token_scale = Form::scale_group == 0;
    constexpr int depth = amx_depth<Weights, Form>;
    alignas(64) std::int32_t sums[2][16 * 16];
    index_t const x_stride = Form::stride_of(x.columns);
    index_t const padded = round_up(w.group(), depth) * 16;
    for (floats& r : result) r = floats(0.0f);
    int turn = 0;
    for (index_t g = 0; g < w.groups(); ++g, codes += padded) {
        index_t const columns = w.group_columns(g);
        constexpr index_t longest = longest_segment<source, Form>;
        floats const scale = record_floats<Arch, Weights>(record);
        floats total[16];
        bool const one_segment = columns <= longest;
        for (index_t k = 0; k < columns; k += longest) {
            index_t const first = g * w.group() + k;
            std::int32_t* const sum = sums[turn ^= 1];
            tiles.product(x.row(m) + first, x_stride, codes + k * 16, ceil_div(minimum(longest, columns - k), depth), sum);
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i) {
                floats const f = xsimd::to_float(simd::ints<Arch>::load_aligned(sum + 16 * i));
                floats const before = k == 0 ? floats(0.0f) : total[i];
                if constexpr (token_scale) {
                    total[i] = before + f;
                } else {
                    floats const x_scale(x.scale(m + i, first / maximum(Form::scale_group, 1)));
                    total[i] = k == 0 ? f * x_scale : xsimd::fma(f, x_scale, before);
                }
                if (one_segment) result[i] = xsimd::fma(total[i], scale, result[i]);
            }
        }
        if (!one_segment)
            for (int i = 0; i < 16; ++i) result[i] = xsimd::fma(total[i], scale, result[i]);
        if constexpr (source::offset == offset_kind::minimum) {
            floats const offset = record_floats<Arch, Weights>(record + Weights::scale_bytes);
#pragma GCC unroll 16
            for (int i = 0; i < 16; ++i)
                result[i] = xsimd::fma(offset, floats(x.scaled_sum(m + i, g * w.group(), columns)), result[i]);
        }
        record += Weights::record_bytes(columns);
    }
    if constexpr (token_scale)
        for (int i = 0; i < 16; ++i) result[i] = result[i] * floats(x.scale(m + i, 0));
}

#endif

} // namespace tessera::inline TESSERA_ABI::detail
