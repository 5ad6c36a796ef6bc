// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// From codes in the panel order of storage/prepacked.hpp to float registers, and the prefetch that streams them.

#include "../storage/integer_codes.hpp"
#include "../storage/prepacked.hpp"
#include "dot.hpp"
#include "memory.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#if defined(__SSE2__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

/// Asks for the cache line at p, early; any address is allowed.
TESSERA_FORCE_INLINE void prefetch(void const* p) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T0);
#else
    __builtin_prefetch(p);
#endif
}

/// The same into the second-level cache: for streams whose next lines would fill the first level's few miss buffers.
TESSERA_FORCE_INLINE void prefetch_level_2(void const* p) noexcept {
#if defined(__SSE2__) || defined(_M_X64)
    _mm_prefetch(static_cast<char const*>(p), _MM_HINT_T1);
#else
    __builtin_prefetch(p, 0, 2);
#endif
}

/// Whether the processor reads on by itself where memory is read in order, past the ends of pages: AMD's Zen 4 does. Asking for what it
/// fetches anyway costs up to a third of the rate there. A load and a comparison: the compiler's library asks the processor at the start.
TESSERA_FORCE_INLINE bool reads_on() noexcept {
#if (defined(__GNUC__) || defined(__clang__)) && (defined(__x86_64__) || defined(__i386__)) && !defined(_MSC_VER)
    return __builtin_cpu_is("amd") != 0;
#else
    return false;
#endif
}

/// The value of every unsigned code of a format, for `look_up`. Padded to 16 so that 4-bit look-ups stay inside.
template <class Source>
struct value_table {
    static constexpr int size = Source::bits <= 4 ? 16 : 1 << Source::bits;
    alignas(64) float values[size];
    constexpr value_table() noexcept : values{} {
        for (int c = 0; c < size; ++c) values[c] = Source::value(static_cast<std::uint32_t>(c) & ((1u << Source::bits) - 1u));
    }
};
template <class Source>
inline constexpr value_table<Source> values_of{};

namespace detail {

template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> look_up_by_element(float const* table, ints<Arch> const& index) noexcept {
    alignas(64) std::int32_t i[lanes<Arch>];
    alignas(64) float v[lanes<Arch>];
    index.store_aligned(i);
    for (index_t l = 0; l < lanes<Arch>; ++l) v[l] = table[i[l]];
    return floats<Arch>::load_aligned(v);
}

#if defined(__aarch64__)
/// table[index] for indices below 16: a look-up of the four bytes of every number.
TESSERA_FORCE_INLINE float32x4_t look_up_16(float const* table, int32x4_t index) noexcept {
    uint8x16x4_t const bytes = {{vreinterpretq_u8_f32(vld1q_f32(table)), vreinterpretq_u8_f32(vld1q_f32(table + 4)),
                                 vreinterpretq_u8_f32(vld1q_f32(table + 8)), vreinterpretq_u8_f32(vld1q_f32(table + 12))}};
    int32x4_t const at = vmlaq_s32(vdupq_n_s32(0x03020100), index, vdupq_n_s32(0x04040404));
    return vreinterpretq_f32_u8(vqtbl4q_u8(bytes, vreinterpretq_u8_s32(at)));
}
#endif

} // namespace detail

/// word moved to the right by `by` bits, or to the left where that is negative.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> move_right(ints<Arch> const& word, int by) noexcept {
#if defined(__aarch64__)
    return vshlq_s32(word, vdupq_n_s32(-by));
#else
    return by > 0 ? word >> by : by < 0 ? word << -by : word;
#endif
}

namespace detail {

/// The matrix of bits that moves a byte to the right by `by` bits (to the left where that is negative) and keeps `width` of them from
/// bit `first`: byte 7 - i chooses what becomes bit i.
constexpr std::int64_t shift_of_bytes(int by, int first, int width) noexcept {
    std::uint64_t matrix = 0;
    for (int i = first; i < first + width; ++i) matrix |= std::uint64_t{1} << (8 * (7 - i) + i + by);
    return static_cast<std::int64_t>(matrix);
}

} // namespace detail

