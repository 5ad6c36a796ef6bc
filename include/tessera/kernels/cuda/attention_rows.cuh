// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention on CUDA devices in float32, for any element types, formats, strides and dimensions: a warp takes a query of a head,
/// keys in tiles of 64, and 256 columns of the values at a time. The keys may be cut into parts; a second kernel merges them in order.

#include "../../core/cuda_call.cuh"
#include "../attention.hpp"

#include <cstddef>
#include <new>

namespace tessera::inline TESSERA_ABI::detail {

struct largest_of {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};
struct sum_of {
    __device__ float operator()(float a, float b) const { return a + b; }
};

/// Of the lanes whose numbers differ in the bits of `Lanes - 1`; all of them get the result.
template <int Lanes = 32, class Combine>
__device__ __forceinline__ float lanes_reduce(float v, Combine const& combine) {
#pragma unroll
    for (int d = Lanes / 2; d > 0; d /= 2) v = combine(v, __shfl_xor_sync(~0u, v, d));
    return v;
}

/// Where partial states of rows lie: value_dim sums of exp(score - maximum) v, the maximum, the sum. No parts: null.
struct attention_parts {
    float* states = nullptr;
    index_t part_keys = 0; ///< keys of a part
    index_t count = 1;
    index_t rows = 0; ///< of all requests
    index_t columns = 0;
    unsigned* counters = nullptr; ///< of parts that are there, by requests and KV heads, 0 between calls; null: a second kernel merges
    unsigned group = 1; ///< query heads of a KV head; divisions of 64 bits are what short kernels cannot afford

    __device__ float* state(index_t part, index_t row) const { return states + (part * rows + row) * (columns + 2); }
};

/// Keys [first, last) of the cache that a part has of those that queries [q0, q1) may see.
template <class A>
__device__ token_range keys_of_part(A const& a, attention_parts const& parts, index_t part, index_t q0, index_t q1) {
    token_range keys = tokens_seen(a.score, a.kv, q0, q1);
    if (parts.states != nullptr) {
        keys.first = maximum(keys.first, part * parts.part_keys);
        keys.last = maximum(minimum(keys.last, (part + 1) * parts.part_keys), keys.first);
    }
    return keys;
}

/// Slots of a cache, most often consecutive ones: divisions are for rings that have wrapped, and pages.
template <class K, class V>
struct slot_map {
    kv_view<K, V> const& kv;
    bool is_flat;

    __device__ explicit slot_map(kv_view<K, V> const& view)
        : kv{view}, is_flat{view.pages == nullptr && (view.ring_size == 0 || view.first_slot + view.tokens <= view.ring_size)} {}
    __device__ __forceinline__ index_t operator()(index_t token) const { return is_flat ? kv.first_slot + token : other(token); }

private:
    __device__ __noinline__ index_t other(index_t token) const { return kv.slot(token); }
};

/// What a warp has of a row: out, or its part's state.
template <class A>
__device__ void store_row(A const& a, attention_parts const& parts, index_t part, index_t row, index_t c0, float const (&sums)[8], float largest, float sum) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    index_t const i = row / a.q.extent(1);
    index_t const h = row % a.q.extent(1);
    float* const state = parts.states == nullptr ? nullptr : parts.state(part, row);
    float const factor = state == nullptr ? a.finish(h, i, largest, sum) : 1.0f;
    using out_type = typename decltype(a.out)::value_type;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
        index_t const d = c0 + lane + 32 * c;
        if (d >= a.kv.value_dim) continue;
        if (state == nullptr)
            a.out(i, h, d) = static_cast<out_type>(sum == 0.0f ? 0.0f : sums[c] * factor);
        else
            state[d] = sums[c];
    }
    if (state != nullptr && lane == 0) {
        state[parts.columns] = largest;
        state[parts.columns + 1] = sum;
    }
}

