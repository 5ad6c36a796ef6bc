// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The norms on the CPU, float32 accumulation; the formulas are in kernels/ref/norm.hpp. A row is read twice (layer norm:
/// three times), from the first-level cache after the first. Rows are independent; the gradients of weight and bias sum
/// over the rows in index order, in parallel over the columns.

#include "../../core/view.hpp"
#include "../../simd/reduce.hpp"
#include "../kernel.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// What a chunk of rows of any of these operations needs of a matrix: the row's first element.
template <class T>
constexpr T* row_of(matrix_view<T> const& x, index_t i) noexcept {
    return x.data_handle() + i * x.stride(0);
}

struct float_moments {
    float mean;
    float inverse;
};

template <class Arch, class X>
float_moments rms_row(X const* x, index_t n, float epsilon) noexcept {
    float const squares = simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        auto const v = simd::load_partial<Arch>(x + i, count);
        return v * v;
    });
    return {0.0f, 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon)};
}

template <class Arch, class X>
float_moments layer_row(X const* x, index_t n, float epsilon) noexcept {
    using reals = simd::floats<Arch>;
    float const total =
        simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept { return simd::load_partial<Arch>(x + i, count); });
    float const mean = total / static_cast<float>(n);
    float const squares = simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept {
        auto const v = simd::load_partial<Arch>(x + i, count) - reals(mean);
        return v * v;
    });
    return {mean, 1.0f / std::sqrt(squares / static_cast<float>(n) + epsilon)};
}

/// moments of every row, by `rms_row` or `layer_row`, and dx of every row. `subtract_mean`: see kernels/ref/norm.hpp.
template <class Arch, class X, class W, class D>
void norm_gradient_row(X const* x, W const* weight, X const* dy, index_t n, float_moments of, float subtract_mean,
                       D* dx) noexcept {
    using reals = simd::floats<Arch>;
    reals const mean(of.mean);
    reals const r(of.inverse);
    auto const g = [&](index_t i, index_t count) noexcept {
        return simd::load_partial<Arch>(weight + i, count) * simd::load_partial<Arch>(dy + i, count);
    };
    auto const h = [&](index_t i, index_t count) noexcept {
        return (simd::load_partial<Arch>(x + i, count) - mean) * r;
    };
    float const gh = simd::sum<Arch>(n, [&](index_t i, index_t count) noexcept { return g(i, count) * h(i, count); });
    float const g_sum = subtract_mean == 0.0f ? 0.0f : simd::sum<Arch>(n, g);
    reals const gh_mean(gh / static_cast<float>(n));
    reals const g_mean(g_sum / static_cast<float>(n));
    simd::for_each<Arch>(n, [&](index_t i, index_t count) noexcept {
        simd::store_partial<Arch>(dx + i, r * (g(i, count) - g_mean - h(i, count) * gh_mean), count);
    });
}

/// dweight and, where not null, dbias, for columns [first, last).
template <class Arch, class X, class DW>
void norm_weight_gradient(matrix_view<X const> x, matrix_view<X const> dy, float_moments const* of, index_t first,
                          index_t last, DW* dweight, DW* dbias) noexcept {
    using reals = simd::floats<Arch>;
    simd::for_each<Arch>(last - first, [&](index_t at, index_t count) noexcept {
        index_t const k = first + at;
        reals sum(0.0f);
        reals plain(0.0f);
        for (index_t i = 0; i < x.extent(0); ++i) {
            reals const d = simd::load_partial<Arch>(row_of(dy, i) + k, count);
            reals const h = (simd::load_partial<Arch>(row_of(x, i) + k, count) - reals(of[i].mean)) * reals(of[i].inverse);
            sum = simd::fma(d, h, sum);
            plain = plain + d;
        }
        simd::store_partial<Arch>(dweight + k, sum, count);
        if (dbias != nullptr) simd::store_partial<Arch>(dbias + k, plain, count);
    });
}

