// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The block formats of GGUF files whose codes stand for the values of a table: `q1_0`, `iq4_nl`, `iq4_xs`, `gguf_mxfp4`,
/// `gguf_nvfp4`.
///
///     w = scale * value(code)
///
/// | format     | block (bytes)                                        | values                  | bits per weight |
/// |------------|------------------------------------------------------|-------------------------|-----------------|
/// | q1_0       | fp16 scale, 128 bits (18)                            | -1, 1                   | 1.125           |
/// | iq4_nl     | fp16 scale, 16 x 2 codes (18)                        | 16 from -127 to 113     | 4.5             |
/// | iq4_xs     | fp16 super scale, 8 sub-scales, 128 x 2 codes (136)  | the same                | 4.25            |
/// | gguf_mxfp4 | e8m0 scale, 16 x 2 codes (17)                        | e2m1, doubled: -12 to 12 | 4.25           |
/// | gguf_nvfp4 | 4 e4m3 scales, 32 x 2 codes (36), 16 weights a scale | the same                | 4.5             |
///
/// Values are integers of 8 bits, so that products go through integer dot products. The last two are OCP's MXFP4 and NVIDIA's
/// NVFP4 in ggml's byte order; the scale is half of the stored one, because values are doubled. NVFP4's scale of the whole tensor is
/// another tensor of the file, and the caller's to apply. Source: the definitions in gguf-py (`gguf.quants`) and ggml.
///
/// Card of the conversions:
/// * decode, bit-exact with ggml but for scales that are NaN in their type (e8m0 255, e4m3 127): here such a group is NaN, ggml
///   reads the first as 2^128 and the second as 0. The sign bit of an e4m3 scale is ignored, -0 decodes to +0. Products are
///   exact in float32.
/// * encode, q1_0: the scale is the mean magnitude, in float32 in order. gguf_mxfp4: the scale is the power of two of the largest
///   magnitude, over 4 (values above 6 times it saturate). gguf_nvfp4: the largest magnitude over 6, to nearest even, at most 448.
///   Codes are the nearest value to x, of equals the first in the table. Bit-exact with ggml, which takes the power by log2f (it
///   rounds up just below powers of two), rounds ties of e4m3 scales up, those just below 2^-6 down and those of 240 and more to 448.
/// * encode, iq4_*: the value of largest magnitude becomes one or the other end of the table; of the two the scale that fits
///   better, by least squares weighted with x². Codes come from the scale as stored. ggml searches for better ones.
/// * a block that holds a NaN or an infinity (of gguf_nvfp4: a group) gets a NaN scale: all of it decodes to NaN.

#include "../numerics/fp8.hpp"
#include "k_formats.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// e2m1 doubled; codes 8 to 15 are the negative ones, +0 for -0.
TESSERA_HOST_DEVICE constexpr float doubled_e2m1(int code) noexcept {
    constexpr std::int8_t values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    return static_cast<float>(values[code]);
}

/// The values of iq4_nl and iq4_xs.
TESSERA_HOST_DEVICE constexpr float iq4_value(int code) noexcept {
    constexpr std::int8_t values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
    return static_cast<float>(values[code]);
}

/// The code whose value times `scale` is nearest to x, the first of equals; distances are rounded to float32, as in ggml.
template <class Format>
constexpr int nearest_code(float x, float scale) noexcept {
    int best = 0;
    float least = magnitude_of(rounded_product(scale, Format::value(0)) - x);
    for (int c = 1; c < 1 << Format::code_bits; ++c) {
        float const distance = magnitude_of(rounded_product(scale, Format::value(c)) - x);
        if (distance < least) least = distance, best = c;
    }
    return best;
}

/// The scale for `size` values: codes from the one that makes x's extreme the value of `code`, then least squares for these codes,
/// weighted with x². `fit` becomes what they explain of the weighted sum of squares.
template <class Format>
constexpr float fitted_scale(float const* x, int size, float extreme, int code, double& fit) noexcept {
    float const scale = extreme / Format::value(code);
    double xq = 0;
    double qq = 0;
    fit = 0;
    if (reciprocal_or_zero(scale) == 0.0f) return scale;
    for (int i = 0; i < size; ++i) {
        double const weight = double{x[i]} / double{extreme} * (double{x[i]} / double{extreme});
        double const value = Format::value(nearest_code<Format>(x[i], scale));
        xq += weight * value * x[i];
        qq += weight * value * value;
    }
    fit = xq * (xq / qq);
    return static_cast<float>(xq / qq);
}

