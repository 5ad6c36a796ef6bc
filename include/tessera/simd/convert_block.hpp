// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Blocks of four float registers from and to contiguous arrays of any element type. A block of bytes is one whole
/// register, so that packing and unpacking cost a few instructions for 64, 32 or 16 elements.

#include "convert.hpp"
#include "memory.hpp"

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
template <class Arch>
inline constexpr bool is_neon = std::is_base_of_v<neon64, Arch>;

#if defined(__AVX512F__)
inline constexpr __mmask16 all_16 = 0xffff; // see shift_left in convert.hpp
#endif

/// One register of 512 or 256 bits of bytes or words, widened to lanes.
template <class Arch, class Code>
TESSERA_FORCE_INLINE ints<Arch> widen([[maybe_unused]] Code const* p) noexcept {
    static_assert(is_512<Arch> || is_256<Arch>);
#if defined(__AVX512F__)
    if constexpr (is_512<Arch> && sizeof(Code) == 1)
        return _mm512_maskz_cvtepu8_epi32(all_16, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
    else if constexpr (is_512<Arch>)
        return _mm512_maskz_cvtepu16_epi32(all_16, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (is_256<Arch> && sizeof(Code) == 1)
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
    else if constexpr (is_256<Arch>)
        return _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
}

template <class Arch, class Code>
TESSERA_FORCE_INLINE code_block<Arch> widen_by_element(Code const* p) noexcept {
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < block_size<Arch>; ++i) lane[i] = p[i];
    code_block<Arch> block;
    for (index_t i = 0; i < 4; ++i) block.part[i] = ints<Arch>::load_aligned(lane + i * lanes<Arch>);
    return block;
}

template <class Arch, class Code>
TESSERA_FORCE_INLINE void narrow_by_element(Code* p, code_block<Arch> const& b) noexcept {
    alignas(64) std::int32_t lane[block_size<Arch>];
    for (index_t i = 0; i < 4; ++i) b.part[i].store_aligned(lane + i * lanes<Arch>);
    for (index_t i = 0; i < block_size<Arch>; ++i) p[i] = static_cast<Code>(lane[i]);
}

/// Bytes or words of 16 bits, widened to lanes.
template <class Arch, class Code>
TESSERA_FORCE_INLINE code_block<Arch> load_codes(Code const* p) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        __m128i const zero = _mm_setzero_si128();
        __m128i low = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p));
        __m128i high;
        if constexpr (sizeof(Code) == 1) {
            high = _mm_unpackhi_epi8(low, zero);
            low = _mm_unpacklo_epi8(low, zero);
        } else {
            high = _mm_loadu_si128(reinterpret_cast<__m128i const*>(p + 8));
        }
        return {{ints<Arch>(_mm_unpacklo_epi16(low, zero)), ints<Arch>(_mm_unpackhi_epi16(low, zero)),
                 ints<Arch>(_mm_unpacklo_epi16(high, zero)), ints<Arch>(_mm_unpackhi_epi16(high, zero))}};
    }
#endif
#if defined(__aarch64__)
    if constexpr (is_neon<Arch>) {
        uint16x8_t low;
        uint16x8_t high;
        if constexpr (sizeof(Code) == 1) {
            uint8x16_t const bytes = vld1q_u8(p);
            low = vmovl_u8(vget_low_u8(bytes));
            high = vmovl_u8(vget_high_u8(bytes));
        } else {
            low = vld1q_u16(p);
            high = vld1q_u16(p + 8);
        }
        auto const lanes_of = [](uint16x4_t words) noexcept { return vreinterpretq_s32_u32(vmovl_u16(words)); };
        return {{ints<Arch>(lanes_of(vget_low_u16(low))), ints<Arch>(lanes_of(vget_high_u16(low))),
                 ints<Arch>(lanes_of(vget_low_u16(high))), ints<Arch>(lanes_of(vget_high_u16(high)))}};
    }
#endif
    if constexpr (is_512<Arch> || is_256<Arch>)
        return {{widen<Arch>(p), widen<Arch>(p + lanes<Arch>), widen<Arch>(p + 2 * lanes<Arch>),
                 widen<Arch>(p + 3 * lanes<Arch>)}};
    else
        return widen_by_element<Arch>(p);
}

#if defined(__aarch64__)
/// The low halves of two registers' lanes.
TESSERA_FORCE_INLINE uint16x8_t low_words(int32x4_t a, int32x4_t b) noexcept {
    return vuzp1q_u16(vreinterpretq_u16_s32(a), vreinterpretq_u16_s32(b));
}
#endif

