// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Block formats of GGUF files with one scale for 32 weights: `q4_0`, `q4_1`, `q5_0`, `q5_1`, `q8_0`; and `block_format`, the
/// concept that they, the two-level formats of k_formats.hpp, ternary_formats.hpp, table_formats.hpp and grid_formats.hpp meet.
/// Data only: who multiplies, and how, is the kernels' business.
///
/// Every format is affine, one value is
///
///     w = scale * code + minimum
///
/// | format | block (bytes)                                      | code        | bits per weight |
/// |--------|----------------------------------------------------|-------------|-----------------|
/// | q4_0   | fp16 scale, 16 x 2 codes (18)                      | -8 .. 7     | 4.5             |
/// | q4_1   | fp16 scale, fp16 minimum, 16 x 2 codes (20)        | 0 .. 15     | 5               |
/// | q5_0   | fp16 scale, 32 high bits, 16 x 2 codes (22)        | -16 .. 15   | 5.5             |
/// | q5_1   | fp16 scale, fp16 minimum, 32 high bits, 16 x 2 codes (24) | 0 .. 31 | 6           |
/// | q8_0   | fp16 scale, 32 codes (34)                          | -128 .. 127 | 8.5             |
///
/// Byte j of the 4-bit codes holds code j in its low and code j + 16 in its high half; bit j of the high bits is bit 4 of
/// code j; q4_0 stores code + 8, q5_0 code + 16. All multi-byte fields are little endian. Source: the GGUF specification and
/// the definitions in gguf-py (`gguf.quants`).
///
/// Card of the conversions, bit-exact with ggml for finite input:
/// * decode: the product of an fp16 scale and a code is exact in float32, so only the addition of a minimum rounds (nearest
///   even), with or without fused multiply-add.
/// * encode: the scale is computed in float32 and rounded to fp16 (beyond 65504 it becomes infinite, as in ggml); codes
///   come from the unrounded scale, half away from zero for q8_0 and half up for the others, clamped to the range.
/// * a block that holds a NaN or an infinity gets a NaN scale: all of it decodes to NaN.

#include "../core/macros.hpp"
#include "../numerics/half.hpp"

#include <bit>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

static_assert(std::endian::native == std::endian::little, "tessera: block formats are little endian, as is their reader");

namespace detail {

/// a * b, rounded to float32 before anything else happens to it. Compilers fuse a product and a following sum where the
/// machine can (g++ by default); encoders are defined with two roundings. Not inlined: a call is the portable fence.
#if defined(__GNUC__)
[[gnu::noinline]]
#endif
constexpr float rounded_product(float a, float b) noexcept { return a * b; }

/// 1 / x, and 0 where that is not finite: all codes of such a block are multiplied by a scale of 0 anyway.
constexpr float reciprocal_or_zero(float x) noexcept {
    if (x == 0.0f) return 0.0f;
    float const r = 1.0f / x;
    bool const is_finite = r >= -std::numeric_limits<float>::max() && r <= std::numeric_limits<float>::max();
    return is_finite ? r : 0.0f;
}

/// v truncated toward zero and clamped to [low, high]; NaN gives 0.
constexpr int clamped_code(float v, int low, int high) noexcept {
    if (v != v) return 0;
    if (v <= static_cast<float>(low)) return low;
    if (v >= static_cast<float>(high)) return high;
    return static_cast<int>(v);
}

/// v rounded to the nearest integer, half away from zero, clamped to +-limit; NaN gives 0.
constexpr int rounded_code(float v, int limit) noexcept {
    int const whole = clamped_code(v, -limit, limit);
    float const rest = v - static_cast<float>(whole);
    if (rest >= 0.5f && whole < limit) return whole + 1;
    if (rest <= -0.5f && whole > -limit) return whole - 1;
    return whole;
}

struct block_range {
    float low;      ///< smallest value
    float high;     ///< largest value
    float extreme;  ///< value of largest magnitude, the first of equals, +0 where all are zeros
    bool is_finite; ///< no NaN, no infinity
};

constexpr block_range range_of(float const* x, int size) noexcept {
    block_range r{x[0], x[0], 0.0f, true};
    float magnitude = 0.0f;
    for (int i = 0; i < size; ++i) {
        float const a = x[i] < 0 ? -x[i] : x[i];
        if (a > magnitude) {
            magnitude = a;
            r.extreme = x[i];
        }
        if (x[i] < r.low) r.low = x[i];
        if (x[i] > r.high) r.high = x[i];
        r.is_finite = r.is_finite && a <= std::numeric_limits<float>::max();
    }
    return r;
}

/// What a code stands for before scale and minimum: an entry of the format's table, or itself.
template <class Format>
TESSERA_HOST_DEVICE constexpr float value_of_code(int code) noexcept {
    if constexpr (requires { Format::value(code); })
        return Format::value(code);
    else
        return static_cast<float>(code);
}

/// The scale of a block with non-finite input.
constexpr float no_scale = std::numeric_limits<float>::quiet_NaN();

/// Code i of 32 four-bit codes in 16 bytes, 0 to 15.
TESSERA_HOST_DEVICE constexpr int nibble(std::uint8_t const* codes, int i) noexcept {
    return i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
}

/// Code i of 32 five-bit codes: four bits as above, the fifth in `high`, 0 to 31.
TESSERA_HOST_DEVICE constexpr int five_bits(std::uint8_t const* codes, std::uint8_t const* high, int i) noexcept {
    return nibble(codes, i) | (high[i / 8] >> i % 8 & 1) << 4;
}
constexpr void set_five_bits(std::uint8_t* codes, std::uint8_t* high, int i, int code) noexcept {
    if (i < 16)
        codes[i] = static_cast<std::uint8_t>((codes[i] & 0xf0) | (code & 15));
    else
        codes[i - 16] = static_cast<std::uint8_t>((codes[i - 16] & 15) | (code & 15) << 4);
    high[i / 8] = static_cast<std::uint8_t>((high[i / 8] & ~(1 << i % 8)) | code >> 4 << i % 8);
}

} // namespace detail

