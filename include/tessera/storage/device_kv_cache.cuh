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
class device_kv_cache<key<KeyFormat>, value<ValueFormat>, Layout> : public kv_extent {
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
        : kv_extent{name, capacity, kv_heads, key_dim, value_dim, is_ring ? capacity : 0}, keys_{elements(name, key_dim)},
          values_{elements(name, value_dim)}, key_scales_{elements(name, key_format::has_scale ? 1 : 0)},
          value_scales_{elements(name, value_format::has_scale ? 1 : 0)} {}
    device_kv_cache(index_t capacity, index_t kv_heads, index_t head_dim) : device_kv_cache{capacity, kv_heads, head_dim, head_dim} {}

    /// Bytes of the device.
    index_t bytes() const noexcept { return keys_.bytes() + values_.bytes() + key_scales_.bytes() + value_scales_.bytes(); }

    view_type view() const& noexcept {
        return view_of<view_type>(rows(keys_.data(), key_scales_, key_dim()), rows(values_.data(), value_scales_, value_dim()));
    }
    void view() const&& = delete;

    // What `append` needs.

    kv_rows<key_element> key_rows() & noexcept { return rows(keys_.data(), key_scales_, key_dim()); }
    kv_rows<value_element> value_rows() & noexcept { return rows(values_.data(), value_scales_, value_dim()); }

private:
    static constexpr char const* name = "device_kv_cache";

    template <class T, class Scales>
    auto rows(T* data, Scales& scales, index_t dim) const noexcept {
        return kv_rows<T>{data, capacity() * dim, dim, 1, scales.size() == 0 ? nullptr : scales.data(), capacity(), dim};
    }

    device_buffer<key_element> keys_;
    device_buffer<value_element> values_;
    device_buffer<float> key_scales_;
    device_buffer<float> value_scales_;
};

} // namespace tessera::inline TESSERA_ABI
