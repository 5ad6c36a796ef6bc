// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The 8-bit floats. Values, special codes, rounding and default overflow are those of ml_dtypes.
///
///     name          bias  largest   smallest normal, subnormal   specials          overflow
///     e5m2            15    57344   2^-14, 2^-16                 infinity, NaN     infinity
///     e4m3             7      240   2^-6, 2^-9                   infinity, NaN     infinity
///     e3m4             3     15.5   2^-2, 2^-6                   infinity, NaN     infinity
///     e4m3fn           7      448   2^-6, 2^-9                   NaN               NaN
///     e5m2fnuz        16    57344   2^-15, 2^-17                 NaN, one zero     NaN
///     e4m3fnuz         8      240   2^-7, 2^-10                  NaN, one zero     NaN
///     e4m3b11fnuz     11       30   2^-10, 2^-13                 NaN, one zero     NaN
///     e8m0           127    2^127   2^-127, none                 NaN, no zero      NaN

#include "../core/macros.hpp"
#include "float_format.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// The 8-bit floats of the file comment.
using e5m2 = minifloat<5, 2>;
using e4m3 = minifloat<4, 3>;
using e3m4 = minifloat<3, 4>;
using e4m3fn = minifloat<4, 3, specials::nan_only>;
using e5m2fnuz = minifloat<5, 2, specials::unsigned_zero>;
using e4m3fnuz = minifloat<4, 3, specials::unsigned_zero>;
using e4m3b11fnuz = minifloat<4, 3, specials::unsigned_zero, 11>;

namespace detail {

/// e8m0 with a sign above it and code 0 read as zero: what its encoder rounds in.
struct signed_e8m0 {
    static constexpr float_card card = make_float_card(8, 0, specials::nan_only, 127);
};

[[nodiscard]] constexpr float_card make_e8m0_card() noexcept {
    float_card c = signed_e8m0::card;
    c.bits = 8;
    c.is_signed = false;
    c.has_negative_zero = false;
    c.smallest_normal = c.smallest_subnormal = exact_float(false, 1, -127);
    return c;
}

} // namespace detail

/// Unsigned powers of two, the block scale of OCP Microscaling: code c is 2^(c - 127), 255 is NaN. Zero and negative
/// inputs, -0 included, are NaN. Ties go up (one-bit precision has no even neighbour). Below 2^-126 `nearest_even` rounds
/// as if code 0 were zero, as ml_dtypes and PyTorch do: up to 2^-127 gives code 0, above it code 1.
struct e8m0 {
    static constexpr float_card card = detail::make_e8m0_card();
    static constexpr int bits = 8;
    static constexpr char const* name = "e8m0";
    static constexpr float max_magnitude = card.max_finite;
    static constexpr bool is_integer = false;

    /// From float or double, with one rounding.
    template <class Real>
    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr std::uint32_t
    encode(Real x, rounding mode = rounding::nearest_even, overflow beyond = overflow::nan,
           std::uint32_t random = 0) noexcept {
        if (!(x > 0)) return card.nan_code;
        if (mode != rounding::nearest_even && x < 0x1p-126) // one binade up, where the encoder knows both neighbours
            return x <= 0x1p-127 ? 0 : detail::encode_float<detail::signed_e8m0>(2.0 * x, mode, beyond, random) - 1;
        return detail::encode_float<detail::signed_e8m0>(x, mode, beyond, random);
    }

    constexpr e8m0() noexcept = default;
    TESSERA_HOST_DEVICE constexpr explicit e8m0(float x) noexcept : code_{static_cast<std::uint8_t>(encode(x))} {}
    TESSERA_HOST_DEVICE constexpr explicit e8m0(double x) noexcept : code_{static_cast<std::uint8_t>(encode(x))} {}

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr e8m0 from_bits(std::uint8_t code) noexcept {
        e8m0 f;
        f.code_ = code;
        return f;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr std::uint8_t to_bits() const noexcept { return code_; }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator float() const noexcept { return decode(code_); }
    [[nodiscard]] TESSERA_HOST_DEVICE constexpr explicit operator double() const noexcept { return decode(code_); }

    [[nodiscard]] TESSERA_HOST_DEVICE static constexpr float decode(std::uint32_t code) noexcept {
        code &= 0xffu;
        return code == 0xffu ? detail::quiet_nan(false) : detail::exact_float(false, 1, static_cast<int>(code) - 127);
    }

    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator==(e8m0 a, e8m0 b) noexcept {
        return a.code_ == b.code_ && a.code_ != 0xffu;
    }
    [[nodiscard]] TESSERA_HOST_DEVICE friend constexpr bool operator<(e8m0 a, e8m0 b) noexcept {
        return a.code_ < b.code_ && b.code_ != 0xffu;
    }

private:
    std::uint8_t code_;
};

static_assert(element_format<e5m2> && element_format<e4m3fn> && element_format<e8m0>);

} // namespace tessera::inline TESSERA_ABI
