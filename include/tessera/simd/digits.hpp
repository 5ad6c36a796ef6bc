// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Products of floats with signed bytes on matrix tiles (amx.hpp) that keep the floats' precision: 16 numbers, or a row of
/// them, become 30-bit integers with one power of two for all, and these 4 signed digits to the base 256,
///
///     x = unit * (d0 + 256 d1 + 256^2 d2 + 256^3 d3) + error,   |error| <= 2^-30 max |x|
///
/// which are 4 rows or columns of an operand. Sums of digits times bytes are exact in 32 bits; two of them are put together as
/// integers, so that what float32 rounds is the result and 2^-16 of it.

#include "amx.hpp"

#include <atomic>
#include <bit>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>

namespace tessera::inline TESSERA_ABI::simd {

/// A power of two to multiply with, and its reciprocal, both normal numbers.
struct fixed_point_scale {
    float factor;
    float unit;
};
/// That which makes 30-bit integers of numbers up to the one with these bits, finite and not negative. Numbers that are all
/// below 2^-97 keep fewer bits.
constexpr fixed_point_scale fixed_point_of(std::uint32_t largest) noexcept {
    std::uint32_t const exponent = 283u - (largest >> 23);
    std::uint32_t const biased = exponent < 253u ? exponent : 253u;
    return {std::bit_cast<float>(biased << 23), std::bit_cast<float>((254u - biased) << 23)};
}
/// The bits of infinity: those of larger numbers that are no NaN.
inline constexpr std::uint32_t infinity_bits = 0x7f800000u;

#if defined(__AMX_INT8__) && defined(__linux__) && defined(__AVX512BW__)

/// Whether there are such products at compile time; `amx_is_allowed` says whether there are when the program runs.
template <class Arch>
inline constexpr bool multiplies_digits = std::is_base_of_v<avx512_amx, Arch>;

namespace detail {

/// Registers that four lanes of 128 bits make up, as columns.
TESSERA_FORCE_INLINE void transpose_lanes(__m512 const (&x)[4], __m512 (&out)[4]) noexcept {
    __m512 const a = _mm512_maskz_shuffle_f32x4(every_lane, x[0], x[1], 0x44);
    __m512 const b = _mm512_maskz_shuffle_f32x4(every_lane, x[0], x[1], 0xee);
    __m512 const c = _mm512_maskz_shuffle_f32x4(every_lane, x[2], x[3], 0x44);
    __m512 const d = _mm512_maskz_shuffle_f32x4(every_lane, x[2], x[3], 0xee);
    out[0] = _mm512_maskz_shuffle_f32x4(every_lane, a, c, 0x88);
    out[1] = _mm512_maskz_shuffle_f32x4(every_lane, a, c, 0xdd);
    out[2] = _mm512_maskz_shuffle_f32x4(every_lane, b, d, 0x88);
    out[3] = _mm512_maskz_shuffle_f32x4(every_lane, b, d, 0xdd);
}

/// Digit j of number 4 l + i is byte 16 l + 4 j + i. |x| factor < 2^30.
TESSERA_FORCE_INLINE __m512i digits_of(__m512 x, __m512 factor) noexcept {
    __m512i const order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i const half = _mm512_set1_epi32(0x00808080);
    __m512i const whole = _mm512_maskz_cvtps_epi32(detail::every_lane, _mm512_mul_ps(x, factor));
    return _mm512_maskz_shuffle_epi8(~0ull, _mm512_xor_si512(_mm512_add_epi32(whole, half), half), order);
}
TESSERA_FORCE_INLINE __m512i digits_of(__m512 x, float factor) noexcept { return digits_of(x, _mm512_set1_ps(factor)); }

/// 16 columns of k of one row as digits in the operand B: bytes 16 row to 16 row + 15 of 4 rows of 64.
TESSERA_FORCE_INLINE void store_digit_columns(__m512i digits, int row, std::int8_t* b) noexcept {
    b += 16 * row;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(b), _mm512_castsi512_si128(digits));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(b + 64), _mm512_maskz_extracti32x4_epi32(0xf, digits, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(b + 128), _mm512_maskz_extracti32x4_epi32(0xf, digits, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(b + 192), _mm512_maskz_extracti32x4_epi32(0xf, digits, 3));
}
/// 64 numbers as digits in the operand A: 4 rows of 64 bytes, digit j in row j. Numbers 16 b + 4 l to 16 b + 4 l + 3 are columns
/// 4 (4 l + b) to 4 (4 l + b) + 3.
TESSERA_FORCE_INLINE void store_digit_rows(__m512i const (&digits)[4], std::int8_t* a) noexcept {
    constexpr auto every = every_lane;
    __m512i const low0 = _mm512_maskz_unpacklo_epi32(every, digits[0], digits[1]);
    __m512i const high0 = _mm512_maskz_unpackhi_epi32(every, digits[0], digits[1]);
    __m512i const low1 = _mm512_maskz_unpacklo_epi32(every, digits[2], digits[3]);
    __m512i const high1 = _mm512_maskz_unpackhi_epi32(every, digits[2], digits[3]);
    _mm512_store_si512(a, _mm512_maskz_unpacklo_epi64(0xff, low0, low1));
    _mm512_store_si512(a + 64, _mm512_maskz_unpackhi_epi64(0xff, low0, low1));
    _mm512_store_si512(a + 128, _mm512_maskz_unpacklo_epi64(0xff, high0, high1));
    _mm512_store_si512(a + 192, _mm512_maskz_unpackhi_epi64(0xff, high0, high1));
}

/// d0 + 256 d1, sums of digits: exact in float32 each (below 2^23), so that this is rounded once.
TESSERA_FORCE_INLINE __m512 add_digits(__m512i d0, __m512i d1) noexcept {
    return _mm512_fmadd_ps(_mm512_maskz_cvtepi32_ps(every_lane, d1), _mm512_set1_ps(256.0f), _mm512_maskz_cvtepi32_ps(every_lane, d0));
}
/// Sums (16 rows, columns 4 r + j of digit j of row r of x): lane 4 r + l of out[i] is the sum of row 4 i + l and x's row r.
TESSERA_FORCE_INLINE void add_digit_columns(std::int32_t const* sums, __m512 (&out)[4]) noexcept {
    constexpr auto every = every_lane;
    auto const pairs = [&](int i) noexcept { // d0 + 256 d1 and d2 + 256 d3 of row i, then of the next
        __m512 const a = _mm512_load_ps(sums + 16 * i);
        __m512 const b = _mm512_load_ps(sums + 16 * i + 16);
        return add_digits(_mm512_castps_si512(_mm512_maskz_shuffle_ps(every, a, b, 0x88)),
                          _mm512_castps_si512(_mm512_maskz_shuffle_ps(every, a, b, 0xdd)));
    };
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        __m512 const first = pairs(4 * i);
        __m512 const second = pairs(4 * i + 2);
        out[i] = _mm512_fmadd_ps(_mm512_maskz_shuffle_ps(every, first, second, 0xdd), _mm512_set1_ps(65536.0f),
                                 _mm512_maskz_shuffle_ps(every, first, second, 0x88));
    }
}
/// The largest of each of 4 registers: that of x[i] in lanes i, 4 + i, 8 + i and 12 + i.
TESSERA_FORCE_INLINE __m512i row_maxima(__m512i const (&x)[4]) noexcept {
    constexpr auto every = every_lane;
    auto const larger = [](__m512i a, __m512i b) noexcept { return _mm512_maskz_max_epu32(every, a, b); };
    __m512i const a = larger(_mm512_maskz_unpacklo_epi32(every, x[0], x[1]), _mm512_maskz_unpackhi_epi32(every, x[0], x[1]));
    __m512i const b = larger(_mm512_maskz_unpacklo_epi32(every, x[2], x[3]), _mm512_maskz_unpackhi_epi32(every, x[2], x[3]));
    __m512i y = larger(_mm512_maskz_unpacklo_epi64(0xff, a, b), _mm512_maskz_unpackhi_epi64(0xff, a, b));
    y = larger(y, _mm512_maskz_shuffle_i64x2(0xff, y, y, 0x4e));
    return larger(y, _mm512_maskz_shuffle_i64x2(0xff, y, y, 0xb1));
}
/// f(r) for rows 0 to 3, constants.
template <class F>
TESSERA_FORCE_INLINE void unrolled_rows(F const& f) noexcept {
    [&]<int... R>(std::integer_sequence<int, R...>) { (f(std::integral_constant<int, R>{}), ...); }(std::make_integer_sequence<int, 4>{});
}
/// 16 sums in each of 4 rows, that of digit j at sums + 16 j.
TESSERA_FORCE_INLINE __m512 add_digit_rows(std::int32_t const* sums) noexcept {
    auto const row = [&](int j) noexcept { return _mm512_load_si512(sums + 16 * j); };
    return _mm512_fmadd_ps(add_digits(row(2), row(3)), _mm512_set1_ps(65536.0f), add_digits(row(0), row(1)));
}

/// 64 bytes, or those that `mask` has.
template <bool Whole>
TESSERA_FORCE_INLINE __m512i load_bytes(std::uint64_t mask, std::uint8_t const* p) noexcept {
    if constexpr (Whole)
        return _mm512_loadu_si512(p);
    else
        return _mm512_maskz_loadu_epi8(mask, p);
}
/// Bytes of four rows side by side: lane l of out[t] has bytes 16 l + 4 t to 16 l + 4 t + 3.
TESSERA_FORCE_INLINE void interleave_bytes(__m512i const (&row)[4], __m512i (&out)[4]) noexcept {
    __m512i const low0 = _mm512_maskz_unpacklo_epi8(~0ull, row[0], row[1]);
    __m512i const high0 = _mm512_maskz_unpackhi_epi8(~0ull, row[0], row[1]);
    __m512i const low1 = _mm512_maskz_unpacklo_epi8(~0ull, row[2], row[3]);
    __m512i const high1 = _mm512_maskz_unpackhi_epi8(~0ull, row[2], row[3]);
    out[0] = _mm512_maskz_unpacklo_epi16(~0u, low0, low1);
    out[1] = _mm512_maskz_unpackhi_epi16(~0u, low0, low1);
    out[2] = _mm512_maskz_unpacklo_epi16(~0u, high0, high1);
    out[3] = _mm512_maskz_unpackhi_epi16(~0u, high0, high1);
}
/// 16 bytes of each of four rows, or those of them that `mask` has, byte by byte: byte 4 c + i is byte c of row i.
template <bool Whole>
TESSERA_FORCE_INLINE __m512i interleaved_quarter(std::uint64_t mask, std::uint8_t const* const (&row)[4], index_t at) noexcept {
    auto const load = [&](int i) noexcept {
        if constexpr (Whole)
            return _mm_loadu_si128(reinterpret_cast<__m128i const*>(row[i] + at));
        else
            return _mm_maskz_loadu_epi8(static_cast<__mmask16>(mask), row[i] + at);
    };
    __m512i x = _mm512_zextsi128_si512(load(0));
    x = _mm512_inserti32x4(x, load(1), 1);
    x = _mm512_inserti32x4(x, load(2), 2);
    x = _mm512_inserti32x4(x, load(3), 3);
#if defined(__AVX512VBMI__)
    __m512i const rows = _mm512_set1_epi32(0x30201000);
    __m512i const columns = _mm512_maskz_mullo_epi32(
        every_lane, _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), _mm512_set1_epi32(0x01010101));
    return _mm512_maskz_permutexvar_epi8(~0ull, _mm512_or_si512(rows, columns), x);
#else
    x = _mm512_maskz_permutexvar_epi32(every_lane, _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), x);
    return _mm512_maskz_shuffle_epi8(
        ~0ull, x, _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)));
