// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Matrix tiles (Intel AMX): C (16, 16) += A (16, 4 r) B (4 r, 16), A and B signed bytes, C 32-bit integers; or with pairs of
/// bf16 for four bytes, and C float32. Linux hands the
/// tile registers to a process that asks once; `amx_is_allowed` asks. Elsewhere, and where it is refused, it answers no
/// and callers take their dot-product path, which gives the same bits.

#include "../numerics/half.hpp"
#include "arch_map.hpp"
#include "decode.hpp"

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__AMX_INT8__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace tessera::inline TESSERA_ABI::simd {

#if defined(__AMX_INT8__) && defined(__linux__)

/// True when this process may use tile registers.
inline bool amx_is_allowed() noexcept {
    static bool const allowed = [] {
        constexpr long request_permission = 0x1023; // ARCH_REQ_XCOMP_PERM
        constexpr long tile_data = 18;              // XFEATURE_XTILEDATA
        return ::syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
    }();
    return allowed;
}

namespace detail {

/// The memory operand of the tile configuration instruction.
struct alignas(64) tile_configuration {
    std::uint8_t palette = 1;
    std::uint8_t start_row = 0;
    std::uint8_t reserved[14] = {};
    std::uint16_t column_bytes[16] = {};
    std::uint8_t rows[16] = {};
};
static_assert(sizeof(tile_configuration) == 64);

/// Tiles 0 to 3: C; 4 and 5: A, `rows` rows of Depth bytes; 6 and 7: B with Depth / 4 rows.
template <int Depth>
constexpr tile_configuration configuration_of(int rows) noexcept {
    tile_configuration c;
    for (int t = 0; t < 8; ++t) {
        c.column_bytes[t] = t == 4 || t == 5 ? Depth : 64;
        c.rows[t] = static_cast<std::uint8_t>(t >= 6 ? Depth / 4 : rows);
    }
    return c;
}
/// For 1 to 16 rows. Constants in memory, because g++ 12 believes that the instruction reads 8 bytes and would drop stores to
/// the rest.
template <int Depth>
inline constexpr auto configurations = []<int... Rows>(std::integer_sequence<int, Rows...>) {
    return std::array{configuration_of<Depth>(Rows + 1)...};
}(std::make_integer_sequence<int, 16>{});

} // namespace detail

/// Sets the tile registers up for `Depth` bytes a step (32 or 64) and `rows` rows of A and C, and gives them back at the end of
/// its life.
template <int Depth>
class amx_tiles {
    static_assert(Depth == 32 || Depth == 64);

public:
    explicit amx_tiles(index_t rows = 16) noexcept {
        _tile_loadconfig(&detail::configurations<Depth>[static_cast<std::size_t>(rows - 1)]);
    }
    amx_tiles(amx_tiles const&) = delete;
    amx_tiles& operator=(amx_tiles const&) = delete;
    ~amx_tiles() { _tile_release(); }

    /// Starts sum Tile (of 4): A times B over `steps` steps. A: rows a_stride bytes apart, moving on by Depth bytes a step;
    /// B: rows of 64 bytes, four columns of k each, moving on by 16 Depth bytes a step. A product takes 52 cycles and another
    /// can start every `rows`, so a sum is stored when three others have been started.
    template <int Tile> // the instructions' tiles are literals
    TESSERA_FORCE_INLINE void start(std::int8_t const* a, index_t a_stride, std::int8_t const* b, index_t steps) const noexcept {
        static_assert(Tile >= 0 && Tile < 4);
        auto const stride = static_cast<long>(a_stride);
        if constexpr (Tile == 0) {
            _tile_zero(0);
            for (index_t s = 0; s < steps; ++s) {
                _tile_loadd(4, a + s * Depth, stride);
                _tile_loadd(6, b + 16 * s * Depth, 64);
                _tile_dpbssd(0, 4, 6);
            }
        } else if constexpr (Tile == 1) {
            _tile_zero(1);
            for (index_t s = 0; s < steps; ++s) {
                _tile_loadd(5, a + s * Depth, stride);
                _tile_loadd(7, b + 16 * s * Depth, 64);
                _tile_dpbssd(1, 5, 7);
            }
        } else if constexpr (Tile == 2) {
            _tile_zero(2);
            for (index_t s = 0; s < steps; ++s) {
                _tile_loadd(4, a + s * Depth, stride);
                _tile_loadd(6, b + 16 * s * Depth, 64);
                _tile_dpbssd(2, 4, 6);
            }
        } else if constexpr (Tile == 3) {
            _tile_zero(3);
            for (index_t s = 0; s < steps; ++s) {
                _tile_loadd(5, a + s * Depth, stride);
                _tile_loadd(7, b + 16 * s * Depth, 64);
                _tile_dpbssd(3, 5, 7);
            }
        }
    }
    /// out (rows, 16) = sum Tile.
    template <int Tile>
    TESSERA_FORCE_INLINE void store(std::int32_t* out) const noexcept {
        static_assert(Tile >= 0 && Tile < 4);
        if constexpr (Tile == 0) _tile_stored(0, out, 64);
        if constexpr (Tile == 1) _tile_stored(1, out, 64);
        if constexpr (Tile == 2) _tile_stored(2, out, 64);
        if constexpr (Tile == 3) _tile_stored(3, out, 64);
    }

#if defined(__AMX_BF16__)
    /// c[i * Columns + j] (16, 16) += a[i] (16, 32 steps) times b[j] (32 steps, 16), bf16: `a` in rows `a_stride` bytes apart, `b`
    /// in rows of 64 bytes that hold two columns of k for each of 16 results. Four results share the loads of two a and two b.
    template <int Rows, int Columns>
    TESSERA_FORCE_INLINE void add_bf16(std::byte const* const (&a)[Rows], index_t a_stride, std::byte const* const (&b)[Columns],
                                       index_t steps, float* const (&c)[Rows * Columns]) const noexcept {
        static_assert(Depth == 64 && Rows <= 2 && Columns <= 2);
        auto const stride = static_cast<long>(a_stride);
        _tile_loadd(0, c[0], 64);
        if constexpr (Columns == 2) _tile_loadd(1, c[1], 64);
        if constexpr (Rows == 2) _tile_loadd(2, c[Columns], 64);
        if constexpr (Rows == 2 && Columns == 2) _tile_loadd(3, c[3], 64);
        for (index_t s = 0; s < steps; ++s) {
            _tile_loadd(6, b[0] + 1024 * s, 64);
            _tile_loadd(4, a[0] + 64 * s, stride);
            _tile_dpbf16ps(0, 4, 6);
            if constexpr (Columns == 2) {
                _tile_loadd(7, b[1] + 1024 * s, 64);
                _tile_dpbf16ps(1, 4, 7);
            }
            if constexpr (Rows == 2) {
                _tile_loadd(5, a[1] + 64 * s, stride);
                _tile_dpbf16ps(2, 5, 6);
                if constexpr (Columns == 2) _tile_dpbf16ps(3, 5, 7);
            }
        }
        _tile_stored(0, c[0], 64);
        if constexpr (Columns == 2) _tile_stored(1, c[1], 64);
        if constexpr (Rows == 2) _tile_stored(2, c[Columns], 64);
        if constexpr (Rows == 2 && Columns == 2) _tile_stored(3, c[3], 64);
    }
#endif
};

/// A strip of placed codes of 16 rows as rows of B, 64 bytes for four columns: signed bytes, byte - zero, `zero` one number per
/// row of W. Returns the end.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE std::int8_t* unpack_signed(std::byte const* codes, ints<Arch> const& zero, std::int8_t* out) noexcept {
    __m512i const four_zeros = _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x01010101));
    code_strip<Arch, Weights> const strip{codes};