/// The better of the scales that make x's extreme one or the other end of the table.
template <class Format>
constexpr float best_table_scale(float const* x, int size, float extreme) noexcept {
    double low_fit = 0;
    double high_fit = 0;
    float const low = fitted_scale<Format>(x, size, extreme, 0, low_fit);
    float const high = fitted_scale<Format>(x, size, extreme, (1 << Format::code_bits) - 1, high_fit);
    return high_fit > low_fit ? high : low;
}

/// What formats with a scale for every `GroupSize` weights and a table share; `Format` adds scale, code, value and encode.
template <class Format, class Block, int BlockSize, int GroupSize>
struct table_blocks {
    using block = Block;
    static_assert(std::is_trivially_copyable_v<Block>);
    static constexpr int block_size = BlockSize;
    static constexpr int group_size = GroupSize;
    static constexpr float bits_per_weight = static_cast<float>(8 * sizeof(Block)) / BlockSize;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = false;

    TESSERA_HOST_DEVICE static constexpr float minimum(Block const&, int = 0) noexcept { return 0.0f; }
    TESSERA_HOST_DEVICE static constexpr float decode(Block const& b, int i) noexcept {
        return Format::scale(b, i / GroupSize) * Format::value(Format::code(b, i));
    }
};

struct q1_0_block {
    fp16 scale;
    std::uint8_t codes[16];
};
struct iq4_nl_block {
    fp16 scale;
    std::uint8_t codes[16];
};
struct iq4_xs_block {
    fp16 scale;
    std::uint16_t high; ///< two bits of each sub-scale
    std::uint8_t low[4];
    std::uint8_t codes[128];
};
struct mxfp4_block {
    std::uint8_t exponent;
    std::uint8_t codes[16];
};
struct nvfp4_block {
    std::uint8_t scales[4];
    std::uint8_t codes[32];
};
static_assert(sizeof(q1_0_block) == 18 && sizeof(iq4_nl_block) == 18 && sizeof(iq4_xs_block) == 136);
static_assert(sizeof(mxfp4_block) == 17 && sizeof(nvfp4_block) == 36);

} // namespace detail

/// Signs: bit i % 8 of byte i / 8, 1 for +scale.
struct q1_0 : detail::table_blocks<q1_0, detail::q1_0_block, 128, 128> {
    static constexpr int code_bits = 1;
    static constexpr char const* name = "q1_0";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return code == 0 ? -1.0f : 1.0f; }
    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return b.codes[i / 8] >> i % 8 & 1; }

    /// x holds 128 values.
    static constexpr void encode(float const* x, block& out) noexcept {
        out = block{};
        float sum = 0;
        for (int i = 0; i < block_size; ++i) {
            sum += detail::magnitude_of(x[i]);
            if (x[i] >= 0) out.codes[i / 8] = static_cast<std::uint8_t>(out.codes[i / 8] | 1 << i % 8);
        }
        out.scale = fp16{detail::range_of(x, block_size).is_finite ? sum / block_size : detail::no_scale};
    }
};

/// Byte j holds codes j (low half) and j + 16.
struct iq4_nl : detail::table_blocks<iq4_nl, detail::iq4_nl_block, 32, 32> {
    static constexpr int code_bits = 4;
    static constexpr char const* name = "iq4_nl";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq4_value(code); }
    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return detail::nibble(b.codes, i); }

    /// x holds 32 values.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        out.scale = fp16{range.is_finite ? detail::best_table_scale<iq4_nl>(x, block_size, range.extreme) : detail::no_scale};
        for (int i = 0; i < 16; ++i)
            out.codes[i] = static_cast<std::uint8_t>(detail::nearest_code<iq4_nl>(x[i], scale(out)) |
                                                     detail::nearest_code<iq4_nl>(x[i + 16], scale(out)) << 4);
    }
};

