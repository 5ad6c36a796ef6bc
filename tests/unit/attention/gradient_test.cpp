// SPDX-License-Identifier: MIT
// Gradients of attention against torch's in float64, finite differences in double, and laws.

#include "vectors.hpp"

#include <tessera/attention/bias.hpp>
#include <tessera/attention/mask.hpp>
#include <tessera/attention/normaliser.hpp>
#include <tessera/core/thread_pool.hpp>

namespace {

using namespace attention_tests;

using native = ts::cpu<ts::native_arch, ts::serial>;

/// sum of g out, in double.
template <class Score>
double loss(std::vector<double> const& x, index_t S, index_t n, index_t H, index_t Hk, index_t D, ts::tensor<float, 3> const& g,
            Score const& score, double scale) {
    auto const X = [&](index_t i) { return x[static_cast<std::size_t>(i)]; };
    index_t const k0 = S * H * D, v0 = k0 + n * Hk * D;
    double total = 0;
    for (index_t i = 0; i < S; ++i)
        for (index_t h = 0; h < H; ++h) {
            index_t const kh = h / (H / Hk);
            double sum = 0;
            if constexpr (ts::detail::has_sink<Score>) sum = std::exp(double{ts::detail::sink_of(score, h)});
            double weighted = 0;
            for (index_t t = 0; t < n; ++t) {
                double s = 0, gv = 0;
                for (index_t d = 0; d < D; ++d) {
                    s += X((i * H + h) * D + d) * X(k0 + (t * Hk + kh) * D + d);
                    gv += double{g(i, h, d)} * X(v0 + (t * Hk + kh) * D + d);
                }
                double const p = std::exp(score(scale * s, ts::coord<double>{n - S + i, t, 0.0, 0.0, h}));
                sum += p;
                weighted += p * gv;
            }
            total += sum == 0 ? 0 : weighted / sum;
        }
    return total;
}

template <class Score>
void check_differences(Score const& score) {
    index_t const S = 4, n = 6, H = 2, Hk = 1, D = 3;
    auto const q = random_tensor(S, H, D, 1), g = random_tensor(S, H, D, 4);
    auto const k = random_tensor(n, Hk, D, 2), v = random_tensor(n, Hk, D, 3);
    ts::tensor<float, 3> out(S, H, D), d_q(S, H, D), d_k(n, Hk, D), d_v(n, Hk, D);
    ts::matrix<float> lse(H, S);
    ts::kv_view const kv{k.view(), v.view()};
    ts::attention(ts::reference{}, q, kv, out, score, lse);
    ts::attention_gradient(ts::reference{}, q, kv, out, lse, g, d_q, d_k, d_v, score);
    std::vector<double> x;
    std::vector<float> expected;
    for (auto const* t : {&q, &k, &v}) x.insert(x.end(), t->data(), t->data() + t->size());
    for (auto const* t : {&d_q, &d_k, &d_v}) expected.insert(expected.end(), t->data(), t->data() + t->size());
    auto const resolved = ts::detail::resolved_score(score, D);
    auto const f = [&] { return loss(x, S, n, H, Hk, D, g, resolved.rest, resolved.factor); };
    for (std::size_t i = 0; i < x.size(); ++i) {
        double const start = x[i];
        auto const difference = [&](double h) {
            x[i] = start + h;
            double const up = f();
            x[i] = start - h;
            double const down = f();
            x[i] = start;
            return (up - down) / (2 * h);
        };
        double const h = 1e-4;
        double const near = difference(h), far = difference(2 * h);
        // The error of the second order is a third of what doubling the step changes; roundings are of sums of 30 numbers up to 50.
        double const allowed = std::fabs(near - far) + 1e-13 / h + ts::unit_roundoff<float> * std::fabs(near);
        CHECK(std::fabs(near - double{expected[i]}) <= allowed);
    }
}

} // namespace

TEST_CASE("attention_gradient equals torch: causal with grouped queries") {
    tally ratios;
    vectors const gqa{"gqa"};
    CHECK(ratios(judge(ts::reference{}, gqa, ts::causal)));
    for_each_arch<tessera_test::best_arch>([&](auto const& exec) { CHECK(ratios(judge(exec, gqa, ts::causal))); });
    CHECK(ratios.is_tight());
}

