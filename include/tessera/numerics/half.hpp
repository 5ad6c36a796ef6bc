// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The two 16-bit floats and float32 itself as formats. `fp16` is IEEE 754 binary16, `bf16` the upper half of a float.
///
/// Conversion from float and double rounds once, to nearest even. NaN: `fp16` keeps the sign and the payload's high
/// bits and becomes quiet both ways (what F16C, AVX-512 and CUDA do); to `bf16` it becomes the quiet NaN of its sign (as
/// in ml_dtypes), and back the bits are kept.
///
/// `bits` is the width, the same for every format; the code of a value is `to_bits()`.

#include "../core/macros.hpp"
#include "float_card.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// IEEE 754 binary16: 1 + 5 + 10 bits, bias 15, largest 65504.
struct fp16 {
    static constexpr float_card card = detail::make_float_card(5, 10, specials::ieee, 15);
    static constexpr int bits = 16;
    static constexpr char const* name = "fp16";
    static constexpr float max_magnitude = card.max_finite;
    static constexpr bool is_integer = false;

    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow beyond = overflow::infinity,
           std::uint32_t random = 0) noexcept {
        if (detail::take_apart(x).is_nan) {
            auto const single = detail::bit_cast<std::uint32_t>(static_cast<float>(x));
            return (single >> 16 & 0x8000u) | 0x7e00u | (single >> 13 & 0x1ffu);
        }
        return detail::encode_float<fp16>(x, mode, beyond, random);
    }

    constexpr fp16() noexcept = default;
    TESSERA_HOST_DEVICE constexpr explicit fp16(float x) noexcept : code_{static_cast<std::uint16_t>(nearest(x))} {}
    TESSERA_HOST_DEVICE constexpr explicit fp16(double x) noexcept : code_{static_cast<std::uint16_t>(encode(x))} {}

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr fp16 from_bits(std::uint16_t code) noexcept {
        fp16 h;
        h.code_ = code;
        return h;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint16_t to_bits() const noexcept { return code_; }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator float() const noexcept { return decode(code_); }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator double() const noexcept { return decode(code_); }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        std::uint32_t const sign = (code & 0x8000u) << 16;
        std::uint32_t const field = code >> 10 & 0x1fu;
        std::uint32_t const mantissa = code & 0x3ffu;
        if (field == 0) return detail::exact_float(sign != 0, mantissa, -24);
        if (field == 0x1f)
            return detail::bit_cast<float>(sign | 0x7f800000u | (mantissa == 0 ? 0u : 0x400000u | mantissa << 13));
        return detail::bit_cast<float>(sign | (field + 112u) << 23 | mantissa << 13);
    }

    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator==(fp16 a, fp16 b) noexcept {
        return static_cast<float>(a) == static_cast<float>(b);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator<(fp16 a, fp16 b) noexcept {
        return static_cast<float>(a) < static_cast<float>(b);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr fp16 operator-(fp16 a) noexcept {
        return from_bits(static_cast<std::uint16_t>(a.code_ ^ 0x8000u));
    }

private:
    /// encode(x) in fewer steps: the constructor is what references and scalar tails call.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t nearest(float x) noexcept {
        auto const single = detail::bit_cast<std::uint32_t>(x);
        std::uint32_t const sign = single >> 16 & 0x8000u;
        std::uint32_t const magnitude = single & 0x7fffffffu;
        if (magnitude < 0x38800000u || magnitude >= 0x7f800000u) // below the normal range, infinity or NaN
            return encode(x);
        // Adds half an ulp less one, plus one if the kept part is odd: a carry moves into the exponent, up to infinity.
        std::uint32_t const code = (magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
        return sign | (code < 0x7c00u ? code : 0x7c00u);
    }

    std::uint16_t code_; // no initialiser: trivial, so that buffers and shared memory hold it
};

/// bfloat16: 1 + 8 + 7 bits, the upper half of a float.
struct bf16 {
    static constexpr float_card card = detail::make_float_card(8, 7, specials::ieee, 127);
    static constexpr int bits = 16;
    static constexpr char const* name = "bf16";
    static constexpr float max_magnitude = card.max_finite;
    static constexpr bool is_integer = false;

    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow beyond = overflow::infinity,
           std::uint32_t random = 0) noexcept {
        return detail::encode_float<bf16>(x, mode, beyond, random);
    }

    constexpr bf16() noexcept = default;
    TESSERA_HOST_DEVICE constexpr explicit bf16(float x) noexcept : code_{static_cast<std::uint16_t>(nearest(x))} {}
    TESSERA_HOST_DEVICE constexpr explicit bf16(double x) noexcept : code_{static_cast<std::uint16_t>(encode(x))} {}

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr bf16 from_bits(std::uint16_t code) noexcept {
        bf16 b;
        b.code_ = code;
        return b;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint16_t to_bits() const noexcept { return code_; }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator float() const noexcept { return decode(code_); }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator double() const noexcept { return decode(code_); }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return detail::bit_cast<float>(code << 16);
    }

    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator==(bf16 a, bf16 b) noexcept {
        return static_cast<float>(a) == static_cast<float>(b);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator<(bf16 a, bf16 b) noexcept {
        return static_cast<float>(a) < static_cast<float>(b);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bf16 operator-(bf16 a) noexcept {
        return from_bits(static_cast<std::uint16_t>(a.code_ ^ 0x8000u));
    }

private:
    /// encode(x) in fewer steps: the constructor is what references and scalar tails call.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t nearest(float x) noexcept {
        auto const single = detail::bit_cast<std::uint32_t>(x);
        if ((single & 0x7fffffffu) > 0x7f800000u) return (single >> 16 & 0x8000u) | 0x7fc0u;
        return (single + 0x7fffu + (single >> 16 & 1u)) >> 16;
    }

    std::uint16_t code_; // no initialiser: trivial, so that buffers and shared memory hold it
};

/// float32 as a format, so that a scheme may store it: the code is the bits, and encoding a float changes nothing.
struct fp32 {
    static constexpr int bits = 32;
    static constexpr char const* name = "fp32";
    static constexpr float max_magnitude = 0x1.fffffep127f;
    static constexpr bool is_integer = false;

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return detail::bit_cast<float>(code);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(float x, rounding = rounding::nearest_even, overflow = overflow::infinity, std::uint32_t = 0) noexcept {
        return detail::bit_cast<std::uint32_t>(x);
    }
};

static_assert(sizeof(fp16) == 2 && sizeof(bf16) == 2);
static_assert(element_format<fp16> && element_format<bf16> && element_format<fp32>);

} // namespace tessera::inline TESSERA_ABI
