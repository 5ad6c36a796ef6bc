// SPDX-License-Identifier: MIT
// The row operations of nn/: `<operation>/<elements>/rows:<m>/columns:<n>/in:l2|dram/threads:<t>`.
//
//     gbps       bytes of inputs and output a second
//     of_limit   time of copying the same number of bytes (read and written ones together), by std::memcpy in the same
//                memory and the same process, over the kernel's; paired runs, medians
//     copy_gbps  that copy's rate, read and written bytes

#include "support/measure.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/nn/activation.hpp>
#include <tessera/nn/norm.hpp>
#include <tessera/nn/rope.hpp>
#include <tessera/nn/softmax.hpp>
#include <tessera/numerics/error_bounds.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr index_t heads = 8; // of rope: a row is a token

/// Sets of a, b and y in one piece of memory; call i uses set i % copies.
template <class T>
class arrays {
public:
    arrays(index_t m, index_t n, std::size_t copies) : m_{m}, n_{n}, copies_{copies}, memory_{copies * 3 * bytes()} {
        ts::philox const random{1};
        std::vector<T> numbers(8192);
        for (std::size_t i = 0; i < numbers.size(); ++i) numbers[i] = static_cast<T>(random.normal(i));
        for (std::size_t c = 0; c < copies; ++c)
            for (index_t i = 0; i < 2 * m * n; ++i) at(c, 0)[i] = numbers[static_cast<std::size_t>(i) % numbers.size()];
    }

    ts::matrix_view<T const> a(std::size_t c) const { return ts::matrix_view<T const>{at(c, 0), m_, n_}; }
    ts::matrix_view<T const> b(std::size_t c) const { return ts::matrix_view<T const>{at(c, 1), m_, n_}; }
    ts::matrix_view<T> y(std::size_t c) const { return ts::matrix_view<T>{at(c, 2), m_, n_}; }
    std::size_t bytes() const { return static_cast<std::size_t>(m_ * n_) * sizeof(T); } // of one array

private:
    T* at(std::size_t c, std::size_t which) const {
        return reinterpret_cast<T*>(memory_.data() + (c % copies_ * 3 + which) * bytes());
    }

    index_t m_;
    index_t n_;
    std::size_t copies_;
    bench::pages memory_;
};

/// Parameters of the operations, for rows of n.
struct parameters {
    ts::vector<float> weight;
    ts::vector<float> bias;
    ts::rope_table table;

    parameters(index_t m, index_t n) : weight(n), bias(n), table(m, n / heads) {
        for (index_t k = 0; k < n; ++k) weight(k) = 1 + ts::philox{2}.normal(static_cast<std::uint64_t>(k)) / 8;
    }
};

template <class T>
ts::tensor_view<T, 3> as_heads(ts::matrix_view<T> x) {
    return ts::tensor_view<T, 3>{x.data_handle(), x.extent(0), heads, x.extent(1) / heads};
}

struct rms_norm {
    static constexpr char const* name = "rms_norm";
    static constexpr int arrays = 2;
    static void run(auto const& exec, parameters const& p, auto a, auto, auto y) { ts::rms_norm(exec, a, p.weight, 1e-5f, y); }
};
struct layer_norm {
    static constexpr char const* name = "layer_norm";
    static constexpr int arrays = 2;
    static void run(auto const& exec, parameters const& p, auto a, auto, auto y) {
        ts::layer_norm(exec, a, p.weight, p.bias, 1e-5f, y);
    }
};
struct softmax {
    static constexpr char const* name = "softmax";
    static constexpr int arrays = 2;
    static void run(auto const& exec, parameters const&, auto a, auto, auto y) { ts::softmax(exec, a, y); }
};
template <class F>
struct activate {
    static constexpr char const* name = F::name;
    static constexpr int arrays = 2;
    static void run(auto const& exec, parameters const&, auto a, auto, auto y) { ts::activate(exec, F{}, a, y); }
};
struct swiglu {
    static constexpr char const* name = "swiglu";
    static constexpr int arrays = 3;
    static void run(auto const& exec, parameters const&, auto a, auto b, auto y) { ts::swiglu(exec, a, b, y); }
};
struct add {
    static constexpr char const* name = "add";
    static constexpr int arrays = 3;
    static void run(auto const& exec, parameters const&, auto a, auto b, auto y) { ts::add(exec, a, b, y); }
};
template <class Style>
struct rope {
    static constexpr char const* name = Style::name;
    static constexpr int arrays = 2;
    static void run(auto const& exec, parameters const& p, auto a, auto, auto y) {
        ts::rope(exec, Style{}, as_heads(a), p.table, 0, as_heads(y));
    }
};

