// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `minifloat<E, M, Specials, Bias>`: any floating-point format of at most eight bits as a one-byte value type that is
/// also an `element_format`. `float_card.hpp` holds the definition of its conversions; `fp8.hpp` and `fp6_fp4.hpp` name
/// the usual instances.

#include "../core/macros.hpp"
#include "float_card.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// The bias a format has unless it says otherwise.
[[nodiscard]] constexpr int default_bias(int exponent_bits, specials special_codes) noexcept {
    return (1 << (exponent_bits - 1)) - (special_codes == specials::unsigned_zero ? 0 : 1);
}

namespace detail {

struct format_name {
    char text[16];
};

constexpr void append(format_name& name, int& length, char const* text) noexcept {
    for (; *text != '\0'; ++text) name.text[length++] = *text;
}

constexpr void append(format_name& name, int& length, int number) noexcept {
    for (int unit = number >= 100 ? 100 : number >= 10 ? 10 : 1; unit > 0; unit /= 10)
        name.text[length++] = static_cast<char>('0' + number / unit % 10);
}

/// "e4m3b11fnuz": fields, bias where unusual, special codes where unusual for the width (below seven bits `finite` is
/// usual, from seven on `ieee`).
[[nodiscard]] constexpr format_name minifloat_name(int e, int m, specials s, int bias) noexcept {
    format_name name{};
    int length = 0;
    append(name, length, "e");
    append(name, length, e);
    append(name, length, "m");
    append(name, length, m);
    if (bias != default_bias(e, s)) {
        append(name, length, bias < 0 ? "bn" : "b");
        append(name, length, bias < 0 ? -bias : bias);
    }
    bool const narrow = 1 + e + m < 7;
    switch (s) {
    case specials::ieee: append(name, length, narrow ? "i" : ""); break;
    case specials::nan_only: append(name, length, "fn"); break;
    case specials::unsigned_zero: append(name, length, "fnuz"); break;
    case specials::finite: append(name, length, narrow ? "" : "f"); break;
    }
    return name;
}

} // namespace detail

/// One sign bit, E exponent bits, M mantissa bits, E + M + 1 <= 8; the code is in the low bits of the byte. E = 1 is sign and
/// magnitude, evenly spaced: it is what E = 0 with another mantissa bit would be.
template <int E, int M, specials Specials = specials::ieee, int Bias = default_bias(E, Specials)>
struct minifloat {
    static_assert(E >= 1 && M >= 0 && E + M + 1 <= 8,
                  "tessera: minifloat<E, M>: needs one exponent bit or more and at most eight bits in all");
    static_assert(Specials != specials::ieee || M >= 1, "tessera: minifloat<E, M, ieee>: NaN needs a mantissa bit");
    static_assert(Specials != specials::nan_only || E + M >= 2,
                  "tessera: minifloat<E, M, nan_only>: has no number but zero");
    static_assert(2 - Bias - M > -149 && (1 << E) - 1 - Bias <= 127,
                  "tessera: minifloat<E, M, Specials, Bias>: has values that are not float32");

    static constexpr float_card card = detail::make_float_card(E, M, Specials, Bias);
    static constexpr int bits = card.bits;
    static constexpr detail::format_name name_text = detail::minifloat_name(E, M, Specials, Bias);
    static constexpr char const* name = name_text.text;
    static constexpr float max_magnitude = card.max_finite;
    static constexpr bool is_integer = false;

    constexpr minifloat() noexcept = default;
    TESSERA_HOST_DEVICE constexpr explicit minifloat(float x) noexcept : code_{static_cast<std::uint8_t>(encode(x))} {}
    TESSERA_HOST_DEVICE constexpr explicit minifloat(double x) noexcept : code_{static_cast<std::uint8_t>(encode(x))} {}

    /// `code` below 2^bits.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr minifloat from_bits(std::uint8_t code) noexcept {
        minifloat f;
        f.code_ = code;
        return f;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint8_t to_bits() const noexcept { return code_; }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator float() const noexcept { return decode(code_); }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator double() const noexcept { return decode(code_); }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return detail::decode_float<minifloat>(code);
    }
    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = card.default_rounding, overflow beyond = card.default_overflow,
           std::uint32_t random = 0) noexcept {
        return detail::encode_float<minifloat>(x, mode, beyond, random);
    }

    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator==(minifloat a, minifloat b) noexcept {
        return static_cast<float>(a) == static_cast<float>(b);
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator<(minifloat a, minifloat b) noexcept {
        return static_cast<float>(a) < static_cast<float>(b);
    }

private:
    std::uint8_t code_; // no initialiser: trivial, so that buffers and shared memory hold it
};

} // namespace tessera::inline TESSERA_ABI
