// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A format given by its 2^b values: code c is values[c]. `nf4` (Dettmers et al. 2023, QLoRA, arXiv:2305.14314) is the
/// one with a name; a table of your own is a type with `values` and `name`:
///
///     struct ternary_like { static constexpr float values[] = {-1, 0, 1, 2}; static constexpr char const* name = "t"; };
///     using my_format = tessera::codebook<ternary_like>;
///
/// Encoding gives the nearest value; a tie the lower code (`half_away`: the larger magnitude). Values need no order.
/// There is neither infinity nor NaN: overflow saturates, NaN becomes the code of the value nearest to 0.

#include "../core/macros.hpp"
#include "float_card.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

template <class Table>
struct codebook {
    static constexpr int size = static_cast<int>(sizeof(Table::values) / sizeof(float));
    static_assert(size >= 2 && size <= 256 && (size & (size - 1)) == 0,
                  "tessera: codebook<Table>: Table::values needs 2, 4, ... or 256 floats");

    static constexpr int bits = detail::bit_width(size) - 1;
    static constexpr char const* name = Table::name;
    static constexpr bool is_integer = false;
    static constexpr float max_magnitude = [] {
        float largest = 0;
        for (float value : Table::values) largest = value > largest ? value : -value > largest ? -value : largest;
        return largest;
    }();

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return Table::values[code & (size - 1u)];
    }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t encode(float x,
                                                                            rounding mode = rounding::nearest_even,
                                                                            overflow = overflow::saturate,
                                                                            std::uint32_t random = 0) noexcept {
        double const target = x == x ? static_cast<double>(x) : 0.0;
        // The neighbours: the largest value not above the target, the smallest not below it, each of lowest code.
        int below = -1;
        int above = -1;
        for (int i = 0; i < size; ++i) {
            float const value = Table::values[i];
            if (value <= target && (below < 0 || value > Table::values[below])) below = i;
            if (value >= target && (above < 0 || value < Table::values[above])) above = i;
        }
        if (below < 0 || above < 0 || below == above) return static_cast<std::uint32_t>(below < 0 ? above : below);
        return static_cast<std::uint32_t>(takes_upper(below, above, target, mode, random) ? above : below);
    }

private:
    /// Exact: the sum of two floats whose exponents differ by less than 29 is a double, and so is twice a float.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr bool takes_upper(int below, int above, double target,
                                                                        rounding mode, std::uint32_t random) noexcept {
        double const low = Table::values[below];
        double const high = Table::values[above];
        bool const upper_is_larger = low + high > 0;
        if (mode == rounding::toward_zero) return !upper_is_larger;
        if (mode == rounding::stochastic)
            return (target - low) * 0x1p32 + random * (high - low) >= (high - low) * 0x1p32;
        if (2 * target == low + high) return mode == rounding::half_away ? upper_is_larger : above < below;
        return 2 * target > low + high;
    }
};

/// The values that bitsandbytes stores, float32 artefacts of the quantile rule included.
struct nf4_table {
    static constexpr char const* name = "nf4";
    static constexpr float values[16] = {-1.0f,
                                         -0.6961928009986877f,
                                         -0.5250730514526367f,
                                         -0.39491748809814453f,
                                         -0.28444138169288635f,
                                         -0.18477343022823334f,
                                         -0.09105003625154495f,
                                         0.0f,
                                         0.07958029955625534f,
                                         0.16093020141124725f,
                                         0.24611230194568634f,
                                         0.33791524171829224f,
                                         0.44070982933044434f,
                                         0.5626170039176941f,
                                         0.7229568362236023f,
                                         1.0f};
};

/// 4-bit NormalFloat: quantiles of the normal distribution, for values scaled to [-1, 1].
using nf4 = codebook<nf4_table>;

static_assert(element_format<nf4>);

} // namespace tessera::inline TESSERA_ABI
