// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention of many queries: blocks of queries times tiles of keys with the online softmax (Milakov and Gimelshein 2018;
/// Dao et al. 2022). For every tile: scores, then
///
///     m' = max(m, max s)   p = exp(s - m')   l' = l exp(m - m') + sum p   o' = o exp(m - m') + p v
///
/// The rows of a block are registers of queries of one head. All query heads of a KV head are in it, neighbours in the
/// same registers' tile, so that keys and values are converted once for all of them and a causal edge costs half a
/// register. Memory traffic: with B queries a block, keys and values are read queries / B times.
///
/// Keys that no query of a tile sees take part in neither product: a step is a run of keys that some query sees.
///
/// With a preset maximum (attention/normaliser.hpp) nothing is rescaled; a tile of queries one of whose scores is out of
/// range is computed again without.
///
/// A key that a query does not see has the weight 0 in the product with the values of a tile. Where such a tile has values
/// that are NaN or infinite, these are taken out of it and added afterwards to the queries that see them.

#include "../attention.hpp"
#include "attention_prefill_codes.hpp"
#include "attention_tile.hpp"

#include <cmath>
#include <cstdint>
#include <optional>

namespace tessera::inline TESSERA_ABI::detail {

/// Scratch memory of one worker.
template <class Arch>
struct prefill_scratch {
    using tile = attention_tile<Arch>;

    float* queries;  // (tiles) [key_dim][tile::queries]
    float* outputs;  // (tiles) [value_dim][tile::queries]
    float* maxima;   // (tiles) [tile::queries]
    float* sums;     // (tiles) [tile::queries]
    float* factors;  // [tile::queries]
    float* scores;   // [tile::keys][tile::queries]
    float* keys;     // [tile::keys][key_dim]
    float* values;   // panels of [tile::keys][tile::rows]
    float* square;   // [tile::width][tile::width]
    float* decoded;  // [tile::keys][value_dim], of values in codes
    prefill_code_scratch key_codes; // where codes are multiplied
    prefill_code_scratch value_codes;

    /// Register tiles of a block.
    static constexpr index_t tiles(attention_shape const& s) noexcept {
        return attention_tile_choice<>::queries(s.key_dim, s.value_dim, tile::queries) / tile::queries;
    }
    template <class Arena>
    static prefill_scratch carve(attention_shape const& s, Arena& arena) {
        index_t const n = tiles(s);
        prefill_scratch r{};
        r.queries = arena.template carve<float>(n, s.key_dim, tile::queries);
        r.outputs = arena.template carve<float>(n, s.value_dim, tile::queries);
        r.maxima = arena.template carve<float>(n, tile::queries);
        r.sums = arena.template carve<float>(n, tile::queries);
        r.factors = arena.template carve<float>(tile::queries);
        r.scores = arena.template carve<float>(tile::keys, tile::queries);
        r.keys = arena.template carve<float>(tile::keys, s.key_dim);
        r.values = arena.template carve<float>(tile::keys * s.value_dim + tile::width);
        r.square = arena.template carve<float>(tile::width, tile::width);
        r.decoded = arena.template carve<float>(tile::keys, s.value_dim);
        if constexpr (simd::multiplies_digits<Arch>) { // whatever the cache holds: `workspace_bytes` knows sizes alone
            r.key_codes = prefill_code_scratch::carve<Arch>(n, s.key_dim, arena);
            r.value_codes = prefill_code_scratch::carve<Arch>(1, s.value_dim, arena);
        }
        return r;
    }
};

/// One block: registers [first, last) of the queries of one KV head. Register v holds the tokens from v / group * width
/// on of query head kv_head * group + v % group.
template <class Arch, class Arguments>
class prefill_block {
    using tile = attention_tile<Arch>;
    using floats = simd::floats<Arch>;
    using score_type = decltype(Arguments::score);
    static constexpr index_t width = tile::width;
    static constexpr bool is_unified = has_unified_range<score_type>;
    using key_type = typename decltype(Arguments::kv)::key_type;
    using value_type = typename decltype(Arguments::kv)::value_type;
    static constexpr bool has_key_codes = prefill_multiplies_codes<Arch, key_type>;
    static constexpr bool has_value_codes = prefill_multiplies_codes<Arch, value_type>;

public:
    prefill_block(Arguments const& a, prefill_scratch<Arch> const& scratch, index_t kv_head, index_t first,
                  index_t last) noexcept
        : a_{a}, s_{scratch}, kv_head_{kv_head}, group_{a.shape().group()}, first_{first}, last_{last},
          tiles_{ceil_div(last - first, index_t{tile::vectors})}, key_codes_{scratch.key_codes, a.kv.key_dim},
          value_codes_{scratch.value_codes, a.kv.value_dim} {}

