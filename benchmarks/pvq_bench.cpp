// SPDX-License-Identifier: MIT
//
// Pyramid vector codes: how fast indices become weights, and products with placed codes.
//
//     pvq/decode/<way>/n:N/k:K        weights_per_cycle, index_bits a weight, table_kib; from and to the second-level cache
//     pvq/encode/<encoder>/n:N/k:K    the same for vectors that become points, without their indices
//     pvq/apply/<format>/<x>/m:M/n:4096/k:4096/from:dram/threads:T        as apply_bench.cpp
//
// Ways: `enumeration` is the library's, a coordinate after the other; `lookup` a table of all vectors; `gather` the same in
// registers, 4 bits a coordinate, 16 vectors at a time; `split` another order, the pulses of the left half, then both halves, down
// to tables of 4 coordinates. Each is compared with the enumeration, or with its own inverse, before it is timed.
//
// Memory brings about 20 weights of 2 bits a cycle of a core: so fast would an index have to become weights.

#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/quant/pvq.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

/// Seconds of a cycle, by a chain of products that take 3 (additions of constants take none where registers are renamed).
double seconds_a_cycle() {
    std::uint64_t x = 3;
    double const start = bench::now();
    for (int i = 0; i < 500000; ++i)
        for (int j = 0; j < 8; ++j) {
            x *= x;
            benchmark::DoNotOptimize(x);
        }
    return (bench::now() - start) / 12e6;
}

constexpr index_t vectors = 4096;

/// A tensor of random vectors, one row.
template <class Format>
ts::pvq_tensor<Format, ts::gain_as<float>> random_codes() {
    auto w = bench::random_matrix(1, vectors * Format::group, 3);
    ts::philox const random{4};
    for (index_t i = 0; i < w.size(); ++i) w.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    return ts::quantize_pvq<Format, ts::gain_as<float>>(w);
}

/// Rate of `run`, which makes all vectors: median time, least time of a cycle.
template <class Format, class Run>
void time_vectors(benchmark::State& state, double table_bytes, Run const& run) {
    for (auto _ : state) {
        std::vector<double> times;
        double cycle = 1;
        bench::pin_threads(1);
        for (int round = bench::rounds(); round > 0; --round) {
            cycle = std::min(cycle, seconds_a_cycle());
            double const start = bench::now();
            for (int i = 0; i < 4; ++i) run();
            times.push_back((bench::now() - start) / 4);
        }
        state.SetIterationTime(bench::median(times));
        state.counters["weights_per_cycle"] = double(vectors * Format::group) / (bench::median(times) / cycle);
        state.counters["ghz"] = 1e-9 / cycle;
    }
    state.counters["index_bits"] = double(Format::word_bits) / double(Format::group * Format::together);
    state.counters["table_kib"] = table_bytes / 1024;
}

template <class Format>
void enumeration(benchmark::State& state) {
    auto const codes = random_codes<Format>();
    auto const w = codes.view();
    std::vector<std::int8_t> out(std::size_t(vectors * Format::group));
    std::vector<float> scales(vectors);
    time_vectors<Format>(state, double(Format::group * (Format::pulses + 1) * index_t(sizeof(typename Format::index_type))), [&] {
        for (index_t g = 0; g < vectors; ++g) scales[std::size_t(g)] = w.group(0, g, out.data() + g * Format::group);
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    });
}

/// Every vector of a small pyramid of 8 coordinates, as 8 bytes or as 8 times 4 bits.
template <class Format, class Entry>
std::vector<Entry> all_vectors() {
    std::vector<Entry> table(Format::count.word(0));
    for (std::size_t i = 0; i < table.size(); ++i) {
        std::int8_t p[8];
        Format::vector(i, p);
        Entry entry = 0;
        for (int c = 0; c < 8; ++c) entry |= Entry(std::uint8_t(p[c]) & (sizeof(Entry) == 8 ? 255u : 15u)) << (static_cast<int>(sizeof(Entry)) * c);
        table[i] = entry;
    }
    return table;
}

