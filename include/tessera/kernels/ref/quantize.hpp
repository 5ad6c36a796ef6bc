// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of rounding weights that share a scale. `kernel<op::quantize, Exec, weight_grid<Format>>` has
///
///     static weight_range range(w, n)                          // smallest, largest, whether all are finite
///     static void encode(w, n, grid, choice, row, k0)          // codes k0 to k0 + n of a packed row
///     static void round(w, n, grid, out)                       // out[i] = the weight that the nearest code of w[i] stands for
///
/// for n contiguous weights of one row. Every backend gives the same bits.

#include "../../core/exec.hpp"
#include "../../core/philox.hpp"
#include "../../numerics/rounding.hpp"
#include "../../storage/bitpack.hpp"
#include "../kernel.hpp"

#include <cmath>
#include <limits>

namespace tessera::inline TESSERA_ABI {

/// Smallest and largest weight of a block, 0 included. NaN is neither.
struct weight_range {
    float low = 0;
    float high = 0;
    bool finite = true;

    /// The largest |w|; +0 of zeros.
    float magnitude() const noexcept { return high > -low ? high : 0.0f - low; }

    void include(float w) noexcept {
        low = w < low ? w : low;
        high = w > high ? w : high;
        finite = finite && std::fabs(w) <= std::numeric_limits<float>::max();
    }
    void include(weight_range const& other) noexcept {
        low = other.low < low ? other.low : low;
        high = other.high > high ? other.high : high;
        finite = finite && other.finite;
    }
};

/// The numbers that a block of weights can become: scale * (value of a code - zero), codes between two values.
template <class Format>
struct weight_grid {
    float scale = 0;
    float zero = 0;
    float low = -std::numeric_limits<float>::infinity(); ///< of w / scale + zero
    float high = std::numeric_limits<float>::infinity();

    /// What is encoded for w: its quotient, by float32 division, and the zero point. 0 where the scale is 0 or NaN.
    float position(float w) const noexcept {
        float const v = (scale > 0 ? w / scale : 0.0f) + zero;
        return v < low ? low : v > high ? high : v;
    }
    std::uint32_t code(float w, rounding mode = rounding::nearest_even, std::uint32_t random = 0) const noexcept {
        return Format::encode(position(w), mode, overflow::saturate, random);
    }
    /// The weight that a code stands for.
    float weight(std::uint32_t code) const noexcept { return scale * (Format::decode(code) - zero); }
};

/// How a code is chosen of the grid's: weight i of those given takes random number `first + i`.
struct code_choice {
    rounding mode = rounding::nearest_even;
    std::uint64_t seed = 0;
    std::uint64_t first = 0;
};

template <class Format>
struct kernel<op::quantize, reference, weight_grid<Format>> {
    static weight_range range(float const* w, // (n)
                              index_t n) noexcept {
        weight_range r;
        for (index_t i = 0; i < n; ++i) r.include(w[i]);
        return r;
    }

    static void encode(float const* w, // (n)
                       index_t n, weight_grid<Format> const& grid, code_choice const& choice, std::uint8_t* row,
                       index_t k0) noexcept {
        philox const random{choice.seed};
        for (index_t i = 0; i < n; ++i) {
            bool const draws = choice.mode == rounding::stochastic;
            std::uint32_t const bits = draws ? random.bits(choice.first + static_cast<std::uint64_t>(i)) : 0u;
            bitpack::set<Format::bits>(row, k0 + i, grid.code(w[i], choice.mode, bits));
        }
    }

    static void round(float const* w, // (n)
                      index_t n, weight_grid<Format> const& grid,
                      float* out) noexcept { // (n)
        for (index_t i = 0; i < n; ++i) out[i] = grid.weight(grid.code(w[i]));
    }
};

} // namespace tessera::inline TESSERA_ABI
