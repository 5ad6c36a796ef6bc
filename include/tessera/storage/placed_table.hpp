// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The file of a `placed_cache`: panels of operands, and a table that says what they are. Numbers in the machine's byte order.
///
///     header (64 bytes)   "tessera\x1a" | byte order 0x01020304 (u32) | file format (u32) | panel layout (u64) | entries (u64)
///                         | bytes of the file (u64) | hash of the table (128 bits) | 0 (u64)
///     entries (192 each)  key (128 bits) | hash of the panels (128) | sampled hash of them (128) | offset (u64) | bytes (u64)
///                         | rows (u64) | columns (u64) | layout as text (112 bytes, zeros behind)
///     panels              each at its offset, a multiple of 64; the first at a multiple of 4096
///
/// `placed_table::parse` reads any bytes and looks at nothing outside them; what panels hold is not looked at.

#include "content_hash.hpp"
#include "memory_arena.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI {

namespace detail {

struct placed_header {
    char magic[8] = {'t', 'e', 's', 's', 'e', 'r', 'a', '\x1a'};
    std::uint32_t byte_order = 0x01020304;
    std::uint32_t format = 1;
    std::uint64_t panel_layout = 0;
    std::uint64_t entries = 0;
    std::uint64_t file_bytes = 0;
    content_id table{};
    std::uint64_t reserved = 0;
};
static_assert(sizeof(placed_header) == 64);

struct placed_entry {
    content_id key{};
    content_id panels{};
    content_id sampled{};
    std::uint64_t offset = 0;
    std::uint64_t bytes = 0;
    std::uint64_t rows = 0;
    std::uint64_t cols = 0;
    char layout[112] = {};
};
static_assert(sizeof(placed_entry) == 192);

} // namespace detail

/// What a file of placed operands is.
enum class placed_file_kind {
    foreign, ///< something else: not to be overwritten
    stale,   ///< one of ours that cannot be used: damaged, or of another version
    good
};

/// The table of a file; refers to the file's bytes.
class placed_table {
public:
    using entry = detail::placed_entry;
    static constexpr std::uint32_t format = 1;
    static constexpr std::size_t panel_alignment = 4096; ///< of the first

    placed_table() noexcept = default;

    /// @param panel_layout the one that the program writes
    static placed_table parse(std::span<std::byte const> bytes, std::uint64_t panel_layout) {
        placed_table t;
        t.bytes_ = bytes;
        t.reason_ = t.read(panel_layout);
        if (!t.reason_.empty()) t.entries_.clear();
        return t;
    }

    placed_file_kind kind() const noexcept { return kind_; }
    /// Why it cannot be used; empty where it can.
    std::string const& reason() const noexcept { return reason_; }
    index_t size() const noexcept { return static_cast<index_t>(entries_.size()); }
    /// Entries by their keys.
    std::span<entry const> entries() const noexcept { return entries_; }

    /// Null where no entry has the key.
    entry const* find(content_id const& key) const noexcept {
        auto const at = std::lower_bound(entries_.begin(), entries_.end(), key,
                                         [](entry const& e, content_id const& k) { return comes_before(e.key, k); });
        return at != entries_.end() && at->key == key ? &*at : nullptr;
    }
    std::span<std::byte const> panels(entry const& e) const noexcept {
        return bytes_.subspan(static_cast<std::size_t>(e.offset), static_cast<std::size_t>(e.bytes));
    }

    /// The hash that a header and its entries must have.
    static content_id hash_of(detail::placed_header header, std::byte const* entries) noexcept {
        header.table = {};
        content_hash hash;
        hash.add(&header, sizeof header);
        hash.add(entries, static_cast<index_t>(header.entries * sizeof(entry)));
        return hash.finish();
    }

private:
    static constexpr bool comes_before(content_id const& a, content_id const& b) noexcept {
        return a.high != b.high ? a.high < b.high : a.low < b.low;
    }

    std::string read(std::uint64_t panel_layout) {
        detail::placed_header header;
        detail::placed_header const expected;
        if (bytes_.size() < sizeof header.magic || std::memcmp(bytes_.data(), header.magic, sizeof header.magic) != 0) {
            // Nothing is nobody's: a file that was made and never written.
            kind_ = bytes_.empty() ? placed_file_kind::stale : placed_file_kind::foreign;
            return bytes_.empty() ? "is empty" : "does not begin as a file of placed operands";
        }
        kind_ = placed_file_kind::stale;
        auto const number = [](auto n) { return std::to_string(n); };
        if (bytes_.size() < sizeof header) return "is truncated: " + number(bytes_.size()) + " bytes, expected at least 64";
        std::memcpy(&header, bytes_.data(), sizeof header);
        if (header.byte_order != expected.byte_order) return "was written in another byte order";
        if (header.format != format) return "has file format " + number(header.format) + ", expected " + number(format);
        if (header.panel_layout != panel_layout)
            return "has panel layout " + number(header.panel_layout) + ", expected " + number(panel_layout);
        if (header.file_bytes != bytes_.size())
            return "has " + number(bytes_.size()) + " bytes, its header says " + number(header.file_bytes);
        if (header.entries > (bytes_.size() - sizeof header) / sizeof(entry))
            return "has no room for the " + number(header.entries) + " entries of its header";
        if (hash_of(header, bytes_.data() + sizeof header) != header.table) return "is damaged: the hash of its table differs";
        entries_.resize(static_cast<std::size_t>(header.entries));
        if (header.entries > 0) std::memcpy(entries_.data(), bytes_.data() + sizeof header, entries_.size() * sizeof(entry));
        for (std::size_t i = 0; i < entries_.size(); ++i)
            if (entry const& e = entries_[i];
                e.offset % config::cache_line != 0 || e.offset < sizeof header + entries_.size() * sizeof(entry) ||
                e.offset > bytes_.size() || e.bytes > bytes_.size() - e.offset || e.layout[sizeof e.layout - 1] != 0)
                return "is damaged: entry " + number(i) + " does not lie inside it";
        std::sort(entries_.begin(), entries_.end(), [](entry const& a, entry const& b) { return comes_before(a.key, b.key); });
        kind_ = placed_file_kind::good;
        return {};
    }

    std::span<std::byte const> bytes_;
    std::vector<entry> entries_;
    std::string reason_;
    placed_file_kind kind_ = placed_file_kind::stale;
};

} // namespace tessera::inline TESSERA_ABI