template <class Format>
void lookup(benchmark::State& state) {
    auto const codes = random_codes<Format>();
    auto const w = codes.view();
    auto const table = all_vectors<Format, std::uint64_t>();
    std::vector<std::uint64_t> out(vectors + 8);
    std::vector<std::uint8_t> stream(w.words(), w.words() + w.row_bytes(w.cols()));
    stream.resize(stream.size() + 8);
    auto const run = [&] {
        for (index_t g = 0; g < vectors; ++g) {
            std::uint64_t word;
            std::memcpy(&word, stream.data() + g * Format::index_bits / 8, 8);
            out[std::size_t(g)] = table[word >> g * Format::index_bits % 8 & ((1u << Format::index_bits) - 1u)];
        }
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    };
    run();
    for (index_t g = 0; g < vectors; ++g) {
        std::int8_t p[8];
        w.group(0, g, p);
        if (std::memcmp(p, &out[std::size_t(g)], 8) != 0) return state.SkipWithError("differs from the enumeration");
    }
    time_vectors<Format>(state, double(table.size() * 8), run);
}

template <class Format>
void gather(benchmark::State& state) {
    auto const codes = random_codes<Format>();
    auto const table = all_vectors<Format, std::uint32_t>();
    std::vector<std::uint32_t> index(vectors), out(vectors);
    for (index_t g = 0; g < vectors; ++g) index[std::size_t(g)] = std::uint32_t(codes.view().index(0, g).word(0));
    time_vectors<Format>(state, double(table.size() * 4), [&] { // the indices are unpacked already
        std::uint32_t const* const from = table.data();
        std::uint32_t const* const at = index.data();
        std::uint32_t* const to = out.data();
        for (index_t g = 0; g < vectors; ++g) to[g] = from[at[g]];
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    });
}

/// Indices whose most significant part says how many pulses the left half has; halves of 4 coordinates are tables.
template <index_t K>
class split_order {
public:
    split_order() {
        for (index_t n = 0; n <= 16; ++n)
            for (index_t k = 0; k <= K; ++k) count_[n][k] = ts::pvq_count<1>(n, k).word(0);
        for (index_t k = 0; k <= K; ++k) {
            leaf_[k] = table_.size();
            std::int8_t p[4];
            for (int a = -int(k); a <= int(k); ++a)
                for (int b = -int(k); b <= int(k); ++b)
                    for (int c = -int(k); c <= int(k); ++c) {
                        int const rest = int(k) - std::abs(a) - std::abs(b) - std::abs(c);
                        if (rest < 0) continue;
                        p[0] = std::int8_t(a), p[1] = std::int8_t(b), p[2] = std::int8_t(c), p[3] = std::int8_t(rest);
                        add(p);
                        p[3] = std::int8_t(-rest);
                        if (rest > 0) add(p);
                    }
            if (table_.size() - leaf_[k] != count_[4][k]) wrong_ = true;
        }
        for (index_t n : {8, 16})
            for (index_t k = 0; k <= K; ++k) {
                std::uint64_t sum = 0;
                for (index_t j = 0; j <= k; ++j) {
                    before_[n][k][j] = sum;
                    sum += count_[n / 2][j] * count_[n / 2][k - j];
                }
                before_[n][k][k + 1] = sum;
                if (sum != count_[n][k]) wrong_ = true;
            }
    }
    bool is_wrong() const { return wrong_; }
    double bytes() const { return double(table_.size() * 4); }

    std::uint64_t index(std::int8_t const* p, index_t n) const {
        if (n == 4) {
            std::uint32_t bits;
            std::memcpy(&bits, p, 4);
            return std::uint64_t(std::find(table_.begin() + index_t(leaf_[pulses(p, 4)]), table_.end(), bits) - table_.begin()) -
                   leaf_[pulses(p, 4)];
        }
        index_t const left = pulses(p, n / 2), right = pulses(p + n / 2, n / 2);
        return before_[n][left + right][left] + index(p, n / 2) * count_[n / 2][right] + index(p + n / 2, n / 2);
    }
    template <index_t N>
    void vector(std::uint64_t i, index_t k, std::int8_t* p) const {
        if constexpr (N == 4) {
            std::memcpy(p, &table_[leaf_[k] + i], 4);
        } else {
            std::uint64_t const* const before = before_[N][k];
            index_t j = 0;
            for (index_t c = 1; c <= k; ++c) j += i >= before[c]; // no branch
            i -= before[j];
            std::uint64_t const right = count_[N / 2][k - j];
            vector<N / 2>(i / right, j, p);
            vector<N / 2>(i % right, k - j, p + N / 2);
        }
    }

private:
    static index_t pulses(std::int8_t const* p, index_t n) {
        index_t sum = 0;
        for (index_t i = 0; i < n; ++i) sum += std::abs(p[i]);
        return sum;
    }
    void add(std::int8_t const* p) {
        std::uint32_t bits;
        std::memcpy(&bits, p, 4);
        table_.push_back(bits);
    }