    void run() noexcept {
        choose_codes();
        pass((1u << tiles_) - 1);
        if constexpr (is_unified) {
            presets_ = false;
            if (out_of_range_ != 0) {
                for (index_t t = 0; t < tiles_; ++t)
                    if ((out_of_range_ >> t & 1) != 0) start(t);
                pass(out_of_range_);
            }
        }
        for (index_t t = 0; t < tiles_; ++t) {
            start_once(t);
            finish(t);
        }
    }

private:
    /// What a register of queries is.
    struct register_info {
        index_t token;  ///< first query token
        index_t count;  ///< tokens in it; 0 for a register beyond the block
        index_t head;   ///< query head
    };
    register_info info(index_t t, index_t m) const noexcept {
        index_t const v = first_ + t * tile::vectors + m;
        index_t const token = v / group_ * width;
        index_t const count = v < last_ ? minimum(width, a_.q.extent(0) - token) : 0;
        return {token, count, kv_head_ * group_ + v % group_};
    }
    /// The keys that queries of registers [first, last) of the block may see.
    token_range keys_of(index_t first, index_t last) const noexcept {
        first = first_ + first;
        last = minimum(first_ + last, last_);
        index_t const begin = a_.first_query() + first / group_ * width;
        index_t const end = a_.first_query() + minimum(((last - 1) / group_ + 1) * width, a_.q.extent(0));
        return tokens_seen(a_.score, a_.kv, begin, end);
    }

    /// All keys for the tiles of a set.
    void pass(unsigned set) noexcept {
        token_range const seen = keys_of(0, last_ - first_);
        for (index_t k0 = seen.first - seen.first % tile::keys, k1 = 0; k0 < seen.last; k0 = k1) {
            k1 = minimum(k0 + tile::keys, a_.kv.tokens);
            bool staged = false;
            for (index_t t = 0; t < tiles_; ++t) {
                if ((set >> t & 1) == 0) continue;
                see(t, k0, k1);
                if (seen_ == visibility::none) continue;
                start_once(t);
                if (!staged) stage(k0, k1, minimum(k1 + tile::keys, seen.last));
                staged = true;
                asks_queries_ = a_.kv.key_dim > 0 && t + 1 < tiles_ && (started_ >> (t + 1) & 1) == 0;
                asks_outputs_ = a_.kv.value_dim > 0 && keys_of(t * tile::vectors, (t + 1) * tile::vectors).last <= k1;
                if constexpr (has_mask<score_type>)
                    seen_runs(t, k0, k1);
                else
                    step(t, k0, k1);
            }
        }
    }

    /// Whether codes are multiplied as they are.
    void choose_codes() noexcept {
        if constexpr (has_key_codes) {
            multiplies_keys_ = key_codes_.fits(a_.kv.keys);
            for (index_t t = 0; multiplies_keys_ && t < tiles_; ++t) start_once(t);
            for (index_t t = 0; multiplies_keys_ && t < tiles_; ++t) multiplies_keys_ = key_codes_.set_queries(t, queries(t));
        }
        if constexpr (has_value_codes) multiplies_values_ = value_codes_.fits(a_.kv.values);
        if (multiplies_keys_ || multiplies_values_) matrix_tiles_.emplace();
    }

    float* queries(index_t t) const noexcept { return s_.queries + t * a_.kv.key_dim * tile::queries; }
    float* outputs(index_t t) const noexcept { return s_.outputs + t * a_.kv.value_dim * tile::queries; }

    /// A tile is started when its turn comes: its queries were asked for while the tile before multiplied.
    void start_once(index_t t) noexcept {
        if ((started_ >> t & 1) == 0) start(t);
        started_ |= 1u << t;
    }

