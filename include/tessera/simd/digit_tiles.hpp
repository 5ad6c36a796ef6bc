// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Many rows of floats times bytes on matrix tiles, by digits (digits.hpp): the floats are a lane each, 16 of them make an operand B
/// for each of 4 digits, and the bytes are rows of A. Sums of the 4 digits then lie side by side, register by register:
///
///     out(i, lane) = sum over k of a(i, k) x(k, lane),   x = unit(lane) (d0 + 256 d1 + 256^2 d2 + 256^3 d3)
///
/// A product of 16 rows, 64 columns of k and 16 lanes takes 64 cycles: a seventh of what fused multiply-adds take.

#include "digits.hpp"
#include "transpose.hpp"

#include <atomic>

namespace tessera::inline TESSERA_ABI::simd {

#if defined(__AMX_INT8__) && defined(__linux__) && defined(__AVX512BW__)

/// Bytes of the operands of 64 columns of k and 16 lanes: [4 digits][16 quads of k][64].
inline constexpr index_t digit_operand = 4096;

/// For each of 16 lanes, the power of two that makes 30-bit integers of n numbers `stride` apart, and its reciprocal. False: a
/// number is not finite.
inline bool lane_fixed_point(float const* x, index_t stride, index_t n, float* factor, float* unit) noexcept {
    __m512i largest = _mm512_setzero_si512();
    for (index_t i = 0; i < n; ++i)
        largest = _mm512_maskz_max_epu32(
            detail::every_lane, largest,
            _mm512_and_si512(_mm512_loadu_si512(x + i * stride), _mm512_set1_epi32(0x7fffffff)));
    alignas(64) std::uint32_t bits[16];
    _mm512_store_si512(bits, largest);
    for (int lane = 0; lane < 16; ++lane) {
        if (bits[lane] >= infinity_bits) return false;
        fixed_point_scale const scale = fixed_point_of(bits[lane]);
        factor[lane] = scale.factor;
        unit[lane] = scale.unit;
    }
    return true;
}

/// Four numbers of each of 16 lanes, times factors, as quad `q` of k of the operands of 4 digits.
TESSERA_FORCE_INLINE void store_lane_digits(__m512 const (&x)[4], __m512 const (&factor)[4], index_t q, std::int8_t* b) noexcept {
    __m512i const digits[4] = {detail::digits_of(x[0], factor[0]), detail::digits_of(x[1], factor[1]),
                               detail::digits_of(x[2], factor[2]), detail::digits_of(x[3], factor[3])};
    __m512i quads[4];
    detail::interleave_bytes(digits, quads);
    b += q / 16 * digit_operand + q % 16 * 64;
    for (int j = 0; j < 4; ++j) _mm512_store_si512(b + 1024 * j, quads[j]);
}

/// Queries, numbers k `stride` apart, as operands: columns [first, last) of 64 of x, the others as zeros, in the order that codes
/// of `bits` bits have as operands.
inline void store_lane_queries(float const* x, index_t stride, index_t first, index_t last, int bits, float const* factor,
                               std::int8_t* b) noexcept {
    __m512 const f = _mm512_loadu_ps(factor);
    __m512 const factors[4] = {f, f, f, f};
    for (index_t q = 0; q < 16; ++q) {
        __m512 y[4];
        for (index_t i = 0; i < 4; ++i) {
            index_t const at = 4 * q + i;
            index_t const column = bits == 8 ? at : at < 32 ? 2 * at : 2 * at - 63;
            y[i] = column >= first && column < last ? _mm512_loadu_ps(x + column * stride) : _mm512_setzero_ps();
        }
        store_lane_digits(y, factors, q, b);
    }
}
/// Weights of n keys, `stride` apart, times a scale for each, as operands; zeros up to a multiple of 64 keys. Returns the lanes' units: a
/// lane's come from its own weights, so that what it does not see changes no bit of its sums.
inline __m512 store_lane_weights(float const* p, index_t stride, index_t n, float const* scales, std::int8_t* b) noexcept {
    auto const weight = [&](index_t k) noexcept { return _mm512_mul_ps(_mm512_loadu_ps(p + k * stride), _mm512_set1_ps(scales[k])); };
    __m512i largest = _mm512_setzero_si512();
    for (index_t k = 0; k < n; ++k)
        largest = _mm512_maskz_max_epu32(detail::every_lane, largest,
                                         _mm512_and_si512(_mm512_castps_si512(weight(k)), _mm512_set1_epi32(0x7fffffff)));
    __m512i const exponent = _mm512_maskz_min_epu32(
        detail::every_lane, _mm512_sub_epi32(_mm512_set1_epi32(283), _mm512_maskz_srli_epi32(detail::every_lane, largest, 23)),
        _mm512_set1_epi32(253)); // as fixed_point_of
    __m512 const f = _mm512_castsi512_ps(_mm512_maskz_slli_epi32(detail::every_lane, exponent, 23));
    __m512 const factor[4] = {f, f, f, f};
    index_t q = 0;
    for (; 4 * q + 4 <= n; ++q) store_lane_digits({weight(4 * q), weight(4 * q + 1), weight(4 * q + 2), weight(4 * q + 3)}, factor, q, b);
    for (; q % 16 != 0 || 4 * q < n; ++q) {
        __m512 y[4];
        for (index_t i = 0; i < 4; ++i) y[i] = 4 * q + i < n ? weight(4 * q + i) : _mm512_setzero_ps();
        store_lane_digits(y, factor, q, b);
    }
    return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(detail::every_lane, _mm512_sub_epi32(_mm512_set1_epi32(254), exponent), 23));
}

