// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of rope: pair (a, b) of every head becomes (a cos - b sin, a sin + b cos); elements beyond the pairs are
/// copied.

#include "../../core/view.hpp"
#include "../kernel.hpp"
#include "../rope_style.hpp"

namespace tessera::inline TESSERA_ABI {

template <class X>
struct kernel<op::rope, reference, X> {
    template <class Style, class Y>
    static void run(reference const&, Style, tensor_view<X const, 3> x, detail::rotations r,
                    tensor_view<Y, 3> y) noexcept {
        for (index_t t = 0; t < x.extent(0); ++t) row(t, Style{}, x, r, y);
    }
    template <class Style, class Y>
    TESSERA_HOST_DEVICE static void row(index_t t, Style, tensor_view<X const, 3> x, detail::rotations r, tensor_view<Y, 3> y) noexcept {
        for (index_t h = 0; h < x.extent(1); ++h) {
            for (index_t i = 0; i < r.pairs; ++i) {
                index_t const first = Style::first(i, r.pairs);
                index_t const second = Style::second(i, r.pairs);
                double const a = static_cast<double>(x(t, h, first));
                double const b = static_cast<double>(x(t, h, second));
                double const c = static_cast<double>(r.cosine(t)[i]);
                double const s = static_cast<double>(r.sine(t)[i]);
                y(t, h, first) = static_cast<Y>(a * c - b * s);
                y(t, h, second) = static_cast<Y>(a * s + b * c);
            }
            for (index_t i = 2 * r.pairs; i < x.extent(2); ++i)
                y(t, h, i) = static_cast<Y>(static_cast<double>(x(t, h, i)));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
