// SPDX-License-Identifier: MIT
// Sequence packing and the I/O bound: golden numbers of the papers, laws, and what the kernel moves.

#include <tessera/attention/attention.hpp>
#include <tessera/attention/io_bound.hpp>
#include <tessera/attention/mask.hpp>
#include <tessera/attention/packing.hpp>
#include <tessera/storage/tensor.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <numeric>
#include <utility>
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

namespace {

/// Packs, and tokens in them, of a histogram; every sequence is in one pack, and no pack is too long.
struct packed {
    index_t packs = 0, tokens = 0;
};
packed pack(std::vector<index_t> const& counts, index_t most, ts::packing method) {
    packed result;
    std::vector<index_t> left = counts;
    for (auto const& p : ts::pack_histogram(counts, most, method)) {
        CHECK((!p.lengths.empty() && static_cast<index_t>(p.lengths.size()) <= most && p.count > 0));
        index_t used = 0;
        for (index_t const l : p.lengths) {
            left[static_cast<std::size_t>(l - 1)] -= p.count;
            used += l;
        }
        CHECK(used <= static_cast<index_t>(counts.size()));
        result.packs += p.count;
        result.tokens += used * p.count;
    }
    CHECK(std::all_of(left.begin(), left.end(), [](index_t n) { return n == 0; }));
    return result;
}

} // namespace

TEST_CASE("packing: what was published of Wikipedia's histogram") { // tests/data/packing
    std::ifstream file{TESSERA_TEST_DATA "/packing/wikipedia.txt"};
    std::vector<index_t> const counts{std::istream_iterator<index_t>{file}, {}};
    REQUIRE(counts.size() == 512);
    double const sequences = static_cast<double>(std::accumulate(counts.begin(), counts.end(), index_t{0}));
    CHECK(sequences == 16279552);
    packed const spfhp = pack(counts, 12, ts::packing::shortest_first);
    CHECK(std::fabs(static_cast<double>(spfhp.tokens) / (512 * static_cast<double>(spfhp.packs)) - .996040) <= 5e-7);
    CHECK(std::fabs(sequences / static_cast<double>(spfhp.packs) - 1.99340) <= 5e-6);
    // The published program of NNLSHP gives every sequence that is left a row of its own; ours are never more.
    auto const ways = ts::detail::full_packs(512, 3);
    auto const often = ts::detail::least_squares_counts(counts, ways);
    std::vector<double> left(counts.begin(), counts.end());
    double rows = 0;
    for (std::size_t i = 0; i < ways.size(); ++i) {
        double const n = std::nearbyint(often[i]);
        rows += n;
        for (index_t const l : ways[i]) left[static_cast<std::size_t>(l - 1)] -= n;
    }
    for (double const n : left) rows += std::max(n, 0.0);
    packed const nnlshp = pack(counts, 3, ts::packing::least_squares);
    CHECK(std::fabs(static_cast<double>(nnlshp.tokens) / (512 * rows) - .9975) <= 5e-5);
    CHECK(std::fabs(sequences / rows - 1.99625) <= 5e-6);
    CHECK(static_cast<double>(nnlshp.packs) <= rows);
    MESSAGE("NNLSHP: ", sequences / rows, " as published, ", sequences / static_cast<double>(nnlshp.packs), " here");
}

TEST_CASE("packing: least squares") {
    using enum ts::packing;
    std::vector<index_t> const counts{4, 3, 2, 2, 1, 1, 0, 1};
    CHECK(pack(counts, 1, least_squares).packs == 14);
    for (index_t const most : {2, 3}) pack(counts, most, least_squares);
    std::vector<index_t> exact(100); // what fills rows exactly is found: 7 of (20, 30, 50), 5 of (10, 90), 3 of (100), 2 of (25, 25, 50)
    for (auto const& [length, n] : {std::pair{20, 7}, {30, 7}, {50, 9}, {10, 5}, {90, 5}, {100, 3}, {25, 4}}) exact[static_cast<std::size_t>(length - 1)] = n;
    CHECK(pack(exact, 3, least_squares).packs == 17);
    for (std::vector<index_t> const& one : {std::vector<index_t>{}, {5}, {0, 0, 0}, {0, 1}, {3, 0, 1, 0, 0}})
        for (index_t const most : {1, 2, 3}) pack(one, most, least_squares);
    CHECK_THROWS_WITH_AS(ts::pack_histogram(counts, 4, least_squares),
                         "tessera: pack_histogram: sequences of a pack is 4, expected 1 to 3", ts::shape_error);
    index_t const lengths[] = {3, 5, 8, 4, 4, 1};
    auto const packs = ts::pack_sequences(lengths, 8, 3, least_squares);
    CHECK(packs.size() == 4);
    std::vector<index_t> all;
    for (auto const& p : packs) all.insert(all.end(), p.begin(), p.end());
    std::sort(all.begin(), all.end());
    CHECK(all == std::vector<index_t>{0, 1, 2, 3, 4, 5});
}

