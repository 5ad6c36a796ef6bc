// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A KV cache whose formats, one for keys and one for values, are chosen at run time from a list (kv_formats.hpp).
///
///     ts::any_kv_cache kv{ts::standard_kv_formats::parse("int8,int4_g32"), 4096, 8, 128}; // capacity, kv_heads, head_dim
///
/// `append` and `attention` take it as they take a kv_cache. Memory, bits of results and errors are those of the `kv_cache` of these formats. Code grows with the number of formats, not
/// with its square: appending, scores and weighted values are stages, which are compiled for one format each and called for a
/// tile of keys (kernels/cpu/attention_any.hpp). A format of a program's own is an entry of its list:
///
///     ts::basic_any_kv_cache<ts::kv_formats<ts::fp16, ts::int4_g128>> own{{0, 1}, 4096, 8, 128};

#include "kv_formats.hpp"

#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// Which tokens a cache keeps: all up to its capacity, as `contiguous`, or the last ones, as `ring`.
enum class kv_layout { contiguous, ring };

/// A byte of a row in one of `Formats`: what caches with formats chosen at run time are arrays of.
template <class Formats>
struct any_kv_code {
    using formats = Formats;
    std::uint8_t byte;
};

namespace detail {

template <class Formats>
inline constexpr bool is_kv_code<any_kv_code<Formats>> = true;
template <class Formats>
inline constexpr bool is_kv_code<any_kv_code<Formats> const> = true;

template <class Format>
using kv_element_of = typename kv_format<Format>::element;

/// The value of an element, by format.
template <class T>
float any_kv_element(void const* row, index_t dim, index_t d) noexcept {
    return kv_element(static_cast<T const*>(row), 1, dim, d);
}

template <class Formats>
struct any_kv_facts;
template <class... Format>
struct any_kv_facts<kv_formats<Format...>> {
    /// Bytes of a row.
    static index_t row(int format, index_t dim) noexcept {
        static constexpr index_t (*rows[])(index_t) noexcept = {&kv_format<Format>::row...};
        static constexpr index_t bytes[] = {index_t{sizeof(kv_element_of<Format>)}...};
        return rows[format](dim) * bytes[format];
    }
    static bool has_scale(int format) noexcept {
        static constexpr bool each[] = {kv_format<Format>::has_scale...};
        return each[format];
    }
    static float element(int format, void const* row, index_t dim, index_t d) noexcept {
        static constexpr float (*each[])(void const*, index_t, index_t) noexcept = {&any_kv_element<kv_element_of<Format>>...};
        return each[format](row, dim, d);
    }
};

/// Rows of bytes: strides count them.
template <class T>
struct any_kv_rows {
    T* data = nullptr;
    index_t head_stride = 0;
    index_t slot_stride = 0;
    index_t dim_stride = 1;
    std::conditional_t<std::is_const_v<T>, float const*, float*> scales = nullptr;
    index_t scale_stride = 0;
    index_t dim = 0; ///< elements of a row
    int format = 0;

    constexpr T* row(index_t head, index_t slot) const noexcept { return data + head * head_stride + slot * slot_stride; }
    constexpr auto* scale_row(index_t head, index_t slot) const noexcept { return scales + head * scale_stride + slot; }
    float operator()(index_t head, index_t slot, index_t d) const noexcept {
        float const x = any_kv_facts<typename T::formats>::element(format, row(head, slot), dim, d);
        return scales == nullptr ? x : x * *scale_row(head, slot);
    }
};

/// The same rows, of a format that is known.
template <class T, class Formats>
kv_rows<T const> typed_rows(kv_rows<any_kv_code<Formats> const> const& r) noexcept {
    constexpr index_t size = sizeof(T);
    return {reinterpret_cast<T const*>(r.data), r.head_stride / size, r.slot_stride / size, 1, r.scales, r.scale_stride, r.dim};
}

} // namespace detail

template <class Formats>
struct kv_rows<any_kv_code<Formats>> : detail::any_kv_rows<any_kv_code<Formats>> {};
template <class Formats>
struct kv_rows<any_kv_code<Formats> const> : detail::any_kv_rows<any_kv_code<Formats> const> {};

/// Owner of the keys and values of one layer of one sequence; see the file comment. A move leaves one without tokens, heads or
/// capacity.
template <class Formats>
class basic_any_kv_cache {
    using facts = detail::any_kv_facts<Formats>;

public:
    using formats_type = Formats;
    using key_element = any_kv_code<Formats>;
    using value_element = any_kv_code<Formats>;
    using view_type = kv_view<key_element, value_element>;

