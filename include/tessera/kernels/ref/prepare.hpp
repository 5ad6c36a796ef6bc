// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What a preparation does to a row of x, by definition: the values that the product sees. kernels/cpu/prepare.hpp has
/// the formula; this is it, scalar, with the codes turned back into numbers.

#include "../../numerics/half.hpp"
#include "../../storage/scheme.hpp"

#include <cfloat>
#include <cmath>
#include <type_traits>

namespace tessera::inline TESSERA_ABI::detail {

/// y[k] = the value of x[k] after preparation; x and y may be the same.
template <preparation P>
TESSERA_HOST_DEVICE void reference_prepare(double const* x, index_t columns, double* y) noexcept {
    if constexpr (std::is_same_v<P, as_bf16>) {
        for (index_t k = 0; k < columns; ++k) y[k] = static_cast<double>(static_cast<float>(static_cast<bf16>(static_cast<float>(x[k]))));
    } else if constexpr (requires { P::define_row(x, columns, y); }) { // defined beside its kernel
        P::define_row(x, columns, y);
    } else if constexpr (activation_group<P> < 0) {
        for (index_t k = 0; k < columns; ++k) y[k] = x[k];
    } else {
        index_t const group = activation_group<P> == 0 ? maximum(columns, 1) : maximum(activation_group<P>, 1);
        for (index_t first = 0; first < columns; first += group) {
            index_t const last = minimum(first + group, columns);
            float a = 0;
            for (index_t k = first; k < last; ++k) {
                auto const v = std::fabs(static_cast<float>(x[k]));
                a = v <= FLT_MAX ? (v > a ? v : a) : NAN;
            }
            bool const usable = a > 0 && 127.0f / a <= FLT_MAX;
            float const inverse = usable ? 127.0f / a : 0.0f;
            double const scale = usable ? a / 127.0f : 0.0f * a;
            for (index_t k = first; k < last; ++k)
                y[k] = usable ? scale * std::nearbyint(static_cast<float>(x[k]) * inverse) : scale;
        }
    }
}

} // namespace tessera::inline TESSERA_ABI::detail