#endif
}
/// 128 columns of codes of 4 bits of four rows as row 0 of operands B. halves(x, even, odd): bytes of codes to those of their
/// values.
template <bool Whole, class Halves>
TESSERA_FORCE_INLINE void stage_nibble_quad(std::uint64_t mask, bool has_second, std::uint8_t const* const (&row)[4], index_t at,
                                            std::uint32_t const* zeros, index_t stride, std::int8_t* to, Halves const& halves) noexcept {
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
        if (!Whole && p == 2 && !has_second) return;
        __m512i even;
        __m512i odd;
        halves(interleaved_quarter<Whole>(mask >> 16 * p, row, at + 16 * p), even, odd);
        if (zeros != nullptr) {
            __m512i const zero = _mm512_set1_epi32(static_cast<int>(zeros[p / 2]));
            even = _mm512_sub_epi8(even, zero);
            odd = _mm512_sub_epi8(odd, zero);
        }
        _mm512_store_si512(to + stride * (2 * p), even);
        _mm512_store_si512(to + stride * (2 * p + 1), odd);
    }
}
/// 64 columns of 4 tiles in order, where tiles 0 and 1 have the even and the odd ones of the first 32, 2 and 3 those of the last.
TESSERA_FORCE_INLINE void order_nibble_columns(__m512 const (&x)[4], __m512 (&out)[4]) noexcept {
    __m512i const first = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    __m512i const second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
    out[0] = _mm512_permutex2var_ps(x[0], first, x[1]);
    out[1] = _mm512_permutex2var_ps(x[0], second, x[1]);
    out[2] = _mm512_permutex2var_ps(x[2], first, x[3]);
    out[3] = _mm512_permutex2var_ps(x[2], second, x[3]);
}
/// Column i of tile t of 64 columns of codes of `bits` bits, as values are staged.
constexpr int staged_column(int bits, int t, int i) noexcept { return bits == 8 ? i / 4 * 16 + 4 * t + i % 4 : t / 2 * 32 + 2 * i + t % 2; }

