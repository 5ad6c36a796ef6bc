// SPDX-License-Identifier: MIT
// Sequence packing and the I/O bound: golden numbers of the papers, and laws.

#include <tessera/attention/io_bound.hpp>
#include <tessera/attention/packing.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

namespace ts = tessera;
using ts::index_t;

TEST_CASE("packing: a histogram by hand") {
    index_t const counts[] = {4, 3, 2, 2, 1, 1, 0, 1}; // of lengths 1 to 8
    auto const number = [&](index_t most) {
        index_t n = 0;
        for (auto const& p : ts::pack_histogram(counts, most)) n += p.count;
        return n;
    };
    CHECK(number(1) == 14);
    CHECK(number(2) == 9);
    CHECK(number(3) == 6);
    std::vector<std::vector<index_t>> packs;
    for (auto const& p : ts::pack_histogram(counts, 3))
        for (index_t i = 0; i < p.count; ++i) packs.push_back(p.lengths);
    std::sort(packs.begin(), packs.end());
    CHECK(packs == std::vector<std::vector<index_t>>{{2, 1, 1}, {4, 3}, {4, 3, 1}, {5, 2, 1}, {6, 2}, {8}});
    CHECK(ts::pack_histogram({}, 3).empty());
}

TEST_CASE("packing: every sequence once, no pack too long") {
    std::vector<index_t> lengths;
    unsigned state = 1;
    for (int i = 0; i < 3000; ++i) {
        state = state * 1664525u + 1013904223u;
        lengths.push_back(1 + static_cast<index_t>(state >> 24) / 2);
    }
    auto const packs = ts::pack_sequences(lengths, 128, 12);
    std::vector<int> seen(lengths.size());
    index_t tokens = 0;
    for (auto const& pack : packs) {
        index_t used = 0;
        for (index_t const i : pack) {
            ++seen[static_cast<std::size_t>(i)];
            used += lengths[static_cast<std::size_t>(i)];
        }
        CHECK(used <= 128);
        CHECK(pack.size() <= 12);
        tokens += used;
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int n) { return n == 1; }));
    CHECK(tokens >= 99 * 128 * static_cast<index_t>(packs.size()) / 100); // 99 % full
    index_t const bad[] = {129};
    CHECK_THROWS_WITH_AS(ts::pack_sequences(bad, 128, 12), "tessera: pack_sequences: length of a sequence is 129, expected 1 to 128",
                         ts::shape_error);
}

TEST_CASE("attention_io_bound: both regimes, and where they meet") {
    CHECK(ts::attention_io_bound(1024, 64, 8192) == 524288);
    CHECK(ts::attention_io_bound(1024, 64, 1024) == 2097152);
    CHECK(ts::attention_io_bound(1024, 64, 4096) == 1048576);
    // What blocks as large as the cache allows move is within a constant of the bound: 8, of which 4 are what a block may use.
    for (index_t const d : {64, 128})
        for (index_t const cache : {65536, 262144}) {
            index_t const n = 1 << 20;
            double const ratio = ts::attention_io(n, d, ts::attention_block(d, cache)) / ts::attention_io_bound(n, d, cache);
            CHECK(ratio >= 1);
            CHECK(ratio <= 8.1);
        }
}
