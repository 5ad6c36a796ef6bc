// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The gradient of attention on the CPU: one pass over blocks of queries times tiles of keys, five products for each pair, all of
/// one shape: registers of one operand, numbers of the other broadcast.
///
///     scores(key, query)  = k(key, .) qᵀ(., query)          d_weights(key, query) = v(key, .) gᵀ(., query)
///     d_v(key, .)        += weights(key, query) g(query, .)  d_k(key, .)         += dr(key, query) q(query, .)
///     d_qᵀ(d, query)     += k(key, d) dr(key, query)
///
/// A KV head is one thread's, blocks and tiles come in a fixed order: the same bits for any number of threads. dk and dv of
/// a tile gather in scratch memory for all queries of a block, then in the outputs.

#include "../attention_gradient.hpp"
#include "attention_tile.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI::detail {

/// Where the broadcast numbers of a product are: row n, step d at data[n * row + d * step].
struct broadcast_operand {
    float const* data;
    index_t row;
    index_t step;
};

/// s(n, m) (+)= sum over d of b(n, d) x(d, m), for N rows and M registers: x at x[d * x_stride], s at s[n * s_stride].
template <class Arch, int N, int M, bool Adds>
void product_tile(broadcast_operand const& b, float const* x, index_t x_stride, index_t depth, float* s,
                  index_t s_stride) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    floats sum[N][M];
    unrolled<N * M>([&](auto i) noexcept {
        if constexpr (Adds)
            sum[i / M][i % M] = simd::load<Arch>(s + i / M * s_stride + i % M * width);
        else
            sum[i / M][i % M] = floats(0.0f);
    });
    float const* from = b.data;
    for (index_t d = 0; d < depth; ++d, x += x_stride, from += b.step) {
        floats y[M];
        unrolled<M>([&](auto m) noexcept { y[m] = simd::load<Arch>(x + m * width); });
        unrolled<N>([&](auto n) noexcept {
            floats const w(from[n * b.row]);
            unrolled<M>([&](auto m) noexcept { sum[n][m] = simd::fma(w, y[m], sum[n][m]); });
        });
    }
    unrolled<N * M>([&](auto i) noexcept {
        simd::store<Arch>(s + i / M * s_stride + i % M * width, sum[i / M][i % M]);
    });
}

/// The same for any number of rows and registers.
template <class Arch, bool Adds>
void broadcast_product(broadcast_operand const& b, float const* x, index_t x_stride, index_t depth, float* s, index_t s_stride,
             index_t rows, index_t registers) noexcept {
    constexpr int most = attention_tile<Arch>::vectors;
    constexpr index_t width = simd::lanes<Arch>;
    in_rows<Arch>(0, rows, [&](index_t n, auto count) noexcept {
        broadcast_operand const part{b.data + n * b.row, b.row, b.step};
        // 4 registers are 2 and 2: one alone is a product with few sums.
        for (index_t m = 0; m < registers;) {
            index_t const left = registers - m;
            index_t const now = left == most + 1 ? ceil_div(left, 2) : minimum(left, most);
            unrolled<most>([&](auto i) noexcept {
                if (now == i + 1)
                    product_tile<Arch, count, i + 1, Adds>(part, x + m * width, x_stride, depth, s + n * s_stride + m * width,
                                                           s_stride);
            });
            m += now;
        }
    });
}

/// Scratch memory of one worker. Dimensions are padded to whole registers.
template <class Arch>
struct gradient_scratch {
    using tile = attention_tile<Arch>;

    float* q;         // (tiles) [tile::queries][key_dim], times the scale
    float* qt;        // (tiles) [key_dim][tile::queries]
    float* g;         // (tiles) [tile::queries][value_dim]
    float* gt;        // (tiles) [value_dim][tile::queries]
    float* dqt;       // (tiles) [key_dim][tile::queries]
    float* shift;     // (tiles) [tile::queries], log-sum-exp; infinity where nothing is seen
    float* delta;     // (tiles) [tile::queries]
    float* raw;       // [tile::keys][tile::queries]
    float* weights;   // [tile::keys][tile::queries]
    float* d_weights; // [tile::keys][tile::queries]
    float* keys;      // [tile::keys][key_dim]
    float* values;    // [tile::keys][value_dim]
    float* dk;        // [tile::keys][key_dim]
    float* dv;        // [tile::keys][value_dim]
    float* row;       // a row of out

