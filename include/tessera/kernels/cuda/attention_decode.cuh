// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of few queries on CUDA devices, for fp16 or bf16 throughout and heads of 64 or 128: bound by reading the cache. An item of
/// work is 16 rows, queries by heads of one KV head, and a part of the keys; the four warps of a block take 16 keys each in turn and
/// merge at the end. Blocks stay and take item after item, whose keys and values are asked for some tiles ahead, beyond an item's end:
/// parts of 256 keys are too short to begin each with an idle memory. Where no block has two items, who ends the last part of a row
/// merges all of them, in their order; otherwise a second kernel does.
/// Products by matrix units (m16n8k16): the order of the summed dimension and of the columns of the result is free, so every lane copies
/// 16 adjacent bytes that it alone uses, of keys for the first product and of values for the second, and nobody waits for another lane. What
/// one tile of queries reads the second-level cache need not keep: parts' states stay there for who merges them.
///
/// Weights are rounded to the element type: half a step relative, besides the errors of float32.

#include "attention_rows.cuh"
#include "ptx/atomic.cuh"
#include "ptx/cp_async.cuh"
#include "ptx/mma_half.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Tiles of 16 keys and their values that a warp has under way: two blocks fit a processor.
template <int D>
inline constexpr int decode_stages = 256 / D;
/// Blocks that stay.
template <int Sm>
inline constexpr unsigned decode_blocks = 2 * (Sm >= 90 ? 132 : 108);

/// A block's shared memory: 16 bytes of every lane side by side; what warps leave of 8 rows.
template <int D, int Stages>
struct decode_memory {
    ::uint4 ring[4][Stages][D / 8][32];
    float sums[4][8][D + 4];
    float maximum[4][8];
    float sum[4][8];
    unsigned is_last;
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
    float const base[2] = {state.maximum[0] == minus_infinity ? 0.0f : state.maximum[0], state.maximum[1] == minus_infinity ? 0.0f : state.maximum[1]};
#pragma unroll
    for (int j = 0; j < 2; ++j)
#pragma unroll
        for (int e = 0; e < 4; ++e) {
            s[j][e] = expf(s[j][e] - base[e / 2]); // 0 of what is not seen, without a branch
            state.sum[e / 2] += s[j][e];
        }
}

