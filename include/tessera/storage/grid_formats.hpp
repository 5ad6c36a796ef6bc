// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The block formats of GGUF files whose codes are vectors of a grid: `iq1_s`, `iq1_m`, `iq2_xxs`, `iq2_xs`, `iq2_s`, `iq3_xxs`,
/// `iq3_s`; 256 weights a block.
///
///     w = super_scale * (2 s + 1) * value(level, sign)
///
/// super_scale is an fp16 number of the block, s an integer of a group. A code of 8 to 11 bits chooses the levels of 8 columns (of
/// iq3, of 4) from a grid (grid_tables.hpp). To kernels a weight is one code of 3 or 4 bits in a table of values, level and sign.
///
/// | format  | group | s       | values                               | signs                        | bytes | bits per weight |
/// |---------|-------|---------|--------------------------------------|------------------------------|-------|-----------------|
/// | iq1_s   | 32    | 0 .. 7  | -1, 0, 1; all + 1/8 or all - 1/8     | of the 1/8, one for 32       | 50    | 1.5625          |
/// | iq1_m   | 16    | 0 .. 7  | the same                             | of the 1/8, one for 8        | 56    | 1.75            |
/// | iq2_xxs | 32    | 0 .. 15 | +-1, +-25/8, +-43/8                  | 7 bits, the 8th makes them even | 66 | 2.0625          |
/// | iq2_xs  | 16    | 0 .. 15 | the same                             | the same                     | 74    | 2.3125          |
/// | iq2_s   | 16    | 0 .. 15 | the same                             | 8 bits                       | 82    | 2.5625          |
/// | iq3_xxs | 32    | 0 .. 15 | +-1, 3, 5, 7, 9, 11, 13, 15.5        | 7 bits, the 8th makes them even | 98 | 3.0625          |
/// | iq3_s   | 32    | 0 .. 15 | +-1, 3, 5, 7, 9, 11, 13, 15          | 8 bits                       | 110   | 3.4375          |
///
/// ggml's super_scale is that of the file for iq1 and iq3_s; for iq2 it is the file's over 8 with values times 8, for iq3_xxs over
/// 4 with values times 4. Source of the layouts: the definitions in gguf-py (`gguf.quants`).
///
/// Card of the conversions:
/// * decode, bit-exact with ggml: all products are exact in float32.
/// * encode: the scale of a group is the best of 13 for levels without a grid, by least squares; then each vector is the nearest
///   of its grid, its signs those of x (where they must be even, that of the smallest magnitude gives way). `encode_row_least_error`
///   (quant/block_search.hpp) looks further. ggml weighs errors with an importance matrix; its blocks differ.
/// * a block that holds a NaN or an infinity gets a NaN super scale: all of it decodes to NaN.

#include "grid_tables.hpp"
#include "k_formats.hpp"

#include <bit>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Eight sign bits from seven: their number is even.
constexpr int even_signs(int seven) noexcept { return seven | (std::popcount(static_cast<unsigned>(seven)) & 1) << 7; }

/// Four bytes as a little-endian number, and back.
constexpr std::uint32_t word_at(std::uint8_t const* p) noexcept {
    return p[0] | std::uint32_t{p[1]} << 8 | std::uint32_t{p[2]} << 16 | std::uint32_t{p[3]} << 24;
}
constexpr void set_word_bits(std::uint8_t* p, int shift, std::uint32_t bits) noexcept {
    std::uint32_t const word = word_at(p) | bits << shift;
    for (int i = 0; i < 4; ++i) p[i] = static_cast<std::uint8_t>(word >> 8 * i);
}

/// How the signs of 8 columns are chosen.
enum class grid_signs : std::uint8_t {
    free,  ///< each its own
    even,  ///< an even number of minuses
    shared ///< one for all
};

/// What the grid formats have in common. `Format` adds the grid and its `level_bits`, `value(code)`, the largest s, the kind of signs
/// and the columns that share one choice of them (8 or more), and reads and writes the fields of its block: `entry` of a vector,
/// `signs` of 8 columns, `sub` of a group.
template <class Format, class Block, int GroupSize, int Width>
struct grid_blocks : two_level_blocks<Format, Block, GroupSize, 1> {
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = false;

    TESSERA_HOST_DEVICE static constexpr int sub_scale(Block const& b, int g) noexcept { return 2 * Format::sub(b, g) + 1; }
    /// The level, above it the sign. Not for devices, which cannot index the grid.
    static constexpr int code(Block const& b, int i) noexcept {
        int const level = level_of(Format::entry(b, i / Width), i % Width);
        return level | (Format::signs(b, i / 8) >> i % 8 & 1) << Format::level_bits;
    }

