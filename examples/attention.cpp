// SPDX-License-Identifier: MIT
// Attention over a quantised KV cache with a score written here: a prompt in one call, then token after token.

#include <tessera/attention/attention.hpp>
#include <tessera/storage/tensor.hpp>

#include <cmath>
#include <cstdio>

namespace ts = tessera;

namespace {

/// Recent keys count more: a functor of the score and its position, on whole registers or on doubles.
struct recency {
    float per_token;
    template <class V>
    V operator()(V s, ts::coord<V> at) const noexcept {
        return s - V(per_token) * at.distance();
    }
};

ts::tensor<float, 3> waves(ts::index_t tokens, ts::index_t heads, ts::index_t dim, float frequency) {
    ts::tensor<float, 3> x(tokens, heads, dim);
    for (ts::index_t i = 0; i < x.size(); ++i) x.data()[i] = std::sin(frequency * static_cast<float>(i));
    return x;
}

double largest_difference(ts::tensor<float, 3> const& a, ts::tensor<float, 3> const& b) {
    double largest = 0;
    for (ts::index_t i = 0; i < a.size(); ++i) largest = std::fmax(largest, std::fabs(double{a.data()[i]} - b.data()[i]));
    return largest;
}

} // namespace

int main() {
    ts::index_t const prompt = 100, heads = 8, kv_heads = 2, dim = 40;
    ts::cpu const exec;
    auto const score = ts::soft_cap{30.0f} | recency{0.01f} | ts::causal | ts::window{64};

    // The same prompt in float32 and in int8.
    ts::kv_cache<ts::key<float>, ts::value<float>> exact{prompt + 8, kv_heads, dim};
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>> small{prompt + 8, kv_heads, dim};
    auto const q = waves(prompt, heads, dim, 0.7f);
    auto const k = waves(prompt, kv_heads, dim, 1.3f);
    auto const v = waves(prompt, kv_heads, dim, 2.1f);
    ts::append(exec, exact, k, v);
    ts::append(exec, small, k, v);
    ts::tensor<float, 3> out(prompt, heads, dim), expected(prompt, heads, dim);
    ts::attention(ts::reference{}, q, exact, expected, score);
    ts::attention(exec, q, exact, out, score);
    std::printf("prompt, float32 cache of %5ld bytes: differs from the definition by %.0e\n", long(exact.bytes()),
                largest_difference(out, expected));
    ts::attention(exec, q, small, out, score);
    std::printf("prompt, int8 cache of    %5ld bytes: differs from the definition by %.0e\n", long(small.bytes()),
                largest_difference(out, expected));

    // A step of decoding: append the new token, then attend with its query alone.
    ts::append(exec, small, waves(1, kv_heads, dim, 0.3f), waves(1, kv_heads, dim, 0.4f));
    ts::tensor<float, 3> token(1, heads, dim);
    ts::matrix<float> log_sum_exp(heads, 1);
    ts::attention(exec, waves(1, heads, dim, 0.5f), small, token, score, log_sum_exp);
    std::printf("next token: position %ld, log-sum-exp of head 0 %.3f\n", long(small.end_position() - 1),
                log_sum_exp(0, 0));
}
// Output:
// prompt, float32 cache of 69120 bytes: differs from the definition by 1e-07
// prompt, int8 cache of    19008 bytes: differs from the definition by 4e-03
// next token: position 100, log-sum-exp of head 0 3.871
