// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `kernel<op::x, cuda_reference<Sm>, ...>`: the definitions of kernels/ref, run by threads of a device. A thread takes a row of the
/// result (of attention a query and head), in the order of the definition: the numbers are those of `reference` but for what the
/// device's functions in double (at most 2 ulp) and fused multiply-adds change, so that results rounded to float32 differ by 1 ulp
/// where they differ. quantize, convert, embedding, append and plan_experts are not here: the bits of their kernels are the definition's.

#include "../../storage/device_memory.cuh"
#include "../ref/activation.hpp"
#include "../ref/attention.hpp"
#include "../ref/norm.hpp"
#include "../ref/rope.hpp"
#include "../ref/routing.hpp"
#include "../ref/softmax.hpp"
#include "attention.cuh"
#include "rows.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

inline constexpr unsigned definition_threads = 64;

template <class Definition, class... Arguments>
__global__ void define_rows_kernel(index_t rows, Arguments... arguments) {
    index_t const i = static_cast<index_t>(blockIdx.x) * definition_threads + threadIdx.x;
    if (i < rows) Definition::row(i, arguments...);
}

/// Definition::row(i, arguments...) for each of the rows.
template <class Definition, int Sm, class... Arguments>
void define_rows(char const* operation, cuda_reference<Sm> const& exec, index_t rows, Arguments const&... arguments) {
    launch(operation, stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(rows, definition_threads))), dim3(definition_threads)},
           &define_rows_kernel<Definition, Arguments...>, rows, arguments...);
}

} // namespace detail

template <int Sm, class X>
struct kernel<op::rms_norm, cuda_reference<Sm>, X> {
    template <class W, class Y>
    static void run(cuda_reference<Sm> const& exec, matrix_view<X const> x, vector_view<W const> weight, float epsilon, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("rms_norm", "x\0weight\0y", x, weight, y);
        detail::define_rows<kernel<op::rms_norm, reference, X>>("rms_norm", exec, y.extent(0), x, weight, epsilon, y);
    }
};

template <int Sm, class X>
struct kernel<op::layer_norm, cuda_reference<Sm>, X> {
    template <class W, class Y>
    static void run(cuda_reference<Sm> const& exec, matrix_view<X const> x, vector_view<W const> weight, vector_view<W const> bias,
                    float epsilon, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("layer_norm", "x\0weight\0bias\0y", x, weight, bias, y);
        detail::define_rows<kernel<op::layer_norm, reference, X>>("layer_norm", exec, y.extent(0), x, weight, bias, epsilon, y);
    }
};

template <int Sm, class X>
struct kernel<op::softmax, cuda_reference<Sm>, X> {
    template <class Y>
    static void run(cuda_reference<Sm> const& exec, matrix_view<X const> x, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("softmax", "x\0y", x, y);
        detail::define_rows<kernel<op::softmax, reference, X>>("softmax", exec, y.extent(0), x, y);
    }
};

template <int Sm, class X>
struct kernel<op::activate, cuda_reference<Sm>, X> {
    template <class F, class Y>
    static void run(cuda_reference<Sm> const& exec, F function, matrix_view<X const> x, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>(F::name, "x\0y", x, y);
        detail::define_rows<kernel<op::activate, reference, X>>(F::name, exec, y.extent(0), function, x, y);
    }
};

template <int Sm, class X>
struct kernel<op::gate, cuda_reference<Sm>, X> {
    template <class F, class Y>
    static void run(cuda_reference<Sm> const& exec, F function, matrix_view<X const> gate, matrix_view<X const> up, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("gated", "gate\0up\0y", gate, up, y);
        detail::define_rows<kernel<op::gate, reference, X>>("gated", exec, y.extent(0), function, gate, up, y);
    }
};

template <int Sm, class X>
struct kernel<op::add, cuda_reference<Sm>, X> {
    template <class Y>
    static void run(cuda_reference<Sm> const& exec, matrix_view<X const> a, matrix_view<X const> b, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("add", "a\0b\0y", a, b, y);
        detail::define_rows<kernel<op::add, reference, X>>("add", exec, y.extent(0), a, b, y);
    }
};

