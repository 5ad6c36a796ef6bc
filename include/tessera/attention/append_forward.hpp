// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `append`, for the kernels of every backend; `append.hpp` has those of processors.

#include "../core/overlap.hpp"
#include "../kernels/ref/append.hpp"
#include "../nn/arguments.hpp"
#include "../storage/any_kv_cache.hpp"
#include "../storage/kv_cache.hpp"
#include "../storage/kv_pages.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// `append` for one format of a list.
template <class Exec, class X, class Element>
void append_stage(X const* x, index_t stride, index_t n, float* scratch, void* to, float* scale) noexcept {
    kernel<op::append, Exec, Element>::row(x, stride, n, scratch, static_cast<Element*>(to), scale);
}
template <class Exec, class X, class... Format>
constexpr auto append_stage_of(kv_formats<Format...>, int format) noexcept {
    constexpr void (*each[])(X const*, index_t, index_t, float*, void*, float*) noexcept = {
        &append_stage<Exec, X, kv_element_of<Format>>...};
    return each[format];
}

/// A row of n numbers into a slot of a cache; `scratch` has room for n floats.
template <class Exec, class X, class Element>
void append_row(X const* x, index_t stride, index_t n, float* scratch, kv_rows<Element> const& to, index_t head,
                index_t slot) noexcept {
    float* const scale = to.scales == nullptr ? nullptr : to.scale_row(head, slot);
    if constexpr (is_any_kv_code<Element>)
        append_stage_of<Exec, X>(typename Element::formats{}, to.format)(x, stride, n, scratch, to.row(head, slot), scale);
    else
        kernel<op::append, Exec, Element>::row(x, stride, n, scratch, to.row(head, slot), scale);
}

/// Tokens [first, last) of x into the slots of the cache.
template <class Exec, class Cache, class X, class Element>
void append_rows(Cache const& kv, tensor_view<X const, 3> const& x, kv_rows<Element> const& to, index_t first,
                 index_t last, float* scratch) noexcept {
    for (index_t t = first; t < last; ++t)
        for (index_t h = 0; h < x.extent(1); ++h) {
            index_t const slot = kv.slot(kv.end_position() + t);
            X const* const from = x.data_handle() + t * x.stride(0) + h * x.stride(1);
            append_row<Exec>(from, x.stride(2), x.extent(2), scratch, to, h, slot);
        }
}

template <class T>
footprint footprint_of_rows(kv_rows<T> const& rows, index_t kv_heads) noexcept {
    return footprint_of(rows.data, kv_heads * rows.head_stride * index_t{sizeof(T)});
}

template <class Cache, class K, class V>
void check_append(Cache& kv, tensor_view<K const, 3> const& keys, tensor_view<V const, 3> const& values) {
    check::equal("append", "heads of k", keys.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of k", keys.extent(2), kv.key_dim(), "key_dim of the cache");
    check::equal("append", "tokens of v", values.extent(0), keys.extent(0), "tokens of k");
    check::equal("append", "heads of v", values.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of v", values.extent(2), kv.value_dim(), "value_dim of the cache");
    check::elements("append", "k", keys);
    check::elements("append", "v", values);
    for (footprint const& x : {footprint_of(keys), footprint_of(values)}) {
        check::no_overlap("append", "k or v", x, "the keys of the cache", footprint_of_rows(kv.key_rows(), kv.kv_heads()));
        check::no_overlap("append", "k or v", x, "the values of the cache", footprint_of_rows(kv.value_rows(), kv.kv_heads()));
    }
}

/// The tokens from number `skipped` on; no two of them share a slot, so they can be written in parallel.
template <class Exec, class Cache, class K, class V>
void write_tokens(Exec const& exec, Cache& kv, tensor_view<K const, 3> const& keys, tensor_view<V const, 3> const& values,
                  index_t skipped) {
    auto const to_keys = kv.key_rows();
    auto const to_values = kv.value_rows();
    index_t const row = maximum(kv.key_dim(), kv.value_dim());
    workspace_scope scope{exec.scratch()};
    float* const scratch = scope.template carve<float>(exec.parallel().concurrency(), row);
    index_t const grain = maximum(16384 / maximum(kv.kv_heads() * row, 1), 1);
    parallel_for(exec.parallel(), keys.extent(0) - skipped, grain, [&](index_t first, index_t last, index_t worker) noexcept {
        append_rows<Exec>(kv, keys, to_keys, skipped + first, skipped + last, scratch + worker * row);
        append_rows<Exec>(kv, values, to_values, skipped + first, skipped + last, scratch + worker * row);
    });
}

} // namespace detail

/// Appends the tokens of k and v, quantising on write. A contiguous cache must have room for all of them; a ring keeps
/// the last `capacity` tokens. Equal bits on every execution policy.
template <execution_policy Exec, class KeyFormat, class ValueFormat, class Layout>
void append(Exec const& exec, kv_cache<key<KeyFormat>, value<ValueFormat>, Layout>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    detail::require_backend<Exec>();
    auto const keys = detail::input(k);
    auto const values = detail::input(v);
    detail::check_append(kv, keys, values);
    index_t const n = keys.extent(0);
    if constexpr (std::is_same_v<Layout, contiguous>)
        check::within("append", "tokens of k", n, 0, kv.capacity() - kv.tokens());
    detail::write_tokens(exec, kv, keys, values, maximum(n - kv.capacity(), 0));
    kv.advance(n);
}

/// The same in formats chosen at run time.
template <execution_policy Exec, class Formats>
void append(Exec const& exec, basic_any_kv_cache<Formats>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    detail::require_backend<Exec>();
    auto const keys = detail::input(k);
    auto const values = detail::input(v);
    detail::check_append(kv, keys, values);
    index_t const n = keys.extent(0);
    if (kv.layout() == kv_layout::contiguous) check::within("append", "tokens of k", n, 0, kv.capacity() - kv.tokens());
    detail::write_tokens(exec, kv, keys, values, maximum(n - kv.capacity(), 0));
    kv.advance(n);
}

/// The same behind a sequence in pages: takes pages of the pool, and copies a shared one that it writes into.
template <execution_policy Exec, class Pool>
void append(Exec const& exec, paged_sequence<Pool>& sequence,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    detail::require_backend<Exec>();
    auto const keys = detail::input(k);
    auto const values = detail::input(v);
    detail::check_append(sequence, keys, values);
    sequence.reserve(keys.extent(0));
    detail::write_tokens(exec, sequence, keys, values, 0);
    sequence.advance(keys.extent(0));
}

} // namespace tessera::inline TESSERA_ABI
