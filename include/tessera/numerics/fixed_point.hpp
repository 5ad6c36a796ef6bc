// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Fixed point: integers of w bits in two's complement that stand for q * 2^-f. `fixed_cast` has the rounding and overflow
/// modes of high-level synthesis tools (in brackets their names of them), `fixed_point<W, F>` is a format for schemes, whose
/// rounding and overflow are those of every format. `fixed_point<8, 6>` is the element of MXINT8.
///
/// **k-hot** numbers have at most k ones in the binary expansion of their magnitude, so that a product is k shifts and
/// additions. `k_hot` gives the nearest; a tie goes to the one that is the rounder number (more zeros at its end: 7 becomes 8,
/// and 11 becomes 12 with k = 2), which is how ties to even decide. Source: arXiv:2401.17544 (QFX); its text leaves the tie open.

#include "../core/macros.hpp"
#include "int_format.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// What becomes of the digits below the last one.
enum class fixed_rounding : std::uint8_t {
    floor,            ///< toward minus infinity: bits are dropped (TRN)
    toward_zero,      ///< (TRN_ZERO)
    half_up,          ///< to nearest; ties toward plus infinity: half is added, bits are dropped (RND)
    half_down,        ///< to nearest; ties toward minus infinity (RND_MIN_INF)
    half_toward_zero, ///< to nearest; ties toward zero (RND_ZERO)
    half_away,        ///< to nearest; ties away from zero (RND_INF)
    half_even,        ///< to nearest; ties to even (RND_CONV)
};

/// What becomes of a number that w bits do not hold.
enum class fixed_overflow : std::uint8_t {
    wrap,               ///< its low w bits (WRAP)
    saturate,           ///< -2^(w-1) or 2^(w-1) - 1 (SAT)
    saturate_symmetric, ///< 2^(w-1) - 1 with its sign; what -2^(w-1) becomes, too (SAT_SYM)
};

namespace detail {

/// significand * 2^-shift as an integer, the sign deciding directed modes; shift > 0.
[[nodiscard]] constexpr std::uint64_t round_fixed(std::uint64_t significand, int shift, bool negative,
                                                  fixed_rounding mode) noexcept {
    std::uint64_t const kept = shift > 63 ? 0 : significand >> shift;
    std::uint64_t const fraction = shift > 63 ? significand : significand - (kept << shift);
    // Above 63 places a significand of 53 bits is less than a half.
    std::uint64_t const half = shift > 63 ? ~std::uint64_t{0} : std::uint64_t{1} << (shift - 1);
    bool away = false;
    switch (mode) {
    case fixed_rounding::floor: away = negative && fraction != 0; break;
    case fixed_rounding::toward_zero: break;
    case fixed_rounding::half_up: away = fraction > half || (fraction == half && !negative); break;
    case fixed_rounding::half_down: away = fraction > half || (fraction == half && negative); break;
    case fixed_rounding::half_toward_zero: away = fraction > half; break;
    case fixed_rounding::half_away: away = fraction >= half; break;
    case fixed_rounding::half_even: away = fraction > half || (fraction == half && kept % 2 != 0); break;
    }
    return kept + (away ? 1 : 0);
}

/// 2^e in double; -1022 <= e <= 1023.
[[nodiscard]] TESSERA_HOST_DEVICE constexpr double power_of_two(int e) noexcept {
    return bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52);
}

[[nodiscard]] constexpr int count_ones(std::uint64_t x) noexcept {
    int ones = 0;
    for (; x != 0; x &= x - 1) ++ones;
    return ones;
}

} // namespace detail

/// The integer q of w bits that stands for x: overflow(round(x * 2^f)); 2 <= width <= 32, -500 <= fraction <= 500. NaN becomes
/// 0; infinities saturate, and wrap to 0.
[[nodiscard]] constexpr std::int64_t fixed_cast(double x, int width, int fraction,
                                                fixed_rounding mode = fixed_rounding::half_even,
                                                fixed_overflow beyond = fixed_overflow::saturate) noexcept {
    detail::float_parts const p = detail::take_apart(x);
    std::int64_t const largest = (std::int64_t{1} << (width - 1)) - 1;
    std::int64_t const lowest = beyond == fixed_overflow::saturate_symmetric ? -largest : -largest - 1;
    if (p.is_nan || (p.is_infinite && beyond == fixed_overflow::wrap)) return 0;
    int const exponent = p.exponent + fraction;
    bool const is_huge = p.is_infinite || (p.significand != 0 && detail::bit_width(p.significand) + exponent > 62);
    if (is_huge && beyond != fixed_overflow::wrap) return p.negative ? lowest : largest;
    std::uint64_t const magnitude = exponent < 0    ? detail::round_fixed(p.significand, -exponent, p.negative, mode)
                                    : exponent < 64 ? p.significand << exponent
                                                    : 0;
    std::uint64_t const bits = p.negative ? ~magnitude + 1 : magnitude;
    if (beyond != fixed_overflow::wrap) {
        auto const value = static_cast<std::int64_t>(bits);
        return value < lowest ? lowest : value > largest ? largest : value;
    }
    std::uint64_t const low = bits & ((std::uint64_t{1} << width) - 1);
    return low > static_cast<std::uint64_t>(largest) ? static_cast<std::int64_t>(low) - (std::int64_t{1} << width)
                                                     : static_cast<std::int64_t>(low);
}

/// What q stands for.
[[nodiscard]] constexpr double fixed_value(std::int64_t q, int fraction) noexcept {
    return static_cast<double>(q) * detail::power_of_two(-fraction);
}