template <int Sm, class X>
struct kernel<op::rope, cuda_reference<Sm>, X> {
    template <class Style, class Y>
    static void run(cuda_reference<Sm> const& exec, Style style, tensor_view<X const, 3> x, detail::rotations r, tensor_view<Y, 3> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("rope", "x\0y", x, y);
        detail::define_rows<kernel<op::rope, reference, X>>("rope", exec, x.extent(0), style, x, r, y);
    }
};

namespace detail {

/// Row t with scratch of its own.
template <class Gate>
struct route_definition {
    using definition = kernel<op::route, reference, Gate>;
    __device__ static void row(index_t t, Gate const& gate, matrix_view<float const> logits, matrix_view<std::int32_t> index,
                               matrix_view<float> weight, typename definition::scratch const& s) {
        definition::row(t, gate, logits, index, weight, s.of(t));
    }
};

/// Query i of head h, with scratch of its own: thread t takes rows t, t + threads, ... of (queries, heads).
template <class A>
__global__ void define_attention_kernel(__grid_constant__ A const a, double* scratch, index_t threads) {
    index_t const t = static_cast<index_t>(blockIdx.x) * definition_threads + threadIdx.x;
    if (t >= threads) return;
    double* const scores = scratch + t * (a.kv.tokens + a.kv.value_dim);
    index_t const heads = a.q.extent(1);
    for (index_t row = t; row < a.q.extent(0) * heads; row += threads)
        kernel<op::attention, reference, A>::row(a, row / heads, row % heads, {scores, scores + a.kv.tokens});
}

} // namespace detail

template <int Sm, class Gate>
struct kernel<op::route, cuda_reference<Sm>, Gate> {
    using scratch = detail::route_scratch<double>;

    template <class Arena>
    static scratch plan(Gate const&, index_t tokens, index_t experts, Arena& arena) {
        return scratch::plan(tokens, experts, arena);
    }
    static void run(cuda_reference<Sm> const& exec, Gate const& gate, matrix_view<float const> logits, matrix_view<std::int32_t> index,
                    matrix_view<float> weight, scratch const& s) {
        if (!weight.empty())
            detail::define_rows<detail::route_definition<Gate>>("route", exec, logits.extent(0), gate, logits, index, weight, s);
    }
};

template <int Sm, class Y>
struct kernel<op::combine, cuda_reference<Sm>, Y> {
    static void run(cuda_reference<Sm> const& exec, detail::combine_arguments const& a, matrix_view<Y> y) {
        if (!y.empty()) detail::define_rows<kernel<op::combine, reference, Y>>("combine", exec, y.extent(0), a, y);
    }
};

template <int Sm, class A>
struct kernel<op::attention, cuda_reference<Sm>, A> {
    struct plan_type {
        double* scratch;
        index_t threads;
    };
    template <class Arena>
    static plan_type plan(cuda_reference<Sm> const&, attention_shape const* s, index_t n, Arena& arena) {
        index_t numbers = 0;
        for (index_t b = 0; b < n; ++b) numbers = maximum(numbers, threads_of(s[b]) * (s[b].keys + s[b].value_dim));
        return {arena.template carve<double>(numbers), n == 0 ? 0 : threads_of(s[0])};
    }
    static void run(cuda_reference<Sm> const& exec, A const* a, index_t n) {
        for (index_t b = 0; b < n; ++b) run_one(exec, a[b]);
    }
    static void run_one(cuda_reference<Sm> const& exec, A const& a) {
        if (a.q.extent(0) * a.q.extent(1) == 0) return;
        detail::check_device<Sm>("attention");
        detail::check_attention_there(a);
        attention_shape const shape = a.shape();
        workspace_sizer sizer;
        static_cast<void>(plan(exec, &shape, 1, sizer));
        detail::device_arena arena{detail::grown("attention", exec, sizer.bytes())};
        plan_type const p = plan(exec, &shape, 1, arena);
        detail::launch("attention", detail::stream_of(exec),
                       {dim3(static_cast<unsigned>(ceil_div(p.threads, detail::definition_threads))), dim3(detail::definition_threads)},
                       &detail::define_attention_kernel<A>, a, p.scratch, p.threads);
    }

private:
    /// Each has scratch for all its scores: at most 256 MiB of it where 64 rows need no more.
    static index_t threads_of(attention_shape const& s) noexcept {
        return minimum(s.queries * s.heads, maximum((index_t{1} << 25) / maximum(s.keys + s.value_dim, 1), 64));
    }
};

} // namespace tessera::inline TESSERA_ABI
