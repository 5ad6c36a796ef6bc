// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A strict, bounded reader of JSON (RFC 8259) for the headers of foreign files: the caller says what it expects and gets
/// it or a format_error that names file, field and byte.
///
///     json::reader in{text, "tessera: peft: adapter_config.json: "};
///     in.object([&](std::string const& key) {
///         if (key == "r") rank = in.unsigned_integer();
///         else in.skip();
///     });
///     in.end();
///
/// Strict: UTF-8 is checked, keys of an object must differ, escapes and numbers must be what the grammar says and fit their
/// type. Bounded: nesting ends at `max_depth`; memory is what the caller keeps, and 16 bytes for each key of the open
/// objects.

#include "foreign.hpp"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI::json {

/// Objects and arrays in each other.
inline constexpr int max_depth = 16;

namespace detail {

using tessera::detail::quoted_name;
using tessera::detail::raise;

/// The bytes of the UTF-8 character at the front of s; 0 where there is none (RFC 3629: shortest form, no surrogates).
constexpr std::size_t utf8_size(std::string_view s) noexcept {
    auto const byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
    auto const between = [&](std::size_t i, unsigned low, unsigned high) { return byte(i) >= low && byte(i) <= high; };
    unsigned const b = byte(0);
    if (s.empty()) return 0;
    if (b < 0x80) return 1;
    if (b >= 0xc2 && b <= 0xdf) return between(1, 0x80, 0xbf) ? 2 : 0;
    if (b >= 0xe0 && b <= 0xef)
        return between(1, b == 0xe0 ? 0xa0 : 0x80, b == 0xed ? 0x9f : 0xbf) && between(2, 0x80, 0xbf) ? 3 : 0;
    if (b >= 0xf0 && b <= 0xf4)
        return between(1, b == 0xf0 ? 0x90 : 0x80, b == 0xf4 ? 0x8f : 0xbf) && between(2, 0x80, 0xbf) &&
                       between(3, 0x80, 0xbf)
                   ? 4
                   : 0;
    return 0;
}

/// The first byte that is not UTF-8, or the size.
constexpr std::size_t first_bad_utf8(std::string_view s) noexcept {
    for (std::size_t i = 0; i < s.size();) {
        std::size_t const n = utf8_size(s.substr(i));
        if (n == 0) return i;
        i += n;
    }
    return s.size();
}

inline void append_utf8(std::string& out, std::uint32_t c) {
    auto const tail = [&](int shift) { out += static_cast<char>(0x80u | (c >> shift & 0x3fu)); };
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xc0u | c >> 6);
        tail(0);
    } else if (c < 0x10000) {
        out += static_cast<char>(0xe0u | c >> 12);
        tail(6), tail(0);
    } else {
        out += static_cast<char>(0xf0u | c >> 18);
        tail(12), tail(6), tail(0);
    }
}

} // namespace detail

/// The kinds of JSON values.
enum class kind { object, array, string, number, boolean, null };

/// Reads a text from front to back, value by value, strictly by RFC 8259; throws format_error.
class reader {
public:
    /// `text` must outlive the reader. `where` begins every message ("tessera: safetensors: FILE: "), `first` is the
    /// offset of the text in its file.
    reader(std::string_view text, std::string where, std::uint64_t first = 0)
        : text_{text}, where_{std::move(where)}, first_{first} {
        if (std::size_t const bad = detail::first_bad_utf8(text); bad != text.size()) fail(first_ + bad, "is not UTF-8");
    }

    /// What messages name from here on: "tensor 'name' shape". `item` must outlive its use here.
    void expecting(char const* field, char const* of = "", std::string_view item = {}) noexcept {
        field_ = field;
        of_ = of;
        item_ = item;
    }
    char const* field() const noexcept { return field_; }

    /// Of the next token, in the file.
    std::uint64_t offset() {
        space();
        return first_ + at_;
    }

    [[noreturn]] TESSERA_COLD void fail(std::uint64_t offset, std::string const& what) const {
        std::string item = of_;
        if (!item.empty()) item += " " + detail::quoted_name(item_) + " ";
        detail::raise<format_error>(where_ + item + field_ + " at byte " + std::to_string(offset) + ": " + what);
    }

