// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A row of the table: a name and a function that encodes weights, decodes them and adds up the errors.

#include "../compress/encodings.hpp"

#include <tessera/quant/dequantize.hpp>
#include <tessera/quant/higgs.hpp>
#include <tessera/transform/hadamard.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
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
    double fourths = 0; ///< sum of e^4
    index_t weights = 0;
    index_t bytes = 0;

    void add(distortion const& other) {
        signal += other.signal;
        squares += other.squares;
        fourths += other.fourths;
        weights += other.weights;
        bytes += other.bytes;
    }
    double bits() const { return 8.0 * static_cast<double>(bytes) / static_cast<double>(weights); }
    double mean() const { return squares / static_cast<double>(weights); }
    double relative() const { return squares / signal; }
    /// Of the mean, as if errors were independent.
    double standard_error() const {
        auto const n = static_cast<double>(weights);
        return std::sqrt(std::fmax(fourths / n - mean() * mean(), 0) / n);
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
    double expected = std::numeric_limits<double>::quiet_NaN(); ///< error on N(0, 1), where theory or a publication has it
    double tolerance = 0;                                       ///< of that number, relative
    index_t multiple = 1;                                       ///< of the columns
    bool is_quick = true;
    bool is_ideal = false; ///< levels that know the distribution, and no scales: for N(0, 1) only

    format expect(double error, double relative = 0) && {
        expected = error;
        tolerance = relative;
        return std::move(*this);
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
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k) {
            double const e = static_cast<double>(w(n, k)) - static_cast<double>(back(n, k));
            d.signal += static_cast<double>(w(n, k)) * static_cast<double>(w(n, k));
            d.squares += e * e;
            d.fourths += e * e * e * e;
        }
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

/// A scheme of the library, its scales covering what a range policy chooses.
template <class Scheme, class Range = ts::min_max_range>
format scheme(std::string name, family kind, Range const& range = {}) {
    return row(std::move(name), kind, [range](weight_view const& w) { return ts::quantize<Scheme>(exec_type{}, w, range); });
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
