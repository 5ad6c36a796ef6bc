// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `device_kv_cache`: what `kv_cache` is, in memory of a CUDA device; float, fp16, bf16 and int8_per_token.

#include "device_memory.cuh"
#include "kv_cache.hpp"

namespace tessera::inline TESSERA_ABI {

template <class Key, class Value, class Layout = contiguous>
class device_kv_cache;

/// Owner of the keys and values of one layer of one sequence. Moves, does not copy. How many tokens it has is known on the host.
template <class KeyFormat, class ValueFormat, class Layout>
class device_kv_cache<key<KeyFormat>, value<ValueFormat>, Layout> {
    using key_format = detail::kv_format<KeyFormat>;
    using value_format = detail::kv_format<ValueFormat>;

public:
    using key_element = typename key_format::element;
    using value_element = typename value_format::element;
    using view_type = kv_view<key_element, value_element>;
    static constexpr bool is_ring = std::is_same_v<Layout, ring>;
    static_assert(!detail::is_kv_code<key_element> && !detail::is_kv_code<value_element>,
                  "tessera: device_kv_cache stores float, fp16, bf16 or int8_per_token keys and values");

    device_kv_cache() noexcept = default;
    /// Room for `capacity` tokens.
    device_kv_cache(index_t capacity, index_t kv_heads, index_t key_dim, index_t value_dim)
        : capacity_{checked("capacity", capacity)}, kv_heads_{checked("kv_heads", kv_heads)}, key_dim_{checked("key_dim", key_dim)},
          value_dim_{checked("value_dim", value_dim)}, keys_{detail::saturated_product(capacity, kv_heads, key_dim)},
          values_{detail::saturated_product(capacity, kv_heads, value_dim)}, key_scales_{key_format::has_scale ? capacity * kv_heads : 0},
          value_scales_{value_format::has_scale ? capacity * kv_heads : 0} {}
    device_kv_cache(index_t capacity, index_t kv_heads, index_t head_dim) : device_kv_cache{capacity, kv_heads, head_dim, head_dim} {}

    index_t tokens() const noexcept { return tokens_; }
    index_t capacity() const noexcept { return capacity_; }
    index_t kv_heads() const noexcept { return kv_heads_; }
    index_t key_dim() const noexcept { return key_dim_; }
    index_t value_dim() const noexcept { return value_dim_; }
    index_t first_position() const noexcept { return first_; }
    index_t end_position() const noexcept { return first_ + tokens_; }
    /// Bytes of the device.
    index_t bytes() const noexcept { return keys_.bytes() + values_.bytes() + key_scales_.bytes() + value_scales_.bytes(); }

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

    view_type view() const& noexcept {
        view_type v;
        v.keys = rows(keys_.data(), key_scales_, key_dim_);
        v.values = rows(values_.data(), value_scales_, value_dim_);
        v.tokens = tokens_;
        v.kv_heads = kv_heads_;
        v.key_dim = key_dim_;
        v.value_dim = value_dim_;
        v.first_position = first_;
        v.ring_size = is_ring ? capacity() : 0;
        v.first_slot = slot(first_);
        return v;
    }
    void view() const&& = delete;

    // What `append` needs.

    kv_rows<key_element> key_rows() & noexcept { return rows(keys_.data(), key_scales_, key_dim_); }
    kv_rows<value_element> value_rows() & noexcept { return rows(values_.data(), value_scales_, value_dim_); }
    /// Where the token at a position of the sequence is, or goes.
    index_t slot(index_t position) const noexcept { return is_ring && capacity_ > 0 ? position % capacity_ : position; }
    /// Counts `n` tokens, written after the last, as present.
    void advance(index_t n) noexcept {
        index_t const end = end_position() + n;
        tokens_ = minimum(tokens_ + n, capacity_);
        first_ = end - tokens_;
    }

private:
    template <class T, class Scales>
    auto rows(T* data, Scales& scales, index_t dim) const noexcept {
        return kv_rows<T>{data, capacity_ * dim, dim, 1, scales.size() == 0 ? nullptr : scales.data(), capacity_, dim};
    }
    static index_t checked(char const* argument, index_t n) {
        check::within("device_kv_cache", argument, n, 0, index_t{1} << 40);
        return n;
    }

    detail::emptied_by_move<index_t> capacity_;
    detail::emptied_by_move<index_t> kv_heads_;
    detail::emptied_by_move<index_t> key_dim_;
    detail::emptied_by_move<index_t> value_dim_;
    detail::emptied_by_move<index_t> tokens_;
    detail::emptied_by_move<index_t> first_;
    device_buffer<key_element> keys_;
    device_buffer<value_element> values_;
    device_buffer<float> key_scales_;
    device_buffer<float> value_scales_;
};

} // namespace tessera::inline TESSERA_ABI
