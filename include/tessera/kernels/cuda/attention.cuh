// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<op::attention, cuda<Sm>, Arguments>`: which kernels a call of attention takes.
///
/// | elements | queries | kernel |
/// |---|---|---|
/// | fp16 or bf16 throughout, heads of 64 or 128, aligned rows | at most 16 rows a KV head, or not Hopper | attention_decode.cuh |
/// | the same, on Hopper | more | attention_prefill.cuh |
/// | any | any | attention_rows.cuh, float32 |
///
/// Requests of few queries cut their keys into at most 16 parts, as many keys each as the number of keys says: results do not depend
/// on what else is in a batch.

#include "../../storage/device_memory.cuh"
#include "attention_decode.cuh"
#include "attention_prefill.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Keys of a part, for n keys.
constexpr index_t attention_part_keys(index_t n) noexcept { return maximum(128, round_up(ceil_div(n, 16), 64)); }

template <class A>
inline constexpr bool is_half_attention = false;
template <class T, class O, class Score>
inline constexpr bool is_half_attention<attention_arguments<T, T, T, O, Score>> = std::is_same_v<T, fp16> || std::is_same_v<T, bf16>;

/// Rows of 16 bytes that begin at multiples of 16 bytes, elements side by side.
inline bool has_aligned_rows(void const* p, index_t stride0, index_t stride1, index_t unit) noexcept {
    return reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && stride0 % 8 == 0 && stride1 % 8 == 0 && unit == 1;
}
template <class A>
bool suits_matrix_units(A const& a) noexcept {
    if constexpr (is_half_attention<A>)
        return (a.kv.key_dim == 64 || a.kv.key_dim == 128) && a.kv.value_dim == a.kv.key_dim &&
               has_aligned_rows(a.q.data_handle(), a.q.stride(0), a.q.stride(1), a.q.stride(2)) &&
               has_aligned_rows(a.kv.keys.data, a.kv.keys.head_stride, a.kv.keys.slot_stride, a.kv.keys.dim_stride) &&
               has_aligned_rows(a.kv.values.data, a.kv.values.head_stride, a.kv.values.slot_stride, a.kv.values.dim_stride);
    else
        return false;
}

template <class A>
void check_attention_there(A const& a) {
    check_device_pointer("attention", "q", a.q.data_handle(), a.q.size());
    index_t const tokens = a.kv.tokens * a.kv.kv_heads;
    check_device_pointer("attention", "keys", a.kv.keys.data, tokens * a.kv.key_dim);
    check_device_pointer("attention", "values", a.kv.values.data, tokens * a.kv.value_dim);
    if (a.kv.keys.scales != nullptr) check_device_pointer("attention", "scales of the keys", a.kv.keys.scales, tokens);
    if (a.kv.values.scales != nullptr) check_device_pointer("attention", "scales of the values", a.kv.values.scales, tokens);
    if (a.kv.pages != nullptr) check_device_pointer("attention", "pages", a.kv.pages, tokens);
    check_device_pointer("attention", "out", a.out.data_handle(), a.out.size());
    if (a.log_sum_exp.data_handle() != nullptr)
        check_device_pointer("attention", "log_sum_exp", a.log_sum_exp.data_handle(), a.log_sum_exp.size());
    for_each_score_array(a.score, [](char const* name, auto const* memory, index_t n) { check_device_pointer("attention", name, memory, n); });
}

} // namespace detail

template <int Sm, class A>
struct kernel<op::attention, cuda<Sm>, A> {
    /// Partial states of requests with few queries.
    template <class Arena>
    static detail::attention_parts plan(cuda<Sm> const&, attention_shape const* s, index_t n, Arena& arena) {
        detail::attention_parts parts;
        index_t keys = 0;
        for (index_t b = 0; b < n; ++b) {
            if (!has_parts(s[b])) continue;
            parts.rows += s[b].queries * s[b].heads;
            keys = maximum(keys, s[b].keys);
            parts.columns = s[b].value_dim;
        }
        parts.group = static_cast<unsigned>(n == 0 ? 1 : maximum(s[0].group(), 1));
        parts.part_keys = detail::attention_part_keys(keys);
        parts.count = keys == 0 ? 1 : ceil_div(keys, parts.part_keys);
        if (parts.count > 1) parts.states = arena.template carve<float>(parts.count * parts.rows, parts.columns + 2);
        return parts;
    }

    static void run_one(cuda<Sm> const& exec, A const& a) {
        detail::check_device<Sm>("attention");
        detail::check_attention_there(a);
        run_some<1>(exec, &a, 1);
    }

    /// n requests of equal head counts and dimensions.
    static void run(cuda<Sm> const& exec, A const* a, index_t n) {
        detail::check_device<Sm>("attention");
        for (index_t b = 0; b < n; ++b) detail::check_attention_there(a[b]);
        for (index_t b = 0; b < n;) {
            index_t last = b + 1;
            if (fits(a[b]))
                while (last < n && last - b < batch && fits(a[last]) && part_keys(a[last]) == part_keys(a[b])) ++last;
            if (last - b == 1)
                run_some<1>(exec, a + b, 1);
            else
                run_some<batch>(exec, a + b, last - b);
            b = last;
        }
    }

private:
    static constexpr int batch = sizeof(A) <= 480 ? 64 : 32; ///< requests of a launch, whose arguments are 32764 bytes at most
    static_assert(sizeof(detail::attention_requests<A, batch>) < 32000, "tessera: attention: the score functor is too large");

