// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of conversion between element types: y[i, j] = encode(decode(x[i, j])), through float32, to nearest
/// even. `kernel<op::convert, Exec, conversion<X, Y, Beyond>>` has `static void run(exec, x, y)`.

#include "../../core/exec.hpp"
#include "../../core/view.hpp"
#include "../../numerics/convert.hpp"
#include "../kernel.hpp"

namespace tessera::inline TESSERA_ABI {

/// From elements X to elements Y; `Beyond` is what values above Y's largest become.
template <storable_element X, storable_element Y, overflow Beyond>
struct conversion {};

template <class X, class Y, overflow Beyond>
struct kernel<op::convert, reference, conversion<X, Y, Beyond>> {
    static void run(reference const&,
                    matrix_view<X const> const& x,      // (m, n)
                    matrix_view<Y> const& y) noexcept { // (m, n)
        for (index_t i = 0; i < x.extent(0); ++i)
            for (index_t j = 0; j < x.extent(1); ++j)
                y(i, j) = element_of<Y>(format_of_t<Y>::encode(to_float(x(i, j)), rounding::nearest_even, Beyond));
    }
};

} // namespace tessera::inline TESSERA_ABI
