// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Blocks of four float registers from and to contiguous arrays of any element type. A block of bytes is one whole
/// register, so that packing and unpacking cost a few instructions for 64, 32 or 16 elements.

#include "convert.hpp"

#include "../numerics/convert.hpp"

#include <concepts>
#include <cstdint>
#include <type_traits>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// Elements of a block: 16, 32 or 64.
template <class Arch>
inline constexpr index_t block_size = 4 * lanes<Arch>;

template <class Arch>
struct float_block {
    floats<Arch> part[4];
};

namespace detail {

template <class Arch>
struct code_block {
    ints<Arch> part[4];
};

/// The instruction set of a register of this architecture's width.
template <class Arch>
inline constexpr bool is_512 = lanes<Arch> == 16;
template <class Arch>
inline constexpr bool is_256 = lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>;
template <class Arch>
inline constexpr bool is_128 = std::is_same_v<Arch, sse2>;

#if defined(__AVX512F__)
inline constexpr __mmask16 all_16 = 0xffff; // see shift_left in convert.hpp
#endif

/// Bytes widened to lanes.
template <class Arch>
TESSERA_FORCE_INLINE code_block<Arch> load_bytes(void const* from) noexcept {
    auto const* const p = static_cast<std::uint8_t const*>(from);
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>) {
        auto const at = [p](int i) {
            return ints<Arch>(
                _mm512_maskz_cvtepu8_epi32(all_16, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p + 16 * i))));
        };
        return {{at(0), at(1), at(2), at(3)}};
    }
#endif
#if defined(__AVX2__)
    if constexpr (is_256<Arch>) {
        auto const at = [p](int i) {
            return ints<Arch>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p + 8 * i))));
        };
        return {{at(0), at(1), at(2), at(3)}};
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        __m128i const bytes = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p));
        __m128i const zero = _mm_setzero_si128();
        __m128i const low = _mm_unpacklo_epi8(bytes, zero);
        __m128i const high = _mm_unpackhi_epi8(bytes, zero);
        return {{ints<Arch>(_mm_unpacklo_epi16(low, zero)), ints<Arch>(_mm_unpackhi_epi16(low, zero)),
                 ints<Arch>(_mm_unpacklo_epi16(high, zero)), ints<Arch>(_mm_unpackhi_epi16(high, zero))}};
    }
#endif
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < block_size<Arch>; ++i) lane[i] = p[i];
    code_block<Arch> block;
    for (index_t i = 0; i < 4; ++i) block.part[i] = ints<Arch>::load_aligned(lane + i * lanes<Arch>);
    return block;
}

/// Words of 16 bits widened to lanes.
template <class Arch>
TESSERA_FORCE_INLINE code_block<Arch> load_words(void const* from) noexcept {
    auto const* const p = static_cast<std::uint16_t const*>(from);
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>) {
        auto const at = [p](int i) {
            return ints<Arch>(
                _mm512_maskz_cvtepu16_epi32(all_16, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p + 16 * i))));
        };
        return {{at(0), at(1), at(2), at(3)}};
    }
#endif
#if defined(__AVX2__)
    if constexpr (is_256<Arch>) {
        auto const at = [p](int i) {
            return ints<Arch>(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p + 8 * i))));
        };
        return {{at(0), at(1), at(2), at(3)}};
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        __m128i const zero = _mm_setzero_si128();
        __m128i const low = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p));
        __m128i const high = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p + 8));
        return {{ints<Arch>(_mm_unpacklo_epi16(low, zero)), ints<Arch>(_mm_unpackhi_epi16(low, zero)),
                 ints<Arch>(_mm_unpacklo_epi16(high, zero)), ints<Arch>(_mm_unpackhi_epi16(high, zero))}};
    }
#endif
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < block_size<Arch>; ++i) lane[i] = p[i];
    code_block<Arch> block;
    for (index_t i = 0; i < 4; ++i) block.part[i] = ints<Arch>::load_aligned(lane + i * lanes<Arch>);
    return block;
}

/// Lanes of 0 to 255 as bytes.
template <class Arch>
TESSERA_FORCE_INLINE void store_bytes(void* to, code_block<Arch> const& b) noexcept {
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>) {
        // The packs work within 128 bits: four times four bytes of one part come out 16 bytes apart.
        __m512i const packed =
            _mm512_packus_epi16(_mm512_packus_epi32(b.part[0], b.part[1]), _mm512_packus_epi32(b.part[2], b.part[3]));
        __m512i const order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        _mm512_storeu_si512(to, _mm512_maskz_permutexvar_epi32(all_16, order, packed));
        return;
    }
#endif
#if defined(__AVX2__)
    if constexpr (is_256<Arch>) {
        __m256i const packed =
            _mm256_packus_epi16(_mm256_packus_epi32(b.part[0], b.part[1]), _mm256_packus_epi32(b.part[2], b.part[3]));
        __m256i const order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(static_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(packed, order));
        return;
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        _mm_storeu_si128(static_cast<__m128i*>(to), _mm_packus_epi16(_mm_packs_epi32(b.part[0], b.part[1]),
                                                                     _mm_packs_epi32(b.part[2], b.part[3])));
        return;
    }
