// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of few queries, where reading the cache is the cost: the keys are split into parts of a constant length,
/// each part gives an `attention_state`, and the states merge in order. All query heads of a KV head are rows of one
/// pass, so that keys and values are read once.
///
/// Within a part, a tile of keys at a time: scores with head_dim in the lanes, the online softmax, values with value_dim
/// in the lanes. Reading keys asks for the values of the same tile early, reading values for the keys of the next: two
/// contiguous streams, one tile ahead, a line or two at a time between the multiplications. Caches of small integers go another
/// way where there are matrix tiles: attention_codes.hpp.
///
/// The weight of a key that a row does not see is -0, which no other weight is: values that are NaN or infinite are then
/// left out of the product (0 times them is NaN), and added to the rows that see them.

#include "../../simd/decode.hpp"
#include "../../simd/reduce.hpp"
#include "../attention.hpp"
#include "attention_codes.hpp"
#include "attention_tile.hpp"

#include <cmath>
#include <optional>

namespace tessera::inline TESSERA_ABI::detail {

template <class Arch>
struct decode_tile {
    static constexpr index_t width = simd::lanes<Arch>;
    /// Rows of queries in registers at a time.
    static constexpr int rows = 4;
    /// Registers of value_dim at a time.
    static constexpr int vectors = width == 16 ? 4 : 2;
    static constexpr index_t keys = decode_keys;
    /// Keys of a part: constant, so that bits do not depend on the number of threads.
    static constexpr index_t part = 1024;
};

/// Rows of the cache of one head, one after the other: slots from some first one on.
template <class T>
struct cache_stream {
    T const* data;
    index_t stride;
    index_t dim;
};

/// s[r * decode_tile::keys + i] = q(r) . k(i) for R rows; reads N keys at a time, so that R N sums fill one register.
template <class Arch, int R, class Key>
void decode_scores(float const* q, index_t q_stride, cache_stream<Key> const& k, index_t n, float* s,
                   cache_ahead& lines) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    constexpr int padded = R == 3 ? 4 : R;
    constexpr int N = static_cast<int>(width) / padded;
    cache_ahead ahead = lines; // in registers
    for (index_t i = 0; i < n; i += N) {
        Key const* row[N];
        // The sums of rows beyond the last are not used.
        unrolled<N>([&](auto j) noexcept { row[j] = k.data + minimum(i + j, n - 1) * k.stride; });
        floats sum[width];
        unrolled<static_cast<int>(width)>([&](auto l) noexcept { sum[l] = floats(0.0f); });
        for (index_t d = 0; d < k.dim; d += width) {
            ahead.step(N);
            floats y[N];
            if (d + width <= k.dim)
                unrolled<N>([&](auto j) noexcept { y[j] = simd::load<Arch>(row[j] + d); });
            else
                unrolled<N>([&](auto j) noexcept { y[j] = simd::load_partial<Arch>(row[j] + d, k.dim - d); });
            unrolled<R>([&](auto r) noexcept {
                floats const x = simd::load<Arch>(q + r * q_stride + d);
                unrolled<N>([&](auto j) noexcept { sum[r * N + j] = simd::fma(x, y[j], sum[r * N + j]); });
            });
        }
        alignas(64) float total[width];
        simd::row_sums<Arch>(sum).store_aligned(total);
        unrolled<R>([&](auto r) noexcept {
            float* const to = s + r * decode_tile<Arch>::keys + i;
            if (i + N <= n)
                for (index_t j = 0; j < N; ++j) to[j] = total[r * N + j];
            else // what follows may be scores of other keys
                for (index_t j = 0; j < n - i; ++j) to[j] = total[r * N + j];
        });
    }
    lines = ahead;
}

