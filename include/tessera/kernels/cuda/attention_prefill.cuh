// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of many queries on Hopper, for fp16 or bf16 throughout and heads of 64 or 128: two warp groups take 64 queries of a head
/// each and walk the keys in tiles of 128, which are copied a step ahead. While the matrix units multiply a step's keys and the step
/// before's values, the threads make weights of scores (the order of FlashAttention-3, arXiv:2407.08608).
///
/// Weights are rounded to the element type: half a step relative, besides the errors of float32.

#include "attention_decode.cuh"
#include "ptx/cp_async_zero.cuh"
#include "ptx/wgmma.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Tiles in shared memory: rows of 64 columns, 128 bytes, as ptx/wgmma.cuh wants them; of 128 columns the second half follows.
template <int D>
struct prefill_layout {
    static constexpr int queries = 128;
    static constexpr int keys = 128;
    static constexpr int threads = 256;
    static constexpr index_t tile_bytes = index_t{128} * D * 2;
    static constexpr index_t shared_bytes = 5 * tile_bytes + 1024; // q, two of k, two of v; alignment
};

/// Rows [0, 128) into a tile: `count` rows from `from` on, `stride` elements apart, then zeros. Rows that
/// do not lie so are where `row(r)` says.
template <int D, class T, class Row>
__device__ __forceinline__ void copy_tile(std::uint32_t to, T const* from, index_t stride, index_t count, bool is_flat, Row const& row) {
    constexpr int chunks = D / 8;
    int thread = static_cast<int>(threadIdx.x);
    asm volatile("" : "+r"(thread)); // addresses are computed here, not kept in registers over a whole step
    int const r0 = thread / chunks;
    int const c = thread % chunks;
    constexpr int rows = 256 / chunks; // a multiple of 8: the place of a chunk in its row is the same for all of a thread's
    std::uint32_t const at = to + static_cast<std::uint32_t>(c / 8 * (128 * 128) + r0 * 128 + ((c % 8 ^ r0 % 8) << 4));
    if (is_flat) {
        T const* const first = from + r0 * stride + 8 * c;
#pragma unroll
        for (int n = 0; n < 128 / rows; ++n)
            ptx::copy_async_or_zero(at + static_cast<std::uint32_t>(n * rows * 128), r0 + n * rows < count ? first + n * rows * stride : from, r0 + n * rows < count);
    } else {
#pragma unroll 1
        for (int n = 0; n < 128 / rows; ++n)
            ptx::copy_async_or_zero(at + static_cast<std::uint32_t>(n * rows * 128), r0 + n * rows < count ? row(r0 + n * rows) + 8 * c : from, r0 + n * rows < count);
    }
}

/// The next tile of keys, from t on, that some query of the block may see.
template <class A>
__device__ index_t next_tile(A const& a, index_t head, index_t q0, index_t q1, token_range const& keys, index_t t) {
    if constexpr (has_mask<std::remove_cvref_t<decltype(a.score)>>)
        while (t < keys.last &&
               visibility_of(a.score, score_tile{q0, q1, a.kv.first_position + t, a.kv.first_position + minimum(t + 128, keys.last), head, a.batch}) ==
                   visibility::none)
            t += 128;
    return t;
}

/// A thread's part of a warp group's tile: rows g and g + 8 of its warp's 16.
template <int D>
struct prefill_state {
    float sums[D / 2];
    float maximum[2]; // of scores times log2(e)
    float sum[2];
};

/// Scores of products of a tile at token t0: what is returned times s is a score times log2(e).
template <class A>
__device__ __forceinline__ float finish_scores(A const& a, index_t head, index_t query, index_t t0, token_range const& keys, bool is_full,
                                              float (&s)[64]) {
    constexpr float log2_e = 1.44269504088896340736f;
    using score_type = std::remove_cvref_t<decltype(a.score)>;
    if (is_full && !has_transform<score_type> && a.scale > 0.0f) return a.scale * log2_e; // the largest product has the largest score
    int const t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
    for (int i = 0; i < 64; ++i) {
        index_t const token = t0 + i / 4 * 8 + 2 * t + i % 2;
        coord<float> const at{query + i / 2 % 2 * 8, a.kv.first_position + token, 0.0f, 0.0f, head, a.batch};
        float const raw = a.scale * s[i];
        s[i] = token < keys.last ? (is_full ? transformed(a.score, raw, at) : a.score(raw, at)) * log2_e : minus_infinity;
    }
    return 1.0f;
}

