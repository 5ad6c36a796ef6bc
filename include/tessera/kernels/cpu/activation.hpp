// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The elementwise operations on the CPU: bound by memory, so a piece of a row at a time, in any order.

#include "../../core/view.hpp"
#include "../../simd/math.hpp"
#include "../../simd/reduce.hpp"
#include "../activation.hpp"
#include "../kernel.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <class Floats>
TESSERA_FORCE_INLINE Floats activated(activation::silu, Floats const& x) noexcept {
    return simd::silu(x);
}
template <class Floats>
TESSERA_FORCE_INLINE Floats activated(activation::gelu_erf, Floats const& x) noexcept {
    return simd::gelu_erf(x);
}
template <class Floats>
TESSERA_FORCE_INLINE Floats activated(activation::gelu_tanh, Floats const& x) noexcept {
    return simd::gelu_tanh(x);
}

template <class Floats>
TESSERA_FORCE_INLINE Floats activated_derivative(activation::silu, Floats const& x) noexcept {
    return simd::sigmoid(x) * simd::fma(x, simd::sigmoid(Floats(0.0f) - x), Floats(1.0f));
}
template <class Floats>
TESSERA_FORCE_INLINE Floats activated_derivative(activation::gelu_erf, Floats const& x) noexcept {
    Floats const tail = simd::normal_tail(xsimd::abs(x));
    Floats const density = Floats(0x1.988454p-2f) * simd::exp(Floats(-0.5f) * x * x); // 1 / sqrt(2 pi)
    return simd::fma(x, density, simd::select(x < Floats(0.0f), tail, Floats(1.0f) - tail));
}
template <class Floats>
TESSERA_FORCE_INLINE Floats activated_derivative(activation::gelu_tanh, Floats const& x) noexcept {
    Floats const square = x * x;
    Floats const inner = x * simd::fma(square, Floats(0x1.2444f2p-4f), Floats(0x1.988454p+0f));
    Floats const slope = simd::fma(square, Floats(3 * 0x1.2444f2p-4f), Floats(0x1.988454p+0f));
    Floats const s = simd::sigmoid(inner);
    return simd::fma(s * simd::sigmoid(Floats(0.0f) - inner) * slope, x, s);
}

/// y = f(i, k, count) for the registers of every row i; f reads its operands itself.
template <class Arch, class Exec, class Y, class F>
void elementwise(Exec const& exec, matrix_view<Y> y, F const& f) noexcept {
    constexpr index_t piece = 8192;
    index_t const n = y.extent(1);
    index_t const pieces = ceil_div(n, piece);
    parallel_for(exec.parallel(), y.extent(0) * pieces, maximum(1, 2 * piece / maximum(n, 1)),
                 [&](index_t first, index_t last, index_t) noexcept {
                     for (index_t p = first; p < last; ++p) {
                         index_t const i = p / pieces;
                         index_t const begin = p % pieces * piece;
                         Y* const to = y.data_handle() + i * y.stride(0);
                         simd::for_each<Arch>(minimum(piece, n - begin), [&](index_t at, index_t count) noexcept {
                             simd::store_partial<Arch>(to + begin + at, f(i, begin + at, count), count);
                         });
                     }
                 });
}

/// Element (i, k) and those after it.
template <class Arch, class X>
TESSERA_FORCE_INLINE simd::floats<Arch> elements(matrix_view<X const> const& x, index_t i, index_t k,
                                                 index_t count) noexcept {
    return simd::load_partial<Arch>(x.data_handle() + i * x.stride(0) + k, count);
}

} // namespace detail

template <class Arch, class Parallel, class X>
struct kernel<op::activate, cpu<Arch, Parallel>, X> {
    template <class F, class Y>
    static void run(cpu<Arch, Parallel> const& exec, F f, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        detail::elementwise<Arch>(exec, y, [&](index_t i, index_t k, index_t count) noexcept {
            return detail::activated(f, detail::elements<Arch>(x, i, k, count));
        });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::gate, cpu<Arch, Parallel>, X> {
    template <class F, class Y>
    static void run(cpu<Arch, Parallel> const& exec, F f, matrix_view<X const> gate, matrix_view<X const> up,
                    matrix_view<Y> y) noexcept {
        detail::elementwise<Arch>(exec, y, [&](index_t i, index_t k, index_t count) noexcept {
            return detail::activated(f, detail::elements<Arch>(gate, i, k, count)) *
                   detail::elements<Arch>(up, i, k, count);
        });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::activate_backward, cpu<Arch, Parallel>, X> {
    template <class F, class Y>
    static void run(cpu<Arch, Parallel> const& exec, F f, matrix_view<X const> x, matrix_view<X const> dy,
                    matrix_view<Y> dx) noexcept {
        detail::elementwise<Arch>(exec, dx, [&](index_t i, index_t k, index_t count) noexcept {
            return detail::activated_derivative(f, detail::elements<Arch>(x, i, k, count)) *
                   detail::elements<Arch>(dy, i, k, count);
        });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::gate_backward, cpu<Arch, Parallel>, X> {
    template <class F, class Y>
    static void run(cpu<Arch, Parallel> const& exec, F f, matrix_view<X const> gate, matrix_view<X const> up,
                    matrix_view<X const> dy, matrix_view<Y> dgate, matrix_view<Y> dup) noexcept {
        detail::elementwise<Arch>(exec, dgate, [&](index_t i, index_t k, index_t count) noexcept {
            // All are read before anything is written: an output may be an input.
            auto const g = detail::elements<Arch>(gate, i, k, count);
            auto const u = detail::elements<Arch>(up, i, k, count);
            auto const d = detail::elements<Arch>(dy, i, k, count);
            simd::store_partial<Arch>(dup.data_handle() + i * dup.stride(0) + k, detail::activated(f, g) * d, count);
            return detail::activated_derivative(f, g) * u * d;
        });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::add, cpu<Arch, Parallel>, X> {
    template <class Y>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> a, matrix_view<X const> b,
                    matrix_view<Y> y) noexcept {
        detail::elementwise<Arch>(exec, y, [&](index_t i, index_t k, index_t count) noexcept {
            return detail::elements<Arch>(a, i, k, count) + detail::elements<Arch>(b, i, k, count);
        });
    }
};

} // namespace tessera::inline TESSERA_ABI