    /// Transposes the queries of a tile, times the scale; nothing is seen yet.
    void start(index_t t) noexcept {
        index_t const dim = a_.kv.key_dim;
        for (index_t m = 0; m < tile::vectors; ++m) {
            register_info const r = info(t, m);
            for (index_t d0 = 0; d0 < dim; d0 += width)
                load_queries(r, d0, minimum(width, dim - d0), queries(t) + d0 * tile::queries + m * width);
        }
        for (index_t i = 0; i < a_.kv.value_dim * tile::queries; ++i) outputs(t)[i] = 0.0f;
        for (index_t i = 0; i < tile::queries; ++i) {
            s_.maxima[t * tile::queries + i] = minus_infinity;
            if constexpr (is_unified)
                if (presets_) s_.maxima[t * tile::queries + i] = unified_range_of(a_.score).maximum;
            s_.sums[t * tile::queries + i] = 0.0f;
        }
    }

    /// to[d * tile::queries + i] = scale * q(token + i, head, d0 + d) for n values of d; 0 for missing tokens.
    void load_queries(register_info const& r, index_t d0, index_t n, float* to) const noexcept {
        using query_type = typename decltype(a_.q)::value_type;
        bool const whole = r.count == width && n == width;
        if constexpr (std::is_same_v<query_type, float>)
            if (whole && a_.q.stride(2) == 1)
                return simd::transpose<Arch>(&a_.q(r.token, r.head, d0), a_.q.stride(0), a_.scale, to, tile::queries);
        float* const square = s_.square;
        for (index_t i = 0; i < r.count; ++i)
            read_row<Arch>(&a_.q(r.token + i, r.head, d0), a_.q.stride(2), n, 1.0f, square + i * width);
        if (whole) return simd::transpose<Arch>(square, width, a_.scale, to, tile::queries);
        for (index_t d = 0; d < n; ++d)
            for (index_t i = 0; i < width; ++i)
                to[d * tile::queries + i] = i < r.count ? a_.scale * square[i * width + d] : 0.0f;
    }

    visibility visible(register_info const& r, index_t k0, index_t k1) const noexcept {
        if (r.count == 0) return visibility::none;
        index_t const query = a_.first_query() + r.token;
        index_t const key = a_.kv.first_position;
        return visibility_of(a_.score, score_tile{query, query + r.count, key + k0, key + k1, r.head, a_.batch});
    }

    /// What each register of the tile sees of the keys.
    void see(index_t t, index_t k0, index_t k1) noexcept {
        seen_ = visibility::none;
        for (index_t m = 0; m < tile::vectors; ++m) {
            see_[m] = visible(info(t, m), k0, k1);
            if (see_[m] != visibility::none) seen_ = visibility::partial;
        }
    }

    /// Whether keys are floats one after the other, which are read where they are.
    bool finds_keys(index_t k0, index_t k1) noexcept {
        if constexpr (std::is_same_v<key_type, float>) {
            auto const& rows = a_.kv.keys;
            if (rows.dim_stride != 1 || rows.scales != nullptr || rows.slot_stride != a_.kv.key_dim || a_.kv.run_end(k0) < k1) return false;
            keys_ = rows.row(kv_head_, a_.kv.slot(k0));
            return true;
        } else {
            return false;
        }
    }

    /// Rows from token k on, of at most n, that lie one after the other.
    template <class T>
    rows_ahead<Arch> ahead_of(kv_rows<T const> const& rows, index_t k, index_t n, index_t dim, index_t calls) const noexcept {
        if (n <= 0 || rows.dim_stride != 1) return {};
        constexpr index_t size = sizeof(T);
        return {rows.row(kv_head_, a_.kv.slot(k)), (is_kv_code<T> ? rows.slot_stride : dim) * size, rows.slot_stride * size,
                minimum(n, a_.kv.run_end(k) - k), calls};
    }
    /// What `multiply_values` asks for in turn: keys and values [k, last), or both halves of the values where keys are read where
    /// they are. A burst of lines would fill the processor's few miss buffers.
    void look_ahead(index_t k, index_t last) noexcept {
        index_t const calls = tiles_ * ceil_div(a_.kv.value_dim, index_t{tile::rows}) / 2;
        if (keys_ == s_.keys) {
            ahead_ = ahead_of(a_.kv.values, k, last - k, a_.kv.value_dim, calls);
            ahead_after_ = ahead_of(a_.kv.keys, k, last - k, a_.kv.key_dim, calls);
        } else {
            index_t const half = tile::keys / 2;
            ahead_ = ahead_of(a_.kv.values, k, minimum(last - k, half), a_.kv.value_dim, calls);
            ahead_after_ = ahead_of(a_.kv.values, k + half, last - k - half, a_.kv.value_dim, calls);
        }
    }