/// Symmetric 4-bit blocks: w = scale * (stored - 8).
struct q4_0 {
    struct block {
        fp16 scale;
        std::uint8_t codes[16];
    };
    static_assert(sizeof(block) == 18 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 32;
    static constexpr int group_size = 32;
    static constexpr float bits_per_weight = 4.5f;
    static constexpr int code_bits = 4;
    static constexpr int min_code = -8;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q4_0";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const&, int = 0) noexcept { return 0.0f; }
    /// -8 to 7
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return detail::nibble(b.codes, i) - 8;
    }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i));
    }

    /// x holds 32 values; the value of largest magnitude becomes code -8.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        float const d = range.is_finite ? range.extreme / -8.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(d);
        out.scale = fp16{d};
        for (int i = 0; i < 16; ++i) {
            int const low = detail::clamped_code(detail::rounded_product(x[i], inverse) + 8.5f, 0, 15);
            int const high = detail::clamped_code(detail::rounded_product(x[i + 16], inverse) + 8.5f, 0, 15);
            out.codes[i] = static_cast<std::uint8_t>(low | high << 4);
        }
    }
};

/// Affine 4-bit blocks: w = scale * code + minimum.
struct q4_1 {
    struct block {
        fp16 scale;
        fp16 minimum;
        std::uint8_t codes[16];
    };
    static_assert(sizeof(block) == 20 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 32;
    static constexpr int group_size = 32;
    static constexpr float bits_per_weight = 5.0f;
    static constexpr int code_bits = 4;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = true;
    static constexpr char const* name = "q4_1";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const& b, int = 0) noexcept {
        return static_cast<float>(b.minimum);
    }
    /// 0 to 15
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return detail::nibble(b.codes, i); }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i)) + minimum(b);
    }

    /// x holds 32 values; the smallest becomes code 0, the largest code 15.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        float const d = range.is_finite ? (range.high - range.low) / 15.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(d);
        out.scale = fp16{d};
        out.minimum = fp16{range.low};
        for (int i = 0; i < 16; ++i) {
            float const low = detail::rounded_product(x[i] - range.low, inverse) + 0.5f;
            float const high = detail::rounded_product(x[i + 16] - range.low, inverse) + 0.5f;
            out.codes[i] = static_cast<std::uint8_t>(detail::clamped_code(low, 0, 15) |
                                                     detail::clamped_code(high, 0, 15) << 4);
        }
    }
};

/// Symmetric 5-bit blocks: w = scale * (stored - 16).
struct q5_0 {
    struct block {
        fp16 scale;
        std::uint8_t high[4];
        std::uint8_t codes[16];
    };
    static_assert(sizeof(block) == 22 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 32;
    static constexpr int group_size = 32;
    static constexpr float bits_per_weight = 5.5f;
    static constexpr int code_bits = 5;
    static constexpr int min_code = -16;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q5_0";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const&, int = 0) noexcept { return 0.0f; }
    /// -16 to 15
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return detail::five_bits(b.codes, b.high, i) - 16;
    }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i));
    }

    /// x holds 32 values; the value of largest magnitude becomes code -16.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        float const d = range.is_finite ? range.extreme / -16.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(d);
        out = {fp16{d}, {}, {}};
        for (int i = 0; i < block_size; ++i)
            detail::set_five_bits(out.codes, out.high, i,
                                  detail::clamped_code(detail::rounded_product(x[i], inverse) + 16.5f, 0, 31));
    }
};

