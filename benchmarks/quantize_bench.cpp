// SPDX-License-Identifier: MIT
// Rounding of float32 weights to schemes: `quantize/<scheme>/<range>/n:4096/k:4096/threads:<t>`. gbps: float32 bytes a second,
// w from memory, into a tensor that is there; of_limit: against reading w once at the machine's rate.

#include "support/measure.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/quant/quantize.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

constexpr ts::index_t size = 4096;

template <class Scheme, class Range>
void run(benchmark::State& state, int threads, ts::rounding mode) {
    bench::pin_threads(threads);
    constexpr std::size_t copies = 20; // beyond the caches of most machines: 1.25 GiB
    std::vector<ts::matrix<float>> w;
    ts::philox const random{1};
    std::vector<float> numbers(65536);
    for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = random.normal(i);
    for (std::size_t c = 0; c < copies; ++c) {
        w.emplace_back(size, size);
        for (ts::index_t i = 0; i < size * size; ++i)
            w.back().data()[i] = numbers[static_cast<std::size_t>(i) % numbers.size()];
    }
    ts::quantized_tensor<Scheme> q{size, size};
    auto const kernel = [&](std::size_t i) {
        ts::matrix_view<float const> const from = w[i % copies].view();
        if (threads == 1)
            ts::quantize(ts::cpu<ts::native_arch, ts::serial>{}, from, Range{}, {.mode = mode}, q);
        else
            ts::quantize(ts::cpu<>{ts::default_parallel{}}, from, Range{}, {.mode = mode}, q);
    };
    bench::work const work{.bytes = 4.0 * size * size};
    for ([[maybe_unused]] auto _ : state) bench::measure(state, work, threads, kernel);
}

template <class Scheme, class Range>
void add(char const* scheme, char const* range, ts::rounding mode = ts::rounding::nearest_even) {
    for (int threads = 1; threads <= bench::most_threads(); threads += std::max(1, bench::most_threads() - 1)) {
        std::string const name = std::string{"quantize/"} + scheme + "/" + range + "/n:4096/k:4096/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), run<Scheme, Range>, threads, mode)
            ->Iterations(1)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    }
}

[[maybe_unused]] bool const added = [] {
    add<ts::int4_g128, ts::min_max_range>("int4_g128", "min_max");
    add<ts::int4_g32, ts::min_max_range>("int4_g32", "min_max");
    add<ts::uint4_g128, ts::min_max_range>("uint4_g128", "min_max");
    add<ts::scheme<ts::int3, ts::group<128>, ts::fp16>, ts::min_max_range>("int3_g128", "min_max");
    add<ts::int8_per_channel, ts::min_max_range>("int8_per_channel", "min_max");
    add<ts::nf4_g64, ts::min_max_range>("nf4_g64", "min_max");
    add<ts::mx_e2m1, ts::min_max_range>("mx_e2m1", "min_max");
    add<ts::nv_e2m1, ts::min_max_range>("nv_e2m1", "min_max");
    add<ts::int4_g128, ts::min_max_range>("int4_g128", "min_max_stochastic", ts::rounding::stochastic);
    add<ts::nv_e2m1, ts::min_max_range>("nv_e2m1", "min_max_stochastic", ts::rounding::stochastic);
    add<ts::int4_g128, ts::percentile_range>("int4_g128", "percentile");
    add<ts::int4_g128, ts::least_error_range>("int4_g128", "least_error");
    add<ts::int4_g128, ts::lloyd_max_range>("int4_g128", "lloyd_max");
    return true;
}();

} // namespace