    /// Reads keys [k0, k1); those up to `ahead` come next.
    void stage(index_t k0, index_t k1, index_t ahead) noexcept {
        index_t slots[tile::keys] = {};
        for (index_t k = k0; k < k1; ++k) slots[k - k0] = a_.kv.slot(k);
        first_key_ = k0;
        staged_ = k1 - k0;
        values_checked_ = values_taken_out_ = false;
        if constexpr (has_key_codes)
            if (multiplies_keys_) key_codes_.stage_keys(a_.kv.keys, kv_head_, slots, staged_);
        if (!multiplies_keys_ && !finds_keys(k0, k1)) {
            stage_keys<Arch>(a_.kv.keys, kv_head_, slots, staged_, a_.kv.key_dim, s_.keys);
            keys_ = s_.keys;
        }
        look_ahead(k1, ahead);
        if constexpr (has_value_codes)
            if (multiplies_values_) {
                values_taken_out_ = value_codes_.stage_values(a_.kv.values, kv_head_, slots, staged_);
                values_checked_ = true;
                return;
            }
        if constexpr (is_kv_code<value_type>) {
            // Rows are decoded whole, then cut into panels.
            auto const rows = decoded_rows<Arch>(a_.kv.values, kv_head_, slots, staged_, a_.kv.value_dim, s_.decoded);
            for (index_t k = k0; k < k1; ++k) slots[k - k0] = k - k0;
            stage_values<Arch>(rows, 0, slots, staged_, a_.kv.value_dim, s_.values);
        } else {
            stage_values<Arch>(a_.kv.values, kv_head_, slots, staged_, a_.kv.value_dim, s_.values);
        }
    }

    /// A step for every run of keys in [k0, k1) that some register sees, a register tile's keys at a time.
    void seen_runs(index_t t, index_t k0, index_t k1) noexcept {
        auto const unseen = [&](index_t first, index_t last) noexcept {
            for (index_t m = 0; m < tile::vectors; ++m)
                if (see_[m] == visibility::full ||
                    (see_[m] == visibility::partial && visible(info(t, m), first, last) != visibility::none))
                    return false;
            return true;
        };
        constexpr index_t rows = tile::rows;
        for (index_t first = k0, k = k0; k < k1;) {
            index_t const next = minimum(k + rows, k1);
            bool const gap = unseen(k, next);
            if (gap && first < k) step(t, first, k);
            if (!gap && next == k1) step(t, first, k1);
            if (gap) first = next;
            k = next;
        }
    }

    void step(index_t t, index_t k0, index_t k1) noexcept {
        multiply_keys(t, k0 - first_key_, k1 - k0);
        bool hides = false;
        for (index_t m = 0; m < tile::vectors; ++m)
            if (has_transform<score_type> || see_[m] != visibility::full) hides |= adjust(t, m, k0, k1);
        if (hides && !values_checked_) take_out_values();
        if (values_taken_out_) note_hidden(k1 - k0);
        if constexpr (is_unified) {
            if (presets_) {
                if (!weights_of_preset(t, k1 - k0)) out_of_range_ |= 1u << t;
            } else {
                softmax(t, k1 - k0);
            }
        } else {
            softmax(t, k1 - k0);
        }
        multiply_values(t, k0 - first_key_, k1 - k0);
        if (values_taken_out_) add_taken_out(t, k0, k1);
    }

