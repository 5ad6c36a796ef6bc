// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Formats of keys and values by name: what a program lets its user choose from.
///
///     using formats = ts::standard_kv_formats;                     // or ts::kv_formats<float, ts::fp16, ts::int4_g128>
///     ts::kv_choice const choice = formats::parse("int8,nf4_g64"); // keys and values; one name stands for both
///     std::string const names = formats::names();                  // "fp32, fp16, bf16, int8, ..."
///
/// A scheme is called what its format is, and its groups: `int4_g32`; `e4m3` where a token of a head has one scale; `pvq32k22`
/// are vectors of 32 numbers and 22 pulses. A name that is
/// not in the list is an unsupported_error, which says what is. Caches made of a choice: any_kv_cache.hpp.

#include "kv_cache.hpp"
#include "kv_pvq.hpp"

#include <string>
#include <string_view>

namespace tessera::inline TESSERA_ABI {

namespace detail {

struct kv_name_text {
    char text[48] = {};
    std::size_t length = 0;

    constexpr void add(std::string_view s) noexcept {
        for (char const c : s)
            if (length < sizeof text) text[length++] = c;
    }
    constexpr void add(index_t n) noexcept {
        index_t unit = 1;
        while (n / unit >= 10) unit *= 10;
        for (; unit > 0; unit /= 10) {
            char const digit = static_cast<char>('0' + n / unit % 10);
            add(std::string_view{&digit, 1});
        }
    }
    constexpr std::string_view view() const noexcept { return {text, length}; }
};

template <class Format>
constexpr kv_name_text make_kv_name() noexcept {
    kv_name_text name;
    if constexpr (std::is_same_v<Format, float>) {
        name.add(fp32::name);
    } else if constexpr (std::is_same_v<Format, int8_per_token>) {
        name.add("int8");
    } else if constexpr (requires { typename Format::pvq_format; }) {
        name.add("pvq");
        name.add(Format::pvq_format::group);
        name.add("k");
        name.add(Format::pvq_format::pulses);
    } else if constexpr (requires { typename Format::granularity_type; }) {
        name.add(std::is_same_v<typename Format::format, e4m3fn> ? "e4m3" : Format::format::name);
        if constexpr (Format::granularity_type::columns != 0) {
            name.add("_g");
            name.add(Format::granularity_type::columns);
        }
    } else {
        name.add(Format::name);
    }
    return name;
}

} // namespace detail

/// What a format of keys or values is called.
template <class Format>
inline constexpr detail::kv_name_text kv_format_name = detail::make_kv_name<Format>();

/// The formats of a cache: numbers in a list.
struct kv_choice {
    int keys = 0;
    int values = 0;

    friend constexpr bool operator==(kv_choice const&, kv_choice const&) = default;
};

/// A list of formats; see the file comment.
template <class... Format>
struct kv_formats {
    static constexpr int size = sizeof...(Format);
    static_assert(size > 0, "tessera: kv_formats names at least one format");

    static constexpr std::string_view name(int i) noexcept {
        constexpr std::string_view each[] = {kv_format_name<Format>.view()...};
        return each[i];
    }
    /// All names, with ", " between them.
    static std::string names() {
        std::string text;
        for (int i = 0; i < size; ++i) (text += i == 0 ? "" : ", ") += name(i);
        return text;
    }
    /// The number of a format.
    static int find(std::string_view wanted) {
        static_assert(are_distinct(), "tessera: two formats of kv_formats have one name");
        for (int i = 0; i < size; ++i)
            if (name(i) == wanted) return i;
        detail::raise<unsupported_error>("tessera: kv_formats: no format is called '" + std::string{wanted} + "', there are " + names());
    }
    /// "KEYS,VALUES", or one name for both.
    static kv_choice parse(std::string_view text) {
        std::size_t const comma = text.find(',');
        if (comma == std::string_view::npos) return {find(text), find(text)};
        if (comma == 0 || comma + 1 == text.size() || text.find(',', comma + 1) != std::string_view::npos)
            detail::raise<unsupported_error>("tessera: kv_formats: '" + std::string{text} +
                                             "' is not KEYS,VALUES, nor one format for both; there are " + names());
        return {find(text.substr(0, comma)), find(text.substr(comma + 1))};
    }
    /// The name of a choice, as `parse` reads it.
    static std::string name(kv_choice choice) { return std::string{name(choice.keys)} + ',' + std::string{name(choice.values)}; }

private:
    static constexpr bool are_distinct() noexcept {
        for (int i = 0; i < size; ++i)
            for (int j = 0; j < i; ++j)
                if (name(i) == name(j)) return false;
        return true;
    }
};

/// From 32 bits a number to 2.
using standard_kv_formats =
    kv_formats<float, fp16, bf16, int8_per_token, scheme<int8, group<32>, fp16>, scheme<e4m3fn, per_channel, fp16>,
               scheme<e5m2, per_channel, fp16>, scheme<int4, per_channel, fp16>, int4_g32, int4_g64, uint4_g32, nf4_g64,
               scheme<e2m1, group<32>, fp16>, scheme<uint3, group<32>, fp16, affine>, scheme<uint2, group<32>, fp16, affine>,
               kv_pvq<pvq<32, 22, 3>>>;

} // namespace tessera::inline TESSERA_ABI
