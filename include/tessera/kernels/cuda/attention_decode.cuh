// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of few queries on CUDA devices, for fp16 or bf16 throughout and heads of 64 or 128: bound by reading the cache, so
/// registers take it as it comes. A block has 16 rows, queries by heads of one KV head, and a part of the keys; its four warps take 16
/// keys each in turn and merge at the end. Products by matrix units (m16n8k16): the order of the summed dimension and of the columns
/// of the result is free, so every lane loads 16 adjacent bytes, of keys for the first product and of values for the second.
///
/// Weights are rounded to the element type: half a step relative, besides the errors of float32.

#include "attention_rows.cuh"
#include "ptx/mma_half.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// What the warps of a block share.
template <int D>
struct decode_scratch {
    float sums[4][16][D + 4];
    float maximum[4][16];
    float sum[4][16];
};

/// A warp's state: of lane 4 g + t, rows g and g + 8.
template <int D>
struct decode_state {
    float sums[D / 8][4]; // tile 8 c + w: of columns 64 c + 8 (2 t) + w and 64 c + 8 (2 t + 1) + w
    float maximum[2];
    float sum[2];
};

/// Row r of a block's 16.
template <class A>
struct decode_row {
    index_t query;
    index_t head;
    bool is_there;

    __device__ decode_row(A const& a, unsigned group, unsigned kv_head, unsigned r) {
        is_there = r < group * static_cast<unsigned>(a.q.extent(0));
        query = is_there ? r / group : 0;
        head = kv_head * group + (is_there ? r % group : 0);
    }
};

/// Scores of rows g and g + 8 by keys t0 + 8 j + 2 t and the next: [j][2 * (row >= 8) + key].
template <class A>
__device__ __forceinline__ void score_tile_of(A const& a, decode_row<A> const (&rows)[2], index_t t0, token_range const& keys, bool is_full,
                                              float (&s)[2][4]) {
    int const t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            index_t const token = t0 + 8 * j + 2 * t + e % 2;
            coord<float> const at{a.first_query() + rows[e / 2].query, a.kv.first_position + token, 0.0f, 0.0f, rows[e / 2].head, a.batch};
            float const raw = a.scale * s[j][e];
            float const v = is_full ? transformed(a.score, raw, at) : a.score(raw, at);
            s[j][e] = token < keys.last ? v : minus_infinity;
        }
}

/// sums += weights times values where a value is no number: keys that a row does not see must not reach it.
template <int D, class A>
__device__ __noinline__ void add_values_one_by_one(A const& a, index_t kv_head, index_t t0, token_range const& keys, float const (&p)[2][4],
                                                   bool const (&seen)[2][4], decode_state<D>& state) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    for (int k = 0; k < 16; ++k) {
        float w[2];
        bool sees[2];
        for (int r = 0; r < 2; ++r) {
            int const e = 2 * r + k % 2;
            int const from = lane / 4 * 4 + k % 8 / 2;
            w[r] = __shfl_sync(~0u, k < 8 ? p[0][e] : p[1][e], from);
            sees[r] = __shfl_sync(~0u, static_cast<int>(k < 8 ? seen[0][e] : seen[1][e]), from) != 0;
        }
        if (t0 + k >= keys.last) continue;
        index_t const slot = a.kv.slot(t0 + k);
        for (int c = 0; c < D / 8; ++c)
            for (int e = 0; e < 4; ++e) {
                index_t const d = c / 8 * 64 + 8 * (lane % 4 * 2 + e % 2) + c % 8;
                if (sees[e / 2]) state.sums[c][e] += w[e / 2] * a.kv.values(kv_head, slot, d);
            }
    }
}