/// Some element of a word is infinite or NaN.
template <class T>
__device__ __forceinline__ bool has_no_number(std::uint32_t word) {
    constexpr std::uint32_t exponent = std::is_same_v<T, bf16> ? 0x7f80u : 0x7c00u;
    return (word & exponent) == exponent || (word >> 16 & exponent) == exponent;
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
/// Where a lane has its 16 bytes of values among those of 32 lanes: copies of a row's 128 bytes meet no bank twice, and neither do reads.
__device__ __forceinline__ int value_place(int lane) { return lane % 4 * 8 + (lane / 4 ^ lane % 4 * 2); }

/// The same words of keys and values, where a lane's copies left them in a stage.
template <int D>
__device__ __forceinline__ void read_keys(::uint4 const* from, key_words<D>& k) {
#pragma unroll
    for (int i = 0; i < D / 16; ++i) k[i / (D / 32)][i % (D / 32)] = from[32 * i + threadIdx.x % 32];
}
template <int D>
__device__ __forceinline__ void read_values(::uint4 const* from, value_words<D>& v) {
    from += D / 16 * 32 + value_place(static_cast<int>(threadIdx.x) % 32);
#pragma unroll
    for (int i = 0; i < D / 16; ++i) v[i / (D / 64)][i % (D / 64)] = from[32 * i];
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

/// Item i of a launch: parts of the keys by tiles of 16 rows of a KV head by requests.
struct decode_line {
    unsigned tiles; ///< of a request, of all KV heads: of the one that has most
    unsigned items;
};
template <class A>
struct decode_item {
    A const& a;
    unsigned part;
    unsigned request;
    unsigned kv_head;
    unsigned first_row;
    bool is_there; ///< requests have unequal numbers of queries

    template <int N>
    __device__ __forceinline__ decode_item(attention_requests<A, N> const& requests, attention_parts const& parts, decode_line const& line, unsigned i)
        : a{requests[i / static_cast<unsigned>(parts.count) / line.tiles]}, part{i % static_cast<unsigned>(parts.count)},
          request{i / static_cast<unsigned>(parts.count) / line.tiles} {
        unsigned const tile = i / static_cast<unsigned>(parts.count) % line.tiles;
        unsigned const tiles = (static_cast<unsigned>(a.q.extent(0)) * parts.group + 15) / 16;
        kv_head = tiles == 0 ? 0 : tile / tiles;
        first_row = tiles == 0 ? 0 : tile % tiles * 16;
        is_there = tiles != 0 && kv_head < a.kv.kv_heads;
    }
    __device__ unsigned rows(unsigned group) const { return minimum(16u, static_cast<unsigned>(a.q.extent(0)) * group - first_row); }
    __device__ index_t first_query(unsigned group) const { return a.first_query() + first_row / group; }
    __device__ index_t last_query(unsigned group) const {
        return a.first_query() + minimum(static_cast<index_t>((first_row + 15) / group + 1), a.q.extent(0));
    }
    __device__ __forceinline__ token_range keys(attention_parts const& parts) const {
        return keys_of_part(a, parts, part, first_query(parts.group), last_query(parts.group));
    }
};

/// Asks for a tile of a part's last keys, or of slots anywhere.
template <int D, class A>
__device__ __noinline__ void load_tile(A const* a, std::uint64_t policy, unsigned kv_head, index_t t0, index_t last, std::uint32_t to) {
    slot_map const slots{a->kv};
    int const lane = static_cast<int>(threadIdx.x) % 32;
    std::uint32_t const of_keys = to + 16 * lane;
    std::uint32_t const of_values = to + D / 16 * 512 + 16 * value_place(lane);
#pragma unroll 1
    for (int j = 0; j < 2; ++j) {
        auto const* const row = a->kv.keys.row(kv_head, slots(minimum(t0 + 8 * j + lane / 4, last - 1))) + 8 * (lane % 4);
#pragma unroll
        for (int c = 0; c < D / 32; ++c) ptx::copy_async_under(policy, of_keys + (j * (D / 32) + c) * 512, row + 32 * c);
    }
#pragma unroll 1
    for (int j = 0; j < 4; ++j) {
        auto const* const row = a->kv.values.row(kv_head, slots(minimum(t0 + 2 * (lane % 4) + j % 2 + j / 2 * 8, last - 1))) + 8 * (lane / 4);
#pragma unroll
        for (int c = 0; c < D / 64; ++c) ptx::copy_async_under(policy, of_values + (j * (D / 64) + c) * 512, row + 64 * c);
    }
}

/// What a warp asks for ahead of its work: the tiles of its block's items, one after the other.
template <int D, int Stages, class A, int N>
struct decode_stream {
    using T = typename decltype(A::kv)::key_type;
    attention_requests<A, N> const& requests;
    attention_parts const& parts;
    decode_line const& line;
    ::uint4* ring;
    std::uint64_t policy;
    A const* a;         // of the tile that comes next
    unsigned item;
    unsigned kv_head;
    index_t t0;
    index_t last;
    T const* key;       // this lane's of the tile, in slots that follow each other
    T const* value;
    index_t key_stride;
    index_t value_stride;
    bool is_flat;
    int asked = 0;      // stages
    int used = 0;

    __device__ __forceinline__ decode_stream(attention_requests<A, N> const& r, attention_parts const& p, decode_line const& l, ::uint4* of_warp)
        : requests{r}, parts{p}, line{l}, ring{of_warp}, policy{ptx::cache_policy(l.tiles <= static_cast<unsigned>(r[0].kv.kv_heads))}, item{blockIdx.x} {
        begin_item();
#pragma unroll 1
        for (int s = 0; s < Stages; ++s) load_next();
    }
    /// Asks for the next tile, if there is one, as a group of copies.
    __device__ __forceinline__ void load_next() {
        while (t0 >= last && item < line.items) {
            item += gridDim.x;
            begin_item();
        }
        if (t0 < last) {
            std::uint32_t const to = ptx::shared_address(ring + asked * (D / 8 * 32));
            if (is_flat && t0 + 16 <= last)
                load_flat_tile(to);
            else
                load_tile<D>(a, policy, kv_head, t0, last, to);
            t0 += 64;
        }
        ptx::commit();
        asked = asked + 1 == Stages ? 0 : asked + 1;
    }
    /// The tile that was asked for first.
    __device__ __forceinline__ ::uint4 const* wait() {
        ptx::wait<Stages - 1>();
        ::uint4 const* const from = ring + used * (D / 8 * 32);
        used = used + 1 == Stages ? 0 : used + 1;
        return from;
    }

private:
    __device__ __forceinline__ void begin_item() {
        t0 = last = 0;
        if (item >= line.items) return;
        decode_item<A> const next{requests, parts, line, item};
        if (!next.is_there) return;
        token_range const keys = next.keys(parts);
        a = &next.a;
        kv_head = next.kv_head;
        t0 = keys.first + 16 * (threadIdx.x / 32);
        last = keys.last;
        auto const& kv = a->kv;
        int const lane = static_cast<int>(threadIdx.x) % 32;
        is_flat = slot_map{kv}.is_flat;
        key_stride = kv.keys.slot_stride;
        value_stride = kv.values.slot_stride;
        key = kv.keys.row(kv_head, kv.first_slot + t0 + lane / 4) + 8 * (lane % 4);
        value = kv.values.row(kv_head, kv.first_slot + t0 + 2 * (lane % 4)) + 8 * (lane / 4);
    }
    __device__ __forceinline__ void load_flat_tile(std::uint32_t to) {
        int const lane = static_cast<int>(threadIdx.x) % 32;
        std::uint32_t const of_keys = to + 16 * lane;
        std::uint32_t const of_values = to + D / 16 * 512 + 16 * value_place(lane);
#pragma unroll
        for (int j = 0; j < 2; ++j)
#pragma unroll
            for (int c = 0; c < D / 32; ++c) ptx::copy_async_under(policy, of_keys + (j * (D / 32) + c) * 512, key + j * (8 * key_stride) + 32 * c);
#pragma unroll
        for (int j = 0; j < 4; ++j)
#pragma unroll
            for (int c = 0; c < D / 64; ++c)
                ptx::copy_async_under(policy, of_values + (j * (D / 64) + c) * 512, value + (j % 2 * value_stride + j / 2 * (8 * value_stride)) + 64 * c);
        key += 64 * key_stride;
        value += 64 * value_stride;
    }
};

/// Keys [keys.first, keys.last) in steps of 64, 16 of them this warp's.
template <int D, class T, class A, class Stream>
__device__ __forceinline__ void attend_part(A const& a, index_t kv_head, decode_row<A> const (&rows)[2], token_range const& keys, bool is_full,
                                            Stream& stream, decode_state<D>& state) {
    query_words<D> q;
    load_queries<D>(a, rows, q);
#pragma unroll 1
    for (index_t t0 = keys.first + 16 * (threadIdx.x / 32); t0 < keys.last; t0 += 64) {
        ::uint4 const* const tile = stream.wait();
        key_words<D> k;
        read_keys<D>(tile, k);
        float s[2][4] = {};
        multiply_keys<D, T>(q, k, s);
        value_words<D> v;
        read_values<D>(tile, v);
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
        } else {
            weigh<D>(s, state);
            multiply_values<D, T>(s, v, state);
        }
        stream.load_next(); // where this tile was
    }
}

/// The states of a row that the warps of a block have: out, or the part's state.
template <int D, class A, class Memory>
__device__ void merge_warps(A const& a, attention_parts const& parts, Memory const& scratch, decode_row<A> const& row, unsigned r, unsigned part,
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
    float* const to = parts.states == nullptr ? nullptr : parts.state(part, first_row + row.query * a.q.extent(1) + row.head);
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

/// The states of a row's parts, which other blocks left: out. A lane has two columns of 64, and asks for all parts at once.
template <int D, class A>
__device__ __forceinline__ void merge_parts(A const& a, attention_parts const& parts, index_t query, index_t head, index_t first_row) {
    constexpr int most = 16;
    int const lane = static_cast<int>(threadIdx.x) % 32;
    auto const count = static_cast<int>(parts.count);
    index_t const step = parts.rows * (D + 2);
    float const* const first = parts.state(0, first_row + query * a.q.extent(1) + head);
    float const m = lane < count ? __ldcg(first + lane * step + D) : minus_infinity;
    float const s = lane < count ? __ldcg(first + lane * step + D + 1) : 0.0f;
    ::float2 v[D / 64][most];
#pragma unroll
    for (int p = 0; p < most; ++p)
#pragma unroll
        for (int c = 0; c < D / 64; ++c)
            v[c][p] = p < count ? __ldcg(reinterpret_cast<::float2 const*>(first + p * step + 64 * c + 2 * lane)) : ::float2{0.0f, 0.0f};
    float const largest = lanes_reduce(m, largest_of{});
    float const own = m == minus_infinity ? (s != 0.0f ? 1.0f : 0.0f) : expf(m - largest); // a NaN stays one
    float sum = 0.0f;
    float total[D / 32][4] = {};
#pragma unroll
    for (int p = 0; p < most; ++p) {
        float const factor = __shfl_sync(~0u, own, p);
        float const of_part = __shfl_sync(~0u, s, p);
        if (factor == 0.0f) continue;
        sum = fmaf(factor, of_part, sum);
#pragma unroll
        for (int c = 0; c < D / 64; ++c) {
            total[2 * c][p % 4] = fmaf(factor, v[c][p].x, total[2 * c][p % 4]);
            total[2 * c + 1][p % 4] = fmaf(factor, v[c][p].y, total[2 * c + 1][p % 4]);
        }
    }
    float const factor = a.finish(head, query, largest, sum);
    using out_type = typename decltype(a.out)::value_type;
#pragma unroll
    for (int c = 0; c < D / 32; ++c) {
        float const v = total[c][0] + total[c][1] + (total[c][2] + total[c][3]);
        a.out(query, head, c / 2 * 64 + 2 * lane + c % 2) = static_cast<out_type>(sum == 0.0f ? 0.0f : v * factor);
    }
}

/// The same for all rows, of heads of `columns`: a warp each.
template <class A, int N>
__global__ void __launch_bounds__(128)
    attention_parts_kernel(__grid_constant__ attention_requests<A, N> const requests, __grid_constant__ attention_parts const parts) {
    A const& a = requests[blockIdx.y];
    unsigned const i = blockIdx.x * 4 + threadIdx.x / 32;
    auto const heads = static_cast<unsigned>(a.q.extent(1));
    if (i >= a.q.extent(0) * heads) return;
    index_t const query = i / heads;
    unsigned const head = i % heads;
    if (parts.columns == 64)
        merge_parts<64>(a, parts, query, head, requests.first_row[blockIdx.y]);
    else
        merge_parts<128>(a, parts, query, head, requests.first_row[blockIdx.y]);
}

/// What the warps have of an item's rows, together: out, or the part's state.
template <int D, class A, class Memory>
__device__ __forceinline__ void leave_item(decode_item<A> const& item, attention_parts const& parts, decode_state<D> const& state, Memory& memory,
                                           index_t first_row) {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int const warp = static_cast<int>(threadIdx.x) / 32;
    unsigned const rows = item.rows(parts.group);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        if (8u * r >= rows) break;
        __syncthreads(); // what was left before has been read
        float const sum = lanes_reduce<4>(state.sum[r], sum_of{});
        int const row = lane / 4;
        if (lane % 4 == 0) {
            memory.maximum[warp][row] = state.maximum[r];
            memory.sum[warp][row] = sum;
        }
        if (8 * r + row < static_cast<int>(rows))
#pragma unroll
            for (int i = 0; i < D / 16; ++i) { // 4 columns each
                int const c = i / 4 * 8 + i % 2 * 4;
                int const e = 2 * r + i / 2 % 2;
                *reinterpret_cast<::float4*>(&memory.sums[warp][row][i / 4 * 64 + 8 * (lane % 4 * 2 + i / 2 % 2) + i % 2 * 4]) =
                    make_float4(state.sums[c][e], state.sums[c + 1][e], state.sums[c + 2][e], state.sums[c + 3][e]);
            }
        __syncthreads();
        for (unsigned i = warp; i < 8; i += 4) {
            decode_row<A> const of{item.a, parts.group, item.kv_head, item.first_row + 8 * r + i};
            if (of.is_there) merge_warps<D>(item.a, parts, memory, of, i, item.part, first_row);
        }
    }
}

template <int D, int Stages, class A, int N>
__global__ void __launch_bounds__(128, 2)
    attention_decode_kernel(__grid_constant__ attention_requests<A, N> const requests, __grid_constant__ attention_parts const parts,
                            __grid_constant__ decode_line const line) {
    using T = typename decltype(A::kv)::key_type;
    extern __shared__ __align__(128) std::byte shared[];
    auto& memory = *reinterpret_cast<decode_memory<D, Stages>*>(shared);
    int const lane = static_cast<int>(threadIdx.x) % 32;
    unsigned const warp = threadIdx.x / 32;
    decode_stream<D, Stages, A, N> stream{requests, parts, line, memory.ring[warp][0][0]};
#pragma unroll 1
    for (unsigned i = blockIdx.x; i < line.items; i += gridDim.x) {
        decode_item<A> const item{requests, parts, line, i};
        if (!item.is_there) continue;
        A const& a = item.a;
        unsigned const row = item.first_row + lane / 4;
        decode_row<A> const rows[2] = {{a, parts.group, item.kv_head, row}, {a, parts.group, item.kv_head, row + 8}};
        token_range const keys = item.keys(parts);
        decode_state<D> state{};
        state.maximum[0] = state.maximum[1] = minus_infinity;
        bool const is_full = sees_all(a, parts.group, item.kv_head, item.first_query(parts.group), item.last_query(parts.group), keys);
        attend_part<D, T>(a, item.kv_head, rows, keys, is_full, stream, state);
        index_t const first_row = requests.first_row[item.request];
        leave_item<D>(item, parts, state, memory, first_row);
        if (parts.counters == nullptr) continue;
        __syncthreads(); // the part's states have been written
        if (threadIdx.x == 0) {
            unsigned* const counter = parts.counters + item.request * a.kv.kv_heads + item.kv_head;
            memory.is_last = ptx::add_acquire_release(counter, 1) + 1 == static_cast<unsigned>(parts.count);
            if (memory.is_last != 0) *counter = 0;
        }
        __syncthreads();
        if (memory.is_last == 0) continue;
        for (unsigned r = warp; r < 16; r += 4) {
            decode_row<A> const of{a, parts.group, item.kv_head, r};
            if (of.is_there) merge_parts<D>(a, parts, of.query, of.head, first_row);
        }
    }
    ptx::wait<0>();
}

} // namespace tessera::inline TESSERA_ABI::detail
