// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The only place that maps the library's architecture tags to xsimd's, and that absorbs the renamings between xsimd 8.1
/// (Debian 12) and later versions: `hadd` became `reduce_add`. What xsimd 8.1 rounds otherwise on AArch64 (division of
/// registers by Newton's steps, `fnma` in two) has its instruction here.

#include "../core/arch.hpp"
#include "../core/types.hpp"

#include <type_traits>

// g++ 12 takes the undefined registers of its own AVX-512 header for a mistake (GCC bug 105593).
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <xsimd/xsimd.hpp>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

namespace tessera::inline TESSERA_ABI::simd {

namespace detail {

template <class Arch>
struct arch_map {
    static_assert(tessera::detail::always_false<Arch>,
                  "tessera: no SIMD mapping for this architecture tag (sse2, avx2, avx512 and their refinements, neon64 and its)");
};
template <>
struct arch_map<sse2> {
    using type = xsimd::sse2;
};
template <>
struct arch_map<avx2> {
    using type = xsimd::fma3<xsimd::avx2>;
};
template <>
struct arch_map<avx512> {
    using type = xsimd::avx512bw;
};
template <>
struct arch_map<avx2_vnni> : arch_map<avx2> {};
template <>
struct arch_map<avx512_vnni> : arch_map<avx512> {};
template <>
struct arch_map<avx512_amx> : arch_map<avx512> {};
template <>
struct arch_map<neon64> {
    using type = xsimd::neon64;
};
template <>
struct arch_map<neon64_dotprod> : arch_map<neon64> {};
template <>
struct arch_map<neon64_i8mm> : arch_map<neon64> {};

#if defined(__AVX512F__)
/// For zero-masked forms of conversions: the unmasked ones of g++ 12 start from a register that it warns of.
inline constexpr __mmask16 every_lane = 0xffff;
#endif

} // namespace detail

/// A register of T for the architecture; `floats<Arch>` and `ints<Arch>` have the same number of lanes.
template <class T, class Arch>
using batch = xsimd::batch<T, typename detail::arch_map<Arch>::type>;

template <class Arch>
using floats = batch<float, Arch>;
template <class Arch>
using ints = batch<std::int32_t, Arch>;

/// The bits of a register as the other lane type. xsimd 8 names the register in bitwise_cast, later ones the lane.
template <class To, class From, class A>
TESSERA_FORCE_INLINE xsimd::batch<To, A> reinterpret(xsimd::batch<From, A> const& v) noexcept {
#if XSIMD_VERSION_MAJOR < 10
    return xsimd::bitwise_cast<xsimd::batch<To, A>>(v);
#else
    return xsimd::bitwise_cast<To>(v);
#endif
}

/// Lanes of a float register: 4, 8 or 16.
template <class Arch>
inline constexpr index_t lanes = static_cast<index_t>(floats<Arch>::size);

/// x * y + z with one rounding wherever the program is compiled for a processor that has it. xsimd 8.1 has no fused form for
/// AVX-512; and of the two instructions of `sse2` g++ fuses some where it may, so that two kernels would round differently.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> fma(xsimd::batch<float, A> const& x, xsimd::batch<float, A> const& y,
                                                xsimd::batch<float, A> const& z) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_fmadd_ps(x, y, z);
#endif
#if defined(__FMA__)
    if constexpr (std::is_same_v<A, xsimd::sse2>) return _mm_fmadd_ps(x, y, z);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vfmaq_f32(z, x, y);
#endif
    return xsimd::fma(x, y, z);
}

/// x * y - z, rounded as `fma` does.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> fms(xsimd::batch<float, A> const& x, xsimd::batch<float, A> const& y,
                                                xsimd::batch<float, A> const& z) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_fmsub_ps(x, y, z);
#endif
#if defined(__FMA__)
    if constexpr (std::is_same_v<A, xsimd::sse2>) return _mm_fmsub_ps(x, y, z);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vfmaq_f32(vnegq_f32(z), x, y);
