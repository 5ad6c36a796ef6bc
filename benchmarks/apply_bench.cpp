// SPDX-License-Identifier: MIT
//
// y = x Wᵀ for stored weights: apply/<format>/<preparation>/m:M/n:N/k:K/from:F/threads:T, and the peers on the same data
// (peers/products.hpp). From dram, copies of W that no cache holds are used in turn, ours and the peers'; from l3 two copies
// that the second-level cache does not hold; from l2 one small W (of_limit is then of the arithmetic alone). Each case compares
// itself with `reference` before it is timed.
//
//     vs_ggml_<layout>  the same blocks in ggml, in each of its layouts
//     vs_ik_llama_<type> the same in ik_llama.cpp's interleaved rows
//     vs_onnxruntime    the same 4-bit codes and scales (float32 there) with int8 activations
//     vs_onednn         float32 weights; or u8 x s8 without the rounding of x and without scales, a favour to it
//     vs_onednn_whole   the same with both (oneDNN 2.6, one row of x)
//     vs_openblas       float32 weights

#include "peers/products.hpp"
#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <string>
#include <type_traits>
#include <vector>

namespace ts = tessera;

namespace {

/// Random weights in a storage: `view()` is canonical; the peers that read the same form are added by `add_peers`.
template <class Scheme>
struct quantized_weights {
    ts::quantized_tensor<Scheme> w;
    explicit quantized_weights(ts::matrix<float> const& dense)
        : w{bench::random_codes<Scheme>(dense.extent(0), dense.extent(1), 11, 0.01f)} {}
    auto view() const { return w.view(); }
    double bytes() const { return static_cast<double>(w.bytes()); }

    template <class Preparation>
    void add_peers(std::vector<bench::peer>& peers, bench::product const& of, Preparation) const {
        if constexpr (ts::detail::activation_group<Preparation> < 0) return;
        auto const v = w.view();
        if constexpr (std::is_same_v<Scheme, ts::int8_per_channel>)
            bench::add_byte_peers(peers, of, reinterpret_cast<std::int8_t const*>(v.codes()), v.scales());
        else if constexpr (std::is_same_v<typename Scheme::format, ts::int4>)
            bench::add_nibble_peers(
                peers, of, Scheme::granularity_type::columns,
                [&](ts::index_t n, ts::index_t k) { return static_cast<int>(v.code(n, k) ^ 8u) - 8; },
                [&](ts::index_t n, ts::index_t k) { return v.scale(n, k); });
    }
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

    template <class Preparation>
    void add_peers(std::vector<bench::peer>& peers, bench::product const& of, Preparation) const {
        auto const block = [&](ts::index_t row, ts::index_t column) -> auto const& {
            return blocks.data()[(row * k + column) / Format::block_size];
        };
        if constexpr (std::is_same_v<Format, ts::q4_0>)
            bench::add_nibble_peers(
                peers, of, Format::group_size,
                [&](ts::index_t row, ts::index_t column) {
                    return Format::code(block(row, column), static_cast<int>(column % Format::block_size));
                },
                [&](ts::index_t row, ts::index_t column) { return Format::scale(block(row, column)); });
    }
};

template <class T>
struct dense_weights {
    ts::matrix<T> w;
    explicit dense_weights(ts::matrix<float> const& dense) : w{dense.extent(0), dense.extent(1)} {
        for (ts::index_t i = 0; i < w.size(); ++i) w.data()[i] = T(dense.data()[i]);
    }
    ts::matrix_view<T const> view() const { return w.view(); }
    double bytes() const { return static_cast<double>(w.size()) * sizeof(T); }

    template <class Preparation>
    void add_peers(std::vector<bench::peer>& peers, bench::product const& of, Preparation) const {
        if constexpr (std::is_same_v<T, float>) bench::add_float_peers(peers, of, w.data());
    }
};

struct case_parameters {
    ts::index_t m, n, k;
    int threads;
    int ggml_type; // -1: ggml has no such format
    std::size_t copies = 0; // 0: more than the caches hold
};

template <class Weights, class Preparation>
void run_case(benchmark::State& state, case_parameters const& c, Preparation preparation) {
    auto const dense = bench::random_matrix(c.n, c.k, 1);
    Weights const weights{dense};
    auto const operand = ts::linear{weights.view(), preparation};
    auto const exec = bench::policy(c.threads);
    auto const first = ts::place(exec, operand);
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = c.copies > 0 ? c.copies : bench::copies_for_rows(weights.bytes(), c.m); i > 0; --i)
        copies.push_back(ts::place(exec, first.view()));

