// SPDX-License-Identifier: MIT
//
// A mixture of gated INT4 experts, placed: moe/int4_g32/int8_per_group_32/e:E/k:K/tokens:T/h:H/f:F/from:dram/threads:N.
// Every call has other tokens. The bytes of `of_limit` are those of the experts that its tokens choose, each read once, and
// of the router; its operations are those of the chosen experts. Each case compares itself with `reference` before it is timed.
//
//     used           experts with a token, mean of the calls
//     vs_one_by_one  speed over the experts' products alone, one `apply` after another on rows that are gathered already

#include "support/measure.hpp"
#include "support/operands.hpp"

#include <tessera/core/philox.hpp>
#include <tessera/moe/moe.hpp>
#include <tessera/nn/activation.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

using bench::policy;

using scheme = ts::int4_g32;
using int4 = ts::linear<ts::quantized<scheme>, ts::int8_per_group<32>>;
using unit = ts::gated_expert<int4>;
using router = ts::top_k_router<ts::matrix_view<float const>, ts::renormalized<ts::softmax_gate>>;
using block = ts::moe<router, unit>;
using ready = ts::placed<ts::cpu<>, block>;

struct shape {
    index_t experts, k, h, f;
    bool operator==(shape const&) const = default;
};

void fill(ts::matrix<float>& m, std::uint64_t seed, float scale) {
    ts::philox const random{seed};
    for (index_t i = 0; i < m.size(); ++i) m.data()[i] = scale * random.normal(static_cast<std::uint64_t>(i));
}

/// Blocks that together do not fit any cache. Experts have the same numbers, each at its own place in memory.
struct weights {
    shape s;
    ts::matrix<float> logits_of;
    ts::quantized_tensor<scheme> gate, up, down;
    std::vector<unit> units;
    std::vector<ready> copies;
    double expert_bytes;

    explicit weights(shape const& of)
        : s{of}, logits_of{s.experts, s.h}, gate{bench::random_codes<scheme>(s.f, s.h, 1, 0.004f)},
          up{bench::random_codes<scheme>(s.f, s.h, 2, 0.004f)},
          down{bench::random_codes<scheme>(s.h, s.f, 3, 0.004f)},
          units(static_cast<std::size_t>(s.experts), unit{int4{gate.view()}, int4{up.view()}, int4{down.view()}}),
          expert_bytes{static_cast<double>(gate.bytes() + up.bytes() + down.bytes())} {
        fill(logits_of, 4, 1 / std::sqrt(static_cast<float>(s.h)));
        auto const exec = policy(bench::most_threads());
        for (std::size_t c = bench::copies_beyond_caches(expert_bytes * static_cast<double>(s.experts)); c > 0; --c)
            copies.push_back(ts::place(exec, view()));
    }
    block view() const { return {router{logits_of.view(), s.k, ts::renormalized{ts::softmax_gate{}}}, units}; }
};

/// The weights of the last shape asked for.
weights const& weights_of(shape const& s) {
    static std::unique_ptr<weights> last;
    if (last == nullptr || !(last->s == s)) {
        last.reset();
        last = std::make_unique<weights>(s);
    }
    return *last;
}

/// The products of all chosen experts by themselves: one `apply` after another on rows that are gathered already.
struct one_by_one {
    ts::matrix<float> x, gate, up, hidden, y;
    std::vector<std::vector<index_t>> loads; // of the experts, for each input
    one_by_one(shape const& s, index_t tokens)
        : x{tokens, s.h}, gate{tokens, s.f}, up{tokens, s.f}, hidden{tokens, s.f}, y{tokens, s.h} {
        fill(x, 6, 1);
    }
    template <class Block>
    void run(ts::cpu<> const& exec, Block const& w, std::size_t input) {
        for (std::size_t e = 0; e < w.experts().size(); ++e) {
            index_t const m = loads[input][e];
            if (m == 0) continue;
            ts::apply(exec, w.experts()[e].gate(), ts::rows(x.view(), 0, m), ts::rows(gate.view(), 0, m));
            ts::apply(exec, w.experts()[e].up(), ts::rows(x.view(), 0, m), ts::rows(up.view(), 0, m));
            ts::swiglu(exec, ts::rows(gate.view(), 0, m), ts::rows(up.view(), 0, m), ts::rows(hidden.view(), 0, m));
            ts::apply(exec, w.experts()[e].down(), ts::rows(hidden.view(), 0, m), ts::rows(y.view(), 0, m));
        }
    }
};

void run(benchmark::State& state, shape const& s, index_t tokens, int threads) {
    auto const exec = policy(threads);
    weights const& w = weights_of(s);
    constexpr std::size_t inputs = 16;
    std::vector<ts::matrix<float>> x;
    ts::matrix<float> y{tokens, s.h};
    ts::vector<index_t> counts(s.experts);
    one_by_one alone{s, tokens};
    double used = 0;
    for (std::size_t i = 0; i < inputs; ++i) {
        x.emplace_back(tokens, s.h);
        fill(x.back(), 10 + i, 1);
        used += static_cast<double>(ts::apply(exec, w.copies[0], x.back(), y, counts.view()).used) / inputs;
        alone.loads.emplace_back(counts.data(), counts.data() + s.experts);
    }
    index_t const checked = std::min<index_t>(tokens, 2);
    ts::matrix<float> expected{checked, s.h};
    ts::apply(ts::reference{}, w.view(), ts::rows(x.back().view(), 0, checked), expected);
    double largest = 0, difference = 0;
    for (index_t t = 0; t < checked; ++t)
        for (index_t n = 0; n < s.h; ++n) {
            largest = std::max(largest, std::fabs(static_cast<double>(expected(t, n))));
            difference = std::max(difference, std::fabs(static_cast<double>(y(t, n) - expected(t, n))));
        }
    // The hidden row is rounded to int8: a code may fall to either side of a tie.
    if (!(difference <= 1e-2 * largest)) return state.SkipWithError("differs from the reference");

    double const expert_operations = 6.0 * static_cast<double>(s.h * s.f);
    bench::work const work{.bytes = used * w.expert_bytes + static_cast<double>(w.logits_of.size()) * sizeof(float),
                           .int_operations = static_cast<double>(tokens * s.k) * expert_operations};
    std::vector<bench::peer> const peers{
        {"one_by_one", [&](std::size_t i) { alone.run(exec, w.copies[i % w.copies.size()].view(), i % inputs); }}};
    for (auto _ : state)
        bench::measure(state, work, threads,
                       [&](std::size_t i) { ts::apply(exec, w.copies[i % w.copies.size()], x[i % inputs], y); }, peers);
    state.counters["used"] = used;
}

int const registered = [] {
    for (shape const s : {shape{8, 2, 2048, 1408}, shape{64, 8, 2048, 768}})
        for (index_t const tokens : {1, 16, 512})
            for (int threads = 1; threads <= bench::most_threads(); threads *= 2) {
                auto const number = [](index_t i) { return std::to_string(i); };
                std::string const name = "moe/int4_g32/int8_per_group_32/e:" + number(s.experts) + "/k:" + number(s.k) +
                                         "/tokens:" + number(tokens) + "/h:" + number(s.h) + "/f:" + number(s.f) +
                                         "/from:dram/threads:" + std::to_string(threads);
                benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { run(state, s, tokens, threads); })
                    ->Iterations(1)
                    ->UseManualTime()
                    ->Unit(benchmark::kMillisecond);
            }
    return 0;
}();

} // namespace
