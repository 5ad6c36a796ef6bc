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
class basic_any_kv_cache : public kv_extent {
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
        : kv_extent{name, capacity, kv_heads, key_dim, value_dim, layout == kv_layout::ring ? capacity : 0}, formats_{checked(formats)},
          layout_{layout}, keys_{elements(name, facts::row(formats.keys, key_dim))},
          values_{elements(name, facts::row(formats.values, value_dim))}, key_scales_{elements(name, facts::has_scale(formats.keys) ? 1 : 0)},
          value_scales_{elements(name, facts::has_scale(formats.values) ? 1 : 0)} {}

    kv_choice formats() const noexcept { return formats_; }
    kv_layout layout() const noexcept { return layout_; }
    /// Bytes allocated.
    index_t bytes() const noexcept { return keys_.bytes() + values_.bytes() + key_scales_.bytes() + value_scales_.bytes(); }

    view_type view() const& noexcept {
        return view_of<view_type>(rows<key_element const>(formats_.keys, keys_.data(), key_scales_.data(), key_dim()),
                                  rows<value_element const>(formats_.values, values_.data(), value_scales_.data(), value_dim()));
    }
    void view() const&& = delete;

    // What `append` needs.

    kv_rows<key_element> key_rows() & noexcept {
        return rows<key_element>(formats_.keys, keys_.data(), key_scales_.data(), key_dim());
    }
    kv_rows<value_element> value_rows() & noexcept {
        return rows<value_element>(formats_.values, values_.data(), value_scales_.data(), value_dim());
    }

private:
    static constexpr char const* name = "any_kv_cache";

    static kv_choice checked(kv_choice c) {
        check::within(name, "format of the keys", c.keys, 0, Formats::size - 1);
        check::within(name, "format of the values", c.values, 0, Formats::size - 1);
        return c;
    }

    template <class T, class Byte, class S>
    kv_rows<T> rows(int format, Byte* data, S* scales, index_t dim) const noexcept {
        index_t const row = facts::row(format, dim);
        return {{reinterpret_cast<T*>(data), capacity() * row, row, 1, scales, capacity(), dim, format}};
    }

    kv_choice formats_;
    kv_layout layout_ = kv_layout::contiguous;
    buffer<std::byte> keys_;
    buffer<std::byte> values_;
    buffer<float> key_scales_;
    buffer<float> value_scales_;
};

/// A cache in any two of the standard formats.
using any_kv_cache = basic_any_kv_cache<standard_kv_formats>;

} // namespace tessera::inline TESSERA_ABI
