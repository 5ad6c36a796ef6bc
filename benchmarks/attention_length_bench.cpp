// SPDX-License-Identifier: MIT
// attention_length/{tiled,untiled,masked}/<mask>/kv:fp32/d:64/tokens:<n>/threads:<t>
//
// Time against length: report.py draws it (attention_length.png). 8 query heads over 2 KV heads.
//
// tiled, untiled: all queries see all keys, 4 d n^2 operations a head. Untiled is the same attention of this library's parts: the
// scores of a head as one product, softmax of its rows, one product with the values.
// masked: causal, windows and neighborhoods of the same tokens; operations are those of the scores that are seen, so that time
// which grows with what is hidden would show as a falling rate.

#include "support/measure.hpp"

#include <tessera/attention/attention.hpp>
#include <tessera/attention/neighborhood.hpp>
#include <tessera/nn/softmax.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/storage/tensor.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

namespace ts = tessera;

namespace {

constexpr ts::index_t heads = 8, kv_heads = 2, dim = 64;

#if defined(_OPENMP)
auto policy(int threads) { return ts::cpu{ts::openmp{threads}}; }
#else
auto policy(int) { return ts::cpu{ts::serial{}}; }
#endif

/// Uniform in [-1, 1].
ts::tensor<float, 3> random_tensor(ts::index_t tokens, ts::index_t n, std::uint64_t state) {
    ts::tensor<float, 3> t(tokens, n, dim);
    for (ts::index_t i = 0; i < t.size(); ++i) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        t.data()[i] = static_cast<float>(state >> 40) * 0x1p-23f - 1.0f;
    }
    return t;
}

/// Between two float32 computations: |scores| <= sqrt(dim), |v| <= 1 (attention.hpp).
double tolerance(ts::index_t keys) {
    double const u = ts::unit_roundoff<float>;
    return 2 * (2 * ts::gamma(dim + 2, u) * 8.0 + ts::gamma(keys + 20, u));
}

struct problem {
    ts::tensor<float, 3> q, k, v, out;
    explicit problem(ts::index_t n)
        : q{random_tensor(n, heads, 1)}, k{random_tensor(n, kv_heads, 2)}, v{random_tensor(n, kv_heads, 3)}, out(n, heads, dim) {}
    /// Tokens by dimensions of one head.
    template <class T>
    static ts::matrix_view<T> head_of(ts::tensor_view<T, 3> const& x, ts::index_t h) {
        ts::index_t const strides[] = {x.stride(0), 1};
        using view = ts::matrix_view<T>;
        return {x.data_handle() + h * x.stride(1), typename view::mapping_type{ts::dynamic_extents<2>{x.extent(0), dim}, strides}};
    }
};

template <class Exec>
void untiled_attention(Exec const& exec, problem& p, ts::matrix<float>& scores) {
    for (ts::index_t h = 0; h < heads; ++h) {
        ts::index_t const kv_head = h / (heads / kv_heads);
        ts::linear const keys{problem::head_of(std::as_const(p.k).view(), kv_head)};
        ts::linear const values{problem::head_of(std::as_const(p.v).view(), kv_head)};
        ts::apply(exec, 0.125f * keys, problem::head_of(std::as_const(p.q).view(), h), scores);
        ts::softmax(exec, scores, scores);
        ts::apply(exec, ts::transposed(values), scores, problem::head_of(p.out.view(), h));
    }
}

void untiled(benchmark::State& state, ts::index_t n, int threads) {
    auto const exec = policy(threads);
    problem p{n};
    ts::matrix<float> scores(n, n);
    ts::tensor<float, 3> expected(n, heads, dim);
    ts::attention(exec, p.q, p.k, p.v, expected);
    untiled_attention(exec, p, scores);
    for (ts::index_t i = 0; i < p.out.size(); ++i)
        if (!(std::fabs(p.out.data()[i] - expected.data()[i]) <= tolerance(n))) return state.SkipWithError("differs from tiled attention");
    double const tokens = static_cast<double>(n);
    bench::work const work{.float_operations = heads * 4.0 * dim * tokens * tokens};
    for (auto _ : state) bench::measure(state, work, threads, [&](std::size_t) { untiled_attention(exec, p, scores); });
}

/// `pairs`: queries and keys that see each other, a head.
template <class Score>
void attend(benchmark::State& state, ts::index_t n, int threads, Score const& score, double pairs) {
    auto const exec = policy(threads);
    problem p{n};
    ts::attention(exec, p.q, p.k, p.v, p.out, score);
    bench::work const work{.float_operations = heads * 4.0 * dim * pairs};
    for (auto _ : state) bench::measure(state, work, threads, [&](std::size_t) { ts::attention(exec, p.q, p.k, p.v, p.out, score); });
}

template <class Function>
void add(std::string const& kind, std::string const& mask, ts::index_t n, Function const& function) {
    int const most = bench::most_threads();
    for (int threads = 1; threads <= most; threads += std::max(1, most - 1)) {
        std::string const name = "attention_length/" + kind + "/" + mask + "/kv:fp32/d:64/tokens:" + std::to_string(n) +
                                 "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { function(state, n, threads); })
            ->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
    }
}

void add_window(ts::index_t n, ts::index_t window) {
    add("masked", "window" + std::to_string(window), n, [=](benchmark::State& state, ts::index_t tokens, int threads) {
        double const w = static_cast<double>(std::min(window, tokens));
        attend(state, tokens, threads, ts::window{window}, w * (static_cast<double>(tokens) - (w - 1) / 2));
    });
}

/// side x side pixels, window x window around each.
void add_neighborhood(ts::index_t side, ts::index_t window) {
    add("masked", "neighborhood" + std::to_string(window) + "x" + std::to_string(window), side * side,
        [=](benchmark::State& state, ts::index_t tokens, int threads) {
            ts::neighborhood_axis const axis{side, window};
            attend(state, tokens, threads, ts::neighborhood<2>{{axis, axis}}, static_cast<double>(window * window * tokens));
        });
}

[[maybe_unused]] bool const registered = [] {
    for (ts::index_t n = 16; n <= 8192; n *= 2) {
        add("tiled", "full", n, [](benchmark::State& state, ts::index_t tokens, int threads) {
            double const t = static_cast<double>(tokens);
            attend(state, tokens, threads, ts::full, t * t);
        });
        add("untiled", "full", n, untiled);
    }
    for (ts::index_t const n : {1024, 2048, 4096, 8192, 16384}) {
        if (n <= 8192)
            add("masked", "causal", n, [](benchmark::State& state, ts::index_t tokens, int threads) {
                double const t = static_cast<double>(tokens);
                attend(state, tokens, threads, ts::causal, t * (t + 1) / 2);
            });
        for (ts::index_t const window : {128, 512}) add_window(n, window);
    }
    for (ts::index_t const window : {64, 256, 1024, 2048, 4096}) add_window(8192, window);
    for (ts::index_t const side : {32, 45, 64, 90, 128}) add_neighborhood(side, 7);
    for (ts::index_t const window : {3, 5, 9, 13, 21, 31}) add_neighborhood(64, window);
    return true;
}();

} // namespace
