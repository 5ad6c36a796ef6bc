// SPDX-License-Identifier: MIT
// What breaks attention: logits of 10^4 of either sign, rows that see one key, rows that see all keys alike, NaN beside every row
// and behind the last, 1 to 130 tokens by every class of head dimensions. The judge is FlashAttention's rule: the error is at
// most twice that of the plain computation in the same precision, and twice what one addition of that precision loses, as
// maxima over sixteen lengths (of a few numbers, chance decides which is larger). Float32 logits of 10^4 have the computed
// bound for a judge: there a single near tie decides about the error of either computation.

#include "attention_support.hpp"

#include <doctest/doctest.h>

#include <utility>

namespace {

using namespace attention_tests;

enum class kind { normal, large, one_hot, equal };

/// tokens rows of one head, between numbers that nobody may read.
template <class T>
struct padded {
    ts::tensor<T, 3> all;
    index_t tokens, dim;

    padded(index_t n, index_t d) : all(n + 2, 1, d + 3), tokens{n}, dim{d} {
        for (index_t i = 0; i < all.size(); ++i) all.data()[i] = static_cast<T>(std::numeric_limits<float>::quiet_NaN());
    }
    ts::tensor_view<T, 3> view(index_t last) { return ts::slice(all.view(), ts::range{tokens - last, tokens}, ts::all, ts::range{0, dim}); }
    ts::tensor_view<T, 3> view() { return view(tokens); }
    /// Nothing was written outside.
    bool is_whole() const {
        for (index_t t = 0; t < tokens + 2; ++t)
            for (index_t d = t < tokens ? dim : 0; d < dim + 3; ++d)
                if (!std::isnan(static_cast<float>(all(t, 0, d)))) return false;
        return true;
    }
};

template <class T>
float rounded(float x) {
    return static_cast<float>(static_cast<T>(x));
}

/// The largest errors of attention and of the plain computation, and what an addition loses.
struct errors {
    double ours = 0, plain = 0, step = 0;
    bool nothing_else_written = true;
    double ratio = -1; ///< to the computed bound, where that is the judge
    bool follow_the_rule() const { // no NaN does
        return (ratio < 0 ? ours <= 2 * plain + 2 * step : ratio <= 1) && nothing_else_written;
    }
};

/// Of the last `queries` of a causal sequence.
template <class T>
void measure(errors& e, index_t tokens, index_t queries, index_t dim, kind what) {
    padded<T> q{tokens, dim}, k{tokens, dim}, v{tokens, dim}, out{tokens, dim};
    random_floats next{static_cast<std::uint64_t>(1000 * tokens + dim)};
    float const root = std::sqrt(static_cast<float>(dim));
    for (index_t t = 0; t < tokens; ++t)
        for (index_t d = 0; d < dim; ++d) {
            float const a = next(), b = next();
            bool const here = d == t % dim; // of one-hot queries and keys: dim orthogonal directions
            q.view()(t, 0, d) = static_cast<T>(what == kind::large ? 100 * a / root : what == kind::one_hot ? (here ? 100 * root : 0.0f) : a);
            k.view()(t, 0, d) = static_cast<T>(what == kind::large ? 100 * b * root : what == kind::one_hot ? (here ? 100.0f : 0.0f)
                                               : what == kind::equal ? 0.25f * static_cast<float>(d % 5) : b);
            v.view()(t, 0, d) = static_cast<T>(next());
        }
    float const scale = 1 / root;
    for_each_arch<tessera_test::best_arch>([&](auto const& exec) {
        ts::attention(exec, q.view(queries), k.view(), v.view(), out.view(queries), ts::causal);
    });
    auto const floats = [&](padded<T>& from) {
        std::vector<float> to(static_cast<std::size_t>(tokens * dim));
        for (index_t i = 0; i < tokens * dim; ++i) to[static_cast<std::size_t>(i)] = static_cast<float>(from.all(i / dim, 0, i % dim));
        return to;
    };
    std::vector<float> const qs = floats(q), ks = floats(k), vs = floats(v);
    std::vector<double> exact(static_cast<std::size_t>(tokens)), o(static_cast<std::size_t>(dim));
    std::vector<float> weights(static_cast<std::size_t>(tokens)), p(static_cast<std::size_t>(dim));
    for (index_t i = tokens - queries; i < tokens; ++i) {
        double largest = ts::minus_infinity, sum = 0;
        float plain_largest = ts::minus_infinity, plain_sum = 0;
        for (index_t j = 0; j <= i; ++j) {
            double s = 0;
            float f = 0;
            for (index_t d = 0; d < dim; ++d) {
                float const x = qs[static_cast<std::size_t>(i * dim + d)], y = ks[static_cast<std::size_t>(j * dim + d)];
                s += double{x} * double{y};
                f += x * y;
            }
            auto const at = static_cast<std::size_t>(j);
            largest = std::max(largest, exact[at] = s / std::sqrt(static_cast<double>(dim)));
            plain_largest = std::max(plain_largest, weights[at] = rounded<T>(scale * f));
        }
        for (index_t j = 0; j <= i; ++j) {
            auto const at = static_cast<std::size_t>(j);
            sum += exact[at] = std::exp(exact[at] - largest);
            plain_sum += weights[at] = std::exp(weights[at] - plain_largest);
        }
        std::fill(o.begin(), o.end(), 0.0);
        std::fill(p.begin(), p.end(), 0.0f);
        for (index_t j = 0; j <= i; ++j)
            for (index_t d = 0; d < dim; ++d) {
                float const x = vs[static_cast<std::size_t>(j * dim + d)];
                o[static_cast<std::size_t>(d)] += exact[static_cast<std::size_t>(j)] / sum * double{x};
                p[static_cast<std::size_t>(d)] += rounded<T>(weights[static_cast<std::size_t>(j)] / plain_sum) * x;
            }
        auto const larger = [](double a, double b) { return b <= a ? a : b; }; // a NaN stays
        for (index_t d = 0; d < dim; ++d) {
            double const exactly = o[static_cast<std::size_t>(d)];
            auto const r = static_cast<float>(exactly);
            e.ours = larger(e.ours, std::fabs(double{static_cast<float>(out.all(i, 0, d))} - exactly));
            e.plain = std::max(e.plain, std::fabs(double{rounded<T>(p[static_cast<std::size_t>(d)])} - exactly));
            e.step = std::max(e.step, std::fabs(double{rounded<T>(rounded<T>(r + 0.3f) - 0.3f)} - double{r}));
        }
        if constexpr (std::is_same_v<T, float>)
            if (what == kind::large) {
                ts::kv_view<float, float> const kv{k.view(), v.view()};
                bound const b = bound_of(ts::tensor_view<float const, 3>{q.view(queries)}, kv, i - (tokens - queries), 0, ts::causal);
                for (index_t d = 0; d < dim; ++d) {
                    auto const at = static_cast<std::size_t>(d);
                    double const error = std::fabs(double{out.all(i, 0, d)} - o[at]);
                    e.ratio = larger(e.ratio, error == 0 ? 0 : error / b.out[at]);
                }
            }
    }
    for (index_t t = 0; t < tokens - queries; ++t)
        for (index_t d = 0; d < dim; ++d) e.nothing_else_written &= std::isnan(static_cast<float>(out.view()(t, 0, d)));
    e.nothing_else_written &= out.is_whole();
}

constexpr kind kinds[] = {kind::normal, kind::large, kind::one_hot, kind::equal};

/// f(lengths' first, errors of each kind) for sixteen lengths at a time of 1 to 130, then the rule.
template <class F>
void by_sixteen(F const& f) {
    for (index_t first = 1; first <= 130; first += 16) {
        errors e[4];
        for (index_t tokens = first; tokens < ts::minimum(first + 16, 131); ++tokens) f(tokens, e);
        CAPTURE(first);
        for (int i = 0; i < 4; ++i) {
            CAPTURE(i);
            CAPTURE(e[i].ours);
            CAPTURE(e[i].plain);
            CAPTURE(e[i].step);
            CAPTURE(e[i].ratio);
            CHECK(e[i].follow_the_rule());
        }
    }
}

} // namespace