    /// Tiles of a block: as many as keep their arrays in half of the second-level cache, at most 8.
    static index_t tiles(attention_shape const& s) noexcept {
        index_t const bytes = saturated_product(tile::queries, 3 * s.key_dim + 2 * s.value_dim, sizeof(float));
        return minimum(maximum(config::level_2_bytes / 2 / maximum(bytes, 1), 1), 8);
    }
    template <class Arena>
    static gradient_scratch carve(attention_shape const& s, Arena& arena) {
        index_t const n = tiles(s) * tile::queries;
        index_t const key_dim = round_up(s.key_dim, tile::width);
        index_t const value_dim = round_up(s.value_dim, tile::width);
        gradient_scratch r{};
        for (float** p : {&r.q, &r.qt, &r.dqt}) *p = arena.template carve<float>(n, key_dim);
        for (float** p : {&r.g, &r.gt}) *p = arena.template carve<float>(n, value_dim);
        for (float** p : {&r.shift, &r.delta}) *p = arena.template carve<float>(n);
        for (float** p : {&r.raw, &r.weights, &r.d_weights}) *p = arena.template carve<float>(tile::keys, tile::queries);
        for (float** p : {&r.keys, &r.dk}) *p = arena.template carve<float>(tile::keys, key_dim);
        for (float** p : {&r.values, &r.dv}) *p = arena.template carve<float>(tile::keys, value_dim);
        r.row = arena.template carve<float>(value_dim);
        return r;
    }
};

/// All queries of one KV head.
template <class Arch, class Arguments>
class gradient_head {
    using tile = attention_tile<Arch>;
    using floats = simd::floats<Arch>;
    using score_type = decltype(Arguments::score);
    static constexpr index_t width = tile::width;

public:
    gradient_head(Arguments const& a, gradient_scratch<Arch> const& scratch, index_t kv_head) noexcept
        : a_{a}, s_{scratch}, kv_head_{kv_head}, group_{a.shape().group()},
          registers_{ceil_div(a.q.extent(0), width) * group_}, key_dim_{round_up(a.kv.key_dim, width)},
          value_dim_{round_up(a.kv.value_dim, width)} {}

    void run() noexcept {
        for (index_t t = 0; t < a_.kv.tokens; ++t) {
            for (index_t d = 0; d < a_.kv.key_dim; ++d) a_.d_k(t, kv_head_, d) = 0.0f;
            for (index_t d = 0; d < a_.kv.value_dim; ++d) a_.d_v(t, kv_head_, d) = 0.0f;
        }
        index_t const step = gradient_scratch<Arch>::tiles(a_.shape()) * tile::vectors;
        for (first_ = 0; first_ < registers_; first_ += step) {
            last_ = minimum(first_ + step, registers_);
            block();
        }
    }

private:
    struct register_info {
        index_t token;
        index_t count; ///< tokens in it; 0 beyond the block
        index_t head;
    };
    register_info info(index_t t, index_t m) const noexcept {
        index_t const v = first_ + t * tile::vectors + m;
        index_t const token = v / group_ * width;
        return {token, v < last_ ? minimum(width, a_.q.extent(0) - token) : 0, kv_head_ * group_ + v % group_};
    }
    float* of(float* array, index_t t, index_t dim) const noexcept { return array + t * tile::queries * dim; }

    /// The keys that queries of the block may see.
    token_range keys_of_block() const noexcept {
        index_t const first = a_.first_query() + first_ / group_ * width;
        index_t const last = a_.first_query() + minimum(((last_ - 1) / group_ + 1) * width, a_.q.extent(0));
        return tokens_seen(a_.score, a_.kv, first, last);
    }

    void block() noexcept {
        index_t const tiles = ceil_div(last_ - first_, index_t{tile::vectors});
        for (index_t t = 0; t < tiles; ++t) start(t);
        token_range const seen = keys_of_block();
        for (index_t k0 = seen.first - seen.first % tile::keys, k1 = 0; k0 < seen.last; k0 = k1) {
            k1 = minimum(k0 + tile::keys, a_.kv.tokens);
            bool staged = false;
            for (index_t t = 0; t < tiles; ++t) {
                if (!see(t, k0, k1)) continue;
                if (!staged || special_) stage(k0, k1, !staged);
                staged = true;
                seen_runs(t, k0, k1);
            }
            if (staged) add_tile(k0, k1);
        }
        for (index_t t = 0; t < tiles; ++t) finish(t);
    }

