// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Codes of consecutive elements, packed as bitpack packs them, into the lanes of an integer register: 1 to 4 bits and 8; and their
/// values, by a table.

#include "memory.hpp"

#include "../storage/bitpack.hpp"

#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

/// N bytes from p on, by whole loads: a word put together in memory would wait for its parts.
template <int N>
TESSERA_FORCE_INLINE std::uint64_t load_bytes(std::uint8_t const* p) noexcept {
    if constexpr (N == 1) {
        return *p;
    } else if constexpr (N == 2 || N == 4) {
        std::conditional_t<N == 2, std::uint16_t, std::uint32_t> word;
        std::memcpy(&word, p, N);
        return word;
    } else {
        constexpr int most = N < 4 ? 2 : 4;
        return load_bytes<most>(p) | load_bytes<N - most>(p + most) << 8 * most;
    }
}

} // namespace detail

/// Whether `unpack` reads such codes, a register's whole bytes.
template <class Arch, int Bits>
inline constexpr bool has_unpack = (Bits <= 4 || Bits == 8) && lanes<Arch> * Bits % 8 == 0;

/// lanes<Arch> codes of `Bits` bits from p on, the first in the low bits of the first byte.
template <class Arch, int Bits>
TESSERA_FORCE_INLINE ints<Arch> unpack(std::uint8_t const* p) noexcept {
    static_assert(has_unpack<Arch, Bits>, "tessera: unpack is of codes of 1 to 4 or 8 bits");
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        if constexpr (Bits == 8)
            return _mm512_maskz_cvtepu8_epi32(detail::every_lane, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
        if constexpr (Bits < 4) { // eight codes fit 32 bits
            std::uint64_t const codes = detail::load_bytes<2 * Bits>(p);
            __m512i const words = _mm512_mask_set1_epi32(_mm512_set1_epi32(static_cast<int>(codes)), 0xff00, static_cast<int>(codes >> 8 * Bits));
            __m512i const shifts = _mm512_setr_epi32(0, Bits, 2 * Bits, 3 * Bits, 4 * Bits, 5 * Bits, 6 * Bits, 7 * Bits, 0, Bits, 2 * Bits,
                                                     3 * Bits, 4 * Bits, 5 * Bits, 6 * Bits, 7 * Bits);
            return _mm512_and_si512(_mm512_maskz_srlv_epi32(detail::every_lane, words, shifts), _mm512_set1_epi32((1 << Bits) - 1));
        }
        __m128i const bytes = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p));
        __m128i const pairs = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
        return _mm512_maskz_cvtepu8_epi32(detail::every_lane, _mm_and_si128(pairs, _mm_set1_epi8(15)));
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        if constexpr (Bits == 8) return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
        if constexpr (Bits < 4) {
            std::uint64_t const codes = detail::load_bytes<Bits>(p);
            __m256i const shifts = _mm256_setr_epi32(0, Bits, 2 * Bits, 3 * Bits, 4 * Bits, 5 * Bits, 6 * Bits, 7 * Bits);
            return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(codes)), shifts), _mm256_set1_epi32((1 << Bits) - 1));
        }
        int four;
        std::memcpy(&four, p, sizeof four);
        __m128i const bytes = _mm_cvtsi32_si128(four);
        __m128i const pairs = _mm_unpacklo_epi8(bytes, _mm_srli_epi16(bytes, 4));
        return _mm256_cvtepu8_epi32(_mm_and_si128(pairs, _mm_set1_epi8(15)));
    }
#endif
    alignas(64) std::int32_t code[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) code[i] = static_cast<std::int32_t>(bitpack::get<Bits>(p, i));
    return ints<Arch>::load_aligned(code);
}

/// Format::decode of every code; a register's worth of them at least.
template <class Format>
struct decoded_codes {
    alignas(64) float values[Format::bits < 4 ? 16 : 1 << Format::bits];
    constexpr decoded_codes() noexcept : values{} {
        for (int c = 0; c < 1 << Format::bits; ++c) values[c] = Format::decode(static_cast<std::uint32_t>(c));
    }
};
template <class Format>
inline constexpr decoded_codes<Format> decoded_codes_of{};

/// The values of lanes<Arch> codes from p on.
template <class Arch, class Format>
TESSERA_FORCE_INLINE floats<Arch> unpack_values(std::uint8_t const* p) noexcept {
    float const* const table = decoded_codes_of<Format>.values;
    ints<Arch> const codes = unpack<Arch, Format::bits>(p);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        if constexpr (Format::bits <= 4) return _mm512_maskz_permutexvar_ps(detail::every_lane, codes, _mm512_load_ps(table));
        return _mm512_i32gather_ps(codes, table, 4);
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        if constexpr (Format::bits < 4) return _mm256_permutevar8x32_ps(_mm256_load_ps(table), codes);
        return _mm256_i32gather_ps(table, codes, 4);
    }
#endif
    alignas(64) std::int32_t index[lanes<Arch>];
    alignas(64) float value[lanes<Arch>];
    codes.store_aligned(index);
    for (index_t i = 0; i < lanes<Arch>; ++i) value[i] = table[index[i]];
    return floats<Arch>::load_aligned(value);
}

} // namespace tessera::inline TESSERA_ABI::simd
