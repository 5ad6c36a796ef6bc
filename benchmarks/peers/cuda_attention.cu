// SPDX-License-Identifier: MIT
/// @file
/// Attention as a C function, for cuda_attention.py: bf16, q and out (batch, heads, queries, d), k and v (batch, kv_heads, keys, d).

#include <tessera/attention/attention.cuh>

#include <cstdio>
#include <exception>
#include <vector>

namespace ts = tessera;
using ts::index_t;

namespace {

template <class T>
ts::device_view<T, 3> heads_of(T* data, index_t heads, index_t tokens, index_t dim) {
    index_t const sizes[] = {tokens, heads, dim};
    index_t const strides[] = {dim, tokens * dim, 1};
    using view = ts::device_view<T, 3>;
    return {data, typename view::mapping_type{ts::dynamic_extents<3>{sizes[0], sizes[1], sizes[2]}, strides}};
}

template <class Score>
void attend(ts::cuda<90> const& exec, ts::bf16 const* q, ts::bf16 const* k, ts::bf16 const* v, ts::bf16* out, index_t batch, index_t queries,
            index_t keys, index_t heads, index_t kv_heads, index_t dim, Score const& score) {
    if (queries > 1) {
        for (index_t b = 0; b < batch; ++b)
            ts::attention(exec, heads_of(q + b * queries * heads * dim, heads, queries, dim),
                          heads_of(k + b * keys * kv_heads * dim, kv_heads, keys, dim), heads_of(v + b * keys * kv_heads * dim, kv_heads, keys, dim),
                          heads_of(out + b * queries * heads * dim, heads, queries, dim), score);
        return;
    }
    std::vector<ts::kv_view<ts::bf16, ts::bf16>> caches; // one query a request: (batch, heads, 1, d) is (batch, heads, d)
    std::vector<std::int32_t> offsets{0};
    for (index_t b = 0; b < batch; ++b) {
        caches.emplace_back(heads_of(k + b * keys * kv_heads * dim, kv_heads, keys, dim), heads_of(v + b * keys * kv_heads * dim, kv_heads, keys, dim));
        offsets.push_back(static_cast<std::int32_t>(b + 1));
    }
    index_t const strides[] = {heads * dim, dim, 1};
    using in = ts::device_view<ts::bf16 const, 3>;
    using to = ts::device_view<ts::bf16, 3>;
    ts::attention_batch(exec, in{q, typename in::mapping_type{ts::dynamic_extents<3>{batch, heads, dim}, strides}},
                        ts::vector_view<std::int32_t const>{offsets.data(), batch + 1}, caches,
                        to{out, typename to::mapping_type{ts::dynamic_extents<3>{batch, heads, dim}, strides}}, score);
}

} // namespace

extern "C" int tessera_attention(void const* q, void const* k, void const* v, void* out, long long batch, long long queries, long long keys,
                                 long long heads, long long kv_heads, long long dim, int is_causal, void* stream) {
    using element = ts::bf16;
    try {
        ts::cuda<90> const exec{stream};
        auto const run = [&](auto const& score) {
            attend(exec, static_cast<element const*>(q), static_cast<element const*>(k), static_cast<element const*>(v), static_cast<element*>(out),
                   batch, queries, keys, heads, kv_heads, dim, score);
        };
        if (is_causal != 0)
            run(ts::causal);
        else
            run(ts::full);
        return 0;
    } catch (std::exception const& e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
}