/// The integer nearest to q whose magnitude has at most `ones` ones; ones >= 1, |q| < 2^62.
[[nodiscard]] constexpr std::int64_t k_hot(std::int64_t q, int ones) noexcept {
    auto const magnitude = static_cast<std::uint64_t>(q < 0 ? -q : q);
    std::uint64_t below = magnitude; // the first ones, counted from the left: nothing between lies nearer
    while (detail::count_ones(below) > ones) below &= below - 1;
    if (below == magnitude) return q;
    std::uint64_t const above = below + (below & (~below + 1)); // a carry never adds a one
    std::uint64_t const to_below = magnitude - below;
    std::uint64_t const to_above = above - magnitude;
    auto const chosen = static_cast<std::int64_t>(to_below < to_above ? below : above); // above is the rounder one
    return q < 0 ? -chosen : chosen;
}

/// q * 2^-Fraction for q of Width bits in two's complement, as a format. Integer products take the integers, and 2^-Fraction with the scales.
template <int Width, int Fraction>
struct fixed_point {
    static_assert(Width >= 2 && Width <= 8, "tessera: fixed_point<Width, Fraction>: needs 2 to 8 bits");
    static_assert(Fraction >= -64 && Fraction <= 64, "tessera: fixed_point<Width, Fraction>: Fraction is -64 to 64");
    using integer_format = small_integer<Width, signedness::is_signed>;

    static constexpr int bits = Width;
    // With its bound: clang indexes no array of unknown bound in a constant of the class that derives from this one.
    static constexpr char name_text[10] = {'f', 'i', 'x', 'e', 'd', char('0' + Width), Fraction < 0 ? 'n' : 'p',
                                           char('0' + (Fraction < 0 ? -Fraction : Fraction) / 10),
                                           char('0' + (Fraction < 0 ? -Fraction : Fraction) % 10), '\0'};
    static constexpr char const* name = name_text;
    static constexpr float unit = static_cast<float>(detail::power_of_two(-Fraction));
    static constexpr float max_magnitude = integer_format::max_magnitude * unit;
    /// The largest magnitude that both signs have.
    static constexpr float symmetric_magnitude = static_cast<float>(integer_format::max_value) * unit;
    static constexpr bool is_integer = false;

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        return integer_format::decode(code) * unit;
    }
    /// From float or double, with one rounding; saturates.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow beyond = overflow::saturate,
           std::uint32_t random = 0) noexcept {
        return integer_format::encode(static_cast<double>(x) * detail::power_of_two(Fraction), mode, beyond, random);
    }
};

/// Fixed point whose magnitudes have at most Ones ones. Encoding gives the nearest such number; ties as `k_hot` breaks them, and
/// to even between neighbours. -2^(Width-1), one one, is in; the largest has its ones on the left.
template <int Width, int Fraction, int Ones>
struct k_hot_point : fixed_point<Width, Fraction> {
    static_assert(Ones >= 1 && Ones <= Width, "tessera: k_hot_point<Width, Fraction, Ones>: needs 1 to Width ones");
    using base = fixed_point<Width, Fraction>;

    static constexpr char name_text[] = {'h', 'o', 't', char('0' + Ones), '_', 'f', 'i', 'x', 'e', 'd', char('0' + Width),
                                         base::name_text[6], base::name_text[7], base::name_text[8], '\0'};
    static constexpr char const* name = name_text;

private:
    static constexpr std::uint32_t largest = [] {
        std::uint32_t value = (1u << (Width - 1)) - 1u;
        while (detail::count_ones(value) > Ones) value &= value - 1;
        return value;
    }();

public:
    /// The largest magnitude that both signs have.
    static constexpr float symmetric_magnitude = static_cast<float>(largest) * base::unit;

    template <class Real>
    [[nodiscard]] static constexpr std::uint32_t encode(Real x, rounding mode = rounding::nearest_even,
                                                        overflow = overflow::saturate, std::uint32_t random = 0) noexcept {
        if (x != x) return 0;
        bool const negative = x < 0;
        std::uint32_t const most = negative ? 1u << (Width - 1) : largest;
        double const t = (negative ? -static_cast<double>(x) : static_cast<double>(x)) * detail::power_of_two(Fraction);
        std::uint32_t magnitude = most;
        if (t < most) {
            auto below = static_cast<std::uint32_t>(t);
            while (detail::count_ones(below) > Ones) below &= below - 1;
            std::uint32_t const above = detail::count_ones(below) == Ones ? below + (below & (~below + 1)) : below + 1;
            magnitude = is_upper(t - below, above - t, mode, random, (below & (above - below)) != 0) ? above : below;
        }
        return (negative ? ~magnitude + 1 : magnitude) & ((1u << Width) - 1u);
    }

private:
    /// Distances to both neighbours are exact: fewer than 53 bits.
    [[nodiscard]] static constexpr bool is_upper(double to_below, double to_above, rounding mode, std::uint32_t random,
                                                 bool above_is_rounder) noexcept {
        switch (mode) {
        case rounding::toward_zero: return false;
        case rounding::half_away: return to_below >= to_above;
        case rounding::stochastic: return to_below * 0x1p32 + random * (to_below + to_above) >= (to_below + to_above) * 0x1p32;
        case rounding::nearest_even: break;
        }
        return to_below > to_above || (to_below == to_above && above_is_rounder);
    }
};

static_assert(element_format<fixed_point<8, 6>> && element_format<k_hot_point<8, 0, 2>>);

} // namespace tessera::inline TESSERA_ABI
