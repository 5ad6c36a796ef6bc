// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definitions of the norms and of their gradients, in double. (Forward definitions of this folder are functions of a row,
/// `row(i, ...)`, which CUDA devices run too: kernels/cuda/reference.cuh.) For a row x of n elements:
///
///     rms_norm     y = w r x                  r = 1 / sqrt(mean(x^2) + epsilon)
///     layer_norm   y = w r (x - mean(x)) + b  r = 1 / sqrt(mean((x - mean(x))^2) + epsilon)
///
/// and, with g = w dy and h = r x or r (x - mean(x)),
///
///     rms_norm     dx = r (g - h mean(g h))            dw = sum over rows of dy h
///     layer_norm   dx = r (g - mean(g) - h mean(g h))  dw = sum over rows of dy h   db = sum over rows of dy

#include "../../core/view.hpp"
#include "../kernel.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// An element in double.
template <class T>
TESSERA_HOST_DEVICE constexpr double wide(T const& x) noexcept {
    return static_cast<double>(x);
}

/// mean(x) where `Centred`, else 0, and r of the file comment.
struct row_moments {
    double mean;
    double inverse;
};

template <class X>
TESSERA_HOST_DEVICE row_moments rms_moments(matrix_view<X const> x, index_t i, float epsilon) noexcept {
    double const n = wide(x.extent(1));
    double sum = 0;
    for (index_t k = 0; k < x.extent(1); ++k) sum += wide(x(i, k)) * wide(x(i, k));
    return {0, 1 / std::sqrt(sum / n + wide(epsilon))};
}

template <class X>
TESSERA_HOST_DEVICE row_moments layer_moments(matrix_view<X const> x, index_t i, float epsilon) noexcept {
    double const n = wide(x.extent(1));
    double sum = 0;
    for (index_t k = 0; k < x.extent(1); ++k) sum += wide(x(i, k));
    double squares = 0;
    for (index_t k = 0; k < x.extent(1); ++k) squares += (wide(x(i, k)) - sum / n) * (wide(x(i, k)) - sum / n);
    return {sum / n, 1 / std::sqrt(squares / n + wide(epsilon))};
}

/// dx of a row; `subtract_mean` is 1 for the layer norm, whose mean depends on x, else 0.
template <class X, class W, class D>
void norm_gradient_row(matrix_view<X const> x, vector_view<W const> weight, matrix_view<X const> dy, index_t i,
                       row_moments of, double subtract_mean, matrix_view<D> dx) noexcept {
    auto const [mean, r] = of;
    double const n = wide(x.extent(1));
    double g_sum = 0;
    double gh_sum = 0;
    for (index_t k = 0; k < x.extent(1); ++k) {
        double const g = wide(weight[k]) * wide(dy(i, k));
        g_sum += g;
        gh_sum += g * r * (wide(x(i, k)) - mean);
    }
    for (index_t k = 0; k < x.extent(1); ++k) {
        double const g = wide(weight[k]) * wide(dy(i, k));
        double const h = r * (wide(x(i, k)) - mean);
        dx(i, k) = static_cast<D>(r * (g - subtract_mean * g_sum / n - h * gh_sum / n));
    }
}

} // namespace detail

template <class X>
struct kernel<op::rms_norm, reference, X> {
    template <class W, class Y>
    static void run(reference const&, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < x.extent(0); ++i) row(i, x, weight, epsilon, y);
    }
    template <class W, class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                                        matrix_view<Y> y) noexcept {
        double const r = detail::rms_moments<X>(x, i, epsilon).inverse;
        for (index_t k = 0; k < x.extent(1); ++k)
            y(i, k) = static_cast<Y>(detail::wide(weight[k]) * r * detail::wide(x(i, k)));
    }
};

template <class X>
struct kernel<op::layer_norm, reference, X> {
    template <class W, class Y>
    static void run(reference const&, matrix_view<X const> x, vector_view<W const> weight, vector_view<W const> bias,
                    float epsilon, matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < x.extent(0); ++i) row(i, x, weight, bias, epsilon, y);
    }
    template <class W, class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, matrix_view<X const> x, vector_view<W const> weight,
                                        vector_view<W const> bias, float epsilon, matrix_view<Y> y) noexcept {
        auto const [mean, r] = detail::layer_moments<X>(x, i, epsilon);
        for (index_t k = 0; k < x.extent(1); ++k)
            y(i, k) = static_cast<Y>(detail::wide(weight[k]) * r * (detail::wide(x(i, k)) - mean) + detail::wide(bias[k]));
    }
};

template <class X>
struct kernel<op::rms_norm_backward, reference, X> {
    template <class W, class D, class DW>
    static void run(reference const&, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<X const> dy, matrix_view<D> dx, vector_view<DW> dweight) noexcept {
        for (index_t k = 0; k < x.extent(1); ++k) {
            double sum = 0;
            for (index_t i = 0; i < x.extent(0); ++i)
                sum += detail::wide(dy(i, k)) * detail::rms_moments<X>(x, i, epsilon).inverse * detail::wide(x(i, k));
            dweight[k] = static_cast<DW>(sum);
        }
        for (index_t i = 0; i < x.extent(0); ++i)
            detail::norm_gradient_row<X>(x, weight, dy, i, detail::rms_moments<X>(x, i, epsilon), 0, dx);
    }
};

template <class X>
struct kernel<op::layer_norm_backward, reference, X> {
    template <class W, class D, class DW>
    static void run(reference const&, matrix_view<X const> x, vector_view<W const> weight, float epsilon,
                    matrix_view<X const> dy, matrix_view<D> dx, vector_view<DW> dweight,
                    vector_view<DW> dbias) noexcept {
        for (index_t k = 0; k < x.extent(1); ++k) {
            double sum = 0;
            double plain = 0;
            for (index_t i = 0; i < x.extent(0); ++i) {
                auto const [mean, r] = detail::layer_moments<X>(x, i, epsilon);
                sum += detail::wide(dy(i, k)) * r * (detail::wide(x(i, k)) - mean);
                plain += detail::wide(dy(i, k));
            }
            dweight[k] = static_cast<DW>(sum);
            dbias[k] = static_cast<DW>(plain);
        }
        for (index_t i = 0; i < x.extent(0); ++i)
            detail::norm_gradient_row<X>(x, weight, dy, i, detail::layer_moments<X>(x, i, epsilon), 1, dx);
    }
};

} // namespace tessera::inline TESSERA_ABI