/// Affine 5-bit blocks: w = scale * code + minimum.
struct q5_1 {
    struct block {
        fp16 scale;
        fp16 minimum;
        std::uint8_t high[4];
        std::uint8_t codes[16];
    };
    static_assert(sizeof(block) == 24 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 32;
    static constexpr int group_size = 32;
    static constexpr float bits_per_weight = 6.0f;
    static constexpr int code_bits = 5;
    static constexpr int min_code = 0;
    static constexpr bool has_minimum = true;
    static constexpr char const* name = "q5_1";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const& b, int = 0) noexcept {
        return static_cast<float>(b.minimum);
    }
    /// 0 to 31
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept {
        return detail::five_bits(b.codes, b.high, i);
    }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i)) + minimum(b);
    }

    /// x holds 32 values; the smallest becomes code 0, the largest code 31.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        float const d = range.is_finite ? (range.high - range.low) / 31.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(d);
        out = {fp16{d}, fp16{range.low}, {}, {}};
        for (int i = 0; i < block_size; ++i)
            detail::set_five_bits(out.codes, out.high, i,
                                  detail::clamped_code(detail::rounded_product(x[i] - range.low, inverse) + 0.5f, 0, 31));
    }
};

/// Symmetric 8-bit blocks: w = scale * code.
struct q8_0 {
    struct block {
        fp16 scale;
        std::int8_t codes[32];
    };
    static_assert(sizeof(block) == 34 && std::is_trivially_copyable_v<block>);

    static constexpr int block_size = 32;
    static constexpr int group_size = 32;
    static constexpr float bits_per_weight = 8.5f;
    static constexpr int code_bits = 8;
    static constexpr int min_code = -128;
    static constexpr bool has_minimum = false;
    static constexpr char const* name = "q8_0";

    TESSERA_HOST_DEVICE static constexpr float scale(block const& b, int = 0) noexcept { return static_cast<float>(b.scale); }
    TESSERA_HOST_DEVICE static constexpr float minimum(block const&, int = 0) noexcept { return 0.0f; }
    /// -128 to 127 (encode writes -127 to 127)
    TESSERA_HOST_DEVICE static constexpr int code(block const& b, int i) noexcept { return b.codes[i]; }
    TESSERA_HOST_DEVICE static constexpr float decode(block const& b, int i) noexcept {
        return scale(b) * static_cast<float>(code(b, i));
    }

    /// x holds 32 values; the value of largest magnitude becomes code +-127.
    static constexpr void encode(float const* x, block& out) noexcept {
        auto const range = detail::range_of(x, block_size);
        float const magnitude = range.extreme < 0 ? -range.extreme : range.extreme;
        float const d = range.is_finite ? magnitude / 127.0f : detail::no_scale;
        float const inverse = detail::reciprocal_or_zero(d);
        out.scale = fp16{d};
        for (int i = 0; i < block_size; ++i)
            out.codes[i] =
                static_cast<std::int8_t>(detail::rounded_code(detail::rounded_product(x[i], inverse), 127));
    }
};

/// A block format: a trivially copyable block of `block_size` values, its decoder and its encoder. Every `group_size` values
/// of a block share a scale and a minimum.
template <class F>
concept block_format =
    std::is_trivially_copyable_v<typename F::block> && F::block_size > 0 && F::block_size % F::group_size == 0 &&
    requires(typename F::block const& b, typename F::block& out, float const* x, int i) {
        { F::bits_per_weight } -> std::convertible_to<float>;
        { F::code_bits } -> std::convertible_to<int>;
        { F::min_code } -> std::convertible_to<int>;
        { F::has_minimum } -> std::convertible_to<bool>;
        { F::name } -> std::convertible_to<char const*>;
        { F::scale(b, i) } noexcept -> std::same_as<float>;
        { F::minimum(b, i) } noexcept -> std::same_as<float>;
        { F::code(b, i) } noexcept -> std::same_as<int>;
        { F::decode(b, i) } noexcept -> std::same_as<float>;
        { F::encode(x, out) } noexcept;
    };

/// A block format whose codes, counted from 0, stand for the values of a table: w = scale * value(code).
template <class F>
concept table_format = block_format<F> && F::min_code == 0 && !F::has_minimum && requires(int code) {
    { F::value(code) } noexcept -> std::same_as<float>;
};

/// Formats by name, for code that is compiled once for each.
template <block_format... Format>
struct format_list {};

/// A block format whose scales are products: an fp16 number of the block times an integer of the group; so are its minima.
template <class F>
concept two_level_format = block_format<F> && requires(typename F::block const& b, int g) {
    { F::super_scale(b) } noexcept -> std::same_as<float>;
    { F::super_minimum(b) } noexcept -> std::same_as<float>;
    { F::sub_scale(b, g) } noexcept -> std::same_as<int>;
    { F::sub_minimum(b, g) } noexcept -> std::same_as<int>;
};

} // namespace tessera::inline TESSERA_ABI