    /// Rows of q and of the gradient of out, as they are and transposed; log-sum-exps and deltas.
    void start(index_t t) noexcept {
        float* const q = of(s_.q, t, key_dim_);
        float* const g = of(s_.g, t, value_dim_);
        for (index_t m = 0; m < tile::vectors; ++m) {
            register_info const r = info(t, m);
            for (index_t i = 0; i < width; ++i) {
                index_t const row = m * width + i;
                read_padded(a_.q, r, i, a_.scale, key_dim_, q + row * key_dim_);
                read_padded(a_.d_out, r, i, 1.0f, value_dim_, g + row * value_dim_);
                read_padded(a_.out, r, i, 1.0f, value_dim_, s_.row);
                float const* const from = g + row * value_dim_;
                float const delta = simd::sum<Arch>(value_dim_, [&](index_t d, index_t) noexcept {
                    return simd::load<Arch>(from + d) * simd::load<Arch>(s_.row + d);
                });
                float const lse = i < r.count ? a_.log_sum_exp(r.head, r.token + i) : minus_infinity;
                s_.delta[t * tile::queries + row] = delta;
                s_.shift[t * tile::queries + row] = lse == minus_infinity ? std::numeric_limits<float>::infinity() : lse;
                if constexpr (has_sink<score_type>)
                    if (i < r.count && lse != minus_infinity) // else the sink is -inf too: -inf - (-inf) would be NaN
                        accumulate_sink(a_.score, r.head, -double{std::exp(sink_of(a_.score, r.head) - lse)} * double{delta});
            }
        }
        transpose_rows(q, key_dim_, of(s_.qt, t, key_dim_));
        transpose_rows(g, value_dim_, of(s_.gt, t, value_dim_));
        for (index_t i = 0; i < tile::queries * key_dim_; ++i) of(s_.dqt, t, key_dim_)[i] = 0.0f;
    }

    template <class T>
    static void read_padded(tensor_view<T, 3> const& from, register_info const& r, index_t i, float scale, index_t padded,
                            float* to) noexcept {
        index_t const dim = i < r.count ? from.extent(2) : 0;
        if (dim > 0) read_row<Arch>(&from(r.token + i, r.head, 0), from.stride(2), dim, scale, to);
        for (index_t d = dim; d < padded; ++d) to[d] = 0.0f;
    }
    static void transpose_rows(float const* rows, index_t dim, float* to) noexcept {
        for (index_t m = 0; m < tile::queries; m += width)
            for (index_t d = 0; d < dim; d += width)
                simd::transpose<Arch>(rows + m * dim + d, dim, 1.0f, to + d * tile::queries + m, tile::queries);
    }

    visibility visible(register_info const& r, index_t k0, index_t k1) const noexcept {
        if (r.count == 0) return visibility::none;
        index_t const query = a_.first_query() + r.token;
        index_t const key = a_.kv.first_position;
        return visibility_of(a_.score, score_tile{query, query + r.count, key + k0, key + k1, r.head, a_.batch});
    }
    bool see(index_t t, index_t k0, index_t k1) noexcept {
        bool any = false;
        for (index_t m = 0; m < tile::vectors; ++m) {
            see_[m] = visible(info(t, m), k0, k1);
            any = any || see_[m] != visibility::none;
        }
        return any;
    }

    void stage(index_t k0, index_t k1, bool first) noexcept {
        index_t const n = k1 - k0;
        for (index_t i = 0; i < n; ++i) {
            index_t const slot = a_.kv.slot(k0 + i);
            stage_row<Arch>(a_.kv.keys, kv_head_, slot, 0, a_.kv.key_dim, s_.keys + i * key_dim_);
            stage_row<Arch>(a_.kv.values, kv_head_, slot, 0, a_.kv.value_dim, s_.values + i * value_dim_);
            for (index_t d = a_.kv.key_dim; d < key_dim_; ++d) s_.keys[i * key_dim_ + d] = 0.0f;
            for (index_t d = a_.kv.value_dim; d < value_dim_; ++d) s_.values[i * value_dim_ + d] = 0.0f;
        }
        first_key_ = k0;
        if (!first) return;
        special_ = !all_finite<Arch>(s_.keys, n * key_dim_) || !all_finite<Arch>(s_.values, n * value_dim_);
        for (index_t i = 0; i < n * key_dim_; ++i) s_.dk[i] = 0.0f;
        for (index_t i = 0; i < n * value_dim_; ++i) s_.dv[i] = 0.0f;
    }

