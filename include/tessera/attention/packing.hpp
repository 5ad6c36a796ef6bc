// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Packing of sequences of unequal lengths into rows of equal length, for attention under the mask `segments`: shortest-pack-first
/// histogram packing (Krell et al. 2021, arXiv:2107.02027). Lengths from the longest to the shortest; all sequences of a length
/// go together into the packs with the most free space that still holds them, of those into the one opened last, as many
/// as there are packs of that kind; what is left opens new ones. A pack that is full, or has `most` sequences, is closed.
///
///     auto const packs = ts::pack_sequences(lengths, 512, 12);      // packs[p]: numbers of the sequences in it
///
/// Positions of each sequence begin at 0 again (rope with positions of its own), and losses are averaged over sequences,
/// not over packs. Time is quadratic in the row's length and does not depend on the number of sequences until they are dealt out.

#include "../core/error.hpp"

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// `count` packs that hold sequences of these lengths each.
struct sequence_packs {
    std::vector<index_t> lengths;
    index_t count;
};

/// Packs for counts[l - 1] sequences of length l, rows as long as there are counts; `most` sequences in one.
inline std::vector<sequence_packs> pack_histogram(std::span<index_t const> counts, index_t most) {
    check::at_least("pack_histogram", "sequences of a pack", most, 1);
    auto const length = static_cast<index_t>(counts.size());
    std::vector<std::vector<sequence_packs>> open(counts.size() + 1); // by free space
    std::vector<sequence_packs> closed;
    auto const place = [&](sequence_packs pack, index_t free) {
        bool const is_full = free == 0 || static_cast<index_t>(pack.lengths.size()) == most;
        (is_full ? closed : open[static_cast<std::size_t>(free)]).push_back(std::move(pack));
    };
    for (index_t l = length; l > 0; --l) {
        index_t left = counts[static_cast<std::size_t>(l - 1)];
        check::at_least("pack_histogram", "a count", left, 0);
        for (index_t free = length; left > 0 && free >= l;) {
            auto& kind = open[static_cast<std::size_t>(free)];
            if (kind.empty()) {
                --free;
                continue;
            }
            sequence_packs pack = std::move(kind.back());
            kind.pop_back();
            if (pack.count > left) {
                kind.push_back({pack.lengths, pack.count - left});
                pack.count = left;
            }
            left -= pack.count;
            pack.lengths.push_back(l);
            place(std::move(pack), free - l);
        }
        if (left > 0) place({{l}, left}, length - l);
    }
    for (auto& kind : open)
        for (auto& pack : kind) closed.push_back(std::move(pack));
    return closed;
}

/// The numbers of the sequences in each pack: every sequence once, those of a pack together at most `length` long.
inline std::vector<std::vector<index_t>> pack_sequences(std::span<index_t const> lengths, index_t length, index_t most) {
    check::at_least("pack_sequences", "length of a pack", length, 1);
    std::vector<std::vector<index_t>> waiting(static_cast<std::size_t>(length) + 1);
    std::vector<index_t> counts(static_cast<std::size_t>(length));
    for (std::size_t i = lengths.size(); i-- > 0;) {
        check::within("pack_sequences", "length of a sequence", lengths[i], 1, length);
        waiting[static_cast<std::size_t>(lengths[i])].push_back(static_cast<index_t>(i));
        ++counts[static_cast<std::size_t>(lengths[i] - 1)];
    }
    std::vector<std::vector<index_t>> packs;
    for (sequence_packs const& kind : pack_histogram(counts, most))
        for (index_t n = 0; n < kind.count; ++n) {
            auto& pack = packs.emplace_back();
            for (index_t const l : kind.lengths) {
                pack.push_back(waiting[static_cast<std::size_t>(l)].back());
                waiting[static_cast<std::size_t>(l)].pop_back();
            }
        }
    return packs;
}

} // namespace tessera::inline TESSERA_ABI