/// o(r, d) = o(r, d) * factor(r) + sum of p(r, i) v(i, d), for R rows and M registers of d from d0 on; the last register
/// has `last` lanes.
template <class Arch, int R, int M, class Value>
void decode_values(float const* p, cache_stream<Value> const& v, index_t n, index_t d0, index_t last,
                   float const* factor, float* o, index_t o_stride, cache_ahead& lines) noexcept {
    using floats = simd::floats<Arch>;
    constexpr index_t width = simd::lanes<Arch>;
    cache_ahead ahead = lines;
    floats sum[R][M];
    unrolled<R * M>([&](auto i) noexcept {
        sum[i / M][i % M] = simd::load<Arch>(o + i / M * o_stride + d0 + i % M * width) * floats(factor[i / M]);
    });
    for (index_t i = 0; i < n; ++i) {
        ahead.step();
        Value const* const row = v.data + i * v.stride + d0;
        floats x[M];
        unrolled<M>([&](auto m) noexcept {
            x[m] = m + 1 < M || last == width ? simd::load<Arch>(row + m * width)
                                              : simd::load_partial<Arch>(row + m * width, last);
        });
        unrolled<R>([&](auto r) noexcept {
            floats const w(p[r * decode_tile<Arch>::keys + i]);
            unrolled<M>([&](auto m) noexcept { sum[r][m] = simd::fma(w, x[m], sum[r][m]); });
        });
    }
    unrolled<R * M>([&](auto i) noexcept {
        simd::store<Arch>(o + i / M * o_stride + d0 + i % M * width, sum[i / M][i % M]);
    });
    lines = ahead;
}

/// The states of parts: (kv_heads, parts, rows), rows = queries * group; output rows are padded to whole registers.
struct decode_states {
    float* outputs;
    float* maxima;
    float* sums;
    index_t parts;
    index_t rows;
    index_t stride;

    index_t at(index_t kv_head, index_t part) const noexcept { return (kv_head * parts + part) * rows; }
};

/// Scratch memory of one worker.
struct decode_scratch {
    float* queries; // [rows][key_dim padded]
    float* scores;  // [rows][decode_tile::keys]
    float* factors; // [rows]
    float* keys;    // a tile in float, where the cache's rows are not contiguous
    float* values;
    code_scratch codes; // where codes are multiplied
};

/// Whether the queries of a part are there as operands of `code_side`: found out at its first tile.
enum class code_queries { unknown, none, there };

/// A tile of keys of a part whose formats are chosen at run time, and what a stage needs to know of the call.
struct decode_tile_task {
    index_t queries;
    index_t heads;
    decode_scratch const& scratch;
    decode_states const& states;
    index_t kv_head;
    index_t part;
    index_t first;
    index_t last;
    bool hides;
    code_queries& operands; ///< of the part
};
/// Stages: attention_any.hpp.
template <class Arch, class View>
void any_scores(View const& kv, decode_tile_task const& task) noexcept;
template <class Arch, class View>
void any_values(View const& kv, decode_tile_task const& task) noexcept;

/// Whether rows have low-rank terms, which are not put together with the rest: attention_gear.hpp.
template <class T>
inline constexpr bool has_low_rank_terms = requires { kv_rows<T const>::has_low_rank_terms; };

/// One part of one KV head.
template <class Arch, class Arguments>
class decode_part {
    using tile = decode_tile<Arch>;
    using floats = simd::floats<Arch>;
    using score_type = decltype(Arguments::score);
    static constexpr index_t width = tile::width;
    static constexpr bool is_unified = has_unified_range<score_type>;
    using key_type = typename decltype(Arguments::kv)::key_type;
    using value_type = typename decltype(Arguments::kv)::value_type;

public:
    decode_part(Arguments const& a, decode_scratch const& scratch, decode_states const& states, index_t kv_head,
                index_t part) noexcept
        : a_{a}, s_{scratch}, states_{states}, kv_head_{kv_head}, group_{a.shape().group()}, rows_{states.rows},
          stride_{states.stride}, q_stride_{round_up(a.kv.key_dim, width)},
          output_{states.outputs + states.at(kv_head, part) * states.stride},
          maximum_{states.maxima + states.at(kv_head, part)}, sum_{states.sums + states.at(kv_head, part)},
          first_{part * tile::part}, last_{minimum(first_ + tile::part, a.kv.tokens)} {}

