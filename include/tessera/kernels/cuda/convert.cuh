// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Conversion between element types on CUDA devices: the bits of kernels/ref/convert.hpp. Numbers that fp16, bf16 and the fp8 types of
/// the device's instructions have room for are rounded by these, everything else (NaN, overflow, other formats) by the definition.

#include "../../core/cuda_call.cuh"
#include "../ref/convert.hpp"

#include <cuda_fp16.h>

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Elements a thread converts, adjacent where rows allow.
template <class X, class Y>
inline constexpr int converted_together = sizeof(X) == 4 || sizeof(Y) == 4 ? 4 : 8;

template <int Sm, class X>
__device__ __forceinline__ float device_to_float(X x) {
    if constexpr (std::is_same_v<X, fp16>) {
        std::uint16_t const bits = x.to_bits();
        if ((bits & 0x7c00u) != 0x7c00u) return __half2float(__ushort_as_half(bits)); // the definition keeps the bits of NaN
    }
    if constexpr (Sm >= 90 && std::is_same_v<X, e4m3fn>) {
        std::uint8_t const code = x.to_bits();
        if ((code & 0x7fu) != 0x7fu) {
            std::uint32_t pair;
            asm("cvt.rn.f16x2.e4m3x2 %0, %1;" : "=r"(pair) : "h"(static_cast<std::uint16_t>(code)));
            return __half2float(__ushort_as_half(static_cast<std::uint16_t>(pair)));
        }
    }
    if constexpr (std::is_same_v<X, e5m2>) {
        std::uint8_t const code = x.to_bits(); // the upper half of fp16
        if ((code & 0x7cu) != 0x7cu) return __half2float(__ushort_as_half(static_cast<std::uint16_t>(code << 8)));
    }
    return to_float(x);
}

template <int Sm, overflow Beyond, class Y>
__device__ __forceinline__ Y device_from_float(float v) {
    using format = format_of_t<Y>;
    if constexpr (std::is_same_v<Y, fp16>) {
        if (fabsf(v) <= 65504.0f) return fp16::from_bits(__half_as_ushort(__float2half_rn(v)));
    } else if constexpr (std::is_same_v<Y, bf16>) {
        if (fabsf(v) <= 3.3e38f) {
            std::uint32_t const bits = __float_as_uint(v);
            return bf16::from_bits(static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16));
        }
    } else if constexpr (Sm >= 90 && (std::is_same_v<Y, e4m3fn> || std::is_same_v<Y, e5m2>)) {
        if (fabsf(v) <= format::max_magnitude) {
            std::uint16_t code;
            if constexpr (std::is_same_v<Y, e4m3fn>)
                asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(code) : "f"(0.0f), "f"(v));
            else
                asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(code) : "f"(0.0f), "f"(v));
            return Y::from_bits(static_cast<std::uint8_t>(code));
        }
    }
    return element_of<Y>(format::encode(v, rounding::nearest_even, Beyond));
}

/// V elements that lie side by side, as wide as the device moves at once.
template <class T, int V>
struct alignas(sizeof(T) * V < 16 ? sizeof(T) * V : 16) converted_pack {
    T v[V];
};

template <int Sm, overflow Beyond, bool IsWide, class X, class Y>
__global__ void __launch_bounds__(256) convert_kernel(__grid_constant__ matrix_view<X const> const x, __grid_constant__ matrix_view<Y> const y) {
    constexpr int V = converted_together<X, Y>;
    index_t const first = (static_cast<index_t>(blockIdx.y) * 256 + threadIdx.x) * V;
    index_t const step = static_cast<index_t>(gridDim.y) * 256 * V;
    for (index_t k = first; k < x.extent(1); k += step) {
        if constexpr (IsWide) {
            auto const from = *reinterpret_cast<converted_pack<X, V> const*>(x.data_handle() + blockIdx.x * x.stride(0) + k);
            converted_pack<Y, V> to;
#pragma unroll
            for (int i = 0; i < V; ++i) to.v[i] = device_from_float<Sm, Beyond, Y>(device_to_float<Sm>(from.v[i]));
            *reinterpret_cast<converted_pack<Y, V>*>(y.data_handle() + blockIdx.x * y.stride(0) + k) = to;
        } else {
            for (index_t i = k; i < minimum(k + V, x.extent(1)); ++i)
                y(blockIdx.x, i) = device_from_float<Sm, Beyond, Y>(device_to_float<Sm>(x(blockIdx.x, i)));
        }
    }
}

template <int V, class T>
bool moves_converted(matrix_view<T> const& v) noexcept {
    constexpr auto alignment = static_cast<index_t>(alignof(converted_pack<std::remove_const_t<T>, V>));
    return has_unit_stride(v) && v.extent(1) % V == 0 && reinterpret_cast<std::uintptr_t>(v.data_handle()) % alignment == 0 &&
           (v.extent(0) <= 1 || v.stride(0) * static_cast<index_t>(sizeof(T)) % alignment == 0);
}

/// Rows without gaps as one.
template <class T>
matrix_view<T> as_one_row(matrix_view<T> const& v) noexcept {
    index_t const strides[] = {v.size(), 1};
    return {v.data_handle(), {dynamic_extents<2>{index_t{1}, v.size()}, strides}};
}

} // namespace detail

template <int Sm, class X, class Y, overflow Beyond>
struct kernel<op::convert, cuda<Sm>, conversion<X, Y, Beyond>> {
    static void run(cuda<Sm> const& exec,
                    matrix_view<X const> const& x, // (m, n)
                    matrix_view<Y> const& y) {     // (m, n)
        if (y.empty()) return;
        auto const is_whole = [](auto const& v) { return has_unit_stride(v) && (v.extent(0) == 1 || v.stride(0) == v.extent(1)); };
        if (x.extent(0) > 1 && is_whole(x) && is_whole(y)) return run(exec, detail::as_one_row(x), detail::as_one_row(y));
        detail::check_device<Sm>("convert");
        detail::check_device_pointer("convert", "x", x.data_handle(), x.size());
        detail::check_device_pointer("convert", "y", y.data_handle(), y.size());
        constexpr int V = detail::converted_together<X, Y>;
        bool const is_wide = detail::moves_converted<V>(x) && detail::moves_converted<V>(y);
        dim3 const grid(static_cast<unsigned>(x.extent(0)),
                        static_cast<unsigned>(minimum(ceil_div(x.extent(1), 256 * V), 65535)));
        detail::launch("convert", detail::stream_of(exec), {grid},
                       is_wide ? &detail::convert_kernel<Sm, Beyond, true, X, Y> : &detail::convert_kernel<Sm, Beyond, false, X, Y>, x, y);
    }
};

} // namespace tessera::inline TESSERA_ABI
