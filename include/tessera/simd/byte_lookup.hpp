// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Look-ups of 64 one-byte codes at once in tables of 256 bytes, four permutations of a register each (AVX-512 VBMI), and what
/// integer products with such codes are made of:
///
/// * `point_tables`: the 256 dot products of a grid's points with a part of x, in planes of bytes;
/// * `byte_sums`: the sums of such planes by rows, looked up 64 rows at a time: a product without multiplications;
/// * `quads_of_points`: codes into bytes of weights, four columns a lane.

#include "amx.hpp"
#include "dot.hpp"
#include "lookup.hpp"

#include <cstddef>
#include <cstdint>

namespace tessera::inline TESSERA_ABI::simd {

/// lanes<Arch> bytes, four and four 16 bytes apart, widened.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> widen_rows(std::byte const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        std::int32_t word[4];
        for (int i = 0; i < 4; ++i) std::memcpy(word + i, p + 16 * i, 4);
        return _mm512_maskz_cvtepu8_epi32(detail::every_lane, _mm_setr_epi32(word[0], word[1], word[2], word[3]));
    }
#endif
    alignas(16) std::uint8_t byte[maximum(lanes<Arch>, 4)];
    for (index_t i = 0; i < lanes<Arch>; i += 4) std::memcpy(byte + i, p + 4 * i, static_cast<std::size_t>(minimum(lanes<Arch>, 4)));
    alignas(64) std::int32_t lane[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) lane[i] = byte[i];
    return ints<Arch>::load_aligned(lane);
}

#if defined(__AVX512VBMI__)
/// Whether an architecture looks bytes up so.
template <class Arch>
inline constexpr bool looks_up_bytes = lanes<Arch> == 16;

/// 64 codes, ready to be looked up.
class byte_codes {
public:
    TESSERA_FORCE_INLINE explicit byte_codes(std::byte const* codes) noexcept
        : code_{_mm512_loadu_si512(codes)}, bit_6_{_mm512_movepi8_mask(_mm512_add_epi8(code_, code_))}, bit_7_{_mm512_movepi8_mask(code_)} {}
    /// table[code], 256 bytes.
    TESSERA_FORCE_INLINE __m512i look_up(std::byte const* table) const noexcept {
        __m512i low = _mm512_maskz_permutexvar_epi8(~__mmask64{0}, code_, _mm512_loadu_si512(table));
        __m512i high = _mm512_maskz_permutexvar_epi8(~__mmask64{0}, code_, _mm512_loadu_si512(table + 128));
        low = _mm512_mask_permutexvar_epi8(low, bit_6_, code_, _mm512_loadu_si512(table + 64));
        high = _mm512_mask_permutexvar_epi8(high, bit_6_, code_, _mm512_loadu_si512(table + 192));
        return _mm512_mask_blend_epi8(bit_7_, low, high);
    }

private:
    __m512i code_;
    __mmask64 bit_6_, bit_7_;
};

namespace detail {

/// Bits of `a` where `mask` has them, else those of `b`.
TESSERA_FORCE_INLINE __m512i choose_bits(std::uint32_t mask, __m512i a, __m512i b) noexcept {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi32(static_cast<int>(mask)), a, b, 0xca);
}
/// v shifted left by Bits, right where it is negative.
template <int Bits>
TESSERA_FORCE_INLINE __m512i shifted(__m512i v) noexcept {
    if constexpr (Bits == 0)
        return v;
    else if constexpr (Bits > 0)
        return _mm512_slli_epi32(v, Bits);
    else
        return _mm512_srli_epi32(v, -Bits);
}
/// Byte Plane of every lane of four registers, side by side.
template <int Plane>
TESSERA_FORCE_INLINE __m512i byte_plane(__m512i const (&v)[4]) noexcept {
    __m512i const low = choose_bits(0xff, shifted<-8 * Plane>(v[0]), shifted<8 - 8 * Plane>(v[1]));
    __m512i const high = choose_bits(0xff0000, shifted<16 - 8 * Plane>(v[2]), shifted<24 - 8 * Plane>(v[3]));
    return choose_bits(0xffff, low, high);
}

} // namespace detail

