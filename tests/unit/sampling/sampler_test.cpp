// SPDX-License-Identifier: MIT
#include <doctest/doctest.h>

#include <tessera/core/slice.hpp>
#include <tessera/sampling/sampler.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan_value = std::numeric_limits<float>::quiet_NaN();

ts::vector_view<float const> view(std::vector<float> const& v) {
    return ts::vector_view<float const>{v.data(), static_cast<index_t>(v.size())};
}

std::vector<float> random_logits(std::size_t n, std::uint64_t seed, float scale = 3.0f) {
    std::vector<float> v(n);
    for (std::size_t i = 0; i < n; ++i) v[i] = scale * ts::philox{seed}.normal(i);
    return v;
}

/// The definition by full sorting: which tokens may be drawn, with their probability.
std::vector<std::pair<index_t, double>> allowed(std::vector<float> const& logits, ts::sampling_options const& o) {
    std::vector<std::pair<index_t, double>> p;
    float const top = *std::max_element(logits.begin(), logits.end());
    for (std::size_t i = 0; i < logits.size(); ++i)
        p.emplace_back(static_cast<index_t>(i), std::exp((double{logits[i]} - double{top}) / double{o.temperature}));
    std::sort(p.begin(), p.end(), [](auto const& a, auto const& b) {
        return a.second != b.second ? a.second > b.second : a.first < b.first;
    });
    if (o.top_k > 0 && o.top_k < static_cast<index_t>(p.size())) p.resize(static_cast<std::size_t>(o.top_k));
    auto const total = [&] {
        double s = 0;
        for (auto const& x : p) s += x.second;
        return s;
    };
    double const all = total();
    double sum = 0;
    std::size_t kept = 0;
    while (kept < p.size() && (kept == 0 || sum < double{o.top_p} * all)) sum += p[kept++].second;
    if (o.top_p < 1.0f) p.resize(kept);
    std::erase_if(p, [&](auto const& x) { return x.second < double{o.min_p}; });
    double const left = total();
    for (auto& x : p) x.second /= left;
    return p;
}

/// The definition: everything is computed, sorted and summed.
index_t defined(std::vector<float> const& logits, ts::sampling_options const& o, std::uint64_t step) {
    struct token {
        float logit;
        index_t index;
        double weight;
    };
    std::vector<token> kept;
    float top = -infinity;
    for (float const x : logits) top = x > top ? x : top;
    for (std::size_t i = 0; i < logits.size(); ++i) {
        double const w = std::exp((double{logits[i]} - double{top}) / double{o.temperature});
        if (w > 0x1p-1021) kept.push_back({logits[i], static_cast<index_t>(i), w}); // false for NaN
    }
    std::sort(kept.begin(), kept.end(), [](token const& a, token const& b) {
        return a.logit != b.logit ? a.logit > b.logit : a.index < b.index;
    });
    if (o.top_k > 0 && o.top_k < static_cast<index_t>(kept.size())) kept.resize(static_cast<std::size_t>(o.top_k));
    auto const total = [&] {
        return std::accumulate(kept.begin(), kept.end(), 0.0, [](double sum, token const& t) { return sum + t.weight; });
    };
    if (o.top_p < 1.0f) {
        double const wanted = double{o.top_p} * total();
        std::size_t n = 0;
        for (double sum = 0; n < kept.size() && (n == 0 || sum < wanted); ++n) sum += kept[n].weight;
        kept.resize(n);
    }
    std::erase_if(kept, [&](token const& t) { return t.weight < double{o.min_p}; });
    std::sort(kept.begin(), kept.end(), [](token const& a, token const& b) { return a.index < b.index; });
    ts::philox const random{o.seed, step};
    double const u = static_cast<double>(std::uint64_t{random.bits(0)} << 21 | random.bits(1) >> 11) * 0x1p-53;
    double const target = u * total();
    double sum = 0;
    for (token const& t : kept)
        if ((sum += t.weight) > target) return t.index;
    return kept.back().index;
}

} // namespace

