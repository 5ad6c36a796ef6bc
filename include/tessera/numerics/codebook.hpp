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

/// The element format of the values in `Table::values`: 2, 4, ... or 256 ascending floats; code i is the i-th.
template <class Table>
struct codebook {
    static constexpr int size = static_cast<int>(sizeof(Table::values) / sizeof(float));
    static_assert(size >= 2 && size <= 256 && (size & (size - 1)) == 0,
                  "tessera: codebook<Table>: Table::values needs 2, 4, ... or 256 floats");

private:
    struct table {
        float values[size];
    };
    static constexpr table copied = [] {
        table t{};
        for (int i = 0; i < size; ++i) t.values[i] = Table::values[i];
        return t;
    }();
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float value_of(std::uint32_t code) noexcept {
#if defined(__CUDA_ARCH__)
        constexpr table local = copied; // device code cannot index a static array of the host
        return local.values[code];
#else
        return Table::values[code];
#endif
    }

    /// Exact: the sum of two floats whose exponents differ by less than 29 is a double, and so is twice a float.
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr bool takes_upper(double low, double high, bool upper_wins_ties,
                                                                        double target, rounding mode,
                                                                        std::uint32_t random) noexcept {
        bool const upper_is_larger = low + high > 0;
        if (mode == rounding::toward_zero) return !upper_is_larger;
        if (mode == rounding::stochastic)
            return (target - low) * 0x1p32 + random * (high - low) >= (high - low) * 0x1p32;
        if (2 * target == low + high) return mode == rounding::half_away ? upper_is_larger : upper_wins_ties;
        return 2 * target > low + high;
    }

public:
    static constexpr int bits = detail::bit_width(size) - 1;
    static constexpr char const* name = Table::name;
    static constexpr bool is_integer = false;
    static constexpr float max_magnitude = [] {
        float largest = 0;
        for (float value : Table::values) largest = value > largest ? value : -value > largest ? -value : largest;
        return largest;
    }();

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return value_of(code & (size - 1u));
    }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t encode(float x,
                                                                            rounding mode = rounding::nearest_even,
                                                                            overflow = overflow::saturate,
                                                                            std::uint32_t random = 0) noexcept {
        double const target = x == x ? static_cast<double>(x) : 0.0;
        // The neighbours: the largest value not above the target, the smallest not below it, each of lowest code.
        constexpr auto none = static_cast<std::uint32_t>(size);
        std::uint32_t below = none;
        std::uint32_t above = none;
        for (std::uint32_t code = 0; code < none; ++code) {
            float const value = value_of(code);
            if (value <= target && (below == none || value > value_of(below))) below = code;
            if (value >= target && (above == none || value < value_of(above))) above = code;
        }
        if (below == none || above == none || below == above) return below == none ? above : below;
        return takes_upper(value_of(below), value_of(above), above < below, target, mode, random) ? above : below;
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