    /// Scores of staged keys [first, first + n).
    void multiply_keys(index_t t, index_t first, index_t n) noexcept {
        if constexpr (has_key_codes)
            if (multiplies_keys_) return key_codes_.scores(t, first, n, s_.scores, *matrix_tiles_);
        bool const asks = asks_queries_ || asks_outputs_;
        index_t const asked = ceil_div(width, ceil_div(n, index_t{tile::rows})); // rows between two multiplications
        in_rows<Arch>(0, n, [&](index_t k, auto rows) noexcept {
            if (asks) ask(t, k / tile::rows * asked, asked);
            score_rows<Arch, rows>(queries(t), keys_ + (first + k) * a_.kv.key_dim, a_.kv.key_dim,
                                   s_.scores + k * tile::queries);
        });
    }
    /// Asks for rows [i, i + n) of the registers' queries in the next tile, and of the outputs that this tile will write.
    TESSERA_FORCE_INLINE void ask(index_t t, index_t i, index_t n) const noexcept {
        for (index_t m = 0; m < tile::vectors; ++m) {
            register_info const next = asks_queries_ ? info(t + 1, m) : register_info{};
            for (index_t row = i; row < minimum(i + n, next.count); ++row)
                ask_row(&a_.q(next.token + row, next.head, 0), a_.kv.key_dim);
            register_info const now = asks_outputs_ ? info(t, m) : register_info{};
            for (index_t row = i; row < minimum(i + n, now.count); ++row)
                ask_row(&a_.out(now.token + row, now.head, 0), a_.kv.value_dim);
        }
    }
    /// Adds staged values [first, first + n), times their weights.
    void multiply_values(index_t t, index_t first, index_t n) noexcept {
        if constexpr (has_value_codes)
            if (multiplies_values_)
                return value_codes_.add_values(s_.scores, s_.sums + t * tile::queries, first, n, s_.factors, outputs(t), *matrix_tiles_);
        in_rows<Arch>(0, a_.kv.value_dim, [&](index_t d, auto columns) noexcept {
            std::swap(ahead_, ahead_after_);
            value_rows<Arch, columns>(s_.scores, s_.values + d * staged_ + first * columns, n, s_.factors,
                                      outputs(t) + d * tile::queries, ahead_.next());
        });
    }

    /// Replaces staged values that are not finite by 0, if there are any.
    void take_out_values() noexcept {
        index_t const n = staged_ * a_.kv.value_dim;
        values_checked_ = true;
        values_taken_out_ = !all_finite<Arch>(s_.values, n);
        if (!values_taken_out_) return;
        for (index_t i = 0; i < n; ++i)
            if (!std::isfinite(s_.values[i])) s_.values[i] = 0.0f;
    }

    /// Which queries do not see a key, one bit each: their score is minus infinity.
    void note_hidden(index_t n) noexcept {
        static_assert(tile::queries <= 64);
        for (index_t k = 0; k < n; ++k) {
            hidden_[k] = 0;
            for (index_t i = 0; i < tile::queries; ++i)
                hidden_[k] |= std::uint64_t{s_.scores[k * tile::queries + i] == minus_infinity} << i;
        }
    }

    /// Adds the weighted values that were taken out, to the queries that see them.
    void add_taken_out(index_t t, index_t k0, index_t k1) const noexcept {
        for (index_t k = k0; k < k1; ++k)
            for (index_t d = 0; d < a_.kv.value_dim; ++d) {
                float const x = a_.kv.values(kv_head_, a_.kv.slot(k), d);
                if (std::isfinite(x)) continue;
                float const* const weights = s_.scores + (k - k0) * tile::queries;
                float* const o = outputs(t) + d * tile::queries;
                for (index_t i = 0; i < tile::queries; ++i)
                    if ((hidden_[k - k0] >> i & 1) == 0) o[i] += weights[i] * x;
            }
    }

