// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the readers and writers of foreign files share: names made safe to print, bytes appended, files saved.

#include "../core/error.hpp"
#include "../storage/file_to_be.hpp"

#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tessera::inline TESSERA_ABI::detail {

/// A name from a file, safe to print: quoted, other than printable ASCII as \xNN, cut after 64 bytes.
inline std::string quoted_name(std::string_view name) {
    constexpr char const* digits = "0123456789abcdef";
    std::string out = "'";
    for (std::size_t i = 0; i < name.size() && i < 64; ++i) {
        auto const c = static_cast<unsigned char>(name[i]);
        if (c >= 0x20 && c < 0x7f && c != '\'' && c != '\\')
            out += static_cast<char>(c);
        else
            (out += "\\x") += {digits[c >> 4], digits[c & 15]};
    }
    return out += name.size() > 64 ? "...'" : "'";
}

inline void append_bytes(std::vector<std::byte>& out, std::span<std::byte const> bytes) {
    // Not vector::insert: GCC 12 warns, wrongly, that its copy may overflow.
    std::size_t const at = out.size();
    out.resize(at + bytes.size());
    if (!bytes.empty()) std::memcpy(out.data() + at, bytes.data(), bytes.size());
}

/// Calls write(sink), and sink(std::span<std::byte const>) appends to the file, which takes its name when it is whole: what is
/// written may lie in the mapped file of that name.
/// @throws format_error naming format, path and the system's reason; the file that was there stays
template <class Write>
void save_file(char const* format, std::string const& path, Write const& write) {
    file_to_be out{path, std::string{format} + ": " + path};
    write([&](std::span<std::byte const> part) { out.add(part.data(), part.size()); });
    out.finish();
}

} // namespace tessera::inline TESSERA_ABI::detail