#endif
    return xsimd::fms(x, y, z);
}

/// z - x * y, rounded as `fma` does.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> fnma(xsimd::batch<float, A> const& x, xsimd::batch<float, A> const& y,
                                                 xsimd::batch<float, A> const& z) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_fnmadd_ps(x, y, z);
#endif
#if defined(__FMA__)
    if constexpr (std::is_same_v<A, xsimd::sse2>) return _mm_fnmadd_ps(x, y, z);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vfmsq_f32(z, x, y);
#endif
    return xsimd::fnma(x, y, z);
}

/// x / y, rounded once.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> divide(xsimd::batch<float, A> const& x,
                                                   xsimd::batch<float, A> const& y) noexcept {
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vdivq_f32(x, y);
#endif
    return x / y;
}

/// Lanes of `yes` where the condition holds, else of `no`. xsimd 8.1's form of it for AVX-512 integers names instructions of
/// every width in one function, which g++ without optimisation, where they are macros, does not compile.
template <class T, class A>
TESSERA_FORCE_INLINE xsimd::batch<T, A> select(xsimd::batch_bool<T, A> const& condition, xsimd::batch<T, A> const& yes,
                                               xsimd::batch<T, A> const& no) noexcept {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, std::int32_t> && xsimd::batch<T, A>::size == 16)
        return _mm512_mask_blend_epi32(static_cast<__mmask16>(condition.data), no, yes);
    else
#endif
        return xsimd::select(condition, yes, no);
}

/// The larger of each pair of lanes; y where one is NaN. The masked form of AVX-512 avoids a false warning that
/// GCC 12's own header gives for the plain one.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> max(xsimd::batch<float, A> const& x, xsimd::batch<float, A> const& y) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_max_ps(0xffff, x, y);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vbslq_f32(vcgtq_f32(x, y), x, y);
#endif
    return xsimd::max(x, y);
}

/// The smaller of each pair of lanes; y where one is NaN.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<float, A> min(xsimd::batch<float, A> const& x, xsimd::batch<float, A> const& y) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_min_ps(0xffff, x, y);
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<A, xsimd::neon64>) return vbslq_f32(vcltq_f32(x, y), x, y);
#endif
    return xsimd::min(x, y);
}

/// The sum of all lanes; its order is a constant of the architecture. Integers wrap around.
template <class T, class A>
TESSERA_FORCE_INLINE T reduce_add(xsimd::batch<T, A> const& v) noexcept {
    if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) { // xsimd adds halves as scalars
        return static_cast<T>(simd::reduce_add(reinterpret<std::make_unsigned_t<T>>(v)));
    } else {
#if XSIMD_VERSION_MAJOR < 10
        return xsimd::hadd(v);
#else
        return xsimd::reduce_add(v);
#endif
    }
}

/// The largest lane.
template <class T, class A>
TESSERA_FORCE_INLINE T reduce_max(xsimd::batch<T, A> const& v) noexcept {
#if defined(__AVX512F__)
    if constexpr (std::is_same_v<T, float> && xsimd::batch<T, A>::size == 16) {
        __m256 const half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(
                                                                         0xff, _mm512_castps_pd(v), 1)));
        __m128 const four = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        __m128 const two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
#endif
#if defined(__AVX2__)
    if constexpr (std::is_same_v<T, float> && std::is_same_v<A, xsimd::fma3<xsimd::avx2>>) {
        __m128 const four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        __m128 const two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
    }
#endif
#if defined(__aarch64__)
    if constexpr (std::is_same_v<T, float>) return vmaxnmvq_f32(v);
#endif
    alignas(64) T lane[xsimd::batch<T, A>::size];
    v.store_aligned(lane);
    T result = lane[0];
    for (std::size_t i = 1; i < xsimd::batch<T, A>::size; ++i) result = result < lane[i] ? lane[i] : result;
    return result;
}

} // namespace tessera::inline TESSERA_ABI::simd