    /// The kind of the next value, by its first character.
    kind peek() {
        space();
        char const c = at_ < text_.size() ? text_[at_] : '\0';
        if (c == '{') return kind::object;
        if (c == '[') return kind::array;
        if (c == '"') return kind::string;
        if (c == '-' || is_digit(c)) return kind::number;
        if (c == 't' || c == 'f') return kind::boolean;
        if (c == 'n') return kind::null;
        fail(offset(), at_ < text_.size() ? "is no JSON value" : "the text ends where a value is expected");
    }

    /// Calls member(key) for each member; it must read the value.
    template <class Member>
    void object(Member&& member) {
        enter('{', "an object");
        std::vector<std::string_view> keys; // as they are written
        if (!take('}')) {
            do {
                keys.push_back(raw_string());
                std::string const key = decoded(keys.back());
                expect(':', "a colon after the key");
                member(key);
            } while (take(','));
            expect('}', "a comma or the end of the object");
        }
        --depth_;
        check_unique(keys);
    }

    /// Calls element() for each element; it must read the value.
    template <class Element>
    void array(Element&& element) {
        enter('[', "an array");
        if (!take(']')) {
            do element();
            while (take(','));
            expect(']', "a comma or the end of the array");
        }
        --depth_;
    }

    std::string string() { return decoded(raw_string()); }

