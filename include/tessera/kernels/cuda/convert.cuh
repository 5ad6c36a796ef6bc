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
inline constexpr int converted_together = 8;

template <class X>
__device__ __forceinline__ float device_to_float(X x) {
    if constexpr (std::is_same_v<X, fp16>) {
        std::uint16_t const bits = x.to_bits();
        if ((bits & 0x7c00u) != 0x7c00u) return __half2float(__ushort_as_half(bits)); // the definition keeps the bits of NaN
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

/// `converted_together` elements that lie side by side, as wide as the device moves at once.
template <class T>
struct alignas(sizeof(T) * converted_together < 16 ? sizeof(T) * converted_together : 16) converted_pack {
    T v[converted_together];
};

template <int Sm, overflow Beyond, bool IsWide, class X, class Y>
__global__ void __launch_bounds__(256) convert_kernel(__grid_constant__ matrix_view<X const> const x, __grid_constant__ matrix_view<Y> const y) {
    index_t const first = (static_cast<index_t>(blockIdx.y) * 256 + threadIdx.x) * converted_together;
    index_t const step = static_cast<index_t>(gridDim.y) * 256 * converted_together;
    for (index_t k = first; k < x.extent(1); k += step) {
        if constexpr (IsWide) {
            auto const from = *reinterpret_cast<converted_pack<X> const*>(x.data_handle() + blockIdx.x * x.stride(0) + k);
            converted_pack<Y> to;
#pragma unroll
            for (int i = 0; i < converted_together; ++i) to.v[i] = device_from_float<Sm, Beyond, Y>(device_to_float(from.v[i]));
            *reinterpret_cast<converted_pack<Y>*>(y.data_handle() + blockIdx.x * y.stride(0) + k) = to;
        } else {
            for (index_t i = k; i < minimum(k + converted_together, x.extent(1)); ++i)
                y(blockIdx.x, i) = device_from_float<Sm, Beyond, Y>(device_to_float(x(blockIdx.x, i)));
        }
    }
}

template <class T>
bool moves_converted(matrix_view<T> const& v) noexcept {
    constexpr auto bytes = static_cast<index_t>(sizeof(converted_pack<std::remove_const_t<T>>));
    return has_unit_stride(v) && v.extent(1) % converted_together == 0 && reinterpret_cast<std::uintptr_t>(v.data_handle()) % alignof(converted_pack<std::remove_const_t<T>>) == 0 &&
           (v.extent(0) <= 1 || v.stride(0) * static_cast<index_t>(sizeof(T)) % minimum(bytes, 16) == 0);
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
        bool const is_wide = detail::moves_converted(x) && detail::moves_converted(y);
        dim3 const grid(static_cast<unsigned>(x.extent(0)),
                        static_cast<unsigned>(minimum(ceil_div(x.extent(1), 256 * detail::converted_together), 65535)));
        detail::launch("convert", detail::stream_of(exec), {grid},
                       is_wide ? &detail::convert_kernel<Sm, Beyond, true, X, Y> : &detail::convert_kernel<Sm, Beyond, false, X, Y>, x, y);
    }
};

} // namespace tessera::inline TESSERA_ABI