TEST_CASE("attention_gradient equals torch: biases and their gradients") {
    tally ratios;
    auto const check = [&](auto const& exec, std::string const& name, index_t buckets, index_t far, auto const& make) {
        vectors const c{name};
        index_t const size = c.size[7] / 2;
        std::vector<float> gradient(static_cast<std::size_t>(size));
        auto const score = make(c, gradient.data(), buckets, far);
        CHECK(ratios(judge(exec, c, score, 5)));
        exact_gradients const exact{c.q(), c.k(), c.v(), c.d_out(), score, 5};
        // Biases come first, so that a number of one gets the sum of d_raw over some scores: at most all.
        double allowed = 0, magnitude = 0;
        for (double const e : exact.d_raw_error) allowed += e;
        for (double const e : exact.d_raw) magnitude += std::fabs(e);
        auto const terms = static_cast<index_t>(exact.d_raw.size());
        allowed += ts::gamma(terms, ts::unit_roundoff<float>) * (magnitude + allowed);
        for (index_t i = 0; i < size; ++i) {
            double const expected = c.extra()[size + i];
            CHECK(std::fabs(gradient[static_cast<std::size_t>(i)] - expected) <=
                  allowed + ts::unit_roundoff<float> * std::fabs(expected));
        }
    };
    auto const dense = [](vectors const& c, float* gradient, index_t, index_t) {
        ts::tensor_view<float const, 3> const b{c.extra(), c.heads(), c.queries(), c.keys()};
        ts::tensor_view<float, 3> const d{gradient, c.heads(), c.queries(), c.keys()};
        return ts::dense_bias{b, d, c.keys() - c.queries()} | ts::soft_cap{2.0f} | ts::causal;
    };
    auto const t5 = [](vectors const& c, float* gradient, index_t buckets, index_t far) {
        auto const side = far == 128 ? ts::key_side::before : ts::key_side::both;
        ts::relative_bias const bias{ts::matrix_view<float const>{c.extra(), buckets, c.heads()},
                                     ts::distance_buckets{buckets, far, side},
                                     ts::matrix_view<float>{gradient, buckets, c.heads()}};
        return bias | ts::either(ts::keys_before{far == 128 ? 0 : c.keys()}, ts::causal);
    };
    for (int i = 0; i < 2; ++i) {
        auto const run = [&](auto const& exec) {
            check(exec, "bias_cap", 0, 0, dense);
            check(exec, "t5_both", 32, 40, t5);
            check(exec, "t5_before", 32, 128, t5);
        };
        if (i == 0)
            run(ts::reference{});
        else
            run(native{});
    }
    CHECK(ratios.is_tight());
}

TEST_CASE("attention_gradient equals torch: sinks") {
    vectors const c{"sinks"};
    auto const check = [&](auto const& exec) {
        float gradient[4] = {};
        auto const score = ts::causal | ts::sinks{ts::vector_view<float const>{c.extra(), 4}, ts::vector_view<float>{gradient, 4}};
        CHECK(judge(exec, c, score) <= 1);
        exact_gradients const exact{c.q(), c.k(), c.v(), c.d_out(), score};
        CHECK(worst_of(gradient, c.extra() + 4, exact.d_sink_error) <= 1);
    };
    check(ts::reference{});
    check(native{});
    // A query that sees no key, and no sink either.
    float const logit = ts::minus_infinity;
    float gradient = 0;
    auto const q = random_tensor(3, 1, 8, 1), k = random_tensor(1, 1, 8, 2);
    ts::tensor<float, 3> out(3, 1, 8), d_q(3, 1, 8), d_k(1, 1, 8), d_v(1, 1, 8);
    ts::matrix<float> lse(1, 3);
    auto const score = ts::causal | ts::sinks{ts::vector_view<float const>{&logit, 1}, ts::vector_view<float>{&gradient, 1}};
    ts::attention(native{}, q, ts::kv_view{k.view(), k.view()}, out, score, lse);
    ts::attention_gradient(native{}, q, ts::kv_view{k.view(), k.view()}, out, lse, q, d_q, d_k, d_v, score);
    CHECK(gradient == 0.0f);
}

TEST_CASE("attention_gradient equals finite differences in double") {
    float const slopes[] = {0.5f, 0.25f};
    float const logits[] = {0.3f, -0.7f};
    check_differences(ts::full);
    check_differences(ts::scaled{0.7f} | ts::alibi{ts::vector_view<float const>{slopes, 2}} | ts::soft_cap{1.5f} | ts::causal);
    check_differences(ts::window{2} | ts::sinks{ts::vector_view<float const>{logits, 2}});
}