    void run() noexcept {
        pass();
        if constexpr (is_unified) {
            preset_ = false;
            if (out_of_range_) return pass();
            for (index_t r = 0; r < rows_; ++r) // as a part that has seen nothing
                if (sum_[r] == 0.0f) maximum_[r] = minus_infinity;
        }
    }

    // One tile of a part whose formats are chosen at run time: attention_any.hpp.

    void score_keys(decode_tile_task const& t) noexcept {
        is_stage_ = true;
        operands_ = t.operands;
        read_keys(t.first, t.last);
        t.operands = operands_;
    }
    void add_values(decode_tile_task const& t) noexcept {
        hides_ = t.hides;
        read_values(t.first, t.last);
    }

private:
    index_t token(index_t row) const noexcept { return row / group_; }
    index_t head(index_t row) const noexcept { return kv_head_ * group_ + row % group_; }

    void pass() noexcept {
        start();
        for (index_t k0 = first_, k1 = first_; k0 < last_; k0 = k1) {
            k1 = minimum(k0 - k0 % tile::keys + tile::keys, last_);
            if (visible(k0, k1) != visibility::none) step(k0, k1);
        }
    }

    void start() noexcept {
        for (index_t r = 0; r < rows_; ++r) {
            float* const q = s_.queries + r * q_stride_;
            if (a_.kv.key_dim > 0)
                read_row<Arch>(&a_.q(token(r), head(r), 0), a_.q.stride(2), a_.kv.key_dim, a_.scale, q);
            for (index_t d = a_.kv.key_dim; d < q_stride_; ++d) q[d] = 0.0f;
            for (index_t d = 0; d < stride_; ++d) output_[r * stride_ + d] = 0.0f;
            maximum_[r] = minus_infinity;
            if constexpr (is_unified)
                if (preset_) maximum_[r] = unified_range_of(a_.score).maximum;
            sum_[r] = 0.0f;
        }
    }

    score_tile tile_of(index_t row, index_t k0, index_t k1) const noexcept {
        index_t const query = a_.first_query() + token(row);
        return {query, query + 1, a_.kv.first_position + k0, a_.kv.first_position + k1, head(row),
                a_.batch};
    }
    /// `none` if no row sees the keys.
    visibility visible(index_t k0, index_t k1) const noexcept {
        if constexpr (has_mask<score_type>) {
            for (index_t r = 0; r < rows_; ++r)
                if (visibility_of(a_.score, tile_of(r, k0, k1)) != visibility::none) return visibility::partial;
            return visibility::none;
        } else {
            return visibility::full;
        }
    }

    template <class T>
    cache_stream<T> stream(kv_rows<T const> const& rows, index_t k, index_t dim) const noexcept {
        return {rows.row(kv_head_, a_.kv.slot(k)), rows.slot_stride, dim};
    }
    /// The rows of keys [k0, k0 + n) in float, without their scales.
    template <class T>
    cache_stream<float> staged(kv_rows<T const> const& rows, index_t k0, index_t n, index_t dim, float* to) const noexcept {
        for (index_t i = 0; i < n; ++i) {
            index_t const slot = a_.kv.slot(k0 + i);
            if constexpr (is_kv_code<T>)
                stage_row<Arch>(rows, kv_head_, slot, 0, dim, to + i * dim);
            else
                read_row<Arch>(rows.row(kv_head_, slot), rows.dim_stride, dim, 1.0f, to + i * dim);
        }
        return {to, dim, dim};
    }
    /// The scales of keys [k0, k0 + n), or null.
    template <class T>
    float const* scales(kv_rows<T const> const& rows, index_t k0, index_t n, float* to) const noexcept {
        if (rows.scales == nullptr) return nullptr;
        if (a_.kv.run_end(k0) >= k0 + n) return rows.scale_row(kv_head_, a_.kv.slot(k0));
        for (index_t i = 0; i < n; ++i) to[i] = *rows.scale_row(kv_head_, a_.kv.slot(k0 + i));
        return to;
    }
    /// Calls f(first, last) for the runs of keys in [k0, k1) whose slots follow each other.
    template <class F>
    void for_each_run(index_t k0, index_t k1, F const& f) const noexcept {
        for (index_t k = k0, end = k0; k < k1; k = end) {
            end = minimum(a_.kv.run_end(k), k1);
            f(k, end);
        }
    }

