// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The laws of a floating-point format with a card, checked on every code and around every boundary between codes
/// against arithmetic in double. Nothing here shares code with the encoders: values come from ldexp, neighbours from a
/// list, roundings from comparisons.

#include <tessera/numerics/float_card.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace tessera_test {

/// A format without its type, so that the laws are compiled once.
struct erased_format {
    char const* name;
    tessera::float_card card;
    float (*decode)(std::uint32_t);
    std::uint32_t (*encode)(float, tessera::rounding, tessera::overflow, std::uint32_t);
    std::uint32_t (*encode_double)(double, tessera::rounding, tessera::overflow, std::uint32_t);
};

template <class F>
erased_format erase_format() {
    return {F::name, F::card, [](std::uint32_t code) { return F::decode(code); },
            [](float x, tessera::rounding r, tessera::overflow o, std::uint32_t random) {
                return F::encode(x, r, o, random);
            },
            [](double x, tessera::rounding r, tessera::overflow o, std::uint32_t random) {
                return F::encode(x, r, o, random);
            }};
}

/// The formula of the card, for a positive code; also one step beyond the largest.
inline double card_value(tessera::float_card const& c, std::uint32_t code) {
    auto const field = static_cast<int>(code >> c.mantissa_bits);
    double const mantissa = code & ((1u << c.mantissa_bits) - 1u);
    double const implicit = field == 0 ? 0.0 : std::ldexp(1.0, c.mantissa_bits);
    return std::ldexp(implicit + mantissa, std::max(field, 1) - c.bias - c.mantissa_bits);
}

class format_laws {
public:
    explicit format_laws(erased_format const& format) : f{format}, c{format.card}, sign{1u << (format.card.bits - 1)} {
        for (std::uint32_t code = 0; code <= c.max_code + 1; ++code) values.push_back(card_value(c, code));
    }

    void run() {
        CAPTURE(f.name);
        codes();
        special_values();
        for (std::uint32_t code = 0; code <= c.max_code; ++code) between(code);
        for (double x : {values.back() * 2, values.back() * 1024, 3e38, values[1] / 64, values[1] * 0x1p-40, 1e-45})
            point(x);
        CHECK_MESSAGE(wrong == 0, wrong, " of ", checked, " conversions of ", f.name,
                      " are wrong, the first: ", first_wrong, " mode ", first_mode, " gives ", first_code);
    }

    long checked = 0;

private:
    /// Value of every code; decode then encode is the identity on the grid in every mode; the order is monotone.
    void codes() {
        for (std::uint32_t code = 0; code <= c.max_code; ++code) {
            expect(f.decode(code) == static_cast<float>(values[code]), values[code], 0, code);
            expect(code == 0 || values[code] > values[code - 1], values[code], 0, code);
            for (auto mode : modes) {
                expect(f.encode(f.decode(code), mode, c.default_overflow, 0xffffffffu) == code, values[code],
                       static_cast<int>(mode), code);
                if (code != 0 || c.has_negative_zero) {
                    expect(f.decode(code | sign) == -f.decode(code) && std::signbit(f.decode(code | sign)),
                           -values[code], 0, code);
                    expect(f.encode(-f.decode(code), mode, c.default_overflow, 0xffffffffu) == (code | sign),
                           -values[code], static_cast<int>(mode), code);
                }
            }
        }
        for (std::uint32_t code = c.max_code + 1; code < sign; ++code) {
            bool const infinite = c.has_infinity && code == c.infinity_code;
            expect(infinite ? std::isinf(f.decode(code)) : std::isnan(f.decode(code)), code, 0, code);
        }
        if (!c.has_negative_zero)
            expect(std::isnan(f.decode(sign)) &&
                       f.encode(-0.0f, tessera::rounding::nearest_even, c.default_overflow, 0) == 0,
                   0, 0, sign);
        expect(c.max_finite == static_cast<float>(values[c.max_code]), c.max_finite, 0, c.max_code);
        expect(c.smallest_subnormal == static_cast<float>(values[1]), c.smallest_subnormal, 0, 1);
    }

    void special_values() {
        float const infinity = std::numeric_limits<float>::infinity();
        float const nan = std::numeric_limits<float>::quiet_NaN();
        for (auto beyond : policies) {
            for (std::uint32_t negative : {0u, sign}) {
                float const s = negative != 0 ? -1.0f : 1.0f;
                auto const code = f.encode(std::copysign(infinity, s), tessera::rounding::nearest_even, beyond, 0);
                expect(code == overflowed(beyond, negative), s * infinity, 0, code);
                auto const nan_code = f.encode(std::copysign(nan, s), tessera::rounding::nearest_even, beyond, 0);
                if (c.has_nan)
                    expect(std::isnan(f.decode(nan_code)), nan, 0, nan_code);
                else
                    expect(f.decode(nan_code) == 0.0f, nan, 0, nan_code);
            }
        }
    }

