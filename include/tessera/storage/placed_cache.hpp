// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `placed_cache`: an arena that keeps what was placed in it in a file, and finds it there at the next start.
///
///     ts::placed_cache cache{folder + "/" + ts::placed_cache_name(exec, ts::content_of(model, ts::content_check::sampled))};
///     auto const layer = ts::place(exec, w, cache);       // the first time packs; later a reference into the mapped file
///     cache.save();                                       // writes the file where it does not hold all of this
///     cache.report();                                     // what was found, what was packed, and why
///
/// An entry is found by a hash of the layout (format, groups, panels of the architecture), the shape and the source's bytes: a
/// model that changed, another order of placing, another machine cannot get wrong weights, they get packed anew. The hash of the
/// panels is compared before they are used. The file is replaced as a whole (written beside, then renamed), so that other
/// processes keep what they mapped.
///
/// **What a start costs.** By default every byte of the source and of the panels is read once, about as fast as memory is.
/// `content_check::sampled` reads 16 KiB of each operand instead, for files that are only ever replaced as a whole and disks
/// that are trusted: then the pages of a model that is in the cache are not touched at all. A file that an enemy can write is
/// no cache: hashes find damage, not intent.
///
/// **Memory.** With `file_access::map` panels are pages of the file, shared by processes; `file_access::read` copies them into
/// the arena, whose huge pages are read faster. Neither holds them twice, nor does packing: `save` writes from the arena.
///
/// Compressed sparse rows (csr) are not kept: they are packed each time, into the arena.

#include "file_to_be.hpp"
#include "mapped_file.hpp"
#include "placed_table.hpp"
#include "prepacked.hpp"

#include <string>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// What is done about a file that is one of ours and damaged, or of another version.
enum class stale_file {
    replace, ///< operands are packed, `save` writes a new one
    refuse   ///< format_error
};

/// What a cache checks, and what it does with a file that does not fit.
struct placed_cache_options {
    content_check source = content_check::whole; ///< how much of a source decides whether it is the one of the file
    content_check panels = content_check::whole; ///< how much of the panels is compared with their hash
    file_access access = file_access::map;
    stale_file stale = stale_file::replace;
};

/// What the file of a cache was good for.
enum class placed_cache_state {
    absent, ///< there is no file
    good,   ///< everything asked for so far was in the file
    stale   ///< something was not: `reason` says what
};

/// What came from the file so far.
struct placed_cache_report {
    placed_cache_state state = placed_cache_state::absent;
    std::string reason;       ///< of `stale`
    index_t found = 0;        ///< operands that came from the file
    index_t packed = 0;       ///< and that did not
    index_t found_bytes = 0;
    index_t packed_bytes = 0;
};

/// See the file comment. Must outlive what was placed in it; one thread at a time places.
class placed_cache final : public memory_arena {
public:
    /// @throws format_error where the path names something else, which is never overwritten, or cannot be read; with
    /// stale_file::refuse also where it cannot be used
    explicit placed_cache(std::string path, placed_cache_options const& options = {});
    placed_cache(placed_cache const&) = delete;
    placed_cache& operator=(placed_cache const&) = delete;

    std::string const& path() const noexcept { return path_; }
    placed_cache_options const& options() const noexcept { return options_; }
    placed_cache_report const& report() const noexcept { return report_; }

    /// Writes the operands placed so far where the file does not hold them all; the bytes written, or 0.
    /// @throws format_error with the system's reason; the file is as it was then
    index_t save();

    content_check source_check() const noexcept override { return options_.source; }
    placement find_or_allocate(placed_key&& key) override;

private:
    struct item {
        placed_key key;
        std::byte const* data;
    };

    void become_stale(std::string const& why) {
        if (report_.state == placed_cache_state::good) report_ = {placed_cache_state::stale, why, report_.found, 0, report_.found_bytes, 0};
    }
    bool are_as_written(placed_table::entry const& e, std::span<std::byte const> panels) const noexcept {
        return options_.panels == content_check::none ||
               content_of(panels, options_.panels) == (options_.panels == content_check::whole ? e.panels : e.sampled);
    }
    std::byte const* found(placed_key const& key);
    template <class Sink>
    index_t write(Sink const& sink) const;

    std::string path_;
    placed_cache_options options_;
    mapped_file file_;
    placed_table table_;
    placed_cache_report report_;
    std::vector<item> items_;
    std::size_t saved_ = 0;
};

