// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The block formats of GGUF files with 256 weights a block: `q2_k` to `q6_k`, whose scales have two levels, and `q8_k`.
///
///     w = (super_scale * sub_scale) * code + (super_minimum * sub_minimum)
///
/// super_* are fp16 numbers of the block, sub_* integers of a group of 16 or 32 weights.
///
/// | format | group | code        | sub_scale, sub_minimum | bytes | bits per weight |
/// |--------|-------|-------------|------------------------|-------|-----------------|
/// | q2_k   | 16    | 0 .. 3      | 0 .. 15, 0 .. 15       | 84    | 2.625           |
/// | q3_k   | 16    | -4 .. 3     | -32 .. 31              | 110   | 3.4375          |
/// | q4_k   | 32    | 0 .. 15     | 0 .. 63, 0 .. 63       | 144   | 4.5             |
/// | q5_k   | 32    | 0 .. 31     | 0 .. 63, 0 .. 63       | 176   | 5.5             |
/// | q6_k   | 16    | -32 .. 31   | -128 .. 127            | 210   | 6.5625          |
/// | q8_k   | 256   | -128 .. 127 | (a float32 scale)      | 292   | 9.125           |
///
/// Files store the negative of super_minimum. Source of the layouts: the definitions in gguf-py (`gguf.quants`).
///
/// Card of the conversions:
/// * decode, bit-exact with ggml: scales, minima, and their products with codes are exact in float32 (at most 11 + 7 + 5
///   significant bits), so only the addition of a minimum rounds (nearest even).
/// * encode: round to nearest, in two steps: ranges of the groups give scales (and minima), the largest of a block gives the
///   super scale; codes come from the scales as stored. `encode_row_least_error` (quant/block_search.hpp) searches for better ones.
/// * a block that holds a NaN or an infinity gets a NaN super scale: all of it decodes to NaN.

#include "block_formats.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

constexpr float magnitude_of(float x) noexcept { return x < 0 ? -x : x; }

/// bits [shift, shift + width of the mask) of `byte` become `value`.
constexpr void set_bits(std::uint8_t& byte, int shift, int mask, int value) noexcept {
    byte = static_cast<std::uint8_t>((byte & ~(mask << shift)) | (value & mask) << shift);
}

/// What the two-level formats have in common. `Format` adds the card (code_bits, min_code, has_minimum, name), and reads and
/// writes the fields of its block; `Extreme` is the sub_scale of the group of largest scale.
template <class Format, class Block, int GroupSize, int Extreme>
struct two_level_blocks {
    using block = Block;
    static_assert(std::is_trivially_copyable_v<Block>);
    static constexpr int block_size = 256;
    static constexpr int group_size = GroupSize;
    static constexpr float bits_per_weight = static_cast<float>(sizeof(Block)) / 32.0f;
    static constexpr int largest_sub = Extreme;

    TESSERA_HOST_DEVICE static constexpr float super_scale(Block const& b) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float super_minimum(Block const& b) noexcept {
        if constexpr (requires { b.minimum; })
            return -static_cast<float>(b.minimum);
        else
            return static_cast<void>(b), 0.0f;
    }
    TESSERA_HOST_DEVICE static constexpr int sub_minimum(Block const&, int) noexcept { return 0; }

    TESSERA_HOST_DEVICE static constexpr float scale(Block const& b, int g) noexcept {
        return Format::super_scale(b) * static_cast<float>(Format::sub_scale(b, g));
    }
    TESSERA_HOST_DEVICE static constexpr float minimum(Block const& b, int g) noexcept {
        return super_minimum(b) * static_cast<float>(Format::sub_minimum(b, g));
    }
    TESSERA_MAY_CALL_HOST // `code` of the grid formats
    TESSERA_HOST_DEVICE static constexpr float decode(Block const& b, int i) noexcept {
        float const product = scale(b, i / GroupSize) * value_of_code<Format>(Format::code(b, i));
        if constexpr (Format::has_minimum) // -0 + 0 would not be -0
            return product + minimum(b, i / GroupSize);
        else
            return product;
    }

