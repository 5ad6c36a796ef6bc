// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The law of epilogues for every backend: y = kind(accumulator + bias + residual, m, n), in float32, rounded once to y's type.

#include "guarded.hpp"

#include <tessera/core/config.hpp>

#include <cmath>
#include <cstring>

namespace tessera_test {

/// A function of the value and of its position that does not round.
struct position_limit {
    TESSERA_HOST_DEVICE float operator()(float value, index_t m, index_t n) const noexcept {
        float const limit = static_cast<float>((3 * m + 5 * n) % 17 - 8);
        return value < limit ? value : limit;
    }
};

/// What is added before a kind: the sum, in float32 as the epilogue does it, and the sum of magnitudes.
struct addends {
    bool has_bias;
    bool has_residual;
    float sum(ts::vector_view<float const> bias, ts::matrix_view<float const> residual, float value, index_t m, index_t n) const {
        if (has_bias) value = value + bias[n];
        if (has_residual) value = value + residual(m, n);
        return value;
    }
    double magnitude(ts::vector_view<float const> bias, ts::matrix_view<float const> residual, index_t m, index_t n) const {
        return (has_bias ? std::abs(double{bias[n]}) : 0.0) + (has_residual ? std::abs(double{residual(m, n)}) : 0.0);
    }
};

/// Elements of y that are not, bit for bit, what `kind` makes of the plain product.
template <class Y, class Kind>
index_t differing_from_law(ts::matrix_view<Y const> y, ts::matrix_view<float const> accumulator, ts::vector_view<float const> bias,
                           ts::matrix_view<float const> residual, addends const& what, Kind const& kind) {
    index_t differing = 0;
    for (index_t m = 0; m < y.extent(0); ++m)
        for (index_t n = 0; n < y.extent(1); ++n) {
            auto const expected = static_cast<Y>(kind(what.sum(bias, residual, accumulator(m, n), m, n), m, n));
            Y const actual = y(m, n);
            differing += std::memcmp(&expected, &actual, sizeof(Y)) != 0;
        }
    return differing;
}

} // namespace tessera_test
