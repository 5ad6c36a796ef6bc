// SPDX-License-Identifier: MIT
// Conversion between float32 and every narrow type: `convert/<from>_to_<to>/n:<elements>/in:l2|dram/threads:<t>`.
//
//     gbps       float32 bytes a second
//     of_limit   time of copying the same number of bytes (read and written ones together), by std::memcpy in the same
//                memory and the same process, over the kernel's; paired runs, medians
//     copy_gbps  that copy's rate, read and written bytes

#include "support/measure.hpp"

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/quant/convert.hpp>

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace ts = tessera;

namespace {

/// x and y in one piece of memory, `copies` pairs of them, so that in the dram cases no cache has them.
template <class X, class Y>
class arrays {
public:
    arrays(ts::index_t n, std::size_t copies) : n_{n}, memory_{copies * pair_bytes()}, copies_{copies} {
        // Numbers of every binade around 1, and of both signs; not all of them fit a narrow type.
        std::uint32_t state = 1;
        std::vector<X> numbers(4096);
        for (X& number : numbers) {
            state = state * 1664525u + 1013904223u;
            float const magnitude = static_cast<float>(state >> 8) * 0x1p-24f;
            number = ts::from_float<X>((state & 128u) != 0 ? magnitude * 16 : -magnitude);
        }
        for (std::size_t c = 0; c < copies; ++c)
            for (ts::index_t i = 0; i < n; ++i) x(c)[i] = numbers[static_cast<std::size_t>(i) % numbers.size()];
    }

    X* x(std::size_t c) const { return reinterpret_cast<X*>(memory_.data() + c % copies_ * pair_bytes()); }
    Y* y(std::size_t c) const { return reinterpret_cast<Y*>(memory_.data() + c % copies_ * pair_bytes() + x_bytes()); }
    [[nodiscard]] std::size_t x_bytes() const { return static_cast<std::size_t>(n_) * sizeof(X); }
    [[nodiscard]] std::size_t pair_bytes() const { return static_cast<std::size_t>(n_) * (sizeof(X) + sizeof(Y)); }

private:
    ts::index_t n_;
    bench::pages memory_;
    std::size_t copies_;
};

/// Two halves of a memory like the kernel's: call i copies half a pair.
struct copy {
    bench::pages memory;
    std::size_t half;

    void operator()(std::size_t i, int threads) const {
        std::size_t const pairs = memory.size() / (2 * half);
        std::byte* const from = memory.data() + i % pairs * 2 * half;
        std::size_t const part = half / static_cast<std::size_t>(threads);
        if (threads == 1) {
            std::memcpy(from + half, from, half);
            return;
        }
        bench::on_each_thread(threads, [&](int worker) {
            std::size_t const at = static_cast<std::size_t>(worker) * part;
            std::memcpy(from + half + at, from + at, part);
        });
    }
};

template <class X, class Y>
void check_against_reference(arrays<X, Y> const& a, ts::index_t n) {
    std::vector<Y> expected(static_cast<std::size_t>(n));
    ts::convert(ts::reference{}, ts::vector_view<X const>{a.x(0), n}, ts::vector_view<Y>{expected.data(), n});
    if (std::memcmp(expected.data(), a.y(0), expected.size() * sizeof(Y)) != 0)
        throw std::runtime_error{"convert: the kernel differs from the reference"};
}

template <class X, class Y>
void run(benchmark::State& state, ts::index_t n, std::size_t copies, int threads) {
    bench::pin_threads(threads);
    arrays<X, Y> const a{n, copies};
    auto const kernel = [&](std::size_t i) {
        ts::vector_view<X const> const x{a.x(i), n};
        ts::vector_view<Y> const y{a.y(i), n};
        if (threads == 1)
            ts::convert(ts::cpu<ts::native_arch, ts::serial>{}, x, y);
        else
            ts::convert(ts::cpu<>{ts::default_parallel{}}, x, y);
    };
    kernel(0);
    check_against_reference(a, n);
    copy const plain{bench::pages{copies * a.pair_bytes()}, a.pair_bytes() / 2};
    auto const limit = [&](std::size_t i) { plain(i, threads); };

    for ([[maybe_unused]] auto _ : state) {
        constexpr double least = 0.02;
        std::size_t at = 0;
        std::size_t copy_at = 0;
        std::size_t const calls = bench::detail::calls_for(kernel, at, least);
        std::size_t const copy_calls = bench::detail::calls_for(limit, copy_at, least);
        std::vector<double> times;
        std::vector<double> copy_times;
        std::vector<double> shares;
        for (int round = bench::rounds(); round > 0; --round) {
            copy_times.push_back(bench::detail::time_calls(limit, copy_at, copy_calls));
            times.push_back(bench::detail::time_calls(kernel, at, calls));
            shares.push_back(copy_times.back() / times.back());
        }
        double const time = bench::median(times);
        state.SetIterationTime(time);
        state.counters["gbps"] = static_cast<double>(n) * sizeof(float) / time / 1e9;
        state.counters["copy_gbps"] = static_cast<double>(a.pair_bytes()) / bench::median(copy_times) / 1e9;
        state.counters["of_limit"] = bench::median(shares);
    }
}

template <class X, class Y>
void add(char const* from, char const* to) {
    constexpr std::size_t element = sizeof(X) + sizeof(Y);
    auto const one = [&](char const* place, ts::index_t n, std::size_t copies, int threads) {
        auto const name = std::string{"convert/"} + from + "_to_" + to + "/n:" + std::to_string(n) + "/in:" + place +
                          "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), run<X, Y>, n, copies, threads)
            ->Iterations(1)
            ->UseManualTime()
            ->Unit(benchmark::kMillisecond);
    };
    one("l2", static_cast<ts::index_t>((std::size_t{512} << 10) / element / 1024 * 1024), 1, 1);
    constexpr ts::index_t large = 1 << 24;
    std::size_t const copies = bench::copies_beyond_caches(static_cast<double>(element) * large);
    one("dram", large, copies, 1);
    if (bench::most_threads() > 1) one("dram", large, copies, bench::most_threads());
}

template <class T>
void add_both(char const* name) {
    add<float, T>("fp32", name);
    add<T, float>(name, "fp32");
}

[[maybe_unused]] bool const added = [] {
    add_both<ts::bf16>("bf16");
    add_both<ts::fp16>("fp16");
    add_both<ts::e4m3fn>("e4m3fn");
    add_both<ts::e5m2>("e5m2");
    add_both<ts::e5m2fnuz>("e5m2fnuz");
    add_both<ts::e4m3b11fnuz>("e4m3b11fnuz");
    add_both<ts::e8m0>("e8m0");
    add_both<ts::e2m3>("e2m3");
    add_both<ts::e2m1>("e2m1");
    add_both<std::int8_t>("int8");
    return true;
}();

} // namespace