/// A strip of placed codes (storage/prepacked.hpp) in registers. Columns are constants once the caller's loops are unrolled.
template <class Arch, class Weights>
class code_strip {
    static constexpr code_planes planes = Weights::planes;

public:
    TESSERA_FORCE_INLINE explicit code_strip(std::byte const* p) noexcept { load<0>(p); }
    /// The codes of columns 4 q to 4 q + 3, a byte each.
    TESSERA_FORCE_INLINE ints<Arch> quad(int q) const noexcept {
        return gather(4 * q, 0, 0x01010101);
    }
    /// The codes of column c, a lane each.
    TESSERA_FORCE_INLINE ints<Arch> column(int c) const noexcept {
        return gather(c, c % 4 * 8, 1);
    }
    /// The same, perhaps with other bits above the code's: for look-ups that see the lowest bits only.
    TESSERA_FORCE_INLINE ints<Arch> unmasked_column(int c) const noexcept {
        if constexpr (planes.count == 1)
            return move_right<Arch>(word_[planes.vector(0, c)], c % 4 * 8 + planes.bit(0, c));
        else
            return column(c);
    }

private:
    template <int V>
    TESSERA_FORCE_INLINE void load(std::byte const* p) noexcept {
        word_[V] = load_bytes<Arch>(p + V * Weights::vector_bytes);
        if constexpr (V + 1 < planes.vectors()) load<V + 1>(p);
    }
    /// The parts of the code of column c, which begin `base` bits into a lane, put together; `one`: 1 in every place of a code.
    TESSERA_FORCE_INLINE ints<Arch> gather(int c, int base, std::int32_t one) const noexcept {
        ints<Arch> const first = part<0>(c, base, one);
        if constexpr (planes.count == 1)
            return first;
        else if constexpr (planes.count == 2)
            return first | part<1>(c, base, one);
        else
            return first | part<1>(c, base, one) | part<2>(c, base, one);
    }
    template <int P>
    TESSERA_FORCE_INLINE ints<Arch> part(int c, int base, std::int32_t one) const noexcept {
        int const by = base + planes.bit(P, c) - planes.shift[P];
#if defined(__GFNI__) && defined(__AVX512F__)
        if constexpr (lanes<Arch> == 16)
            if (one != 1 && by != 0 && planes.bits[P] < 8) // inside every byte, so one affine map of its bits
                return _mm512_gf2p8affine_epi64_epi8(word_[planes.vector(P, c)],
                                                     _mm512_set1_epi64(detail::shift_of_bytes(by, planes.shift[P], planes.bits[P])), 0);
#endif
        ints<Arch> const moved = move_right<Arch>(word_[planes.vector(P, c)], by);
        if (planes.bits[P] == 8 && one != 1) return moved; // its bytes are full
        auto const mask = static_cast<std::uint32_t>(one) * (((1u << planes.bits[P]) - 1u) << planes.shift[P]);
        return moved & ints<Arch>(static_cast<std::int32_t>(mask));
    }
    ints<Arch> word_[planes.vectors()];
};

/// The high and the low byte of the bf16 values of codes of 5 to 8 bits, where bf16 has them all: fp8, fp6, small integers.
template <class Source>
struct bf16_table {
    static constexpr int size = 1 << Source::bits;
    static constexpr bool is_exact = [] {
        if (Source::bits < 5) return false;
        for (std::uint32_t c = 0; c < size; ++c)
            if ((std::bit_cast<std::uint32_t>(Source::value(c)) & 0xffffu) != 0) return false;
        return true;
    }();
    alignas(64) std::uint8_t high[256]; // repeated
    alignas(64) std::uint8_t low[256];
    constexpr bf16_table() noexcept : high{}, low{} {
        for (std::uint32_t c = 0; c < 256; ++c) {
            auto const bits = std::bit_cast<std::uint32_t>(Source::value(c % size));
            high[c] = static_cast<std::uint8_t>(bits >> 24);
            low[c] = static_cast<std::uint8_t>(bits >> 16);
        }
    }
};
template <class Source>
inline constexpr bf16_table<Source> bf16_values_of{};