TEST_CASE("attention_gradient: shapes, threads, padding") {
    tally ratios;
    auto const check = [&](index_t S, index_t n, index_t group, index_t D, index_t Dv) {
        auto const q = random_tensor(S, 2 * group, D, 1), k = random_tensor(n, 2, D, 2), v = random_tensor(n, 2, Dv, 3);
        auto const g = random_tensor(S, 2 * group, Dv, 4);
        ts::kv_view const kv{k.view(), v.view()};
        ts::tensor<float, 3> out(S, 2 * group, Dv);
        ts::matrix<float> lse(2 * group, S);
        ts::attention(native{}, q, kv, out, ts::causal, lse);
        auto const run = [&](auto const& exec) {
            std::vector<ts::tensor<float, 3>> d;
            d.emplace_back(S, 2 * group, D);
            d.emplace_back(n, 2, D);
            d.emplace_back(n, 2, Dv);
            ts::attention_gradient(exec, q, kv, out, lse, g, d[0], d[1], d[2], ts::causal);
            return d;
        };
        auto const expected = run(ts::reference{});
        auto const d = run(native{});
        exact_gradients const exact{q.view(), k.view(), v.view(), g.view(), ts::causal};
        CHECK(ratios(worst_of(d[0].data(), expected[0].data(), exact.d_q_error)));
        CHECK(ratios(worst_of(d[1].data(), expected[1].data(), exact.d_k_error)));
        CHECK(ratios(worst_of(d[2].data(), expected[2].data(), exact.d_v_error)));
        ts::thread_pool pool{3};
        auto const other = run(ts::cpu{ts::threads{pool}});
        for (std::size_t i = 0; i < 3; ++i) CHECK(equal_bits(d[i], other[i]));
    };
    check(0, 3, 1, 8, 8);
    check(3, 0, 1, 8, 8);
    check(1, 1, 1, 1, 1);
    check(50, 131, 3, 40, 59);
    check(17, 300, 2, 72, 8);
    check(130, 40, 1, 111, 17); // queries that see nothing
    CHECK(ratios.worst >= 0.01); // deltas cancel better than their bound says

    // What no query sees may be NaN.
    auto const q = random_tensor(20, 1, 16, 1), g = random_tensor(20, 1, 16, 4);
    auto k = random_tensor(40, 1, 16, 2);
    auto const hidden = ts::shifted_causal{-5};
    ts::tensor<float, 3> out(20, 1, 16), d_q(20, 1, 16), d_k(40, 1, 16), d_v(40, 1, 16);
    ts::matrix<float> lse(1, 20);
    for (index_t d = 0; d < 16; ++d) k(38, 0, d) = std::numeric_limits<float>::quiet_NaN();
    ts::attention(native{}, q, ts::kv_view{k.view(), k.view()}, out, hidden, lse);
    ts::attention_gradient(native{}, q, ts::kv_view{k.view(), k.view()}, out, lse, g, d_q, d_k, d_v, hidden);
    auto const finite = [](ts::tensor<float, 3> const& x) {
        return std::all_of(x.data(), x.data() + x.size(), [](float y) { return std::isfinite(y); });
    };
    CHECK(finite(d_q));
    CHECK(finite(d_k));
    CHECK(finite(d_v));
    CHECK(d_k(38, 0, 3) == 0.0f);
}

TEST_CASE("attention_gradient: bad calls") {
    auto const q = random_tensor(4, 2, 8, 1), k = random_tensor(6, 1, 8, 2);
    ts::kv_view const kv{k.view(), k.view()};
    ts::tensor<float, 3> out(4, 2, 8), d_q(4, 2, 8), d_k(6, 1, 8), wrong(5, 1, 8);
    ts::matrix<float> lse(2, 4);
    CHECK_THROWS_WITH_AS(ts::attention_gradient(native{}, q, kv, out, lse, q, d_q, d_k, wrong),
                         "tessera: attention_gradient: tokens of d_v is 5, expected 6 (tokens of its input)", ts::shape_error);
    CHECK_THROWS_AS(ts::attention_gradient(native{}, q, kv, out, lse, q, d_q, d_k, d_k), ts::shape_error);
}
