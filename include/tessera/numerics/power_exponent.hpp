// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Power-exponent codes: integers of b bits that are uniform in |x|^a instead of x, for |x| <= 1 and 0 < a <= 1.
///
///     q = round(L sign(x) |x|^a),   value(q) = sign(q) (|q| / L)^(1 / a),   L = 2^(b-1) - 1
///
/// Powers keep products: value(p) value(q) is the power of |p q| / L^2. Sums do not commute with them, so a product of matrices
/// decodes first, by table. With a = 1/2 values are q |q| / L^2. Source: PowerQuant (arXiv:2301.09858), NUPES (arXiv:2308.05600).
///
/// `power_exponent<Bits, Num, Den>` is a format for schemes, a = Num / Den; for an exponent that is found at run time see
/// quant/power.hpp.

#include "../core/macros.hpp"
#include "int_format.hpp"

#include <cmath>
#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// The integer for x: rounded in the domain of powers, to even where nothing else is said; |x| above 1 saturates, NaN becomes 0.
[[nodiscard]] inline int power_encode(double x, int bits, double exponent) noexcept {
    double const most = (1 << (bits - 1)) - 1;
    double const scaled = std::nearbyint(most * std::pow(std::fabs(x), exponent));
    int const magnitude = static_cast<int>(scaled < most ? scaled : x == x ? most : 0);
    return x < 0 ? -magnitude : magnitude;
}

/// What it stands for. The lowest code, -2^(b-1), is beyond -1 and never given.
[[nodiscard]] inline double power_decode(int q, int bits, double exponent) noexcept {
    double const most = (1 << (bits - 1)) - 1;
    double const magnitude = std::pow((q < 0 ? -q : q) / most, 1 / exponent);
    return q < 0 ? -magnitude : magnitude;
}

namespace detail {

/// x^(1 / n) for 0 <= x <= 2^20, by Newton's method from above, as a constant expression.
[[nodiscard]] constexpr double root(double x, int n) noexcept {
    if (x == 0 || n == 1) return x;
    double y = x > 1 ? x : 1;
    for (int i = 0; i < 4000; ++i) {
        double power = 1;
        for (int j = 1; j < n; ++j) power *= y;
        double const next = y - (y * power - x) / (n * power);
        if (!(next < y)) break;
        y = next;
    }
    return y;
}

} // namespace detail

/// The format of the file comment with a = Num / Den. Codes are two's complement; values are in [-1, 1] but for the lowest code.
template <int Bits, int Num, int Den>
struct power_exponent {
    static_assert(Bits >= 2 && Bits <= 8, "tessera: power_exponent<Bits, Num, Den>: needs 2 to 8 bits");
    static_assert(Num >= 1 && Num <= Den && Den <= 20,
                  "tessera: power_exponent<Bits, Num, Den>: the exponent Num / Den is above 0, at most 1, and Den at most 20");
    using integer_format = small_integer<Bits, signedness::is_signed>;

    static constexpr int bits = Bits;
    static constexpr char name_text[] = {'p', 'o', 'w', 'e', 'r', char('0' + Bits), '_', char('0' + Num / 10), char('0' + Num % 10),
                                         '_', char('0' + Den / 10), char('0' + Den % 10), '\0'};
    static constexpr char const* name = name_text;
    static constexpr float max_magnitude = 1;
    static constexpr float symmetric_magnitude = 1;
    static constexpr bool is_integer = false;
    static constexpr bool encodes_nearest = false;

private:
    static constexpr int most = integer_format::max_value;
    struct table {
        float values[std::size_t{1} << Bits];
    };
    static constexpr table known = [] {
        table t{};
        for (std::uint32_t code = 0; code < 1u << Bits; ++code) {
            int const q = integer_format::integer(code);
            double const ratio = static_cast<double>(q < 0 ? -q : q) / most;
            double power = 1;
            for (int i = 0; i < Den; ++i) power *= ratio;
            auto const magnitude = static_cast<float>(detail::root(power, Num));
            t.values[code] = q < 0 ? -magnitude : magnitude;
        }
        return t;
    }();

public:
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        code &= (1u << Bits) - 1u;
#if defined(__CUDA_ARCH__)
        constexpr table local = known; // device code cannot index a static array of the host
        return local.values[code];
#else
        return known.values[code];
#endif
    }
    /// Every rounding is one of L |x|^a; saturates. NaN becomes 0.
    template <class Real>
    [[nodiscard]] static std::uint32_t encode(Real x, rounding mode = rounding::nearest_even,
                                              overflow = overflow::saturate, std::uint32_t random = 0) noexcept {
        double const magnitude = most * std::pow(std::fabs(static_cast<double>(x)), static_cast<double>(Num) / Den);
        double const limited = magnitude > most ? most : magnitude;
        return integer_format::encode(x < 0 ? -limited : limited, mode, overflow::saturate, random);
    }
};

static_assert(element_format<power_exponent<4, 1, 2>>);

} // namespace tessera::inline TESSERA_ABI
