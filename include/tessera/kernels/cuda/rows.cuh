// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Operations on the rows of a matrix on CUDA devices: norms, softmax, activations, sums. A block of threads takes a row, in
/// float32; sums over it have a fixed order. Rows whose addresses and lengths allow it move 8 elements at a time.

#include "../../core/cuda_call.cuh"
#include "../activation.hpp"
#include "../kernel.hpp"
#include "prepare.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// V adjacent elements of memory, as wide as the device moves at once.
template <class T, int V>
struct alignas(V == 1 ? sizeof(T) : 16) row_pack {
    T v[V];
};
template <int V, class T>
__device__ __forceinline__ void load_pack(T const* from, float (&to)[V]) {
    auto const p = *reinterpret_cast<row_pack<T, V> const*>(from);
#pragma unroll
    for (int i = 0; i < V; ++i) to[i] = static_cast<float>(p.v[i]);
}
template <int V, class T>
__device__ __forceinline__ void store_pack(T* to, float const (&from)[V]) {
    row_pack<T, V> p;
#pragma unroll
    for (int i = 0; i < V; ++i) p.v[i] = static_cast<T>(from[i]);
    *reinterpret_cast<row_pack<T, V>*>(to) = p;
}

template <class T>
bool moves_packs(matrix_view<T> const& v) noexcept {
    return reinterpret_cast<std::uintptr_t>(v.data_handle()) % 16 == 0 && v.extent(1) % 8 == 0 &&
           (v.extent(0) <= 1 || v.stride(0) * static_cast<index_t>(sizeof(T)) % 16 == 0);
}
template <class T>
bool moves_packs(vector_view<T> const& v) noexcept {
    return reinterpret_cast<std::uintptr_t>(v.data_handle()) % 16 == 0;
}

struct row_sum {
    __device__ float operator()(float a, float b) const { return a + b; }
};
struct row_maximum {
    __device__ float operator()(float a, float b) const { return a >= b || a != a ? a : b; } // NaN stays
};

template <int V, bool IsCentred, class X, class W, class Y>
__global__ void norm_kernel(__grid_constant__ matrix_view<X const> const x, W const* weight, W const* bias, float epsilon,
                            __grid_constant__ matrix_view<Y> const y) {
    index_t const n = x.extent(1);
    X const* const row = x.data_handle() + blockIdx.x * x.stride(0);
    Y* const out = y.data_handle() + blockIdx.x * y.stride(0);
    float mean = 0.0f;
    if constexpr (IsCentred) {
        float sum = 0.0f;
        for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
            float v[V];
            load_pack<V>(row + k, v);
            for (int i = 0; i < V; ++i) sum += v[i];
        }
        mean = block_reduce(sum, 0.0f, row_sum{}) / static_cast<float>(n);
    }
    float squares = 0.0f;
    for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
        float v[V];
        load_pack<V>(row + k, v);
#pragma unroll
        for (int i = 0; i < V; ++i) squares = fmaf(v[i] - mean, v[i] - mean, squares);
    }
    squares = block_reduce(squares, 0.0f, row_sum{});
    float const r = __frsqrt_rn(squares / static_cast<float>(n) + epsilon);
    for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
        float v[V];
        float w[V];
        load_pack<V>(row + k, v);
        load_pack<V>(weight + k, w);
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = w[i] * (r * (v[i] - mean));
        if constexpr (IsCentred) {
            load_pack<V>(bias + k, w);
#pragma unroll
            for (int i = 0; i < V; ++i) v[i] += w[i];
        }
        store_pack<V>(out + k, v);
    }
}

template <int V, class X, class Y>
__global__ void softmax_kernel(__grid_constant__ matrix_view<X const> const x, __grid_constant__ matrix_view<Y> const y) {
    index_t const n = x.extent(1);
    X const* const row = x.data_handle() + blockIdx.x * x.stride(0);
    Y* const out = y.data_handle() + blockIdx.x * y.stride(0);
    float largest = -INFINITY;
    for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
        float v[V];
        load_pack<V>(row + k, v);
#pragma unroll
        for (int i = 0; i < V; ++i) largest = row_maximum{}(v[i], largest);
    }
    largest = block_reduce(largest, -INFINITY, row_maximum{});
    float const shift = largest == -INFINITY ? 0.0f : largest;
    float sum = 0.0f;
    for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
        float v[V];
        load_pack<V>(row + k, v);
