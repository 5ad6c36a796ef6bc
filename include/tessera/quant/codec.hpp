// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What methods that calibrate ask of a codec, beside encoding and decoding a matrix: the nearest code of some weights under
/// the scales there are (GPTQ and its kin move weights after they chose scales), and how a decoded weight changes with each
/// number that it is decoded with (scales that are learned, tables that are fitted).
///
/// With s the scale of a weight, S its super scale (1 where there is none), z its zero point (0), v the value of its code:
///
///     quantized          w = S s (v - z)     dw/ds = S (v - z)   dw/dS = s (v - z)   dw/dz = -S s   dw/dv = S s
///     table_quantized    w = s v             dw/ds = v                                              dw/dv = s
///
/// (s = 1 in a table without scales). Codes are constants: how they change with a scale is no derivative, and left to the method.
///
/// A codec is a type of owner for which these functions are: `codec` says which. A storage of your own needs `view()`, elements
/// `view()(n, k)`, and overloads of `encode_nearest`, `derivative_of` and `parameters_of`; `decode_backward` then works.

#include "../core/error.hpp"
#include "../core/overlap.hpp"
#include "../core/philox.hpp"
#include "../core/view.hpp"
#include "../storage/quantized.hpp"
#include "../storage/table_quantized.hpp"
#include "../storage/tensor.hpp"
#include "quantizer.hpp"

#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// The place of a weight.
struct weight_place {
    index_t n;
    index_t k;
};

/// Derivatives of one decoded weight; 0 where there is no such number.
struct decode_derivative {
    float scale = 0;
    float super_scale = 0;
    float zero_point = 0;
    float entry = 0; ///< of the value that its code stands for
};

/// Where those numbers lie in their arrays.
struct decode_parameters {
    index_t scale = 0;
    index_t super_scale = 0;
    index_t zero_point = 0;
    index_t entry = 0; ///< formats: the code; tables: table * 2^bits + code
};

/// The nearest code of w at a place, under the scale and zero point that q has there. Returns what it decodes to.
/// Stochastic rounding takes the random number that `quantize` takes for that place. O(1).
template <class Scheme>
float encode_nearest(quantized_tensor<Scheme>& q, weight_place at, float w, quantize_options const& options = {}) {
    check::within("encode_nearest", "row", at.n, 0, q.rows() - 1);
    check::within("encode_nearest", "column", at.k, 0, q.cols() - 1);
    using format = typename Scheme::format;
    auto const view = q.view();
    auto const grid = detail::grid_of_scale<Scheme>(view.scale(at.n, at.k), static_cast<float>(view.zero_point(at.n, at.k)));
    auto const index = static_cast<std::uint64_t>(at.n * q.cols() + at.k);
    std::uint32_t const random = options.mode == rounding::stochastic ? philox{options.seed}.bits(index) : 0u;
    bitpack::set<format::bits>(q.codes() + at.n * view.row_bytes(), at.k, grid.code(w, options.mode, random));
    return view(at.n, at.k);
}

/// The same under the table and scale there; of two equally near values the lower code. Always to nearest. O(2^bits).
template <int Bits, granularity Granularity, class Value, class Scale>
float encode_nearest(table_quantized_tensor<Bits, Granularity, Value, Scale>& q, weight_place at, float w) {
    auto const view = q.view();
    check::within("encode_nearest", "row", at.n, 0, view.rows() - 1);
    check::within("encode_nearest", "column", at.k, 0, view.cols() - 1);
    std::uint8_t* const row = q.codes() + at.n * view.row_bytes();
    std::uint32_t best = 0;
    double least = std::numeric_limits<double>::infinity();
    for (std::uint32_t code = 0; code < 1u << Bits; ++code) {
        bitpack::set<Bits>(row, at.k, code);
        double const error = std::fabs(static_cast<double>(view(at.n, at.k)) - static_cast<double>(w));
        if (error < least) {
            least = error;
            best = code;
        }
    }
    bitpack::set<Bits>(row, at.k, best);
    return view(at.n, at.k);
}

/// The nearest codes of chosen weights of w, under what q has; the others keep theirs.
template <class Q, class... Options>
void encode_nearest(Q& q,
                    matrix_view<float const> const& w,      // (n, k)
                    std::span<weight_place const> places,   // each within (n, k)
                    Options const&... options) {
    auto const view = q.view();
    check::equal("encode_nearest", "rows of w", w.extent(0), view.rows(), "rows of q");
    check::equal("encode_nearest", "columns of w", w.extent(1), view.cols(), "columns of q");
    check::elements("encode_nearest", "w", w);
    for (weight_place const& at : places) {
        check::within("encode_nearest", "row", at.n, 0, view.rows() - 1);
        check::within("encode_nearest", "column", at.k, 0, view.cols() - 1);
    }
    for (weight_place const& at : places) encode_nearest(q, at, w(at.n, at.k), options...);
}