    basic_any_kv_cache() noexcept = default;
    /// Room for `capacity` tokens; the memory is touched when it is written.
    basic_any_kv_cache(kv_choice formats, index_t capacity, index_t kv_heads, index_t head_dim,
                       kv_layout layout = kv_layout::contiguous)
        : basic_any_kv_cache{formats, capacity, kv_heads, head_dim, head_dim, layout} {}
    basic_any_kv_cache(kv_choice formats, index_t capacity, index_t kv_heads, index_t key_dim, index_t value_dim,
                       kv_layout layout = kv_layout::contiguous)
        : formats_{checked(formats)}, layout_{layout}, capacity_{checked("capacity", capacity)},
          kv_heads_{checked("kv_heads", kv_heads)}, key_dim_{checked("key_dim", key_dim)},
          value_dim_{checked("value_dim", value_dim)}, keys_{bytes_of(formats.keys, key_dim)},
          values_{bytes_of(formats.values, value_dim)}, key_scales_{scales_of(formats.keys)}, value_scales_{scales_of(formats.values)} {}

    kv_choice formats() const noexcept { return formats_; }
    kv_layout layout() const noexcept { return layout_; }
    index_t tokens() const noexcept { return tokens_; }
    index_t capacity() const noexcept { return capacity_; }
    index_t kv_heads() const noexcept { return kv_heads_; }
    index_t key_dim() const noexcept { return key_dim_; }
    index_t value_dim() const noexcept { return value_dim_; }
    /// Position in the sequence of the oldest token kept: 0 but in a ring that has dropped some.
    index_t first_position() const noexcept { return first_; }
    /// The position that the next token gets.
    index_t end_position() const noexcept { return first_ + tokens_; }
    /// Bytes allocated.
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
        v.keys = rows<key_element const>(formats_.keys, keys_.data(), key_scales_.data(), key_dim_);
        v.values = rows<value_element const>(formats_.values, values_.data(), value_scales_.data(), value_dim_);
        v.tokens = tokens_;
        v.kv_heads = kv_heads_;
        v.key_dim = key_dim_;
        v.value_dim = value_dim_;
        v.first_position = first_;
        v.ring_size = layout_ == kv_layout::ring ? capacity() : 0;
        v.first_slot = slot(first_);
        return v;
    }
    void view() const&& = delete;

    // What `append` needs.

    kv_rows<key_element> key_rows() & noexcept {
        return rows<key_element>(formats_.keys, keys_.data(), key_scales_.data(), key_dim_);
    }
    kv_rows<value_element> value_rows() & noexcept {
        return rows<value_element>(formats_.values, values_.data(), value_scales_.data(), value_dim_);
    }
    /// Where the token at a position of the sequence is, or goes.
    index_t slot(index_t position) const noexcept {
        return layout_ == kv_layout::ring && capacity_ > 0 ? position % capacity_ : position;
    }
    /// Counts `n` tokens, written after the last, as present.
    void advance(index_t n) noexcept {
        index_t const end = end_position() + n;
        tokens_ = minimum(tokens_ + n, capacity_);
        first_ = end - tokens_;
    }

private:
    static constexpr index_t most = index_t{1} << 48; ///< elements of a side, and each of its extents

    static kv_choice checked(kv_choice c) {
        check::within("any_kv_cache", "format of the keys", c.keys, 0, Formats::size - 1);
        check::within("any_kv_cache", "format of the values", c.values, 0, Formats::size - 1);
        return c;
    }
    static index_t checked(char const* argument, index_t n) {
        check::within("any_kv_cache", argument, n, 0, most);
        return n;
    }
    index_t elements(index_t dim) const {
        check::within("any_kv_cache", "kv_heads", kv_heads_, 0, most / maximum(dim, 1));
        check::within("any_kv_cache", "capacity", capacity_, 0, most / (maximum(kv_heads_, 1) * maximum(dim, 1)));
        return capacity_ * kv_heads_ * dim;
    }
    index_t bytes_of(int format, index_t dim) const { return elements(facts::row(format, dim)); }
    index_t scales_of(int format) const { return elements(facts::has_scale(format) ? 1 : 0); }

    template <class T, class Byte, class S>
    kv_rows<T> rows(int format, Byte* data, S* scales, index_t dim) const noexcept {
        index_t const row = facts::row(format, dim);
        return {{reinterpret_cast<T*>(data), capacity_ * row, row, 1, scales, capacity_, dim, format}};
    }

    kv_choice formats_;
    kv_layout layout_ = kv_layout::contiguous;
    detail::emptied_by_move<index_t> capacity_;
    detail::emptied_by_move<index_t> kv_heads_;
    detail::emptied_by_move<index_t> key_dim_;
    detail::emptied_by_move<index_t> value_dim_;
    detail::emptied_by_move<index_t> tokens_;
    detail::emptied_by_move<index_t> first_;
    buffer<std::byte> keys_;
    buffer<std::byte> values_;
    buffer<float> key_scales_;
    buffer<float> value_scales_;
};

/// A cache in any two of the standard formats.
using any_kv_cache = basic_any_kv_cache<standard_kv_formats>;

} // namespace tessera::inline TESSERA_ABI
