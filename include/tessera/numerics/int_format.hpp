// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// int2 to int8 and uint1 to uint8 as formats. A code is two's complement in the low bits. Encoding rounds, then
/// saturates whatever the overflow option says: there is neither infinity nor NaN. NaN becomes 0, so a quantiser that
/// must not lose it looks at its scale.

#include "../core/macros.hpp"
#include "float_card.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// Whether codes are two's complement or count from 0.
enum class signedness : std::uint8_t { is_signed, is_unsigned };

/// All 2^Bits values are used: int4 is -8 to 7, and `max_magnitude` 8.
template <int Bits, signedness Sign>
struct small_integer {
    static_assert(Bits >= (Sign == signedness::is_signed ? 2 : 1) && Bits <= 8,
                  "tessera: small_integer<Bits, Sign>: needs 1 to 8 bits, and 2 with a sign");

    static constexpr int bits = Bits;
    static constexpr int min_value = Sign == signedness::is_signed ? -(1 << (Bits - 1)) : 0;
    static constexpr int max_value = min_value + (1 << Bits) - 1;
    static constexpr char name_text[] = {Sign == signedness::is_signed ? 'i' : 'u',
                                         Sign == signedness::is_signed ? 'n' : 'i',
                                         Sign == signedness::is_signed ? 't' : 'n',
                                         Sign == signedness::is_signed ? char('0' + Bits) : 't',
                                         Sign == signedness::is_signed ? '\0' : char('0' + Bits),
                                         '\0'};
    static constexpr char const* name = name_text;
    static constexpr float max_magnitude = static_cast<float>(-min_value > max_value ? -min_value : max_value);
    static constexpr bool is_integer = true;

    constexpr small_integer() noexcept = default;
    TESSERA_HOST_DEVICE constexpr explicit small_integer(float x) noexcept
        : code_{static_cast<std::uint8_t>(encode(x))} {}
    TESSERA_HOST_DEVICE constexpr explicit small_integer(double x) noexcept
        : code_{static_cast<std::uint8_t>(encode(x))} {}

    /// `code` below 2^Bits.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr small_integer from_bits(std::uint8_t code) noexcept {
        small_integer i;
        i.code_ = code;
        return i;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint8_t to_bits() const noexcept { return code_; }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator int() const noexcept { return integer(code_); }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator float() const noexcept { return decode(code_); }

    /// The value of a code; bits above the format's are ignored.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr int integer(std::uint32_t code) noexcept {
        int const value = static_cast<int>(code & ((1u << Bits) - 1u));
        return value > max_value ? value - (1 << Bits) : value;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return static_cast<float>(integer(code));
    }
    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow = overflow::saturate,
           std::uint32_t random = 0) noexcept {
        detail::float_parts const p = detail::take_apart(x);
        if (p.is_nan) return 0;
        constexpr int beyond = 256;
        int magnitude = beyond;
        if (!p.is_infinite && detail::bit_width(p.significand) + p.exponent <= 8)
            magnitude = static_cast<int>(detail::round_shift(p.significand, -p.exponent, mode, random));
        int const value = p.negative ? -magnitude : magnitude;
        int const clamped = value < min_value ? min_value : value > max_value ? max_value : value;
        return static_cast<std::uint32_t>(clamped) & ((1u << Bits) - 1u);
    }

    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator==(small_integer a, small_integer b) noexcept {
        return a.code_ == b.code_;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator<(small_integer a, small_integer b) noexcept {
        return integer(a.code_) < integer(b.code_);
    }

private:
    std::uint8_t code_; // no initialiser: trivial, so that buffers and shared memory hold it
};

/// Two's complement of 2 to 8 bits.
using int2 = small_integer<2, signedness::is_signed>;
using int3 = small_integer<3, signedness::is_signed>;
using int4 = small_integer<4, signedness::is_signed>;
using int5 = small_integer<5, signedness::is_signed>;
using int6 = small_integer<6, signedness::is_signed>;
using int7 = small_integer<7, signedness::is_signed>;
using int8 = small_integer<8, signedness::is_signed>;

/// Unsigned integers of 1 to 8 bits.
using uint1 = small_integer<1, signedness::is_unsigned>;
using uint2 = small_integer<2, signedness::is_unsigned>;
using uint3 = small_integer<3, signedness::is_unsigned>;
using uint4 = small_integer<4, signedness::is_unsigned>;
using uint5 = small_integer<5, signedness::is_unsigned>;
using uint6 = small_integer<6, signedness::is_unsigned>;
using uint7 = small_integer<7, signedness::is_unsigned>;
using uint8 = small_integer<8, signedness::is_unsigned>;

static_assert(element_format<int4> && element_format<uint8>);

} // namespace tessera::inline TESSERA_ABI