/// How the weight at (n, k) changes with the numbers that it is decoded with.
template <class Scheme>
decode_derivative derivative_of(quantized<Scheme> const& q, index_t n, index_t k) noexcept {
    float const lower = static_cast<float>(q.scales()[q.scale_index(n, k)]);
    float upper = 1;
    if constexpr (Scheme::has_two_levels) upper = static_cast<float>(q.super_scales()[q.super_scale_index(n, k)]);
    float const level = Scheme::format::decode(q.code(n, k)) - static_cast<float>(q.zero_point(n, k));
    decode_derivative d;
    d.scale = upper * level;
    d.super_scale = Scheme::has_two_levels ? lower * level : 0;
    d.zero_point = Scheme::is_affine ? -(upper * lower) : 0;
    d.entry = upper * lower;
    return d;
}
template <int Bits, granularity Granularity, class Value, class Scale>
decode_derivative derivative_of(table_quantized<Bits, Granularity, Value, Scale> const& q, index_t n, index_t k) noexcept {
    index_t const g = k / q.group();
    decode_derivative d;
    d.entry = 1;
    if constexpr (table_quantized<Bits, Granularity, Value, Scale>::has_scale) {
        d.scale = q.table_value(n, g, q.code(n, k), 0);
        d.entry = static_cast<float>(q.scale(n, g));
    }
    return d;
}

/// Where the numbers of the weight at (n, k) lie.
template <class Scheme>
decode_parameters parameters_of(quantized<Scheme> const& q, index_t n, index_t k) noexcept {
    index_t const scale = q.scale_index(n, k);
    return {scale, Scheme::has_two_levels ? q.super_scale_index(n, k) : 0, scale, static_cast<index_t>(q.code(n, k))};
}
template <int Bits, granularity Granularity, class Value, class Scale>
decode_parameters parameters_of(table_quantized<Bits, Granularity, Value, Scale> const& q, index_t n, index_t k) noexcept {
    using view = table_quantized<Bits, Granularity, Value, Scale>;
    index_t const scale = n * q.groups() + k / q.group();
    index_t const table = view::tables == detail::table_kind::tensor ? 0 : view::tables == detail::table_kind::row ? n : scale;
    return {scale, 0, 0, table * view::table_size + static_cast<index_t>(q.code(n, k))};
}

/// An owner of codes that calibrated methods work on.
template <class Q>
concept codec = requires(Q& q, weight_place at, float w, index_t i) {
    { encode_nearest(q, at, w) } -> std::same_as<float>;
    { derivative_of(q.view(), i, i) } -> std::same_as<decode_derivative>;
    { parameters_of(q.view(), i, i) } -> std::same_as<decode_parameters>;
    { q.view()(i, i) } -> std::convertible_to<float>;
};

/// Gradients of the numbers that a matrix is decoded with; an array that is not wanted is empty.
struct decode_gradients {
    vector_view<float> scales;
    vector_view<float> super_scales;
    vector_view<float> zero_points;
    vector_view<float> entries;
};

namespace detail {

/// Adds numbers at places of an array, in doubles.
class gradient_sums {
public:
    explicit gradient_sums(vector_view<float> const& out) : out_{out}, sums_(static_cast<std::size_t>(out.size()), 0.0) {}
    void add(index_t at, float derivative, float gradient) {
        if (sums_.empty()) return;
        check::within("decode_backward", "the place of a number in its gradients", at, 0, static_cast<index_t>(sums_.size()) - 1);
        sums_[static_cast<std::size_t>(at)] += static_cast<double>(derivative) * static_cast<double>(gradient);
    }
    void write() const {
        for (std::size_t i = 0; i < sums_.size(); ++i) out_(static_cast<index_t>(i)) = static_cast<float>(sums_[i]);
    }

private:
    vector_view<float> out_;
    std::vector<double> sums_;
};

} // namespace detail

/// The gradients of q's numbers from that of its decoded weights: out = sum over weights of dw times the derivative, in doubles,
/// rounded once. Arrays have the sizes of q's. O(n k).
/// @throws shape_error, and writes nothing, where a gradient is too short for its number
template <class View>
void decode_backward(View const& q,
                     matrix_view<float const> const& dw, // (n, k)
                     decode_gradients const& out) {
    check::equal("decode_backward", "rows of dw", dw.extent(0), q.rows(), "rows of q");
    check::equal("decode_backward", "columns of dw", dw.extent(1), q.cols(), "columns of q");
    check::elements("decode_backward", "dw", dw);
    detail::gradient_sums scales{out.scales}, super_scales{out.super_scales}, zero_points{out.zero_points}, entries{out.entries};
    for (index_t n = 0; n < q.rows(); ++n)
        for (index_t k = 0; k < q.cols(); ++k) {
            decode_derivative const d = derivative_of(q, n, k);
            decode_parameters const at = parameters_of(q, n, k);
            scales.add(at.scale, d.scale, dw(n, k));
            super_scales.add(at.super_scale, d.super_scale, dw(n, k));
            zero_points.add(at.zero_point, d.zero_point, dw(n, k));
            entries.add(at.entry, d.entry, dw(n, k));
        }
    for (auto const* sums : {&scales, &super_scales, &zero_points, &entries}) sums->write();
}

} // namespace tessera::inline TESSERA_ABI