    std::uint64_t count_[17][K + 1];
    std::uint64_t before_[17][K + 1][K + 2];
    std::uint64_t leaf_[K + 1];
    std::vector<std::uint32_t> table_;
    bool wrong_ = false;
};

template <class Format>
void split(benchmark::State& state) {
    constexpr index_t N = Format::group, K = Format::pulses;
    split_order<K> const order;
    if (order.is_wrong()) return state.SkipWithError("sizes do not add up");
    auto const codes = random_codes<Format>();
    std::vector<std::uint64_t> index(vectors);
    std::vector<std::int8_t> out(std::size_t(vectors * N)), expected(out.size());
    for (index_t g = 0; g < vectors; ++g) {
        codes.view().group(0, g, expected.data() + g * N);
        index[std::size_t(g)] = order.index(expected.data() + g * N, N);
    }
    auto const run = [&] {
        for (index_t g = 0; g < vectors; ++g) order.template vector<N>(index[std::size_t(g)], K, out.data() + g * N);
        benchmark::DoNotOptimize(out.data());
        benchmark::ClobberMemory();
    };
    run();
    if (out != expected) return state.SkipWithError("differs from its inverse");
    time_vectors<Format>(state, order.bytes(), run);
}

template <class Format, ts::pvq_encoder Encoder>
void encoding(benchmark::State& state) {
    std::vector<float> x(std::size_t(vectors * Format::group));
    std::vector<std::int8_t> out(x.size());
    ts::philox const random{5};
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = random.normal(i);
    double gain = 0;
    time_vectors<Format>(state, 0, [&] {
        for (index_t g = 0; g < vectors; ++g)
            gain += ts::pvq_encode<Format>(x.data() + g * Format::group, Format::group, out.data() + g * Format::group, Encoder);
        benchmark::DoNotOptimize(gain);
        benchmark::ClobberMemory();
    });
}

struct case_parameters {
    index_t m;
    int threads;
    bool placed;
};

template <class Op>
void product(benchmark::State& state, case_parameters const& c, Op const& operand, double canonical) {
    auto const exec = bench::policy(c.threads);
    auto const x = bench::random_matrix(c.m, operand.cols(), 2);
    index_t const checked = std::min<index_t>(c.m, 4);
    ts::matrix<float> y{c.m, operand.rows()}, expected{checked, 64};
    bench::work const work{.bytes = canonical, .int_operations = 2.0 * double(c.m * operand.rows() * operand.cols())};
    auto const check = [&](auto const& w) {
        ts::apply(exec, w, x, y);
        ts::apply(ts::reference{}, ts::rows(operand, 0, 64), ts::rows(x.view(), 0, checked), expected.view());
        double largest = 0, difference = 0;
        for (index_t m = 0; m < checked; ++m)
            for (index_t n = 0; n < 64; ++n) {
                largest = std::max(largest, std::fabs(double(expected(m, n))));
                difference = std::max(difference, std::fabs(double(y(m, n)) - double(expected(m, n))));
            }
        return difference <= 1e-4 * largest;
    };
    if (!c.placed) { // bound by decoding: one copy is as good as many
        if (!check(operand)) return state.SkipWithError("differs from the reference");
        for (auto _ : state) bench::measure(state, work, c.threads, [&](std::size_t) { ts::apply(exec, operand, x, y); });
        return;
    }
    double const start = bench::now();
    auto const first = ts::place(exec, operand);
    state.counters["place_ms"] = (bench::now() - start) * 1e3;
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = bench::copies_for_rows(double(first.bytes()), c.m); i > 0; --i) copies.push_back(ts::place(exec, first.view()));
    if (!check(copies.front())) return state.SkipWithError("differs from the reference");
    for (auto _ : state)
        bench::measure(state, work, c.threads, [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); });
    state.counters["placed_bits"] = 8.0 * double(first.bytes()) / double(operand.rows() * operand.cols());
    state.counters["bits"] = 8.0 * canonical / double(operand.rows() * operand.cols());
}

