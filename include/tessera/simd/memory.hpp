// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Loads and stores of float32 registers from float32, fp16 and bf16 memory, whole or partial. Partial ones touch only
/// the elements they name; missing lanes read as zero. xsimd has no 16-bit float batches, so the few conversion
/// intrinsics live here.

#include "../numerics/half.hpp"
#include "arch_map.hpp"

#include <cstdint>
#include <cstring>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// lanes<Arch> floats from p, any alignment.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load(float const* p) noexcept {
    return floats<Arch>::load_unaligned(p);
}

template <class Arch>
TESSERA_FORCE_INLINE void store(float* p, floats<Arch> const& v) noexcept {
    v.store_unaligned(p);
}

/// The first half of v to `low`, the other to `high`.
template <class Arch>
TESSERA_FORCE_INLINE void store_halves(float* low, float* high, floats<Arch> const& v) noexcept {
    constexpr std::size_t half = lanes<Arch> / 2;
#if defined(__AVX512F__)
    if constexpr (half == 8) {
        _mm256_storeu_ps(low, _mm512_castps512_ps256(v));
        _mm256_storeu_ps(high, _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, _mm512_castps_pd(v), 1)));
        return;
    }
#endif
    alignas(64) float lane[2 * half];
    v.store_aligned(lane);
    std::memcpy(low, lane, half * sizeof(float));
    std::memcpy(high, lane + half, half * sizeof(float));
}

namespace detail {

#if defined(__AVX512F__)
TESSERA_FORCE_INLINE __m512 widen_bf16(__m256i codes) noexcept {
    return _mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(every_lane, _mm512_maskz_cvtepu16_epi32(every_lane, codes), 16));
}
TESSERA_FORCE_INLINE __m512 widen_int8(__m128i codes) noexcept {
    return _mm512_maskz_cvtepi32_ps(every_lane, _mm512_maskz_cvtepi8_epi32(every_lane, codes));
}
#endif

/// Scalar conversion of a register's worth: the fall-back, and the definition of the vector ones.
template <class Arch, class T>
TESSERA_FORCE_INLINE floats<Arch> load_by_element(T const* p, index_t n) noexcept {
    alignas(64) float lane[lanes<Arch>] = {};
    for (index_t i = 0; i < n; ++i) lane[i] = static_cast<float>(p[i]);
    return floats<Arch>::load_aligned(lane);
}

template <class Arch, class T>
TESSERA_FORCE_INLINE void store_by_element(T* p, floats<Arch> const& v, index_t n) noexcept {
    alignas(64) float lane[lanes<Arch>];
    v.store_aligned(lane);
    for (index_t i = 0; i < n; ++i) p[i] = static_cast<T>(lane[i]);
}

} // namespace detail

/// lanes<Arch> fp16 numbers, widened exactly.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load(fp16 const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_maskz_cvtph_ps(detail::every_lane, _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__F16C__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>)
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<std::uint16_t const*>(p))));
#endif
    return detail::load_by_element<Arch>(p, lanes<Arch>);
}

/// lanes<Arch> bf16 numbers, widened exactly.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load(bf16 const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return detail::widen_bf16(_mm256_loadu_si256(reinterpret_cast<__m256i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_castsi256_ps(
            _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p))), 16));
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>)
        return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(reinterpret_cast<std::uint16_t const*>(p)), 16));
#endif
    return detail::load_by_element<Arch>(p, lanes<Arch>);
}

/// lanes<Arch> signed bytes as floats.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> load(std::int8_t const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return detail::widen_int8(_mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))));
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) {
        std::uint32_t four;
        std::memcpy(&four, p, sizeof four);
        return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vcreate_s8(four)))));
    }
#endif
    return detail::load_by_element<Arch>(p, lanes<Arch>);
}

/// The same, or one element in all lanes.
template <class Arch, bool Broadcast, class T>
TESSERA_FORCE_INLINE floats<Arch> load_or_broadcast(T const* p) noexcept {
    if constexpr (Broadcast)
        return floats<Arch>(static_cast<float>(*p));
    else
        return load<Arch>(p);
}

/// The first n elements (0 <= n <= lanes), the other lanes zero.
template <class Arch, class T>
TESSERA_FORCE_INLINE floats<Arch> load_partial(T const* p, index_t n) noexcept {
    if (n == lanes<Arch>) return load<Arch>(p);
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    if constexpr (lanes<Arch> == 16) {
        auto const mask = static_cast<__mmask16>((1u << n) - 1);
        if constexpr (sizeof(T) == 4)
            return _mm512_maskz_loadu_ps(mask, p);
        else if constexpr (std::is_same_v<T, fp16>)
            return _mm512_maskz_cvtph_ps(detail::every_lane, _mm256_maskz_loadu_epi16(mask, p));
        else if constexpr (std::is_same_v<T, std::int8_t>)
            return detail::widen_int8(_mm_maskz_loadu_epi8(mask, p));
        else
            return detail::widen_bf16(_mm256_maskz_loadu_epi16(mask, p));
    }
#endif
    if constexpr (sizeof(T) == 4) {
        alignas(64) float lane[lanes<Arch>] = {};
        if (n > 0) std::memcpy(lane, p, static_cast<std::size_t>(n) * sizeof(float));
        return floats<Arch>::load_aligned(lane);
    } else {
        return detail::load_by_element<Arch>(p, n);
    }
}