/// Weights of a tile's scores (s times `unit`, which is positive) and their sum; `factor` is what earlier sums are to be multiplied by.
template <int D>
__device__ __forceinline__ void weigh_tile(float (&s)[64], float unit, prefill_state<D>& state, float (&factor)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float largest = minus_infinity;
#pragma unroll
        for (int i = 0; i < 32; ++i) largest = fmaxf(largest, s[i / 2 * 4 + 2 * r + i % 2]);
        largest = fmaxf(state.maximum[r], unit * lanes_reduce<4>(largest, largest_of{}));
        factor[r] = state.maximum[r] == minus_infinity ? 0.0f : ptx::exp2(state.maximum[r] - largest);
        state.maximum[r] = largest;
        float const shift = largest == minus_infinity ? 0.0f : largest;
        float sum = 0.0f;
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            float& v = s[i / 2 * 4 + 2 * r + i % 2];
            v = ptx::exp2(fmaf(v, unit, -shift));
            sum += v;
        }
        state.sum[r] = state.sum[r] * factor[r] + sum;
    }
}

/// Some value of a tile in shared memory is infinite or NaN; those are zeros then.
template <int D, class T>
__device__ bool clear_what_is_no_number(std::uint32_t tile) {
    bool found = false;
    for (int i = static_cast<int>(threadIdx.x); i < 128 * D / 2; i += 256) {
        std::uint32_t const at = tile + static_cast<std::uint32_t>(4 * i);
        std::uint32_t word;
        asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(at) : "memory");
        if (!has_no_number<T>(word)) continue;
        found = true;
        word &= (has_no_number<T>(word & 0xffffu) ? 0u : 0xffffu) | (has_no_number<T>(word & 0xffff0000u) ? 0u : 0xffff0000u);
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(at), "r"(word) : "memory");
    }
    ptx::fence_shared();
    return __syncthreads_or(found) != 0;
}

/// Sums of a thread that became infinite, by sign: bit i is number i; NaN is both.
struct infinite_sums {
    std::uint64_t plus = 0;
    std::uint64_t minus = 0;
};

/// What the values of a tile that are no numbers do to rows that see their keys; rows that do not see them must not notice.
template <int D, class A>
__device__ __noinline__ infinite_sums see_infinite_values(A const& a, index_t head, index_t query, index_t t0, token_range const& keys) {
    infinite_sums result;
    index_t const kv_head = head / a.shape().group();
    for (index_t token = t0; token < minimum(t0 + 128, keys.last); ++token) {
        index_t const slot = a.kv.slot(token);
        for (int r = 0; r < 2; ++r) {
            if (a.score(0.0f, coord<float>{query + 8 * r, a.kv.first_position + token, 0.0f, 0.0f, head, a.batch}) == minus_infinity) continue;
            for (int k = 0; k < D / 4; ++k) {
                float const v = a.kv.values(kv_head, slot, k / 2 * 8 + 2 * (static_cast<int>(threadIdx.x) % 4) + k % 2);
                if (fabsf(v) <= 3.4028234663852886e38f) continue;
                std::uint64_t const bit = std::uint64_t{1} << (k / 2 * 4 + 2 * r + k % 2);
                if (!(v < 0.0f)) result.plus |= bit;
                if (!(v > 0.0f)) result.minus |= bit;
            }
        }
    }
    return result;
}

/// Queries [64 w, 64 w + 64) of a block, by a warp group: products are asked for and waited for here.
template <int D, class T>
struct prefill_group {
    std::uint32_t q;
    float s[64];
    std::uint32_t p[32];