#endif
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < 4; ++i) b.part[i].store_aligned(lane + i * lanes<Arch>);
    for (index_t i = 0; i < block_size<Arch>; ++i)
        static_cast<std::uint8_t*>(to)[i] = static_cast<std::uint8_t>(lane[i]);
}

/// Lanes of 0 to 65535 as words of 16 bits.
template <class Arch>
TESSERA_FORCE_INLINE void store_words(void* to, code_block<Arch> const& b) noexcept {
    auto* const p = static_cast<std::uint16_t*>(to);
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>) {
        __m512i const order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        for (int i = 0; i < 2; ++i)
            _mm512_storeu_si512(p + 32 * i, _mm512_maskz_permutexvar_epi64(
                                                0xff, order, _mm512_packus_epi32(b.part[2 * i], b.part[2 * i + 1])));
        return;
    }
#endif
#if defined(__AVX2__)
    if constexpr (is_256<Arch>) {
        for (int i = 0; i < 2; ++i)
            _mm256_storeu_si256(
                reinterpret_cast<__m256i*>(p + 16 * i),
                _mm256_permute4x64_epi64(_mm256_packus_epi32(b.part[2 * i], b.part[2 * i + 1]), 0b11011000));
        return;
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        // SSE2 packs with signed saturation only: the words are made signed first.
        auto const word = [](__m128i v) { return _mm_srai_epi32(_mm_slli_epi32(v, 16), 16); };
        for (int i = 0; i < 2; ++i)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * i),
                             _mm_packs_epi32(word(b.part[2 * i]), word(b.part[2 * i + 1])));
        return;
    }
#endif
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < 4; ++i) b.part[i].store_aligned(lane + i * lanes<Arch>);
    for (index_t i = 0; i < block_size<Arch>; ++i) p[i] = static_cast<std::uint16_t>(lane[i]);
}

/// fp16 by the processor's instruction.
template <class Arch>
inline constexpr bool converts_half = is_512<Arch> || is_256<Arch>;

template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load_half([[maybe_unused]] fp16 const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>)
        return _mm512_maskz_cvtph_ps(all_16, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__F16C__)
    if constexpr (is_256<Arch>) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
}

template <class Arch>
TESSERA_FORCE_INLINE void store_half([[maybe_unused]] fp16* p, [[maybe_unused]] floats<Arch> const& v) noexcept {
    constexpr int nearest = 0;
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(all_16, v, nearest));
#endif
#if defined(__F16C__)
    if constexpr (is_256<Arch>) _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, nearest));
#endif
}

} // namespace detail

/// block_size<Arch> elements from p, any alignment.
template <class Arch, storable_element T>
TESSERA_FORCE_INLINE float_block<Arch> load_block(T const* p) noexcept {
    float_block<Arch> block;
    detail::code_block<Arch> codes;
    if constexpr (sizeof(T) == 1)
        codes = detail::load_bytes<Arch>(p);
    else if constexpr (sizeof(T) == 2 && !(std::same_as<T, fp16> && detail::converts_half<Arch>))
        codes = detail::load_words<Arch>(p);
    for (index_t i = 0; i < 4; ++i) {
        if constexpr (sizeof(T) == 4)
            block.part[i] = floats<Arch>::load_unaligned(p + i * lanes<Arch>);
        else if constexpr (std::same_as<T, fp16> && detail::converts_half<Arch>)
            block.part[i] = detail::load_half<Arch>(p + i * lanes<Arch>);
        else
            block.part[i] = decode<format_of_t<T>>(codes.part[i]);
    }
    return block;
}

/// Rounds a block to T, to nearest even; values above T's largest become `Beyond`.
template <class Arch, overflow Beyond, storable_element T>
TESSERA_FORCE_INLINE void store_block(T* p, float_block<Arch> const& block) noexcept {
    if constexpr (sizeof(T) == 4) {
        for (index_t i = 0; i < 4; ++i) block.part[i].store_unaligned(p + i * lanes<Arch>);
    } else if constexpr (std::same_as<T, fp16> && Beyond == overflow::infinity && detail::converts_half<Arch>) {
        for (index_t i = 0; i < 4; ++i) detail::store_half<Arch>(p + i * lanes<Arch>, block.part[i]);
    } else {
        detail::code_block<Arch> codes;
        for (index_t i = 0; i < 4; ++i) codes.part[i] = encode<format_of_t<T>, Beyond>(block.part[i]);
        if constexpr (sizeof(T) == 1)
            detail::store_bytes<Arch>(p, codes);
        else
            detail::store_words<Arch>(p, codes);
    }
}

} // namespace tessera::inline TESSERA_ABI::simd
