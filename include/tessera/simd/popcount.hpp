// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Registers of bits: `bit_register<Arch>` holds 1, 2, 4 or 8 words of 64 bits and counts those in which two registers differ.
///
///     count_xor(a, b)[i] = popcount(a[i] ^ b[i])                  words::add sums counts, words::reduce a register of them
///
/// One instruction with AVX512-VPOPCNTDQ; nibbles by `vpshufb` and byte sums by `vpsadbw` with AVX-512BW and AVX2; `cnt` and
/// pairwise sums on NEON; std::popcount elsewhere.

#include "../core/arch.hpp"
#include "../core/macros.hpp"
#include "../core/types.hpp"

#include <bit>
#include <cstdint>
#include <type_traits>
#if defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

struct scalar_bits {
    using type = std::uint64_t;
    static constexpr index_t words = 1;
    static constexpr char const* name = "std::popcount";
    TESSERA_FORCE_INLINE static type load(std::uint64_t const* p) noexcept { return *p; }
    TESSERA_FORCE_INLINE static type zero() noexcept { return 0; }
    TESSERA_FORCE_INLINE static type count_xor(type a, type b) noexcept { return static_cast<type>(std::popcount(a ^ b)); }
    TESSERA_FORCE_INLINE static type add(type a, type b) noexcept { return a + b; }
    TESSERA_FORCE_INLINE static std::int64_t reduce(type a) noexcept { return static_cast<std::int64_t>(a); }
};

#if defined(__AVX2__)
struct avx2_bits {
    using type = __m256i;
    static constexpr index_t words = 4;
    static constexpr char const* name = "vpshufb";
    TESSERA_FORCE_INLINE static type load(std::uint64_t const* p) noexcept {
        return _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p));
    }
    TESSERA_FORCE_INLINE static type zero() noexcept { return _mm256_setzero_si256(); }
    TESSERA_FORCE_INLINE static type count_xor(type a, type b) noexcept {
        type const table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
        type const low = _mm256_set1_epi8(15);
        type const v = _mm256_xor_si256(a, b);
        type const counts = _mm256_add_epi8(_mm256_shuffle_epi8(table, _mm256_and_si256(v, low)),
                                            _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(v, 4), low)));
        return _mm256_sad_epu8(counts, _mm256_setzero_si256());
    }
    TESSERA_FORCE_INLINE static type add(type a, type b) noexcept { return _mm256_add_epi64(a, b); }
    TESSERA_FORCE_INLINE static std::int64_t reduce(type a) noexcept {
        __m128i const two = _mm_add_epi64(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
        return _mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
    }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__)
struct avx512_bits {
    using type = __m512i;
    static constexpr index_t words = 8;
#if defined(__AVX512VPOPCNTDQ__)
    static constexpr char const* name = "vpopcntq";
#else
    static constexpr char const* name = "vpshufb";
#endif
    TESSERA_FORCE_INLINE static type load(std::uint64_t const* p) noexcept { return _mm512_loadu_si512(p); }
    TESSERA_FORCE_INLINE static type zero() noexcept { return _mm512_setzero_si512(); }
    TESSERA_FORCE_INLINE static type count_xor(type a, type b) noexcept {
        type const v = _mm512_xor_si512(a, b);
#if defined(__AVX512VPOPCNTDQ__)
        return _mm512_popcnt_epi64(v);
#else
        type const table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
        type const low = _mm512_set1_epi8(15);
        type const counts = _mm512_add_epi8(_mm512_shuffle_epi8(table, _mm512_and_si512(v, low)),
                                            _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(v, 4), low)));
        return _mm512_sad_epu8(counts, _mm512_setzero_si512());
#endif
    }
    TESSERA_FORCE_INLINE static type add(type a, type b) noexcept { return _mm512_add_epi64(a, b); }
    TESSERA_FORCE_INLINE static std::int64_t reduce(type a) noexcept {
        __m256i const high = _mm512_maskz_extracti64x4_epi64(0xff, a, 1);
        return avx2_bits::reduce(_mm256_add_epi64(_mm512_castsi512_si256(a), high));
    }
};
#endif

#if defined(__aarch64__)
struct neon_bits {
    using type = uint64x2_t;
    static constexpr index_t words = 2;
    static constexpr char const* name = "cnt";
    TESSERA_FORCE_INLINE static type load(std::uint64_t const* p) noexcept { return vld1q_u64(p); }
    TESSERA_FORCE_INLINE static type zero() noexcept { return vdupq_n_u64(0); }
    TESSERA_FORCE_INLINE static type count_xor(type a, type b) noexcept {
        return vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8(vreinterpretq_u8_u64(veorq_u64(a, b))))));
    }
    TESSERA_FORCE_INLINE static type add(type a, type b) noexcept { return vaddq_u64(a, b); }
    TESSERA_FORCE_INLINE static std::int64_t reduce(type a) noexcept { return static_cast<std::int64_t>(vaddvq_u64(a)); }
};
#endif

template <class Arch>
constexpr auto select_bits() noexcept {
#if defined(__AVX512F__) && defined(__AVX512BW__)
    if constexpr (std::is_base_of_v<avx512, Arch>) return std::type_identity<avx512_bits>{};
    else
#endif
#if defined(__AVX2__)
    if constexpr (std::is_base_of_v<avx2, Arch>) return std::type_identity<avx2_bits>{};
    else
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) return std::type_identity<neon_bits>{};
    else
#endif
        return std::type_identity<scalar_bits>{};
}

} // namespace detail

/// The register of bits of an architecture; see the file comment.
template <class Arch>
using bit_register = typename decltype(detail::select_bits<Arch>())::type;

} // namespace tessera::inline TESSERA_ABI::simd