    /// x holds 256 values.
    static constexpr void encode(float const* x, Block& out) noexcept {
        constexpr int groups = 256 / GroupSize;
        out = Block{}; // fields are written a part at a time
        float scales[groups]{};
        float most = 0;
        for (int g = 0; g < groups; ++g) {
            scales[g] = group_scale(x + g * GroupSize);
            most = scales[g] > most ? scales[g] : most;
        }
        bool const is_finite = range_of(x, 256).is_finite;
        Format::set_super(out, fp16{is_finite ? most / static_cast<float>(2 * Format::largest_sub + 1) : no_scale});
        float const inverse = reciprocal_or_zero(Format::super_scale(out));
        for (int g = 0; g < groups; ++g) // rounded (r - 1) / 2
            Format::set_sub(out, g, clamped_code(0.5f * (scales[g] * inverse), 0, Format::largest_sub));
        for (int g = 0; g < groups; ++g) encode_group(x, g, out);
    }

    /// Entries and signs of group g for the scales that `out` has, whose fields for them are zeros; the squared error. x holds 256 values.
    static constexpr float encode_group(float const* x, int g, Block& out) noexcept {
        float error = 0;
        for (int first = g * GroupSize; first < (g + 1) * GroupSize; first += Format::sign_columns) error += encode_columns(x, first, out);
        return error;
    }

private:
    static constexpr int levels = 1 << Format::level_bits;
    static constexpr int vectors = 8 / Width; ///< in 8 columns

    static constexpr int level_of(int entry, int j) noexcept {
        return Format::grid[entry] >> Format::level_bits * j & (levels - 1);
    }

    /// The scale for which the nearest values, any level with any sign, explain most of x; 0 where x is.
    static constexpr float group_scale(float const* x) noexcept {
        float const extreme = magnitude_of(range_of(x, GroupSize).extreme);
        float largest = 0;
        for (int c = 0; c < 2 * levels; ++c) largest = Format::value(c) > largest ? Format::value(c) : largest;
        float best = 0;
        double most = 0;
        for (int step = 0; step < 13; ++step) {
            float const inverse = reciprocal_or_zero(extreme / (largest * (0.6f + 0.05f * static_cast<float>(step))));
            double xq = 0;
            double qq = 0;
            for (int i = 0; i < GroupSize; ++i) {
                float const v = x[i] * inverse;
                float nearest = Format::value(0);
                for (int c = 1; c < 2 * levels; ++c)
                    if (magnitude_of(Format::value(c) - v) < magnitude_of(nearest - v)) nearest = Format::value(c);
                xq += double{x[i]} * nearest;
                qq += double{nearest} * nearest;
            }
            if (xq > 0 && xq * (xq / qq) > most) most = xq * (xq / qq), best = static_cast<float>(xq / qq);
        }
        return best;
    }

    static constexpr int signs_of(float const* x) noexcept {
        int signs = 0;
        int smallest = 0;
        for (int j = 0; j < 8; ++j) {
            signs |= (x[j] < 0 ? 1 : 0) << j;
            if (magnitude_of(x[j]) < magnitude_of(x[smallest])) smallest = j;
        }
        bool const is_odd = std::popcount(static_cast<unsigned>(signs)) % 2 != 0;
        return Format::sign_kind == grid_signs::even && is_odd ? signs ^ 1 << smallest : signs;
    }

    /// Columns [first, first + sign_columns); their squared error.
    static constexpr float encode_columns(float const* x, int first, Block& out) noexcept {
        int entries[2][Format::sign_columns / Width]{};
        float errors[2]{};
        constexpr bool is_shared = Format::sign_kind == grid_signs::shared;
        for (int choice = 0; choice < (is_shared ? 2 : 1); ++choice)
            for (int v = 0; v < Format::sign_columns / Width; ++v) {
                int const at = first + v * Width;
                int const signs = is_shared ? -choice : signs_of(x + at / 8 * 8) >> at % 8;
                entries[choice][v] = nearest_entry(x + at, Format::scale(out, at / GroupSize), signs, errors[choice]);
            }
        int const best = is_shared && errors[1] < errors[0] ? 1 : 0;
        for (int v = 0; v < Format::sign_columns / Width; ++v) Format::set_entry(out, first / Width + v, entries[best][v]);
        for (int o = first / 8; o < (first + Format::sign_columns) / 8; ++o)
            Format::set_signs(out, o, is_shared ? best * 255 : signs_of(x + 8 * o));
        return errors[best];
    }