    static bool has_parts(attention_shape const& s) noexcept { return s.queries * maximum(s.group(), 1) <= 16; }
    static bool fits(A const& a) noexcept { return detail::suits_matrix_units(a) && has_parts(a.shape()); }
    static index_t part_keys(A const& a) noexcept { return detail::attention_part_keys(a.kv.tokens); }

    /// n <= N requests; several of them suit the matrix units and have few queries.
    template <int N>
    static void run_some(cuda<Sm> const& exec, A const* a, index_t n) {
        index_t most_rows = 0;
        attention_shape shapes[N];
        for (index_t b = 0; b < n; ++b) {
            shapes[b] = a[b].shape();
            most_rows = maximum(most_rows, shapes[b].queries * shapes[b].heads);
        }
        if (most_rows == 0) return;
        if constexpr (Sm == 90 && N == 1 && detail::is_half_attention<A>)
            if (!has_parts(shapes[0]) && detail::suits_matrix_units(*a)) return a->kv.key_dim == 64 ? prefill<64>(exec, *a) : prefill<128>(exec, *a);
        workspace_sizer sizer;
        static_cast<void>(plan(exec, shapes, n, sizer));
        detail::device_arena arena{detail::grown("attention", exec, sizer.bytes())};
        detail::attention_parts parts = plan(exec, shapes, n, arena);
        if (detail::suits_matrix_units(*a) && parts.states != nullptr && parts.count * a->kv.kv_heads * n <= static_cast<index_t>(detail::decode_blocks<Sm>))
            parts.counters = arena.counters();
        launch_parts<N>(exec, a, n, parts, most_rows);
    }

    template <int N>
    static void launch_parts(cuda<Sm> const& exec, A const* a, index_t n, detail::attention_parts const& parts, index_t most_rows) {
        detail::attention_requests<A, N> requests{};
        index_t row = 0;
        for (index_t b = 0; b < N; ++b) {
            requests.set(static_cast<int>(b), a[minimum(b, n - 1)], row);
            row += a[minimum(b, n - 1)].q.extent(0) * a[minimum(b, n - 1)].q.extent(1);
        }
        if (!detail::suits_matrix_units(*a)) {
            if constexpr (N == 1) {
                dim3 const grid(static_cast<unsigned>(ceil_div(most_rows, 4)), static_cast<unsigned>(parts.count));
                detail::launch("attention", detail::stream_of(exec), {grid, 128}, &detail::attention_rows_kernel<A>, *a, parts);
            }
        } else if constexpr (detail::is_half_attention<A>) {
            index_t tiles = 0;
            for (index_t b = 0; b < n; ++b) tiles = maximum(tiles, ceil_div(a[b].q.extent(0) * a[b].shape().group(), 16));
            if (a->kv.key_dim == 64)
                launch_decode<64>(exec, requests, parts, tiles * a->kv.kv_heads, n);
            else
                launch_decode<128>(exec, requests, parts, tiles * a->kv.kv_heads, n);
            if (parts.states != nullptr && parts.counters == nullptr) {
                dim3 const grid(static_cast<unsigned>(ceil_div(most_rows, 4)), static_cast<unsigned>(n));
                detail::launch("attention", detail::stream_of(exec), {grid, 128}, &detail::attention_parts_kernel<A, N>, requests, parts);
            }
            return;
        }
        if (parts.states != nullptr) {
            dim3 const grid(static_cast<unsigned>(most_rows), static_cast<unsigned>(n));
            detail::launch("attention", detail::stream_of(exec), {grid, 128}, &detail::attention_merge_kernel<A, N>, requests, parts);
        }
    }

    template <int D, int N>
    static void launch_decode(cuda<Sm> const& exec, detail::attention_requests<A, N> const& requests, detail::attention_parts const& parts,
                              index_t tiles, index_t n) {
        constexpr int stages = detail::decode_stages<D>;
        detail::decode_line const line{static_cast<unsigned>(tiles), static_cast<unsigned>(parts.count * tiles * n)};
        if (line.items == 0) return;
        detail::launch("attention", detail::stream_of(exec),
                       {dim3(minimum(line.items, detail::decode_blocks<Sm>)), dim3(128), sizeof(detail::decode_memory<D, stages>)},
                       &detail::attention_decode_kernel<D, stages, A, N>, requests, parts, line);
    }

    template <int D>
    static void prefill(cuda<Sm> const& exec, A const& a) {
        dim3 const grid(static_cast<unsigned>(ceil_div(a.q.extent(0), 128)), static_cast<unsigned>(a.q.extent(1)));
        using element = typename decltype(a.kv)::key_type;
        detail::launch("attention", detail::stream_of(exec), {grid, 256, detail::prefill_layout<D>::shared_bytes},
                       &detail::attention_prefill_kernel<D, element, A>, a);
    }
};

} // namespace tessera::inline TESSERA_ABI