#if defined(__AVX512VBMI__)
/// table[code] for codes of `Bits` bits.
template <int Bits>
TESSERA_FORCE_INLINE __m512i look_up_256(std::uint8_t const* table, __m512i codes) noexcept {
    __m512i const first = _mm512_load_si512(table);
    if constexpr (Bits <= 6) return _mm512_permutexvar_epi8(codes, first);
    __m512i const low = _mm512_permutex2var_epi8(first, codes, _mm512_load_si512(table + 64));
    if constexpr (Bits == 7) return low;
    __m512i const high = _mm512_permutex2var_epi8(_mm512_load_si512(table + 128), codes, _mm512_load_si512(table + 192));
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(codes), high);
}
/// Values by their bf16 bytes: four columns' are looked up at once, then each takes its own.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE floats<Arch> column_by_bf16_bytes(code_strip<Arch, Weights> const& strip, int c) noexcept {
    using source = typename Weights::source;
    __m512i const codes = strip.quad(c / 4);
    __m512i const high = look_up_256<source::bits>(bf16_values_of<source>.high, codes);
    __m512i const low = look_up_256<source::bits>(bf16_values_of<source>.low, codes);
    // Lane r: bytes 4 r + c of low and of high on top of zeros.
    __m512i const lane = _mm512_set_epi32(60, 56, 52, 48, 44, 40, 36, 32, 28, 24, 20, 16, 12, 8, 4, 0);
    __m512i const index = _mm512_add_epi32(_mm512_mullo_epi32(lane, _mm512_set1_epi32(0x01010000)),
                                           _mm512_set1_epi32(0x40000000 + (c % 4) * 0x01010000));
    return _mm512_castsi512_ps(_mm512_maskz_permutex2var_epi8(0xccccccccccccccccull, low, index, high));
}
#endif

/// The values of the codes of column c of a strip.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE floats<Arch> column_values(code_strip<Arch, Weights> const& strip, int c) noexcept {
    using source = typename Weights::source;
    [[maybe_unused]] constexpr auto const& table = values_of<source>.values;
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16 && source::bits <= 4) // the permutation looks at the low four bits of an index only
        return _mm512_permutexvar_ps(strip.unmasked_column(c), _mm512_load_ps(table));
#if defined(__AVX512VBMI__)
    if constexpr (lanes<Arch> == 16 && bf16_table<source>::is_exact) return column_by_bf16_bytes(strip, c);
#endif
    if constexpr (lanes<Arch> == 16 && source::bits == 5)
        return _mm512_permutex2var_ps(_mm512_load_ps(table), strip.unmasked_column(c), _mm512_load_ps(table + 16));
#endif
    ints<Arch> const code = strip.column(c);
    if constexpr (source::is_integer) return xsimd::to_float(code - ints<Arch>(source::zero));
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16 && source::bits == 6) {
        __m512 const low = _mm512_permutex2var_ps(_mm512_load_ps(table), code, _mm512_load_ps(table + 16));
        __m512 const high = _mm512_permutex2var_ps(_mm512_load_ps(table + 32), code, _mm512_load_ps(table + 48));
        return _mm512_mask_mov_ps(low, _mm512_test_epi32_mask(code, _mm512_set1_epi32(32)), high);
    }
    if constexpr (lanes<Arch> == 16) return _mm512_i32gather_ps(code, table, 4);
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch> && source::bits <= 4) {
        __m256i const index = code;
        __m256 const low = _mm256_permutevar8x32_ps(_mm256_load_ps(table), index);
        if constexpr (source::bits <= 3) return low;
        __m256 const high = _mm256_permutevar8x32_ps(_mm256_load_ps(table + 8), index);
        return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
    }
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) return _mm256_i32gather_ps(table, code, 4);
#endif
#if defined(__aarch64__)
    if constexpr (source::bits <= 4) return detail::look_up_16(table, code);
#endif
    return detail::look_up_by_element<Arch>(table, code);
}

namespace detail {

/// bytes[code] in every byte, lane by lane: the definition.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> look_up_bytes_by_element(std::uint8_t const* bytes, ints<Arch> const& codes) noexcept {
    alignas(64) std::uint8_t b[4 * lanes<Arch>];
    codes.store_aligned(reinterpret_cast<std::int32_t*>(b));
    for (std::uint8_t& c : b) c = bytes[c];
    return ints<Arch>::load_aligned(reinterpret_cast<std::int32_t const*>(b));
}

} // namespace detail

/// The bytes of codes of at most `Bits` (6) bits: bytes[code], 64 of them, repeated after 2^Bits.
template <class Arch, int Bits>
TESSERA_FORCE_INLINE ints<Arch> look_up_bytes(std::uint8_t const* bytes, ints<Arch> const& codes) noexcept {
#if defined(__AVX512BW__)
    if constexpr (lanes<Arch> == 16) {
        __m512i const index = codes;
        auto const sixteen = [&](int t) {
            return _mm512_shuffle_epi8(
                _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<__m128i const*>(bytes + 16 * t))), index);
        };
        if constexpr (Bits <= 4) return sixteen(0);
#if defined(__AVX512VBMI__)
        return _mm512_permutexvar_epi8(index, _mm512_load_si512(bytes));
