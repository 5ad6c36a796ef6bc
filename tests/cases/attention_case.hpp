// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The cases of attention for every backend: shapes, random inputs and the computed error bound.

#include <tessera/attention/append_forward.hpp>
#include <tessera/attention/attention_forward.hpp>
#include <tessera/numerics/error_bounds.hpp>
#include <tessera/storage/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

namespace attention_tests {

namespace ts = tessera;
using ts::index_t;

struct random_floats {
    std::uint64_t state = 1;
    float uniform() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<float>(state >> 40) * 0x1p-24f;
    }
    /// About normal, variance 1.
    float operator()() { return (uniform() + uniform() + uniform() + uniform() - 2.0f) * 1.7320508f; }
};

template <class T = float>
ts::tensor<T, 3> random_tensor(index_t a, index_t b, index_t c, std::uint64_t seed) {
    ts::tensor<T, 3> t(a, b, c);
    random_floats next{seed};
    for (index_t i = 0; i < t.size(); ++i) t.data()[i] = static_cast<T>(next());
    return t;
}

/// What a backend does besides: a weight is rounded by at most `weight_step` of itself and `least_weight` before it multiplies a
/// value; scores have `roundings` more; partial results are of `part_tokens` keys, and of `merges` others.
struct bound_terms {
    double weight_step = 0;
    double least_weight = 0;
    index_t roundings = 0;
    index_t part_tokens = 1024;
    index_t merges = 0;
};

/// How far one row of out and its log-sum-exp may be from the definition in double. With u = 2^-24, scores s_j, raw scores
/// r_j = scale q . k_j, a_j = scale sum |q k_j|, w_j = e^(s_j - max s) and x_j = max s - s_j:
///
///     score       |s'_j - s_j| <= gamma(d + 1 + f) a_j + gamma(f) |s_j - r_j|    d products and the scale; f roundings of
///                                                                              functors, relative to what they get and add
///     weight      w'_j = w_j (1 + eta_j),  eta_j <= e^(score + 2.25 u x_j + 4 u (1 + c_j)) - 1    the exponential's own error
///                 is 1.25 x u + 4 u, the subtraction's x u; c_j exponentials rescale it later: a tile of keys or a part each
///     numerator   sum of w'_j v_j (1 + nu_j),  nu_j = gamma(number of keys seen from j on + c_j + 2 parts + 1)
///     denominator sum of w'_j (1 + mu_j),      mu_j = gamma(the same + c_j + log2 of the lanes)
///
/// and as sum of w_j (v_j - o) is 0, their quotient is off by at most
///
///     sum of w_j (eta_j |v_j - o| + (1 + eta_j) (nu_j |v_j| + mu_j |o|))  over  sum of w_j (1 - eta_j) (1 - mu_j)
///
/// A sink is one more key, of an exact score and the value 0; its joining rescales the others once more.
struct bound {
    std::vector<double> out; ///< for every column
    double log_sum_exp = 0;
};

