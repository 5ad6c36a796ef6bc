// SPDX-License-Identifier: MIT
// attention/{prefill,decode,backward}/<mask>/kv:<format>/d:<head_dim>/tokens:<n>/threads:<t>
//
// Prefill: n causal queries of 8 heads over 2 KV heads, 4 d n (n + 1) / 2 operations a head. Decode: one query of 32 heads
// over 8 KV heads; caches rotate, so that keys and values come from DRAM. Both check themselves against the reference
// before they are timed: causal attention aligns the last query with the last key, so the last tokens alone do.
//
// Backward: all gradients, causal, 10 d n (n + 1) / 2 operations a head. Window and neighborhood: operations of the scores that
// are seen, so that time which grows with the sequence shows as a falling rate.

#include "support/measure.hpp"

#include <tessera/attention/attention.hpp>
#include <tessera/attention/attention_gradient.hpp>
#include <tessera/attention/neighborhood.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/storage/tensor.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <type_traits>
#include <vector>

namespace ts = tessera;

namespace {

#if defined(_OPENMP)
auto policy(int threads) { return ts::cpu{ts::openmp{threads}}; }
#else
auto policy(int) { return ts::cpu{ts::serial{}}; }
#endif

/// About normal: the sum of four uniform numbers, variance 1.
struct random_floats {
    std::uint64_t state;
    float uniform() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<float>(state >> 40) * 0x1p-24f;
    }
    float operator()() { return (uniform() + uniform() + uniform() + uniform() - 2.0f) * 1.7320508f; }
};

ts::tensor<float, 3> random_tensor(ts::index_t a, ts::index_t b, ts::index_t c, std::uint64_t seed) {
    ts::tensor<float, 3> t(a, b, c);
    random_floats next{seed};
    for (ts::index_t i = 0; i < t.size(); ++i) t.data()[i] = next();
    return t;
}

/// The bound of attention.hpp, with the largest |score| and |v|.
double tolerance(ts::index_t keys, ts::index_t dim) {
    double const score = 4.0 * 4.0 * std::sqrt(static_cast<double>(dim));
    double const u = ts::unit_roundoff<float>;
    return (2 * ts::gamma(dim + 2, u) * score + ts::gamma(keys + 20, u)) * 4.0;
}

template <class Cache, class Score = ts::causal_t>
bool agrees(ts::tensor<float, 3> const& q, Cache const& kv, ts::tensor<float, 3> const& out, Score const& score = {}) {
    ts::index_t const n = q.extent(0);
    ts::index_t const last = ts::minimum(n, 2);
    ts::tensor<float, 3> expected(last, out.extent(1), out.extent(2));
    auto const tail = ts::slice(q.view(), ts::range{n - last, n}, ts::all, ts::all);
    ts::attention(ts::reference{}, tail, kv, expected, score);
    double worst = 0;
    for (ts::index_t i = 0; i < expected.size(); ++i)
        worst = std::max(worst, std::fabs(double{out.data()[out.size() - expected.size() + i]} - expected.data()[i]));
    return worst <= tolerance(kv.tokens(), q.extent(2));
}

/// Tokens of the cache are written in pieces, so that no float copy of all of it is needed.
template <class Exec, class Cache>
void fill(Exec const& exec, Cache& kv, ts::index_t tokens, std::uint64_t seed) {
    for (ts::index_t t = 0; t < tokens; t += 1024) {
        ts::index_t const n = ts::minimum(1024, tokens - t);
        auto const k = random_tensor(n, kv.kv_heads(), kv.key_dim(), seed + static_cast<std::uint64_t>(2 * t));
        auto const v = random_tensor(n, kv.kv_heads(), kv.value_dim(), seed + static_cast<std::uint64_t>(2 * t + 1));
        ts::append(exec, kv, k, v);
    }
}

template <class Format>
void prefill(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads) {
    constexpr ts::index_t heads = 8;
    auto const exec = policy(threads);
    ts::kv_cache<ts::key<Format>, ts::value<Format>> kv{tokens, heads / 4, dim};
    fill(exec, kv, tokens, 1);
    auto const q = random_tensor(tokens, heads, dim, 3);
    ts::tensor<float, 3> out(tokens, heads, dim);
    ts::attention(exec, q, kv, out, ts::causal);
    if (!agrees(q, kv, out)) return state.SkipWithError("differs from the reference");
    double const n = static_cast<double>(tokens);
    bench::work const work{.float_operations = heads * 4.0 * static_cast<double>(dim) * n * (n + 1) / 2};
    for (auto _ : state)
        bench::measure(state, work, threads, [&](std::size_t) { ts::attention(exec, q, kv, out, ts::causal); });
}

/// `pairs`: queries and keys that see each other, a head.
template <class Score>
void masked(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads, Score const& score, double pairs) {
    constexpr ts::index_t heads = 8;
    auto const exec = policy(threads);
    ts::kv_cache<ts::key<float>, ts::value<float>> kv{tokens, heads / 4, dim};
    fill(exec, kv, tokens, 1);
    auto const q = random_tensor(tokens, heads, dim, 3);
    ts::tensor<float, 3> out(tokens, heads, dim);
    ts::attention(exec, q, kv, out, score);
    if (!agrees(q, kv, out, score)) return state.SkipWithError("differs from the reference");
    bench::work const work{.float_operations = heads * 4.0 * static_cast<double>(dim) * pairs};
    for (auto _ : state)
        bench::measure(state, work, threads, [&](std::size_t) { ts::attention(exec, q, kv, out, score); });
}

void window(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads) {
    masked(state, dim, tokens, threads, ts::window{512}, 512.0 * (static_cast<double>(tokens) - 255.5));
}