/// out[plane][c] = byte `plane` of bias + sum over d of (quads[c][d] - 128) x[d] for Quads quads of 256 points each
/// (storage/grid_panels.hpp's order); x is Quads words of four signed bytes whose sum is `sum`.
template <class Arch, int Quads, int Planes>
TESSERA_FORCE_INLINE void point_tables(std::byte const* quads, std::int32_t const (&x)[Quads], std::int32_t sum, std::int32_t bias,
                                       std::byte* out) noexcept {
    for (index_t b = 0; b < 4; ++b) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            ints<Arch> total(bias - 128 * sum);
#pragma GCC unroll 2
            for (int q = 0; q < Quads; ++q)
                total = dot4<8, Arch>(total, load_bytes<Arch>(quads + 1024 * q + (4 * b + i) * 64), ints<Arch>(x[q]));
            v[i] = total;
        }
        _mm512_storeu_si512(out + 64 * b, detail::byte_plane<0>(v));
        if constexpr (Planes > 1) _mm512_storeu_si512(out + 256 + 64 * b, detail::byte_plane<1>(v));
        if constexpr (Planes > 2) _mm512_storeu_si512(out + 512 + 64 * b, detail::byte_plane<2>(v));
    }
}

/// The same of float32 numbers: out[plane][c] = byte `plane` of the float sum over d of points[d][c] x[d].
template <class Arch, int Dims>
TESSERA_FORCE_INLINE void float_tables(float const* points, float const (&x)[Dims], std::byte* out) noexcept {
    for (index_t b = 0; b < 4; ++b) {
        __m512i v[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
            floats<Arch> total = load<Arch>(points + (4 * b + i) * 16) * floats<Arch>(x[0]);
#pragma GCC unroll 8
            for (int d = 1; d < Dims; ++d) total = fma(load<Arch>(points + 256 * d + (4 * b + i) * 16), floats<Arch>(x[d]), total);
            v[i] = _mm512_castps_si512(total);
        }
        _mm512_storeu_si512(out + 64 * b, detail::byte_plane<0>(v));
        _mm512_storeu_si512(out + 256 + 64 * b, detail::byte_plane<1>(v));
        _mm512_storeu_si512(out + 512 + 64 * b, detail::byte_plane<2>(v));
        _mm512_storeu_si512(out + 768 + 64 * b, detail::byte_plane<3>(v));
    }
}
/// Adds the floats of 64 codes to sums in an order that `in_rows` undoes: bytes are paired by shifts, which leave the port of the
/// permutations alone, then pairs by interleaving.
template <class Arch>
TESSERA_FORCE_INLINE void add_looked_up(byte_codes const& codes, std::byte const* tables, floats<Arch> (&sum)[4]) noexcept {
    constexpr std::uint32_t even_bytes = 0x00ff00ff;
    __m512i const a = codes.look_up(tables), b = codes.look_up(tables + 256);
    __m512i const even = detail::choose_bits(even_bytes, a, _mm512_slli_epi16(b, 8));
    __m512i const odd = detail::choose_bits(even_bytes, _mm512_srli_epi16(a, 8), b);
    __m512i const c = codes.look_up(tables + 512), d = codes.look_up(tables + 768);
    __m512i const even_2 = detail::choose_bits(even_bytes, c, _mm512_slli_epi16(d, 8));
    __m512i const odd_2 = detail::choose_bits(even_bytes, _mm512_srli_epi16(c, 8), d);
    sum[0] = sum[0] + floats<Arch>(_mm512_castsi512_ps(_mm512_unpacklo_epi16(even, even_2)));
    sum[1] = sum[1] + floats<Arch>(_mm512_castsi512_ps(_mm512_unpacklo_epi16(odd, odd_2)));
    sum[2] = sum[2] + floats<Arch>(_mm512_castsi512_ps(_mm512_unpackhi_epi16(even, even_2)));
    sum[3] = sum[3] + floats<Arch>(_mm512_castsi512_ps(_mm512_unpackhi_epi16(odd, odd_2)));
}
/// Such sums so that sum[i][4 l + t] is that of byte 16 l + 4 i + t.
template <class Arch>
TESSERA_FORCE_INLINE void in_rows(floats<Arch> (&sum)[4]) noexcept {
    for (int h = 0; h < 4; h += 2) {
        __m512 const even = sum[h], odd = sum[h + 1];
        sum[h] = _mm512_unpacklo_ps(even, odd);
        sum[h + 1] = _mm512_unpackhi_ps(even, odd);
    }
}

