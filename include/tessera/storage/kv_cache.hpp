// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Storage of the keys and values of a sequence. Data only: `append` (attention/append.hpp) writes it, `attention` reads
/// it through `kv_view`.
///
/// Layout: each side is [kv_head][slot][dim], so that decoding one head reads one contiguous stream; a scale, where the
/// format has them, is at [kv_head][slot] of a separate array.
///
/// | format | stored | scale |
/// |---|---|---|
/// | `float` (or `fp32`), `fp16`, `bf16` | as it is, rounded to nearest even | none |
/// | `int8_per_token` | int8, symmetric: round(x / scale), scale = largest magnitude / 127 | float, per token and head |
/// | any `scheme` with `per_channel` or `group<N>` | storage/kv_row.hpp | in the row |
///
/// An int8 row whose largest magnitude is below about 3.7e-37 (127 over it is no float32) is stored as zeros, on purpose: as
/// the int8 preparations of scheme.hpp.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "buffer.hpp"
#include "kv_extent.hpp"
#include "kv_row.hpp"
#include "scheme.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The format of keys or of values: a parameter of kv_cache.
template <class Format>
struct key {
    using format = Format;
};
template <class Format>
struct value {
    using format = Format;
};

/// Keeps every token up to the capacity; more is an error.
struct contiguous {};
/// Keeps the last `capacity` tokens; the oldest make room.
struct ring {};

namespace detail {

template <class Format>
struct kv_format {
    static_assert(always_false<Format>,
                  "tessera: kv_cache stores float, fp16, bf16, int8_per_token or scheme<...> keys and values");
};
/// A row of `dim` elements is `row(dim)` numbers in memory.
template <class Element, bool HasScale>
struct kv_elements {
    using element = Element;
    static constexpr bool has_scale = HasScale;
    static constexpr index_t row(index_t dim) noexcept { return dim; }
};
template <>
struct kv_format<float> : kv_elements<float, false> {};
template <>
struct kv_format<fp32> : kv_format<float> {};
template <>
struct kv_format<fp16> : kv_elements<fp16, false> {};
template <>
struct kv_format<bf16> : kv_elements<bf16, false> {};
template <>
struct kv_format<int8_per_token> : kv_elements<std::int8_t, true> {};
template <class Format, class Granularity, class Scale, class Zero>
struct kv_format<scheme<Format, Granularity, Scale, Zero>> {
    using element = kv_code<scheme<Format, Granularity, Scale, Zero>>;
    static constexpr bool has_scale = false;
    static constexpr index_t row(index_t dim) noexcept {
        return kv_row<scheme<Format, Granularity, Scale, Zero>>::bytes(dim);
    }
};

/// The value of element d of a row, without a scale of its own.
template <class T>
TESSERA_HOST_DEVICE constexpr float kv_element(T const* row, index_t stride, index_t, index_t d) noexcept {
    return static_cast<float>(row[d * stride]);
}
template <class Scheme>
TESSERA_HOST_DEVICE float kv_element(kv_code<Scheme> const* row, index_t, index_t dim, index_t d) noexcept {
    return kv_row<Scheme>::value(reinterpret_cast<std::uint8_t const*>(row), dim, d);
}

} // namespace detail

/// Keys or values in memory: element (head, slot, d) is data[head * head_stride + slot * slot_stride + d * dim_stride],
/// times scales[head * scale_stride + slot] where there are scales. Rows of codes (`kv_code`) are contiguous bytes.
template <class T>
struct kv_rows {
    T* data = nullptr;
    index_t head_stride = 0;
    index_t slot_stride = 0;
    index_t dim_stride = 1;
    std::conditional_t<std::is_const_v<T>, float const*, float*> scales = nullptr;
    index_t scale_stride = 0;
    index_t dim = 0; ///< elements of a row; needed for codes only

    TESSERA_HOST_DEVICE constexpr T* row(index_t head, index_t slot) const noexcept {
        return data + head * head_stride + slot * slot_stride;
    }
    TESSERA_HOST_DEVICE constexpr auto* scale_row(index_t head, index_t slot) const noexcept {
        return scales + head * scale_stride + slot;
    }
    /// The value that the element stands for.
    TESSERA_HOST_DEVICE constexpr float operator()(index_t head, index_t slot, index_t d) const noexcept {
        float const x = detail::kv_element(row(head, slot), dim_stride, dim, d);
        return scales == nullptr ? x : x * *scale_row(head, slot);
    }
};

/// What attention reads: token t, at position first_position + t of the sequence, is in slot(t). Trivially copyable. Slots are
/// consecutive, those of a ring, or those of pages: slot p * page_size + i is the i-th of page p, and pages[j] holds the
/// j-th `page_size` tokens.
template <class Key, class Value>
struct kv_view {
    using key_type = Key;
    using value_type = Value;

    kv_rows<Key const> keys;
    kv_rows<Value const> values;
    index_t tokens = 0;
    index_t kv_heads = 0;
    index_t key_dim = 0;
    index_t value_dim = 0;
    index_t first_position = 0;
    index_t tokens_after = 0; ///< of the sequence, behind these: of other parts (attention/merge.hpp)
    index_t ring_size = 0; ///< slots of a ring; 0: slot(t) is t
    index_t first_slot = 0;
    std::int32_t const* pages = nullptr; ///< null: no pages
    index_t page_size = 0;
    index_t slots = 0; ///< of all pages