    void step(index_t k0, index_t k1) noexcept {
        if constexpr (has_mask<score_type>) { // at the edge of a window
            while (k0 < k1 && visible(k0, k0 + 1) == visibility::none) ++k0;
            while (k0 < k1 && visible(k1 - 1, k1) == visibility::none) --k1;
            if (k0 == k1) return;
        }
        index_t const n = k1 - k0;
        read_keys(k0, k1);
        float key_scales[tile::keys];
        float value_scales[tile::keys];
        weigh(k0, n, scales(a_.kv.keys, k0, n, key_scales), scales(a_.kv.values, k0, n, value_scales));
        read_values(k0, k1);
    }

    decode_tile_task task(index_t k0, index_t k1) noexcept {
        return {a_.q.extent(0), a_.q.extent(1), s_, states_, kv_head_, first_ / tile::part, k0, k1, hides_, operands_};
    }

    /// Asks for the rows of up to n keys from k on; after the last come the next head's.
    template <class Ahead = cache_ahead, class T>
    TESSERA_FORCE_INLINE Ahead ahead_of(kv_rows<T const> const& rows, index_t k, index_t n, index_t dim, index_t steps) const noexcept {
        index_t head = kv_head_;
        if (k >= a_.kv.tokens && head + 1 < a_.kv.kv_heads) {
            ++head;
            k -= a_.kv.tokens;
        }
        if (k >= a_.kv.tokens || rows.dim_stride != 1) return {};
        constexpr index_t size = sizeof(T);
        bool const is_number = std::is_arithmetic_v<T> || std::is_same_v<T, fp16> || std::is_same_v<T, bf16>;
        return {rows.row(head, a_.kv.slot(k)), (is_number ? dim : rows.slot_stride) * size, rows.slot_stride * size,
                minimum(n, a_.kv.run_end(k) - k), steps};
    }

    void read_keys(index_t k0, index_t k1) noexcept {
        if constexpr (is_any_kv_code<key_type>) return any_scores<Arch>(a_.kv, task(k0, k1));
        if constexpr (multiplies_codes<Arch, key_type>)
            if (score_codes(k0, k1)) return;
        if constexpr (!is_kv_code<key_type>)
            if (a_.kv.keys.dim_stride == 1)
                return for_each_run(k0, k1, [&](index_t first, index_t last) noexcept {
                    index_t const n = last - first;
                    index_t const steps = row_groups() * round_up(n, width) * ceil_div(a_.kv.key_dim, width);
                    scores(stream(a_.kv.keys, first, a_.kv.key_dim), first - k0, n,
                           ahead_of(a_.kv.values, first, n, a_.kv.value_dim, steps));
                });
        index_t const n = k1 - k0;
        if constexpr (has_low_rank_terms<key_type>) {
            stage_without_low_rank<Arch>(a_.kv.keys, kv_head_, a_.kv.slot(k0), n, s_.keys);
            scores(cache_stream<float>{s_.keys, a_.kv.key_dim, a_.kv.key_dim}, 0, n, cache_ahead{});
            add_low_rank_scores<Arch>(a_.kv.keys, kv_head_, a_.kv.slot(k0), n, s_.queries, q_stride_, rows_, s_.scores, tile::keys);
        } else {
            scores(staged(a_.kv.keys, k0, n, a_.kv.key_dim, s_.keys), 0, n, cache_ahead{});
        }
    }

