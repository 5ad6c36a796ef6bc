// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Random numbers of core/philox.hpp, a register of its blocks at a time, and stochastic rounding with them, bit for bit as
/// numerics/ defines it: floor(|x| / step + random / 2^32).
///
/// A block is four numbers, and a block's counter a lane. Lane 4 q + i has block i Q + q of 4 Q: when four registers of words are
/// interleaved within 128 bits, register i holds blocks i Q to i Q + Q - 1 in order, and nothing crosses lanes.

#include "../core/philox.hpp"
#include "convert_block.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI::simd {

/// Numbers that `random_bits` makes at a time: it writes whole ones of these.
template <class Arch>
inline constexpr index_t random_block = 4 * lanes<Arch>;

namespace detail {

/// Instructions of a register of 32-bit words; `has_words` says whether there are some.
template <class Arch>
struct words {
    static constexpr bool has_words = false;
};

#if defined(__AVX512F__)
template <class Arch>
    requires is_512<Arch>
struct words<Arch> {
    using type = __m512i;
    static constexpr bool has_words = true;
    TESSERA_FORCE_INLINE static type load(std::uint32_t const* p) noexcept { return _mm512_loadu_si512(p); }
    TESSERA_FORCE_INLINE static void store(std::uint32_t* p, type v) noexcept { _mm512_storeu_si512(p, v); }
    TESSERA_FORCE_INLINE static type all(std::uint32_t x) noexcept { return _mm512_set1_epi32(static_cast<int>(x)); }
    TESSERA_FORCE_INLINE static type exclusive(type a, type b) noexcept { return _mm512_xor_si512(a, b); }
    /// The halves of x m.
    TESSERA_FORCE_INLINE static void multiply(type x, type m, type& high, type& low) noexcept {
        type const even = _mm512_maskz_mul_epu32(0xff, x, m);
        type const odd = _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, x, 32), m);
        high = _mm512_mask_blend_epi32(0xaaaa, _mm512_maskz_srli_epi64(0xff, even, 32), odd);
        low = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_maskz_slli_epi64(0xff, odd, 32));
    }
    TESSERA_FORCE_INLINE static type low_words(type a, type b) noexcept { return _mm512_maskz_unpacklo_epi32(0xffff, a, b); }
    TESSERA_FORCE_INLINE static type high_words(type a, type b) noexcept { return _mm512_maskz_unpackhi_epi32(0xffff, a, b); }
    TESSERA_FORCE_INLINE static type low_pairs(type a, type b) noexcept { return _mm512_maskz_unpacklo_epi64(0xff, a, b); }
    TESSERA_FORCE_INLINE static type high_pairs(type a, type b) noexcept { return _mm512_maskz_unpackhi_epi64(0xff, a, b); }
};
#endif

#if defined(__AVX2__)
template <class Arch>
    requires is_256<Arch>
struct words<Arch> {
    using type = __m256i;
    static constexpr bool has_words = true;
    TESSERA_FORCE_INLINE static type load(std::uint32_t const* p) noexcept {
        return _mm256_loadu_si256(reinterpret_cast<__m256i const*>(p));
    }
    TESSERA_FORCE_INLINE static void store(std::uint32_t* p, type v) noexcept {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
    }
    TESSERA_FORCE_INLINE static type all(std::uint32_t x) noexcept { return _mm256_set1_epi32(static_cast<int>(x)); }
    TESSERA_FORCE_INLINE static type exclusive(type a, type b) noexcept { return _mm256_xor_si256(a, b); }
    TESSERA_FORCE_INLINE static void multiply(type x, type m, type& high, type& low) noexcept {
        type const even = _mm256_mul_epu32(x, m);
        type const odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), m);
        high = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
        low = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
    }
    TESSERA_FORCE_INLINE static type low_words(type a, type b) noexcept { return _mm256_unpacklo_epi32(a, b); }
    TESSERA_FORCE_INLINE static type high_words(type a, type b) noexcept { return _mm256_unpackhi_epi32(a, b); }
    TESSERA_FORCE_INLINE static type low_pairs(type a, type b) noexcept { return _mm256_unpacklo_epi64(a, b); }
    TESSERA_FORCE_INLINE static type high_pairs(type a, type b) noexcept { return _mm256_unpackhi_epi64(a, b); }
};
#endif

#if defined(__SSE2__) || defined(_M_X64)
template <class Arch>
    requires is_128<Arch>
