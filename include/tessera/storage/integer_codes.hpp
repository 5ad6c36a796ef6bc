// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How the codes of a format enter integer dot products:
///
///     value(code) = unit * (byte(code) - zero)
///
/// with an unsigned byte. Integer formats are that already (byte = code, unit = 1), and so is fixed point (MXINT8). Of others with at most 6 bits the byte is
/// looked up: where the values are multiples of one unit, as of e2m1, e2m3 or IQ4_NL, the product is as exact as an integer
/// format's. Where one byte is too coarse, two are looked up,
///
///     value(code) = unit * (128 * (high(code) - zero) + low(code))
///
/// exact for e3m2; of any other table (NF4, one of one's own) values are rounded to multiples of unit = largest / 8191, which is
/// little beside what int8 does to x. Found out at compile time, from the format's values alone.

#include "code_source.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// How codes enter integer products.
enum class integer_codes_kind : std::uint8_t {
    none,  ///< they do not
    codes, ///< as they are
    table, ///< by a look-up
    pair,  ///< by two look-ups
};

namespace detail {

/// 64 is what one instruction looks up; what follows is worked out once per format.
inline constexpr int most_looked_up_bits = 6;

/// The largest multiple of the unit that two bytes of 7 bits make up.
inline constexpr int largest_pair = 63 * 128 + 127;

struct integer_table {
    integer_codes_kind kind = integer_codes_kind::none;
    float unit = 1.0f;
    int zero = 0;
    int bits = 8; // of the largest byte
    alignas(64) std::uint8_t bytes[1 << most_looked_up_bits] = {};
    alignas(64) std::uint8_t high[1 << most_looked_up_bits] = {};
};

/// Whether all values are at most `most` times a whole number of units.
template <class Source>
constexpr bool are_whole(float unit, float most) noexcept {
    for (std::uint32_t c = 0; c < 1u << Source::bits; ++c) {
        float const a = magnitude_of(Source::value(c));
        if (a > most * unit) return false; // before it is divided: the quotient may be no float
        if (static_cast<float>(static_cast<int>(a / unit)) * unit != a) return false;
    }
    return true;
}

/// The unit of which all values are at most `most` times a whole number, the smallest of them or a half, a quarter, an eighth of
/// it; 0: there is none.
template <class Source>
constexpr float unit_of_values(float most) noexcept {
    float smallest = 0.0f;
    for (std::uint32_t c = 0; c < 1u << Source::bits; ++c) {
        float const a = magnitude_of(Source::value(c));
        if (a > 0 && (smallest == 0 || a < smallest)) smallest = a;
    }
    if (smallest < 1e-29f) return 0.0f;
    for (float part = 1.0f; part <= 8.0f; part *= 2.0f)
        if (are_whole<Source>(smallest / part, most)) return smallest / part;
    return 0.0f;
}

/// value / unit, rounded half away from zero.
constexpr int whole_units(float value, float unit) noexcept {
    float const multiple = value / unit;
    return static_cast<int>(multiple + (multiple < 0 ? -0.5f : 0.5f));
}

template <class Source>
constexpr void fill_table(integer_table& t) noexcept {
    constexpr std::uint32_t size = 1u << Source::bits;
    bool const is_pair = t.kind == integer_codes_kind::pair;
    auto const upper = [&](std::uint32_t c) { // of a pair rounded down, so that the rest is not negative
        int const i = whole_units(Source::value(c), t.unit);
        return is_pair ? (i + (largest_pair + 1)) / 128 - (largest_pair + 1) / 128 : i;
    };
    int low = 0;
    int high = 0;
    for (std::uint32_t c = 0; c < size; ++c) {
        low = upper(c) < low ? upper(c) : low;
        high = upper(c) > high ? upper(c) : high;
    }
    t.zero = -low;
    t.bits = is_pair ? 7 : 0;
    while (1 << t.bits <= high - low) ++t.bits;
    // Repeated, so that a look-up needs no mask.
    for (std::uint32_t c = 0; c < 1u << most_looked_up_bits; ++c) {
        auto const byte = static_cast<std::uint8_t>(upper(c % size) - low);
        if (is_pair) {
            t.high[c] = byte;
            t.bytes[c] = static_cast<std::uint8_t>(whole_units(Source::value(c % size), t.unit) - 128 * upper(c % size));
        } else {
            t.bytes[c] = byte;
        }
    }
}

template <class Source>
constexpr integer_table integer_table_of() noexcept {
    integer_table t;
    if constexpr (Source::is_integer) {
        t.kind = integer_codes_kind::codes;
        t.zero = Source::zero;
        t.bits = Source::bits;
    } else if constexpr (requires { requires Source::has_unit; }) {
        t.kind = integer_codes_kind::codes;
        t.unit = Source::unit;
        t.zero = Source::zero;
        t.bits = Source::bits;
    } else if constexpr (Source::bits <= most_looked_up_bits) {
        float largest = 0.0f;
        for (std::uint32_t c = 0; c < 1u << Source::bits; ++c) {
            float const a = magnitude_of(Source::value(c));
            if (a != a || a > 1e30f) return t; // a NaN or an infinity is no integer
            largest = a > largest ? a : largest;
        }
        if (largest < 1e-20f) return t;
        if (float const unit = unit_of_values<Source>(127.0f); unit > 0) {
            t.kind = integer_codes_kind::table;
            t.unit = unit;
        } else if (Source::group % 32 == 0 || Source::group == 16) { // sums of others might outgrow 32 bits
            t.kind = integer_codes_kind::pair;
            float const exact = unit_of_values<Source>(largest_pair);
            t.unit = exact > 0 ? exact : largest / largest_pair;
        } else {
            return t;
        }
        fill_table<Source>(t);
    }
    return t;
}

} // namespace detail

/// See the file comment.
template <class Source>
struct integer_codes {
private:
    static constexpr detail::integer_table table = detail::integer_table_of<Source>();

public:
    static constexpr integer_codes_kind kind = table.kind;
    /// What a step of the bytes is worth.
    static constexpr float unit = table.unit;
    /// What is subtracted from the byte.
    static constexpr int zero = table.zero;
    /// Bits of the largest byte.
    static constexpr int bits = table.bits;
    /// The bytes of codes 0 to 63, of their low `Source::bits` bits; of pairs the low ones.
    static constexpr std::uint8_t const* bytes = table.bytes;
    static constexpr std::uint8_t const* high_bytes = table.high;
};

} // namespace tessera::inline TESSERA_ABI