/// Sums of 64 rows, of at most 256 look-ups each.
template <int Planes>
class byte_sums {
public:
    TESSERA_FORCE_INLINE byte_sums() noexcept {
        for (int p = 0; p < Planes; ++p) all_[p] = odd_[p] = _mm512_setzero_si512();
    }
    /// Adds tables[code] of each row; planes of 256 bytes.
    TESSERA_FORCE_INLINE void add(byte_codes const& codes, std::byte const* tables) noexcept {
#pragma GCC unroll 3
        for (int p = 0; p < Planes; ++p) {
            __m512i const v = codes.look_up(tables + 256 * p);
            all_[p] = _mm512_add_epi16(all_[p], v); // odd bytes are taken out again at the end, modulo 2^16
            odd_[p] = _mm512_add_epi16(odd_[p], _mm512_srli_epi16(v, 8));
        }
    }
    /// sum[i][4 l + t] = the sum of byte 16 l + 4 i + t, less `bias`.
    template <class Arch>
    TESSERA_FORCE_INLINE void finish(std::int32_t bias, ints<Arch> (&sum)[4]) const noexcept {
        __m512i v[4]; // byte t of every four
        __m512i const low = _mm512_set1_epi32(0xffff);
        for (int t = 0; t < 4; ++t) v[t] = _mm512_set1_epi32(-bias);
#pragma GCC unroll 3
        for (int p = 0; p < Planes; ++p) {
            __m512i const even = _mm512_sub_epi16(all_[p], _mm512_slli_epi16(odd_[p], 8));
            auto const shift = static_cast<unsigned>(8 * p);
            v[0] = _mm512_add_epi32(v[0], _mm512_slli_epi32(_mm512_and_si512(even, low), shift));
            v[1] = _mm512_add_epi32(v[1], _mm512_slli_epi32(_mm512_and_si512(odd_[p], low), shift));
            v[2] = _mm512_add_epi32(v[2], _mm512_slli_epi32(_mm512_srli_epi32(even, 16), shift));
            v[3] = _mm512_add_epi32(v[3], _mm512_slli_epi32(_mm512_srli_epi32(odd_[p], 16), shift));
        }
        __m512i const a = _mm512_unpacklo_epi32(v[0], v[1]), b = _mm512_unpackhi_epi32(v[0], v[1]);
        __m512i const c = _mm512_unpacklo_epi32(v[2], v[3]), d = _mm512_unpackhi_epi32(v[2], v[3]);
        sum[0] = _mm512_unpacklo_epi64(a, c);
        sum[1] = _mm512_unpackhi_epi64(a, c);
        sum[2] = _mm512_unpacklo_epi64(b, d);
        sum[3] = _mm512_unpackhi_epi64(b, d);
    }

private:
    __m512i all_[Planes], odd_[Planes];
};

