// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The vectors tests/data/attention/g_*.bin (README.md there) and the bounds of what may differ from them.

#include "attention_support.hpp"

#include <tessera/attention/attention_gradient.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace attention_tests {

/// One case: shapes, inputs, results and gradients, as (tokens, heads, dim) views.
struct vectors {
    std::int32_t size[8]; // 1, H, Hk, Sq, Sk, D, Dv, extra words
    std::vector<float> data;

    explicit vectors(std::string const& name) {
        std::ifstream file(std::string(TESSERA_TEST_DATA) + "/attention/g_" + name + ".bin", std::ios::binary);
        std::vector<char> const bytes{std::istreambuf_iterator<char>(file), {}};
        REQUIRE(bytes.size() > sizeof size);
        std::memcpy(size, bytes.data(), sizeof size);
        data.resize((bytes.size() - sizeof size) / sizeof(float));
        std::memcpy(data.data(), bytes.data() + sizeof size, data.size() * sizeof(float));
        REQUIRE(static_cast<index_t>(data.size()) == offset(9) + size[7]);
    }
    index_t heads() const { return size[1]; }
    index_t kv_heads() const { return size[2]; }
    index_t queries() const { return size[3]; }
    index_t keys() const { return size[4]; }
    index_t dim() const { return size[5]; }
    index_t value_dim() const { return size[6]; }

    ts::tensor_view<float const, 3> q() const { return view(0, queries(), heads(), dim()); }
    ts::tensor_view<float const, 3> k() const { return view(1, keys(), kv_heads(), dim()); }
    ts::tensor_view<float const, 3> v() const { return view(2, keys(), kv_heads(), value_dim()); }
    ts::tensor_view<float const, 3> out() const { return view(3, queries(), heads(), value_dim()); }
    ts::matrix_view<float const> log_sum_exp() const {
        return ts::matrix_view<float const>{data.data() + offset(4), heads(), queries()};
    }
    ts::tensor_view<float const, 3> d_out() const { return view(5, queries(), heads(), value_dim()); }
    ts::tensor_view<float const, 3> d_q() const { return view(6, queries(), heads(), dim()); }
    ts::tensor_view<float const, 3> d_k() const { return view(7, keys(), kv_heads(), dim()); }
    ts::tensor_view<float const, 3> d_v() const { return view(8, keys(), kv_heads(), value_dim()); }
    /// The numbers of the score, then their gradients.
    float const* extra() const { return data.data() + offset(9); }

private:
    index_t offset(int part) const {
        index_t const q = heads() * queries(), k = kv_heads() * keys();
        index_t const sizes[] = {q * dim(), k * dim(), k * value_dim(), q * value_dim(), q,
                                 q * value_dim(), q * dim(), k * dim(), k * value_dim()};
        index_t sum = 0;
        for (int p = 0; p < part; ++p) sum += sizes[p];
        return sum;
    }
    ts::tensor_view<float const, 3> view(int part, index_t tokens, index_t h, index_t d) const {
        using result = ts::tensor_view<float const, 3>;
        index_t const strides[] = {d, tokens * d, 1};
        return {data.data() + offset(part), result::mapping_type{ts::dynamic_extents<3>{tokens, h, d}, strides}};
    }
};

/// The gradients in double, written down once more, and how far float kernels may be from them. u = 2^-24; for a query and key
///
///     score     e = gamma(D + 3 + f) scale sum |q k| + gamma(f) |s - r|         f roundings of functors
///     weight    p' = p (1 + eta), eta = expm1(e + e_L + 2 u |s - L| + 8 u), e_L = max e + 4 u (1 + |L|) + gamma(n)
///     d_weight  gamma(Dv + 1) sum |g v|;   delta: gamma(Dv + 2) sum |g o| + sum |g| e_o,  e_o = (2 eta + gamma(n + 20)) max |v|
///     ds        p eta (|dp| + |delta|) + p (their errors) (1 + eta) + 2 u |..|;  dr: |derivative| times it, plus
///               (gamma(f) + 2 e) |ds|
///     sink      p_sink = e^(sink - L), off by eta with e = 0; its gradient -sum p_sink delta is rounded at every query
///
/// and sums of n terms add gamma(n) of their magnitudes. Where the definition is judged, these bounds hold more than ever.
struct exact_gradients {
    std::vector<double> d_q, d_k, d_v;                ///< as their arrays, contiguous
    std::vector<double> d_q_error, d_k_error, d_v_error;
    std::vector<double> d_raw, d_raw_error;           ///< (heads, queries, keys), of scale q . k
    std::vector<double> d_sink, d_sink_error;         ///< (heads)