/// 64 keys as operands B (`code_block::stage_quad`, `stride` 1024) to rows of `to_stride` bytes: to[to_stride d + key] for the 64
/// columns d of codes of `bits` bits.
inline void transpose_quads(std::int8_t const* quads, int bits, std::int8_t* to, index_t to_stride) noexcept {
    for (int t = 0; t < 4; ++t, quads += 1024) {
        __m512 r[16];
        for (index_t q = 0; q < 16; ++q) r[q] = _mm512_load_ps(reinterpret_cast<float const*>(quads + 64 * quad_of_keys(q)));
        detail::transpose_16(r);
        for (int i = 0; i < 16; ++i) _mm512_store_ps(reinterpret_cast<float*>(to + to_stride * detail::staged_column(bits, t, i)), r[i]);
    }
}

/// Starts sums First and First + 1 (0 or 2) of the 4 digits: 16 rows of A, `a_stride` apart, times operands of digits, 64 columns of k
/// a step. Products take 52 cycles: sums are stored when the next two have been started.
template <int First>
TESSERA_FORCE_INLINE void start_digit_sums(amx_tiles<64> const&, std::int8_t const* a, index_t a_stride, std::int8_t const* b,
                                           index_t steps) noexcept {
    static_assert(First == 0 || First == 2);
    auto const stride = static_cast<long>(a_stride);
    std::atomic_signal_fence(std::memory_order_seq_cst); // to g++ 12 loads of tiles read no memory
    if constexpr (First == 0) {
        _tile_zero(0);
        _tile_zero(1);
        for (index_t s = 0; s < steps; ++s, a += 64, b += digit_operand) {
            _tile_loadd(4, a, stride);
            _tile_loadd(6, b, 64);
            _tile_dpbssd(0, 4, 6);
            _tile_loadd(7, b + 1024, 64);
            _tile_dpbssd(1, 4, 7);
        }
    } else {
        _tile_zero(2);
        _tile_zero(3);
        for (index_t s = 0; s < steps; ++s, a += 64, b += digit_operand) {
            _tile_loadd(5, a, stride);
            _tile_loadd(6, b + 2048, 64);
            _tile_dpbssd(2, 5, 6);
            _tile_loadd(7, b + 3072, 64);
            _tile_dpbssd(3, 5, 7);
        }
    }
}
/// out: [4 digits][16 rows][16 lanes].
template <int First>
TESSERA_FORCE_INLINE void store_digit_sums(amx_tiles<64> const& tiles, std::int32_t* out) noexcept {
    tiles.template store<First>(out + 256 * First);
    tiles.template store<First + 1>(out + 256 * First + 256);
}
/// The sum of row i, to be multiplied by the lanes' units.
template <class Arch>
TESSERA_FORCE_INLINE floats<Arch> digit_sum(std::int32_t const* sums, index_t i) noexcept {
    auto const row = [&](int j) noexcept { return _mm512_load_si512(sums + 256 * j + 16 * i); };
    return _mm512_fmadd_ps(detail::add_digits(row(2), row(3)), _mm512_set1_ps(65536.0f), detail::add_digits(row(0), row(1)));
}

#endif

} // namespace tessera::inline TESSERA_ABI::simd