    /// x holds 256 values.
    static constexpr void encode(float const* x, Block& out) noexcept {
        constexpr int groups = block_size / GroupSize;
        out = Block{}; // fields are written a part at a time
        constexpr int max_code = Format::min_code + (1 << Format::code_bits) - 1;
        float scales[groups];
        float minima[groups];
        bool is_finite = true;
        for (int g = 0; g < groups; ++g) {
            auto const r = range_of(x + g * GroupSize, GroupSize);
            is_finite = is_finite && r.is_finite;
            if constexpr (Format::has_minimum) {
                minima[g] = r.low < 0 ? -r.low : 0.0f;
                scales[g] = (r.high > 0 ? r.high / static_cast<float>(max_code) : 0.0f) + minima[g] / static_cast<float>(max_code);
            } else {
                minima[g] = 0.0f;
                scales[g] = r.extreme / static_cast<float>(Format::min_code);
            }
        }
        auto const largest = [&](float const* values) {
            float most = 0.0f;
            for (int g = 0; g < groups; ++g)
                if (magnitude_of(values[g]) > magnitude_of(most)) most = values[g];
            return is_finite ? most / static_cast<float>(Extreme) : no_scale;
        };
        out.scale = fp16{largest(scales)};
        if constexpr (Format::has_minimum) out.minimum = fp16{largest(minima)};
        float const inverse_scale = reciprocal_or_zero(super_scale(out));
        float const inverse_minimum = reciprocal_or_zero(-super_minimum(out));
        for (int g = 0; g < groups; ++g) {
            Format::set_sub(out, g, sub_code(scales[g] * inverse_scale), sub_code(minima[g] * inverse_minimum));
            float const inverse = reciprocal_or_zero(scale(out, g));
            for (int i = g * GroupSize; i < (g + 1) * GroupSize; ++i)
                Format::set_code(out, i, nearest(rounded_product(x[i] - minimum(out, g), inverse), Format::min_code, max_code));
        }
    }

private:
    /// Half up, clamped; NaN gives a code too.
    static constexpr int nearest(float v, int low, int high) noexcept {
        return clamped_code(v - static_cast<float>(low) + 0.5f, 0, high - low) + low;
    }
    static constexpr int sub_code(float v) noexcept {
        return Extreme > 0 ? nearest(v, 0, Extreme) : nearest(v, Extreme, -Extreme - 1);
    }
};

/// Eight pairs of six bits in twelve bytes: scales and minima of q4_k and q5_k. Pair g < 4 is the low six bits of bytes g and
/// g + 4; pair g >= 4 has its low four bits in byte g + 4 and its high two bits above the pairs of g - 4.
TESSERA_HOST_DEVICE constexpr int six_bit_scale(std::uint8_t const* p, int g) noexcept {
    return g < 4 ? p[g] & 63 : (p[g + 4] & 15) | p[g - 4] >> 6 << 4;
}
TESSERA_HOST_DEVICE constexpr int six_bit_minimum(std::uint8_t const* p, int g) noexcept {
    return g < 4 ? p[g + 4] & 63 : p[g + 4] >> 4 | p[g] >> 6 << 4;
}
constexpr void set_six_bits(std::uint8_t* p, int g, int scale, int minimum) noexcept {
    if (g < 4) {
        set_bits(p[g], 0, 63, scale);
        set_bits(p[g + 4], 0, 63, minimum);
    } else {
        p[g + 4] = static_cast<std::uint8_t>((scale & 15) | (minimum & 15) << 4);
        set_bits(p[g - 4], 6, 3, scale >> 4);
        set_bits(p[g], 6, 3, minimum >> 4);
    }
}

struct q2_k_block {
    std::uint8_t sub[16];
    std::uint8_t codes[64];
    fp16 scale;
    fp16 minimum;
};
struct q3_k_block {
    std::uint8_t high[32];
    std::uint8_t codes[64];
    std::uint8_t sub[12];
    fp16 scale;
};
struct q4_k_block {
    fp16 scale;
    fp16 minimum;
    std::uint8_t sub[12];
    std::uint8_t codes[128];
};
struct q5_k_block {
    fp16 scale;
    fp16 minimum;
    std::uint8_t sub[12];
    std::uint8_t high[32];
    std::uint8_t codes[128];
};
struct q6_k_block {
    std::uint8_t codes[128];
    std::uint8_t high[64];
    std::int8_t sub[16];
    fp16 scale;
};
static_assert(sizeof(q2_k_block) == 84 && sizeof(q3_k_block) == 110 && sizeof(q4_k_block) == 144);
static_assert(sizeof(q5_k_block) == 176 && sizeof(q6_k_block) == 210);

} // namespace detail

/// Affine 2-bit codes in groups of 16. Byte l of a half holds columns l, 32 + l, 64 + l, 96 + l of it.
struct q2_k : detail::two_level_blocks<q2_k, detail::q2_k_block, 16, 15> {
    static constexpr int code_bits = 2;
    static constexpr int min_code = 0;
    static constexpr int sub_bits = 4;
    static constexpr bool has_minimum = true;
    static constexpr char const* name = "q2_k";

    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept { return b.sub[g] & 15; }
    TESSERA_HOST_DEVICE static constexpr int sub_minimum(block const& b, int g) noexcept { return b.sub[g] >> 4; }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return b.codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    }
    static constexpr void set_sub(block& b, int g, int scale, int minimum) noexcept {
        b.sub[g] = static_cast<std::uint8_t>(scale | minimum << 4);
    }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 128 * 32 + i % 32], i % 128 / 32 * 2, 3, c);
    }
};