/// 64 floats in the order of codes of 4 bits: even ones first.
TESSERA_FORCE_INLINE void split_even_odd(__m512 (&x)[4]) noexcept {
    __m512i const even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    __m512i const odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    __m512 const y[4] = {_mm512_permutex2var_ps(x[0], even, x[1]), _mm512_permutex2var_ps(x[2], even, x[3]),
                         _mm512_permutex2var_ps(x[0], odd, x[1]), _mm512_permutex2var_ps(x[2], odd, x[3])};
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) x[i] = y[i];
}

} // namespace detail

/// The bits of the largest magnitude of n numbers; from `infinity_bits` on, one is infinite or NaN.
inline std::uint32_t largest_magnitude(float const* x, index_t n) noexcept {
    __m512i largest = _mm512_setzero_si512();
    for (index_t i = 0; i < n; i += 16) {
        auto const mask = static_cast<__mmask16>(n - i >= 16 ? 0xffffu : (1u << (n - i)) - 1);
        __m512i const bits = _mm512_and_si512(_mm512_maskz_loadu_epi32(mask, x + i), _mm512_set1_epi32(0x7fffffff));
        largest = _mm512_maskz_max_epu32(detail::every_lane, largest, bits);
    }
    return _mm512_reduce_max_epu32(largest);
}

