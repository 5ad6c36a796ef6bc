// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache of keys without positions: rotary embeddings are applied when attention reads them.
///
///     ts::rotary_kv_cache cache{std::move(kv), ts::rope_halves{}, table};      // kv: an empty kv_cache or any_kv_cache
///     ts::append(exec, cache, k, v);                                           // k as the model's projection gives it
///     ts::rope(exec, ts::rope_halves{}, q, table, first_position, q);          // queries are turned as ever
///     ts::attention(exec, q, cache, out, ts::causal);
///     cache.shift(first, last, 5);                                             // those tokens are 5 positions later now
///
/// What is stored is what the model predicted (KV Prediction writes such caches, arXiv:2410.08391), and moving a segment of a
/// compressed cache after an edit (PIE, arXiv:2407.03157) changes its positions and no key: nothing is decoded and encoded again,
/// as `rerotate` must. Every read costs a rotation, once for all queries of a tile. Results have the bits of attention over
/// the decoded keys, turned by `rope`.
///
/// A token appended is at the position after the last token's. Positions are those of the rotations; masks go by the order of tokens
/// in the cache, as after `rerotate`. The table (the model's, its frequencies scaled or not) must live as long as the cache, and
/// have all its positions: else a shape_error, and nothing is written.

#include "../kernels/cpu/attention_rotary.hpp"
#include "../nn/rope_table.hpp"
#include "attention.hpp"

#include <utility>

namespace tessera::inline TESSERA_ABI {

/// See the file comment. `Cache` is a kv_cache or an any_kv_cache, contiguous or a ring.
template <class Cache, rope_style Style>
class rotary_kv_cache {
public:
    using cache_type = Cache;
    using key_element = rotary_key<typename Cache::key_element, Style>;
    using value_element = typename Cache::value_element;
    using view_type = kv_view<key_element, value_element>;

    rotary_kv_cache(Cache&& kv, Style, rope_table const& table)
        : cache_{std::move(kv)}, table_{&table}, positions_{cache_.capacity()} {
        check::equal("rotary_kv_cache", "tokens of the cache", cache_.tokens(), 0, "it begins empty");
        check::within("rotary_kv_cache", "positions of the table", table.positions(), 0, (index_t{1} << 31) - 1);
        check::within("rotary_kv_cache", "dims of the table", 2 * table.pairs(), 0, cache_.key_dim());
    }

    /// Keys as they are stored, and values.
    Cache const& stored() const noexcept { return cache_; }
    index_t tokens() const noexcept { return cache_.tokens(); }
    index_t capacity() const noexcept { return cache_.capacity(); }
    index_t kv_heads() const noexcept { return cache_.kv_heads(); }
    index_t key_dim() const noexcept { return cache_.key_dim(); }
    index_t value_dim() const noexcept { return cache_.value_dim(); }
    index_t end_position() const noexcept { return cache_.end_position(); }
    index_t bytes() const noexcept { return cache_.bytes() + positions_.bytes(); }
    /// Of the rotation of token t, counted from the oldest kept.
    index_t position(index_t t) const noexcept { return positions_[slot(t)]; }
    /// Of the next token's.
    index_t next_position() const noexcept { return tokens() == 0 ? first_ : position(tokens() - 1) + 1; }

    void clear() noexcept {
        cache_.clear();
        first_ = 0;
    }
    /// Forgets the newest tokens, so that `tokens` are left; where none is, the next one is where the oldest was.
    void truncate(index_t tokens) {
        index_t const oldest = this->tokens() == 0 ? first_ : position(0);
        cache_.truncate(tokens);
        if (tokens == 0) first_ = oldest;
    }
    /// Tokens [first, last), counted from the oldest kept, are `distance` positions later; earlier where it is negative.
    void shift(index_t first, index_t last, index_t distance) {
        check::within("shift", "last token", last, 0, tokens());
        check::within("shift", "first token", first, 0, last);
        for (index_t t = first; t < last; ++t)
            check::within("shift", "position of a token", saturated_sum(position(t), distance), 0, table_->positions() - 1);
        for (index_t t = first; t < last; ++t) positions_[slot(t)] += static_cast<std::int32_t>(distance);
    }

    view_type view() const& noexcept {
        auto const v = cache_.view();
        view_type r;
        r.keys = {v.keys, v.key_dim,
                  {table_->cosines().data_handle(), table_->sines().data_handle(), table_->pairs(), positions_.data()}};
        r.values = v.values;
        r.tokens = v.tokens;
        r.kv_heads = v.kv_heads;
        r.key_dim = v.key_dim;
        r.value_dim = v.value_dim;
        r.first_position = v.first_position;
        r.ring_size = v.ring_size;
        r.first_slot = v.first_slot;
        return r;
    }
    void view() const&& = delete;

    /// What `append` needs: writes k and v behind the last token.
    template <execution_policy Exec, class K, class V>
    void append(Exec const& exec, K const& k, V const& v) {
        index_t const n = detail::input(k).extent(0);
        index_t const next = next_position();
        check::within("append", "last position plus one", next + n, 0, table_->positions());
        tessera::append(exec, cache_, k, v);
        for (index_t i = maximum(n - tokens(), 0); i < n; ++i)
            positions_[slot(tokens() - n + i)] = static_cast<std::int32_t>(next + i);
        if (tokens() == 0) first_ = next + n; // a ring without room
    }

private:
    index_t slot(index_t t) const noexcept { return cache_.slot(cache_.first_position() + t); }
    static index_t saturated_sum(index_t position, index_t distance) noexcept {
        constexpr index_t most = index_t{1} << 40;
        return position + maximum(minimum(distance, most), -most);
    }

    Cache cache_;
    rope_table const* table_;
    buffer<std::int32_t> positions_; // (capacity), by slot
    index_t first_ = 0;
};

/// Appends keys without positions, and values.
template <execution_policy Exec, class Cache, class Style>
void append(Exec const& exec, rotary_kv_cache<Cache, Style>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    kv.append(exec, k, v);
}

} // namespace tessera::inline TESSERA_ABI