    __device__ __forceinline__ void multiply_keys(std::uint32_t k) {
#pragma unroll
        for (int i = 0; i < D / 16; ++i) {
            auto const at = static_cast<std::uint32_t>(i / 4 * (128 * 128) + i % 4 * 32);
            ptx::multiply_rows<T>(s, ptx::matrix_descriptor(q + at), ptx::matrix_descriptor(k + at), i > 0);
        }
    }
    __device__ __forceinline__ void multiply_values(std::uint32_t v, float (&sums)[D / 2]) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            std::uint32_t const left[4] = {p[4 * i], p[4 * i + 1], p[4 * i + 2], p[4 * i + 3]};
            ptx::multiply_across<T>(sums, left, ptx::matrix_descriptor(v + static_cast<std::uint32_t>(i * 16 * 128), 128 * 128));
        }
    }
    __device__ __forceinline__ void pack_weights() {
#pragma unroll
        for (int i = 0; i < 32; ++i) p[i] = ptx::pack<T>(s[2 * i], s[2 * i + 1]);
    }
    /// The next tile's products with keys, waited for, and this one's with values, under way.
    __device__ __forceinline__ void step(std::uint32_t k, std::uint32_t v, float (&sums)[D / 2]) {
        ptx::hold(s);
        ptx::hold(sums);
        ptx::fence_group();
        multiply_keys(k);
        ptx::commit_group();
        multiply_values(v, sums);
        ptx::commit_group();
        ptx::wait_group<1>();
        ptx::hold(s);
    }
};

/// A block's queries and keys, and the tiles of these in shared memory.
template <int D, class T, class A>
struct prefill_block {
    static constexpr auto tile_bytes = static_cast<std::uint32_t>(prefill_layout<D>::tile_bytes);
    A const& a;
    index_t head;
    index_t kv_head;
    index_t first; ///< query
    index_t q0;    ///< positions
    index_t q1;
    token_range keys;
    std::uint32_t base; ///< q, two tiles of k, two of v
    slot_map<T, T> slots;

    __device__ __forceinline__ prefill_block(A const& arguments, std::byte* memory)
        : a{arguments}, head{blockIdx.y}, kv_head{head / a.shape().group()},
          first{static_cast<index_t>(gridDim.x - 1 - blockIdx.x) * 128}, // the longest rows first
          q0{a.first_query() + first}, q1{minimum(q0 + 128, a.kv.query_end())}, keys{tokens_seen(a.score, a.kv, q0, q1)},
          base{(ptx::shared_address(memory) + 1023) & ~1023u}, slots{a.kv} {}

    __device__ __forceinline__ std::uint32_t key_tile(int stage) const { return base + (1 + stage) * tile_bytes; }
    __device__ __forceinline__ std::uint32_t value_tile(int stage) const { return base + (3 + stage) * tile_bytes; }
    __device__ __forceinline__ void copy_queries() const {
        copy_tile<D>(base, &a.q(first, head, 0), a.q.stride(0), a.q.extent(0) - first, true, [](int) { return static_cast<T const*>(nullptr); });
    }
    __device__ __forceinline__ void copy_rows(std::uint32_t to, kv_rows<T const> const& side, index_t t) const {
        copy_tile<D>(to, side.row(kv_head, a.kv.first_slot + (slots.is_flat ? t : 0)), side.slot_stride, keys.last - t, slots.is_flat,
                     [&](int r) { return side.row(kv_head, slots(t + r)); });
    }
    __device__ __forceinline__ index_t tile_from(index_t t) const { return next_tile(a, head, q0, q1, keys, t); }
    __device__ __forceinline__ bool is_full(index_t t) const {
        return t + 128 <= keys.last && visibility_of(a.score, score_tile{q0, q1, a.kv.first_position + t, a.kv.first_position + t + 128, head,
                                                                         a.batch}) == visibility::full;
    }
    /// What was asked for is there, of all threads.
    __device__ __forceinline__ void arrive() const {
        ptx::wait<0>();
        ptx::fence_shared();
        __syncthreads();
    }
    /// The values of a tile, once they are there; what is no number is taken out where a row may not see it.
    __device__ __forceinline__ std::uint32_t values_of(index_t t, bool is_full, int stage, index_t query, infinite_sums& infinite) const {
        arrive();
        if (!is_full && clear_what_is_no_number<D, T>(value_tile(stage))) {
            infinite_sums const more = see_infinite_values<D>(a, head, query, t, keys);
            infinite.plus |= more.plus;
            infinite.minus |= more.minus;
        }
        return value_tile(stage);
    }
};

