// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A row of the table: a name and a function that encodes weights, decodes them and adds up the errors.

#include "../compress/encodings.hpp"
#include "searches.hpp"
#include "theory.hpp"

#include <tessera/quant/dequantize.hpp>
#include <tessera/quant/higgs.hpp>
#include <tessera/transform/hadamard.hpp>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace rate_distortion {

namespace ts = tessera;
using ts::index_t;
using compress::weight_view;
using exec_type = ts::cpu<ts::native_arch, ts::serial>; // formats run side by side

/// Errors of decoded weights, summed.
struct distortion {
    double signal = 0;  ///< sum of w^2
    double squares = 0; ///< sum of e^2, e = w - decoded
    double rows = 0;
    double row_squares = 0; ///< of the sums of rows: their squares, summed
    index_t weights = 0;
    index_t bytes = 0;

    void add(distortion const& other) {
        signal += other.signal;
        squares += other.squares;
        rows += other.rows;
        row_squares += other.row_squares;
        weights += other.weights;
        bytes += other.bytes;
    }
    double bits() const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
    double mean() const { return squares / static_cast<double>(weights); }
    double relative() const { return squares / signal; }
    /// Of the mean, of one matrix: rows are independent, numbers that share a scale or a code are not.
    double standard_error() const {
        double const spread = std::fmax(row_squares / rows - squares / rows * (squares / rows), 0);
        return std::sqrt(spread / std::fmax(rows - 1, 1)) * rows / static_cast<double>(weights);
    }
};

/// Colours of the plot.
enum class family { integers, gguf, small_floats, tables, vectors };
inline constexpr std::size_t families = 5;

constexpr char const* name_of(family f) noexcept {
    constexpr char const* names[] = {"integers", "GGUF blocks", "small floats", "tables", "vector codes"};
    return names[static_cast<int>(f)];
}

struct format {
    std::string name;
    family kind = family::integers;
    std::function<distortion(weight_view const&)> measure;
    /// The error on N(0, 1) where theory or a publication has it; of theory for the numbers given, where a scale is of all of them.
    std::function<double(weight_view const&)> expected;
    double below = 0;                                           ///< relative to that number, what may be less
    double above = 0;                                           ///< and more
    bool is_of_these_numbers = false; ///< the numbers given were encoded another way: nothing is left to chance
    index_t multiple = 1;                                       ///< of the columns
    bool is_quick = true;
    bool is_ideal = false; ///< levels that know the distribution, and no scales: for N(0, 1) only

    format expect(double error, double relative = 0) && {
        return std::move(*this).expect([error](weight_view const&) { return error; }, relative);
    }
    /// What quadrature gives: to a thousandth, unless the caller knows better.
    format expect(std::function<double(weight_view const&)> error, double relative = 1e-3) && {
        expected = std::move(error);
        below = above = relative;
        return std::move(*this);
    }
    /// What a definition in double gives for the numbers themselves (searches.hpp): codes at the edge of float32's rounding differ.
    format define(std::function<double(weight_view const&)> error, double relative = 1e-3) && {
        is_of_these_numbers = true;
        return std::move(*this).expect(std::move(error), relative);
    }
    /// The least there is for the numbers themselves, which a format that looks for it among fewer choices exceeds by little.
    format at_least(std::function<double(weight_view const&)> error, double excess) && {
        format f = std::move(*this).define(std::move(error), 1e-5);
        f.above = excess;
        return f;
    }
    format in_whole(index_t columns) && {
        multiple = columns;
        return std::move(*this);
    }
    format slow() && {
        is_quick = false;
        return std::move(*this);
    }
    format ideal() && {
        is_ideal = true;
        return std::move(*this);
    }
};

namespace detail {

/// The decoded weights of anything that was encoded.
template <class Encoded>
ts::matrix<float> decoded(Encoded const& encoded, index_t n, index_t k) {
    ts::matrix<float> out{n, k};
    if constexpr (requires(float* row) { encoded.add_row(n, row); }) { // examples/compress/encodings.hpp
        for (index_t i = 0; i < n * k; ++i) out.data()[i] = 0;
        for (index_t i = 0; i < n; ++i) encoded.add_row(i, out.data() + i * k);
    } else if constexpr (requires { encoded.rotation(); }) { // HIGGS: codes times a rotation
        ts::matrix<float> codes{n, encoded.storage().cols()};
        ts::dequantize(exec_type{}, encoded.storage(), codes.view());
        ts::apply(exec_type{}, ts::transposed(encoded.rotation()), codes, out);
    } else {
        ts::dequantize(exec_type{}, encoded, out.view());
    }
    return out;
}

template <class Encoded>
distortion compare(weight_view const& w, Encoded const& encoded) {
    ts::matrix<float> const back = decoded(encoded, w.extent(0), w.extent(1));
    distortion d;
    for (index_t n = 0; n < w.extent(0); ++n) {
        double row = 0;
        for (index_t k = 0; k < w.extent(1); ++k) {
            double const e = static_cast<double>(w(n, k)) - static_cast<double>(back(n, k));
            d.signal += static_cast<double>(w(n, k)) * static_cast<double>(w(n, k));
            row += e * e;
        }
        d.squares += row;
        d.row_squares += row * row;
    }
    d.rows = static_cast<double>(w.extent(0));
    d.weights = w.size();
    d.bytes = encoded.bytes();
    return d;
}

} // namespace detail

/// A row: encode(w) gives an owner with bytes() that `decoded` knows.
template <class Encode>
format row(std::string name, family kind, Encode encode) {
    format f;
    f.name = std::move(name);
    f.kind = kind;
    f.measure = [encode](weight_view const& w) { return detail::compare(w, encode(w)); };
    return f;
}