#pragma unroll
        for (int i = 0; i < V; ++i) sum += expf(v[i] - shift);
    }
    sum = block_reduce(sum, 0.0f, row_sum{});
    for (index_t k = threadIdx.x * V; k < n; k += blockDim.x * V) {
        float v[V];
        load_pack<V>(row + k, v);
#pragma unroll
        for (int i = 0; i < V; ++i) v[i] = sum == 0.0f ? 0.0f : expf(v[i] - shift) / sum;
        store_pack<V>(out + k, v);
    }
}

/// The functions of kernels/activation.hpp in float32.
template <class F>
struct device_activation {
    static_assert(always_false<F>, "tessera: activate: this function has no kernel for CUDA devices");
};
template <>
struct device_activation<activation::silu> {
    __device__ float operator()(float x) const { return x / (1.0f + expf(-x)); }
};
template <>
struct device_activation<activation::gelu_erf> {
    __device__ float operator()(float x) const { return x * 0.5f * erfcf(x * -0.70710678118654752440f); }
};
template <>
struct device_activation<activation::gelu_tanh> {
    __device__ float operator()(float x) const {
        float const u = 0.79788456080286535588f * (x + 0.044715f * x * x * x);
        return x / (1.0f + expf(-2.0f * u));
    }
};

/// What an elementwise kernel makes of two elements (of one: the second is the first).
template <class F>
struct activate_both {
    __device__ float operator()(float a, float) const { return device_activation<F>{}(a); }
};
template <class F>
struct gate_both {
    __device__ float operator()(float a, float b) const { return device_activation<F>{}(a) * b; }
};

template <int V, class F, class X, class Y>
__global__ void elementwise_kernel(__grid_constant__ matrix_view<X const> const a, __grid_constant__ matrix_view<X const> const b,
                                   __grid_constant__ matrix_view<Y> const y) {
    X const* const first = a.data_handle() + blockIdx.x * a.stride(0);
    X const* const second = b.data_handle() + blockIdx.x * b.stride(0);
    Y* const out = y.data_handle() + blockIdx.x * y.stride(0);
    for (index_t k = (static_cast<index_t>(blockIdx.y) * blockDim.x + threadIdx.x) * V; k < a.extent(1);
         k += static_cast<index_t>(gridDim.y) * blockDim.x * V) {
        float u[V];
        float v[V];
        load_pack<V>(first + k, u);
        load_pack<V>(second + k, v);
#pragma unroll
        for (int i = 0; i < V; ++i) u[i] = F{}(u[i], v[i]);
        store_pack<V>(out + k, u);
    }
}

/// The arrays' memory is the device's.
template <int Sm, class... View>
void check_rows_there(char const* operation, char const* names, View const&... views) {
    check_device<Sm>(operation);
    char const* name = names; // separated by zeros
    auto const one = [&](auto const& v) {
        check_device_pointer(operation, name, v.data_handle(), v.size());
        while (*name != 0) ++name;
        ++name;
    };
    (one(views), ...);
}

/// Threads that share a row of n elements, V at a time.
inline dim3 row_threads(index_t n, int v) noexcept {
    return dim3(static_cast<unsigned>(minimum(512, maximum(32, round_up(ceil_div(n, index_t{v} * 2), 32)))));
}

template <class F, int Sm, class X, class Y>
void run_elementwise(char const* operation, char const* names, cuda<Sm> const& exec, matrix_view<X const> const& a,
                     matrix_view<X const> const& b, matrix_view<Y> const& y) {
    if (y.empty()) return;
    check_rows_there<Sm>(operation, names, a, b, y);
    bool const is_wide = moves_packs(a) && moves_packs(b) && moves_packs(y);
    index_t const per_block = is_wide ? 2048 : 256;
    dim3 const grid(static_cast<unsigned>(y.extent(0)), static_cast<unsigned>(minimum(ceil_div(y.extent(1), per_block), 64)));
    launch(operation, stream_of(exec), {grid}, is_wide ? &elementwise_kernel<8, F, X, Y> : &elementwise_kernel<1, F, X, Y>, a, b, y);
}

} // namespace detail