    void read_values(index_t k0, index_t k1) noexcept {
        if constexpr (is_any_kv_code<value_type>) return any_values<Arch>(a_.kv, task(k0, k1));
        if constexpr (multiplies_codes<Arch, value_type>)
            if (add_codes(k0, k1)) return;
        index_t const n = k1 - k0;
        if constexpr (!is_kv_code<value_type>)
            if (a_.kv.values.dim_stride == 1 && !(hides_ && has_special(k0, k1)))
                return for_each_run(k0, k1, [&](index_t first, index_t last) noexcept {
                    sums(stream(a_.kv.values, first, a_.kv.value_dim), first - k0, last - first,
                         ahead_of(a_.kv.keys, last, last - first, a_.kv.key_dim, (last - first) * value_passes()));
                });
        if constexpr (has_low_rank_terms<value_type>)
            if (!hides_) { // else factors that are not finite would reach rows that do not see them
                stage_without_low_rank<Arch>(a_.kv.values, kv_head_, a_.kv.slot(k0), n, s_.values);
                sums(cache_stream<float>{s_.values, a_.kv.value_dim, a_.kv.value_dim}, 0, n, cache_ahead{});
                return add_low_rank_values<Arch>(a_.kv.values, kv_head_, a_.kv.slot(k0), n, s_.scores, tile::keys, rows_, output_, stride_);
            }
        auto const copy = staged(a_.kv.values, k0, n, a_.kv.value_dim, s_.values);
        bool const special = hides_ && !all_finite<Arch>(s_.values, n * copy.dim);
        if (special)
            for (index_t i = 0; i < n * copy.dim; ++i)
                if (!std::isfinite(s_.values[i])) s_.values[i] = 0.0f;
        sums(copy, 0, n, cache_ahead{});
        if (special) add_special(k0, n);
    }

    /// The rows of keys [k0, k1), the last one more than once, and those of the next tile asked for in `steps` steps.
    template <class T>
    TESSERA_FORCE_INLINE regular_ahead code_rows(kv_rows<T const> const& rows, index_t k0, index_t k1, index_t dim, index_t steps,
                                                 std::uint8_t const* (&row)[tile::keys]) const noexcept {
        index_t i = 0;
        if (k1 - k0 == tile::keys && a_.kv.run_end(k0) >= k1) {
            auto const* const first = reinterpret_cast<std::uint8_t const*>(rows.row(kv_head_, a_.kv.slot(k0)));
            code_side<Arch, T>::set_rows(first, rows.slot_stride * static_cast<index_t>(sizeof(T)), row);
            i = tile::keys;
        }
        for_each_run(k0 + i, k1, [&](index_t first, index_t last) noexcept {
            T const* at = rows.row(kv_head_, a_.kv.slot(first));
            for (index_t k = first; k < last; ++k, at += rows.slot_stride) row[i++] = reinterpret_cast<std::uint8_t const*>(at);
        });
        for (; i < tile::keys; ++i) row[i] = row[i - 1];
        if (rows.scales != nullptr && k1 < a_.kv.tokens)
            for (index_t b = 0; b < tile::keys; b += config::cache_line / sizeof(float))
                simd::prefetch_level_2(rows.scale_row(kv_head_, a_.kv.slot(k1)) + b);
        return ahead_of<regular_ahead>(rows, k1 + code_side<Arch, T>::lead, tile::keys, dim, steps);
    }
    /// Bytes between rows that lie one after the other, else 0.
    template <class T>
    index_t row_stride(kv_rows<T const> const& rows, index_t k0, index_t k1) const noexcept {
        return a_.kv.run_end(k0) >= k1 ? rows.slot_stride * static_cast<index_t>(sizeof(T)) : 0;
    }
    /// The scores of keys [k0, k1) by products of codes; false where that cannot be.
    bool score_codes(index_t k0, index_t k1) noexcept {
        using side = code_side<Arch, key_type>;
        if (a_.kv.keys.dim_stride != 1 || !side::fits(a_.kv.key_dim) || !simd::amx_is_allowed()) return false;
        side keys{s_.codes, a_.kv.key_dim};
        if (operands_ == code_queries::unknown)
            operands_ = keys.set_queries(s_.queries, q_stride_, rows_) ? code_queries::there : code_queries::none;
        if (operands_ == code_queries::none) return false;
        std::uint8_t const* row[tile::keys];
        ahead_.finish();
        ahead_ = code_rows(a_.kv.keys, k0, k1, a_.kv.key_dim, keys.score_steps(rows_) + (is_stage_ ? 0 : 120 * rows_), row);
        if (!tiles_) tiles_.emplace();
        keys.scores(row, row_stride(a_.kv.keys, k0, k1), k1 - k0, rows_, s_.scores, *tiles_, ahead_);
        return true;
    }
    /// The same of weighted values.
    bool add_codes(index_t k0, index_t k1) noexcept {
        using side = code_side<Arch, value_type>;
        if (a_.kv.values.dim_stride != 1 || !side::fits(a_.kv.value_dim) || !simd::amx_is_allowed()) return false;
        side const values{s_.codes, a_.kv.value_dim};
        std::uint8_t const* row[tile::keys];
        ahead_.finish();
        ahead_ = code_rows(a_.kv.values, k0, k1, a_.kv.value_dim, values.value_steps(rows_), row);
        if (!tiles_) tiles_.emplace();
        values.add_values(row, row_stride(a_.kv.values, k0, k1), k1 - k0, rows_, s_.scores, s_.factors, output_, stride_, *tiles_, ahead_);
        return true;
    }

