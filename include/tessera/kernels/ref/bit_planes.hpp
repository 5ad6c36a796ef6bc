// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of a product with x in bipolar integers: the codes' values as integers, then scales and offset.

#include "../bit_plane_rows.hpp"
#include "apply.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Codes of a row of x; returns its scale.
template <int Bits>
float reference_bipolar(double const* x, index_t columns, std::uint8_t* codes) noexcept {
    float a = 0;
    for (index_t k = 0; k < columns; ++k) {
        auto const v = std::fabs(static_cast<float>(x[k]));
        a = v <= std::numeric_limits<float>::max() ? (v > a ? v : a) : std::numeric_limits<float>::quiet_NaN();
        if (a != a) break;
    }
    bipolar_scale const of{a, Bits};
    for (index_t k = 0; k < columns; ++k)
        codes[k] = static_cast<std::uint8_t>(bipolar<Bits>::encode(of.inverse == 0 ? 0.0f : static_cast<float>(x[k]) * of.inverse));
    return of.scale;
}

} // namespace detail

template <int Bits, int XBits>
struct kernel<op::apply, reference, linear<bit_planes<Bits>, bipolar_per_token<XBits>>> {
    using operand = linear<bit_planes<Bits>, bipolar_per_token<XBits>>;

    static void plan(operand const& w, workspace_sizer& sizer) { sizer.carve<std::uint8_t>(w.cols()); }
    static void row(operand const& w, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        auto* const codes = scope.carve<std::uint8_t>(w.cols());
        double const scale = detail::reference_bipolar<XBits>(x, w.cols(), codes);
        bit_planes<Bits> const& planes = w.storage();
        for (index_t n = 0; n < w.rows(); ++n) {
            std::int64_t dot = 0;
            std::int64_t sum = 0;
            for (index_t k = 0; k < w.cols(); ++k) {
                dot += bipolar<XBits>::integer(codes[k]) * bipolar<Bits>::integer(planes.code(n, k));
                sum += bipolar<XBits>::integer(codes[k]);
            }
            y[n] += factor * scale * (static_cast<double>(planes.scale(n)) * static_cast<double>(dot) +
                                      static_cast<double>(planes.offset(n)) * static_cast<double>(sum));
        }
    }
};

} // namespace tessera::inline TESSERA_ABI
