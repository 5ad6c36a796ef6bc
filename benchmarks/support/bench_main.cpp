// SPDX-License-Identifier: MIT
// The main of every benchmark: measures the machine's limits first, so that each JSON file carries them.

#include "roofline.hpp"

#include <benchmark/benchmark.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace {

void add_context(std::string const& name, double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.1f", value);
    benchmark::AddCustomContext(name, text);
}

} // namespace

int main(int count, char** arguments) {
    // A peer built with clang brings LLVM's OpenMP, whose workers spin for 200 ms after a loop, into the next one's time.
    setenv("KMP_BLOCKTIME", "1", 0);
    bool only_list = false;
    for (int i = 1; i < count; ++i)
        only_list = only_list || std::string(arguments[i]).rfind("--benchmark_list_tests", 0) == 0;
    benchmark::Initialize(&count, arguments);
    if (benchmark::ReportUnrecognizedArguments(count, arguments)) return 1;
    if (!only_list) {
        int const most = bench::most_threads();
        for (int threads = 1; threads <= most; threads += std::max(1, most - 1)) {
            bench::pin_threads(threads);
            bench::limits const limits = bench::measure_limits(threads);
            std::string const prefix = "limit_" + std::to_string(threads) + "t_";
            add_context(prefix + "dram_gbps", limits.dram);
            add_context(prefix + "copy_gbps", limits.dram_copy);
            add_context(prefix + "l3_gbps", limits.level_3);
            add_context(prefix + "l2_gbps", limits.level_2);
            add_context(prefix + "fp32_gflops", limits.float32);
            add_context(prefix + "int8_gops", limits.int8);
            add_context(prefix + "bf16_gflops", limits.bf16);
        }
    }
    benchmark::RunSpecifiedBenchmarks();
    return 0;
}
