// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Rotary position embedding on CUDA devices: a thread for each pair, or each element that is not turned.

#include "../../core/cuda_call.cuh"
#include "../kernel.hpp"
#include "../rope_style.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Style, class X, class Y>
__global__ void rope_kernel(__grid_constant__ tensor_view<X const, 3> const x, __grid_constant__ rotations const r,
                            __grid_constant__ tensor_view<Y, 3> const y) {
    index_t const items = x.extent(2) - r.pairs;
    index_t const at = static_cast<index_t>(blockIdx.x) * 256 + threadIdx.x;
    index_t const t = at / items / x.extent(1);
    if (t >= x.extent(0)) return;
    index_t const h = at / items % x.extent(1);
    index_t const i = at % items;
    if (i >= r.pairs) {
        y(t, h, i + r.pairs) = static_cast<Y>(static_cast<float>(x(t, h, i + r.pairs)));
        return;
    }
    bool const is_interleaved = std::is_same_v<Style, rope_interleaved>;
    index_t const first = is_interleaved ? 2 * i : i;
    index_t const second = is_interleaved ? 2 * i + 1 : i + r.pairs;
    index_t const row = (r.first_position + t) * r.pairs + i;
    float const a = static_cast<float>(x(t, h, first));
    float const b = static_cast<float>(x(t, h, second));
    float const c = r.cosines[row];
    float const s = r.sines[row];
    y(t, h, first) = static_cast<Y>(a * c - b * s);
    y(t, h, second) = static_cast<Y>(a * s + b * c);
}

} // namespace detail

template <int Sm, class X>
struct kernel<op::rope, cuda<Sm>, X> {
    template <class Style, class Y>
    static void run(cuda<Sm> const& exec, Style, tensor_view<X const, 3> x, detail::rotations r, tensor_view<Y, 3> y) {
        static_assert(std::is_same_v<Style, rope_interleaved> || std::is_same_v<Style, rope_halves>,
                      "tessera: rope: cuda<Sm> has kernels for rope_interleaved and rope_halves");
        if (y.empty()) return;
        detail::check_device<Sm>("rope");
        detail::check_device_pointer("rope", "x", x.data_handle(), x.size());
        detail::check_device_pointer("rope", "y", y.data_handle(), y.size());
        index_t const count = x.extent(0) * x.extent(1) * (x.extent(2) - r.pairs);
        detail::launch("rope", detail::stream_of(exec), {dim3(static_cast<unsigned>(ceil_div(count, 256)))},
                       &detail::rope_kernel<Style, X, Y>, x, r, y);
    }
};

} // namespace tessera::inline TESSERA_ABI
