// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of softmax over a row: y_k = exp(x_k - m) / sum exp(x_j - m), m the largest element; zeros where every
/// element is minus infinity. Its gradient, from y and dy: dx_k = y_k (dy_k - sum y_j dy_j).

#include "../../core/view.hpp"
#include "../kernel.hpp"

#include <cmath>

namespace tessera::inline TESSERA_ABI {

template <class X>
struct kernel<op::softmax, reference, X> {
    template <class Y>
    static void run(reference const&, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < x.extent(0); ++i) row(i, x, y);
    }
    template <class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        constexpr double none = -static_cast<double>(INFINITY);
        double largest = none;
        for (index_t k = 0; k < x.extent(1); ++k) largest = std::fmax(largest, static_cast<double>(x(i, k)));
        double const shift = largest == none ? 0.0 : largest;
        double sum = 0;
        for (index_t k = 0; k < x.extent(1); ++k) sum += std::exp(static_cast<double>(x(i, k)) - shift);
        for (index_t k = 0; k < x.extent(1); ++k)
            y(i, k) = static_cast<Y>(sum == 0 ? 0.0 : std::exp(static_cast<double>(x(i, k)) - shift) / sum);
    }
};

template <class Y>
struct kernel<op::softmax_backward, reference, Y> {
    template <class D, class DX>
    static void run(reference const&, matrix_view<Y const> y, matrix_view<D const> dy, matrix_view<DX> dx) noexcept {
        for (index_t i = 0; i < y.extent(0); ++i) {
            double sum = 0;
            for (index_t k = 0; k < y.extent(1); ++k)
                sum += static_cast<double>(y(i, k)) * static_cast<double>(dy(i, k));
            for (index_t k = 0; k < y.extent(1); ++k)
                dx(i, k) = static_cast<DX>(static_cast<double>(y(i, k)) * (static_cast<double>(dy(i, k)) - sum));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