    /// A step for every run of keys that some register sees.
    void seen_runs(index_t t, index_t k0, index_t k1) noexcept {
        if constexpr (!has_mask<score_type>) return step(t, k0, k1);
        auto const unseen = [&](index_t first, index_t last) noexcept {
            for (index_t m = 0; m < tile::vectors; ++m)
                if (see_[m] == visibility::full ||
                    (see_[m] == visibility::partial && visible(info(t, m), first, last) != visibility::none))
                    return false;
            return true;
        };
        for (index_t first = k0, k = k0; k < k1;) {
            index_t const next = minimum(k + tile::rows, k1);
            bool const gap = unseen(k, next);
            if (gap && first < k) step(t, first, k);
            if (!gap && next == k1) step(t, first, k1);
            if (gap) first = next;
            k = next;
        }
    }

    void step(index_t t, index_t k0, index_t k1) noexcept {
        index_t const offset = k0 - first_key_;
        index_t const n = k1 - k0;
        float* const keys = s_.keys + offset * key_dim_;
        float* const values = s_.values + offset * value_dim_;
        broadcast_product<Arch, false>({keys, key_dim_, 1}, of(s_.qt, t, key_dim_), tile::queries, a_.kv.key_dim, s_.raw, tile::queries,
                             n, tile::vectors);
        for (index_t m = 0; m < tile::vectors; ++m) weigh(t, m, k0, k1);
        if (special_) take_out_hidden(n, keys, values);
        broadcast_product<Arch, false>({values, value_dim_, 1}, of(s_.gt, t, value_dim_), tile::queries, a_.kv.value_dim, s_.d_weights,
                             tile::queries, n, tile::vectors);
        broadcast_product<Arch, true>({s_.weights, tile::queries, 1}, of(s_.g, t, value_dim_), value_dim_, tile::queries,
                            s_.dv + offset * value_dim_, value_dim_, n, value_dim_ / width);
        for (index_t m = 0; m < tile::vectors; ++m) differentiate(t, m, k0, k1);
        broadcast_product<Arch, true>({s_.d_weights, tile::queries, 1}, of(s_.q, t, key_dim_), key_dim_, tile::queries,
                            s_.dk + offset * key_dim_, key_dim_, n, key_dim_ / width);
        broadcast_product<Arch, true>({keys, 1, key_dim_}, s_.d_weights, tile::queries, n, of(s_.dqt, t, key_dim_), tile::queries,
                            a_.kv.key_dim, tile::vectors);
    }

    coord<floats> first_coord(register_info const& r, index_t k0) const noexcept {
        return {a_.first_query() + r.token, a_.kv.first_position + k0, lane_index<Arch>(), floats(0.0f), r.head, a_.batch};
    }

    /// Raw scores to weights, 0 where the key is hidden.
    void weigh(index_t t, index_t m, index_t k0, index_t k1) noexcept {
        register_info const r = info(t, m);
        floats const shift = simd::load<Arch>(s_.shift + t * tile::queries + m * width);
        coord<floats> at = first_coord(r, k0);
        visibility seen = see_[m];
        for (index_t k = k0; k < k1; ++k, ++at.first_key) {
            index_t const i = (k - k0) * tile::queries + m * width;
            if (see_[m] == visibility::partial && (k - k0) % width == 0) seen = visible(r, k, minimum(k + width, k1));
            floats x = simd::load<Arch>(s_.raw + i);
            if (seen == visibility::none)
                x = floats(minus_infinity);
            else if (seen == visibility::partial)
                x = a_.score(x, at);
            else
                x = transformed(a_.score, x, at);
            if (r.count < width) x = simd::keep_first<Arch>(x, r.count, minus_infinity);
            floats const p = simd::softmax_weight(x - shift);
            simd::store<Arch>(s_.weights + i, select(x == floats(minus_infinity), floats(0.0f), p));
        }
    }

