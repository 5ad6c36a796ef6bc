// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Switching the width of stored integers, "double rounding": the widest integers are stored, and narrower ones are rounded from
/// them, not from the weights.
///
///     q_l = clip(round(q_h / 2^d), -2^(l-1), 2^(l-1) - 1),   scale_l = scale_h * 2^d,   d = h - l
///
/// Scales are strictly tied, so the bits of every width come out of the same array: an addition, a shift, a clip. Ties go to even
/// unless told otherwise (PyTorch's rounding; adding half before the shift is `half_up`). Rounding up from the highest codes
/// leaves the range and is clipped: of int8 to int4, 120 and above become 7. Source: arXiv:2502.01582, equations 1 to 7.

#include "../core/error.hpp"
#include "../numerics/fixed_point.hpp"
#include "../storage/quantized.hpp"

#include <string>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

/// The integer of `to` bits for one of `from` bits, `from` at least `to`.
[[nodiscard]] constexpr int double_round(int q, int from, int to,
                                         fixed_rounding mode = fixed_rounding::half_even) noexcept {
    int const shift = from - to;
    int const magnitude = shift == 0 ? (q < 0 ? -q : q)
                                     : static_cast<int>(detail::round_fixed(
                                           static_cast<std::uint64_t>(q < 0 ? -q : q), shift, q < 0, mode));
    int const value = q < 0 ? -magnitude : magnitude;
    int const most = (1 << (to - 1)) - 1;
    return value > most ? most : value < -most - 1 ? -most - 1 : value;
}

namespace detail {

/// scale * 2^shift in the same type, which must hold it.
template <class Format, class Stored>
Stored shifted_scale(Stored scale, int shift) {
    float const exact = static_cast<float>(static_cast<double>(static_cast<float>(scale)) * power_of_two(shift));
    auto const refuse = [&](float kept) {
        if (kept != exact && exact == exact)
            raise<unsupported_error>("tessera: switch_width: a scale of " + std::to_string(exact) + " is none in " + Format::name);
    };
    if constexpr (std::is_same_v<Stored, float>) {
        refuse(exact - exact == 0 ? exact : 0.0f);
        return exact;
    } else {
        std::uint32_t const code = exact == 0 && Format::decode(0) > 0
                                       ? 0
                                       : Format::encode(exact, rounding::nearest_even, overflow::saturate);
        refuse(Format::decode(code));
        return Stored::from_bits(static_cast<decltype(Stored{}.to_bits())>(code));
    }
}

} // namespace detail

/// q with integers of Narrow instead: symmetric schemes of signed integers. O(n k).
template <element_format Narrow, class Format, class Granularity, class Scale>
quantized_tensor<scheme<Narrow, Granularity, Scale>> switch_width(quantized<scheme<Format, Granularity, Scale>> const& q, // (n, k)
                                                                  fixed_rounding mode = fixed_rounding::half_even) {
    static_assert(Format::is_integer && Narrow::is_integer && Format::decode(Format::encode(-1.0f)) < 0 &&
                      Narrow::decode(Narrow::encode(-1.0f)) < 0,
                  "tessera: switch_width: formats must be signed integers");
    static_assert(Narrow::bits <= Format::bits, "tessera: switch_width: the width must not grow");
    using levels = detail::scale_levels<Scale>;
    constexpr int shift = Format::bits - Narrow::bits;
    quantized_tensor<scheme<Narrow, Granularity, Scale>> result{q.rows(), q.cols()};
    // Of two levels the upper one takes the factor.
    for (index_t i = 0; i < q.scale_rows() * q.scale_columns(); ++i)
        result.scales()[i] = levels::are_two ? q.scales()[i] : detail::shifted_scale<typename levels::lower>(q.scales()[i], shift);
    if constexpr (levels::are_two)
        for (index_t i = 0; i < q.super_scale_count(q.rows(), q.cols()); ++i)
            result.super_scales()[i] = detail::shifted_scale<typename levels::upper>(q.super_scales()[i], shift);
    index_t const row_bytes = bitpack::bytes(q.cols(), Narrow::bits);
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) {
            int const value = double_round(Format::integer(q.code(n, k)), Format::bits, Narrow::bits, mode);
            bitpack::set<Narrow::bits>(result.codes() + n * row_bytes, k,
                                       static_cast<std::uint32_t>(value) & ((1u << Narrow::bits) - 1u));
        }
    return result;
}
template <element_format Narrow, class Scheme>
auto switch_width(quantized_tensor<Scheme> const& q, fixed_rounding mode = fixed_rounding::half_even) {
    return switch_width<Narrow>(q.view(), mode);
}

} // namespace tessera::inline TESSERA_ABI