/// Stores the first n lanes (0 <= n <= lanes).
template <class Arch>
TESSERA_FORCE_INLINE void store_partial(float* p, floats<Arch> const& v, index_t n) noexcept {
    if (n == lanes<Arch>) return store<Arch>(p, v);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
        return;
    }
#endif
    alignas(64) float lane[lanes<Arch>];
    v.store_aligned(lane);
    if (n > 0) std::memcpy(p, lane, static_cast<std::size_t>(n) * sizeof(float));
}

/// Rounds to fp16, nearest even.
template <class Arch>
TESSERA_FORCE_INLINE void store(fp16* p, floats<Arch> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                            _mm512_maskz_cvtps_ph(detail::every_lane, v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        return;
    }
#endif
#if defined(__F16C__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
        return;
    }
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) {
        float32x4_t number = v;
#if defined(__GNUC__)
        // g++ would take the narrowing of a widened number for nothing at all; but a signalling NaN becomes quiet on the way.
        __asm__("" : "+w"(number));
#endif
        vst1_u16(reinterpret_cast<std::uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(number)));
        return;
    }
#endif
    detail::store_by_element<Arch>(p, v, lanes<Arch>);
}

namespace detail {

/// The bits of bf16 in the low half of every lane: nearest even by adding half an ulp less one plus the last kept bit;
/// NaN becomes the quiet NaN of its sign (the definition is bf16's constructor).
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> bf16_codes(floats<Arch> const& v) noexcept {
    using integers = ints<Arch>;
    integers const bits = reinterpret<std::int32_t>(v);
    // Arithmetic shifts: only the low 16 bits of the result are stored.
    integers const rounded = (bits + integers(0x7fff) + ((bits >> 16) & integers(1))) >> 16;
    integers const quiet = ((bits >> 16) & integers(0x8000)) | integers(0x7fc0);
    return simd::select((bits & integers(0x7fffffff)) > integers(0x7f800000), quiet, rounded);
}

} // namespace detail

/// Rounds to bf16, nearest even.
template <class Arch>
TESSERA_FORCE_INLINE void store(bf16* p, floats<Arch> const& v) noexcept {
    ints<Arch> const codes = detail::bf16_codes<Arch>(v);
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtepi32_epi16(0xffff, codes));
        return;
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        // Keeps the low half of every lane; packus would saturate the bits above it otherwise.
        __m256i const low = _mm256_and_si256(codes, _mm256_set1_epi32(0xffff));
        __m256i const packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
        return;
    }
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) {
        vst1_u16(reinterpret_cast<std::uint16_t*>(p), vmovn_u32(vreinterpretq_u32_s32(codes)));
        return;
    }
#endif
    alignas(64) std::int32_t lane[lanes<Arch>];
    codes.store_aligned(lane);
    for (index_t i = 0; i < lanes<Arch>; ++i) p[i] = bf16::from_bits(static_cast<std::uint16_t>(lane[i]));
}

template <class Arch, class T>
    requires(sizeof(T) == 2)
TESSERA_FORCE_INLINE void store_partial(T* p, floats<Arch> const& v, index_t n) noexcept {
    if (n == lanes<Arch>) return store<Arch>(p, v);
    detail::store_by_element<Arch>(p, v, n);
}

/// Stores the low byte of every lane; lanes are within -128 to 127.
template <class Arch>
TESSERA_FORCE_INLINE void store_int8(std::int8_t* p, ints<Arch> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_maskz_cvtepi32_epi8(detail::every_lane, v));
        return;
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const order = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, //
                                               0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
        __m256i const bytes = _mm256_shuffle_epi8(v, order);
        __m128i const eight = _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(p), eight);
        return;
    }
#endif
#if defined(__aarch64__)
    if constexpr (std::is_base_of_v<neon64, Arch>) {
        int16x4_t const words = vmovn_s32(v);
        std::uint32_t const four = vget_lane_u32(vreinterpret_u32_s8(vmovn_s16(vcombine_s16(words, words))), 0);
        std::memcpy(p, &four, sizeof four);
        return;
    }
#endif
    alignas(64) std::int32_t lane[lanes<Arch>];
    v.store_aligned(lane);
    for (index_t i = 0; i < lanes<Arch>; ++i) p[i] = static_cast<std::int8_t>(lane[i]);
}

} // namespace tessera::inline TESSERA_ABI::simd