    /// The entry of the grid that is nearest to x; `error` grows by its squared distance.
    static constexpr int nearest_entry(float const* x, float scale, int signs, float& error) noexcept {
        float distances[Width][levels]{};
        for (int j = 0; j < Width; ++j)
            for (int l = 0; l < levels; ++l) {
                float const d = x[j] - scale * Format::value(l | (signs >> j & 1) << Format::level_bits);
                distances[j][l] = d * d;
            }
        // Of either half of the columns, the sums for all levels that it may have.
        constexpr int half_bits = Format::level_bits * Width / 2;
        float sums[2][1 << half_bits]{};
        for (int half = 0; half < 2; ++half)
            for (int bits = 0; bits < 1 << half_bits; ++bits)
                for (int j = 0; j < Width / 2; ++j)
                    sums[half][bits] += distances[half * Width / 2 + j][bits >> Format::level_bits * j & (levels - 1)];
        int best = 0;
        float least = std::numeric_limits<float>::max();
        for (int e = 0; e < static_cast<int>(sizeof(Format::grid) / sizeof(Format::grid[0])); ++e) {
            float const sum = sums[0][Format::grid[e] & ((1 << half_bits) - 1)] + sums[1][Format::grid[e] >> half_bits];
            if (sum < least) least = sum, best = e;
        }
        error += least;
        return best;
    }
};

/// The values of iq2 and iq1; unused levels are 0.
TESSERA_HOST_DEVICE constexpr float iq2_value(int code) noexcept {
    constexpr float values[8] = {1, 3.125f, 5.375f, 0, -1, -3.125f, -5.375f, 0};
    return values[code];
}
TESSERA_HOST_DEVICE constexpr float iq1_value(int code) noexcept {
    constexpr float values[8] = {-0.875f, 0.125f, 1.125f, 0, -1.125f, -0.125f, 0.875f, 0};
    return values[code];
}

struct iq1_s_block {
    fp16 scale;
    std::uint8_t codes[32];
    std::uint16_t high[8];
};
struct iq1_m_block {
    std::uint8_t codes[32];
    std::uint8_t high[16];
    std::uint16_t sub[4];
};
struct iq2_xxs_block {
    fp16 scale;
    std::uint8_t codes[64];
};
struct iq2_xs_block {
    fp16 scale;
    std::uint16_t codes[32];
    std::uint8_t sub[8];
};
struct iq2_s_block {
    fp16 scale;
    std::uint8_t codes[32];
    std::uint8_t signs[32];
    std::uint8_t high[8];
    std::uint8_t sub[8];
};
struct iq3_xxs_block {
    fp16 scale;
    std::uint8_t codes[64];
    std::uint8_t sub[32];
};
struct iq3_s_block {
    fp16 scale;
    std::uint8_t codes[64];
    std::uint8_t high[8];
    std::uint8_t signs[32];
    std::uint8_t sub[4];
};
static_assert(sizeof(iq1_s_block) == 50 && sizeof(iq1_m_block) == 56 && sizeof(iq2_xxs_block) == 66 && sizeof(iq2_xs_block) == 74);
static_assert(sizeof(iq2_s_block) == 82 && sizeof(iq3_xxs_block) == 98 && sizeof(iq3_s_block) == 110);

} // namespace detail

/// A word of `high` for 32 columns: three high bits of each of four codes, s, the sign of the 1/8.
struct iq1_s : detail::grid_blocks<iq1_s, detail::iq1_s_block, 32, 8> {
    static constexpr auto const& grid = detail::iq1_grid;
    static constexpr int level_bits = 2;
    static constexpr int code_bits = 3;
    static constexpr int largest_sub = 7;
    static constexpr auto sign_kind = detail::grid_signs::shared;
    static constexpr int sign_columns = 32;
    static constexpr char const* name = "iq1_s";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq1_value(code); }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v] | (b.high[v / 4] >> v % 4 * 3 & 7) << 8; }
    static constexpr int signs(block const& b, int v) noexcept { return (b.high[v / 4] >> 15) * 255; }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.high[g] >> 12 & 7; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { b.high[g] = static_cast<std::uint16_t>(b.high[g] | s << 12); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept {
        b.high[v / 4] = static_cast<std::uint16_t>(b.high[v / 4] | (bits & 1) << 15);
    }
    static constexpr void set_entry(block& b, int v, int e) noexcept {
        b.codes[v] = static_cast<std::uint8_t>(e);
        b.high[v / 4] = static_cast<std::uint16_t>(b.high[v / 4] | e >> 8 << v % 4 * 3);
    }
};