    /// Gradients of weights to those of raw scores.
    void differentiate(index_t t, index_t m, index_t k0, index_t k1) noexcept {
        register_info const r = info(t, m);
        floats const delta = simd::load<Arch>(s_.delta + t * tile::queries + m * width);
        coord<floats> at = first_coord(r, k0);
        for (index_t k = k0; k < k1; ++k, ++at.first_key) {
            index_t const i = (k - k0) * tile::queries + m * width;
            floats const p = simd::load<Arch>(s_.weights + i);
            floats ds = p * (simd::load<Arch>(s_.d_weights + i) - delta);
            ds = select(p == floats(0.0f), floats(0.0f), ds);
            if constexpr (has_transform<score_type> || has_accumulate<score_type>)
                if (see_[m] != visibility::none) {
                    ds = score_gradient(a_.score, simd::load<Arch>(s_.raw + i), at, ds);
                    ds = select(p == floats(0.0f), floats(0.0f), ds);
                }
            simd::store<Arch>(s_.d_weights + i, ds);
        }
    }

    /// Zeros for the keys and values that no query of the tile sees, so that what they hold goes nowhere.
    void take_out_hidden(index_t n, float* keys, float* values) const noexcept {
        for (index_t k = 0; k < n; ++k) {
            bool hidden = true;
            for (index_t i = 0; i < tile::queries; ++i) hidden = hidden && s_.weights[k * tile::queries + i] == 0.0f;
            if (!hidden) continue;
            for (index_t d = 0; d < key_dim_; ++d) keys[k * key_dim_ + d] = 0.0f;
            for (index_t d = 0; d < value_dim_; ++d) values[k * value_dim_ + d] = 0.0f;
        }
    }

    void add_tile(index_t k0, index_t k1) const noexcept {
        for (index_t k = k0; k < k1; ++k) {
            add_row(s_.dk + (k - k0) * key_dim_, a_.kv.key_dim, a_.d_k, k);
            add_row(s_.dv + (k - k0) * value_dim_, a_.kv.value_dim, a_.d_v, k);
        }
    }
    void add_row(float const* from, index_t dim, tensor_view<float, 3> const& to, index_t k) const noexcept {
        if (dim == 0) return;
        float* const row = &to(k, kv_head_, 0);
        index_t const stride = to.stride(2);
        for (index_t d = 0; d < dim; ++d) row[d * stride] += from[d];
    }

    void finish(index_t t) noexcept {
        float* const rows = of(s_.q, t, key_dim_);
        for (index_t m = 0; m < tile::queries; m += width)
            for (index_t d = 0; d < key_dim_; d += width)
                simd::transpose<Arch>(of(s_.dqt, t, key_dim_) + d * tile::queries + m, tile::queries, a_.scale,
                                      rows + m * key_dim_ + d, key_dim_);
        if (a_.kv.key_dim == 0) return;
        for (index_t m = 0; m < tile::vectors; ++m) {
            register_info const r = info(t, m);
            for (index_t i = 0; i < r.count; ++i)
                write_row<Arch>(rows + (m * width + i) * key_dim_, a_.kv.key_dim, &a_.d_q(r.token + i, r.head, 0),
                                a_.d_q.stride(2));
        }
    }

    Arguments const& a_;
    gradient_scratch<Arch> s_;
    index_t kv_head_;
    index_t group_;
    index_t registers_;
    index_t key_dim_;   ///< padded
    index_t value_dim_; ///< padded
    index_t first_ = 0; ///< registers of the block
    index_t last_ = 0;
    index_t first_key_ = 0;
    bool special_ = false; ///< a staged key or value is not finite
    visibility see_[tile::vectors] = {};
};

} // namespace tessera::inline TESSERA_ABI::detail

namespace tessera::inline TESSERA_ABI {

template <class Arch, class Parallel, class Arguments>
struct kernel<op::attention_gradient, cpu<Arch, Parallel>, Arguments> {
    using exec_type = cpu<Arch, Parallel>;
    using plan_type = detail::gradient_scratch<Arch>*; // (workers)

    template <class Arena>
    static plan_type plan(exec_type const& exec, attention_shape const& s, Arena& arena) {
        index_t const workers = exec.parallel().concurrency();
        auto* const p = arena.template carve<detail::gradient_scratch<Arch>>(workers);
        for (index_t w = 0; w < workers; ++w) {
            auto const scratch = detail::gradient_scratch<Arch>::carve(s, arena);
            if (p != nullptr) p[w] = scratch;
        }
        return p;
    }

    static void run(exec_type const& exec, Arguments const& a, plan_type p) noexcept {
        parallel_for(exec.parallel(), a.kv.kv_heads, 1, [&](index_t head, index_t, index_t worker) noexcept {
            detail::gradient_head<Arch, Arguments>{a, p[worker], head}.run();
        });
    }
};

} // namespace tessera::inline TESSERA_ABI