/// Lanes of 0 to 255 as bytes.
template <class Arch>
TESSERA_FORCE_INLINE void store_codes(std::uint8_t* to, code_block<Arch> const& b) noexcept {
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
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_permutevar8x32_epi32(packed, order));
        return;
    }
#endif
#if defined(__SSE2__) || defined(_M_X64)
    if constexpr (is_128<Arch>) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(_mm_packs_epi32(b.part[0], b.part[1]),
                                                                          _mm_packs_epi32(b.part[2], b.part[3])));
        return;
    }
#endif
#if defined(__aarch64__)
    if constexpr (is_neon<Arch>) {
        vst1q_u8(to, vuzp1q_u8(vreinterpretq_u8_u16(low_words(b.part[0], b.part[1])),
                               vreinterpretq_u8_u16(low_words(b.part[2], b.part[3]))));
        return;
    }
#endif
    narrow_by_element<Arch>(to, b);
}

/// Lanes of 0 to 65535 as words of 16 bits.
template <class Arch>
TESSERA_FORCE_INLINE void store_codes(std::uint16_t* p, code_block<Arch> const& b) noexcept {
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
        for (int i = 0; i < 2; ++i)
            _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 8 * i),
                             _mm_packs_epi32(shift_right<16>(shift_left<16>(b.part[2 * i])),
                                             shift_right<16>(shift_left<16>(b.part[2 * i + 1]))));
        return;
    }
#endif
#if defined(__aarch64__)
    if constexpr (is_neon<Arch>) {
        vst1q_u16(p, low_words(b.part[0], b.part[1]));
        vst1q_u16(p + 8, low_words(b.part[2], b.part[3]));
        return;
    }
#endif
    narrow_by_element<Arch>(p, b);
}

/// fp16 by the processor's instruction.
template <class Arch>
inline constexpr bool converts_half = is_512<Arch> || is_256<Arch> || is_neon<Arch>;

template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load_half([[maybe_unused]] fp16 const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>)
        return _mm512_maskz_cvtph_ps(all_16, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__F16C__)
    if constexpr (is_256<Arch>) return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__aarch64__)
    if constexpr (is_neon<Arch>) return simd::load<Arch>(p);
#endif
}

template <class Arch>
TESSERA_FORCE_INLINE void store_half([[maybe_unused]] fp16* p, [[maybe_unused]] floats<Arch> const& v) noexcept {
    [[maybe_unused]] constexpr int nearest = 0;
#if defined(__AVX512F__)
    if constexpr (is_512<Arch>)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(all_16, v, nearest));
#endif
#if defined(__F16C__)
    if constexpr (is_256<Arch>) _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, nearest));
#endif
#if defined(__aarch64__)
    if constexpr (is_neon<Arch>) simd::store<Arch>(p, v);
#endif
}

} // namespace detail

/// Asks for the lines of a block, for reading or for writing, early; any address is allowed.
template <class Arch, class T>
TESSERA_FORCE_INLINE void prefetch_block(T* p) noexcept {
    constexpr index_t bytes = block_size<Arch> * index_t{sizeof(T)};
    auto const* const line = reinterpret_cast<char const*>(p);
    __builtin_prefetch(line, std::is_const_v<T> ? 0 : 1);
    if constexpr (bytes > 64) __builtin_prefetch(line + 64, std::is_const_v<T> ? 0 : 1);
    if constexpr (bytes > 128) {
        __builtin_prefetch(line + 128, std::is_const_v<T> ? 0 : 1);
        __builtin_prefetch(line + 192, std::is_const_v<T> ? 0 : 1);
    }
}

/// block_size<Arch> elements from p, any alignment.
template <class Arch, storable_element T>
TESSERA_FORCE_INLINE float_block<Arch> load_block(T const* p) noexcept {
    // Written out: g++ leaves a loop of four rounds in place and the parts in memory, and inlines no lambda.
    if constexpr (sizeof(T) == 4) {
        using reals = floats<Arch>;
        return {{reals::load_unaligned(p), reals::load_unaligned(p + lanes<Arch>),
                 reals::load_unaligned(p + 2 * lanes<Arch>), reals::load_unaligned(p + 3 * lanes<Arch>)}};
    } else if constexpr (std::same_as<T, fp16> && detail::converts_half<Arch>) {
        using detail::load_half;
        return {{load_half<Arch>(p), load_half<Arch>(p + lanes<Arch>), load_half<Arch>(p + 2 * lanes<Arch>),
                 load_half<Arch>(p + 3 * lanes<Arch>)}};
    } else {
        using format = format_of_t<T>;
        using code = std::conditional_t<sizeof(T) == 1, std::uint8_t, std::uint16_t>;
        auto const codes = detail::load_codes<Arch>(reinterpret_cast<code const*>(p));
        return {{decode<format>(codes.part[0]), decode<format>(codes.part[1]), decode<format>(codes.part[2]),
                 decode<format>(codes.part[3])}};
    }
}