/// 4096 x 4096 weights: 64 different rows.
template <class Format>
ts::pvq_tensor<Format, ts::gain_code<4>> weights() {
    constexpr index_t rows = 64, n = 4096, k = 4096;
    auto dense = bench::random_matrix(rows, k, 7);
    ts::philox const random{8};
    for (index_t i = 0; i < dense.size(); ++i) dense.data()[i] = random.normal(std::uint64_t(i));
    auto part = ts::quantize_pvq<Format, ts::gain_code<4>>(dense);
    ts::pvq_tensor<Format, ts::gain_code<4>> w{n, k};
    auto const repeat = [&](auto* to, auto const* from, index_t row) {
        for (index_t r = 0; r < n; ++r) std::copy(from + r % rows * row, from + (r % rows + 1) * row, to + r * row);
    };
    auto& to = w.gain_arrays();
    auto& from = part.gain_arrays();
    repeat(w.words(), part.words(), part.view().row_bytes(k));
    repeat(to.codes(), from.codes(), ts::bitpack::bytes(part.view().groups(), 4));
    repeat(to.norms(), from.norms(), 1);
    std::copy(from.levels(), from.levels() + 16, to.levels());
    return w;
}

template <class Format>
void add_product(char const* preparation, auto prepared, case_parameters const& c) {
    std::string const name = std::string{"pvq/apply/"} + Format::name + (c.placed ? "/" : "/canonical/") + preparation + "/m:" +
                             std::to_string(c.m) + "/n:4096/k:4096/from:dram/threads:" + std::to_string(c.threads);
    benchmark::RegisterBenchmark(name.c_str(), [c, prepared](benchmark::State& state) {
        static auto const w = weights<Format>();
        product(state, c, ts::linear{w, prepared}, double(w.bytes()));
    })->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
}

void add_vectors(char const* way, index_t n, index_t k, void (*run)(benchmark::State&)) {
    std::string const name = std::string{"pvq/"} + way + "/n:" + std::to_string(n) + "/k:" + std::to_string(k);
    benchmark::RegisterBenchmark(name.c_str(), run)->Iterations(1)->UseManualTime()->Unit(benchmark::kMicrosecond);
}

int const registered = [] {
    add_vectors("decode/enumeration", 8, 4, enumeration<ts::pvq<8, 4>>);
    add_vectors("decode/enumeration", 8, 8, enumeration<ts::pvq<8, 8>>);
    add_vectors("decode/enumeration", 16, 15, enumeration<ts::pvq<16, 15>>);
    add_vectors("decode/enumeration", 32, 22, enumeration<ts::pvq<32, 22>>);
    add_vectors("decode/enumeration", 32, 50, enumeration<ts::pvq<32, 50>>);
    add_vectors("decode/enumeration", 128, 187, enumeration<ts::pvq<128, 187>>);
    add_vectors("decode/lookup", 8, 4, lookup<ts::pvq<8, 4>>);
    add_vectors("decode/lookup", 8, 6, lookup<ts::pvq<8, 6>>);
    add_vectors("decode/lookup", 8, 8, lookup<ts::pvq<8, 8>>);
    add_vectors("decode/gather", 8, 4, gather<ts::pvq<8, 4>>);
    add_vectors("decode/gather", 8, 6, gather<ts::pvq<8, 6>>);
    add_vectors("decode/gather", 8, 8, gather<ts::pvq<8, 8>>);
    add_vectors("decode/split", 8, 8, split<ts::pvq<8, 8>>);
    add_vectors("decode/split", 16, 15, split<ts::pvq<16, 15>>);
    add_vectors("encode/greedy", 32, 22, encoding<ts::pvq<32, 22>, ts::pvq_encoder::greedy>);
    add_vectors("encode/greedy", 32, 50, encoding<ts::pvq<32, 50>, ts::pvq_encoder::greedy>);
    add_vectors("encode/search_free", 32, 22, encoding<ts::pvq<32, 22>, ts::pvq_encoder::search_free>);
    add_vectors("encode/search_free", 32, 96, encoding<ts::pvq<32, 96>, ts::pvq_encoder::search_free>);
    for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
        add_product<ts::pvq<32, 22, 3>>("int8_per_token", ts::int8_per_token{}, {1, threads, true});
        add_product<ts::pvq<32, 50, 7>>("int8_per_token", ts::int8_per_token{}, {1, threads, true});
    }
    add_product<ts::pvq<16, 24>>("int8_per_token", ts::int8_per_token{}, {1, 1, true});
    add_product<ts::pvq<32, 50, 7>>("int8_per_token", ts::int8_per_token{}, {512, 1, true});
    add_product<ts::pvq<32, 50, 7>>("int8_per_token", ts::int8_per_token{}, {1, 1, false});
    return 0;
}();

} // namespace