// Codes of b bits (8: signed bytes, 4: of a table) as signed bytes, 64 columns at a time. The columns of codes of 4 bits are
// in another order, even ones first: that of `store_query_digits` and of `value_sums`.

/// A block of columns whose codes are 64 bytes, the first `bytes` of them there: one of 64, or two of codes of 4 bits.
template <int Bits>
class code_block {
public:
    static constexpr index_t columns = 64 * (8 / Bits);

    /// `has_second`: the last 64 columns are wanted.
    code_block(index_t bytes, std::int8_t const* table, bool has_second) noexcept
        : mask_{bytes >= 64 ? ~0ull : (1ull << bytes) - 1}, has_second_{has_second},
          table_{Bits == 8 ? _mm512_setzero_si512()
                           : _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<__m128i const*>(table)))} {}

    /// Whether all 64 bytes are there and wanted: `Whole` may then be true.
    bool is_whole() const noexcept { return mask_ == ~0ull && (Bits == 8 || has_second_); }

    /// A row's codes as a row of operand A. Of codes of 4 bits zeros[h] is subtracted in the h-th 64 columns.
    template <bool Whole>
    TESSERA_FORCE_INLINE void stage_row(std::uint8_t const* row, std::uint8_t const* zeros, std::int8_t* to) const noexcept {
        __m512i const x = detail::load_bytes<Whole>(mask_, row);
        if constexpr (Bits == 8)
            _mm512_store_si512(to, x);
        else
            store(x, zeros, to);
    }
    /// The codes of four rows as row 0 of operands B: 4 of them, `stride` bytes apart, for 64 columns. zeros[h]: the four rows'.
    template <bool Whole>
    TESSERA_FORCE_INLINE void stage_quad(std::uint8_t const* const (&row)[4], index_t at, std::uint32_t const* zeros, index_t stride,
                                         std::int8_t* to) const noexcept {
        if constexpr (Bits == 8) {
            __m512i const x[4] = {detail::load_bytes<Whole>(mask_, row[0] + at), detail::load_bytes<Whole>(mask_, row[1] + at),
                                  detail::load_bytes<Whole>(mask_, row[2] + at), detail::load_bytes<Whole>(mask_, row[3] + at)};
            __m512i y[4];
            detail::interleave_bytes(x, y);
#pragma GCC unroll 4
            for (int t = 0; t < 4; ++t) _mm512_store_si512(to + stride * t, y[t]);
        } else {
            detail::stage_nibble_quad<Whole>(mask_, has_second_, row, at, zeros, stride, to,
                                             [this](__m512i codes, __m512i& even, __m512i& odd) noexcept { look_up(codes, even, odd); });
        }
    }