    /// Applies the score functors to one register's queries, masks only where they hide something. Returns whether
    /// something is hidden from a query.
    bool adjust(index_t t, index_t m, index_t k0, index_t k1) noexcept {
        register_info const r = info(t, m);
        floats minus_infinities(0.0f); // 1 in lanes with a hidden key
        float* s = s_.scores + m * width;
        coord<floats> at{a_.first_query() + r.token, a_.kv.first_position + k0, lane_index<Arch>(), floats(0.0f), r.head,
                         a_.batch};
        for (index_t first = k0; first < k1; first += width) {
            index_t const last = minimum(first + width, k1);
            visibility const seen = see_[m] == visibility::full ? see_[m] : visible(r, first, last);
            if (seen == visibility::full && !has_transform<score_type>) {
                at.first_key += last - first;
                s += (last - first) * tile::queries;
                continue;
            }
            for (index_t k = first; k < last; ++k, ++at.first_key, s += tile::queries) {
                floats const x = simd::load<Arch>(s);
                floats y(minus_infinity);
                if (seen == visibility::full)
                    y = transformed(a_.score, x, at);
                else if (seen == visibility::partial)
                    y = a_.score(x, at);
                simd::store<Arch>(s, y);
                minus_infinities = select(y == floats(minus_infinity), floats(1.0f), minus_infinities);
            }
        }
        return r.count != 0 && simd::reduce_max(minus_infinities) > 0.0f;
    }

    /// Scores of n keys to weights; maxima, sums and the factors of what was there before.
    void softmax(index_t t, index_t n) noexcept {
        constexpr int M = tile::vectors;
        float const* const end = s_.scores + n * tile::queries;
        floats shift[M];
        unrolled<M>([&](auto m) noexcept { shift[m] = floats(minus_infinity); });
        float const* from = s_.scores;
        // In pairs, else each maximum waits for the one before.
        for (; end - from >= 4 * tile::queries; from += 4 * tile::queries)
            unrolled<M>([&](auto m) noexcept {
                auto const x = [&](int i) noexcept { return simd::load<Arch>(from + i * tile::queries + m * width); };
                shift[m] = max(shift[m], max(max(x(0), x(1)), max(x(2), x(3))));
            });
        for (; from != end; from += tile::queries)
            unrolled<M>([&](auto m) noexcept { shift[m] = max(shift[m], simd::load<Arch>(from + m * width)); });

        float* const maxima = s_.maxima + t * tile::queries;
        unrolled<M>([&](auto m) noexcept {
            floats const before = simd::load<Arch>(maxima + m * width);
            floats const after = max(before, shift[m]);
            simd::store<Arch>(maxima + m * width, after);
            // A query that has seen nothing keeps -inf; 0 in its place makes every weight exp(-inf) = 0.
            shift[m] = select(after == floats(minus_infinity), floats(0.0f), after);
            // Exactly 1 where the maximum stays, so that long contexts do not add up the exponential's error at 0.
            simd::store<Arch>(s_.factors + m * width,
                              select(before == after, floats(1.0f), simd::softmax_weight(before - shift[m])));
        });
        floats sum[M];
        unrolled<M>([&](auto m) noexcept { sum[m] = floats(0.0f); });
        for (float* s = s_.scores; s != end; s += tile::queries)
            unrolled<M>([&](auto m) noexcept {
                floats const p = simd::softmax_weight(simd::load<Arch>(s + m * width) - shift[m]);
                simd::store<Arch>(s + m * width, p);
                sum[m] = sum[m] + p;
            });
        float* const sums = s_.sums + t * tile::queries;
        unrolled<M>([&](auto m) noexcept {
            simd::store<Arch>(sums + m * width, simd::fma(simd::load<Arch>(sums + m * width),
                                                          simd::load<Arch>(s_.factors + m * width), sum[m]));
        });
    }

    /// Scores of n keys to weights with the preset maximum, and their sums. False where a score is out of range.
    bool weights_of_preset(index_t t, index_t n) noexcept {
        constexpr int M = tile::vectors;
        unified_range const range = unified_range_of(a_.score);
        float const* const end = s_.scores + n * tile::queries;
        floats sum[M];
        floats out[M];
        unrolled<M>([&](auto m) noexcept { out[m] = floats(0.0f); });
        unrolled<M>([&](auto m) noexcept { sum[m] = floats(0.0f); });
        for (float* s = s_.scores; s != end; s += tile::queries)
            unrolled<M>([&](auto m) noexcept {
                floats const x = simd::load<Arch>(s + m * width) - floats(range.maximum);
                out[m] = select(x < floats(range.high), out[m], floats(1.0f));
                out[m] = select(x > floats(range.low), out[m], select(x == floats(minus_infinity), out[m], floats(1.0f)));
                floats const p = simd::softmax_weight(x);
                simd::store<Arch>(s + m * width, p);
                sum[m] = sum[m] + p;
            });
        float* const sums = s_.sums + t * tile::queries;
        unrolled<M>([&](auto m) noexcept {
            simd::store<Arch>(sums + m * width, simd::load<Arch>(sums + m * width) + sum[m]);
            simd::store<Arch>(s_.factors + m * width, floats(1.0f));
        });
        for (index_t m = 0; m < M; ++m) // lanes beyond the last query hold scores of no one
            if (index_t const count = info(t, m).count; count > 0 && simd::reduce_max(simd::keep_first<Arch>(out[m], count, 0.0f)) > 0.0f)
                return false;
        return true;
    }