TEST_CASE("non_negative_least_squares: by its conditions") {
    // At x the gradient is 0 where x is positive, and points outwards where x is 0: those and no others are the least of a convex problem.
    unsigned state = 7;
    auto const next = [&] { return static_cast<double>((state = state * 1664525u + 1013904223u) >> 28); };
    for (int trial = 0; trial < 200; ++trial) {
        std::vector<ts::detail::sparse_column> columns(6);
        for (auto& c : columns)
            for (index_t row = trial % 3; row < 5 && c.count < 3; row += 1 + static_cast<index_t>(next()) % 3) c.add(row, 1 + next());
        std::vector<double> b(5);
        for (double& y : b) y = next() - (trial % 2 == 0 ? 0 : 5);
        std::vector<double> const x = ts::detail::non_negative_least_squares{columns, b}.solve();
        std::vector<double> rest = b;
        double size = 0;
        for (std::size_t j = 0; j < 6; ++j) {
            CHECK(x[j] >= 0);
            for (int e = 0; e < columns[j].count; ++e) rest[static_cast<std::size_t>(columns[j].entries[e].row)] -= columns[j].entries[e].value * x[j];
            size = std::max(size, std::fabs(columns[j].dot(b)));
        }
        for (std::size_t j = 0; j < 6; ++j) { // what the header says: 1e-10 of the largest gradient
            double const slope = columns[j].dot(rest);
            CHECK(slope <= 2e-10 * size);
            if (x[j] > 0) CHECK(std::fabs(slope) <= 2e-10 * size);
        }
    }
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

TEST_CASE("packing: attention of a pack is that of its sequences") {
    index_t const lengths[] = {5, 9, 2, 7, 1};
    std::vector<ts::tensor<float, 3>> alone;
    auto const random = [](ts::tensor<float, 3>& x, unsigned state) {
        for (index_t i = 0; i < x.size(); ++i) x.data()[i] = static_cast<float>((state = state * 1664525u + 1013904223u) >> 8) * 0x1p-23f - 1;
    };
    for (index_t const l : lengths) {
        ts::tensor<float, 3> x(l, 2, 8), out(l, 2, 8);
        random(x, static_cast<unsigned>(l));
        ts::attention(ts::reference{}, x, x, x, out, ts::causal);
        alone.push_back(std::move(out));
    }
    for (ts::packing const method : {ts::packing::shortest_first, ts::packing::least_squares})
        for (auto const& pack : ts::pack_sequences(lengths, 12, 3, method)) {
            std::vector<std::int32_t> offsets{0};
            for (index_t const i : pack) offsets.push_back(offsets.back() + static_cast<std::int32_t>(lengths[i]));
            ts::tensor<float, 3> x(12, 2, 8), out(12, 2, 8); // the rest is padding
            for (std::size_t i = 0; i < pack.size(); ++i) {
                ts::tensor<float, 3> part(lengths[pack[i]], 2, 8);
                random(part, static_cast<unsigned>(lengths[pack[i]]));
                std::copy_n(part.data(), part.size(), &x(offsets[i], 0, 0));
            }
            ts::segments const own{ts::vector_view<std::int32_t const>{offsets.data(), static_cast<index_t>(offsets.size())}};
            ts::attention(ts::reference{}, x, x, x, out, ts::causal | own);
            for (std::size_t i = 0; i < pack.size(); ++i) {
                auto const& expected = alone[static_cast<std::size_t>(pack[i])];
                CHECK(std::equal(expected.data(), expected.data() + expected.size(), &out(offsets[i], 0, 0)));
            }
        }
}

TEST_CASE("attention_io_bound: both regimes, and where they meet") {
    CHECK(ts::attention_io_bound(1024, 64, 8192) == 524288);
    CHECK(ts::attention_io_bound(1024, 64, 1024) == 2097152);
    CHECK(ts::attention_io_bound(1024, 64, 4096) == 1048576);
    for (index_t const cache : {8192, 4096, 1024}) // the same in bytes, of float32
        CHECK(ts::attention_io_bytes_bound(1024, 1024, 64, 4.0, 4.0, 4 * cache) == 4 * ts::attention_io_bound(1024, 64, cache));
    // What blocks as large as the cache allows move is within a constant of the bound: 8, of which 4 are what a block may use.
    for (index_t const d : {64, 128})
        for (index_t const cache : {65536, 262144}) {
            index_t const n = 1 << 20;
            double const ratio = ts::attention_io(n, d, ts::attention_block(d, cache)) / ts::attention_io_bound(n, d, cache);
            CHECK(ratio >= 1);
            CHECK(ratio <= 8.1);
        }
}

namespace {

/// Full or causal attention that writes down which tiles of keys the kernel goes through.
struct counted {
    struct notes {
        index_t head = -1, first_key = -1;
        double key_rows = 0; ///< read, of one KV head at a time
        double pairs = 0;    ///< queries times keys of the tiles that are not skipped
    };
    notes* seen;
    bool is_causal;

    template <class V>
    V operator()(V s, ts::coord<V> at) const noexcept {
        return is_causal ? ts::causal(s, at) : s;
    }
    ts::visibility visibility(ts::score_tile const& t) const noexcept {
        auto const v = is_causal ? ts::causal.visibility(t) : ts::visibility::full;
        if (t.last_key - t.first_key <= 16 || v == ts::visibility::none) return v; // a tile is asked about first, then parts of it
        if (seen->first_key != t.first_key || seen->head != t.head / 2)
            seen->key_rows += static_cast<double>(t.last_key - t.first_key);
        seen->first_key = t.first_key;
        seen->head = t.head / 2;
        seen->pairs += static_cast<double>((t.last_query - t.first_query) * (t.last_key - t.first_key));
        return v;
    }
};

using serial_cpu = ts::cpu<ts::native_arch, ts::serial>;

/// What the kernel reads for 2 query heads of one KV head.
counted::notes count(index_t queries, index_t keys, index_t dim, bool is_causal) {
    counted::notes notes;
    ts::tensor<float, 3> const q(queries, 2, dim), k(keys, 1, dim);
    ts::tensor<float, 3> out(queries, 2, dim);
    ts::attention(serial_cpu{}, q, k, k, out, counted{&notes, is_causal});
    return notes;
}

} // namespace

TEST_CASE("attention_tile_choice: what the caches hold") {
    using choice = ts::attention_tile_choice<>;
    constexpr ts::cache_sizes caches{32768, 1 << 20};
    static_assert(choice::keys(48, caches) == 128 && choice::keys(96, caches) == 64 && choice::keys(1 << 20, caches) == 1);
    static_assert(choice::queries(64, 64, 48, caches) == 384 && choice::queries(256, 256, 48, caches) == 240);
    static_assert(choice::queries(576, 512, 48, caches) == 96 && choice::queries(1 << 20, 64, 48, caches) == 48);
    static_assert(choice::queries(0, 0, 48, caches) == 384 && choice::queries(index_t{1} << 61, index_t{1} << 61, 48) == 48);
    static_assert(ts::attention_tile_choice<ts::fp16, ts::fp16>::queries(512, 512, 48, caches) == 240);
    for (index_t const level_2 : {1 << 16, 1 << 18, 1 << 20, 1 << 24})
        for (index_t const d : {16, 64, 128, 576}) {
            auto const tiles = choice::choose(d, d, 16, {32768, level_2});
            CHECK(tiles.queries % 16 == 0);
            CHECK((tiles.queries == 16 || 8 * d * tiles.queries <= level_2 / 2));
            CHECK(4 * 16 * tiles.keys <= 32768);
        }
}

TEST_CASE("attention moves what the model says, and how far that is from the least") {
    index_t const unit = ts::detail::attention_tile<ts::native_arch>::queries;
    auto const caches = ts::cache_sizes{};
    for (index_t const dim : {64, 576}) {
        index_t const block = ts::attention_tile_choice<>::queries(dim, dim, unit);
        index_t const queries = block + 48; // of two heads: three blocks
        index_t const keys = 300;
        auto const full = count(queries, keys, dim, false);
        double const moved = ts::attention_io_bytes(2 * queries, keys, 8 * dim, 8 * dim, block);
        CHECK(full.key_rows * static_cast<double>(8 * dim) + static_cast<double>(2 * queries * 8 * dim) == moved);
        CHECK(full.pairs >= static_cast<double>(2 * queries * keys));
        // Half of the tiles are never touched; the diagonal adds at most a tile a block.
        auto const causal = count(queries, queries, dim, true);
        double const blocks = static_cast<double>(ts::ceil_div(2 * queries, block));
        CHECK(causal.key_rows <= (blocks + 1) / 2 * static_cast<double>(queries) + 129 * blocks);
    }
    // The certificate: long sequences, of the least that any order of the same products moves.
    struct row {
        index_t dim, element;
        double most;
    };
    for (row const r : {row{64, 4, 22}, {128, 4, 11}, {576, 4, 12}, {128, 2, 11}, {128, 1, 11}}) {
        index_t const n = 1 << 20;
        index_t const block = ts::attention_tile_choice<>::queries(r.dim, r.dim, 48, caches);
        double const ratio = ts::attention_io_bytes(n, n, 8 * r.dim, 2 * r.element * r.dim, block) /
                             ts::attention_io_bytes_bound(n, n, r.dim, 4.0, static_cast<double>(r.element), caches.level_2);
        MESSAGE("head dimension ", r.dim, ", ", r.element, " bytes a number of k and v: blocks of ", block, " queries move ", ratio,
                " times the bound");
        CHECK(ratio >= 1);
        CHECK(ratio <= r.most);
    }
}