private:
    TESSERA_FORCE_INLINE void look_up(__m512i codes, __m512i& even, __m512i& odd) const noexcept {
        __m512i const mask = _mm512_set1_epi8(15);
        even = _mm512_maskz_shuffle_epi8(~0ull, table_, _mm512_and_si512(codes, mask));
        odd = _mm512_maskz_shuffle_epi8(~0ull, table_, _mm512_and_si512(_mm512_maskz_srli_epi16(~0u, codes, 4), mask));
    }
    /// Looked up, in two registers of 64 columns: the even ones, then the odd ones.
    TESSERA_FORCE_INLINE void store(__m512i codes, std::uint8_t const* zeros, std::int8_t* to) const noexcept {
        __m512i even;
        __m512i odd;
        look_up(codes, even, odd);
        __m512i half = _mm512_maskz_shuffle_i64x2(0xff, even, odd, 0x44);
        if (zeros != nullptr) half = _mm512_sub_epi8(half, _mm512_set1_epi8(static_cast<char>(zeros[0])));
        _mm512_store_si512(to, half);
        if (!has_second_) return;
        half = _mm512_maskz_shuffle_i64x2(0xff, even, odd, 0xee);
        if (zeros != nullptr) half = _mm512_sub_epi8(half, _mm512_set1_epi8(static_cast<char>(zeros[1])));
        _mm512_store_si512(to + 64, half);
    }

    std::uint64_t mask_;
    bool has_second_;
    __m512i table_;
};
/// What takes the low (or high) 4 bits of every byte to the table's byte for them, as the instruction for maps of bits has it;
/// 0: the table is no linear map, or there is no such instruction.
constexpr std::uint64_t nibble_map([[maybe_unused]] std::int8_t const* table, [[maybe_unused]] bool high) noexcept {
    std::uint64_t map = 0;
#if defined(__GFNI__)
    auto const value = [&](unsigned c) noexcept { return static_cast<std::uint8_t>(table[c]); };
    for (unsigned c = 0; c < 16; ++c) {
        unsigned sum = 0;
        for (unsigned b = 0; b < 4; ++b) sum ^= (c >> b & 1u) != 0 ? value(1u << b) : 0u;
        if (sum != value(c)) return 0;
    }
    for (unsigned b = 0; b < 4; ++b)
        for (unsigned i = 0; i < 8; ++i)
            if ((value(1u << b) >> i & 1u) != 0) map |= std::uint64_t{1} << (8 * (7 - i) + b + (high ? 4 : 0));
#endif
    return map;
}

#if defined(__GFNI__)
/// `code_block<4>` for tables that are linear maps of a code's bits, such as two's complement: no shuffles, which one port has.
template <std::uint64_t Low, std::uint64_t High>
class linear_code_block {
public:
    static constexpr index_t columns = 128;

    linear_code_block(index_t bytes, std::int8_t const*, bool has_second) noexcept
        : mask_{bytes >= 64 ? ~0ull : (1ull << bytes) - 1}, has_second_{has_second},
          both_{_mm512_inserti64x4(_mm512_set1_epi64(static_cast<long long>(Low)), _mm256_set1_epi64x(static_cast<long long>(High)), 1)} {}

    bool is_whole() const noexcept { return mask_ == ~0ull && has_second_; }

    template <bool Whole>
    TESSERA_FORCE_INLINE void stage_row(std::uint8_t const* row, std::uint8_t const* zeros, std::int8_t* to) const noexcept {
        stage_half<Whole>(row, 0, zeros, to);
        if (Whole || has_second_) stage_half<Whole>(row, 1, zeros, to + 64);
    }
    template <bool Whole>
    TESSERA_FORCE_INLINE void stage_quad(std::uint8_t const* const (&row)[4], index_t at, std::uint32_t const* zeros, index_t stride,
                                         std::int8_t* to) const noexcept {
        detail::stage_nibble_quad<Whole>(mask_, has_second_, row, at, zeros, stride, to,
                                         [](__m512i codes, __m512i& even, __m512i& odd) noexcept {
            even = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(static_cast<long long>(Low)), 0);
            odd = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(static_cast<long long>(High)), 0);
        });
    }