inline placed_cache::placed_cache(std::string path, placed_cache_options const& options)
    : path_{std::move(path)}, options_{options} {
    if (options_.source == content_check::none)
        detail::raise<unsupported_error>("tessera: placed_cache: the check of sources is none, expected sampled or full");
    if (!detail::file_exists(path_)) return;
    file_ = mapped_file{path_};
    table_ = placed_table::parse(file_.bytes(), panel_layout_version);
    report_.state = placed_cache_state::good;
    if (table_.kind() == placed_file_kind::good) return;
    if (table_.kind() == placed_file_kind::foreign || options_.stale == stale_file::refuse)
        detail::raise<format_error>("tessera: " + path_ + ": " + table_.reason());
    become_stale("the file " + table_.reason());
}

inline std::byte const* placed_cache::found(placed_key const& key) {
    auto const what = [&] { return key.layout + " (" + std::to_string(key.rows) + " x " + std::to_string(key.cols) + ")"; };
    placed_table::entry const* const e = table_.find(key.id);
    if (e == nullptr || e->bytes != static_cast<std::uint64_t>(key.bytes)) {
        if (report_.state == placed_cache_state::good) become_stale("the file holds no such operand: " + what());
        return nullptr;
    }
    std::span<std::byte const> const panels = table_.panels(*e);
    if (!are_as_written(*e, panels)) {
        std::string const why = "is damaged: the hash of an operand differs: " + what();
        if (options_.stale == stale_file::refuse) detail::raise<format_error>("tessera: " + path_ + ": " + why);
        become_stale("the file " + why);
        return nullptr;
    }
    if (options_.access == file_access::map) return panels.data();
    std::byte* const copy = allocate(key.bytes);
    std::memcpy(copy, panels.data(), panels.size());
    file_.forget(panels);
    return copy;
}

inline placement placed_cache::find_or_allocate(placed_key&& key) {
    index_t const bytes = key.bytes;
    if (std::byte const* const data = found(key); data != nullptr) {
        items_.push_back({std::move(key), data});
        ++report_.found;
        report_.found_bytes += bytes;
        return {data, nullptr};
    }
    std::byte* const data = allocate(bytes);
    items_.push_back({std::move(key), data});
    ++report_.packed;
    report_.packed_bytes += bytes;
    return {data, data};
}

template <class Sink>
index_t placed_cache::write(Sink const& sink) const {
    detail::placed_header header;
    header.panel_layout = panel_layout_version;
    header.entries = items_.size();
    std::vector<placed_table::entry> entries(items_.size());
    std::uint64_t at = sizeof header + entries.size() * sizeof(placed_table::entry);
    at = (at + placed_table::panel_alignment - 1) / placed_table::panel_alignment * placed_table::panel_alignment;
    std::uint64_t const first = at;
    for (std::size_t i = 0; i < items_.size(); ++i) {
        placed_key const& key = items_[i].key;
        std::span<std::byte const> const panels{items_[i].data, static_cast<std::size_t>(key.bytes)};
        entries[i] = {key.id, content_of(panels), content_of(panels, content_check::sampled), at, panels.size(),
                      static_cast<std::uint64_t>(key.rows), static_cast<std::uint64_t>(key.cols), {}};
        std::memcpy(entries[i].layout, key.layout.data(), std::min(key.layout.size(), sizeof entries[i].layout - 1));
        at += static_cast<std::uint64_t>(round_up(key.bytes, config::cache_line));
    }
    header.file_bytes = at;
    header.table = placed_table::hash_of(header, reinterpret_cast<std::byte const*>(entries.data()));
    static constexpr std::byte zeros[placed_table::panel_alignment]{};
    sink(&header, sizeof header);
    sink(entries.data(), entries.size() * sizeof entries[0]);
    sink(zeros, first - sizeof header - entries.size() * sizeof entries[0]);
    for (item const& i : items_) {
        sink(i.data, static_cast<std::size_t>(i.key.bytes));
        sink(zeros, static_cast<std::size_t>(round_up(i.key.bytes, config::cache_line) - i.key.bytes));
    }
    return static_cast<index_t>(at);
}

inline index_t placed_cache::save() {
    if (report_.state == placed_cache_state::good || items_.size() == saved_) return 0;
    detail::file_to_be out{path_};
    index_t const bytes = write([&](void const* data, std::size_t n) { out.add(data, n); });
    out.finish();
    saved_ = items_.size();
    return bytes;
}

} // namespace tessera::inline TESSERA_ABI
