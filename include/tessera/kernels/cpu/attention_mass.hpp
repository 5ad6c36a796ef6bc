// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// How much attention keys receive, on the CPU: kernels/ref/attention_mass.hpp is the definition. A part of the keys of a KV
/// head is one task, which no other adds to: the same bits for any number of threads. Keys that no query of a block sees are not
/// read.
///
/// A weight needs the log-sum-exp of its row, which is there when the last key has been read. Where queries are few, attention
/// keeps their scores (`recorded_attention`), and nothing is multiplied again; where they are many, scores would be larger than the
/// cache, and the product is repeated.

#include "../ref/attention_mass.hpp"
#include "attention_decode.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// A call of attention that keeps its scores: (kv_heads, queries * group, kv tokens), minus infinity where a row does not see.
template <class Arguments>
struct recorded_attention : Arguments {
    float* recorded;
};

} // namespace detail

template <class Arch, class Parallel, class Arguments>
struct kernel<op::attention_mass, cpu<Arch, Parallel>, Arguments> {
    using exec_type = cpu<Arch, Parallel>;
    using tile = detail::decode_tile<Arch>;
    using floats = simd::floats<Arch>;
    static constexpr index_t width = tile::width;
    /// Rows of queries that are looked at together.
    static constexpr index_t block = 64;

    struct scratch_type {
        float* queries; // [block][key_dim padded]
        float* shifts;  // [block], log-sum-exps
        float* scores;  // [tile::rows][tile::keys]
        float* keys;    // [tile::keys][key_dim]
        float* mass;    // [tile::keys]
    };
    using plan_type = scratch_type*; // (workers)

    template <class Arena>
    static plan_type plan(exec_type const& exec, attention_shape const& s, Arena& arena) {
        index_t const workers = exec.parallel().concurrency();
        auto* const p = arena.template carve<scratch_type>(workers);
        for (index_t w = 0; w < workers; ++w) {
            scratch_type r{};
            r.queries = arena.template carve<float>(block, round_up(s.key_dim, width));
            r.shifts = arena.template carve<float>(block);
            r.scores = arena.template carve<float>(tile::rows * tile::keys + width);
            r.keys = arena.template carve<float>(tile::keys, s.key_dim);
            r.mass = arena.template carve<float>(tile::keys);
            if (p != nullptr) p[w] = r;
        }
        return p;
    }

    static void run(exec_type const& exec, Arguments const& a, plan_type p) noexcept {
        index_t const parts = ceil_div(a.kv.tokens, tile::part);
        parallel_for(exec.parallel(), a.kv.kv_heads * parts, 1, [&](index_t task, index_t, index_t worker) noexcept {
            index_t const first = task % parts * tile::part;
            part(a, p[worker], task / parts, first, minimum(first + tile::part, a.kv.tokens));
        });
    }

    /// Adds the weights of scores that attention kept. The sums are those of `run`, in its order.
    static void run_recorded(exec_type const& exec, Arguments const& a, float const* recorded, plan_type p) noexcept {
        index_t const parts = ceil_div(a.kv.tokens, tile::part);
        index_t const rows = a.q.extent(0) * a.shape().group();
        parallel_for(exec.parallel(), a.kv.kv_heads * parts, 1, [&](index_t task, index_t, index_t worker) noexcept {
            index_t const kv_head = task / parts;
            index_t const first = task % parts * tile::part;
            index_t const last = minimum(first + tile::part, a.kv.tokens);
            float* const mass = p[worker].mass;
            for (index_t r0 = 0; r0 < rows; r0 += block)
                for (index_t k = first; k < last; k += tile::keys) {
                    index_t const n = minimum(tile::keys, last - k);
                    for (index_t i = 0; i < tile::keys; ++i) mass[i] = 0.0f;
                    for (index_t r = r0; r < minimum(r0 + block, rows); ++r) {
                        float const shift = a.log_sum_exp(head(a, kv_head, r), r / a.shape().group());
                        if (shift == minus_infinity) continue; // saw nothing
                        float const* const s = recorded + (kv_head * rows + r) * a.kv.tokens + k;
                        for (index_t i = 0; i < n; i += width)
                            add_weights(simd::load_partial<Arch>(s + i, minimum(width, n - i)), shift, mass + i);
                    }
                    for (index_t i = 0; i < n; ++i) a.mass(kv_head, k + i) += mass[i];
                }
        });
    }

private:
    static void add_weights(floats const& x, float shift, float* mass) noexcept {
        floats const p = simd::softmax_weight(x - floats(shift));
        simd::store<Arch>(mass, simd::load<Arch>(mass) + select(x == floats(minus_infinity), floats(0.0f), p));
    }

