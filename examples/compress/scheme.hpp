// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A row of the table as the program sees it at run time: an encoding and the form of x that multiplies it, without their
/// types. `schemes<...>::add_to` makes them from a list of types (scheme_list.hpp), where their kernels are compiled.

#include "../generate/backend.hpp"
#include "encodings.hpp"

#include <tessera/dispatch/any_operator.hpp>
#include <tessera/operators/place.hpp>
#include <tessera/sparse/place.hpp>

#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace compress {

using generate::backend;

/// What x becomes in the product.
enum class form { float32, int8_per_token, int8_per_32 };

constexpr char const* name_of(form f) noexcept {
    constexpr char const* names[] = {"float32", "int8/token", "int8/32"};
    return names[static_cast<int>(f)];
}

/// Colours of the plot.
enum class family { stored, integer, gguf, floating, composed };
inline constexpr std::size_t families = 5;

constexpr char const* name_of(family f) noexcept {
    constexpr char const* names[] = {"as stored in the file", "integers", "GGUF blocks", "small floats and codebooks",
                                     "sparse, and compositions"};
    return names[static_cast<int>(f)];
}

/// Errors of decoded weights, summed over matrices.
struct weight_error {
    double signal = 0;  ///< sum of w²
    double noise = 0;   ///< sum of (w - decoded)²
    double largest = 0; ///< max |w - decoded|
    index_t count = 0;  ///< weights
    index_t bytes = 0;  ///< stored

    void add(weight_error const& other) noexcept {
        signal += other.signal;
        noise += other.noise;
        largest = largest < other.largest ? other.largest : largest;
        count += other.count;
        bytes += other.bytes;
    }
    double bits() const noexcept { return count == 0 ? 0 : 8.0 * static_cast<double>(bytes) / static_cast<double>(count); }
    /// dB; infinite without noise.
    double snr() const noexcept { return 10 * std::log10(signal / noise); }
};

/// A matrix in some encoding.
class encoded {
public:
    explicit encoded(weight_error const& e) : error_{e} {}
    virtual ~encoded() = default;
    virtual ts::any_operator<backend> place(backend const& exec, ts::memory_arena& arena) const = 0;
    weight_error const& error() const noexcept { return error_; }

private:
    weight_error error_;
};

struct scheme {
    std::string name;
    family kind = family::integer;
    form x = form::float32;
    bool is_quick = false;
    index_t multiple = 1; ///< of the columns
    std::unique_ptr<encoded> (*encode)(weight_view const& w) = nullptr;
};

namespace detail {

template <class Preparation>
inline constexpr form form_of = form::float32;
template <>
inline constexpr form form_of<ts::int8_per_token> = form::int8_per_token;
template <>
inline constexpr form form_of<ts::int8_per_group<32>> = form::int8_per_32;

template <class Encoding>
weight_error measure(weight_view const& w, Encoding const& encoding) {
    weight_error e;
    ts::matrix<float> const difference = error_of(w, encoding);
    for (index_t n = 0; n < w.extent(0); ++n)
        for (index_t k = 0; k < w.extent(1); ++k) {
            double const value = static_cast<double>(w(n, k));
            double const off = std::fabs(static_cast<double>(difference(n, k)));
            e.signal += value * value;
            e.noise += off * off;
            e.largest = e.largest < off ? off : e.largest;
        }
    e.count = w.size();
    e.bytes = encoding.bytes();
    return e;
}

template <class Encoding, class Preparation>
class encoded_as final : public encoded {
public:
    encoded_as(Encoding&& encoding, weight_error const& e) : encoded{e}, encoding_{std::move(encoding)} {}
    ts::any_operator<backend> place(backend const& exec, ts::memory_arena& arena) const override {
        return ts::erase(exec, ts::place(exec, encoding_.template op<Preparation>(), arena));
    }

private:
    Encoding encoding_;
};

template <class Encoding, class Preparation>
std::unique_ptr<encoded> encode(weight_view const& w) {
    Encoding encoding{w};
    weight_error const error = measure(w, encoding);
    return std::make_unique<encoded_as<Encoding, Preparation>>(std::move(encoding), error);
}

/// A string as a template argument.
template <std::size_t N>
struct literal {
    char value[N] = {};
    constexpr literal(char const (&text)[N]) { // implicit: row<"int4 g32", ...>
        for (std::size_t i = 0; i < N; ++i) value[i] = text[i];
    }
};

template <bool IsQuick, literal Name, class Encoding, class... Preparation>
struct basic_row {
    static void add_to(std::vector<scheme>& out, family kind) {
        (out.push_back({Name.value, kind, form_of<Preparation>, IsQuick, Encoding::multiple, &encode<Encoding, Preparation>}),
         ...);
    }
};

} // namespace detail

/// Rows of the table: a name, an encoding, and the forms of x that it is measured with, one row each.
template <detail::literal Name, class Encoding, class... Preparation>
using row = detail::basic_row<false, Name, Encoding, Preparation...>;
/// The same, also with --quick.
template <detail::literal Name, class Encoding, class... Preparation>
using quick_row = detail::basic_row<true, Name, Encoding, Preparation...>;

template <family Kind, class... Row>
struct schemes {
    static void add_to(std::vector<scheme>& out) { (Row::add_to(out, Kind), ...); }
};

/// Every scheme of scheme_list.hpp.
std::vector<scheme> all_schemes();

} // namespace compress
