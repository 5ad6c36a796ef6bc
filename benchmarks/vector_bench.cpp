// SPDX-License-Identifier: MIT
//
// y = x Wᵀ for weights that are looked up, x in float32 unless the storage's name says int8 (one scale a row) or bf16:
// vector/<storage>/m:M/n:N/k:K/from:dram/threads:T, codes at random (their values do not matter to time). Bytes are canonical. Each case compares its first row with `reference` before it is timed.
// And Hadamard rotations of rows that lie in caches: hadamard/<order>/m:M/threads:T.
//
// The floors at m = 1: the read rate; where tables lie in memory, gathers of 16 numbers or loads of vectors, about a cycle a weight.

#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/quant/any_precision.hpp>
#include <tessera/quant/higgs.hpp>
#include <tessera/quant/table_quantize.hpp>
#include <tessera/quant/vptq.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

using bench::policy;
using bench::random_matrix;

constexpr ts::index_t rows = 4096;
constexpr ts::index_t columns = 4096;

void fill(std::uint8_t* codes, ts::index_t bytes) {
    ts::philox const random{1};
    for (ts::index_t i = 0; i < bytes; ++i) codes[i] = static_cast<std::uint8_t>(random.bits(static_cast<std::uint64_t>(i)));
}

template <int Bits, class Granularity, class Scale>
auto tables() {
    ts::table_quantized_tensor<Bits, Granularity, ts::fp16, Scale> q{rows, columns};
    fill(q.codes(), rows * columns * Bits / 8);
    for (ts::index_t i = 0; i < q.view().table_count(rows, columns) << Bits; ++i)
        q.values()[i] = ts::fp16{ts::philox{2}.normal(static_cast<std::uint64_t>(i))};
    if constexpr (decltype(q)::view_type::has_scale)
        for (ts::index_t i = 0; i < q.view().scale_count(rows, columns); ++i) q.scales()[i] = ts::fp16{1.0f};
    return q;
}
auto nested() {
    ts::any_precision_tensor q{rows, columns, 3, 8};
    fill(q.planes(), rows * columns);
    for (int b = 3; b <= 8; ++b)
        for (ts::index_t i = 0; i < rows << b; ++i) q.table(b, 0)[i] = ts::fp16{static_cast<float>(i % (1 << b)) - 3.0f};
    return q;
}
template <ts::index_t Dims, int Bits>
auto grid() {
    float const* points = nullptr;
    if constexpr (Dims == 8) { // as good as any: time does not depend on values
        static std::vector<float> const random = [] {
            std::vector<float> p;
            for (std::uint64_t i = 0; i < 2048; ++i) p.push_back(ts::philox{4}.normal(i));
            return p;
        }();
        points = random.data();
    } else {
        points = ts::gaussian_grid<Dims, Bits>();
    }
    ts::vector_grid_tensor<Dims, Bits> q{points, rows, columns, 1024};
    fill(q.codes(), rows * columns / Dims * Bits / 8);
    for (ts::index_t i = 0; i < rows * columns / 1024; ++i) q.scales()[i] = ts::fp16{1.0f};
    return q;
}
auto codebooks(int index_bits, int residual_bits) {
    ts::vector_codebooks_shape s{rows, {}};
    s.part[1] = {columns, columns, 8, index_bits, residual_bits};
    ts::vector_codebooks_tensor q{s};
    ts::philox const random{3};
    for (ts::index_t i = 0; i < s.part[1].centroid_count(); ++i) q.centroids(1)[i] = ts::fp16{random.normal(static_cast<std::uint64_t>(i))};
    for (ts::index_t k = 0; k < columns; ++k)
        for (ts::index_t j = 0; j < rows / 8; ++j)
            q.set_code({1, 0, k}, j, random.bits(static_cast<std::uint64_t>(j * columns + k)) & ((1u << (index_bits + residual_bits)) - 1u));
    return q;
}

