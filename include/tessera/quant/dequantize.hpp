// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What a stored matrix stands for, and how far that is from what it was made of.
///
///     ts::dequantize(exec, q, w);                          // w (n, k) = every weight of q, decoded
///     ts::quantization_error e = ts::error_of(exec, q, w); // of q against the weights w
///     e.snr_db; e.max_error; e.sign_flips;
///
/// q is a view or an owner of any storage: quantised, blocks of GGUF, tables, dense. The numbers are those that q(n, k) is by
/// definition, on every backend.

#include "../core/exec.hpp"
#include "../kernels/operand.hpp"
#include "../operators/aliasing.hpp"

#include <cmath>
#include <limits>
#include <utility>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Columns of a row that are decoded at a time where a storage decodes tiles.
inline constexpr index_t dequantized_columns = 1024;

/// The code of a scheme's weight, looked up: value[c] is the format's.
template <class Scheme>
void decode_row(quantized<Scheme> const& w, index_t n, float const* value, float* y, index_t stride) noexcept {
    constexpr index_t each = Scheme::granularity_type::columns;
    index_t const columns = each == 0 ? w.cols() : each;
    std::uint8_t const* const codes = w.codes() + n * w.row_bytes();
    for (index_t k0 = 0; k0 < w.cols(); k0 += columns) {
        float const scale = w.scale(n, k0);
        auto const zero = static_cast<float>(w.zero_point(n, k0));
        index_t const end = minimum(k0 + columns, w.cols());
        for (index_t k = k0; k < end; ++k)
            y[k * stride] = scale * (value[bitpack::get<Scheme::format::bits>(codes, k)] - zero);
    }
}

/// Rows [first, last) of any storage.
template <class Storage>
void decode_rows(Storage const& w, index_t first, index_t last, matrix_view<float> const& y) noexcept {
    float tile[dequantized_columns];
    auto const by_tiles = [&](auto const& decode) {
        for (index_t n = first; n < last; ++n)
            for (index_t k0 = 0; k0 < y.extent(1); k0 += dequantized_columns) {
                index_t const k1 = minimum(k0 + dequantized_columns, y.extent(1));
                decode(n, k0, k1);
                for (index_t k = k0; k < k1; ++k) y(n, k) = tile[k - k0];
            }
    };
    if constexpr (requires { w.decode_tile(first, last, first, last, tile, first); })
        by_tiles([&](index_t n, index_t k0, index_t k1) { w.decode_tile(n, n + 1, k0, k1, tile, dequantized_columns); });
    else if constexpr (requires { w.decode(first, last, first, last, tile, first); })
        by_tiles([&](index_t n, index_t k0, index_t k1) { w.decode(n, n + 1, k0, k1, tile, dequantized_columns); });
    else
        for (index_t n = first; n < last; ++n)
            for (index_t k = 0; k < y.extent(1); ++k) y(n, k) = static_cast<float>(w(n, k));
}
template <class Scheme>
void decode_rows(quantized<Scheme> const& w, index_t first, index_t last, matrix_view<float> const& y) noexcept {
    if (y.extent(1) == 0) return; // no pointer to move from
    float value[std::size_t{1} << Scheme::format::bits];
    for (std::uint32_t code = 0; code < 1u << Scheme::format::bits; ++code) value[code] = Scheme::format::decode(code);
    for (index_t n = first; n < last; ++n) decode_row(w, n, value, y.data_handle() + n * y.stride(0), y.stride(1));
}

template <class W>
using storage_of = typename as_storage<std::remove_cvref_t<W>>::type;

} // namespace detail

/// y = the weights that w stands for.
template <execution_policy Exec, class W>
void dequantize(Exec const& exec,
                W const& w,                         // (n, k)
                matrix_view<float> const& y) {      // (n, k)
    detail::require_backend<Exec>();
    detail::storage_of<W> const storage{w};
    index_t const rows = detail::storage_rows(storage);
    index_t const columns = detail::storage_columns(storage);
    check::equal("dequantize", "rows of y", y.extent(0), rows, "rows of w");
    check::equal("dequantize", "columns of y", y.extent(1), columns, "columns of w");
    check::elements("dequantize", "y", y);
    detail::check_storage_apart("dequantize", "w", storage, "y", footprint_of(y));
    parallel_for(exec.parallel(), rows, maximum(1, 65536 / maximum(columns, 1)),
                 [&](index_t first, index_t last, index_t) noexcept { detail::decode_rows(storage, first, last, y); });
}
template <execution_policy Exec, class W>
void dequantize(Exec const& exec, W const& w, matrix<float>& y) {
    dequantize(exec, w, y.view());
}

/// How far stored weights are from what they were made of. A weight or a decoded one that is NaN makes the first three NaN.
struct quantization_error {
    double snr_db = 0;          ///< power of the weights over that of the error, in decibels; infinity: no error
    double mean_square = 0;     ///< of the error
    double max_error = 0;       ///< largest |error|
    index_t sign_flips = 0;     ///< weights that came back with the other sign; 0 has none
    double bits_per_weight = 0; ///< stored bytes of codes, scales and all else
};

/// The error of q against w. Allocates a matrix of q's size; sums are in double, in order.
template <execution_policy Exec, class Q>
quantization_error error_of(Exec const& exec,
                            Q const& q,                                // (n, k)
                            matrix_view<float const> const& w) {       // (n, k)
    detail::storage_of<Q> const storage{q};
    matrix<float> decoded{detail::storage_rows(storage), detail::storage_columns(storage)};
    check::equal("error_of", "rows of w", w.extent(0), decoded.extent(0), "rows of q");
    check::equal("error_of", "columns of w", w.extent(1), decoded.extent(1), "columns of q");
    check::elements("error_of", "w", w);
    dequantize(exec, q, decoded);
    quantization_error e;
    double signal = 0;
    double noise = 0;
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k) {
            auto const exact = static_cast<double>(w(n, k));
            auto const found = static_cast<double>(decoded(n, k));
            double const error = std::fabs(exact - found);
            signal += exact * exact;
            noise += error * error;
            e.max_error = error > e.max_error ? error : e.max_error;
            e.sign_flips += (exact > 0 && found < 0) || (exact < 0 && found > 0);
        }
    if (noise != noise) e.max_error = noise;
    double const count = static_cast<double>(maximum(w.extent(0) * w.extent(1), 1));
    e.mean_square = noise / count;
    e.snr_db = noise == 0 ? std::numeric_limits<double>::infinity() : 10 * std::log10(signal / noise);
    if constexpr (requires { storage.bytes(); })
        e.bits_per_weight = 8 * static_cast<double>(storage.bytes()) / count;
    else
        e.bits_per_weight = 8 * sizeof(typename detail::storage_of<Q>::value_type);
    return e;
}
template <execution_policy Exec, class Q>
quantization_error error_of(Exec const& exec, Q const& q, matrix<float> const& w) {
    return error_of(exec, q, w.view());
}

} // namespace tessera::inline TESSERA_ABI