/// Weights of a tile's scores; rescales what is there where a maximum grows.
template <int D>
__device__ __forceinline__ void weigh(float (&s)[2][4], decode_state<D>& state) {
    float largest[2];
#pragma unroll
    for (int r = 0; r < 2; ++r)
        largest[r] = fmaxf(state.maximum[r], lanes_reduce<4>(fmaxf(fmaxf(s[0][2 * r], s[0][2 * r + 1]), fmaxf(s[1][2 * r], s[1][2 * r + 1])), largest_of{}));
    if (__any_sync(~0u, largest[0] > state.maximum[0] || largest[1] > state.maximum[1])) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            float const factor = state.maximum[r] == minus_infinity ? 0.0f : expf(state.maximum[r] - largest[r]);
            state.maximum[r] = largest[r];
            state.sum[r] *= factor;
#pragma unroll
            for (int c = 0; c < D / 8; ++c) {
                state.sums[c][2 * r] *= factor;
                state.sums[c][2 * r + 1] *= factor;
            }
        }
    }
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[j][e] = s[j][e] == minus_infinity ? 0.0f : expf(s[j][e] - state.maximum[e / 2]);
            state.sum[e / 2] += s[j][e];
        }
}

/// Some element of a word is infinite or NaN.
template <class T>
__device__ __forceinline__ bool has_no_number(std::uint32_t word) {
    constexpr std::uint32_t exponent = std::is_same_v<T, bf16> ? 0x7f80u : 0x7c00u;
    return (word & exponent) == exponent || (word >> 16 & exponent) == exponent;
}

template <class T>
__device__ __forceinline__ ::uint4 load_row(kv_rows<T const> const& side, index_t head, index_t slot, int first) {
    return __ldg(reinterpret_cast<::uint4 const*>(side.row(head, slot) + first));
}

/// Words of a vector by number, once loops are unrolled.
__device__ __forceinline__ std::uint32_t word_of(::uint4 const& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

/// Registers of 16 adjacent bytes of rows: of queries g and g + 8 at columns 32 c + 8 t, of keys 8 j + g there, of values 2 t, 2 t + 1, 2 t + 8
/// and 2 t + 9 at columns 64 c + 8 g.
template <int D>
using query_words = ::uint4[2][D / 32];
template <int D>
using key_words = ::uint4[2][D / 32];
template <int D>
using value_words = ::uint4[4][D / 64];

template <int D, class A>
__device__ __forceinline__ void load_queries(A const& a, decode_row<A> const (&rows)[2], query_words<D>& q) {
    int const t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int r = 0; r < 2; ++r)
#pragma unroll
        for (int c = 0; c < D / 32; ++c)
            q[r][c] = rows[r].is_there ? *reinterpret_cast<::uint4 const*>(&a.q(rows[r].query, rows[r].head, 32 * c + 8 * t)) : make_uint4(0, 0, 0, 0);
}
template <int D, class A, class Slots>
__device__ __forceinline__ void load_keys(A const& a, index_t kv_head, index_t from, index_t last, Slots const& slots, key_words<D>& k) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        index_t const slot = slots(minimum(from + 8 * j + lane / 4, last - 1));
#pragma unroll
        for (int c = 0; c < D / 32; ++c) k[j][c] = load_row(a.kv.keys, kv_head, slot, 32 * c + 8 * (lane % 4));
    }
}
template <int D, class A, class Slots>
__device__ __forceinline__ void load_values(A const& a, index_t kv_head, index_t from, index_t last, Slots const& slots, value_words<D>& v) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        index_t const slot = slots(minimum(from + 2 * (lane % 4) + j % 2 + j / 2 * 8, last - 1));
#pragma unroll
        for (int c = 0; c < D / 64; ++c) v[j][c] = load_row(a.kv.values, kv_head, slot, 64 * c + 8 * (lane / 4));
    }
}