namespace detail {

/// The nearest number of a format.
template <class Format>
double rounded(double x) {
    return static_cast<double>(Format::decode(Format::encode(static_cast<float>(x), ts::rounding::nearest_even, ts::overflow::saturate)));
}

/// The values that weights of a format over their scale become.
template <class Format>
std::vector<double> values_of() {
    auto const limit = static_cast<double>(ts::detail::symmetric_limit<Format>);
    std::vector<double> values;
    for (std::uint32_t code = 0; code < 1u << Format::bits; ++code) { // k-hot formats do not give all of their codes
        float const v = Format::decode(code);
        bool const is_given = std::fabs(static_cast<double>(v)) <= limit && Format::decode(Format::encode(v)) == v;
        if (is_given) values.push_back(static_cast<double>(v));
    }
    return values;
}
template <class Format>
cells cells_of() {
    return nearest(values_of<Format>());
}

inline double largest_of(weight_view const& w) {
    float most = 0;
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k) most = std::fmax(most, std::fabs(w(n, k)));
    return static_cast<double>(most);
}

/// The error of a scheme on numbers of N(0, 1), its scales covering the least to the largest.
template <class Scheme>
double error_in_theory(weight_view const& w) {
    using format = typename Scheme::format;
    using levels = ts::detail::scale_levels<typename Scheme::scale_type>;
    using scale = typename levels::lower;
    constexpr index_t columns = Scheme::granularity_type::columns;
    auto const n = static_cast<double>(Scheme::granularity_type::rows * (columns == 0 ? w.extent(1) : columns));
    if constexpr (Scheme::is_affine) {
        double const steps = (1 << format::bits) - 1;
        return affine_error(n, [=](double a, double b) {
            double const s = rounded<scale>((b - a) / steps);
            double const zero = std::fmin(std::nearbyint(-a / s), steps);
            std::vector<double> values;
            for (double q = 0; q <= steps; ++q) values.push_back(s * (q - zero));
            return nearest(std::move(values));
        });
    } else {
        auto const limit = static_cast<double>(ts::detail::symmetric_limit<format>);
        auto const both = [](double s) { return scales{s, s}; };
        if constexpr (levels::are_two) {
            using upper = typename levels::upper;
            auto const below = static_cast<double>(ts::detail::symmetric_limit<scale>);
            auto const rule = [=](double most) -> scale_rule {
                double const s = rounded<upper>(most / (limit * below));
                return [=](double m) { return both(s * std::fmax(rounded<scale>(m / limit / s), static_cast<double>(scale::decode(1)))); };
            };
            constexpr index_t under = levels::upper_granularity::columns;
            if constexpr (under == 0)
                return block_error(cells_of<format>(), n, rule(largest_of(w)));
            else
                return two_level_error(cells_of<format>(), n, static_cast<double>(under), rule);
        } else if constexpr (std::is_same_v<scale, ts::e8m0>) {
            return block_error(cells_of<format>(), n, [=](double m) { return both(std::exp2(std::floor(std::log2(m)) - std::floor(std::log2(limit)))); });
        } else {
            return block_error(cells_of<format>(), n, [=](double m) { return both(rounded<scale>(m / limit)); });
        }
    }
}

/// Powers of two under another scale are chosen by trying: no formula.
template <class Scheme>
inline constexpr bool has_theory = !(ts::detail::scale_levels<typename Scheme::scale_type>::are_two &&
      std::is_same_v<typename ts::detail::scale_levels<typename Scheme::scale_type>::lower, ts::e8m0>);

} // namespace detail

/// A scheme of the library, its scales covering what a range policy chooses. The best of 64 shares of the extremes is next to the best
/// scale there is (symmetric formats), and by definition the best of 64 (affine ones); other ranges say themselves what is expected.
template <class Scheme, class Range = ts::min_max_range>
format scheme(std::string name, family kind, Range const& range = {}) {
    using element = typename Scheme::format;
    format f = row(std::move(name), kind, [range](weight_view const& w) { return ts::quantize<Scheme>(exec_type{}, w, range); });
    using granularity = typename Scheme::granularity_type;
    if constexpr (std::is_same_v<Range, ts::least_error_range> && Scheme::is_affine)
        return std::move(f).define([](weight_view const& w) {
            return chosen_affine_error(w, granularity::columns, (1 << element::bits) - 1, detail::rounded<typename Scheme::scale_type>);
        });
    else if constexpr (std::is_same_v<Range, ts::least_error_range>)
        return std::move(f).at_least([](weight_view const& w) { return least_error_of_scales(w, granularity::columns, detail::values_of<element>()); }, 0.01);
    else if constexpr (std::is_same_v<Range, ts::min_max_range> && detail::has_theory<Scheme>)
        return std::move(f).expect(detail::error_in_theory<Scheme>);
    else
        return f;
}

/// An encoding of examples/compress.
template <class Encoding>
format encoding(std::string name, family kind) {
    return row(std::move(name), kind, [](weight_view const& w) { return Encoding{w}; }).in_whole(Encoding::multiple);
}

/// The formats of formats_*.cpp.
void add_integers(std::vector<format>& out);
void add_floats(std::vector<format>& out);
void add_tables(std::vector<format>& out);
void add_blocks(std::vector<format>& out);
void add_vectors(std::vector<format>& out);

inline std::vector<format> all_formats() {
    std::vector<format> out;
    add_integers(out);
    add_floats(out);
    add_tables(out);
    add_blocks(out);
    add_vectors(out);
    return out;
}

} // namespace rate_distortion
