// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How the codes of a format enter integer dot products:
///
///     value(code) = unit * (byte(code) - zero)
///
/// with an unsigned byte. Integer formats are that already (byte = code, unit = 1). Of others the values may be few, and small
/// multiples of one unit: e2m1 (twelfths of its range), e2m3, IQ4_NL, a table of one's own. Then the byte is looked up, and
/// the product is as exact as an integer format's. Found out at compile time, from the format's values alone.

#include "code_source.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// How codes enter integer products.
enum class integer_codes_kind : std::uint8_t {
    none,  ///< they do not
    codes, ///< as they are
    table, ///< by a look-up
};

namespace detail {

/// 64 is what one instruction looks up; what follows is worked out once per format.
inline constexpr int most_looked_up_bits = 6;

struct integer_table {
    integer_codes_kind kind = integer_codes_kind::none;
    float unit = 1.0f;
    int zero = 0;
    int bits = 8; // of the largest byte
    alignas(64) std::uint8_t bytes[1 << most_looked_up_bits] = {};
};

template <class Source>
constexpr integer_table integer_table_of() noexcept {
    integer_table t;
    if constexpr (Source::is_integer) {
        t.kind = integer_codes_kind::codes;
        t.zero = Source::zero;
        t.bits = Source::bits;
    } else if constexpr (Source::bits <= most_looked_up_bits) {
        constexpr int size = 1 << Source::bits;
        float unit = 0.0f;
        for (std::uint32_t c = 0; c < size; ++c) {
            float const v = Source::value(c);
            float const a = v < 0 ? -v : v;
            if (a != a || a > 1e30f) return t; // a NaN or an infinity is no integer
            if (a > 0 && (unit == 0 || a < unit)) unit = a;
        }
        if (unit < 1e-30f) return t;
        int low = 0;
        int high = 0;
        for (std::uint32_t c = 0; c < size; ++c) {
            float const multiple = Source::value(c) / unit;
            if (multiple > 127.0f || multiple < -127.0f) return t;
            int const i = static_cast<int>(multiple);
            if (static_cast<float>(i) * unit != Source::value(c)) return t;
            low = i < low ? i : low;
            high = i > high ? i : high;
        }
        t.kind = integer_codes_kind::table;
        t.unit = unit;
        t.zero = -low;
        t.bits = 0;
        while (1 << t.bits <= high - low) ++t.bits;
        // Repeated, so that a look-up needs no mask.
        for (std::uint32_t c = 0; c < 1u << most_looked_up_bits; ++c)
            t.bytes[c] = static_cast<std::uint8_t>(static_cast<int>(Source::value(c % size) / unit) - low);
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
    /// The bytes of codes 0 to 63, of their low `Source::bits` bits; for kind `table`.
    static constexpr std::uint8_t const* bytes = table.bytes;
};

} // namespace tessera::inline TESSERA_ABI
