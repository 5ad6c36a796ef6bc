// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kv_extent`: what a cache of one sequence knows of itself whatever its elements are and wherever they lie.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "buffer.hpp"

namespace tessera::inline TESSERA_ABI {

/// Base of kv_cache, any_kv_cache and device_kv_cache: their extents, and which tokens are there. A move leaves one without tokens,
/// heads or capacity.
class kv_extent {
public:
    index_t tokens() const noexcept { return tokens_; }
    index_t capacity() const noexcept { return capacity_; }
    index_t kv_heads() const noexcept { return kv_heads_; }
    index_t key_dim() const noexcept { return key_dim_; }
    index_t value_dim() const noexcept { return value_dim_; }
    /// Position in the sequence of the oldest token kept: 0 but in a ring that has dropped some.
    index_t first_position() const noexcept { return first_; }
    /// The position that the next token gets.
    index_t end_position() const noexcept { return first_ + tokens_; }

    /// Forgets everything; the next token is at position 0.
    void clear() noexcept {
        first_ = 0;
        tokens_ = 0;
    }
    /// Forgets the newest tokens, so that `tokens` are left.
    void truncate(index_t tokens) {
        check::within("truncate", "tokens", tokens, 0, tokens_);
        tokens_ = tokens;
    }

    // What `append` needs.

    /// Where the token at a position of the sequence is, or goes.
    index_t slot(index_t position) const noexcept { return ring_size_ > 0 ? position % ring_size_ : position; }
    /// Counts `n` tokens, written after the last, as present.
    void advance(index_t n) noexcept {
        index_t const end = end_position() + n;
        tokens_ = minimum(tokens_ + n, capacity_);
        first_ = end - tokens_;
    }

protected:
    kv_extent() noexcept = default;
    /// `operation` is who complains; `ring_size`: `capacity` if the oldest token makes room, else 0.
    kv_extent(char const* operation, index_t capacity, index_t kv_heads, index_t key_dim, index_t value_dim, index_t ring_size)
        : capacity_{checked(operation, "capacity", capacity)}, kv_heads_{checked(operation, "kv_heads", kv_heads)},
          key_dim_{checked(operation, "key_dim", key_dim)}, value_dim_{checked(operation, "value_dim", value_dim)}, ring_size_{ring_size} {}

    /// Elements of a side whose rows are `row` of them.
    index_t elements(char const* operation, index_t row) const {
        check::within(operation, "kv_heads", kv_heads_, 0, most / maximum(row, 1));
        check::within(operation, "capacity", capacity_, 0, most / (maximum(kv_heads_, 1) * maximum(row, 1)));
        return capacity_ * kv_heads_ * row;
    }
    /// A view of these tokens; keys and values are the cache's.
    template <class View>
    View view_of(decltype(View::keys) const& keys, decltype(View::values) const& values) const noexcept {
        View v;
        v.keys = keys;
        v.values = values;
        v.tokens = tokens_;
        v.kv_heads = kv_heads_;
        v.key_dim = key_dim_;
        v.value_dim = value_dim_;
        v.first_position = first_;
        v.ring_size = ring_size_;
        v.first_slot = slot(first_);
        return v;
    }

private:
    static constexpr index_t most = index_t{1} << 48; ///< elements of a side, and each of its extents

    static index_t checked(char const* operation, char const* argument, index_t n) {
        check::within(operation, argument, n, 0, most);
        return n;
    }

    detail::emptied_by_move<index_t> capacity_;
    detail::emptied_by_move<index_t> kv_heads_;
    detail::emptied_by_move<index_t> key_dim_;
    detail::emptied_by_move<index_t> value_dim_;
    detail::emptied_by_move<index_t> ring_size_;
    detail::emptied_by_move<index_t> tokens_;
    detail::emptied_by_move<index_t> first_;
};

} // namespace tessera::inline TESSERA_ABI