/// A query of a head, by a warp: columns [c0, c0 + 256) of the values.
template <class A>
__device__ void attend_row(A const& a, attention_parts const& parts, index_t part, index_t row, index_t c0, float* weights, index_t* slots) {
    constexpr int width = 8; // columns of a lane
    int const lane = static_cast<int>(threadIdx.x) % 32;
    index_t const i = row / a.q.extent(1);
    index_t const h = row % a.q.extent(1);
    index_t const kv_head = h / a.shape().group();
    index_t const position = a.first_query() + i;
    token_range const keys = keys_of_part(a, parts, part, position, position + 1);
    float sums[width] = {};
    float maximum_so_far = minus_infinity;
    float sum = 0.0f;
    for (index_t first = keys.first; first < keys.last; first += 64) {
        auto const n = static_cast<int>(minimum(index_t{64}, keys.last - first));
        float s[2] = {minus_infinity, minus_infinity};
        for (int j = 0; j < 2; ++j) {
            index_t const t = first + lane + 32 * j;
            if (t >= keys.last) continue;
            index_t const slot = a.kv.slot(t);
            float dot = 0.0f;
            for (index_t d = 0; d < a.kv.key_dim; ++d) dot = fmaf(static_cast<float>(a.q(i, h, d)), a.kv.keys(kv_head, slot, d), dot);
            s[j] = a.score(a.scale * dot, coord<float>{position, a.kv.first_position + t, 0.0f, 0.0f, h, a.batch});
            slots[lane + 32 * j] = slot;
        }
        float const largest = fmaxf(maximum_so_far, lanes_reduce(fmaxf(s[0], s[1]), largest_of{}));
        float const factor = maximum_so_far == minus_infinity ? 0.0f : expf(maximum_so_far - largest);
        float p[2];
        for (int j = 0; j < 2; ++j) {
            p[j] = s[j] == minus_infinity ? 0.0f : expf(s[j] - largest);
            weights[lane + 32 * j] = s[j] == minus_infinity ? -1.0f : p[j]; // not seen: its value does not matter, were it NaN
        }
        sum = sum * factor + lanes_reduce(p[0] + p[1], sum_of{});
        maximum_so_far = largest;
        __syncwarp();
#pragma unroll
        for (int c = 0; c < width; ++c) sums[c] *= factor;
        for (int k = 0; k < n; ++k) {
            float const w = weights[k];
            if (w < 0.0f) continue;
#pragma unroll
            for (int c = 0; c < width; ++c) {
                index_t const d = c0 + lane + 32 * c;
                if (d < a.kv.value_dim) sums[c] = fmaf(w, a.kv.values(kv_head, slots[k], d), sums[c]);
            }
        }
        __syncwarp();
    }
    store_row(a, parts, part, row, c0, sums, maximum_so_far, sum);
}

template <class A>
__global__ void __launch_bounds__(128) attention_rows_kernel(__grid_constant__ A const a, __grid_constant__ attention_parts const parts) {
    __shared__ float weights[4][64];
    __shared__ index_t slots[4][64];
    int const warp = static_cast<int>(threadIdx.x) / 32;
    index_t const row = static_cast<index_t>(blockIdx.x) * 4 + warp;
    if (row >= a.q.extent(0) * a.q.extent(1)) return;
    index_t c0 = 0;
    do {
        attend_row(a, parts, blockIdx.y, row, c0, weights[warp], slots[warp]);
        c0 += 256;
    } while (c0 < a.kv.value_dim);
}

/// Merges the parts of a row, a block each: a thread has columns, and asks for all parts at once.
template <class A>
__device__ void merge_row(A const& a, attention_parts const& parts, index_t first_row, unsigned row) {
    constexpr int most = 16; // parts
    auto const heads = static_cast<unsigned>(a.q.extent(1));
    index_t const i = row / heads;
    index_t const h = row % heads;
    float m[most];
    float sums[most];
    float const* const first = parts.state(0, first_row + row);
    index_t const step = parts.rows * (parts.columns + 2);
#pragma unroll
    for (int p = 0; p < most; ++p) {
        m[p] = p < parts.count ? first[p * step + parts.columns] : minus_infinity;
        sums[p] = p < parts.count ? first[p * step + parts.columns + 1] : 0.0f;
    }
    float largest = minus_infinity;
#pragma unroll
    for (int p = 0; p < most; ++p) largest = fmaxf(largest, m[p]);
    float own[most];
    float sum = 0.0f;
#pragma unroll
    for (int p = 0; p < most; ++p) {
        own[p] = m[p] == minus_infinity ? (sums[p] != 0.0f ? 1.0f : 0.0f) : expf(m[p] - largest); // a NaN stays one
        if (own[p] != 0.0f) sum += own[p] * sums[p];
    }
    float const factor = a.finish(h, i, largest, sum);
    using out_type = typename decltype(a.out)::value_type;
    for (index_t d = threadIdx.x; d < parts.columns; d += blockDim.x) {
        float v[most];
#pragma unroll
        for (int p = 0; p < most; ++p) v[p] = p < parts.count ? first[p * step + d] : 0.0f;
        float total[4] = {};
#pragma unroll
        for (int p = 0; p < most; ++p)
            if (own[p] != 0.0f) total[p % 4] = fmaf(own[p], v[p], total[p % 4]);
        a.out(i, h, d) = static_cast<out_type>(sum == 0.0f ? 0.0f : (total[0] + total[1] + (total[2] + total[3])) * factor);
    }
}

/// The requests of a launch, as kernels are given them.
template <class A, int N>
struct attention_requests {
    alignas(A) std::byte bytes[N * sizeof(A)]; // scores need not have a default
    index_t first_row[N];

    __host__ __device__ A const& operator[](index_t i) const { return reinterpret_cast<A const*>(bytes)[i]; }
    void set(int i, A const& a, index_t row) noexcept {
        ::new (static_cast<void*>(bytes + i * sizeof(A))) A{a};
        first_row[i] = row;
    }
};

template <class A, int N>
__global__ void __launch_bounds__(128)
    attention_merge_kernel(__grid_constant__ attention_requests<A, N> const requests, __grid_constant__ attention_parts const parts) {
    A const& a = requests[blockIdx.y];
    if (blockIdx.x < a.q.extent(0) * a.q.extent(1)) merge_row(a, parts, requests.first_row[blockIdx.y], blockIdx.x);
}

} // namespace tessera::inline TESSERA_ABI::detail