/// Symmetric 3-bit codes in groups of 16: two bits as in q2_k, bit i / 32 of byte i % 32 of `high` the third. Sub-scales have
/// six bits, stored + 32: four in the halves of eight bytes, two in four more.
struct q3_k : detail::two_level_blocks<q3_k, detail::q3_k_block, 16, -32> {
    static constexpr int code_bits = 3;
    static constexpr int min_code = -4;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q3_k";

    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept {
        return ((b.sub[g % 8] >> (g / 8 * 4) & 15) | (b.sub[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
    }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return ((b.codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) | (b.high[i % 32] >> (i / 32) & 1) << 2) - 4;
    }
    static constexpr void set_sub(block& b, int g, int scale, int) noexcept {
        detail::set_bits(b.sub[g % 8], g / 8 * 4, 15, scale + 32);
        detail::set_bits(b.sub[8 + g % 4], g / 4 * 2, 3, (scale + 32) >> 4);
    }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 128 * 32 + i % 32], i % 128 / 32 * 2, 3, c + 4);
        detail::set_bits(b.high[i % 32], i / 32, 1, (c + 4) >> 2);
    }
};

/// Affine 4-bit codes in groups of 32. Byte l of a quarter holds columns l and 32 + l of it.
struct q4_k : detail::two_level_blocks<q4_k, detail::q4_k_block, 32, 63> {
    static constexpr int code_bits = 4;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = true;
    static constexpr char const* name = "q4_k";

    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept { return detail::six_bit_scale(b.sub, g); }
    TESSERA_HOST_DEVICE static constexpr int sub_minimum(block const& b, int g) noexcept { return detail::six_bit_minimum(b.sub, g); }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return b.codes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
    }
    static constexpr void set_sub(block& b, int g, int scale, int minimum) noexcept { detail::set_six_bits(b.sub, g, scale, minimum); }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 64 * 32 + i % 32], i % 64 / 32 * 4, 15, c);
    }
};

/// Affine 5-bit codes in groups of 32: four bits as in q4_k, bit i / 32 of byte i % 32 of `high` the fifth.
struct q5_k : detail::two_level_blocks<q5_k, detail::q5_k_block, 32, 63> {
    static constexpr int code_bits = 5;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = true;
    static constexpr char const* name = "q5_k";

    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept { return detail::six_bit_scale(b.sub, g); }
    TESSERA_HOST_DEVICE static constexpr int sub_minimum(block const& b, int g) noexcept { return detail::six_bit_minimum(b.sub, g); }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return (b.codes[i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) | (b.high[i % 32] >> (i / 32) & 1) << 4;
    }
    static constexpr void set_sub(block& b, int g, int scale, int minimum) noexcept { detail::set_six_bits(b.sub, g, scale, minimum); }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 64 * 32 + i % 32], i % 64 / 32 * 4, 15, c);
        detail::set_bits(b.high[i % 32], i / 32, 1, c >> 4);
    }
};

/// Symmetric 6-bit codes in groups of 16, stored + 32. Of a half, byte l of 64 holds four bits of columns l and 64 + l, byte l
/// of 32 two bits of columns l, 32 + l, 64 + l and 96 + l.
struct q6_k : detail::two_level_blocks<q6_k, detail::q6_k_block, 16, -128> {
    static constexpr int code_bits = 6;
    static constexpr int min_code = -32;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q6_k";

    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept { return b.sub[g]; }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return ((b.codes[i / 128 * 64 + i % 64] >> (i % 128 / 64 * 4) & 15) |
                (b.high[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3) << 4) - 32;
    }
    static constexpr void set_sub(block& b, int g, int scale, int) noexcept { b.sub[g] = static_cast<std::int8_t>(scale); }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 128 * 64 + i % 64], i % 128 / 64 * 4, 15, c + 32);
        detail::set_bits(b.high[i / 128 * 32 + i % 32], i % 128 / 32 * 2, 3, (c + 32) >> 4);
    }
};

/// Symmetric 8-bit codes, one float32 scale for the 256 of a block: what ggml turns activations into. The sums of 16 codes
/// each follow from the codes; decoding does not look at them.
struct q8_k {
    struct block {
        float scale;
        std::int8_t codes[256];
        std::int16_t sums[16];
    };
    static_assert(sizeof(block) == 292 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 256;
    static constexpr int group_size = 256;
    static constexpr float bits_per_weight = 9.125f;
    static constexpr int code_bits = 8;
    static constexpr int min_code = -128;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q8_k";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return b.scale; }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const&, int = 0) noexcept { return 0.0f; }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return b.codes[i]; }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i));
    }

    /// x holds 256 values; the value of largest magnitude becomes code -127.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        out.scale = range.is_finite ? range.extreme / -127.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(out.scale);
        for (auto& s : out.sums) s = 0;
        for (int i = 0; i < block_size; ++i) {
            out.codes[i] = static_cast<std::int8_t>(detail::rounded_code(detail::rounded_product(x[i], inverse), 127));
            out.sums[i / 16] = static_cast<std::int16_t>(out.sums[i / 16] + out.codes[i]);
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