/// Rounds a block to T, to nearest even; values above T's largest become `Beyond`.
template <class Arch, overflow Beyond, storable_element T>
TESSERA_FORCE_INLINE void store_block(T* p, float_block<Arch> const& b) noexcept {
    if constexpr (sizeof(T) == 4) {
        b.part[0].store_unaligned(p);
        b.part[1].store_unaligned(p + lanes<Arch>);
        b.part[2].store_unaligned(p + 2 * lanes<Arch>);
        b.part[3].store_unaligned(p + 3 * lanes<Arch>);
    } else if constexpr (std::same_as<T, fp16> && Beyond == overflow::infinity && detail::converts_half<Arch>) {
        detail::store_half<Arch>(p, b.part[0]);
        detail::store_half<Arch>(p + lanes<Arch>, b.part[1]);
        detail::store_half<Arch>(p + 2 * lanes<Arch>, b.part[2]);
        detail::store_half<Arch>(p + 3 * lanes<Arch>, b.part[3]);
    } else {
        using format = format_of_t<T>;
        detail::code_block<Arch> const codes = {{encode<format, Beyond>(b.part[0]), encode<format, Beyond>(b.part[1]),
                                                 encode<format, Beyond>(b.part[2]), encode<format, Beyond>(b.part[3])}};
        using code = std::conditional_t<sizeof(T) == 1, std::uint8_t, std::uint16_t>;
        detail::store_codes<Arch>(reinterpret_cast<code*>(p), codes);
    }
}

/// Eight codes, one in each byte, the first lowest, as 8 * Bits bits.
template <int Bits>
TESSERA_FORCE_INLINE std::uint64_t pack_eight(std::uint64_t codes) noexcept {
#if defined(__BMI2__) && (defined(__x86_64__) || defined(_M_X64))
    return _pext_u64(codes, 0x0101010101010101u * ((1u << Bits) - 1u));
#else
    constexpr int gap = 8 - Bits;
    codes = (codes & 0x00ff00ff00ff00ffu) | (codes & 0xff00ff00ff00ff00u) >> gap;
    codes = (codes & 0x0000ffff0000ffffu) | (codes & 0xffff0000ffff0000u) >> (2 * gap);
    return (codes & 0x00000000ffffffffu) | (codes & 0xffffffff00000000u) >> (4 * gap);
#endif
}

/// True where stores can pass the caches by.
template <class Arch>
inline constexpr bool has_streaming = detail::is_512<Arch> || detail::is_256<Arch> || detail::is_128<Arch>;

/// A block of elements, both sides aligned to 64 bytes or to the block, past the caches: its lines are not read before they
/// are written. Another thread sees them after `end_streaming`.
template <class Arch, storable_element T>
TESSERA_FORCE_INLINE void stream_block([[maybe_unused]] T* to, [[maybe_unused]] T const* from) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    constexpr index_t bytes = block_size<Arch> * index_t{sizeof(T)};
    auto* const out = reinterpret_cast<char*>(to);
    auto const* const in = reinterpret_cast<char const*>(from);
#if defined(__AVX512F__)
    if constexpr (detail::is_512<Arch>) {
        for (index_t i = 0; i < bytes; i += 64)
            _mm512_stream_si512(reinterpret_cast<__m512i*>(out + i), _mm512_load_si512(in + i));
        return;
    }
#endif
    for (index_t i = 0; i < bytes; i += 16)
        _mm_stream_si128(reinterpret_cast<__m128i*>(out + i), _mm_load_si128(reinterpret_cast<__m128i const*>(in + i)));
#endif
}

/// Orders streamed stores before what the thread stores next.
template <class Arch>
TESSERA_FORCE_INLINE void end_streaming() noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_sfence();
#endif
}

} // namespace tessera::inline TESSERA_ABI::simd