TEST_CASE("greedy takes the first of equal largest logits and skips NaN") {
    ts::reference const exec;
    CHECK(ts::greedy(exec, view({1, 3, 2, 3})) == 1);
    CHECK(ts::greedy(exec, view({nan_value, -infinity, -5, nan_value})) == 2);
    CHECK(ts::greedy(exec, view({0, infinity, infinity})) == 1);
    CHECK(ts::sampler{{.temperature = 0}}(exec, view({1, 3, 2, 3}), 9) == 1);
    CHECK(ts::sampler{}(exec, view({0, infinity, 3, infinity}), 9) == 1);
}

TEST_CASE("the same seed and step give the same token, others differ somewhere") {
    ts::reference const exec;
    auto const logits = random_logits(1000, 1);
    ts::sampler const a{{.seed = 7}};
    ts::sampler const b{{.seed = 8}};
    index_t same_seed = 0;
    index_t other_seed = 0;
    for (std::uint64_t step = 0; step < 64; ++step) {
        same_seed += a(exec, view(logits), step) == ts::sampler{{.seed = 7}}(exec, view(logits), step);
        other_seed += a(exec, view(logits), step) == b(exec, view(logits), step);
    }
    CHECK(same_seed == 64);
    CHECK(other_seed < 32);
}

TEST_CASE("draws follow the filtered distribution") {
    ts::reference const exec;
    auto const logits = random_logits(41, 3);
    ts::sampling_options const cases[] = {
        {.seed = 1},
        {.temperature = 0.5f, .seed = 2},
        {.top_k = 5, .seed = 3},
        {.top_p = 0.8f, .seed = 4},
        {.min_p = 0.1f, .seed = 5},
        {.temperature = 1.7f, .top_k = 20, .top_p = 0.9f, .min_p = 0.02f, .seed = 6},
        {.top_p = 0.0f, .seed = 7},
        {.top_k = 1, .seed = 8},
        {.top_k = 100, .seed = 9},
    };
    constexpr int draws = 20000;
    for (auto const& options : cases) {
        CAPTURE(options.seed);
        auto const expected = allowed(logits, options);
        std::vector<double> count(logits.size());
        ts::sampler const draw{options};
        for (std::uint64_t step = 0; step < draws; ++step)
            count[static_cast<std::size_t>(draw(exec, view(logits), step))] += 1;
        double seen = 0;
        for (auto const& [index, p] : expected) {
            double const n = count[static_cast<std::size_t>(index)];
            seen += n;
            // Six standard deviations of a binomial: one false alarm in 10^9 draws of a test with a fixed seed.
            CHECK(std::abs(n - draws * p) <= 6 * std::sqrt(draws * p * (1 - p)) + 1e-9);
        }
        CHECK(seen == draws); // nothing outside the allowed set
    }
}

TEST_CASE("the token is the one of the definition, whatever is skipped on the way") {
    ts::reference const exec;
    auto const check = [&](std::vector<float> const& logits, ts::sampling_options options) {
        CAPTURE(logits.size());
        CAPTURE(options.temperature);
        CAPTURE(options.top_k);
        CAPTURE(options.top_p);
        CAPTURE(options.min_p);
        options.seed = 11;
        ts::sampler const draw{options};
        index_t wrong = 0;
        std::uint64_t const steps = logits.size() > 1000 ? 4 : 20;
        for (std::uint64_t step = 0; step < steps; ++step)
            wrong += draw(exec, view(logits), step) != defined(logits, options, step);
        CHECK(wrong == 0);
    };
    for (std::size_t const n : {1u, 2u, 17u, 255u, 256u, 257u, 700u, 5000u})
        for (float const scale : {0.0f, 1.0f, 5.0f}) {
            auto logits = random_logits(n, n, scale);
            for (std::size_t i = 3; i < n; i += 5) logits[i] = std::round(logits[i]); // equals
            if (n > 10) {
                logits[4] = nan_value;
                logits[8] = -infinity;
            }
            for (float const temperature : {1e-30f, 0.01f, 0.7f, 1.5f, 1e30f})
                for (index_t const top_k : {0, 1, 3, 40, 300})
                    for (float const top_p : {0.0f, 0.5f, 0.95f, 1.0f})
                        for (float const min_p : {0.0f, 0.05f, 1.0f})
                            check(logits, {.temperature = temperature, .top_k = top_k, .top_p = top_p, .min_p = min_p});
        }
}

