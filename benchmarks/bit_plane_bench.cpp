// SPDX-License-Identifier: MIT
//
// Few bits. Products by bit planes: bit_planes/x:B/w:C/m:M/n:N/k:K/from:dram/threads:T, B bits of x by C of the weights, beside
// the int8 product of this library (vs_int8). Bytes are canonical; integer operations 2 m n k against the peak of int8 dot
// products, so that of_limit says how the planes stand to them. BitLinear: bit_linear/<weights>/..., the fused call beside
// rms_norm and apply (vs_parts). Each case compares itself with `reference` before it is timed.

#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/nn/bit_linear.hpp>
#include <tessera/quant/bit_planes.hpp>
#include <tessera/quant/ternary.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

using bench::policy;
using bench::random_matrix;

struct case_parameters {
    ts::index_t m, n, k;
    int threads;
};

bool is_near(ts::matrix<float> const& y, ts::matrix<float> const& expected, double share) {
    double largest = 0, difference = 0;
    for (ts::index_t i = 0; i < y.size(); ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(expected.data()[i])));
        difference = std::max(difference, std::fabs(static_cast<double>(y.data()[i] - expected.data()[i])));
    }
    return difference <= share * largest;
}

/// Copies of a placed operand that no cache holds together.
template <class Exec, class Op>
auto copies_of(Exec const& exec, Op const& op, ts::index_t m) {
    auto const first = ts::place(exec, op);
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = bench::copies_for_rows(static_cast<double>(first.bytes()), m); i > 0; --i)
        copies.push_back(ts::place(exec, first.view()));
    return copies;
}

bench::work work_of(case_parameters const& c, double bytes) {
    return {.bytes = bytes, .int_operations = 2.0 * static_cast<double>(c.m * c.n * c.k)};
}

template <int XBits, int Bits>
void run_planes(benchmark::State& state, case_parameters const& c) {
    auto const exec = policy(c.threads);
    auto const planes = ts::pack_bit_planes(bench::random_codes<ts::scheme<ts::bipolar<Bits>, ts::per_channel>>(c.n, c.k, 1, 0.01f));
    ts::linear const operand{planes, ts::bipolar_per_token<XBits>{}};
    auto const copies = copies_of(exec, operand, c.m);
    auto const int8 = bench::random_codes<ts::int8_per_channel>(c.n, c.k, 1, 0.01f);
    auto const int8_copies = copies_of(exec, ts::linear{int8, ts::int8_per_token{}}, c.m);

    auto const x = random_matrix(c.m, c.k, 2);
    ts::index_t const judged = std::min<ts::index_t>(c.m, 2);
    ts::matrix<float> y{c.m, c.n}, some{judged, c.n}, expected{judged, c.n};
    ts::apply(exec, copies.front(), ts::rows(x.view(), 0, judged), some.view());
    ts::apply(ts::reference{}, operand, ts::rows(x.view(), 0, judged), expected.view());
    if (!is_near(some, expected, 1e-6)) return state.SkipWithError("differs from the reference");

    std::vector<bench::peer> const peers{
        {"int8", [&](std::size_t i) { ts::apply(exec, int8_copies[i % int8_copies.size()], x, y); }}};
    for (auto _ : state)
        bench::measure(state, work_of(c, static_cast<double>(planes.bytes())), c.threads,
                       [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); }, peers);
}

void run_bit_linear(benchmark::State& state, case_parameters const& c) {
    auto const exec = policy(c.threads);
    auto const weights = ts::quantize_absmean(random_matrix(c.n, c.k, 1));
    ts::linear const operand{weights, ts::int8_per_token{}};
    auto const copies = copies_of(exec, operand, c.m);
    auto const x = random_matrix(c.m, c.k, 2);
    std::vector<float> const ones(static_cast<std::size_t>(c.k), 1.0f);
    ts::vector_view<float const> const norm{ones.data(), c.k};
    ts::index_t const judged = std::min<ts::index_t>(c.m, 2);
    ts::matrix<float> y{c.m, c.n}, h{c.m, c.k}, some{judged, c.n}, expected{judged, c.n};
    ts::bit_linear(exec, copies.front(), ts::rows(x.view(), 0, judged), norm, 1e-6f, some.view());
    ts::bit_linear(ts::reference{}, operand, ts::rows(x.view(), 0, judged), norm, 1e-6f, expected.view());
    if (!is_near(some, expected, 1e-3)) return state.SkipWithError("differs from the reference"); // a code may round otherwise

    std::vector<bench::peer> const peers{{"parts", [&](std::size_t i) {
                                              ts::rms_norm(exec, x, norm, 1e-6f, h);
                                              ts::apply(exec, copies[i % copies.size()], h, y);
                                          }}};
    for (auto _ : state)
        bench::measure(state, work_of(c, static_cast<double>(weights.bytes())), c.threads,
                       [&](std::size_t i) { ts::bit_linear(exec, copies[i % copies.size()], x, norm, 1e-6f, y); }, peers);
    state.counters["placed_bytes"] = static_cast<double>(copies.front().bytes());
}

template <class F>
void add(std::string const& family, F const& run, std::initializer_list<ts::index_t> rows) {
    for (ts::index_t const m : rows)
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            std::string const name =
                family + "/m:" + std::to_string(m) + "/n:4096/k:4096/from:dram/threads:" + std::to_string(threads);
            case_parameters const c{m, 4096, 4096, threads};
            benchmark::RegisterBenchmark(name.c_str(), [c, run](benchmark::State& state) { run(state, c); })
                ->Iterations(1)
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond);
        }
}

int const registered = [] {
    add("bit_planes/x:1/w:1", run_planes<1, 1>, {1, 64});
    add("bit_planes/x:4/w:1", run_planes<4, 1>, {1, 64});
    add("bit_planes/x:2/w:2", run_planes<2, 2>, {1, 64});
    add("bit_planes/x:8/w:2", run_planes<8, 2>, {1, 64});
    add("bit_planes/x:4/w:4", run_planes<4, 4>, {1, 64});
    add("bit_planes/x:8/w:8", run_planes<8, 8>, {1});
    add("bit_linear/ternary", run_bit_linear, {1, 16, 512});
    return 0;
}();

} // namespace