struct words<Arch> {
    using type = __m128i;
    static constexpr bool has_words = true;
    TESSERA_FORCE_INLINE static type load(std::uint32_t const* p) noexcept {
        return _mm_loadu_si128(reinterpret_cast<__m128i const*>(p));
    }
    TESSERA_FORCE_INLINE static void store(std::uint32_t* p, type v) noexcept { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v); }
    TESSERA_FORCE_INLINE static type all(std::uint32_t x) noexcept { return _mm_set1_epi32(static_cast<int>(x)); }
    TESSERA_FORCE_INLINE static type exclusive(type a, type b) noexcept { return _mm_xor_si128(a, b); }
    TESSERA_FORCE_INLINE static void multiply(type x, type m, type& high, type& low) noexcept {
        type const of_even = _mm_set_epi32(0, -1, 0, -1);
        type const even = _mm_mul_epu32(x, m);
        type const odd = _mm_mul_epu32(_mm_srli_epi64(x, 32), m);
        high = _mm_or_si128(_mm_srli_epi64(even, 32), _mm_andnot_si128(of_even, odd));
        low = _mm_or_si128(_mm_and_si128(of_even, even), _mm_slli_epi64(odd, 32));
    }
    TESSERA_FORCE_INLINE static type low_words(type a, type b) noexcept { return _mm_unpacklo_epi32(a, b); }
    TESSERA_FORCE_INLINE static type high_words(type a, type b) noexcept { return _mm_unpackhi_epi32(a, b); }
    TESSERA_FORCE_INLINE static type low_pairs(type a, type b) noexcept { return _mm_unpacklo_epi64(a, b); }
    TESSERA_FORCE_INLINE static type high_pairs(type a, type b) noexcept { return _mm_unpackhi_epi64(a, b); }
};
#endif

/// `Count` times random_block numbers of a seed's first stream, from number 4 b on. Ten rounds are ten products after one another:
/// two registers at a time hide half of it.
template <class Arch, int Count>
TESSERA_FORCE_INLINE void random_of_blocks(std::uint64_t seed, std::uint64_t b, std::uint32_t* out) noexcept {
    using w = words<Arch>;
    constexpr int n = static_cast<int>(lanes<Arch>);
    typename w::type c0[Count], c1[Count], c2[Count], c3[Count];
    for (int i = 0; i < Count; ++i) {
        std::uint32_t low[n];
        std::uint32_t high[n];
        for (int l = 0; l < n; ++l) {
            std::uint64_t const counter = b + static_cast<std::uint64_t>(i * n + l % 4 * (n / 4) + l / 4);
            low[l] = static_cast<std::uint32_t>(counter);
            high[l] = static_cast<std::uint32_t>(counter >> 32);
        }
        c0[i] = w::load(low);
        c1[i] = w::load(high);
        c2[i] = w::all(0);
        c3[i] = w::all(0);
    }
    auto const m0 = w::all(0xD2511F53u);
    auto const m1 = w::all(0xCD9E8D57u);
    auto k0 = static_cast<std::uint32_t>(seed);
    auto k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < 10; ++round, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u)
        for (int i = 0; i < Count; ++i) {
            auto high0 = c0[i], low0 = c0[i], high1 = c2[i], low1 = c2[i];
            w::multiply(c0[i], m0, high0, low0);
            w::multiply(c2[i], m1, high1, low1);
            c0[i] = w::exclusive(w::exclusive(high1, c1[i]), w::all(k0));
            c1[i] = low1;
            c2[i] = w::exclusive(w::exclusive(high0, c3[i]), w::all(k1));
            c3[i] = low0;
        }
    for (int i = 0; i < Count; ++i, out += 4 * n) {
        auto const a = w::low_words(c0[i], c1[i]), c = w::high_words(c0[i], c1[i]);
        auto const d = w::low_words(c2[i], c3[i]), e = w::high_words(c2[i], c3[i]);
        w::store(out, w::low_pairs(a, d));
        w::store(out + n, w::high_pairs(a, d));
        w::store(out + 2 * n, w::low_pairs(c, e));
        w::store(out + 3 * n, w::high_pairs(c, e));
    }
}

/// Toward zero; numbers below 2^31.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> truncated(xsimd::batch<float, A> const& x) noexcept {
#if defined(__AVX512F__)
    if constexpr (xsimd::batch<float, A>::size == 16) return _mm512_maskz_cvttps_epi32(every_lane, x);
#endif
    return xsimd::to_int(x);
}

