// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Four-element integer dot products, one name for every instruction set:
///
///     dot4<Bits>(acc, u, s)[i] = acc[i] + sum over j < 4 of u[4 i + j] * s[4 i + j]
///
/// u unsigned codes of at most `Bits` bits, s signed bytes, acc 32-bit lanes; exact (VNNI's `vpdpbusd` does not saturate;
/// AVX2's `vpmaddubsw` does beyond 15 bits, so it serves codes of at most 7 bits, and wider ones are widened, or taken as signed
/// where s is not -128: `dot4_less`; several of its results are added before they are widened: `narrow_depth`). AArch64
/// multiplies signed bytes by signed ones (`smull`, `sdot`): codes of 8 bits are taken as u - 128, and 128 s is added.

#include "arch_map.hpp"

#include <cstdint>
#include <cstring>
#include <type_traits>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// Four bytes of p in every lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> broadcast_bytes4(std::int8_t const* p) noexcept {
    std::int32_t word;
    std::memcpy(&word, p, sizeof word);
    return ints<Arch>(word);
}

/// 4 * lanes bytes from p, any alignment, as 32-bit lanes.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_bytes(std::byte const* p) noexcept {
    return ints<Arch>::load_unaligned(reinterpret_cast<std::int32_t const*>(p));
}

namespace detail {

/// Any mapped architecture, lane by lane: the definition.
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(generic_arch, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    alignas(64) std::int32_t sum[lanes<Arch>];
    alignas(64) std::uint8_t a[4 * lanes<Arch>];
    alignas(64) std::int8_t b[4 * lanes<Arch>];
    acc.store_aligned(sum);
    u.store_aligned(reinterpret_cast<std::int32_t*>(a));
    s.store_aligned(reinterpret_cast<std::int32_t*>(b));
    for (index_t i = 0; i < lanes<Arch>; ++i)
        for (index_t j = 0; j < 4; ++j) sum[i] += a[4 * i + j] * b[4 * i + j];
    return ints<Arch>::load_aligned(sum);
}

#if defined(__SSE2__) || defined(_M_X64)
/// Even and odd bytes as 16-bit numbers, then pairwise multiply-add: exact for all codes.
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(sse2, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    __m128i const a = u;
    __m128i const b = s;
    __m128i const even = _mm_madd_epi16(_mm_and_si128(a, _mm_set1_epi16(0xff)), _mm_srai_epi16(_mm_slli_epi16(b, 8), 8));
    __m128i const odd = _mm_madd_epi16(_mm_srli_epi16(a, 8), _mm_srai_epi16(b, 8));
    return _mm_add_epi32(acc, _mm_add_epi32(even, odd));
}
#endif

#if defined(__AVX2__)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(avx2, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    __m256i const a = u;
    __m256i const b = s;
    if constexpr (Bits <= 7)
        return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)));
    __m256i const even =
        _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(0xff)), _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8));
    __m256i const odd = _mm256_madd_epi16(_mm256_srli_epi16(a, 8), _mm256_srai_epi16(b, 8));
    return _mm256_add_epi32(acc, _mm256_add_epi32(even, odd));
}
#endif

#if defined(__AVXVNNI__)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(avx2_vnni, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    return _mm256_dpbusd_avx_epi32(acc, u, s);
}
#endif

#if defined(__AVX512BW__)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(avx512, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    __m512i const a = u;
    __m512i const b = s;
    if constexpr (Bits <= 7)
        return _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1)));
    __m512i const even =
        _mm512_madd_epi16(_mm512_and_si512(a, _mm512_set1_epi16(0xff)), _mm512_srai_epi16(_mm512_slli_epi16(b, 8), 8));
    __m512i const odd = _mm512_madd_epi16(_mm512_srli_epi16(a, 8), _mm512_srai_epi16(b, 8));
    return _mm512_add_epi32(acc, _mm512_add_epi32(even, odd));
}
#endif

#if defined(__AVX512VNNI__)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(avx512_vnni, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
#if defined(__GNUC__) && !defined(__clang__)
    // g++ 12 copies sums around the intrinsic and runs out of registers with 16 of them.
    __m512i sum = acc;
    __m512i const a = u, b = s;
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
#else
    return _mm512_dpbusd_epi32(acc, u, s);
#endif
}
#endif

