// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The cosines and sines of rotary position embeddings (nn/rope.hpp): computed in double, rounded once.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <limits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// Owns the cosines and sines of positions [0, positions).
class rope_table {
public:
    rope_table() noexcept = default;

    /// @param dims  elements of a head that are turned, even; @param base of the frequencies, 10000 in most models.
    rope_table(index_t positions, index_t dims, double base = 10000.0)
        : cosines_(checked(positions), half(dims)), sines_(positions, dims / 2) {
        if (!(base > 0 && base <= std::numeric_limits<double>::max()))
            detail::raise<shape_error>("tessera: rope_table: base is " + std::to_string(base) +
                                       ", expected a positive finite number");
        for (index_t i = 0; i < pairs(); ++i)
            fill(i, std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(dims)));
    }

    /// Any frequencies (radians per position), one per pair: scaled ("long context") models.
    rope_table(index_t positions, vector_view<double const> frequencies)
        : cosines_(checked(positions), frequencies.extent(0)), sines_(positions, frequencies.extent(0)) {
        check::elements("rope_table", "frequencies", frequencies);
        for (index_t i = 0; i < pairs(); ++i) fill(i, frequencies[i]);
    }

    /// The table of the opposite angles: rope with it undoes rope with this one, and is its gradient.
    rope_table inverse() const {
        rope_table result;
        result.cosines_ = matrix<float>(positions(), pairs());
        result.sines_ = matrix<float>(positions(), pairs());
        for (index_t p = 0; p < positions(); ++p)
            for (index_t i = 0; i < pairs(); ++i) {
                result.cosines_(p, i) = cosines_(p, i);
                result.sines_(p, i) = -sines_(p, i);
            }
        return result;
    }

    index_t positions() const noexcept { return cosines_.extent(0); }
    index_t pairs() const noexcept { return cosines_.extent(1); }
    matrix_view<float const> cosines() const noexcept { return cosines_.view(); } ///< (positions, pairs)
    matrix_view<float const> sines() const noexcept { return sines_.view(); }     ///< (positions, pairs)

private:
    static index_t checked(index_t positions) {
        check::within("rope_table", "number of positions", positions, 0, index_t{1} << 40);
        return positions;
    }
    static index_t half(index_t dims) {
        check::within("rope_table", "dims", dims, 0, index_t{1} << 20);
        check::multiple("rope_table", "dims", dims, 2);
        return dims / 2;
    }
    void fill(index_t pair, double frequency) {
        for (index_t p = 0; p < positions(); ++p) {
            double const angle = static_cast<double>(p) * frequency;
            cosines_(p, pair) = static_cast<float>(std::cos(angle));
            sines_(p, pair) = static_cast<float>(std::sin(angle));
        }
    }

    matrix<float> cosines_;
    matrix<float> sines_;
};

} // namespace tessera::inline TESSERA_ABI
