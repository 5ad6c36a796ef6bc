// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// New tokens into a KV cache on CUDA devices, a warp for a head of a token: the bits that kernels/ref/append.hpp writes.

#include "../../core/cuda_call.cuh"
#include "../../storage/kv_cache.hpp"
#include "../kernel.hpp"

namespace tessera::inline TESSERA_ABI::detail {

/// Tokens of x from number `skipped` on, to positions from first_position on (a ring of ring_size slots; 0: none).
template <class X, class Element>
__global__ void __launch_bounds__(128) append_kernel(__grid_constant__ tensor_view<X const, 3> const x, index_t skipped, index_t first_position,
                                                     index_t ring_size, __grid_constant__ kv_rows<Element> const to) {
    index_t const row = static_cast<index_t>(blockIdx.x) * 4 + threadIdx.x / 32;
    index_t const t = skipped + row / x.extent(1);
    index_t const h = row % x.extent(1);
    if (t >= x.extent(0)) return;
    index_t const position = first_position + t;
    index_t const slot = ring_size != 0 ? position % ring_size : position;
    Element* const out = to.row(h, slot);
    if constexpr (std::is_same_v<Element, std::int8_t>) {
        float a = 0.0f;
        bool is_finite = true;
        for (index_t d = threadIdx.x % 32; d < x.extent(2); d += 32) {
            float const v = fabsf(static_cast<float>(x(t, h, d)));
            is_finite = is_finite && v <= 3.4028234663852886e38f;
            a = fmaxf(a, v);
        }
        for (int d = 16; d > 0; d /= 2) a = fmaxf(a, __shfl_xor_sync(~0u, a, d));
        is_finite = __all_sync(~0u, is_finite) != 0;
        bool const usable = is_finite && a > 0.0f && __fdiv_rn(127.0f, a) <= 3.4028234663852886e38f;
        float const inverse = usable ? __fdiv_rn(127.0f, a) : 0.0f;
        if (threadIdx.x % 32 == 0) *to.scale_row(h, slot) = usable ? __fdiv_rn(a, 127.0f) : is_finite ? 0.0f : NAN;
        for (index_t d = threadIdx.x % 32; d < x.extent(2); d += 32)
            out[d] = static_cast<std::int8_t>(usable ? rintf(static_cast<float>(x(t, h, d)) * inverse) : 0.0f);
    } else {
        for (index_t d = threadIdx.x % 32; d < x.extent(2); d += 32) out[d] = static_cast<Element>(static_cast<float>(x(t, h, d)));
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
