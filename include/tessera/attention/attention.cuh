// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention and KV caches on CUDA devices: the functions of attention/, with `cuda<Sm>` and device memory.
///
///     device_kv_cache<key<bf16>, value<bf16>> kv{capacity, kv_heads, head_dim};
///     append(exec, kv, k, v);                              // device views and owners
///     attention(exec, q, kv, out, causal | window{1024});  // the same scores and masks
///
/// fp16 or bf16 throughout with heads of 64 or 128 go through the matrix units: weights are then rounded to the element type, which
/// adds half its step times the weighted mean of |v| to the error that attention.hpp states. Everything else is float32.
///
/// A score of one's own is a functor whose members are `__host__ __device__`; memory that it reads is the device's, and so is that
/// of the library's scores and masks (`segments{kernel_view(offsets.view())}`): what it holds (offsets that ascend, parents before
/// their children) is then a precondition, because only the device could read it. A score may have
/// `for_each_array(visit)`, which calls visit(name, pointer, elements): memory of the host is refused there.

#include "../kernels/cuda/append.cuh"
#include "../kernels/cuda/attention.cuh"
#include "../storage/device_kv_cache.cuh"
#include "attention_forward.hpp"

#include <cstdint>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Appends the tokens of k and v, in the cache's formats: the bits that other policies write.
template <int Sm, class KeyFormat, class ValueFormat, class Layout>
void append(cuda<Sm> const& exec, device_kv_cache<key<KeyFormat>, value<ValueFormat>, Layout>& kv,
            array3_argument auto const& k,   // (tokens, kv_heads, key_dim)
            array3_argument auto const& v) { // (tokens, kv_heads, value_dim)
    auto const keys = detail::input<cuda<Sm>>(k);
    auto const values = detail::input<cuda<Sm>>(v);
    index_t const n = keys.extent(0);
    check::equal("append", "heads of k", keys.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of k", keys.extent(2), kv.key_dim(), "key_dim of the cache");
    check::equal("append", "tokens of v", values.extent(0), n, "tokens of k");
    check::equal("append", "heads of v", values.extent(1), kv.kv_heads(), "heads of the cache");
    check::equal("append", "head_dim of v", values.extent(2), kv.value_dim(), "value_dim of the cache");
    check::elements("append", "k", keys);
    check::elements("append", "v", values);
    if constexpr (std::is_same_v<Layout, contiguous>) check::within("append", "tokens of k", n, 0, kv.capacity() - kv.tokens());
    detail::check_device<Sm>("append");
    detail::check_device_pointer("append", "k", keys.data_handle(), keys.size());
    detail::check_device_pointer("append", "v", values.data_handle(), values.size());
    detail::check_owned_memory("append", "the cache", kv.key_rows().data, keys.size());
    detail::check_owned_memory("append", "the cache", kv.value_rows().data, values.size());
    index_t const skipped = maximum(n - kv.capacity(), 0);
    index_t const ring_size = kv.is_ring ? kv.capacity() : 0;
    auto const write = [&]<class X, class Rows>(tensor_view<X const, 3> const& x, Rows const& to) {
        index_t const blocks = ceil_div((n - skipped) * kv.kv_heads(), 4);
        if (blocks > 0)
            detail::launch("append", detail::stream_of(exec), {dim3(static_cast<unsigned>(blocks)), 128},
                           &detail::append_kernel<X, std::remove_pointer_t<decltype(to.data)>>, x, skipped, kv.end_position(), ring_size, to);
    };
    write(keys, kv.key_rows());
    write(values, kv.value_rows());
    kv.advance(n);
}

/// Requests with keys and queries of their own in one call; see attention/batch.hpp. `offsets` is memory of the host.
template <execution_policy Exec, class Caches, score_functor Score = full_t>
    requires detail::is_cuda<Exec>
void attention_batch(Exec const& exec,
                     array3_argument auto const& q,           // (tokens of all, heads, key_dim)
                     vector_view<std::int32_t const> offsets, // (requests + 1), ascending from 0
                     Caches const& caches,                    // (requests)
                     array3_argument auto&& out,              // (tokens of all, heads, value_dim)
                     Score const& score = {}) {
    char const* const name = "attention_batch";
    auto const from = detail::input<Exec>(q);
    auto const to = detail::output<Exec>(out);
    auto const n = static_cast<index_t>(caches.size());
    check::equal(name, "number of offsets", offsets.extent(0), n + 1, "number of requests plus one");
    check::equal(name, "tokens of out", to.extent(0), from.extent(0), "tokens of q");
    check::equal(name, "first offset", offsets[0], 0, "where the first request begins");
    check::equal(name, "last offset", offsets[n], from.extent(0), "tokens of q");
    detail::check_nothrow<Score>();
    index_t end_position = 0;
    for (index_t b = 0; b < n; ++b)
        end_position = maximum(end_position, detail::checked_end_position(name, detail::kv_of(caches[static_cast<std::size_t>(b)])));
    detail::check_score_extents(name, score, from.extent(1), end_position);
    if (n == 0) return;
    auto const resolved = detail::resolved_score(score, from.extent(2));
    using view_type = std::remove_const_t<decltype(detail::kv_of(caches[0]))>;
    using q_type = std::remove_const_t<typename decltype(from)::element_type>;
    using arguments_type = detail::attention_arguments<q_type, typename view_type::key_type, typename view_type::value_type,
                                                       typename decltype(to)::element_type, std::remove_const_t<decltype(resolved.rest)>>;
    std::vector<arguments_type> arguments;
    arguments.reserve(static_cast<std::size_t>(n));
    for (index_t b = 0; b < n; ++b) {
        check::within(name, "an offset", offsets[b + 1], offsets[b], from.extent(0));
        range const tokens{offsets[b], offsets[b + 1]};
        view_type const kv = detail::kv_of(caches[static_cast<std::size_t>(b)]);
        check::equal(name, "KV heads of a request", kv.kv_heads, detail::kv_of(caches[0]).kv_heads, "KV heads of the first");
        arguments.push_back({slice(from, tokens, all, all), kv, slice(to, tokens, all, all), {}, resolved.factor, resolved.rest, b});
        detail::check_attention(name, arguments.back().q, kv, arguments.back().out, {});
    }
    kernel<op::attention, Exec, arguments_type>::run(exec, arguments.data(), n);
}

} // namespace tessera::inline TESSERA_ABI