/// Half a byte of `high` for 8 columns: three high bits of the code, the sign of the 1/8. A word of `sub`: s of four groups and, above
/// them, a quarter of the super scale.
struct iq1_m : detail::grid_blocks<iq1_m, detail::iq1_m_block, 16, 8> {
    static constexpr auto const& grid = detail::iq1_grid;
    static constexpr int level_bits = 2;
    static constexpr int code_bits = 3;
    static constexpr int largest_sub = 7;
    static constexpr auto sign_kind = detail::grid_signs::shared;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq1_m";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq1_value(code); }
    TESSERA_HOST_DEVICE static constexpr float super_scale(block const& b) noexcept {
        int const bits = b.sub[0] >> 12 | b.sub[1] >> 12 << 4 | b.sub[2] >> 12 << 8 | b.sub[3] >> 12 << 12;
        return static_cast<float>(fp16::from_bits(static_cast<std::uint16_t>(bits)));
    }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v] | (b.high[v / 2] >> v % 2 * 4 & 7) << 8; }
    static constexpr int signs(block const& b, int v) noexcept { return (b.high[v / 2] >> (v % 2 * 4 + 3) & 1) * 255; }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.sub[g / 4] >> g % 4 * 3 & 7; }
    static constexpr void set_super(block& b, fp16 scale) noexcept {
        for (int i = 0; i < 4; ++i) b.sub[i] = static_cast<std::uint16_t>(b.sub[i] | (scale.to_bits() >> 4 * i & 15) << 12);
    }
    static constexpr void set_sub(block& b, int g, int s) noexcept {
        b.sub[g / 4] = static_cast<std::uint16_t>(b.sub[g / 4] | s << g % 4 * 3);
    }
    static constexpr void set_signs(block& b, int v, int bits) noexcept {
        b.high[v / 2] = static_cast<std::uint8_t>(b.high[v / 2] | (bits & 1) << (v % 2 * 4 + 3));
    }
    static constexpr void set_entry(block& b, int v, int e) noexcept {
        b.codes[v] = static_cast<std::uint8_t>(e);
        b.high[v / 2] = static_cast<std::uint8_t>(b.high[v / 2] | e >> 8 << v % 2 * 4);
    }
};