    /// Digits alone: no sign, fraction or exponent.
    std::uint64_t unsigned_integer() {
        auto const start = offset();
        std::string_view const digits = number_token();
        std::uint64_t value = 0;
        auto const [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
        if (end != digits.data() + digits.size() && error == std::errc{})
            fail(start, "is " + detail::quoted_name(digits) + ", expected digits alone");
        if (error != std::errc{})
            fail(start, "is " + detail::quoted_name(digits) + (digits[0] == '-' ? ", expected digits alone"
                                                                           : ", which 64 bits cannot hold"));
        return value;
    }

    double number() {
        auto const start = offset();
        std::string_view const token = number_token();
        double value = 0;
        auto const [end, error] = std::from_chars(token.data(), token.data() + token.size(), value);
        if (error != std::errc{} || end != token.data() + token.size())
            fail(start, "is " + detail::quoted_name(token) + ", which a double cannot hold");
        return value;
    }

    bool boolean() {
        bool const value = peek() == kind::boolean && text_[at_] == 't';
        word(value ? "true" : "false", "true or false");
        return value;
    }

    void null() { word("null", "null"); }

    /// Reads any value, with the same checks, and keeps nothing.
    void skip() {
        switch (peek()) {
        case kind::object: return object([&](std::string const&) { skip(); });
        case kind::array: return array([&] { skip(); });
        case kind::string: raw_string(); return;
        case kind::number: number(); return;
        case kind::boolean: boolean(); return;
        case kind::null: return null();
        }
    }

    /// Nothing but white space may follow.
    void end() {
        if (space(); at_ != text_.size()) fail(offset(), "something follows the end of the JSON text");
    }

private:
    static constexpr bool is_digit(char c) noexcept { return c >= '0' && c <= '9'; }

    void space() noexcept {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t'))
            ++at_;
    }
    bool take(char c) noexcept {
        space();
        bool const is_there = at_ < text_.size() && text_[at_] == c;
        at_ += is_there;
        return is_there;
    }
    void expect(char c, char const* what) {
        if (!take(c)) fail(offset(), std::string{"expected "} + what);
    }
    void enter(char c, char const* what) {
        auto const start = offset();
        expect(c, what);
        if (++depth_ > max_depth) fail(start, "is nested more than " + std::to_string(max_depth) + " deep");
    }
    void word(std::string_view w, char const* what) {
        space();
        if (text_.substr(at_, w.size()) != w) fail(offset(), std::string{"expected "} + what);
        at_ += w.size();
    }

    /// A string without its quotes, its escapes checked and left as they are.
    std::string_view raw_string() {
        expect('"', "a string");
        std::size_t const begin = at_;
        while (at_ < text_.size() && text_[at_] != '"') {
            if (static_cast<unsigned char>(text_[at_]) < 0x20) fail(first_ + at_, "a control character in a string");
            if (text_[at_] == '\\')
                at_ += escape(at_).size;
            else
                ++at_;
        }
        if (at_ == text_.size()) fail(first_ + begin - 1, "the string does not end");
        return text_.substr(begin, at_++ - begin);
    }

    struct escaped {
        std::uint32_t character;
        std::size_t size;
    };
    /// The escape sequence at `at`.
    escaped escape(std::size_t at) const {
        constexpr std::string_view letters = "\"\\/bfnrt";
        constexpr char const* meanings = "\"\\/\b\f\n\r\t";
        char const c = at + 1 < text_.size() ? text_[at + 1] : '\0';
        if (auto const i = letters.find(c); c != '\0' && i != letters.npos)
            return {static_cast<std::uint32_t>(meanings[i]), 2};
        if (c != 'u') fail(first_ + at, "is no escape sequence");
        std::uint32_t const unit = code_unit(at);
        if (unit < 0xd800 || unit > 0xdfff) return {unit, 6};
        std::uint32_t const low = unit < 0xdc00 && text_.substr(at + 6, 2) == "\\u" ? code_unit(at + 6) : 0;
        if (low < 0xdc00 || low > 0xdfff) fail(first_ + at, "is half of a surrogate pair");
        return {0x10000u + ((unit - 0xd800u) << 10) + (low - 0xdc00u), 12};
    }
    /// \uXXXX
    std::uint32_t code_unit(std::size_t at) const {
        std::uint32_t unit = 0;
        for (std::size_t i = at + 2; i < at + 6; ++i) {
            char const c = i < text_.size() ? text_[i] : '\0';
            bool const is_letter = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
            if (!is_digit(c) && !is_letter) fail(first_ + at, "is no escape sequence");
            unit = unit << 4 | static_cast<std::uint32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
        }
        return unit;
    }
    std::string decoded(std::string_view raw) const {
        if (raw.find('\\') == raw.npos) return std::string{raw};
        std::string out;
        auto const begin = static_cast<std::size_t>(raw.data() - text_.data());
        for (std::size_t i = begin; i < begin + raw.size();) {
            if (text_[i] != '\\') {
                out += text_[i++];
                continue;
            }
            escaped const e = escape(i);
            detail::append_utf8(out, e.character);
            i += e.size;
        }
        return out;
    }

    /// -? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?
    std::string_view number_token() {
        auto const start = offset();
        std::size_t const begin = at_;
        auto const here = [&] { return at_ < text_.size() ? text_[at_] : '\0'; };
        auto const digits = [&] {
            if (!is_digit(here())) fail(start, "is no number");
            while (is_digit(here())) ++at_;
        };
        at_ += here() == '-';
        if (here() == '0')
            ++at_;
        else
            digits();
        if (here() == '.') ++at_, digits();
        if (here() == 'e' || here() == 'E') {
            ++at_;
            at_ += here() == '+' || here() == '-';
            digits();
        }
        if (is_digit(here())) fail(start, "is a number with a leading zero");
        return text_.substr(begin, at_ - begin);
    }

    void check_unique(std::vector<std::string_view>& keys) const {
        auto const less = [&](std::string_view a, std::string_view b) {
            bool const plain = a.find('\\') == a.npos && b.find('\\') == b.npos;
            int const order = plain ? a.compare(b) : decoded(a).compare(decoded(b));
            return order != 0 ? order < 0 : a.data() < b.data();
        };
        std::sort(keys.begin(), keys.end(), less);
        for (std::size_t i = 1; i < keys.size(); ++i)
            if (decoded(keys[i]) == decoded(keys[i - 1]))
                fail(first_ + static_cast<std::uint64_t>(keys[i].data() - text_.data()),
                     "key " + detail::quoted_name(keys[i]) + " is there twice");
    }

    std::string_view text_;
    std::string where_;
    std::uint64_t first_;
    std::size_t at_ = 0;
    int depth_ = 0;
    char const* field_ = "text";
    char const* of_ = "";
    std::string_view item_;
};

/// Appends `s` as a JSON string, escaping what must be.
inline void append_string(std::string& out, std::string_view s) {
    constexpr char const* digits = "0123456789abcdef";
    constexpr std::string_view special = "\"\\\b\f\n\r\t";
    constexpr char const* letters = "\"\\bfnrt";
    out += '"';
    for (char const c : s) {
        if (auto const i = special.find(c); i != special.npos)
            (out += '\\') += letters[i];
        else if (static_cast<unsigned char>(c) < 0x20)
            (out += "\\u00") += {digits[c >> 4], digits[c & 15]};
        else
            out += c;
    }
    out += '"';
}

} // namespace tessera::inline TESSERA_ABI::json