template <int Sm, class X>
struct kernel<op::rms_norm, cuda<Sm>, X> {
    template <class W, class Y>
    static void run(cuda<Sm> const& exec, matrix_view<X const> x, vector_view<W const> weight, float epsilon, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("rms_norm", "x\0weight\0y", x, weight, y);
        bool const is_wide = detail::moves_packs(x) && detail::moves_packs(weight) && detail::moves_packs(y);
        W const* const no_bias = nullptr;
        detail::launch("rms_norm", detail::stream_of(exec),
                       {dim3(static_cast<unsigned>(x.extent(0))), detail::row_threads(x.extent(1), is_wide ? 8 : 1)},
                       is_wide ? &detail::norm_kernel<8, false, X, W, Y> : &detail::norm_kernel<1, false, X, W, Y>, x,
                       weight.data_handle(), no_bias, epsilon, y);
    }
};

template <int Sm, class X>
struct kernel<op::layer_norm, cuda<Sm>, X> {
    template <class W, class Y>
    static void run(cuda<Sm> const& exec, matrix_view<X const> x, vector_view<W const> weight, vector_view<W const> bias, float epsilon,
                    matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("layer_norm", "x\0weight\0bias\0y", x, weight, bias, y);
        bool const is_wide = detail::moves_packs(x) && detail::moves_packs(weight) && detail::moves_packs(bias) && detail::moves_packs(y);
        detail::launch("layer_norm", detail::stream_of(exec),
                       {dim3(static_cast<unsigned>(x.extent(0))), detail::row_threads(x.extent(1), is_wide ? 8 : 1)},
                       is_wide ? &detail::norm_kernel<8, true, X, W, Y> : &detail::norm_kernel<1, true, X, W, Y>, x,
                       weight.data_handle(), bias.data_handle(), epsilon, y);
    }
};

template <int Sm, class X>
struct kernel<op::softmax, cuda<Sm>, X> {
    template <class Y>
    static void run(cuda<Sm> const& exec, matrix_view<X const> x, matrix_view<Y> y) {
        if (y.empty()) return;
        detail::check_rows_there<Sm>("softmax", "x\0y", x, y);
        bool const is_wide = detail::moves_packs(x) && detail::moves_packs(y);
        detail::launch("softmax", detail::stream_of(exec),
                       {dim3(static_cast<unsigned>(x.extent(0))), detail::row_threads(x.extent(1), is_wide ? 8 : 1)},
                       is_wide ? &detail::softmax_kernel<8, X, Y> : &detail::softmax_kernel<1, X, Y>, x, y);
    }
};

template <int Sm, class X>
struct kernel<op::activate, cuda<Sm>, X> {
    template <class F, class Y>
    static void run(cuda<Sm> const& exec, F, matrix_view<X const> x, matrix_view<Y> y) {
        detail::run_elementwise<detail::activate_both<F>>(F::name, "x\0x\0y", exec, x, x, y);
    }
};

template <int Sm, class X>
struct kernel<op::gate, cuda<Sm>, X> {
    template <class F, class Y>
    static void run(cuda<Sm> const& exec, F, matrix_view<X const> gate, matrix_view<X const> up, matrix_view<Y> y) {
        detail::run_elementwise<detail::gate_both<F>>("gated", "gate\0up\0y", exec, gate, up, y);
    }
};

template <int Sm, class X>
struct kernel<op::add, cuda<Sm>, X> {
    template <class Y>
    static void run(cuda<Sm> const& exec, matrix_view<X const> a, matrix_view<X const> b, matrix_view<Y> y) {
        detail::run_elementwise<detail::row_sum>("add", "a\0b\0y", exec, a, b, y);
    }
};

} // namespace tessera::inline TESSERA_ABI
