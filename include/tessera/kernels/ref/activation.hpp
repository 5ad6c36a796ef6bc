// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definitions of the elementwise operations: y = f(x), y = f(gate) up, y = a + b, and their gradients, in double, rounded
/// once.

#include "../../core/view.hpp"
#include "../activation.hpp"
#include "../kernel.hpp"

namespace tessera::inline TESSERA_ABI {

template <class X>
struct kernel<op::activate, reference, X> {
    template <class F, class Y>
    static void run(reference const&, F, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < x.extent(0); ++i) row(i, F{}, x, y);
    }
    template <class F, class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, F, matrix_view<X const> x, matrix_view<Y> y) noexcept {
        for (index_t k = 0; k < x.extent(1); ++k) y(i, k) = static_cast<Y>(F::value(static_cast<double>(x(i, k))));
    }
};

template <class X>
struct kernel<op::gate, reference, X> {
    template <class F, class Y>
    static void run(reference const&, F, matrix_view<X const> gate, matrix_view<X const> up, matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < gate.extent(0); ++i) row(i, F{}, gate, up, y);
    }
    template <class F, class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, F, matrix_view<X const> gate, matrix_view<X const> up, matrix_view<Y> y) noexcept {
        for (index_t k = 0; k < gate.extent(1); ++k)
            y(i, k) = static_cast<Y>(F::value(static_cast<double>(gate(i, k))) * static_cast<double>(up(i, k)));
    }
};

template <class X>
struct kernel<op::activate_backward, reference, X> {
    template <class F, class Y>
    static void run(reference const&, F, matrix_view<X const> x, matrix_view<X const> dy, matrix_view<Y> dx) noexcept {
        for (index_t i = 0; i < x.extent(0); ++i)
            for (index_t k = 0; k < x.extent(1); ++k)
                dx(i, k) = static_cast<Y>(F::derivative(static_cast<double>(x(i, k))) * static_cast<double>(dy(i, k)));
    }
};

template <class X>
struct kernel<op::gate_backward, reference, X> {
    template <class F, class Y>
    static void run(reference const&, F, matrix_view<X const> gate, matrix_view<X const> up, matrix_view<X const> dy,
                    matrix_view<Y> dgate, matrix_view<Y> dup) noexcept {
        for (index_t i = 0; i < gate.extent(0); ++i)
            for (index_t k = 0; k < gate.extent(1); ++k) {
                auto const g = static_cast<double>(gate(i, k));
                auto const u = static_cast<double>(up(i, k));
                auto const d = static_cast<double>(dy(i, k));
                dgate(i, k) = static_cast<Y>(F::derivative(g) * u * d); // all are read: an output may be an input
                dup(i, k) = static_cast<Y>(F::value(g) * d);
            }
    }
};

template <class X>
struct kernel<op::add, reference, X> {
    template <class Y>
    static void run(reference const&, matrix_view<X const> a, matrix_view<X const> b, matrix_view<Y> y) noexcept {
        for (index_t i = 0; i < a.extent(0); ++i) row(i, a, b, y);
    }
    template <class Y>
    TESSERA_HOST_DEVICE static void row(index_t i, matrix_view<X const> a, matrix_view<X const> b, matrix_view<Y> y) noexcept {
        for (index_t k = 0; k < a.extent(1); ++k)
            y(i, k) = static_cast<Y>(static_cast<double>(a(i, k)) + static_cast<double>(b(i, k)));
    }
};

} // namespace tessera::inline TESSERA_ABI
