// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Weights in power-exponent codes (numerics/power_exponent.hpp) with an exponent that is found, without data, for a matrix or a
/// whole network: the one that minimises the sum of the squared errors of all weights, scales being the rows' max |w|.
///
///     double const exponent = ts::find_power_exponent(exec, w, 4); // or of a span of matrices: one for all of them
///     auto const coded = ts::quantize_power<4>(w, exponent);       // codes, one table, a scale a row
///
/// The table of decoded codes belongs to the matrix, so every kernel of `table_quantized` multiplies it. Source: PowerQuant
/// (arXiv:2301.09858), whose error is that of the layers' weights and locally convex in a: here 17 exponents from 0.2 to 1 are
/// tried and the best one's neighbourhood is searched by golden section. With the best clipped ranges instead of max |w|,
/// exponents of 0.6 and less are worse than uniform codes on weights that are normal (3 and 4 bits).

#include "../core/error.hpp"
#include "../core/exec.hpp"
#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../numerics/power_exponent.hpp"
#include "../storage/table_quantized.hpp"
#include "../storage/tensor.hpp"

#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// The table of a code's values, and where the next one begins: q for |x| / row in [edge[q], edge[q + 1]).
struct power_table {
    std::vector<double> values; // of 0, 1, ..., L
    std::vector<double> edges;  // below which the code is at most q

    power_table(int bits, double exponent) {
        int const most = (1 << (bits - 1)) - 1;
        for (int q = 0; q <= most; ++q) {
            values.push_back(power_decode(q, bits, exponent));
            edges.push_back(std::pow((q + 0.5) / most, 1 / exponent));
        }
    }
    double nearest(double magnitude) const noexcept {
        std::size_t low = 0;
        for (std::size_t high = edges.size() - 1; low < high;) {
            std::size_t const middle = (low + high) / 2;
            if (magnitude < edges[middle])
                high = middle;
            else
                low = middle + 1;
        }
        return values[low];
    }
};

inline void check_power_exponent(char const* operation, double exponent) {
    if (!(exponent > 0 && exponent <= 1))
        raise<shape_error>("tessera: " + std::string{operation} + ": the exponent is " + std::to_string(exponent) +
                           ", expected above 0 and at most 1");
}

inline float row_magnitude(matrix_view<float const> const& w, index_t n) noexcept {
    float most = 0;
    for (index_t k = 0; k < w.extent(1); ++k) {
        float const magnitude = std::fabs(w(n, k));
        if (!(magnitude <= std::numeric_limits<float>::max())) return std::numeric_limits<float>::quiet_NaN();
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

} // namespace detail

/// Sum of the squared errors of w in power-exponent codes of `bits` bits, 2 to 8. Rows with a NaN or an infinity are left out.
/// @throws shape_error for other bits, or an exponent that is not in (0, 1]
template <execution_policy Exec>
double power_error(Exec const& exec, matrix_view<float const> const& w, int bits, double exponent) {
    check::within("power_error", "bits", bits, 2, 8);
    check::elements("power_error", "w", w);
    detail::check_power_exponent("power_error", exponent);
    detail::power_table const table{bits, exponent};
    std::vector<double> errors(static_cast<std::size_t>(w.extent(0)));
    parallel_for(exec.parallel(), w.extent(0), 16, [&](index_t first, index_t last, index_t) noexcept {
        for (index_t n = first; n < last; ++n) {
            auto const most = static_cast<double>(detail::row_magnitude(w, n));
            double sum = 0;
            if (most > 0)
                for (index_t k = 0; k < w.extent(1); ++k) {
                    double const magnitude = std::fabs(static_cast<double>(w(n, k)));
                    double const error = magnitude - most * table.nearest(magnitude / most);
                    sum += error * error;
                }
            errors[static_cast<std::size_t>(n)] = sum;
        }
    });
    double total = 0;
    for (double const e : errors) total += e;
    return total;
}

/// The exponent in [0.2, 1] for all of `layers` together, to 0.001.
template <execution_policy Exec>
double find_power_exponent(Exec const& exec, std::span<matrix_view<float const> const> layers, int bits) {
    auto const error = [&](double a) {
        double sum = 0;
        for (auto const& w : layers) sum += power_error(exec, w, bits, a);
        return sum;
    };
    double best = 1;
    double least = error(1);
    for (int i = 0; i < 16; ++i) {
        double const a = 0.2 + 0.05 * i;
        double const e = error(a);
        if (e < least) {
            best = a;
            least = e;
        }
    }
    double low = best - 0.05 > 0.2 ? best - 0.05 : 0.2;
    double high = best + 0.05 < 1 ? best + 0.05 : 1;
    double const golden = 0.6180339887498949;
    double left = high - golden * (high - low);
    double right = low + golden * (high - low);
    double error_left = error(left);
    double error_right = error(right);
    while (high - low > 1e-3) {
        if (error_left < error_right) {
            high = right;
            right = left;
            error_right = error_left;
            error_left = error(left = high - golden * (high - low));
        } else {
            low = left;
            left = right;
            error_left = error_right;
            error_right = error(right = low + golden * (high - low));
        }
    }
    double const middle = (low + high) / 2;
    return error(middle) < least ? middle : best;
}
template <execution_policy Exec>
double find_power_exponent(Exec const& exec, matrix_view<float const> const& w, int bits) {
    return find_power_exponent(exec, std::span<matrix_view<float const> const>{&w, 1}, bits);
}

/// w in power-exponent codes, a scale max |w| a row. A row with a NaN or an infinity has a NaN scale, a row of zeros scale 0.
/// @throws shape_error for an exponent that is not in (0, 1]
template <int Bits>
table_quantized_tensor<Bits, per_tensor, float, scaled_by<float, per_channel>> quantize_power(matrix_view<float const> const& w, // (n, k)
                                                                                          double exponent) {
    static_assert(Bits >= 2 && Bits <= 8, "tessera: quantize_power<Bits>: needs 2 to 8 bits");
    check::elements("quantize_power", "w", w);
    detail::check_power_exponent("quantize_power", exponent);
    table_quantized_tensor<Bits, per_tensor, float, scaled_by<float, per_channel>> result{w.extent(0), w.extent(1)};
    using integers = small_integer<Bits, signedness::is_signed>;
    for (std::uint32_t code = 0; code < 1u << Bits; ++code)
        result.values()[code] = static_cast<float>(power_decode(integers::integer(code), Bits, exponent));
    for (index_t n = 0; n < w.extent(0) && w.extent(1) > 0; ++n) { // rows without columns have no scale
        float const most = detail::row_magnitude(w, n);
        result.scales()[n] = most;
        for (index_t k = 0; k < w.extent(1); ++k) {
            double const x = most > 0 ? static_cast<double>(w(n, k)) / static_cast<double>(most) : 0.0;
            bitpack::set<Bits>(result.codes() + n * bitpack::bytes(w.extent(1), Bits), k,
                               static_cast<std::uint32_t>(power_encode(x, Bits, exponent)) & ((1u << Bits) - 1u));
        }
    }
    return result;
}

} // namespace tessera::inline TESSERA_ABI