    static void part(Arguments const& a, scratch_type const& s, index_t kv_head, index_t first, index_t last) noexcept {
        index_t const rows = a.q.extent(0) * a.shape().group();
        for (index_t r0 = 0; r0 < rows; r0 += block) {
            index_t const r1 = minimum(r0 + block, rows);
            read_queries(a, s, kv_head, r0, r1);
            index_t const query = a.first_query() + r0 / a.shape().group();
            index_t const queries_end = a.first_query() + (r1 - 1) / a.shape().group() + 1;
            detail::token_range const seen = detail::tokens_seen(a.score, a.kv, query, queries_end);
            for (index_t k = first; k < last; k += tile::keys) {
                index_t const end = minimum(k + tile::keys, last);
                if (k < seen.last && end > seen.first && is_seen(a, kv_head, r0, r1, k, end)) add(a, s, kv_head, r0, r1, k, end);
            }
        }
    }

    static visibility visible(Arguments const& a, index_t kv_head, index_t row, index_t k0, index_t k1) noexcept {
        index_t const query = a.first_query() + row / a.shape().group();
        return visibility_of(a.score, score_tile{query, query + 1, a.kv.first_position + k0, a.kv.first_position + k1,
                                                 head(a, kv_head, row), a.batch});
    }
    /// Whether a row sees one of the keys.
    static bool is_seen(Arguments const& a, index_t kv_head, index_t r0, index_t r1, index_t k0, index_t k1) noexcept {
        if constexpr (detail::has_mask<decltype(a.score)>) {
            for (index_t r = r0; r < r1; ++r)
                if (visible(a, kv_head, r, k0, k1) != visibility::none) return true;
            return false;
        } else {
            return true;
        }
    }

    static index_t head(Arguments const& a, index_t kv_head, index_t row) noexcept {
        return kv_head * a.shape().group() + row % a.shape().group();
    }

    static void read_queries(Arguments const& a, scratch_type const& s, index_t kv_head, index_t r0, index_t r1) noexcept {
        index_t const stride = round_up(a.kv.key_dim, width);
        for (index_t r = r0; r < r1; ++r) {
            float* const to = s.queries + (r - r0) * stride;
            index_t const h = head(a, kv_head, r);
            index_t const i = r / a.shape().group();
            if (a.kv.key_dim > 0) detail::read_row<Arch>(&a.q(i, h, 0), a.q.stride(2), a.kv.key_dim, a.scale, to);
            for (index_t d = a.kv.key_dim; d < stride; ++d) to[d] = 0.0f;
            s.shifts[r - r0] = a.log_sum_exp(h, i);
        }
    }

    static void add(Arguments const& a, scratch_type const& s, index_t kv_head, index_t r0, index_t r1, index_t k0,
                    index_t k1) noexcept {
        index_t const n = k1 - k0;
        index_t const stride = round_up(a.kv.key_dim, width);
        using detail::stage_row; // and those of caches whose headers come later
        for (index_t i = 0; i < n; ++i)
            stage_row<Arch>(a.kv.keys, kv_head, a.kv.slot(k0 + i), 0, a.kv.key_dim, s.keys + i * a.kv.key_dim);
        for (index_t i = 0; i < tile::keys; ++i) s.mass[i] = 0.0f;
        detail::cache_stream<float> const keys{s.keys, a.kv.key_dim, a.kv.key_dim};
        auto const rows = [&](index_t r, auto count) noexcept {
            detail::cache_ahead nothing;
            detail::decode_scores<Arch, count>(s.queries + (r - r0) * stride, stride, keys, n, s.scores, nothing);
            for (index_t j = 0; j < count; ++j) weigh(a, s, kv_head, r + j, s.shifts[r + j - r0], s.scores + j * tile::keys, k0, n);
        };
        index_t r = r0;
        for (; r + tile::rows <= r1; r += tile::rows) rows(r, std::integral_constant<int, tile::rows>{});
        for (; r < r1; ++r) rows(r, std::integral_constant<int, 1>{});
        for (index_t i = 0; i < n; ++i) a.mass(kv_head, k0 + i) += s.mass[i];
    }

    /// Adds the weights of one row.
    static void weigh(Arguments const& a, scratch_type const& s, index_t kv_head, index_t row, float shift, float const* scores,
                      index_t k0, index_t n) noexcept {
        if (shift == minus_infinity) return; // saw nothing
        visibility const seen = visible(a, kv_head, row, k0, k0 + n);
        if (seen == visibility::none) return;
        coord<floats> at{a.first_query() + row / a.shape().group(), a.kv.first_position + k0, floats(0.0f),
                         detail::lane_index<Arch>(), head(a, kv_head, row), a.batch};
        for (index_t i = 0; i < n; i += width, at.first_key += width) {
            floats const x = simd::load<Arch>(scores + i);
            add_weights(seen == visibility::full ? detail::transformed(a.score, x, at) : a.score(x, at), shift, s.mass + i);
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
