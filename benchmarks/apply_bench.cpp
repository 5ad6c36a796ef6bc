// SPDX-License-Identifier: MIT
//
// y = x Wᵀ for stored weights: apply/<format>/<preparation>/m:M/n:N/k:K/from:dram/threads:T, and ggml on the same data
// where it was found (vs_ggml: the best of its buffer types). Each case compares itself with `reference` before it is timed.

#include "support/measure.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>
#if defined(BENCH_HAS_GGML)
#include "peers/ggml.hpp"
#endif

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

#if defined(_OPENMP)
ts::cpu<> policy(int threads) { return ts::cpu<>{ts::openmp{threads}}; }
#else
ts::cpu<> policy(int) { return ts::cpu<>{}; }
#endif

ts::matrix<float> random_matrix(ts::index_t rows, ts::index_t columns, std::uint64_t seed) {
    ts::matrix<float> m{rows, columns};
    ts::philox const random{seed};
    for (ts::index_t i = 0; i < m.size(); ++i) m.data()[i] = 2 * random.uniform(static_cast<std::uint64_t>(i)) - 1;
    return m;
}

/// Random weights in a storage: `view()` is canonical.
template <class Scheme>
struct quantized_weights {
    ts::quantized_tensor<Scheme> w;
    explicit quantized_weights(ts::matrix<float> const& dense) : w{dense.extent(0), dense.extent(1)} {
        ts::philox const random{11};
        auto const v = w.view();
        for (ts::index_t i = 0; i < v.rows() * v.row_bytes(); ++i)
            w.codes()[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)));
        for (ts::index_t i = 0; i < v.scale_rows() * v.scale_columns(); ++i) {
            w.scales()[i] = static_cast<typename ts::quantized<Scheme>::scale_type>(
                0.01f * (1 + random.uniform(static_cast<std::uint64_t>(i))));
            if constexpr (Scheme::is_affine) w.zero_points()[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)) % 16);
        }
    }
    auto view() const { return w.view(); }
    double bytes() const { return static_cast<double>(w.bytes()); }
};

template <class Format>
struct block_weights {
    ts::buffer<typename Format::block> blocks;
    ts::index_t n, k;
    explicit block_weights(ts::matrix<float> const& dense)
        : blocks{dense.size() / Format::block_size}, n{dense.extent(0)}, k{dense.extent(1)} {
        for (ts::index_t i = 0; i < blocks.size(); ++i) Format::encode(dense.data() + i * Format::block_size, blocks[i]);
    }
    auto view() const { return ts::blocked<Format>{blocks.data(), n, k}; }
    double bytes() const { return static_cast<double>(blocks.bytes()); }
};

template <class T>
struct dense_weights {
    ts::matrix<T> w;
    explicit dense_weights(ts::matrix<float> const& dense) : w{dense.extent(0), dense.extent(1)} {
        for (ts::index_t i = 0; i < w.size(); ++i) w.data()[i] = T(dense.data()[i]);
    }
    ts::matrix_view<T const> view() const { return w.view(); }
    double bytes() const { return static_cast<double>(w.size()) * sizeof(T); }
};

struct case_parameters {
    ts::index_t m, n, k;
    int threads;
    int ggml_type; // -1: ggml has no such format
};

template <class Weights, class Preparation>
void run_case(benchmark::State& state, case_parameters const& c, Preparation preparation) {
    auto const dense = random_matrix(c.n, c.k, 1);
    Weights const weights{dense};
    auto const operand = ts::linear{weights.view(), preparation};
    auto const exec = policy(c.threads);
    auto const first = ts::place(exec, operand);
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = bench::copies_beyond_caches(weights.bytes()); i > 0; --i) copies.push_back(ts::place(exec, first.view()));

    auto const x = random_matrix(c.m, c.k, 2);
    ts::matrix<float> y{c.m, c.n}, expected{c.m, 64};
    ts::apply(exec, copies.front(), x, y);
    ts::apply(ts::reference{}, ts::rows(operand, 0, 64), x, expected);
    double largest = 0, difference = 0;
    for (ts::index_t m = 0; m < c.m; ++m)
        for (ts::index_t n = 0; n < 64; ++n) {
            largest = std::max(largest, std::fabs(static_cast<double>(expected(m, n))));
            difference = std::max(difference, std::fabs(static_cast<double>(y(m, n) - expected(m, n))));
        }
    constexpr bool is_bf16 = std::is_same_v<Preparation, ts::as_bf16>; // and W may be rounded to bf16
    if (!(difference <= (is_bf16 ? 2e-2 : 1e-4) * largest)) return state.SkipWithError("differs from the reference");

    double const operations = 2.0 * static_cast<double>(c.m) * static_cast<double>(c.n) * static_cast<double>(c.k);
    constexpr bool integer = ts::detail::activation_group<Preparation> >= 0;
    bench::work const work{.bytes = weights.bytes(), .int_operations = integer ? operations : 0,
                           .float_operations = integer || is_bf16 ? 0 : operations,
                           .bf16_operations = is_bf16 ? operations : 0};
    std::vector<bench::peer> peers;