#if defined(__aarch64__)
/// Products of bytes in 16 bits: two of at most 127 * 128 fit, two of 128 * 128 do not.
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(neon64, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    int8x16_t const b = vreinterpretq_s8_s32(s);
    if constexpr (Bits <= 7) {
        int8x16_t const a = vreinterpretq_s8_s32(u);
        int16x8_t const low = vmull_s8(vget_low_s8(a), vget_low_s8(b));
        return vpadalq_s16(acc, vpaddq_s16(low, vmull_high_s8(a, b)));
    }
    int8x16_t const a = vreinterpretq_s8_s32(veorq_s32(u, vdupq_n_s32(static_cast<std::int32_t>(0x80808080u))));
    int32x4_t const low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    int32x4_t const sum = vaddq_s32(acc, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(a, b))));
    return vpadalq_s16(sum, vshlq_n_s16(vpaddlq_s8(b), 7));
}
#endif

#if defined(__ARM_FEATURE_DOTPROD)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(neon64_dotprod, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    int8x16_t const b = vreinterpretq_s8_s32(s);
    if constexpr (Bits <= 7) return vdotq_s32(acc, vreinterpretq_s8_s32(u), b);
    int8x16_t const half = vdupq_n_s8(64);
    int32x4_t const offset = vdotq_s32(vdotq_s32(acc, half, b), half, b);
    return vdotq_s32(offset, vreinterpretq_s8_s32(veorq_s32(u, vdupq_n_s32(static_cast<std::int32_t>(0x80808080u)))), b);
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(neon64_i8mm, ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    return vusdotq_s32(acc, vreinterpretq_u8_s32(u), vreinterpretq_s8_s32(s));
}
#endif

} // namespace detail

/// See the file comment. The overload is chosen by the most derived architecture that has one.
template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4(ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
    return detail::dot4<Bits, Arch>(Arch{}, acc, u, s);
}

/// Where products of bytes are 16-bit numbers that do not saturate (no VNNI): how many dot4 of codes of `Bits` bits and s of at
/// most 127 such numbers hold, two in a lane, before they are widened; 0 elsewhere.
template <int Bits, class Arch>
inline constexpr int narrow_depth = [] {
    [[maybe_unused]] constexpr int depth = Bits <= 7 ? 32767 / (2 * 127 * ((1 << Bits) - 1)) : 0;
#if defined(__AVX512BW__)
    if (lanes<Arch> == 16 && std::is_base_of_v<avx512, Arch>) {
#if defined(__AVX512VNNI__)
        if (std::is_base_of_v<avx512_vnni, Arch>) return 0;
#endif
        return depth;
    }
#endif
#if defined(__AVX2__)
    if (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
#if defined(__AVXVNNI__)
        if (std::is_base_of_v<avx2_vnni, Arch>) return 0;
#endif
        return depth;
    }
#endif
    return 0;
}();

#if defined(__AVX2__)
/// The products of one dot4 in 16 bits, two in a lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4_narrow(ints<Arch> u, ints<Arch> s) noexcept {
#if defined(__AVX512BW__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_maddubs_epi16(u, s);
    else
#endif
        return _mm256_maddubs_epi16(u, s);
}
/// The same added to others. g++ 12 makes a tree of additions and spills its leaves, so the instruction is written as assembly.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4_narrow(ints<Arch> sum, ints<Arch> u, ints<Arch> s) noexcept {
    ints<Arch> const products = dot4_narrow<Arch>(u, s);
#if defined(__AVX512BW__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_add_epi16(sum, products);
    else
#endif
    {
#if defined(__GNUC__) && !defined(__clang__)
        __m256i const a = sum, b = products;
        __m256i result;
        asm("vpaddw %2, %1, %0" : "=x"(result) : "%x"(a), "x"(b));
        return result;
#else
        return _mm256_add_epi16(sum, products);
#endif
    }
}
#else
template <class Arch>
ints<Arch> dot4_narrow(ints<Arch> u, ints<Arch> s) noexcept; // narrow_depth is 0
template <class Arch>
ints<Arch> dot4_narrow(ints<Arch> sum, ints<Arch> u, ints<Arch> s) noexcept;
#endif