/// Within the rounding of a sum over a row, and of storing, for data of order one.
template <class Operation, class T>
void check_against_reference(arrays<T> const& a, parameters const& p) {
    auto const y = a.y(0);
    std::vector<T> const actual(y.data_handle(), y.data_handle() + y.size());
    Operation::run(ts::reference{}, p, a.a(0), a.b(0), y);
    double const allowed = ts::gamma(y.extent(1) + 16, ts::unit_roundoff<float>) + 2 * ts::unit_roundoff<T>;
    for (index_t i = 0; i < y.size(); ++i) {
        double const expected = static_cast<double>(y.data_handle()[i]);
        if (!(std::abs(static_cast<double>(actual[static_cast<std::size_t>(i)]) - expected) <=
              allowed * (std::abs(expected) + 4)))
            throw std::runtime_error{std::string{Operation::name} + ": the kernel differs from the reference"};
    }
}

template <class Operation, class T>
void run(benchmark::State& state, index_t m, index_t n, bool in_dram, int threads) {
    bench::pin_threads(threads);
    std::size_t const set = static_cast<std::size_t>(3 * m * n) * sizeof(T);
    std::size_t const copies = in_dram ? bench::copies_beyond_caches(static_cast<double>(set)) : 1;
    arrays<T> const a{m, n, copies};
    parameters const p{m, n};
    auto const kernel = [&](std::size_t i) {
        if (threads == 1)
            Operation::run(ts::cpu<ts::native_arch, ts::serial>{}, p, a.a(i), a.b(i), a.y(i));
        else
            Operation::run(ts::cpu<>{}, p, a.a(i), a.b(i), a.y(i));
    };
    kernel(0);
    check_against_reference<Operation>(a, p);

    // Call i copies as many bytes as the kernel reads, to as many as it writes, of a memory of the same size.
    std::size_t const moved = static_cast<std::size_t>(Operation::arrays) * a.bytes() / 2;
    bench::pages const memory{copies * 2 * moved};
    auto const limit = [&](std::size_t i) {
        std::byte* const from = memory.data() + i % copies * 2 * moved;
        std::size_t const part = moved / static_cast<std::size_t>(threads);
        auto const copy = [&](int worker) {
            std::size_t const at = static_cast<std::size_t>(worker) * part;
            std::memcpy(from + moved + at, from + at, part);
        };
        threads == 1 ? copy(0) : bench::on_each_thread(threads, copy);
    };

    for ([[maybe_unused]] auto _ : state) {
        constexpr double least = 0.02;
        std::size_t at = 0;
        std::size_t limit_at = 0;
        std::size_t const calls = bench::detail::calls_for(kernel, at, least);
        std::size_t const limit_calls = bench::detail::calls_for(limit, limit_at, least);
        std::vector<double> times;
        std::vector<double> limits;
        std::vector<double> shares;
        for (int round = bench::rounds(); round > 0; --round) {
            limits.push_back(bench::detail::time_calls(limit, limit_at, limit_calls));
            times.push_back(bench::detail::time_calls(kernel, at, calls));
            shares.push_back(limits.back() / times.back());
        }
        double const time = bench::median(times);
        state.SetIterationTime(time);
        state.counters["gbps"] = 2 * static_cast<double>(moved) / time / 1e9;
        state.counters["copy_gbps"] = 2 * static_cast<double>(moved) / bench::median(limits) / 1e9;
        state.counters["of_limit"] = bench::median(shares);
    }
}

template <class Operation, class T>
void register_one(char const* elements) {
    auto const one = [&](index_t m, index_t n, bool in_dram, int threads) {
        auto const name = std::string{Operation::name} + "/" + elements + "/rows:" + std::to_string(m) +
                          "/columns:" + std::to_string(n) + "/in:" + (in_dram ? "dram" : "l2") +
                          "/threads:" + std::to_string(threads);
        benchmark::RegisterBenchmark(name.c_str(), run<Operation, T>, m, n, in_dram, threads)
            ->Iterations(1)
            ->UseManualTime()
            ->Unit(benchmark::kMicrosecond);
    };
    one(1, 4096, false, 1);
    one(32, 1536, false, 1);
    one(1024, 4096, true, 1);
    if (bench::most_threads() > 1) one(1024, 4096, true, bench::most_threads());
}

template <class Operation>
void register_all() {
    register_one<Operation, float>("fp32");
    register_one<Operation, ts::bf16>("bf16");
}

[[maybe_unused]] bool const registered = [] {
    register_all<rms_norm>();
    register_all<layer_norm>();
    register_all<softmax>();
    register_all<activate<ts::activation::silu>>();
    register_all<activate<ts::activation::gelu_erf>>();
    register_all<activate<ts::activation::gelu_tanh>>();
    register_all<swiglu>();
    register_all<add>();
    register_all<rope<ts::rope_interleaved>>();
    register_all<rope<ts::rope_halves>>();
    return true;
}();

} // namespace
