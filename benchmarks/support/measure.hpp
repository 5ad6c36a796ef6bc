// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Paired measurement: a kernel, the machine's limits and the peers run in turn, at least 15 rounds, and medians are
/// reported. Neighbours move the memory's rate by a third within minutes; a ratio of runs taken in the same tenth of a
/// second does not move.
///
///     bench::work const work{.bytes = canonical, .int_operations = 2.0 * m * n * k};
///     for (auto _ : state) bench::measure(state, work, threads, [&](std::size_t i) { apply(exec, w[i % copies], x, y); });
///
/// Register with ->Iterations(1)->UseManualTime()->Unit(benchmark::kMillisecond): one iteration is the whole series.

#include "own_thread.hpp"
#include "roofline.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <utility>

namespace bench {

/// What one call of the kernel must do at least. Bytes are the format's stored bytes with scales, not the placed form's.
struct work {
    double bytes = 0;
    double int_operations = 0;   // against the int8 peak
    double float_operations = 0; // against the float32 peak
    double bf16_operations = 0;  // against the peak of bf16 tiles
};

/// Something else that does the same: `run(i)` is timed in turn with the kernel and reported as vs_<name>. A library with
/// threads or registers of its own gets a thread of its own (own_thread.hpp); without one the kernel's is used.
struct peer {
    std::string name;
    std::function<void(std::size_t)> run;
    std::shared_ptr<own_thread> thread = nullptr;
};

inline double median(std::vector<double> values) {
    if (values.empty()) return 0;
    auto const middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

/// Copies of an operand that together do not fit any cache (1.25 GiB): call i uses copy i % copies.
inline std::size_t copies_beyond_caches(double bytes) {
    return static_cast<std::size_t>(std::ceil(double(std::size_t{1280} << 20) / std::max(bytes, 1.0)));
}

/// The same for a product with m rows of activations. Many rows are bound by arithmetic, where a few copies do, and more
/// would have the peers lay out gigabytes.
inline std::size_t copies_for_rows(double bytes, std::ptrdiff_t m) {
    return m < 64 ? copies_beyond_caches(bytes) : std::min<std::size_t>(copies_beyond_caches(bytes), 16);
}

/// Rounds of a series: 15, more with BENCH_ROUNDS; `benchmarks/run.sh --quick` asks for fewer.
inline int rounds() {
    char const* const asked = std::getenv("BENCH_ROUNDS");
    return asked != nullptr ? std::max(1, std::atoi(asked)) : 15;
}

namespace detail {

/// Calls f(i) until about `least` seconds are over, then returns the seconds a call took. `i` goes on counting.
template <class F>
double time_calls(F const& f, std::size_t& i, std::size_t calls) {
    double const start = now();
    for (std::size_t c = 0; c < calls; ++c) f(i++);
    return (now() - start) / static_cast<double>(calls);
}

/// The number of calls that take about `least` seconds, found by doubling; warms up on the way.
template <class F>
std::size_t calls_for(F const& f, std::size_t& i, double least) {
    for (std::size_t calls = 1;; calls *= 2) {
        double const time = time_calls(f, i, calls) * static_cast<double>(calls);
        if (time >= least) return calls;
        if (time > least / 16) return std::max<std::size_t>(1, static_cast<std::size_t>(double(calls) * least / time));
    }
}

/// f() where the peer is to run. The clock is read there, so that changing threads is not timed.
template <class F>
auto at(peer const& p, F const& f) {
    return p.thread == nullptr ? f() : p.thread->run(f);
}

} // namespace detail

/// Times kernel(i) for i = 0, 1, 2, ... in rounds with the limits that `work` needs and with the peers, and writes the
/// counters gbps, gflops, of_limit, read_gbps, vs_<peer> and the manual time (the median second a call) into `state`.
template <class Kernel>
void measure(benchmark::State& state, work const& work, int threads, Kernel const& kernel,
             std::vector<peer> const& peers = {}) {
    constexpr double least = 0.02; // seconds a run: well above the clock and the start of threads
    pin_threads(threads);
    std::size_t next = 0;
    std::size_t const calls = detail::calls_for(kernel, next, least);
    std::vector<std::size_t> peer_calls, peer_next(peers.size(), 0);
    for (std::size_t p = 0; p < peers.size(); ++p) {
        peer_calls.push_back(detail::at(peers[p], [&] { return detail::calls_for(peers[p].run, peer_next[p], least); }));
    }

    std::vector<double> times, reads, shares;
    std::vector<std::vector<double>> speedups(peers.size());
    for (int round = rounds(); round > 0; --round) {
        double limit = 0;
        if (work.bytes > 0) {
            reads.push_back(dram_buffer().read(threads));
            limit = std::max(limit, work.bytes / (reads.back() * 1e9));
        }
        if (work.int_operations > 0)
            limit = std::max(limit, work.int_operations / (int8_peak(threads, 200000) * 1e9));
        if (work.float_operations > 0)
            limit = std::max(limit, work.float_operations / (float_peak(threads, 200000) * 1e9));
        if (work.bf16_operations > 0)
            limit = std::max(limit, work.bf16_operations / (bf16_peak(threads, 200000) * 1e9));
        times.push_back(detail::time_calls(kernel, next, calls));
        shares.push_back(limit / times.back());
        for (std::size_t p = 0; p < peers.size(); ++p) {
            double const time =
                detail::at(peers[p], [&] { return detail::time_calls(peers[p].run, peer_next[p], peer_calls[p]); });
            speedups[p].push_back(time / times.back());
        }
    }

    double const time = median(times);
    state.SetIterationTime(time);
    if (work.bytes > 0) {
        state.counters["gbps"] = work.bytes / time / 1e9;
        state.counters["read_gbps"] = median(reads);
        state.counters["bytes"] = work.bytes;
    }
    double const operations = work.int_operations + work.float_operations;
    if (operations > 0) {
        state.counters["gflops"] = operations / time / 1e9;
        state.counters["operations"] = operations;
    }
    if (work.bytes > 0 || operations > 0) state.counters["of_limit"] = median(shares);
    for (std::size_t p = 0; p < peers.size(); ++p) state.counters["vs_" + peers[p].name] = median(speedups[p]);
}

} // namespace bench