/// s = q kᵀ.
template <int D, class T>
__device__ __forceinline__ void multiply_keys(query_words<D> const& q, key_words<D> const& k, float (&s)[2][4]) {
#pragma unroll
    for (int c = 0; c < D / 32; ++c)
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            std::uint32_t const left[4] = {word_of(q[0][c], 2 * half), word_of(q[1][c], 2 * half), word_of(q[0][c], 2 * half + 1),
                                           word_of(q[1][c], 2 * half + 1)};
#pragma unroll
            for (int j = 0; j < 2; ++j) ptx::mma<T>(s[j], left, word_of(k[j][c], 2 * half), word_of(k[j][c], 2 * half + 1));
        }
}
/// sums += p v.
template <int D, class T>
__device__ __forceinline__ void multiply_values(float const (&p)[2][4], value_words<D> const& v, decode_state<D>& state) {
    std::uint32_t const weights[4] = {ptx::pack<T>(p[0][0], p[0][1]), ptx::pack<T>(p[0][2], p[0][3]), ptx::pack<T>(p[1][0], p[1][1]),
                                      ptx::pack<T>(p[1][2], p[1][3])};
#pragma unroll
    for (int c = 0; c < D / 64; ++c)
#pragma unroll
        for (int w = 0; w < 8; ++w) {
            unsigned const pick = w % 2 == 0 ? 0x5410u : 0x7632u;
            ptx::mma<T>(state.sums[8 * c + w], weights, __byte_perm(word_of(v[0][c], w / 2), word_of(v[1][c], w / 2), pick),
                        __byte_perm(word_of(v[2][c], w / 2), word_of(v[3][c], w / 2), pick));
        }
}
template <int D, class T>
__device__ __forceinline__ bool have_no_number(value_words<D> const& v) {
    bool strange = false;
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int c = 0; c < D / 64; ++c)
#pragma unroll
            for (int w = 0; w < 4; ++w) strange = strange || has_no_number<T>(word_of(v[j][c], w));
    return __any_sync(~0u, strange) != 0;
}

/// Keys [keys.first, keys.last) in steps of 64, 16 of them this warp's.
template <int D, class T, class A>
__device__ __forceinline__ void attend_part(A const& a, index_t kv_head, decode_row<A> const (&rows)[2], token_range const& keys, bool is_full,
                                            decode_state<D>& state) {
    slot_map const slots{a.kv};
    query_words<D> q;
    key_words<D> k;
    load_queries<D>(a, rows, q);
    index_t t0 = keys.first + 16 * (threadIdx.x / 32);
    if (t0 < keys.last) load_keys<D>(a, kv_head, t0, keys.last, slots, k);
    for (; t0 < keys.last; t0 += 64) {
        value_words<D> v;
        load_values<D>(a, kv_head, t0, keys.last, slots, v);
        float s[2][4] = {};
        multiply_keys<D, T>(q, k, s);
        if (t0 + 64 < keys.last) load_keys<D>(a, kv_head, t0 + 64, keys.last, slots, k);
        score_tile_of(a, rows, t0, keys, is_full, s);
        bool const may_hide = !is_full || t0 + 16 > keys.last;
        if (may_hide && have_no_number<D, T>(v)) { // copies: what a call is given lies in memory
            bool seen[2][4];
#pragma unroll
            for (int i = 0; i < 8; ++i) seen[i / 4][i % 4] = s[i / 4][i % 4] != minus_infinity;
            weigh<D>(s, state);
            decode_state<D> copy = state;
            float const p[2][4] = {{s[0][0], s[0][1], s[0][2], s[0][3]}, {s[1][0], s[1][1], s[1][2], s[1][3]}};
            add_values_one_by_one<D>(a, kv_head, t0, keys, p, seen, copy);
            state = copy;
            continue;
        }
        weigh<D>(s, state);
        multiply_values<D, T>(s, v, state);
    }
}

/// All queries' heads see all keys of the part: masks need not be asked.
template <class A>
__device__ bool sees_all(A const& a, index_t group, index_t kv_head, index_t first_query, index_t last_query, token_range const& keys) {
    if constexpr (has_mask<std::remove_cvref_t<decltype(a.score)>>) {
        for (index_t h = kv_head * group; h < kv_head * group + group; ++h)
            if (visibility_of(a.score, score_tile{first_query, last_query, a.kv.first_position + keys.first, a.kv.first_position + keys.last, h,
                                                  a.batch}) != visibility::full)
                return false;
    }
    return true;
}