/// Of a group of 32 byte j holds codes j (low half) and j + 16. Sub-scales have six bits, stored + 32: four in the halves of `low`,
/// two in `high`.
struct iq4_xs : detail::two_level_blocks<iq4_xs, detail::iq4_xs_block, 32, -32> {
    static constexpr int code_bits = 4;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "iq4_xs";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::iq4_value(code); }
    TESSERA_HOST_DEVICE static constexpr int sub_scale(block const& b, int g) noexcept {
        return ((b.low[g / 2] >> g % 2 * 4 & 15) | (b.high >> 2 * g & 3) << 4) - 32;
    }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return detail::nibble(b.codes + i / 32 * 16, i % 32);
    }
    static constexpr void set_sub(block& b, int g, int scale, int) noexcept {
        detail::set_bits(b.low[g / 2], g % 2 * 4, 15, scale + 32);
        b.high = static_cast<std::uint16_t>((b.high & ~(3 << 2 * g)) | (scale + 32) >> 4 << 2 * g);
    }
    static constexpr void set_code(block& b, int i, int c) noexcept {
        detail::set_bits(b.codes[i / 32 * 16 + i % 16], i % 32 / 16 * 4, 15, c);
    }

    /// x holds 256 values.
    static constexpr void encode(float const* x, block& out) noexcept {
        constexpr int groups = block_size / group_size;
        out = block{};
        float scales[groups]{};
        float most = 0;
        bool is_finite = true;
        for (int g = 0; g < groups; ++g) {
            auto const range = detail::range_of(x + g * group_size, group_size);
            is_finite = is_finite && range.is_finite;
            if (range.is_finite) scales[g] = detail::best_table_scale<iq4_xs>(x + g * group_size, group_size, range.extreme);
            if (detail::magnitude_of(scales[g]) > detail::magnitude_of(most)) most = scales[g];
        }
        out.scale = fp16{is_finite ? most / -32.0f : detail::no_scale};
        float const inverse = detail::reciprocal_or_zero(super_scale(out));
        for (int g = 0; g < groups; ++g) {
            set_sub(out, g, detail::clamped_code(scales[g] * inverse + 32.5f, 0, 63) - 32, 0);
            for (int i = g * group_size; i < (g + 1) * group_size; ++i)
                set_code(out, i, detail::nearest_code<iq4_xs>(x[i], scale(out, g)));
        }
    }
};

/// Byte j holds codes j (low half) and j + 16.
struct gguf_mxfp4 : detail::table_blocks<gguf_mxfp4, detail::mxfp4_block, 32, 32> {
    using placed_scale = bf16; ///< has all halves of e8m0, the smallest as a subnormal
    static constexpr int code_bits = 4;
    static constexpr char const* name = "mxfp4";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::doubled_e2m1(code); }
    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept {
        if (b.exponent == 255) return detail::no_scale;
        return detail::bit_cast<float>(b.exponent < 2 ? 0x00200000u << b.exponent : (b.exponent - 1u) << 23);
    }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return detail::nibble(b.codes, i); }

    /// x holds 32 values.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        // float32's biased exponent is that of the largest magnitude, over 4 two less
        int const exponent = static_cast<int>(std::bit_cast<std::uint32_t>(range.extreme) >> 23 & 255) - 2;
        out.exponent = static_cast<std::uint8_t>(!range.is_finite ? 255 : exponent < 0 ? 0 : exponent);
        for (int i = 0; i < 16; ++i)
            out.codes[i] = static_cast<std::uint8_t>(detail::nearest_code<gguf_mxfp4>(x[i], scale(out)) |
                                                     detail::nearest_code<gguf_mxfp4>(x[i + 16], scale(out)) << 4);
    }
};

/// Of a group of 16 byte j holds codes j (low half) and j + 8.
struct gguf_nvfp4 : detail::table_blocks<gguf_nvfp4, detail::nvfp4_block, 64, 16> {
    using placed_scale = fp16; ///< has all halves of e4m3
    static constexpr int code_bits = 4;
    static constexpr char const* name = "nvfp4";

    TESSERA_HOST_DEVICE static constexpr float value(int code) noexcept { return detail::doubled_e2m1(code); }
    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int g = 0) noexcept {
        return 0.5f * e4m3fn::decode(b.scales[g] & 127u);
    }
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return b.codes[i / 16 * 8 + i % 8] >> (i % 16 / 8 * 4) & 15;
    }

    /// x holds 64 values.
    static constexpr void encode(float const* x, block& out) noexcept {
        for (int g = 0; g < block_size / group_size; ++g) {
            float const* const v = x + g * group_size;
            auto const range = detail::range_of(v, group_size);
            float const wanted = detail::magnitude_of(range.extreme) / 6.0f;
            out.scales[g] = static_cast<std::uint8_t>(
                range.is_finite ? e4m3fn::encode(wanted, rounding::nearest_even, overflow::saturate) : 127u);
            for (int i = 0; i < 8; ++i)
                out.codes[8 * g + i] = static_cast<std::uint8_t>(detail::nearest_code<gguf_nvfp4>(v[i], scale(out, g)) |
                                                                 detail::nearest_code<gguf_nvfp4>(v[i + 8], scale(out, g)) << 4);
        }
    }
};

static_assert(table_format<q1_0> && table_format<iq4_nl> && table_format<gguf_mxfp4> && table_format<gguf_nvfp4>);
static_assert(table_format<iq4_xs> && two_level_format<iq4_xs>);

} // namespace tessera::inline TESSERA_ABI
