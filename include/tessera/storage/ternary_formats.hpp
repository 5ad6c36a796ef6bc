// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The block formats of GGUF files for ternary weights, w = scale * code: `q2_0`, `tq1_0`, `tq2_0`.
///
/// | format | block (bytes)                                  | code    | bits per weight |
/// |--------|------------------------------------------------|---------|-----------------|
/// | q2_0   | fp16 scale, 64 x 2 bits (18)                   | -1 .. 2 | 2.25            |
/// | tq1_0  | 48 bytes of 5 ternary digits, 4 of 4, fp16 scale (54) | -1 .. 1 | 1.6875   |
/// | tq2_0  | 256 x 2 bits, fp16 scale (66)                  | -1 .. 2 | 2.0625          |
///
/// Stored is code + 1. A byte of tq1_0 is a fraction of 256 in base 3, rounded up: times 3 its integer part is a digit, its
/// rest holds the next. Source: the definitions in gguf-py (`gguf.quants`), of q2_0 in ggml.
///
/// Card of the conversions, bit-exact with ggml for finite input:
/// * decode: the product is exact in float32.
/// * encode: the largest magnitude is the scale (rounded to fp16, infinite beyond 65504); codes are x / scale rounded half away
///   from zero, with the unrounded scale, so that only -1, 0 and 1 are written.
/// * a block that holds a NaN or an infinity gets a NaN scale: all of it decodes to NaN.

#include "block_formats.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// What the ternary formats have in common. `Format` reads and writes the digits (code + 1) of its block.
template <class Format, class Block, int BlockSize>
struct ternary_blocks {
    using block = Block;
    static_assert(std::is_trivially_copyable_v<Block>);
    static constexpr int block_size = BlockSize;
    static constexpr int group_size = BlockSize;
    static constexpr float bits_per_weight = static_cast<float>(8 * sizeof(Block)) / BlockSize;
    static constexpr int code_bits = 2;
    static constexpr int min_code = -1;
    static constexpr bool has_minimum = false;

    TESSERA_HOST_DEVICE static constexpr float scale(Block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(Block const&, int = 0) noexcept { return 0.0f; }
    TESSERA_HOST_DEVICE static constexpr int code(Block const& b, int i) noexcept { return Format::digit(b, i) - 1; }
    TESSERA_HOST_DEVICE static constexpr float decode(Block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i));
    }

    /// x holds a block's values.
    static constexpr void encode(float const* x, Block& out) noexcept {
        auto const range = range_of(x, block_size);
        float const magnitude = range.extreme < 0 ? -range.extreme : range.extreme;
        float const d = range.is_finite ? magnitude : no_scale;
        float const inverse = reciprocal_or_zero(d);
        out = Block{};
        out.scale = fp16{d};
        std::uint8_t digits[BlockSize]{};
        for (int i = 0; i < BlockSize; ++i)
            digits[i] = static_cast<std::uint8_t>(rounded_code(rounded_product(x[i], inverse), 1) + 1);
        Format::set_digits(out, digits);
    }
};

struct q2_0_block {
    fp16 scale;
    std::uint8_t codes[16];
};
struct tq1_0_block {
    std::uint8_t codes[48];
    std::uint8_t last[4];
    fp16 scale;
};
struct tq2_0_block {
    std::uint8_t codes[64];
    fp16 scale;
};
static_assert(sizeof(q2_0_block) == 18 && sizeof(tq1_0_block) == 54 && sizeof(tq2_0_block) == 66);

} // namespace detail

/// Two bits a code: bits 2 (i % 4) of byte i / 4.
struct q2_0 : detail::ternary_blocks<q2_0, detail::q2_0_block, 64> {
    static constexpr char const* name = "q2_0";

    TESSERA_HOST_DEVICE static constexpr int digit(block const& b, int i) noexcept { return b.codes[i / 4] >> i % 4 * 2 & 3; }
    static constexpr void set_digits(block& b, std::uint8_t const* digits) noexcept {
        for (int i = 0; i < block_size; ++i)
            b.codes[i / 4] = static_cast<std::uint8_t>(b.codes[i / 4] | digits[i] << i % 4 * 2);
    }
};

/// Five digits a byte. Of the first 160 columns byte l < 32 holds l, 32 + l, ..., of the next 80 byte 32 + l, l < 16, columns
/// l, 16 + l, ..., of the last 16 byte l of `last` columns l, 4 + l, 8 + l, 12 + l; the first in the most significant digit.
struct tq1_0 : detail::ternary_blocks<tq1_0, detail::tq1_0_block, 256> {
    static constexpr char const* name = "tq1_0";

    TESSERA_HOST_DEVICE static constexpr int digit(block const& b, int i) noexcept {
        if (i < 160) return digit_of(b.codes[i % 32], i / 32);
        if (i < 240) return digit_of(b.codes[32 + i % 16], (i - 160) / 16);
        return digit_of(b.last[i % 4], (i - 240) / 4);
    }
    static constexpr void set_digits(block& b, std::uint8_t const* digits) noexcept {
        for (int l = 0; l < 32; ++l) b.codes[l] = byte_of(digits + l, 32, 5);
        for (int l = 0; l < 16; ++l) b.codes[32 + l] = byte_of(digits + 160 + l, 16, 5);
        for (int l = 0; l < 4; ++l) b.last[l] = byte_of(digits + 240 + l, 4, 4);
    }

private:
    TESSERA_HOST_DEVICE static constexpr int digit_of(int byte, int place) noexcept {
        for (int i = 0; i < place; ++i) byte = byte * 3 & 255;
        return byte * 3 >> 8;
    }
    static constexpr std::uint8_t byte_of(std::uint8_t const* digits, int stride, int count) noexcept {
        int number = 0;
        for (int i = 0; i < 5; ++i) number = number * 3 + (i < count ? digits[i * stride] : 0);
        return static_cast<std::uint8_t>((number * 256 + 242) / 243);
    }
};

/// Two bits a code. Byte l of a half holds columns l, 32 + l, 64 + l, 96 + l of it.
struct tq2_0 : detail::ternary_blocks<tq2_0, detail::tq2_0_block, 256> {
    static constexpr char const* name = "tq2_0";

    TESSERA_HOST_DEVICE static constexpr int digit(block const& b, int i) noexcept {
        return b.codes[i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
    }
    static constexpr void set_digits(block& b, std::uint8_t const* digits) noexcept {
        for (int i = 0; i < block_size; ++i) {
            std::uint8_t& byte = b.codes[i / 128 * 32 + i % 32];
            byte = static_cast<std::uint8_t>(byte | digits[i] << (i % 128 / 32 * 2));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