/// The states of a row that the warps of a block have: out, or the part's state.
template <int D, class A>
__device__ void merge_warps(A const& a, attention_parts const& parts, decode_scratch<D> const& scratch, decode_row<A> const& row, unsigned r,
                            index_t first_row) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    float largest = minus_infinity;
    for (int w = 0; w < 4; ++w) largest = fmaxf(largest, scratch.maximum[w][r]);
    float own[4];
    float sum = 0.0f;
    for (int w = 0; w < 4; ++w) {
        float const m = scratch.maximum[w][r];
        own[w] = m == minus_infinity ? (scratch.sum[w][r] != 0.0f ? 1.0f : 0.0f) : expf(m - largest);
        if (own[w] != 0.0f) sum += own[w] * scratch.sum[w][r];
    }
    float* const to = parts.states == nullptr ? nullptr : parts.state(blockIdx.x, first_row + row.query * a.q.extent(1) + row.head);
    float const factor = to == nullptr ? a.finish(row.head, row.query, largest, sum) : 1.0f;
    using out_type = typename decltype(a.out)::value_type;
    for (int d = lane; d < D; d += 32) {
        float v = 0.0f;
        for (int w = 0; w < 4; ++w)
            if (own[w] != 0.0f) v = fmaf(own[w], scratch.sums[w][r][d], v);
        if (to == nullptr)
            a.out(row.query, row.head, d) = static_cast<out_type>(sum == 0.0f ? 0.0f : v * factor);
        else
            to[d] = v;
    }
    if (to != nullptr && lane == 0) {
        to[D] = largest;
        to[D + 1] = sum;
    }
}

/// Parts of the keys by tiles of 16 rows of a KV head by requests.
template <int D, class T, class A, int N>
__global__ void __launch_bounds__(128, 2)
    attention_decode_kernel(__grid_constant__ attention_requests<A, N> const requests, __grid_constant__ attention_parts const parts) {
    __shared__ decode_scratch<D> scratch;
    A const& a = requests[blockIdx.z];
    unsigned const group = parts.group;
    unsigned const tiles = (static_cast<unsigned>(a.q.extent(0)) * group + 15) / 16;
    if (tiles == 0) return; // requests have unequal numbers of queries
    unsigned const kv_head = blockIdx.y / tiles;
    unsigned const first_row = blockIdx.y % tiles * 16;
    if (kv_head >= a.kv.kv_heads) return;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
    decode_row<A> const rows[2] = {{a, group, kv_head, first_row + lane / 4}, {a, group, kv_head, first_row + lane / 4 + 8}};
    index_t const q0 = a.first_query() + first_row / group;
    index_t const q1 = a.first_query() + minimum((first_row + 15) / group + 1, a.q.extent(0));
    token_range const keys = keys_of_part(a, parts, blockIdx.x, q0, q1);
    decode_state<D> state{};
    state.maximum[0] = state.maximum[1] = minus_infinity;
    attend_part<D, T>(a, kv_head, rows, keys, sees_all(a, group, kv_head, q0, q1, keys), state);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        int const row = lane / 4 + 8 * r;
        float const sum = lanes_reduce<4>(state.sum[r], sum_of{});
        if (lane % 4 == 0) {
            scratch.maximum[warp][row] = state.maximum[r];
            scratch.sum[warp][row] = sum;
        }
#pragma unroll
        for (int c = 0; c < D / 8; ++c)
#pragma unroll
            for (int e = 0; e < 2; ++e) scratch.sums[warp][row][c / 8 * 64 + 8 * (lane % 4 * 2 + e) + c % 8] = state.sums[c][2 * r + e];
    }
    __syncthreads();
    for (unsigned r = warp; r < 16; r += 4) {
        decode_row<A> const row{a, group, kv_head, first_row + r};
        if (row.is_there) merge_warps<D>(a, parts, scratch, row, r, requests.first_row[blockIdx.z]);
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
