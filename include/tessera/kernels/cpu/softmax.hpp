// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// softmax on the CPU: the largest element, then the exponentials and their sum, then the scaling. With float32 output
/// the exponentials wait in y; a narrower y would round them twice, so there they are computed again. Its gradient: the sum
/// of y dy, then the differences.

#include "../../core/view.hpp"
#include "../../simd/math.hpp"
#include "../../simd/reduce.hpp"
#include "../kernel.hpp"

#include <limits>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Arch, class X, class Y>
void softmax_row(X const* x, index_t n, Y* y) noexcept {
    using reals = simd::floats<Arch>;
    constexpr float lowest = -std::numeric_limits<float>::infinity();
    float const top = simd::largest<Arch>(
        n, lowest, [&](index_t i, index_t count) noexcept { return simd::load_partial<Arch>(x + i, count); });
    // A row without anything above minus infinity: its exponentials are 0 (or NaN), not exp(-inf + inf).
    reals const shift(top == lowest ? 0.0f : top);
    auto const weight = [&](index_t i, index_t count) noexcept {
        return simd::exp(simd::load_partial<Arch>(x + i, count) - shift);
    };
    float const sum = simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        reals const w = weight(i, count);
        if constexpr (std::is_same_v<Y, float>) simd::store_partial<Arch>(y + i, w, count);
        return w;
    });
    reals const inverse(sum == 0.0f ? 0.0f : 1.0f / sum);
    simd::for_each<Arch>(n, [&](index_t i, index_t count) noexcept {
        if constexpr (std::is_same_v<Y, float>)
            simd::store_partial<Arch>(y + i, simd::load_partial<Arch>(y + i, count) * inverse, count);
        else
            simd::store_partial<Arch>(y + i, weight(i, count) * inverse, count);
    });
}

template <class Arch, class Y, class D, class DX>
void softmax_gradient_row(Y const* y, D const* dy, index_t n, DX* dx) noexcept {
    using reals = simd::floats<Arch>;
    reals const sum(simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        return simd::load_partial<Arch>(y + i, count) * simd::load_partial<Arch>(dy + i, count);
    }));
    simd::for_each<Arch>(n, [&](index_t i, index_t count) noexcept {
        reals const weight = simd::load_partial<Arch>(y + i, count);
        simd::store_partial<Arch>(dx + i, weight * (simd::load_partial<Arch>(dy + i, count) - sum), count);
    });
}

} // namespace detail

template <class Arch, class Parallel, class X>
struct kernel<op::softmax, cpu<Arch, Parallel>, X> {
    template <class Y>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        index_t const n = x.extent(1);
        parallel_for(exec.parallel(), x.extent(0), maximum(1, 8192 / maximum(n, 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i)
                             detail::softmax_row<Arch>(x.data_handle() + i * x.stride(0), n,
                                                       y.data_handle() + i * y.stride(0));
                     });
    }
};

template <class Arch, class Parallel, class Y>
struct kernel<op::softmax_backward, cpu<Arch, Parallel>, Y> {
    template <class D, class DX>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<Y const> y, matrix_view<D const> dy,
                    matrix_view<DX> dx) noexcept {
        index_t const n = y.extent(1);
        parallel_for(exec.parallel(), y.extent(0), maximum(1, 16384 / maximum(n, 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i)
                             detail::softmax_gradient_row<Arch>(y.data_handle() + i * y.stride(0),
                                                                dy.data_handle() + i * dy.stride(0), n,
                                                                dx.data_handle() + i * dx.stride(0));
                     });
    }
};

} // namespace tessera::inline TESSERA_ABI