#if defined(BENCH_HAS_GGML)
    if (c.ggml_type >= 0)
        for (auto const& layout : bench::ggml_layouts(static_cast<ggml_type>(c.ggml_type), c.n, c.k)) {
            // ggml configures its tile registers once a thread; a product of ours that used them in between gives them back.
            if (layout == "AMX" && c.m >= 16) continue;
            auto product = std::make_shared<bench::ggml_product>(static_cast<ggml_type>(c.ggml_type), layout, c.n, c.k, c.m,
                                                                 copies.size(), dense.data());
            product->set_input(x.data());
            product->set_threads(c.threads);
            peers.push_back({"ggml_" + layout, [product, n = copies.size()](std::size_t i) { product->run(i % n); }});
        }
#endif
    for (auto _ : state)
        bench::measure(state, work, c.threads, [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); }, peers);
}

template <class Weights, class Preparation>
void add(std::string const& format, std::string const& preparation, int ggml_type, Preparation p,
         std::initializer_list<ts::index_t> rows) {
    for (ts::index_t const m : rows)
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            std::string const name = "apply/" + format + "/" + preparation + "/m:" + std::to_string(m) +
                                     "/n:4096/k:4096/from:dram/threads:" + std::to_string(threads);
            case_parameters const c{m, 4096, 4096, threads, ggml_type};
            benchmark::RegisterBenchmark(name.c_str(), [c, p](benchmark::State& state) { run_case<Weights>(state, c, p); })
                ->Iterations(1)
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond);
        }
}

int const registered = [] {
#if defined(BENCH_HAS_GGML)
    constexpr int q4_0 = GGML_TYPE_Q4_0, q4_1 = GGML_TYPE_Q4_1, q8_0 = GGML_TYPE_Q8_0, f16 = GGML_TYPE_F16;
    constexpr int q5_0 = GGML_TYPE_Q5_0, q4_k = GGML_TYPE_Q4_K, q6_k = GGML_TYPE_Q6_K;
#else
    constexpr int q4_0 = -1, q4_1 = -1, q8_0 = -1, f16 = -1, q5_0 = -1, q4_k = -1, q6_k = -1;
#endif
    using g32 = ts::int8_per_group<32>;
    add<block_weights<ts::q4_0>>("q4_0", "int8_per_group_32", q4_0, g32{}, {1, 4, 8, 16, 512});
    add<block_weights<ts::q4_1>>("q4_1", "int8_per_group_32", q4_1, g32{}, {1, 4, 8, 16, 512});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "int8_per_token", -1, ts::int8_per_token{}, {1, 4, 8, 16, 512});
    add<quantized_weights<ts::int4_g128>>("int4_g128", "int8_per_token", -1, ts::int8_per_token{}, {1, 4, 8, 16, 512});
    add<quantized_weights<ts::uint4_g128>>("uint4_g128", "int8_per_token", -1, ts::int8_per_token{}, {1});
    add<quantized_weights<ts::int8_per_channel>>("int8_per_channel", "int8_per_token", -1, ts::int8_per_token{}, {1, 8, 512});
    add<block_weights<ts::q8_0>>("q8_0", "int8_per_group_32", q8_0, g32{}, {1, 512});
    add<block_weights<ts::q5_0>>("q5_0", "int8_per_group_32", q5_0, g32{}, {1});
    add<block_weights<ts::q4_k>>("q4_k", "int8_per_group_32", q4_k, g32{}, {1, 16, 512});
    add<block_weights<ts::q6_k>>("q6_k", "int8_per_group_32", q6_k, g32{}, {1, 512});
    add<block_weights<ts::q4_1>>("q4_1", "as_bf16", q4_1, ts::as_bf16{}, {1, 16, 64, 512});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "as_bf16", -1, ts::as_bf16{}, {512});
    add<quantized_weights<ts::int4_g128>>("int4_g128", "as_bf16", -1, ts::as_bf16{}, {512});
    add<dense_weights<ts::bf16>>("bf16", "as_bf16", -1, ts::as_bf16{}, {1, 512});
    add<dense_weights<ts::fp16>>("fp16", "as_is", f16, ts::as_is{}, {1, 8, 512});
    add<dense_weights<float>>("fp32", "as_is", -1, ts::as_is{}, {1, 512});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "as_is", -1, ts::as_is{}, {1, 8, 512});
    add<quantized_weights<ts::nf4_g64>>("nf4_g64", "as_is", -1, ts::as_is{}, {1});
    return 0;
}();

} // namespace