template <class Operand>
void run_case(benchmark::State& state, Operand const& operand, ts::index_t m, int threads) {
    auto const exec = policy(threads);
    auto const first = ts::place(exec, operand);
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = bench::copies_beyond_caches(static_cast<double>(first.bytes())); i > 0; --i)
        copies.push_back(ts::place(exec, first.view()));
    auto const x = random_matrix(m, columns, 2);
    ts::matrix<float> y{m, rows}, expected{1, rows};
    ts::apply(exec, copies.front(), x, y);
    ts::apply(ts::reference{}, operand, ts::rows(x.view(), 0, 1), expected.view());
    double largest = 0, difference = 0;
    for (ts::index_t i = 0; i < rows; ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(expected.data()[i])));
        difference = std::max(difference, std::fabs(static_cast<double>(y.data()[i] - expected.data()[i])));
    }
    bool const is_bf16 = std::is_same_v<typename Operand::preparation_type, ts::as_bf16>; // rounds W, too
    if (!(difference <= (is_bf16 ? 4e-3 : 1e-4) * largest)) return state.SkipWithError("differs from the reference");
    bench::work work{.bytes = static_cast<double>(operand.storage().bytes())};
    bool const is_float = std::is_same_v<typename Operand::preparation_type, ts::as_is>;
    (is_float ? work.float_operations : is_bf16 ? work.bf16_operations : work.int_operations) = 2.0 * static_cast<double>(m * rows * columns);
    for (auto _ : state)
        bench::measure(state, work, threads, [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); });
    state.counters["placed_bytes"] = static_cast<double>(first.bytes());
}

/// `make()` owns the weights, `leaf(weights)` is the operand.
template <class Make, class Leaf>
void add(std::string const& storage, Make const& make, Leaf const& leaf) {
    for (ts::index_t const m : {1, 8, 512})
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            std::string const name = "vector/" + storage + "/m:" + std::to_string(m) + "/n:4096/k:4096/from:dram/threads:" + std::to_string(threads);
            benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
                auto const weights = make();
                run_case(state, leaf(weights), m, threads);
            })->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
        }
}

void add_rotation(ts::index_t order, ts::index_t m) {
    for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
        std::string const name = "hadamard/" + std::to_string(order) + "/m:" + std::to_string(m) + "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
            auto const exec = policy(threads);
            auto const x = random_matrix(m, order, 2);
            ts::matrix<float> y{m, order};
            ts::hadamard const r{order, 0, ts::random_signs{1}};
            bench::work const work{.bytes = 8.0 * static_cast<double>(m * order),
                                   .float_operations = static_cast<double>(m * order) * std::log2(static_cast<double>(order))};
            for (auto _ : state) bench::measure(state, work, threads, [&](std::size_t) { ts::apply(exec, r, x, y); });
        })->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond);
    }
}

int const registered = [] {
    auto const plain = [](auto const& q) { return ts::linear{q}; };
    add("table_4_bits/tensor_g64", [] { return tables<4, ts::per_tensor, ts::scaled_by<ts::fp16, ts::group<64>>>(); }, plain);
    add("table_3_bits/tensor_g64", [] { return tables<3, ts::per_tensor, ts::scaled_by<ts::fp16, ts::group<64>>>(); }, plain);
    add("table_4_bits/row", [] { return tables<4, ts::per_channel, ts::unscaled>(); }, plain);
    add("any_precision/4_of_8", nested, [](auto const& q) { return ts::linear{q.template prefix<4>()}; });
    add("higgs/2x16", [] { return grid<2, 4>(); }, plain);
    add("higgs/2x64", [] { return grid<2, 6>(); }, plain);
    add("higgs/2x256", [] { return grid<2, 8>(); }, plain);
    add("higgs/4x256", [] { return grid<4, 8>(); }, plain);
    add("grid/8x256", [] { return grid<8, 8>(); }, plain);
    auto const int8 = [](auto const& q) { return ts::linear{q, ts::int8_per_token{}}; };
    add("higgs/2x256/int8", [] { return grid<2, 8>(); }, int8);
    add("higgs/4x256/int8", [] { return grid<4, 8>(); }, int8);
    add("grid/8x256/int8", [] { return grid<8, 8>(); }, int8);
    auto const bf16 = [](auto const& q) { return ts::linear{q, ts::as_bf16{}}; };
    add("higgs/2x256/bf16", [] { return grid<2, 8>(); }, bf16);
    add("vptq/v8_256_256/bf16", [] { return codebooks(8, 8); }, bf16);
    add("vptq/v8_256_256", [] { return codebooks(8, 8); }, plain);
    add("vptq/v8_65536", [] { return codebooks(16, 0); }, plain);
    add_rotation(4096, 64);
    add_rotation(14336, 16);
    return 0;
}();

} // namespace