    auto const x = bench::random_matrix(c.m, c.k, 2);
    // The last rows of x, tails of tiles among them: the reference takes its time.
    ts::index_t const checked = std::min<ts::index_t>(c.m, 16), first_checked = c.m - checked;
    ts::matrix<float> y{c.m, c.n}, expected{checked, 64};
    ts::apply(exec, copies.front(), x, y);
    ts::apply(ts::reference{}, ts::rows(operand, 0, 64), ts::rows(x.view(), first_checked, c.m), expected.view());
    double largest = 0, difference = 0;
    for (ts::index_t m = 0; m < checked; ++m)
        for (ts::index_t n = 0; n < 64; ++n) {
            double const result = y(first_checked + m, n);
            largest = std::max(largest, std::fabs(static_cast<double>(expected(m, n))));
            difference = std::max(difference, std::fabs(result - static_cast<double>(expected(m, n))));
        }
    constexpr bool is_bf16 = std::is_same_v<Preparation, ts::as_bf16>; // and W may be rounded to bf16
    if (!(difference <= (is_bf16 ? 2e-2 : 1e-4) * largest)) return state.SkipWithError("differs from the reference");

    double const operations = 2.0 * static_cast<double>(c.m) * static_cast<double>(c.n) * static_cast<double>(c.k);
    constexpr bool integer = ts::detail::activation_group<Preparation> >= 0;
    bench::work const work{.bytes = c.copies > 0 ? 0 : weights.bytes(), .int_operations = integer ? operations : 0,
                           .float_operations = integer || is_bf16 ? 0 : operations,
                           .bf16_operations = is_bf16 ? operations : 0};
    std::vector<bench::peer> peers;
    try {
        bench::product const same{c.m, c.n, c.k, c.threads, copies.size(), x.data(), y.data()};
        bench::add_ggml(peers, c.ggml_type, same, dense.data());
        bench::add_ik_llama(peers, bench::ik_llama_type(c.ggml_type), same, dense.data());
        weights.add_peers(peers, same, preparation);
    } catch (std::exception const& e) {
        return state.SkipWithError(e.what());
    }
    for (auto _ : state)
        bench::measure(state, work, c.threads, [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); }, peers);
}

template <class Weights, class Preparation>
void add(std::string const& format, std::string const& preparation, int ggml_type, Preparation p,
         std::initializer_list<ts::index_t> rows, ts::index_t n = 4096, ts::index_t k = 4096) {
    for (ts::index_t const m : rows)
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            std::string const name = "apply/" + format + "/" + preparation + "/m:" + std::to_string(m) +
                                     "/n:" + std::to_string(n) + "/k:" + std::to_string(k) +
                                     "/from:dram/threads:" + std::to_string(threads);
            case_parameters const c{m, n, k, threads, ggml_type};
            benchmark::RegisterBenchmark(name.c_str(), [c, p](benchmark::State& state) { run_case<Weights>(state, c, p); })
                ->Iterations(1)
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond);
        }
}

/// One row of x by weights that a cache holds.
template <class Weights, class Preparation>
void add_cached(std::string const& format, std::string const& preparation, int ggml_type, Preparation p) {
    for (bool const small : {true, false})
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            ts::index_t const size = small ? 1024 : 4096;
            std::string const name = "apply/" + format + "/" + preparation + "/m:1/n:" + std::to_string(size) + "/k:" +
                                     std::to_string(size) + (small ? "/from:l2" : "/from:l3") + "/threads:" + std::to_string(threads);
            case_parameters const c{1, size, size, threads, ggml_type, small ? std::size_t{1} : std::size_t{2}};
            benchmark::RegisterBenchmark(name.c_str(), [c, p](benchmark::State& state) { run_case<Weights>(state, c, p); })
                ->Iterations(1)
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond);
        }
}