namespace detail {

/// acc + a * b: of each of the two 16-bit numbers of a lane on x86, else of the lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_pairs(generic_arch, ints<Arch> acc, ints<Arch> a, ints<Arch> b) noexcept {
    return acc + a * b;
}
#if defined(__SSE2__) || defined(_M_X64)
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_pairs(sse2, ints<Arch> acc, ints<Arch> a, ints<Arch> b) noexcept {
    return _mm_add_epi32(acc, _mm_madd_epi16(a, b));
}
#endif
#if defined(__AVX2__)
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_pairs(avx2, ints<Arch> acc, ints<Arch> a, ints<Arch> b) noexcept {
#if defined(__GNUC__) && !defined(__clang__)
    // As above: a tree of sums would be spilled.
    __m256i const sum = acc, products = _mm256_madd_epi16(a, b);
    __m256i result;
    asm("vpaddd %2, %1, %0" : "=x"(result) : "%x"(sum), "x"(products));
    return result;
#else
    return _mm256_add_epi32(acc, _mm256_madd_epi16(a, b));
#endif
}
#endif
#if defined(__AVX512BW__)
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_pairs(avx512, ints<Arch> acc, ints<Arch> a, ints<Arch> b) noexcept {
    return _mm512_add_epi32(acc, _mm512_madd_epi16(a, b));
}
#endif
#if defined(__AVX512VNNI__)
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_pairs(avx512_vnni, ints<Arch> acc, ints<Arch> a, ints<Arch> b) noexcept {
    return _mm512_dpwssd_epi32(acc, a, b);
}
#endif

} // namespace detail

/// v in both 16-bit halves of every lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> broadcast_pair(int v) noexcept {
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) return _mm256_set1_epi16(static_cast<short>(v));
#endif
    return ints<Arch>((v & 0xffff) | v * 65536);
}
/// acc + both 16-bit sums of a lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> widen_narrow(ints<Arch> acc, ints<Arch> sum) noexcept {
    return detail::multiply_pairs<Arch>(Arch{}, acc, sum, ints<Arch>(0x00010001));
}

/// acc + both products of a lane: of 16-bit sums and factors.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_narrow(ints<Arch> acc, ints<Arch> sums, ints<Arch> factors) noexcept {
    return detail::multiply_pairs<Arch>(Arch{}, acc, sums, factors);
}
/// acc + sum * factor, numbers of a lane that fit 16 bits.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> multiply_small(ints<Arch> acc, ints<Arch> sum, ints<Arch> factor) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    factor = factor & ints<Arch>(0xffff); // the other half of the sum, its sign, counts nothing
#endif
    return detail::multiply_pairs<Arch>(Arch{}, acc, sum, factor);
}

/// Where products of bytes saturate (no VNNI), dot4 of 8-bit codes is made of signed ones: dot4_less adds (u - dot4_bias) * s.
template <int Bits, class Arch>
inline constexpr int dot4_bias = Bits == 8 && lanes<Arch> == 8 && narrow_depth<1, Arch> > 0 ? 128 : 0;

template <int Bits, class Arch>
TESSERA_FORCE_INLINE ints<Arch> dot4_less(ints<Arch> acc, ints<Arch> u, ints<Arch> s) noexcept {
#if defined(__AVX2__)
    if constexpr (dot4_bias<Bits, Arch> != 0) { // |u - 128| times s with the sign of u - 128: at most 2 * 128 * 127
        __m256i const code = _mm256_xor_si256(u, _mm256_set1_epi8(-128));
        __m256i const products = _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(s, code));
        return _mm256_add_epi32(acc, _mm256_madd_epi16(products, _mm256_set1_epi16(1)));
    }
#endif
    return dot4<Bits, Arch>(acc, u, s);
}

/// What dot4 is made of on an architecture, as compiled.
template <class Arch>
inline constexpr char const* dot4_name = [] {
#if defined(__AVX512VNNI__)
    if (std::is_base_of_v<avx512_vnni, Arch>) return "vpdpbusd (512 bits)";
#endif
#if defined(__AVXVNNI__)
    if (std::is_base_of_v<avx2_vnni, Arch>) return "vpdpbusd (256 bits)";
#endif
    if (std::is_base_of_v<avx512, Arch>) return "vpmaddubsw or vpmaddwd (512 bits)";
    if (std::is_base_of_v<avx2, Arch>) return "vpmaddubsw or vpmaddwd (256 bits)";
    if (std::is_base_of_v<sse2, Arch>) return "pmaddwd";
#if defined(__ARM_FEATURE_MATMUL_INT8)
    if (std::is_base_of_v<neon64_i8mm, Arch>) return "usdot";
#endif
#if defined(__ARM_FEATURE_DOTPROD)
    if (std::is_base_of_v<neon64_dotprod, Arch>) return "sdot";
#endif
    if (std::is_base_of_v<neon64, Arch>) return "smull and sadalp";
    return "scalar products";
}();

} // namespace tessera::inline TESSERA_ABI::simd