private:
    /// 64 columns: the low bits of 32 bytes, then the high ones.
    template <bool Whole>
    TESSERA_FORCE_INLINE void stage_half(std::uint8_t const* row, int h, std::uint8_t const* zeros, std::int8_t* to) const noexcept {
        __m256i half;
        if constexpr (Whole)
            half = _mm256_loadu_si256(reinterpret_cast<__m256i const*>(row + 32 * h));
        else
            half = _mm256_maskz_loadu_epi8(static_cast<__mmask32>(mask_ >> 32 * h), row + 32 * h);
        __m512i const codes = _mm512_maskz_broadcast_i64x4(0xff, half);
        __m512i x = _mm512_gf2p8affine_epi64_epi8(codes, both_, 0);
        if (zeros != nullptr) x = _mm512_sub_epi8(x, _mm512_set1_epi8(static_cast<char>(zeros[h])));
        _mm512_store_si512(to, x);
    }

    std::uint64_t mask_;
    bool has_second_;
    __m512i both_;
};
#endif

/// Columns [first, last) of 64 of x, the others as zeros, as digits in columns 4 row to 4 row + 3 of an operand B.
template <int Bits>
void store_query_digits(float const* x, index_t first, index_t last, float factor, int row, std::int8_t* b) noexcept {
    __m512 y[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        index_t const low = first - 16 * i;
        index_t const high = last - 16 * i;
        auto const below = [](index_t n) noexcept { return n <= 0 ? 0u : n >= 16 ? 0xffffu : (1u << n) - 1; };
        y[i] = _mm512_maskz_loadu_ps(static_cast<__mmask16>(below(high) & ~below(low)), x + 16 * i);
    }
    if constexpr (Bits == 4) detail::split_even_odd(y);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) detail::store_digit_columns(detail::digits_of(y[i], factor), row, b + 256 * i);
}
/// Weights p (times scales, if there are some) of n <= 64 keys in up to 4 rows, `stride` apart, as an operand A: 4 rows of it each;
/// -0 stays 0 whatever its scale is. Key 16 b + 4 l + i is in column 4 (4 l + b) + i. units[r] times the sums of row r is the
/// product: NaN where a weight is not finite. The power of two is that of what is there, not of what could be: a weight that is
/// hidden, or next to nothing, may have any scale. Rows that there are not repeat the last.
template <bool HasScales>
void store_weight_digits(float const* p, index_t stride, index_t rows, float const* scales, index_t n, std::int8_t* a,
                         float* units) noexcept {
    constexpr auto every = detail::every_lane;
    __m512i const magnitude = _mm512_set1_epi32(0x7fffffff);
    auto const weight = [&](index_t r, int b) noexcept {
        __m512 const w = 16 * b < n ? _mm512_loadu_ps(p + minimum(r, rows - 1) * stride + 16 * b) : _mm512_setzero_ps();
        if constexpr (!HasScales) return w;
        __mmask16 const positive = _mm512_cmpge_epi32_mask(_mm512_castps_si512(w), _mm512_setzero_si512());
        return 16 * b < n ? _mm512_maskz_mul_ps(positive, w, _mm512_loadu_ps(scales + 16 * b)) : w;
    };
    __m512 w[4][4];
    __m512i most[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
#pragma GCC unroll 4
        for (int b = 0; b < 4; ++b) {
            w[r][b] = weight(r, b);
            __m512i const bits = _mm512_and_si512(_mm512_castps_si512(w[r][b]), magnitude);
            most[r] = b == 0 ? bits : _mm512_maskz_max_epu32(every, most[r], bits);
        }
    }
    __m512i const largest = detail::row_maxima(most); // of row i in lane i of every 4
    __m512i const exponent = _mm512_maskz_min_epu32(
        every, _mm512_sub_epi32(_mm512_set1_epi32(283), _mm512_maskz_srli_epi32(every, largest, 23)), _mm512_set1_epi32(253)); // as fixed_point_of
    __m512 const factor = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(every, exponent, 23));
    __m512 const unit = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(every, _mm512_sub_epi32(_mm512_set1_epi32(254), exponent), 23));
    __mmask16 const finite = _mm512_cmplt_epu32_mask(largest, _mm512_set1_epi32(static_cast<int>(infinity_bits)));
    _mm_storeu_ps(units, _mm512_castps512_ps128(_mm512_mask_blend_ps(finite, _mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()), unit)));
    detail::unrolled_rows([&](auto r) noexcept {
        constexpr int row = 0x55 * static_cast<int>(decltype(r)::value); // without optimisation only this is an immediate
        __m512 const f = _mm512_maskz_permute_ps(every, factor, row);
        __m512i const digits[4] = {detail::digits_of(w[r][0], f), detail::digits_of(w[r][1], f), detail::digits_of(w[r][2], f),
                                   detail::digits_of(w[r][3], f)};
        detail::store_digit_rows(digits, a + 256 * r);
    });
}
/// Scales of 2 bytes that end rows, at most 4 of a row, the last before byte `end` >= 8: scale g of row i to[stride g + i],
/// times `unit`. Reads 16 rows at a time.
template <class Arch, class Scale>
void gather_row_scales(std::uint8_t const* const* row, index_t n, index_t end, index_t groups, float unit, float* to,
                       index_t stride) noexcept {
    auto const gather = [&](index_t i) noexcept {
        __m512i const at = _mm512_add_epi64(_mm512_loadu_si512(row + i), _mm512_set1_epi64(end - 8));
        return _mm512_mask_i64gather_epi64(_mm512_setzero_si512(), 0xff, at, nullptr, 1);
    };
    for (index_t i = 0; i < n; i += 16) {
        __m512i const low = gather(i);
        __m512i const high = gather(i + 8);
        for (index_t g = 0; g < groups; ++g) {
            __m128i const shift = _mm_cvtsi64_si128(64 - 16 * (groups - g));
            __m256i const codes = _mm256_set_m128i(_mm512_maskz_cvtepi64_epi16(0xff, _mm512_maskz_srl_epi64(0xff, high, shift)),
                                                   _mm512_maskz_cvtepi64_epi16(0xff, _mm512_maskz_srl_epi64(0xff, low, shift)));
            __m512 scales;
            if constexpr (std::is_same_v<Scale, fp16>)
                scales = _mm512_maskz_cvtph_ps(detail::every_lane, codes);
            else
                scales = detail::widen_bf16(codes);
            _mm512_storeu_ps(to + stride * g + i, _mm512_mul_ps(scales, _mm512_set1_ps(unit)));
        }
    }
}
/// The same of at most 2 scales a row and rows `stride` bytes apart.
template <class Arch, class Scale>
void gather_row_scales(std::uint8_t const* first, index_t row_stride, index_t n, index_t end, index_t groups, float unit, float* to,
                       index_t stride) noexcept {
    __m512i const last = _mm512_set1_epi32(static_cast<int>(n - 1));
    __m512i const steps = _mm512_set1_epi32(static_cast<int>(row_stride));
    __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    auto const store = [&](__m512i words, float* p) noexcept {
        __m256i const codes = _mm512_maskz_cvtepi32_epi16(detail::every_lane, words);
        __m512 scales;
        if constexpr (std::is_same_v<Scale, fp16>)
            scales = _mm512_maskz_cvtph_ps(detail::every_lane, codes);
        else
            scales = detail::widen_bf16(codes);
        _mm512_storeu_ps(p, _mm512_mul_ps(scales, _mm512_set1_ps(unit)));
    };
    for (index_t i = 0; i < n; i += 16, lane = _mm512_add_epi32(lane, _mm512_set1_epi32(16))) {
        __m512i const at = _mm512_mullo_epi32(_mm512_maskz_min_epi32(detail::every_lane, lane, last), steps);
        __m512i const words = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), detail::every_lane, at, first + end - 4, 1);
        __m512i const high = _mm512_maskz_srli_epi32(detail::every_lane, words, 16);
        store(groups == 2 ? words : high, to + i);
        if (groups == 2) store(high, to + stride + i);
    }
}
/// row[i] = first + i stride for i < n, n a multiple of 8.
TESSERA_FORCE_INLINE void store_rows(std::uint8_t const* first, index_t stride, index_t n, std::uint8_t const** row) noexcept {
    __m512i const steps = _mm512_mullo_epi64(_mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7), _mm512_set1_epi64(stride));
    __m512i at = _mm512_add_epi64(_mm512_set1_epi64(reinterpret_cast<std::intptr_t>(first)), steps);
    for (index_t i = 0; i < n; i += 8, at = _mm512_add_epi64(at, _mm512_set1_epi64(8 * stride))) _mm512_storeu_si512(row + i, at);
}
/// The row of 16 for keys 4 q to 4 q + 3 of 64, for that order.
constexpr index_t quad_of_keys(index_t q) noexcept { return q % 4 * 4 + q / 4; }