/// Bytes a, b, c, d of 64 rows: those of byte 16 l + 4 i + t to out + i stride + 4 (4 l + t).
TESSERA_FORCE_INLINE void store_quads(__m512i a, __m512i b, __m512i c, __m512i d, std::byte* out, index_t stride) noexcept {
    __m512i const ab0 = _mm512_unpacklo_epi8(a, b), ab1 = _mm512_unpackhi_epi8(a, b);
    __m512i const cd0 = _mm512_unpacklo_epi8(c, d), cd1 = _mm512_unpackhi_epi8(c, d);
    _mm512_storeu_si512(out, _mm512_unpacklo_epi16(ab0, cd0));
    _mm512_storeu_si512(out + stride, _mm512_unpackhi_epi16(ab0, cd0));
    _mm512_storeu_si512(out + 2 * stride, _mm512_unpacklo_epi16(ab1, cd1));
    _mm512_storeu_si512(out + 3 * stride, _mm512_unpackhi_epi16(ab1, cd1));
}

/// Points of `count` codes of 64 rows as bytes: quads of columns of 16 rows, `stride` from 16 rows to the next. Tables of 256 bytes
/// a component; 128 is added where the bytes are to be unsigned. Columns that fill the last quad up are 0.
template <int Dims, bool IsUnsigned>
TESSERA_FORCE_INLINE void quads_of_points(std::byte const* codes, index_t count, std::byte const* tables, std::byte* out,
                                          index_t stride) noexcept {
    __m512i const flip = IsUnsigned ? _mm512_set1_epi8(-128) : _mm512_setzero_si512();
    auto const at = [&](byte_codes const& code, int d) { return _mm512_xor_si512(code.look_up(tables + 256 * d), flip); };
    if constexpr (Dims == 2) {
        for (index_t j = 0; j < count; j += 2, out += 64) {
            byte_codes const first{codes + 64 * j};
            __m512i c = _mm512_setzero_si512(), d = c;
            if (j + 1 < count) {
                byte_codes const second{codes + 64 * (j + 1)};
                c = at(second, 0);
                d = at(second, 1);
            }
            store_quads(at(first, 0), at(first, 1), c, d, out, stride);
        }
    } else {
        for (index_t j = 0; j < count; ++j) {
            byte_codes const code{codes + 64 * j};
#pragma GCC unroll 2
            for (int d = 0; d < Dims; d += 4, out += 64) store_quads(at(code, d), at(code, d + 1), at(code, d + 2), at(code, d + 3), out, stride);
        }
    }
}
#else
template <class Arch>
inline constexpr bool looks_up_bytes = false;
#endif

#if defined(__AMX_INT8__) && defined(__linux__)
/// c[2 i + j] (16, 16) = a[i] (16, 64 steps) times b[j] (64 steps, 16): signed bytes, `a` in rows a_stride bytes apart, `b` in rows of
/// 64 bytes of four columns; four results share the loads. Within the life of `amx_tiles<64>`.
template <int Rows>
TESSERA_FORCE_INLINE void multiply_tiles(std::int8_t const* const (&a)[Rows], index_t a_stride, std::byte const* const (&b)[2], index_t steps,
                                         std::int32_t* c) noexcept {
    static_assert(Rows == 1 || Rows == 2);
    auto const stride = static_cast<long>(a_stride);
    _tile_zero(0);
    _tile_zero(1);
    if constexpr (Rows == 2) {
        _tile_zero(2);
        _tile_zero(3);
    }
    for (index_t s = 0; s < steps; ++s) {
        _tile_loadd(6, b[0] + 1024 * s, 64);
        _tile_loadd(4, a[0] + 64 * s, stride);
        _tile_dpbssd(0, 4, 6);
        _tile_loadd(7, b[1] + 1024 * s, 64);
        _tile_dpbssd(1, 4, 7);
        if constexpr (Rows == 2) {
            _tile_loadd(5, a[1] + 64 * s, stride);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
    }
    _tile_stored(0, c, 64);
    _tile_stored(1, c + 256, 64);
    if constexpr (Rows == 2) {
        _tile_stored(2, c + 512, 64);
        _tile_stored(3, c + 768, 64);
    }
}
#endif

} // namespace tessera::inline TESSERA_ABI::simd
