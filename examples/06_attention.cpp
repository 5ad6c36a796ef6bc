// SPDX-License-Identifier: MIT
// Attention with a quantised KV cache: a prompt in one call, then token after token, with a score that is written here.

#include <tessera/attention/attention.hpp>

#include "tour.hpp"

#include <cstdio>

namespace ts = tessera;

namespace {

/// A score functor: recent keys count more. V is a whole SIMD register, or a double in the definition.
struct recency {
    float per_token;
    template <class V>
    V operator()(V s, ts::coord<V> at) const noexcept {
        return s - V(per_token) * at.distance();
    }
};

template <class Key, class Value>
void show(char const* name, ts::tensor<float, 3> const& q, ts::tensor<float, 3> const& k, ts::tensor<float, 3> const& v,
          ts::tensor<float, 3> const& exact) {
    ts::cpu<> const exec;
    ts::kv_cache<ts::key<Key>, ts::value<Value>> kv{k.extent(0), k.extent(1), k.extent(2)};
    ts::append(exec, kv, k, v); // quantises on write
    ts::tensor<float, 3> out(q.extent(0), q.extent(1), q.extent(2));
    ts::attention(exec, q, kv, out, recency{0.02f} | ts::causal | ts::window{96});
    std::printf("%-27s %6ld bytes, SNR of the output %5.1f dB\n", name, long(kv.bytes()), tour::snr(exact, out));
}

} // namespace

int main() {
    // 8 query heads share 2 heads of keys and values: grouped-query attention.
    ts::index_t const prompt = 128, heads = 8, kv_heads = 2, dim = 64;
    auto const q = tour::normal(/*seed=*/1, prompt, heads, dim); // (tokens, heads, head_dim)
    auto const k = tour::normal(2, prompt, kv_heads, dim);
    auto const v = tour::normal(3, prompt, kv_heads, dim);

    // The definition: scalar, in double, without a cache. A score is a pipeline of functors, masks among them.
    ts::tensor<float, 3> exact(prompt, heads, dim);
    ts::attention(ts::reference{}, q, k, v, exact, recency{0.02f} | ts::causal | ts::window{96});

    // Keys and values choose their formats separately.
    show<ts::fp16, ts::fp16>("keys fp16, values fp16:", q, k, v, exact);
    show<ts::bf16, ts::bf16>("keys bf16, values bf16:", q, k, v, exact);
    show<ts::int8_per_token, ts::fp16>("keys int8, values fp16:", q, k, v, exact);
    show<ts::int8_per_token, ts::int8_per_token>("keys int8, values int8:", q, k, v, exact);

    // Decoding: append the new token's key and value, attend with its query alone. A ring keeps the last 96 tokens, which is
    // all that the window sees, so the cache stops growing.
    ts::cpu<> const exec;
    ts::kv_cache<ts::key<ts::int8_per_token>, ts::value<ts::int8_per_token>, ts::ring> kv{96, kv_heads, dim};
    ts::append(exec, kv, k, v);
    ts::tensor<float, 3> out(1, heads, dim);
    ts::matrix<float> log_sum_exp{heads, 1};
    for (int step = 0; step < 3; ++step) {
        auto const seed = static_cast<std::uint64_t>(10 + step);
        ts::append(exec, kv, tour::normal(seed, 1, kv_heads, dim), tour::normal(seed + 10, 1, kv_heads, dim));
        ts::attention(exec, tour::normal(seed + 20, 1, heads, dim), kv, out, ts::causal | ts::window{96}, log_sum_exp);
        std::printf("token %ld: sees positions %ld to %ld, log-sum-exp of head 0 is %.2f\n", long(kv.end_position() - 1),
                    long(kv.first_position()), long(kv.end_position() - 1), double{log_sum_exp(0, 0)});
    }
}
// Output:
// keys fp16, values fp16:      65536 bytes, SNR of the output  71.8 dB
// keys bf16, values bf16:      65536 bytes, SNR of the output  53.2 dB
// keys int8, values fp16:      50176 bytes, SNR of the output  46.9 dB
// keys int8, values int8:      34816 bytes, SNR of the output  42.7 dB
// token 128: sees positions 33 to 128, log-sum-exp of head 0 is 4.89
// token 129: sees positions 34 to 129, log-sum-exp of head 0 is 5.17
// token 130: sees positions 35 to 130, log-sum-exp of head 0 is 5.03