#else
        // A shuffle gives 0 only for indices of 128 and more, so every sixteen codes take theirs.
        __m512i const low = _mm512_mask_mov_epi8(sixteen(0), _mm512_test_epi8_mask(index, _mm512_set1_epi8(16)), sixteen(1));
        if constexpr (Bits == 5) return low;
        __m512i const high = _mm512_mask_mov_epi8(sixteen(2), _mm512_test_epi8_mask(index, _mm512_set1_epi8(16)), sixteen(3));
        return _mm512_mask_mov_epi8(low, _mm512_test_epi8_mask(index, _mm512_set1_epi8(32)), high);
#endif
    }
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const index = codes;
        auto const sixteen = [&](int t) {
            return _mm256_shuffle_epi8(
                _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<__m128i const*>(bytes + 16 * t))), index);
        };
        if constexpr (Bits <= 4) return sixteen(0);
        __m256i const fifth = _mm256_slli_epi16(index, 3); // bit 4 in the highest place of its byte
        __m256i const low = _mm256_blendv_epi8(sixteen(0), sixteen(1), fifth);
        if constexpr (Bits == 5) return low;
        __m256i const high = _mm256_blendv_epi8(sixteen(2), sixteen(3), fifth);
        return _mm256_blendv_epi8(low, high, _mm256_slli_epi16(index, 2));
    }
#endif
#if defined(__aarch64__)
    uint8x16_t const index = vreinterpretq_u8_s32(codes);
    if constexpr (Bits <= 4) return vreinterpretq_s32_u8(vqtbl1q_u8(vld1q_u8(bytes), index));
    return vreinterpretq_s32_u8(vqtbl4q_u8(vld1q_u8_x4(bytes), index));
#else
    return detail::look_up_bytes_by_element<Arch>(bytes, codes);
#endif
}

/// Which bytes of a pair.
enum class byte_half : std::uint8_t { low, high };

/// Quad q of a strip as the unsigned bytes of integer products (storage/integer_codes.hpp).
template <class Arch, class Weights, byte_half Half = byte_half::low>
TESSERA_FORCE_INLINE ints<Arch> integer_quad(code_strip<Arch, Weights> const& strip, int q) noexcept {
    using codes = integer_codes<typename Weights::source>;
    if constexpr (Half == byte_half::high)
        return look_up_bytes<Arch, Weights::source::bits>(codes::high_bytes, strip.quad(q));
    else if constexpr (codes::kind != integer_codes_kind::codes)
        return look_up_bytes<Arch, Weights::source::bits>(codes::bytes, strip.quad(q));
    else
        return strip.quad(q);
}

/// A byte per lane: one zero point, or one integer of two levels, per row.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_byte_lanes(std::uint8_t const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_maskz_cvtepu8_epi32(detail::every_lane, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
#endif
    alignas(64) std::int32_t z[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) z[i] = p[i];
    return ints<Arch>::load_aligned(z);
}
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_byte_lanes(std::int8_t const* p) noexcept {
#if defined(__AVX512F__)
    if constexpr (lanes<Arch> == 16)
        return _mm512_maskz_cvtepi8_epi32(detail::every_lane, _mm_loadu_si128(reinterpret_cast<__m128i const*>(p)));
#endif
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>)
        return _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p)));
#endif
    alignas(64) std::int32_t z[lanes<Arch>];
    for (index_t i = 0; i < lanes<Arch>; ++i) z[i] = p[i];
    return ints<Arch>::load_aligned(z);
}

/// The same in both 16-bit halves of a lane.
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_byte_pairs(std::uint8_t const* p) noexcept {
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const order = _mm256_setr_epi8(0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, -1, //
                                               4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7, -1);
        return _mm256_shuffle_epi8(_mm256_broadcastq_epi64(_mm_loadl_epi64(reinterpret_cast<__m128i const*>(p))), order);
    }
#endif
    ints<Arch> const low = load_byte_lanes<Arch>(p);
    return low | low << 16;
}
template <class Arch>
TESSERA_FORCE_INLINE ints<Arch> load_byte_pairs(std::int8_t const* p) noexcept {
#if defined(__AVX2__)
    if constexpr (lanes<Arch> == 8 && std::is_base_of_v<avx2, Arch>) {
        __m256i const order = _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3, //
                                               -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
        __m128i const bytes = _mm_loadl_epi64(reinterpret_cast<__m128i const*>(p));
        return _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_broadcastq_epi64(bytes), order), 8);
    }
#endif
    ints<Arch> const low = load_byte_lanes<Arch>(p);
    return (low & ints<Arch>(0xffff)) | low << 16;
}

} // namespace tessera::inline TESSERA_ABI::simd