/// Starts the sums of n <= 64 keys, rows `stride` bytes apart, with an operand B of queries for each of `steps` steps of 64 columns,
/// which 16 keys after the other share. Calls between() after each product of 16 keys.
template <class Between>
TESSERA_FORCE_INLINE void start_score_sums(amx_tiles<64> const&, std::int8_t const* keys, index_t stride, index_t n, std::int8_t const* q,
                                           index_t steps, Between const& between) noexcept {
    auto const row = static_cast<long>(stride);
    std::atomic_signal_fence(std::memory_order_seq_cst); // to g++ 12 loads of tiles read no memory
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (index_t s = 0; s < steps; ++s, keys += 64, q += 1024) {
        _tile_loadd(6, q, 64);
        _tile_loadd(4, keys, row);
        _tile_dpbssd(0, 4, 6);
        between();
        if (n > 16) {
            _tile_loadd(5, keys + 16 * stride, row);
            _tile_dpbssd(1, 5, 6);
        }
        between();
        if (n > 32) {
            _tile_loadd(7, keys + 32 * stride, row);
            _tile_dpbssd(2, 7, 6);
        }
        between();
        if (n > 48) {
            _tile_loadd(4, keys + 48 * stride, row);
            _tile_dpbssd(3, 4, 6);
        }
        between();
    }
}
/// Starts the sums of 64 columns of values, 4 operands B, with weights, an operand A.
template <class Between>
TESSERA_FORCE_INLINE void start_value_sums(amx_tiles<64> const&, std::int8_t const* weights, std::int8_t const* values,
                                           Between const& between) noexcept {
    std::atomic_signal_fence(std::memory_order_seq_cst);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_loadd(4, weights, 64);
    _tile_loadd(6, values, 64);
    _tile_dpbssd(0, 4, 6);
    between();
    _tile_loadd(7, values + 1024, 64);
    _tile_dpbssd(1, 4, 7);
    between();
    _tile_loadd(5, values + 2048, 64);
    _tile_dpbssd(2, 4, 5);
    between();
    _tile_loadd(6, values + 3072, 64);
    _tile_dpbssd(3, 4, 6);
    between();
}

