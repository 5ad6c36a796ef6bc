// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of a product: y[n] += factor * sum over k of prepared(x)[k] * W(n, k), in double.

#include "../../core/workspace.hpp"
#include "../kernel.hpp"
#include "../operand.hpp"
#include "prepare.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Panels are a layout: position (n, k) of a code is storage/prepacked.hpp's formula.
template <index_t R, class Storage>
float reference_element(prepacked<panel<R, 4>, Storage> const& w, index_t n, index_t k) noexcept {
    using weights = prepacked<panel<R, 4>, Storage>;
    using source = typename weights::source;
    index_t const g = k / w.group();
    index_t const within = k % w.group();
    std::byte const* const panel = w.panel_data(n / R);
    std::byte const* const scales = panel + w.scales_offset(g);
    auto const number = [&](index_t within_header, index_t within_super) {
        float v;
        if constexpr (weights::packs_minima) {
            auto const both = static_cast<int>(scales[n % R]);
            v = static_cast<float>(within_header == 0 ? both % 16 : both / 16);
        } else {
            v = static_cast<float>(weights::template scale_at<weights::shares_scales, typename weights::scale_type>(scales + within_header, n % R));
        }
        if constexpr (weights::super_groups > 0)
            v *= static_cast<float>(weights::template scale_at<weights::shares_super_scales, typename weights::super_scale_type>(
                panel + w.super_offset(g) + within_super, n % R));
        return v;
    };
    index_t const from_strip = weights::first_column(g) + within;
    auto const column = static_cast<int>(from_strip % weights::strip_columns);
    std::byte const* const strip = panel + w.codes_offset(g) + weights::strip_offset(from_strip) + 4 * (n % R) + column % 4;
    std::uint32_t code = 0;
    for (int p = 0; p < weights::planes.count; ++p) {
        auto const byte = static_cast<std::uint32_t>(strip[weights::planes.vector(p, column) * weights::vector_bytes]);
        std::uint32_t const mask = (1u << weights::planes.bits[p]) - 1u;
        code |= (byte >> weights::planes.bit(p, column) & mask) << weights::planes.shift[p];
    }
    float value = source::value(code);
    if (source::offset == offset_kind::zero_point)
        value -= static_cast<float>(weights::template scale_at<weights::shares_scales, std::uint8_t>(scales + weights::scale_bytes, n % R));
    return number(0, 0) * value +
           (source::offset == offset_kind::minimum ? number(weights::scale_bytes, weights::super_scale_bytes) : 0.0f);
}
template <index_t R, class T>
float reference_element(prepacked<panel<R, 1>, matrix_view<T const>> const& w, index_t n, index_t k) noexcept {
    return static_cast<float>(w.column(n / R, k)[n % R]);
}
TESSERA_MAY_CALL_HOST // of storages that no device holds
template <class Storage>
TESSERA_HOST_DEVICE float reference_element(Storage const& w, index_t n, index_t k) noexcept {
    return static_cast<float>(w(n, k));
}

/// sum over k < columns of x[k] W(n, k).
template <class Storage>
TESSERA_HOST_DEVICE double reference_dot(Storage const& w, index_t n, index_t columns, double const* x) noexcept {
    double dot = 0;
    for (index_t k = 0; k < columns; ++k) dot += x[k] * static_cast<double>(reference_element(w, n, k));
    return dot;
}
/// sum over n < rows of x[n] W(n, k).
template <class Storage>
TESSERA_HOST_DEVICE double reference_transposed_dot(Storage const& w, index_t k, index_t rows, double const* x) noexcept {
    double dot = 0;
    for (index_t n = 0; n < rows; ++n) dot += x[n] * static_cast<double>(reference_element(w, n, k));
    return dot;
}

} // namespace detail

template <class Storage, class Preparation>
struct kernel<op::apply, reference, linear<Storage, Preparation>> {
    /// Counts what `row` carves.
    static void plan(linear<Storage, Preparation> const& w, workspace_sizer& sizer) {
        sizer.carve<double>(w.cols());
    }
    static void row(linear<Storage, Preparation> const& w, double const* x, double* y, double factor, workspace& arena) {
        workspace_scope scope{arena};
        double* const prepared = scope.carve<double>(w.cols());
        detail::reference_prepare<Preparation>(x, w.cols(), prepared);
        for (index_t n = 0; n < w.rows(); ++n) y[n] += factor * detail::reference_dot(w.storage(), n, w.cols(), prepared);
    }
};

} // namespace tessera::inline TESSERA_ABI