/// Eight bytes for 32 columns: four codes, then seven signs each and s.
struct iq2_xxs : detail::grid_blocks<iq2_xxs, detail::iq2_xxs_block, 32, 8> {
    static constexpr auto const& grid = detail::iq2_xxs_grid;
    static constexpr int level_bits = 2;
    static constexpr int code_bits = 3;
    static constexpr int largest_sub = 15;
    static constexpr auto sign_kind = detail::grid_signs::even;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq2_xxs";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq2_value(code); }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v / 4 * 8 + v % 4]; }
    static constexpr int signs(block const& b, int v) noexcept {
        return detail::even_signs(static_cast<int>(detail::word_at(b.codes + v / 4 * 8 + 4) >> v % 4 * 7 & 127));
    }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.codes[g * 8 + 7] >> 4; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { detail::set_bits(b.codes[g * 8 + 7], 4, 15, s); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept {
        detail::set_word_bits(b.codes + v / 4 * 8 + 4, v % 4 * 7, static_cast<std::uint32_t>(bits & 127));
    }
    static constexpr void set_entry(block& b, int v, int e) noexcept { b.codes[v / 4 * 8 + v % 4] = static_cast<std::uint8_t>(e); }
};

/// Codes of nine bits below seven signs.
struct iq2_xs : detail::grid_blocks<iq2_xs, detail::iq2_xs_block, 16, 8> {
    static constexpr auto const& grid = detail::iq2_xs_grid;
    static constexpr int level_bits = 2;
    static constexpr int code_bits = 3;
    static constexpr int largest_sub = 15;
    static constexpr auto sign_kind = detail::grid_signs::even;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq2_xs";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq2_value(code); }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v] & 511; }
    static constexpr int signs(block const& b, int v) noexcept { return detail::even_signs(b.codes[v] >> 9); }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.sub[g / 2] >> g % 2 * 4 & 15; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { detail::set_bits(b.sub[g / 2], g % 2 * 4, 15, s); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept {
        b.codes[v] = static_cast<std::uint16_t>((b.codes[v] & 511) | (bits & 127) << 9);
    }
    static constexpr void set_entry(block& b, int v, int e) noexcept {
        b.codes[v] = static_cast<std::uint16_t>((b.codes[v] & ~511) | e);
    }
};

/// Codes of ten bits, two of them in `high`.
struct iq2_s : detail::grid_blocks<iq2_s, detail::iq2_s_block, 16, 8> {
    static constexpr auto const& grid = detail::iq2_s_grid;
    static constexpr int level_bits = 2;
    static constexpr int code_bits = 3;
    static constexpr int largest_sub = 15;
    static constexpr auto sign_kind = detail::grid_signs::free;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq2_s";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq2_value(code); }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v] | (b.high[v / 4] >> v % 4 * 2 & 3) << 8; }
    static constexpr int signs(block const& b, int v) noexcept { return b.signs[v]; }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.sub[g / 2] >> g % 2 * 4 & 15; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { detail::set_bits(b.sub[g / 2], g % 2 * 4, 15, s); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept { b.signs[v] = static_cast<std::uint8_t>(bits); }
    static constexpr void set_entry(block& b, int v, int e) noexcept {
        b.codes[v] = static_cast<std::uint8_t>(e);
        detail::set_bits(b.high[v / 4], v % 4 * 2, 3, e >> 8);
    }
};

/// A byte for 4 columns; four bytes of `sub` for 32: seven signs of each 8, s.
struct iq3_xxs : detail::grid_blocks<iq3_xxs, detail::iq3_xxs_block, 32, 4> {
    static constexpr auto const& grid = detail::iq3_xxs_grid;
    static constexpr int level_bits = 3;
    static constexpr int code_bits = 4;
    static constexpr int largest_sub = 15;
    static constexpr auto sign_kind = detail::grid_signs::even;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq3_xxs";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept {
        float const magnitude = code % 8 == 7 ? 15.5f : static_cast<float>(2 * (code % 8) + 1);
        return code < 8 ? magnitude : -magnitude;
    }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v]; }
    static constexpr int signs(block const& b, int v) noexcept {
        return detail::even_signs(static_cast<int>(detail::word_at(b.sub + v / 4 * 4) >> v % 4 * 7 & 127));
    }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.sub[g * 4 + 3] >> 4; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { detail::set_bits(b.sub[g * 4 + 3], 4, 15, s); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept {
        detail::set_word_bits(b.sub + v / 4 * 4, v % 4 * 7, static_cast<std::uint32_t>(bits & 127));
    }
    static constexpr void set_entry(block& b, int v, int e) noexcept { b.codes[v] = static_cast<std::uint8_t>(e); }
};

/// Codes of nine bits for 4 columns, one of them in `high`.
struct iq3_s : detail::grid_blocks<iq3_s, detail::iq3_s_block, 32, 4> {
    static constexpr auto const& grid = detail::iq3_s_grid;
    static constexpr int level_bits = 3;
    static constexpr int code_bits = 4;
    static constexpr int largest_sub = 15;
    static constexpr auto sign_kind = detail::grid_signs::free;
    static constexpr int sign_columns = 8;
    static constexpr char const* name = "iq3_s";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept {
        return static_cast<float>(code < 8 ? 2 * code + 1 : -2 * (code - 8) - 1);
    }
    static constexpr int entry(block const& b, int v) noexcept { return b.codes[v] | (b.high[v / 8] >> v % 8 & 1) << 8; }
    static constexpr int signs(block const& b, int v) noexcept { return b.signs[v]; }
    TESSERA_HOST_DEVICE static constexpr int sub(block const& b, int g) noexcept { return b.sub[g / 2] >> g % 2 * 4 & 15; }
    static constexpr void set_super(block& b, fp16 scale) noexcept { b.scale = scale; }
    static constexpr void set_sub(block& b, int g, int s) noexcept { detail::set_bits(b.sub[g / 2], g % 2 * 4, 15, s); }
    static constexpr void set_signs(block& b, int v, int bits) noexcept { b.signs[v] = static_cast<std::uint8_t>(bits); }
    static constexpr void set_entry(block& b, int v, int e) noexcept {
        b.codes[v] = static_cast<std::uint8_t>(e);
        detail::set_bits(b.high[v / 8], v % 8, 1, e >> 8);
    }
};

static_assert(table_format<iq1_s> && table_format<iq1_m> && table_format<iq2_xxs> && table_format<iq2_xs> && table_format<iq2_s>);
static_assert(table_format<iq3_xxs> && two_level_format<iq3_s> && two_level_format<iq1_m>);

} // namespace tessera::inline TESSERA_ABI