/// Everything a thread's rows see; `query` is the position of the first of them.
template <int D, class T, class A>
__device__ __forceinline__ void walk_keys(prefill_block<D, T, A> const& block, index_t query, prefill_state<D>& state, infinite_sums& infinite) {
    index_t const last = block.keys.last;
    index_t t = block.tile_from(block.keys.first);
    if (t >= last) return;
    prefill_group<D, T> tile;
    tile.q = block.base + threadIdx.x / 128 * (64 * 128);
    block.copy_queries();
    block.copy_rows(block.key_tile(0), block.a.kv.keys, t);
    ptx::commit();
    block.arrive();
    float factor[2];
    index_t now = t; // whose values come next
    bool is_full = block.is_full(now);
    t = block.tile_from(now + 128);
    if (t < last) block.copy_rows(block.key_tile(1), block.a.kv.keys, t);
    block.copy_rows(block.value_tile(0), block.a.kv.values, now);
    ptx::commit();
    ptx::fence_group();
    tile.multiply_keys(block.key_tile(0));
    ptx::commit_group();
    ptx::wait_group<0>();
    ptx::hold(tile.s);
    weigh_tile<D>(tile.s, finish_scores(block.a, block.head, query, now, block.keys, is_full, tile.s), state, factor);
    int stage = 0;
    while (t < last) {
        std::uint32_t const values = block.values_of(now, is_full, stage, query, infinite);
        tile.pack_weights();
        now = t;
        t = block.tile_from(now + 128);
        if (t < last) block.copy_rows(block.key_tile(stage), block.a.kv.keys, t);
        stage ^= 1;
        block.copy_rows(block.value_tile(stage), block.a.kv.values, now);
        ptx::commit();
        tile.step(block.key_tile(stage), values, state.sums);
        is_full = block.is_full(now);
        weigh_tile<D>(tile.s, finish_scores(block.a, block.head, query, now, block.keys, is_full, tile.s), state, factor);
        ptx::wait_group<0>();
        ptx::hold(state.sums);
#pragma unroll
        for (int i = 0; i < D / 2; ++i) state.sums[i] *= factor[i / 2 % 2];
    }
    std::uint32_t const values = block.values_of(now, is_full, stage, query, infinite);
    tile.pack_weights();
    ptx::hold(state.sums);
    ptx::fence_group();
    tile.multiply_values(values, state.sums);
    ptx::commit_group();
    ptx::wait_group<0>();
    ptx::hold(state.sums);
}

/// Tiles of 128 queries by heads.
template <int D, class T, class A>
__global__ void __launch_bounds__(256, 1) attention_prefill_kernel(__grid_constant__ A const a) {
    extern __shared__ std::byte dynamic[];
    prefill_block<D, T, A> const block{a, dynamic};
    int const lane = static_cast<int>(threadIdx.x) % 32;
    index_t const mine = block.first + threadIdx.x / 32 * 16 + lane / 4; // and 8 rows on
    prefill_state<D> state{};
    state.maximum[0] = state.maximum[1] = minus_infinity;
    infinite_sums infinite;
    walk_keys(block, a.first_query() + mine, state, infinite);
    using out_type = typename decltype(a.out)::value_type;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        float const sum = lanes_reduce<4>(state.sum[r], sum_of{});
        index_t const i = mine + 8 * r;
        if (i >= a.q.extent(0)) continue;
        float const factor = a.finish(block.head, i, state.maximum[r] * 0.693147180559945309417f, sum);
#pragma unroll
        for (int k = 0; k < D / 4; ++k) {
            int const n = k / 2 * 4 + 2 * r + k % 2;
            bool const plus = (infinite.plus >> n & 1) != 0;
            bool const minus = (infinite.minus >> n & 1) != 0;
            float const v = plus && minus ? NAN : plus ? INFINITY : minus ? -INFINITY : state.sums[n] * factor;
            a.out(i, block.head, k / 2 * 8 + 2 * (lane % 4) + k % 2) = static_cast<out_type>(sum == 0.0f ? 0.0f : v);
        }
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