TEST_CASE("attention: hard rows of 1 to 130 tokens, by FlashAttention's rule") {
    constexpr index_t dims[] = {1, 7, 16, 40, 59, 64, 111, 128};
    // Every length meets every kind and some dimensions; every dimension meets both forms.
    by_sixteen([&](index_t tokens, errors* e) {
        for (index_t i = 0; i < 4; ++i)
            measure<float>(e[i], tokens, (tokens / 2 + i) % 3 == 0 ? 1 : tokens, dims[(tokens + 3 * i) % 8], kinds[i]);
    });
    by_sixteen([&](index_t tokens, errors* e) {
        for (index_t i = 0; i < 4; ++i) measure<ts::fp16>(e[i], tokens, tokens, dims[(tokens + 3 * i + 1) % 8], kinds[i]);
    });
    by_sixteen([&](index_t tokens, errors* e) {
        for (index_t i = 0; i < 4; ++i)
            measure<ts::bf16>(e[i], tokens, (tokens + i) % 4 == 0 ? 1 : tokens, dims[(tokens + 5 * i) % 8], kinds[i]);
    });
}

TEST_CASE("attention: every length by every dimension, by FlashAttention's rule" * doctest::skip()) {
    for (index_t const dim : {1, 3, 7, 8, 16, 32, 40, 59, 64, 72, 111, 128, 256, 576}) {
        CAPTURE(dim);
        auto const sweep = [dim]<class T>(T) {
            by_sixteen([dim](index_t tokens, errors* e) {
                for (int i = 0; i < 4; ++i)
                    for (index_t const queries : {index_t{1}, tokens}) measure<T>(e[i], tokens, queries, dim, kinds[i]);
            });
        };
        sweep(float{});
        sweep(ts::fp16{});
        sweep(ts::bf16{});
    }
}