    /// Both neighbours, their middle, quarters, a few odd fractions, and the next float and double on either side.
    void between(std::uint32_t code) {
        double const low = values[code];
        double const high = values[code + 1];
        for (double part : {0.0, 0.125, 0.25, 0.37109375, 0.5, 0.62890625, 0.75, 0.9375}) {
            double const x = low + (high - low) * part;
            point(x);
            point(std::nextafter(static_cast<float>(x), 0.0f));
            point(std::nextafter(static_cast<float>(x), std::numeric_limits<float>::infinity()));
            point_double(std::nextafter(x, 0.0));
            point_double(std::nextafter(x, 4e38));
        }
    }

    void point(double x) {
        if (static_cast<double>(static_cast<float>(x)) == x)
            all_options(x, [this](double y, auto mode, auto beyond, std::uint32_t random) {
                return f.encode(static_cast<float>(y), mode, beyond, random);
            });
        point_double(x);
    }

    void point_double(double x) {
        all_options(x, [this](double y, auto mode, auto beyond, std::uint32_t random) {
            return f.encode_double(y, mode, beyond, random);
        });
    }

    template <class Encode>
    void all_options(double x, Encode encode) {
        for (auto mode : modes) {
            for (std::uint32_t random : {0u, 0x20000000u, 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
                if (random != 0 && mode != tessera::rounding::stochastic) continue;
                std::uint32_t const magnitude = rounded(x, mode, random);
                for (auto beyond : policies) {
                    for (std::uint32_t negative : {0u, sign}) {
                        std::uint32_t expected = negative | magnitude;
                        if (magnitude > c.max_code)
                            expected = overflowed(beyond, negative);
                        else if (magnitude == 0 && !c.has_negative_zero)
                            expected = 0;
                        auto const code = encode(negative != 0 ? -x : x, mode, beyond, random);
                        expect(code == expected, x, static_cast<int>(mode), code);
                    }
                }
            }
        }
    }

    /// The magnitude code of x >= 0, or max_code + 1.
    std::uint32_t rounded(double x, tessera::rounding mode, std::uint32_t random) const {
        if (x >= values.back()) return c.max_code + 1;
        auto const above = std::upper_bound(values.begin(), values.end(), x);
        auto const low = static_cast<std::uint32_t>(above - values.begin()) - 1;
        double const to_low = x - values[low]; // exact: Sterbenz, or a short difference
        double const to_high = values[low + 1] - x;
        double const gap = values[low + 1] - values[low];
        switch (mode) {
        case tessera::rounding::toward_zero: return low;
        case tessera::rounding::half_away: return to_low >= to_high ? low + 1 : low;
        case tessera::rounding::stochastic:
            return std::floor(std::ldexp(to_low / gap, 32)) + random >= 0x1p32 ? low + 1 : low;
        case tessera::rounding::nearest_even: break;
        }
        if (to_low != to_high) return to_low > to_high ? low + 1 : low;
        // Even significand; with one bit of precision only zero is even, and the larger wins elsewhere.
        bool const low_is_even = c.mantissa_bits == 0 ? low == 0 : low % 2 == 0;
        return low_is_even ? low : low + 1;
    }

    std::uint32_t overflowed(tessera::overflow beyond, std::uint32_t negative) const {
        if (beyond == tessera::overflow::infinity && c.has_infinity) return negative | c.infinity_code;
        if (beyond != tessera::overflow::saturate && c.has_nan)
            return c.has_negative_zero ? negative | c.nan_code : c.nan_code;
        return negative | c.max_code;
    }

    void expect(bool holds, double x, int mode, std::uint32_t code) {
        ++checked;
        if (holds) return;
        if (wrong++ == 0) {
            first_wrong = x;
            first_mode = mode;
            first_code = code;
        }
    }

    static constexpr tessera::rounding modes[] = {tessera::rounding::nearest_even, tessera::rounding::half_away,
                                                  tessera::rounding::toward_zero, tessera::rounding::stochastic};
    static constexpr tessera::overflow policies[] = {tessera::overflow::saturate, tessera::overflow::nan,
                                                     tessera::overflow::infinity};
    erased_format f;
    tessera::float_card c;
    std::uint32_t sign;
    std::vector<double> values; // of the positive codes, and one beyond
    long wrong = 0;
    double first_wrong = 0;
    int first_mode = 0;
    std::uint32_t first_code = 0;
};

} // namespace tessera_test
