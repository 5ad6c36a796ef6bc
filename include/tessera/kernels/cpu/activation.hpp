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