#pragma GCC unroll 8
    for (int q = 0; q < Weights::strip_columns / 4; ++q, out += 64)
        _mm512_store_si512(out, _mm512_sub_epi8(integer_quad(strip, q), four_zeros));
    return out;
}
/// The same with the format's zero for all.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE std::int8_t* unpack_signed(std::byte const* codes, std::int8_t* out) noexcept {
    using integers = integer_codes<typename Weights::source>;
#if defined(__GFNI__)
    if constexpr (Weights::planes.bits[0] == 4 && Weights::planes.count == 1 && integers::zero == 8 &&
                  integers::kind == integer_codes_kind::codes) {
        // code - 8 keeps bits 0 to 2; bits 3 to 7 are the complement of bit 3: one affine map of bits for each half.
        __m512i const word = _mm512_loadu_si512(codes);
        __m512i const low = _mm512_set1_epi64(0x0102040808080808);
        __m512i const high = _mm512_set1_epi64(0x1020408080808080);
        _mm512_store_si512(out, _mm512_gf2p8affine_epi64_epi8(word, low, 0xf8));
        _mm512_store_si512(out + 64, _mm512_gf2p8affine_epi64_epi8(word, high, 0xf8));
        return out + 128;
    }
#endif
    return unpack_signed<Arch, Weights>(codes, ints<Arch>(integers::zero), out);
}

/// A strip of codes, each times the factor of its row, in both halves of a lane: products below 256.
template <class Arch, class Weights>
TESSERA_FORCE_INLINE std::int8_t* unpack_times(std::byte const* codes, ints<Arch> const& factors, std::int8_t* out) noexcept {
    code_strip<Arch, Weights> const strip{codes};
#pragma GCC unroll 8
    for (int q = 0; q < Weights::strip_columns / 4; ++q, out += 64)
        _mm512_store_si512(out, _mm512_mullo_epi16(strip.quad(q), factors)); // nothing is carried from one byte to the other
    return out;
}

#if defined(__AMX_BF16__) && defined(__AVX512BF16__)

/// Whether bf16 tiles and dot products are there at compile time.
template <class Arch>
inline constexpr bool multiplies_bf16 = std::is_base_of_v<avx512_amx, Arch>;

/// 16 pairs (even[i], odd[i]), rounded to bf16.
TESSERA_FORCE_INLINE void store_bf16_pairs(bf16* p, __m512 even, __m512 odd) noexcept {
    alignas(64) static constexpr std::uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                            8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    auto const halves = std::bit_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even));
    _mm512_store_si512(p, _mm512_permutexvar_epi16(_mm512_load_si512(order), halves));
}

/// sum[i] += pairs[2 i] x[0] + pairs[2 i + 1] x[1] for 16 results.
TESSERA_FORCE_INLINE __m512 dot_bf16_pairs(__m512 sum, bf16 const* pairs, bf16 const* x) noexcept {
    std::int32_t both;
    std::memcpy(&both, x, sizeof both);
    return _mm512_dpbf16_ps(sum, std::bit_cast<__m512bh>(_mm512_load_si512(pairs)),
                            std::bit_cast<__m512bh>(_mm512_set1_epi32(both)));
}

#else
template <class Arch>
inline constexpr bool multiplies_bf16 = false;
#endif

#else

inline bool amx_is_allowed() noexcept { return false; }
template <class Arch>
inline constexpr bool multiplies_bf16 = false;

#endif

} // namespace tessera::inline TESSERA_ABI::simd