/// Sums (16 rows, columns 4 r + j of digit j of row r of x), times scales of the rows if there are some: lane 4 r + l of out[i] is
/// that of row 4 i + l and x's row r, added to what is there if `adds`.
template <class Arch>
TESSERA_FORCE_INLINE void add_score_sums(std::int32_t const* sums, float const* scales, bool adds, floats<Arch> (&out)[4]) noexcept {
    __m512 x[4];
    detail::add_digit_columns(sums, x);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
        if (scales == nullptr) {
            out[i] = x[i];
        } else {
            __m512 const scale = _mm512_broadcast_f32x4(_mm_loadu_ps(scales + 4 * i));
            out[i] = adds ? _mm512_fmadd_ps(x[i], scale, out[i]) : _mm512_mul_ps(x[i], scale);
        }
    }
}
/// Those as rows of x, a lane for each row of the sums.
template <class Arch>
TESSERA_FORCE_INLINE void order_score_sums(floats<Arch> (&x)[4]) noexcept {
    __m512 const y[4] = {x[0], x[1], x[2], x[3]};
    __m512 out[4];
    detail::transpose_lanes(y, out);
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) x[r] = out[r];
}
/// Sums of 4 tiles, rows 4 r + j of digit j of row r of the weights: 64 columns in order.
template <class Arch, int Bits>
TESSERA_FORCE_INLINE void value_sums(std::int32_t const* sums, int r, floats<Arch> (&out)[4]) noexcept {
    __m512 x[4];
    __m512 y[4];
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) x[t] = detail::add_digit_rows(sums + 256 * t + 64 * r);
    if constexpr (Bits == 4)
        detail::order_nibble_columns(x, y);
    else
        detail::transpose_lanes(x, y);
#pragma GCC unroll 4
    for (int t = 0; t < 4; ++t) out[t] = y[t];
}

#else
template <class Arch>
inline constexpr bool multiplies_digits = false;
#endif

} // namespace tessera::inline TESSERA_ABI::simd
