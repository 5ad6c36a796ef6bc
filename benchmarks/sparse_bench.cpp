// SPDX-License-Identifier: MIT
//
// y = x Wᵀ for sparse weights: sparse/<storage>/<kept>/m:M/n:N/k:K/from:dram/threads:T. Bytes are canonical; operations are
// those of kept weights. Each case compares itself with `reference` before it is timed.
//
// The floor at m = 1 is the read rate. A compressed weight is gathered besides, 10 to 11 cycles for 16 of them.

#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/sparse/place.hpp>
#include <tessera/sparse/sparsify.hpp>

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
    float threshold; // of magnitude: 1 - density
};

template <class Storage>
auto weights_of(case_parameters const& c) {
    auto const dense = random_matrix(c.n, c.k, 1);
    if constexpr (requires { Storage::position_bits; })
        return ts::sparsify<Storage>(dense);
    else
        return ts::sparsify<Storage>(dense, ts::magnitude_threshold{c.threshold});
}

template <class Storage>
void run_case(benchmark::State& state, case_parameters const& c) {
    auto const weights = weights_of<Storage>(c);
    auto const operand = ts::linear{weights};
    auto const exec = policy(c.threads);
    auto const canonical = static_cast<double>(weights.bytes());
    auto const first = ts::place(exec, operand);
    std::vector<decltype(ts::place(exec, first.view()))> copies;
    for (std::size_t i = bench::copies_beyond_caches(static_cast<double>(first.bytes())); i > 0; --i)
        copies.push_back(ts::place(exec, first.view()));

    auto const x = random_matrix(c.m, c.k, 2);
    ts::matrix<float> y{c.m, c.n}, expected{c.m, c.n};
    ts::apply(exec, copies.front(), x, y);
    ts::apply(ts::reference{}, operand, x.view(), expected.view());
    double largest = 0, difference = 0;
    for (ts::index_t i = 0; i < y.size(); ++i) {
        largest = std::max(largest, std::fabs(static_cast<double>(expected.data()[i])));
        difference = std::max(difference, std::fabs(static_cast<double>(y.data()[i] - expected.data()[i])));
    }
    if (!(difference <= 1e-4 * largest)) return state.SkipWithError("differs from the reference");

    bench::work const work{.bytes = canonical, .float_operations = 2.0 * static_cast<double>(c.m * weights.nonzeros())};
    for (auto _ : state)
        bench::measure(state, work, c.threads, [&](std::size_t i) { ts::apply(exec, copies[i % copies.size()], x, y); });
    state.counters["placed_bytes"] = static_cast<double>(first.bytes());
    state.counters["nonzeros"] = static_cast<double>(weights.nonzeros());
}

template <class Storage>
void add(std::string const& storage, std::string const& kept, float threshold, std::initializer_list<ts::index_t> rows) {
    for (ts::index_t const m : rows)
        for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
            std::string const name = "sparse/" + storage + "/" + kept + "/m:" + std::to_string(m) +
                                     "/n:4096/k:4096/from:dram/threads:" + std::to_string(threads);
            case_parameters const c{m, 4096, 4096, threads, threshold};
            benchmark::RegisterBenchmark(name.c_str(), [c](benchmark::State& state) { run_case<Storage>(state, c); })
                ->Iterations(1)
                ->UseManualTime()
                ->Unit(benchmark::kMillisecond);
        }
}

int const registered = [] {
    add<ts::csr<ts::fp16>>("csr_fp16", "1%", 0.99f, {1, 8, 64, 512});
    add<ts::csr<ts::fp16>>("csr_fp16", "5%", 0.95f, {1, 8, 64, 512});
    add<ts::csr<float>>("csr_fp32", "5%", 0.95f, {1, 64, 512});
    add<ts::csr<ts::int8>>("csr_int8", "5%", 0.95f, {1});
    add<ts::n_of_m<2, 4, ts::fp16>>("fp16", "2_of_4", 0, {1, 8, 64, 512});
    add<ts::n_of_m<2, 4, ts::int8>>("int8", "2_of_4", 0, {1, 8, 512});
    return 0;
}();

} // namespace