    template <class Score>
    exact_gradients(ts::tensor_view<float const, 3> q, ts::tensor_view<float const, 3> k, ts::tensor_view<float const, 3> v,
                    ts::tensor_view<float const, 3> g, Score const& score, index_t f = 0) {
        index_t const n = k.extent(0), D = q.extent(2), Dv = v.extent(2), H = q.extent(1), S = q.extent(0), Hk = k.extent(1);
        constexpr double u = ts::unit_roundoff<float>;
        auto const sized = [](std::vector<double>& x, index_t size) { x.assign(static_cast<std::size_t>(size), 0.0); };
        for (auto* x : {&d_q, &d_q_error}) sized(*x, S * H * D);
        for (auto* x : {&d_k, &d_k_error}) sized(*x, n * Hk * D);
        for (auto* x : {&d_v, &d_v_error}) sized(*x, n * Hk * Dv);
        for (auto* x : {&d_raw, &d_raw_error}) sized(*x, H * S * n);
        for (auto* x : {&d_sink, &d_sink_error}) sized(*x, H);
        auto const resolved = ts::detail::resolved_score(score, D);
        double const scale = resolved.factor;
        auto const N = static_cast<std::size_t>(n);
        std::vector<double> raw(N), s(N), e(N);
        double const rows = ts::gamma(S * (H / Hk) + 2, u);
        for (index_t i = 0; i < S; ++i)
            for (index_t h = 0; h < H; ++h) {
                index_t const kh = h / (H / Hk);
                auto const at = [&](index_t t) { return ts::coord<double>{n - S + i, t, 0.0, 0.0, h}; };
                double largest = ts::minus_infinity, worst = 0;
                if constexpr (ts::detail::has_sink<Score>) largest = ts::detail::sink_of(score, h);
                double const sink = largest;
                for (index_t t = 0; t < n; ++t) {
                    auto const T = static_cast<std::size_t>(t);
                    double dot = 0, a = 0;
                    for (index_t d = 0; d < D; ++d) {
                        dot += double{q(i, h, d)} * k(t, kh, d);
                        a += std::fabs(double{q(i, h, d)} * k(t, kh, d));
                    }
                    raw[T] = scale * dot;
                    s[T] = resolved.rest(raw[T], at(t));
                    e[T] = ts::gamma(D + 3 + f, u) * scale * a + ts::gamma(f, u) * std::fabs(s[T] - raw[T]);
                    if (s[T] == ts::minus_infinity) continue;
                    largest = std::max(largest, s[T]);
                    worst = std::max(worst, e[T]);
                }
                if (largest == ts::minus_infinity) continue;
                double sum = sink == ts::minus_infinity ? 0 : std::exp(sink - largest);
                for (index_t t = 0; t < n; ++t) sum += std::exp(s[static_cast<std::size_t>(t)] - largest);
                double const L = largest + std::log(sum);
                double const e_L = worst + 4 * u * (1 + std::fabs(L)) + ts::gamma(n, u);
                auto const p = [&](index_t t) { return std::exp(s[static_cast<std::size_t>(t)] - L); };
                auto const eta = [&](index_t t) {
                    auto const T = static_cast<std::size_t>(t);
                    return std::expm1(e[T] + e_L + 2 * u * std::fabs(s[T] - L) + 8 * u);
                };
                double delta = 0, delta_size = 0, g_size = 0, v_size = 0;
                for (index_t d = 0; d < Dv; ++d) {
                    double o = 0;
                    for (index_t t = 0; t < n; ++t) {
                        if (s[static_cast<std::size_t>(t)] == ts::minus_infinity) continue;
                        o += p(t) * v(t, kh, d);
                        v_size = std::max(v_size, std::fabs(double{v(t, kh, d)}));
                    }
                    delta += g(i, h, d) * o;
                    delta_size += std::fabs(g(i, h, d) * o);
                    g_size += std::fabs(double{g(i, h, d)});
                }
                double const o_error = (2 * std::expm1(2 * (worst + e_L) + 16 * u) + ts::gamma(n + 20, u)) * v_size;
                double const delta_error = ts::gamma(Dv + 2, u) * delta_size + g_size * o_error;
                if (sink != ts::minus_infinity) {
                    auto const head = static_cast<std::size_t>(h);
                    double const weight = std::exp(sink - L), relative = std::expm1(e_L + 2 * u * std::fabs(sink - L) + 8 * u);
                    double const error = weight * (relative * std::fabs(delta) + (1 + relative) * delta_error);
                    d_sink[head] -= weight * delta;
                    d_sink_error[head] += error + ts::gamma(S + 1, u) * (weight * std::fabs(delta) + error);
                }
                for (index_t t = 0; t < n; ++t) {
                    auto const T = static_cast<std::size_t>(t);
                    if (s[T] == ts::minus_infinity) continue;
                    double dp = 0, dp_size = 0;
                    for (index_t d = 0; d < Dv; ++d) {
                        dp += double{g(i, h, d)} * v(t, kh, d);
                        dp_size += std::fabs(double{g(i, h, d)} * v(t, kh, d));
                        auto const j = static_cast<std::size_t>((t * Hk + kh) * Dv + d);
                        double const term = p(t) * g(i, h, d);
                        d_v[j] += term;
                        d_v_error[j] += std::fabs(term) * (eta(t) + rows + u);
                    }
                    double const ds = p(t) * (dp - delta);
                    double const ds_error = p(t) * eta(t) * (std::fabs(dp) + std::fabs(delta)) +
                                            p(t) * (1 + eta(t)) * (ts::gamma(Dv + 1, u) * dp_size + delta_error) +
                                            2 * u * p(t) * (std::fabs(dp) + std::fabs(delta));
                    auto const c = static_cast<std::size_t>((h * S + i) * n + t);
                    double const slope = without_accumulation(resolved.rest, raw[T], at(t));
                    d_raw[c] = ds * slope;
                    d_raw_error[c] = ds_error * std::fabs(slope) + std::fabs(ds) * (ts::gamma(f, u) + (f == 0 ? 0 : 2 * e[T]));
                    double const dr = d_raw[c] * scale;
                    double const dr_error = d_raw_error[c] * scale;
                    for (index_t d = 0; d < D; ++d) {
                        auto const a = static_cast<std::size_t>((i * H + h) * D + d);
                        auto const b = static_cast<std::size_t>((t * Hk + kh) * D + d);
                        d_q[a] += dr * k(t, kh, d);
                        d_q_error[a] += (dr_error + std::fabs(dr) * (ts::gamma(n + 2, u) + 2 * u)) * std::fabs(k(t, kh, d));
                        d_k[b] += dr * q(i, h, d);
                        d_k_error[b] += (dr_error + std::fabs(dr) * (rows + 2 * u)) * std::fabs(q(i, h, d));
                    }
                }
            }
    }

private:
    /// The derivative of a score alone.
    template <class F>
    static double without_accumulation(F const& f, double s, ts::coord<double> at) {
        if constexpr (ts::detail::is_pipeline<F>)
            return without_accumulation(f.first, s, at) *
                   without_accumulation(f.second, ts::detail::transformed(f.first, s, at), at);
        else if constexpr (ts::score_mask<F>)
            return 1;
        else
            return f.derivative(s, at);
    }
};