    constexpr kv_view() noexcept = default;

    /// Keys and values in plain tensors of any strides.
    template <class K, class V>
    kv_view(K const& k, V const& v) // (tokens, kv_heads, key_dim) (tokens, kv_heads, value_dim)
        requires detail::is_view<K> && detail::is_view<V>
        : keys{k.data_handle(), k.stride(1), k.stride(0), k.stride(2)},
          values{v.data_handle(), v.stride(1), v.stride(0), v.stride(2)}, tokens{k.extent(0)}, kv_heads{k.extent(1)},
          key_dim{k.extent(2)}, value_dim{v.extent(2)} {
        static_assert(K::rank() == 3 && V::rank() == 3, "tessera: keys and values are (tokens, kv_heads, head_dim)");
        check::equal("kv_view", "tokens of v", v.extent(0), tokens, "tokens of k");
        check::equal("kv_view", "heads of v", v.extent(1), kv_heads, "heads of k");
        check::elements("kv_view", "k", k);
        check::elements("kv_view", "v", v);
    }

    TESSERA_HOST_DEVICE constexpr index_t slot(index_t t) const noexcept {
        if (pages != nullptr) return pages[t / page_size] * page_size + t % page_size;
        index_t const s = first_slot + t;
        return ring_size != 0 && s >= ring_size ? s - ring_size : s;
    }
    /// The end of the tokens from t on whose slots follow each other.
    TESSERA_HOST_DEVICE constexpr index_t run_end(index_t t) const noexcept {
        if (pages != nullptr) return minimum(t - t % page_size + page_size, tokens);
        index_t const wrap = ring_size - first_slot;
        return ring_size != 0 && t < wrap && wrap < tokens ? wrap : tokens;
    }
    /// The position after the last token.
    TESSERA_HOST_DEVICE constexpr index_t end_position() const noexcept { return first_position + tokens; }
    /// The end of the sequence, which is the position after the last query.
    TESSERA_HOST_DEVICE constexpr index_t query_end() const noexcept { return end_position() + tokens_after; }
};

template <class K, class V>
    requires detail::is_view<K> && detail::is_view<V>
kv_view(K const&, V const&) -> kv_view<typename K::value_type, typename V::value_type>;

template <class Key, class Value, class Layout = contiguous>
class kv_cache;

/// Owner of the keys and values of one layer of one sequence. A move leaves one without tokens, heads or capacity.
template <class KeyFormat, class ValueFormat, class Layout>
class kv_cache<key<KeyFormat>, value<ValueFormat>, Layout> : public kv_extent {
    using key_format = detail::kv_format<KeyFormat>;
    using value_format = detail::kv_format<ValueFormat>;
    static_assert(std::is_same_v<Layout, contiguous> || std::is_same_v<Layout, ring>,
                  "tessera: kv_cache is contiguous or ring");

public:
    using key_element = typename key_format::element;
    using value_element = typename value_format::element;
    using view_type = kv_view<key_element, value_element>;
    static constexpr bool is_ring = std::is_same_v<Layout, ring>;

    kv_cache() noexcept = default;
    /// Room for `capacity` tokens; the memory is touched when it is written.
    kv_cache(index_t capacity, index_t kv_heads, index_t head_dim) : kv_cache{capacity, kv_heads, head_dim, head_dim} {}
    kv_cache(index_t capacity, index_t kv_heads, index_t key_dim, index_t value_dim)
        : kv_extent{"kv_cache", capacity, kv_heads, key_dim, value_dim, is_ring ? capacity : 0},
          keys_{elements("kv_cache", key_format::row(key_dim))}, values_{elements("kv_cache", value_format::row(value_dim))},
          key_scales_{elements("kv_cache", key_format::has_scale ? 1 : 0)},
          value_scales_{elements("kv_cache", value_format::has_scale ? 1 : 0)} {}

    /// Bytes allocated.
    index_t bytes() const noexcept {
        return keys_.bytes() + values_.bytes() + key_scales_.bytes() + value_scales_.bytes();
    }

    view_type view() const& noexcept {
        return view_of<view_type>(rows<key_format>(keys_.data(), key_scales_.data(), key_dim()),
                                  rows<value_format>(values_.data(), value_scales_.data(), value_dim()));
    }
    void view() const&& = delete;

    // What `append` needs.

    kv_rows<key_element> key_rows() & noexcept {
        return rows<key_format>(keys_.data(), key_scales_.data(), key_dim());
    }
    kv_rows<value_element> value_rows() & noexcept {
        return rows<value_format>(values_.data(), value_scales_.data(), value_dim());
    }

private:
    template <class Format, class T, class S>
    kv_rows<T> rows(T* data, S* scales, index_t dim) const noexcept {
        index_t const row = Format::row(dim);
        return {data, capacity() * row, row, 1, scales, capacity(), dim};
    }

    buffer<key_element> keys_;
    buffer<value_element> values_;
    buffer<float> key_scales_;
    buffer<float> value_scales_;
};

} // namespace tessera::inline TESSERA_ABI