    /// Divides by the sums, transposes back and writes.
    void finish(index_t t) noexcept {
        index_t const dim = a_.kv.value_dim;
        for (index_t m = 0; m < tile::vectors; ++m) {
            register_info const r = info(t, m);
            float const* const sums = s_.sums + t * tile::queries + m * width;
            float const* const maxima = s_.maxima + t * tile::queries + m * width;
            alignas(64) float factors[width] = {};
            for (index_t i = 0; i < r.count; ++i) factors[i] = a_.finish(r.head, r.token + i, maxima[i], sums[i]);
            floats const inverse = floats::load_aligned(factors);
            float* const o = outputs(t) + m * width;
            for (index_t d = 0; d < dim; ++d)
                simd::store<Arch>(o + d * tile::queries, simd::load<Arch>(o + d * tile::queries) * inverse);
            for (index_t d0 = 0; d0 < dim; d0 += width)
                store_outputs(r, d0, minimum(width, dim - d0), o + d0 * tile::queries);
        }
    }

    /// out(token + i, head, d0 + d) = o[d * tile::queries + i] for n values of d.
    void store_outputs(register_info const& r, index_t d0, index_t n, float const* o) const noexcept {
        using out_type = typename decltype(a_.out)::value_type;
        bool const whole = r.count == width && n == width;
        if constexpr (std::is_same_v<out_type, float>)
            if (whole && a_.out.stride(2) == 1)
                return simd::transpose<Arch>(o, tile::queries, 1.0f, &a_.out(r.token, r.head, d0), a_.out.stride(0));
        float* const square = s_.square;
        if (whole) {
            simd::transpose<Arch>(o, tile::queries, 1.0f, square, width);
        } else {
            for (index_t i = 0; i < r.count; ++i)
                for (index_t d = 0; d < n; ++d) square[i * width + d] = o[d * tile::queries + i];
        }
        for (index_t i = 0; i < r.count; ++i)
            write_row<Arch>(square + i * width, n, &a_.out(r.token + i, r.head, d0), a_.out.stride(2));
    }

    Arguments const& a_;
    prefill_scratch<Arch> s_;
    index_t kv_head_;
    index_t group_;
    index_t first_;
    index_t last_;
    index_t tiles_;
    visibility see_[tile::vectors] = {};
    visibility seen_ = visibility::none;
    bool presets_ = is_unified;   ///< maxima are preset
    unsigned out_of_range_ = 0;   ///< tiles that must be computed without, one bit each
    unsigned started_ = 0;        ///< tiles, one bit each
    bool asks_queries_ = false;   ///< the next tile has not been started
    bool asks_outputs_ = false;   ///< this tile's last keys are multiplied
    rows_ahead<Arch> ahead_;
    rows_ahead<Arch> ahead_after_;
    float const* keys_ = nullptr; ///< of the first key staged
    index_t first_key_ = 0;
    index_t staged_ = 0;
    bool values_checked_ = false;
    bool values_taken_out_ = false;      ///< of the staged values: some are not finite, and 0 stands in their place
    std::uint64_t hidden_[tile::keys];   ///< written where values were taken out
    prefill_code_side<Arch, key_type> key_codes_;
    prefill_code_side<Arch, value_type> value_codes_;
    std::optional<code_tiles<Arch>> matrix_tiles_; ///< set up once for the block
    bool multiplies_keys_ = false;                 ///< the queries are there as operands
    bool multiplies_values_ = false;
};

} // namespace tessera::inline TESSERA_ABI::detail
