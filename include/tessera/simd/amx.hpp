// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// 8-bit matrix tiles (Intel AMX): C (16, 16) += A (16, 4 r) B (4 r, 16), A and B signed bytes, C 32-bit. Linux hands the
/// tile registers to a process that asks once; `amx_is_allowed` asks. Elsewhere, and where it is refused, it answers no
/// and callers take their dot-product path, which gives the same bits.

#include "arch_map.hpp"

#include <cstddef>
#include <cstdint>
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

/// Tiles 0 to 3: C; 4 and 5: A with Depth bytes a row; 6 and 7: B with Depth / 4 rows. A constant in memory, because g++ 12 believes
/// that the instruction reads 8 bytes and would drop stores to the rest.
template <int Depth>
inline constexpr tile_configuration configuration_for = [] {
    tile_configuration c;
    for (int t = 0; t < 8; ++t) {
        c.column_bytes[t] = t == 4 || t == 5 ? Depth : 64;
        c.rows[t] = t >= 6 ? Depth / 4 : 16;
    }
    return c;
}();

} // namespace detail

/// Sets the tile registers up for `Depth` bytes a step (32 or 64) and gives them back at the end of its life.
template <int Depth>
class amx_tiles {
    static_assert(Depth == 32 || Depth == 64);

public:
    amx_tiles() noexcept { _tile_loadconfig(&detail::configuration_for<Depth>); }
    amx_tiles(amx_tiles const&) = delete;
    amx_tiles& operator=(amx_tiles const&) = delete;
    ~amx_tiles() { _tile_release(); }

    /// One of four independent sums of tile products.
    struct chain {
        std::int8_t const* a; ///< 16 rows, moving on by Depth bytes a step
        std::int8_t const* b; ///< rows of 64 bytes, four columns of k each, moving on by 16 Depth bytes a step
        index_t steps;
    };

    /// out[t] (16, 16) = the sum of chain t; A's rows are a_stride bytes apart. Four chains, because a product takes 52
    /// cycles and another can start every 16. steps do not grow from chain to chain.
    TESSERA_FORCE_INLINE void products(chain const (&chains)[4], index_t a_stride, std::int32_t* out) const noexcept {
        auto const stride = static_cast<long>(a_stride);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (index_t s = 0; s < chains[0].steps; ++s) {
            index_t const at = s * Depth;
            _tile_loadd(4, chains[0].a + at, stride);
            _tile_loadd(6, chains[0].b + 16 * at, 64);
            _tile_dpbssd(0, 4, 6);
            if (s >= chains[1].steps) continue;
            _tile_loadd(5, chains[1].a + at, stride);
            _tile_loadd(7, chains[1].b + 16 * at, 64);
            _tile_dpbssd(1, 5, 7);
            if (s >= chains[2].steps) continue;
            _tile_loadd(4, chains[2].a + at, stride);
            _tile_loadd(6, chains[2].b + 16 * at, 64);
            _tile_dpbssd(2, 4, 6);
            if (s >= chains[3].steps) continue;
            _tile_loadd(5, chains[3].a + at, stride);
            _tile_loadd(7, chains[3].b + 16 * at, 64);
            _tile_dpbssd(3, 5, 7);
        }
        _tile_stored(0, out, 64);
        _tile_stored(1, out + 256, 64);
        _tile_stored(2, out + 512, 64);
        _tile_stored(3, out + 768, 64);
    }
};

/// One vector of panel codes (64 bytes, 16 rows) as rows of B: signed bytes code - zero, `zero` one number per row of W. With
/// 4-bit codes two rows of 64 bytes are written, else one; returns the end.
template <class Arch, int Width>
TESSERA_FORCE_INLINE std::int8_t* unpack_signed(std::byte const* codes, ints<Arch> const& zero, std::int8_t* out) noexcept {
    __m512i const four_zeros = _mm512_mullo_epi32(zero, _mm512_set1_epi32(0x01010101));
    __m512i const word = _mm512_loadu_si512(codes);
    if constexpr (Width == 8) {
        _mm512_store_si512(out, _mm512_sub_epi8(word, four_zeros));
        return out + 64;
    } else {
        __m512i const mask = _mm512_set1_epi8(15);
        _mm512_store_si512(out, _mm512_sub_epi8(_mm512_and_si512(word, mask), four_zeros));
        _mm512_store_si512(out + 64, _mm512_sub_epi8(_mm512_and_si512(_mm512_srli_epi16(word, 4), mask), four_zeros));
        return out + 128;
    }
}

#else

inline bool amx_is_allowed() noexcept { return false; }

#endif

} // namespace tessera::inline TESSERA_ABI::simd