template <class Key, class Value, class Score>
bound bound_of(ts::tensor_view<float const, 3> const& q, ts::kv_view<Key, Value> const& kv, index_t i, index_t h,
               Score const& score, index_t functor_roundings = 0, bound_terms const& terms = {}) {
    functor_roundings += terms.roundings;
    constexpr double u = ts::unit_roundoff<float>;
    struct seen_key {
        index_t token;
        double error, score, weight = 0, eta = 0, nu = 0, mu = 0;
    };
    index_t const head = h / (q.extent(1) / kv.kv_heads);
    auto const resolved = ts::detail::resolved_score(score, kv.key_dim);
    constexpr bool has_sink = ts::detail::has_sink<Score>;
    bool const has_scales = kv.keys.scales != nullptr; // of int8: the definition rounds every element, kernels the sum
    std::vector<seen_key> keys;
    double largest = ts::minus_infinity;
    if constexpr (has_sink) largest = ts::detail::sink_of(score, h);
    double const sink = largest;
    double worst = 0;
    for (index_t t = 0; t < kv.tokens; ++t) {
        double raw = 0;
        double a = 0;
        for (index_t d = 0; d < kv.key_dim; ++d) {
            double const term = double{resolved.factor} * q(i, h, d) * kv.keys(head, kv.slot(t), d);
            raw += term;
            a += std::fabs(term);
        }
        index_t const query = kv.end_position() - q.extent(0) + i;
        double const s = resolved.rest(raw, ts::coord<double>{query, kv.first_position + t, 0.0, 0.0, h});
        if (s == ts::minus_infinity) continue;
        double const error = ts::gamma(kv.key_dim + 1 + functor_roundings + (has_scales ? 2 : 0), u) * a +
                             ts::gamma(functor_roundings, u) * std::fabs(s - raw);
        keys.push_back({t, error, s});
        largest = std::max(largest, s);
        worst = std::max(worst, error);
    }
    index_t const parts = ts::ceil_div(kv.tokens, terms.part_tokens) + terms.merges + (has_sink ? 1 : 0);
    if (sink != ts::minus_infinity) keys.push_back({kv.tokens, 0.0, sink});
    auto const value = [&](seen_key const& k, index_t d) {
        return k.token == kv.tokens ? 0.0 : double{kv.values(head, kv.slot(k.token), d)};
    };
    double sum = 0;
    double least_sum = 0;
    double sum_error = 0;
    auto left = static_cast<index_t>(keys.size());
    for (seen_key& k : keys) {
        double const x = largest - k.score + k.error + worst;
        index_t const rescaled = k.token == kv.tokens ? parts : (kv.tokens - 1) / 64 - k.token / 64 + parts;
        k.weight = std::exp(k.score - largest);
        k.eta = x > 86 ? 1 : std::expm1(k.error + 2.25 * u * x + ts::gamma(4 * (1 + rescaled), u)); // beyond: 0
        index_t const roundings = left-- + rescaled + 2 * parts + 1;
        k.nu = ts::gamma(roundings + (has_scales ? 2 : 0), u) + terms.weight_step + terms.least_weight / std::max(k.weight, 0x1p-140);
        k.mu = ts::gamma(roundings + rescaled + 4, u);
        sum += k.weight;
        least_sum += k.weight * (1 - k.eta) * (1 - k.mu);
        sum_error += k.weight * (k.eta + k.mu + k.eta * k.mu);
    }
    bound result;
    result.out.resize(static_cast<std::size_t>(kv.value_dim));
    if (keys.empty()) return result; // zeros and minus infinity, exactly
    for (index_t d = 0; d < kv.value_dim; ++d) {
        double o = 0;
        double error = 0;
        for (seen_key const& k : keys) o += k.weight * value(k, d) / sum;
        for (seen_key const& k : keys) {
            double const v = value(k, d);
            error += k.weight * (k.eta * std::fabs(v - o) + (1 + k.eta) * (k.nu * std::fabs(v) + k.mu * std::fabs(o)));
        }
        // 1 / sum and the product with it are rounded.
        result.out[static_cast<std::size_t>(d)] = error / least_sum * (1 + 4 * u) + ts::gamma(2, u) * std::fabs(o);
    }
    // The logarithm is within a unit in the last place, its sum with the maximum rounded.
    double const change = -std::log1p(-sum_error / sum);
    result.log_sum_exp = change + 2 * u * (std::fabs(std::log(sum)) + change) + u * std::fabs(largest + std::log(sum));
    return result;
}