/// 7 x 7 around each pixel of a square image.
void neighborhood(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads) {
    auto const side = static_cast<ts::index_t>(std::lround(std::sqrt(static_cast<double>(tokens))));
    ts::neighborhood_axis const axis{side, 7};
    masked(state, dim, tokens, threads, ts::neighborhood<2>{{axis, axis}}, 49.0 * static_cast<double>(tokens));
}

void backward(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads) {
    constexpr ts::index_t heads = 8;
    auto const exec = policy(threads);
    auto const q = random_tensor(tokens, heads, dim, 3), g = random_tensor(tokens, heads, dim, 4);
    auto const k = random_tensor(tokens, heads / 4, dim, 5), v = random_tensor(tokens, heads / 4, dim, 6);
    ts::kv_view const kv{k.view(), v.view()};
    ts::tensor<float, 3> out(tokens, heads, dim), d_q(tokens, heads, dim), d_k(tokens, heads / 4, dim), d_v(tokens, heads / 4, dim);
    ts::matrix<float> lse(heads, tokens);
    ts::attention(exec, q, kv, out, ts::causal, lse);
    double const n = static_cast<double>(tokens);
    bench::work const work{.float_operations = heads * 10.0 * static_cast<double>(dim) * n * (n + 1) / 2};
    auto const run = [&] { ts::attention_gradient(exec, q, kv, out, lse, g, d_q, d_k, d_v, ts::causal); };
    run();
    // The sum over keys of the gradients of scores is 0, so sum of k . d_k over keys is that of q . d_q over queries.
    double by_keys = 0, by_queries = 0, size = 0;
    for (ts::index_t i = 0; i < k.size(); ++i) by_keys += double{k.data()[i]} * double{d_k.data()[i]};
    for (ts::index_t i = 0; i < q.size(); ++i) {
        by_queries += double{q.data()[i]} * double{d_q.data()[i]};
        size += std::fabs(double{q.data()[i]} * double{d_q.data()[i]});
    }
    if (!(std::fabs(by_keys - by_queries) <= 1e-5 * size)) return state.SkipWithError("gradients do not fit together");
    for (auto _ : state) bench::measure(state, work, threads, [&](std::size_t) { run(); });
}

template <class Format>
void decode(benchmark::State& state, ts::index_t dim, ts::index_t tokens, int threads) {
    using cache = ts::kv_cache<ts::key<Format>, ts::value<Format>>;
    constexpr ts::index_t heads = 32;
    auto const exec = policy(threads);
    std::vector<cache> caches;
    caches.emplace_back(tokens, heads / 4, dim);
    fill(exec, caches[0], tokens, 1);
    auto const bytes = static_cast<double>(caches[0].bytes());
    for (std::size_t i = 1; i < bench::copies_beyond_caches(bytes); ++i) {
        caches.emplace_back(tokens, heads / 4, dim);
        auto const copy = [](auto to, auto from, ts::index_t n, bool scales) {
            std::copy_n(from.data, n, to.data);
            if (scales) std::copy_n(from.scales, n / to.slot_stride, to.scales);
        };
        bool const scales = std::is_same_v<Format, ts::int8_per_token>;
        copy(caches[i].key_rows(), caches[0].key_rows(), tokens * heads / 4 * caches[0].key_rows().slot_stride, scales);
        copy(caches[i].value_rows(), caches[0].value_rows(), tokens * heads / 4 * caches[0].value_rows().slot_stride, scales);
        caches[i].advance(tokens);
    }
    auto const q = random_tensor(1, heads, dim, 3);
    ts::tensor<float, 3> out(1, heads, dim);
    ts::attention(exec, q, caches[0], out, ts::causal);
    if (!agrees(q, caches[0], out)) return state.SkipWithError("differs from the reference");
    bench::work const work{.bytes = bytes};
    for (auto _ : state)
        bench::measure(state, work, threads,
                       [&](std::size_t i) { ts::attention(exec, q, caches[i % caches.size()], out, ts::causal); });
}

template <class Function>
void add(std::string const& kind, std::string const& format, ts::index_t dim, ts::index_t tokens, Function function,
         std::string const& mask = "causal") {
    int const most = bench::most_threads();
    for (int threads = 1; threads <= most; threads += std::max(1, most - 1)) {
        std::string const name = "attention/" + kind + "/" + mask + "/kv:" + format + "/d:" + std::to_string(dim) +
                                 "/tokens:" + std::to_string(tokens) + "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { function(state, dim, tokens, threads); })
            ->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
    }
}

template <class Format>
void add_format(std::string const& name) {
    for (ts::index_t const dim : {64, 128})
        for (ts::index_t const tokens : {512, 2048, 8192}) add("prefill", name, dim, tokens, prefill<Format>);
    for (ts::index_t const tokens : {4096, 32768}) add("decode", name, 128, tokens, decode<Format>);
}

[[maybe_unused]] bool const registered = [] {
    add_format<float>("fp32");
    add_format<ts::fp16>("fp16");
    add_format<ts::bf16>("bf16");
    add_format<ts::int8_per_token>("int8");
    add_format<ts::int4_g64>("int4_g64");
    for (ts::index_t const dim : {64, 128}) add("backward", "fp32", dim, 2048, backward);
    for (ts::index_t const tokens : {2048, 8192}) add("prefill", "fp32", 64, tokens, window, "window512");
    for (ts::index_t const tokens : {1024, 4096, 16384}) add("prefill", "fp32", 64, tokens, neighborhood, "neighborhood7x7");
    return true;
}();

} // namespace