    /// Whether some value of keys [k0, k1) is not finite.
    bool has_special(index_t k0, index_t k1) const noexcept {
        for (index_t k = k0; k < k1; ++k)
            if (!all_finite<Arch>(a_.kv.values.row(kv_head_, a_.kv.slot(k)), a_.kv.value_dim)) return true;
        return false;
    }

    /// Adds the weighted values that are not finite to the rows that see them.
    void add_special(index_t k0, index_t n) const noexcept {
        for (index_t i = 0; i < n; ++i)
            for (index_t d = 0; d < a_.kv.value_dim; ++d) {
                float const x = a_.kv.values(kv_head_, a_.kv.slot(k0 + i), d);
                if (std::isfinite(x)) continue;
                for (index_t r = 0; r < rows_; ++r) {
                    float const p = s_.scores[r * tile::keys + i];
                    if (!std::signbit(p)) output_[r * stride_ + d] += p * x;
                }
            }
    }

    /// Calls f(first row, R constant) for all rows, at most tile::rows at a time.
    template <class F>
    void in_row_groups(F const& f) const noexcept {
        index_t r = 0;
        for (; r + tile::rows <= rows_; r += tile::rows) f(r, std::integral_constant<int, tile::rows>{});
        unrolled<tile::rows - 1>([&](auto i) noexcept {
            if (rows_ - r == i + 1) f(r, std::integral_constant<int, i + 1>{});
        });
    }

    index_t row_groups() const noexcept { return ceil_div(rows_, index_t{tile::rows}); }

    template <class Key>
    void scores(cache_stream<Key> const& k, index_t at, index_t n, cache_ahead ahead) noexcept {
        in_row_groups([&](index_t r, auto R) noexcept {
            decode_scores<Arch, R>(s_.queries + r * q_stride_, q_stride_, k, n, s_.scores + r * tile::keys + at, ahead);
        });
    }

    /// How often `sums` reads a value.
    index_t value_passes() const noexcept {
        constexpr index_t chunk = tile::vectors * width;
        return row_groups() * (a_.kv.value_dim / chunk + ceil_div(a_.kv.value_dim % chunk, width));
    }
    /// The first run of a tile's values (at == 0) rescales what was there.
    template <class Value>
    void sums(cache_stream<Value> const& v, index_t at, index_t n, cache_ahead ahead) noexcept {
        static constexpr float ones[tile::rows] = {1.0f, 1.0f, 1.0f, 1.0f};
        constexpr index_t chunk = tile::vectors * width;
        in_row_groups([&](index_t r, auto R) noexcept {
            float const* const p = s_.scores + r * tile::keys + at;
            float const* const factor = at == 0 ? s_.factors + r : ones;
            float* const o = output_ + r * stride_;
            index_t d = 0;
            for (; d + chunk <= v.dim; d += chunk)
                decode_values<Arch, R, tile::vectors>(p, v, n, d, width, factor, o, stride_, ahead);
            for (; d < v.dim; d += width)
                decode_values<Arch, R, 1>(p, v, n, d, minimum(width, v.dim - d), factor, o, stride_, ahead);
        });
    }

    void weigh(index_t k0, index_t n, float const* key_scales, float const* value_scales) noexcept {
        hides_ = false;
        for (index_t r = 0; r < rows_; ++r) softmax(r, k0, n, key_scales, value_scales);
    }

