// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Packing of sequences of unequal lengths into rows of equal length, for attention under the mask `segments` (Krell et al. 2021,
/// arXiv:2107.02027), by the histogram of their lengths:
///
/// `shortest_first`   Lengths from the longest to the shortest; all sequences of a length go together into the packs with the most
///                    free space that still holds them, of those into the one opened last, as many as there are packs of that
///                    kind; what is left opens new ones. A pack that is full, or has `most` sequences, is closed (SPFHP).
/// `least_squares`    All ways to fill a row with up to `most`, at most 3, sequences; how often each is used is a least-squares
///                    problem without negative numbers, in which lengths up to 8 weigh 0.09: too many of those pad (NNLSHP).
///                    Counts are rounded to the nearest, as in the published program; sequences that are not there leave their places
///                    empty, and those that have none are packed shortest_first (the published program gives each a row: Wikipedia's
///                    lengths up to 512 fill rows to 99.75 % then, 99.79 % here). For many sequences: of few, rounding is seen.
///
///     auto const packs = ts::pack_sequences(lengths, 512, 12);      // packs[p]: numbers of the sequences in it
///     auto const fuller = ts::pack_sequences(lengths, 512, 3, ts::packing::least_squares);
///
/// Positions of each sequence begin at 0 again (rope with positions of its own), and losses are averaged over sequences,
/// not over packs. Time does not depend on the number of sequences until they are dealt out: shortest_first takes that of the row's
/// length squared; least_squares has that squared over 12 unknowns, of which as many as the row is long are not 0.

#include "../core/error.hpp"
#include "non_negative_least_squares.hpp"

#include <algorithm>
#include <cmath>

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

/// How `pack_histogram` and `pack_sequences` pack; see the file comment.
enum class packing { shortest_first, least_squares };

namespace detail {

inline std::vector<sequence_packs> pack_shortest_first(std::span<index_t const> counts, index_t most) {
    auto const length = static_cast<index_t>(counts.size());
    std::vector<std::vector<sequence_packs>> open(counts.size() + 1); // by free space
    std::vector<sequence_packs> closed;
    auto const place = [&](sequence_packs pack, index_t free) {
        bool const is_full = free == 0 || static_cast<index_t>(pack.lengths.size()) == most;
        (is_full ? closed : open[static_cast<std::size_t>(free)]).push_back(std::move(pack));
    };
    for (index_t l = length; l > 0; --l) {
        index_t left = counts[static_cast<std::size_t>(l - 1)];
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

/// Every way to fill a row with up to `most` of 3 sequences: lengths in ascending order.
inline std::vector<std::vector<index_t>> full_packs(index_t length, index_t most) {
    std::vector<std::vector<index_t>> packs;
    if (length > 0) packs.push_back({length});
    for (index_t a = 1; most > 1 && a <= length / 2; ++a) packs.push_back({a, length - a});
    for (index_t a = 1; most > 2 && a <= length / 3; ++a)
        for (index_t b = a; a + 2 * b <= length; ++b) packs.push_back({a, b, length - a - b});
    return packs;
}

/// Takes up to `count` packs of these lengths out of `left`, first those that are whole, then without what is not there.
inline void take_packs(std::vector<index_t> lengths, index_t count, std::span<index_t> left, std::vector<sequence_packs>& packs) {
    while (count > 0 && !lengths.empty()) {
        index_t whole = count;
        for (index_t const l : lengths)
            whole = minimum(whole, left[static_cast<std::size_t>(l - 1)] / std::count(lengths.begin(), lengths.end(), l));
        if (whole > 0) packs.push_back({lengths, whole});
        for (index_t const l : lengths) left[static_cast<std::size_t>(l - 1)] -= whole;
        count -= whole;
        for (auto l = lengths.begin(); l != lengths.end();)
            l = left[static_cast<std::size_t>(*l - 1)] < std::count(lengths.begin(), lengths.end(), *l) ? lengths.erase(l) : l + 1;
    }
}

/// How often each of `ways` is used, the least weighted squares of the histogram's error; no whole numbers.
inline std::vector<double> least_squares_counts(std::span<index_t const> counts, std::vector<std::vector<index_t>> const& ways) {
    auto const weight = [](index_t l) noexcept { return l <= 8 ? 0.09 : 1.0; };
    std::vector<sparse_column> columns(ways.size());
    for (std::size_t i = 0; i < ways.size(); ++i)
        for (auto l = ways[i].begin(); l != ways[i].end();) {
            auto const end = std::upper_bound(l, ways[i].end(), *l);
            columns[i].add(*l - 1, weight(*l) * static_cast<double>(end - l));
            l = end;
        }
    std::vector<double> right;
    for (std::size_t i = 0; i < counts.size(); ++i)
        right.push_back(weight(static_cast<index_t>(i) + 1) * static_cast<double>(counts[i]));
    return non_negative_least_squares{columns, right}.solve();
}

inline std::vector<sequence_packs> pack_least_squares(std::span<index_t const> counts, index_t most) {
    auto const ways = full_packs(static_cast<index_t>(counts.size()), most);
    std::vector<double> const often = least_squares_counts(counts, ways);
    std::vector<index_t> left(counts.begin(), counts.end());
    std::vector<sequence_packs> packs;
    for (std::size_t i = 0; i < ways.size(); ++i)
        take_packs(ways[i], static_cast<index_t>(std::nearbyint(often[i])), left, packs);
    for (sequence_packs& p : pack_shortest_first(left, most)) packs.push_back(std::move(p));
    return packs;
}

} // namespace detail

/// Packs for counts[l - 1] sequences of length l, rows as long as there are counts; `most` sequences in one.
inline std::vector<sequence_packs> pack_histogram(std::span<index_t const> counts, index_t most, packing method = packing::shortest_first) {
    check::at_least("pack_histogram", "sequences of a pack", most, 1);
    for (index_t const n : counts) check::at_least("pack_histogram", "a count", n, 0);
    if (method == packing::shortest_first) return detail::pack_shortest_first(counts, most);
    check::within("pack_histogram", "sequences of a pack", most, 1, 3);
    return detail::pack_least_squares(counts, most);
}

/// The numbers of the sequences in each pack: every sequence once, those of a pack together at most `length` long.
inline std::vector<std::vector<index_t>> pack_sequences(std::span<index_t const> lengths, index_t length, index_t most,
                                                        packing method = packing::shortest_first) {
    check::within("pack_sequences", "length of a pack", length, 1, index_t{1} << 30);
    std::vector<std::vector<index_t>> waiting(static_cast<std::size_t>(length) + 1);
    std::vector<index_t> counts(static_cast<std::size_t>(length));
    for (std::size_t i = lengths.size(); i-- > 0;) {
        check::within("pack_sequences", "length of a sequence", lengths[i], 1, length);
        waiting[static_cast<std::size_t>(lengths[i])].push_back(static_cast<index_t>(i));
        ++counts[static_cast<std::size_t>(lengths[i] - 1)];
    }
    std::vector<std::vector<index_t>> packs;
    for (sequence_packs const& kind : pack_histogram(counts, most, method))
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