int const registered = [] {
    bench::describe_peers([](char const* name, std::string const& value) { benchmark::AddCustomContext(name, value); });
    using g32 = ts::int8_per_group<32>;
    add<block_weights<ts::q4_0>>("q4_0", "int8_per_group_32", bench::ggml_q4_0, g32{}, {1, 4, 8, 16, 512});
    add<block_weights<ts::q4_1>>("q4_1", "int8_per_group_32", bench::ggml_q4_1, g32{}, {1, 4, 8, 16, 512});
    // One scale a row of x: what blocks of 32 need not to multiply by a scale of x for every block.
    using token = ts::int8_per_token;
    add<block_weights<ts::q4_0>>("q4_0", "int8_per_token", bench::ggml_q4_0, token{}, {8, 16, 512});
    add<block_weights<ts::q4_1>>("q4_1", "int8_per_token", bench::ggml_q4_1, token{}, {512});
    add<block_weights<ts::q8_0>>("q8_0", "int8_per_token", bench::ggml_q8_0, token{}, {512});
    add<block_weights<ts::q4_k>>("q4_k", "int8_per_token", bench::ggml_q4_k, token{}, {512});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "int8_per_token", -1, ts::int8_per_token{}, {1, 4, 8, 16, 512});
    add<quantized_weights<ts::int4_g128>>("int4_g128", "int8_per_token", -1, ts::int8_per_token{}, {1, 4, 8, 16, 512});
    add<quantized_weights<ts::uint4_g128>>("uint4_g128", "int8_per_token", -1, ts::int8_per_token{}, {1});
    add<quantized_weights<ts::int8_per_channel>>("int8_per_channel", "int8_per_token", -1, ts::int8_per_token{}, {1, 8, 512});
    add<block_weights<ts::q8_0>>("q8_0", "int8_per_group_32", bench::ggml_q8_0, g32{}, {1, 512});
    add<block_weights<ts::q5_0>>("q5_0", "int8_per_group_32", bench::ggml_q5_0, g32{}, {1});
    // Without ggml: its encoder of Q2_K finds codes so far from ours that the products are not compared.
    add<block_weights<ts::q2_k>>("q2_k", "int8_per_group_32", -1, g32{}, {1});
    add<block_weights<ts::q3_k>>("q3_k", "int8_per_group_32", bench::ggml_q3_k, g32{}, {1});
    add<block_weights<ts::q4_k>>("q4_k", "int8_per_group_32", bench::ggml_q4_k, g32{}, {1, 16, 512});
    add<block_weights<ts::q5_k>>("q5_k", "int8_per_group_32", bench::ggml_q5_k, g32{}, {1});
    add<block_weights<ts::q6_k>>("q6_k", "int8_per_group_32", bench::ggml_q6_k, g32{}, {1, 512});
    add<block_weights<ts::iq4_nl>>("iq4_nl", "int8_per_group_32", bench::ggml_iq4_nl, g32{}, {1, 512});
    add<quantized_weights<ts::nf4_g64>>("nf4_g64", "int8_per_token", -1, ts::int8_per_token{}, {1, 8});
    add<quantized_weights<ts::mx_e2m1>>("mx_e2m1", "int8_per_token", -1, ts::int8_per_token{}, {1, 512});
    add<quantized_weights<ts::mx_e2m3>>("mx_e2m3", "int8_per_token", -1, ts::int8_per_token{}, {1, 512});
    add<quantized_weights<ts::mx_e3m2>>("mx_e3m2", "int8_per_token", -1, ts::int8_per_token{}, {1});
    add<quantized_weights<ts::nv_e2m1>>("nv_e2m1", "int8_per_token", -1, ts::int8_per_token{}, {1});
    add<block_weights<ts::q2_k>>("q2_k", "as_bf16", -1, ts::as_bf16{}, {512});
    add<block_weights<ts::q6_k>>("q6_k", "as_bf16", bench::ggml_q6_k, ts::as_bf16{}, {512});
    add<quantized_weights<ts::nv_e2m1>>("nv_e2m1", "as_bf16", -1, ts::as_bf16{}, {512});
    add<block_weights<ts::q4_1>>("q4_1", "as_bf16", bench::ggml_q4_1, ts::as_bf16{}, {1, 16, 64, 512});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "as_bf16", -1, ts::as_bf16{}, {512});
    add<quantized_weights<ts::int4_g128>>("int4_g128", "as_bf16", -1, ts::as_bf16{}, {512});
    add<dense_weights<ts::bf16>>("bf16", "as_bf16", -1, ts::as_bf16{}, {1, 512});
    add<dense_weights<ts::fp16>>("fp16", "as_is", bench::ggml_f16, ts::as_is{}, {1, 8, 512});
    add<dense_weights<float>>("fp32", "as_is", -1, ts::as_is{}, {1, 512});
    add<dense_weights<float>>("fp32", "as_is", -1, ts::as_is{}, {2048}, 2048, 2048);
    add_cached<block_weights<ts::q4_0>>("q4_0", "int8_per_group_32", bench::ggml_q4_0, g32{});
    add_cached<block_weights<ts::q4_1>>("q4_1", "int8_per_group_32", bench::ggml_q4_1, g32{});
    add_cached<quantized_weights<ts::int4_g128>>("int4_g128", "int8_per_token", -1, ts::int8_per_token{});
    add_cached<quantized_weights<ts::int8_per_channel>>("int8_per_channel", "int8_per_token", -1, ts::int8_per_token{});
    add_cached<block_weights<ts::q4_k>>("q4_k", "int8_per_group_32", bench::ggml_q4_k, g32{});
    add_cached<block_weights<ts::q6_k>>("q6_k", "int8_per_group_32", bench::ggml_q6_k, g32{});
    add_cached<block_weights<ts::q8_0>>("q8_0", "int8_per_group_32", bench::ggml_q8_0, g32{});
    add_cached<dense_weights<ts::fp16>>("fp16", "as_is", bench::ggml_f16, ts::as_is{});
    add<quantized_weights<ts::int4_g32>>("int4_g32", "as_is", -1, ts::as_is{}, {1, 8, 512});
    add<quantized_weights<ts::nf4_g64>>("nf4_g64", "as_is", -1, ts::as_is{}, {1});
    add<quantized_weights<ts::scheme<ts::e4m3fn, ts::per_channel>>>("e4m3_per_channel", "as_is", -1, ts::as_is{}, {1, 8});
    return 0;
}();

} // namespace