/// Both gradients of a norm whose moments of a row are `moments(x, n)`.
template <class Arch, class Exec, class X, class W, class D, class DW, class Moments>
void norm_backward(Exec const& exec, matrix_view<X const> x, vector_view<W const> weight, matrix_view<X const> dy,
                   float_moments* of, float subtract_mean, Moments const& moments, matrix_view<D> dx, DW* dweight,
                   DW* dbias) noexcept {
    index_t const n = x.extent(1);
    parallel_for(exec.parallel(), x.extent(0), maximum(1, 16384 / maximum(n, 1)),
                 [&](index_t first, index_t last, index_t) noexcept {
                     for (index_t i = first; i < last; ++i) of[i] = moments(row_of(x, i), n);
                 });
    // Before dx, which may be dy in place.
    parallel_for(exec.parallel(), n, 64, [&](index_t first, index_t last, index_t) noexcept {
        norm_weight_gradient<Arch, X, DW>(x, dy, of, first, last, dweight, dbias);
    });
    parallel_for(exec.parallel(), x.extent(0), maximum(1, 16384 / maximum(n, 1)),
                 [&](index_t first, index_t last, index_t) noexcept {
                     for (index_t i = first; i < last; ++i)
                         norm_gradient_row<Arch>(row_of(x, i), weight.data_handle(), row_of(dy, i), n, of[i],
                                                 subtract_mean, row_of(dx, i));
                 });
}

} // namespace detail

template <class Arch, class Parallel, class X>
struct kernel<op::rms_norm, cpu<Arch, Parallel>, X> {
    template <class W, class Y>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<Y> y) noexcept {
        index_t const n = x.extent(1);
        W const* const w = weight.data_handle();
        parallel_for(exec.parallel(), x.extent(0), maximum(1, 16384 / maximum(n, 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i) {
                             X const* const from = detail::row_of(x, i);
                             Y* const to = detail::row_of(y, i);
                             simd::floats<Arch> const r(detail::rms_row<Arch>(from, n, epsilon).inverse);
                             simd::for_each<Arch>(n, [&](index_t k, index_t count) noexcept {
                                 auto const v = simd::load_partial<Arch>(from + k, count) * r;
                                 simd::store_partial<Arch>(to + k, v * simd::load_partial<Arch>(w + k, count), count);
                             });
                         }
                     });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::layer_norm, cpu<Arch, Parallel>, X> {
    template <class W, class Y>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> x, vector_view<W const> weight,
                    vector_view<W const> bias, float epsilon, matrix_view<Y> y) noexcept {
        index_t const n = x.extent(1);
        W const* const w = weight.data_handle();
        W const* const b = bias.data_handle();
        parallel_for(exec.parallel(), x.extent(0), maximum(1, 16384 / maximum(n, 1)),
                     [&](index_t first, index_t last, index_t) noexcept {
                         for (index_t i = first; i < last; ++i) {
                             X const* const from = detail::row_of(x, i);
                             Y* const to = detail::row_of(y, i);
                             auto const of = detail::layer_row<Arch>(from, n, epsilon);
                             simd::floats<Arch> const mean(of.mean);
                             simd::floats<Arch> const r(of.inverse);
                             simd::for_each<Arch>(n, [&](index_t k, index_t count) noexcept {
                                 auto const v = (simd::load_partial<Arch>(from + k, count) - mean) * r;
                                 simd::store_partial<Arch>(to + k,
                                                           simd::fma(v, simd::load_partial<Arch>(w + k, count),
                                                                     simd::load_partial<Arch>(b + k, count)),
                                                           count);
                             });
                         }
                     });
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::rms_norm_backward, cpu<Arch, Parallel>, X> {
    template <class W, class D, class DW>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<X const> dy, detail::float_moments* of, matrix_view<D> dx, vector_view<DW> dweight) noexcept {
        detail::norm_backward<Arch>(
            exec, x, weight, dy, of, 0.0f,
            [&](X const* row, index_t n) noexcept { return detail::rms_row<Arch>(row, n, epsilon); }, dx,
            dweight.data_handle(), static_cast<DW*>(nullptr));
    }
};

template <class Arch, class Parallel, class X>
struct kernel<op::layer_norm_backward, cpu<Arch, Parallel>, X> {
    template <class W, class D, class DW>
    static void run(cpu<Arch, Parallel> const& exec, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<X const> dy, detail::float_moments* of, matrix_view<D> dx, vector_view<DW> dweight,
                    vector_view<DW> dbias) noexcept {
        detail::norm_backward<Arch>(
            exec, x, weight, dy, of, 1.0f,
            [&](X const* row, index_t n) noexcept { return detail::layer_row<Arch>(row, n, epsilon); }, dx,
            dweight.data_handle(), dbias.data_handle());
    }
};

} // namespace tessera::inline TESSERA_ABI