/// The largest of |out - expected| and |lse - expected_lse| over their bounds: all is well up to 1. `expected` is rounded
/// to float.
template <class Out, class Key, class Value, class Score>
double worst_ratio(ts::tensor_view<float const, 3> q, ts::kv_view<Key, Value> const& kv, ts::tensor_view<Out const, 3> out,
                   ts::tensor_view<float const, 3> expected, ts::matrix_view<float const> lse,
                   ts::matrix_view<float const> expected_lse, Score const& score, index_t functor_roundings = 0,
                   bound_terms const& terms = {}) {
    double worst = 0;
    auto const compare = [&](double error, double allowed) {
        double const ratio = error == 0 ? 0 : error / allowed;
        worst = ratio <= worst ? worst : ratio == ratio ? ratio : std::numeric_limits<double>::infinity();
    };
    for (index_t i = 0; i < q.extent(0); ++i)
        for (index_t h = 0; h < q.extent(1); ++h) {
            bound const b = bound_of(q, kv, i, h, score, functor_roundings, terms);
            for (index_t d = 0; d < out.extent(2); ++d) {
                double const e = expected(i, h, d);
                double const error = std::fabs(double{static_cast<float>(out(i, h, d))} - e);
                double allowed = b.out[static_cast<std::size_t>(d)] + ts::unit_roundoff<float> * std::fabs(e);
                if constexpr (!std::is_same_v<Out, float>)
                    allowed += ts::half_step<Out>(static_cast<float>(std::fabs(e) + allowed));
                compare(error, allowed);
            }
            double const l = expected_lse(h, i);
            if (std::isinf(l) && lse(h, i) == expected_lse(h, i)) continue;
            compare(std::fabs(double{lse(h, i)} - l), b.log_sum_exp + ts::unit_roundoff<float> * std::fabs(l));
        }
    return worst;
}

/// The worst ratios of a test: a bound that is never approached says nothing.
struct tally {
    double worst = 0;
    /// Of one case.
    bool operator()(double ratio) {
        worst = std::max(worst, ratio);
        return ratio <= 1;
    }
    bool is_tight() const { return worst >= 0.05; }
};

template <class T>
bool equal_bits(ts::tensor<T, 3> const& a, ts::tensor<T, 3> const& b) {
    return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size(),
                      [](T x, T y) { return std::memcmp(&x, &y, sizeof x) == 0; });
}

/// Tokens and heads of a case.
struct shape {
    index_t queries, keys, heads, kv_heads, key_dim, value_dim;
};

/// Tokens around registers, tiles and parts, for `causal`.
template <class F>
void for_each_token_shape(F const& f) {
    for (index_t const queries : {0, 1, 2, 4, 5, 15, 16, 17, 33, 49})
        for (index_t const keys : {0, 1, 7, 64, 65, 129}) f(shape{queries, keys, 4, 2, 16, 16});
    for (index_t const queries : {1, 3, 97})
        for (index_t const keys : {127, 128, 1023, 1025, 2050}) f(shape{queries, keys, 2, 1, 8, 8});
}
/// Head dimensions, for `full`.
template <class F>
void for_each_dimension(F const& f) {
    for (index_t const dim : {0, 1, 3, 7, 8, 9, 15, 17, 40, 59, 64, 72, 111, 128})
        for (index_t const queries : {1, 21}) f(shape{queries, 37, 3, 3, dim, ts::maximum(dim, 1)});
}
/// Group sizes, keys wider and narrower than values, for `causal`.
template <class F>
void for_each_group(F const& f) {
    for (index_t const group : {1, 2, 3, 4, 5, 7, 8, 13})
        for (index_t const queries : {1, 2, 19}) f(shape{queries, 70, 2 * group, 2, 24, 40});
    f(shape{1, 30, 2, 2, 64, 13});
    f(shape{35, 30, 2, 2, 13, 64});
    f(shape{20, 20, 2, 2, 576, 512});
}
/// For every format of a cache, and `causal`.
template <class F>
void for_each_format_shape(F const& f) {
    for (index_t const queries : {1, 3, 40})
        for (index_t const dim : {5, 64, 77}) f(shape{queries, 150, 4, 2, dim, dim});
}

} // namespace attention_tests