    /// Scores of one row to weights (times the values' scales); its state follows.
    void softmax(index_t row, index_t k0, index_t n, float const* key_scales, float const* value_scales) noexcept {
        float* const s = s_.scores + row * tile::keys;
        visibility const seen = visibility_of(a_.score, tile_of(row, k0, k0 + n));
        coord<floats> at{a_.first_query() + token(row), a_.kv.first_position + k0, floats(0.0f), lane_index<Arch>(),
                         head(row), a_.batch};
        floats largest(minus_infinity);
        floats least(std::numeric_limits<float>::infinity()); // of what is seen
        typename floats::batch_bool_type hidden(false); // lanes with a hidden key
        for (index_t i = 0; i < n; i += width, at.first_key += width) {
            index_t const count = minimum(width, n - i);
            floats x = simd::load<Arch>(s + i);
            if (key_scales != nullptr) x = x * simd::load_partial<Arch>(key_scales + i, count);
            if (seen != visibility::full)
                x = a_.score(x, at);
            else if constexpr (has_transform<score_type>)
                x = transformed(a_.score, x, at);
            hidden = hidden | (x == floats(minus_infinity));
            if (count < width) x = simd::keep_first<Arch>(x, count, minus_infinity);
            simd::store<Arch>(s + i, x);
            if constexpr (requires { a_.recorded; })
                simd::store_partial<Arch>(a_.recorded + (kv_head_ * rows_ + row) * a_.kv.tokens + k0 + i, x, count);
            largest = max(largest, x);
            if constexpr (is_unified) least = min(least, select(x == floats(minus_infinity), least, x));
        }
        ahead_.step(60);
        hides_ |= any(hidden);
        float const top = simd::reduce_max(largest);
        float const before = maximum_[row];
        float after = before < top ? top : before;
        if constexpr (is_unified) {
            unified_range const range = unified_range_of(a_.score);
            bool const inside = top - range.maximum < range.high && -simd::reduce_max(floats(0.0f) - least) - range.maximum > range.low;
            out_of_range_ |= top != minus_infinity && !inside;
            if (preset_) after = range.maximum;
        }
        floats const shift(after == minus_infinity ? 0.0f : after);
        // Exactly 1 where the maximum stays, so that long parts do not add up the exponential's error at 0.
        float const factor = before == after ? 1.0f : simd::softmax_weight(floats(before) - shift).get(0);
        floats sum(0.0f);
        for (index_t i = 0; i < n; i += width) {
            floats const x = simd::load<Arch>(s + i);
            floats p = simd::softmax_weight(x - shift);
            sum = sum + p;
            if (value_scales != nullptr) p = p * simd::load_partial<Arch>(value_scales + i, minimum(width, n - i));
            simd::store<Arch>(s + i, select(x == floats(minus_infinity), floats(-0.0f), p));
        }
        ahead_.step(60);
        sum_[row] = sum_[row] * factor + simd::reduce_add(sum);
        // A part whose maximum is minus infinity has seen nothing, and merging leaves it out: NaN must not look like that.
        maximum_[row] = sum_[row] == sum_[row] ? after : sum_[row];
        s_.factors[row] = factor;
    }

    Arguments const& a_;
    decode_scratch s_;
    decode_states const& states_;
    index_t kv_head_;
    index_t group_;
    index_t rows_;
    index_t stride_;
    index_t q_stride_;
    float* output_;
    float* maximum_;
    float* sum_;
    index_t first_;
    index_t last_;
    bool hides_ = false;        ///< a row does not see all keys of the tile
    bool preset_ = is_unified;  ///< the maximum is preset
    bool out_of_range_ = false; ///< and a score is too far from it
    std::optional<code_tiles<Arch>> tiles_; ///< set up once for the part
    regular_ahead ahead_; ///< of codes: asked for by scores and softmax, or by values
    bool is_stage_ = false; ///< of formats that are chosen at run time: no softmax follows
    code_queries operands_ = code_queries::unknown;
};

} // namespace tessera::inline TESSERA_ABI::detail
