// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The little Unicode that byte-level BPE needs: UTF-8 one code point at a time, the classes \p{L}, \p{N} and \s, and a
/// stream that holds back unfinished characters.

#include "unicode_tables.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>

namespace generate {

enum class char_class : std::uint8_t { letter, number, space, other };

namespace detail {

template <std::size_t N>
constexpr bool contains(code_range const (&table)[N], std::uint32_t c) noexcept {
    auto const at = std::upper_bound(std::begin(table), std::end(table), c,
                                     [](std::uint32_t v, code_range const& r) { return v < r.first; });
    return at != std::begin(table) && c <= std::prev(at)->last;
}

} // namespace detail

/// The property White_Space (stable since Unicode 6.3).
constexpr bool is_space(std::uint32_t c) noexcept {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) ||
           c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

constexpr char_class class_of(std::uint32_t c) noexcept {
    if (c < 0x80) {
        std::uint32_t const lower = c | 0x20u;
        if (lower >= 'a' && lower <= 'z') return char_class::letter;
        if (c >= '0' && c <= '9') return char_class::number;
        return is_space(c) ? char_class::space : char_class::other;
    }
    if (is_space(c)) return char_class::space;
    if (detail::contains(letter_ranges, c)) return char_class::letter;
    return detail::contains(number_ranges, c) ? char_class::number : char_class::other;
}

/// What a string of bytes begins with.
struct utf8_prefix {
    enum class kind : std::uint8_t {
        complete,   ///< `code` in `length` bytes
        unfinished, ///< all `length` bytes are the beginning of a character
        invalid     ///< `length` bytes that begin no character (as many as Unicode replaces by one U+FFFD)
    };
    kind what;
    std::uint8_t length;
    std::uint32_t code;
};

/// @param s not empty
constexpr utf8_prefix decode_utf8(std::string_view s) noexcept {
    using enum utf8_prefix::kind;
    auto const byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(s[i])); };
    std::uint32_t const lead = byte(0);
    if (lead < 0x80) return {complete, 1, lead};
    if (lead < 0xc2 || lead > 0xf4) return {invalid, 1, 0};
    std::size_t const length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    std::uint32_t code = lead & (0xffu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        auto const so_far = static_cast<std::uint8_t>(i);
        if (i == s.size()) return {unfinished, so_far, 0};
        // the second byte excludes overlong forms, surrogates and what lies beyond U+10FFFF
        std::uint32_t const low = i > 1 ? 0x80u : lead == 0xe0 ? 0xa0u : lead == 0xf0 ? 0x90u : 0x80u;
        std::uint32_t const high = i > 1 ? 0xbfu : lead == 0xed ? 0x9fu : lead == 0xf4 ? 0x8fu : 0xbfu;
        if (byte(i) < low || byte(i) > high) return {invalid, so_far, 0};
        code = code << 6 | (byte(i) & 0x3fu);
    }
    return {complete, static_cast<std::uint8_t>(length), code};
}

/// Appends a code point below 0x110000.
inline void append_utf8(std::string& out, std::uint32_t c) {
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xc0 | c >> 6);
        out += static_cast<char>(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
        out += static_cast<char>(0xe0 | c >> 12);
        out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
        out += static_cast<char>(0x80 | (c & 0x3f));
    } else {
        out += static_cast<char>(0xf0 | c >> 18);
        out += static_cast<char>(0x80 | (c >> 12 & 0x3f));
        out += static_cast<char>(0x80 | (c >> 6 & 0x3f));
        out += static_cast<char>(0x80 | (c & 0x3f));
    }
}

/// Makes valid UTF-8 of pieces of bytes that may end inside a character: a token is not always a whole one. What is
/// invalid becomes U+FFFD.
class utf8_stream {
public:
    /// All characters that `bytes` completes.
    std::string push(std::string_view bytes) {
        held_ += bytes;
        std::string out;
        std::string_view rest = held_;
        while (!rest.empty()) {
            utf8_prefix const p = decode_utf8(rest);
            if (p.what == utf8_prefix::kind::unfinished) break;
            if (p.what == utf8_prefix::kind::complete)
                out += rest.substr(0, p.length);
            else
                append_utf8(out, 0xfffd);
            rest.remove_prefix(p.length);
        }
        held_.erase(0, held_.size() - rest.size());
        return out;
    }

    /// The end: a character that was never finished becomes U+FFFD.
    std::string finish() {
        std::string out;
        if (!held_.empty()) append_utf8(out, 0xfffd);
        held_.clear();
        return out;
    }

private:
    std::string held_;
};

} // namespace generate