/// 1 where scaled + random, both unsigned, is beyond 32 bits.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> carry_of(xsimd::batch<std::int32_t, A> const& scaled,
                                                            xsimd::batch<std::int32_t, A> const& random) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    integers const lowest(std::int32_t(-0x7fffffff - 1));
    return simd::select((random ^ lowest) > (scaled ^ integers(0x7fffffff)), integers(1), integers(0));
}

/// floor(a + random / 2^32) of 0 <= a < 2^23, its fraction cut to 32 bits.
template <class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> rounded_at_random(xsimd::batch<float, A> const& a,
                                                                     xsimd::batch<std::int32_t, A> const& random) noexcept {
    using reals = xsimd::batch<float, A>;
    auto const whole = truncated(a);
    reals const fraction = (a - to_reals(whole)) * reals(0x1p31f);
    // 31 bits and, of a fraction of more, one: both are exact.
    auto const high = truncated(fraction);
    auto const low = truncated((fraction - to_reals(high)) * reals(2.0f));
    return whole + carry_of(shift_left<1>(high) + low, random);
}

} // namespace detail

/// out[i] = philox{seed}.bits(first + i) for i < n; `out` has room for two random_blocks more. Returns where number `first` lies.
template <class Arch>
std::uint32_t const* random_bits(std::uint64_t seed, std::uint64_t first, index_t n, std::uint32_t* out) noexcept {
    index_t const skipped = static_cast<index_t>(first % 4);
    if constexpr (detail::words<Arch>::has_words) {
        index_t i = 0;
        for (; i + random_block<Arch> < n + skipped; i += 2 * random_block<Arch>)
            detail::random_of_blocks<Arch, 2>(seed, first / 4 + static_cast<std::uint64_t>(i / 4), out + i);
        if (i < n + skipped) detail::random_of_blocks<Arch, 1>(seed, first / 4 + static_cast<std::uint64_t>(i / 4), out + i);
    } else {
        philox const random{seed};
        for (index_t i = 0; i < n + skipped; ++i) out[i] = random.bits(first / 4 * 4 + static_cast<std::uint64_t>(i));
    }
    return out + skipped;
}

/// Formats that `encode_at_random` takes.
template <class F>
inline constexpr bool rounds_at_random = [] {
    if constexpr (detail::carded<F>)
        return F::bits <= 8 && detail::has_lanes<F> && F::card.bias != 127;
    else
        return F::is_integer && requires { F::integer(0u); };
}();

/// F::encode(x, rounding::stochastic, overflow::saturate, random) of every lane. For integers: within the format, or NaN, which is 0.
template <class F, class A>
TESSERA_FORCE_INLINE xsimd::batch<std::int32_t, A> encode_at_random(xsimd::batch<float, A> const& x,
                                                                    xsimd::batch<std::int32_t, A> const& random) noexcept {
    using integers = xsimd::batch<std::int32_t, A>;
    using reals = xsimd::batch<float, A>;
    integers const bits = reinterpret<std::int32_t>(x);
    integers const magnitude = bits & integers(0x7fffffff);
    if constexpr (!detail::carded<F>) {
        reals const number = simd::select(x == x, x, reals(0.0f));
        integers const code = detail::rounded_at_random(xsimd::abs(number), random);
        integers const negative = detail::shift_right<31>(bits); // all ones or none
        return ((code ^ negative) - negative) & integers((std::int32_t{1} << F::bits) - 1);
    } else {
        constexpr float_card c = F::card;
        constexpr int shift = 23 - c.mantissa_bits;
        integers code = detail::shift_right<shift>(magnitude) - integers((127 - c.bias) * (std::int32_t{1} << c.mantissa_bits)) +
                        detail::carry_of(detail::shift_left<32 - shift>(magnitude), random);
        // Below the smallest normal number steps are equal, and fewer than 2^mantissa_bits.
        auto const is_below = magnitude < integers((128 - c.bias) * (std::int32_t{1} << 23));
        reals const below = simd::reinterpret<float>(simd::select(is_below, magnitude, integers(0)));
        reals const steps = below * reals(detail::power_of_two(c.bias - 1 + c.mantissa_bits));
        code = simd::select(is_below, detail::rounded_at_random(steps, random), code);
        code = detail::smaller(code, integers(static_cast<std::int32_t>(c.max_code)));
        integers const sign = detail::shift_left<F::bits - 1>(detail::shift_right<31>(bits) & integers(1));
        return detail::with_sign<F>(code, magnitude, sign);
    }
}

} // namespace tessera::inline TESSERA_ABI::simd