/// The largest |x - y| over its bound, plus what rounding the stored y to float took.
inline double worst_of(float const* x, float const* y, std::vector<double> const& bound) {
    double worst = 0;
    for (std::size_t i = 0; i < bound.size(); ++i) {
        double const error = std::fabs(double{x[i]} - double{y[i]});
        double const ratio = error == 0 ? 0 : error / (bound[i] + 2 * ts::unit_roundoff<float> * std::fabs(double{y[i]}));
        worst = ratio <= worst ? worst : ratio == ratio ? ratio : std::numeric_limits<double>::infinity();
    }
    return worst;
}
/// The same for a view with the order of (tokens, heads, dim).
inline double worst_of(ts::tensor<float, 3> const& x, ts::tensor_view<float const, 3> y, std::vector<double> const& bound) {
    ts::tensor<float, 3> copy(y.extent(0), y.extent(1), y.extent(2));
    for (index_t a = 0; a < y.extent(0); ++a)
        for (index_t b = 0; b < y.extent(1); ++b)
            for (index_t c = 0; c < y.extent(2); ++c) copy(a, b, c) = y(a, b, c);
    return worst_of(x.data(), copy.data(), bound);
}

/// Attention and its gradients by one policy against a case: the worst ratio of errors to bounds.
template <class Exec, class Score>
double judge(Exec const& exec, vectors const& c, Score const& score, index_t functor_roundings = 0) {
    ts::kv_view const kv{c.k(), c.v()};
    ts::tensor<float, 3> out(c.queries(), c.heads(), c.value_dim());
    ts::matrix<float> lse(c.heads(), c.queries());
    ts::attention(exec, c.q(), kv, out, score, lse);
    double worst = worst_ratio<float>(c.q(), kv, std::as_const(out).view(), c.out(), std::as_const(lse).view(), c.log_sum_exp(),
                                      score, functor_roundings + 1);
    ts::tensor<float, 3> d_q(c.queries(), c.heads(), c.dim()), d_k(c.keys(), c.kv_heads(), c.dim()),
        d_v(c.keys(), c.kv_heads(), c.value_dim());
    ts::attention_gradient(exec, c.q(), kv, out, lse, c.d_out(), d_q, d_k, d_v, score);
    exact_gradients const exact{c.q(), c.k(), c.v(), c.d_out(), score, functor_roundings};
    worst = std::max(worst, worst_of(d_q, c.d_q(), exact.d_q_error));
    worst = std::max(worst, worst_of(d_k, c.d_k(), exact.d_k_error));
    return std::max(worst, worst_of(d_v, c.d_v(), exact.d_v_error));
}

} // namespace attention_tests
