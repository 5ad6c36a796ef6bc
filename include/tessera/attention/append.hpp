// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `append`: writes new tokens behind the last of a KV cache, in the cache's formats.

#include "../core/overlap.hpp"
#include "../kernels/cpu/append.hpp"
#include "../kernels/ref/append.hpp"
#include "../nn/arguments.hpp"
#include "../storage/kv_cache.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Tokens [first, last) of x into the slots of the cache.
template <class Exec, class Cache, class X, class Element>
void append_rows(Cache const& kv, tensor_view<X const, 3> const& x, kv_rows<Element> const& to, index_t first,
                 index_t last, float* scratch) noexcept {
    for (index_t t = first; t < last; ++t)
        for (index_t h = 0; h < x.extent(1); ++h) {
            index_t const slot = kv.slot(kv.end_position() + t);
            X const* const from = x.data_handle() + t * x.stride(0) + h * x.stride(1);
            kernel<op::append, Exec, Element>::row(from, x.stride(2), x.extent(2), scratch, to.row(h, slot),
                                                   to.scales == nullptr ? nullptr : to.scale_row(h, slot));
        }
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
    index_t const n = keys.extent(0);
    check::equal("append", "heads of k", keys.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of k", keys.extent(2), kv.key_dim(), "key_dim of the cache");
    check::equal("append", "tokens of v", values.extent(0), n, "tokens of k");
    check::equal("append", "heads of v", values.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of v", values.extent(2), kv.value_dim(), "value_dim of the cache");
    check::elements("append", "k", keys);
    check::elements("append", "v", values);
    if constexpr (std::is_same_v<Layout, contiguous>)
        check::within("append", "tokens of k", n, 0, kv.capacity() - kv.tokens());
    for (footprint const& x : {footprint_of(keys), footprint_of(values)}) {
        check::no_overlap("append", "k or v", x, "the keys of the cache",
                          footprint_of(kv.key_rows().data,
                                       kv.capacity() * kv.kv_heads() * kv.key_dim() * index_t{sizeof(*kv.key_rows().data)}));
        check::no_overlap("append", "k or v", x, "the values of the cache",
                          footprint_of(kv.value_rows().data,
                                       kv.capacity() * kv.kv_heads() * kv.value_dim() * index_t{sizeof(*kv.value_rows().data)}));
    }
    auto const to_keys = kv.key_rows();
    auto const to_values = kv.value_rows();
    // A ring keeps the last tokens only; no two of them share a slot, so they can be written in parallel.
    index_t const skipped = maximum(n - kv.capacity(), 0);
    index_t const row = maximum(kv.key_dim(), kv.value_dim());
    workspace_scope scope{exec.scratch()};
    float* const scratch = scope.carve<float>(exec.parallel().concurrency(), row);
    index_t const grain = maximum(16384 / maximum(kv.kv_heads() * row, 1), 1);
    parallel_for(exec.parallel(), n - skipped, grain, [&](index_t first, index_t last, index_t worker) noexcept {
        detail::append_rows<Exec>(kv, keys, to_keys, skipped + first, skipped + last, scratch + worker * row);
        detail::append_rows<Exec>(kv, values, to_values, skipped + first, skipped + last, scratch + worker * row);
    });
    kv.advance(n);
}

} // namespace tessera::inline TESSERA_ABI