TEST_CASE("weights are within 2 units in the last place of the exponential") {
    CHECK(ts::detail::decay(0.0) == 1.0);
    CHECK(ts::detail::decay(-709.0) == 0.0);
    CHECK(ts::detail::decay(-double{infinity}) == 0.0);
    CHECK(ts::detail::decay(double{nan_value}) == 0.0);
    double worst = 0;
    for (int i = 0; i < 200000; ++i) {
        double const x = i < 100000 ? -i * 0x1.cp-8 : -(i - 99999) * 0x1p-18;
        if (x < -708) continue;
        long double const expected = std::exp(static_cast<long double>(x));
        double const ulp = std::ldexp(1.0, std::ilogb(static_cast<double>(expected)) - 52);
        worst = std::max(worst, static_cast<double>(std::abs(static_cast<long double>(ts::detail::decay(x)) - expected)) / ulp);
    }
    CHECK(worst <= 2);
    CAPTURE(worst);
    CHECK(worst >= 0.5); // the bound means something
}

TEST_CASE("the largest of many logits, in every place of a block") {
    for (std::size_t const n : {1u, 255u, 256u, 257u, 600u})
        for (std::size_t i = 0; i < n; i += n > 300 ? 7 : 1) {
            std::vector<float> logits(n, -2.0f);
            logits[i] = 1.0f;
            logits[n - 1] = i == n - 1 ? 1.0f : nan_value;
            index_t const at = ts::greedy(ts::reference{}, view(logits));
            if (at != static_cast<index_t>(i)) FAIL_CHECK("largest at ", i, " of ", n, ", found at ", at);
        }
}

TEST_CASE("equal probabilities rank by index") {
    ts::reference const exec;
    std::vector<float> const logits(10, 1.5f);
    ts::sampler const draw{{.top_k = 3}};
    for (std::uint64_t step = 0; step < 200; ++step) CHECK(draw(exec, view(logits), step) < 3);
}

TEST_CASE("strided logits, one logit, minus infinity and NaN") {
    ts::cpu<> const exec;
    float const data[] = {5, 0, -infinity, 0, nan_value, 0, 5, 0};
    ts::vector_view<float const> const even = ts::slice(ts::matrix_view<float const>{data, 4, 2}, ts::all, 0);
    for (std::uint64_t step = 0; step < 100; ++step) {
        index_t const token = ts::sampler{}(exec, even, step);
        CHECK((token == 0 || token == 3));
    }
    CHECK(ts::sampler{}(exec, view({-3}), 5) == 0);
}

TEST_CASE("wrong options and logits are refused with a sentence") {
    ts::reference const exec;
    CHECK_THROWS_WITH_AS(ts::sampler({.temperature = -1}),
                         "tessera: sampler: temperature is -1.000000, expected a finite number that is not negative",
                         ts::shape_error);
    CHECK_THROWS_AS(ts::sampler({.temperature = nan_value}), ts::shape_error);
    CHECK_THROWS_AS(ts::sampler({.top_p = 1.5f}), ts::shape_error);
    CHECK_THROWS_AS(ts::sampler({.min_p = -0.5f}), ts::shape_error);
    CHECK_THROWS_AS(ts::sampler({.top_k = -1}), ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::greedy(exec, view({-infinity, nan_value})),
                         "tessera: greedy: number of logits above minus infinity is 0, expected 1 to 2", ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::greedy(exec, view({})), "tessera: greedy: number of logits is 0, expected at least 1",
                         ts::shape_error);
    CHECK_THROWS_WITH_AS(ts::sampler{}(exec, view({}), 0), "tessera: sample: number of logits is 0, expected at least 1",
                         ts::shape_error);
    CHECK_THROWS_AS(ts::sampler{}(exec, ts::vector_view<float const>(nullptr, 3), 0), ts::shape_error);
}

TEST_CASE("no allocation after reserve") {
    ts::workspace memory;
    ts::cpu<> const exec{memory};
    exec.reserve(ts::sampling_workspace_bytes(5000));
    index_t const before = memory.capacity();
    auto const logits = random_logits(5000, 2);
    ts::sampler{{.top_p = 0.9f}}(exec, view(logits), 1);
    CHECK(memory.capacity() == before);
}
