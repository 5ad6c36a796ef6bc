// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Matrices in pyramid vector codes: `quantize_pvq<Format, Gain>(w)`, products of them, and x rounded to a pyramid.
///
///     using format = pvq<32, 22, 3>;                                // 32 weights in 64 bits, placed in 3 bits each
///     auto const q = quantize_pvq<format, gain_code<4>>(w);         // 2.125 bits a weight, and a norm a row
///     auto const layer = place(exec, linear{q, int8_per_token{}});  // or pvq_per_group<pvq<32, 96>>{}: x in vector codes too
///
/// The shape of each group is encoded first (numerics/pvq_encode.hpp), then its gain, to the nearest that is stored. Pyramids
/// treat all directions of a group alike: weights of unequal size in a row are best rotated first.
///
/// A group of zeros decodes to zeros. A group with a NaN or infinity decodes to NaN, and so does all of its row where gains are
/// coded. Norms and gains beyond the largest finite number of their type become that; groups below its smallest become zeros.

#include "../core/overlap.hpp"
#include "../core/view.hpp"
#include "../kernels/cpu/pvq.hpp"
#include "../kernels/cpu/pvq_prepare.hpp"
#include "../kernels/ref/pvq.hpp"
#include "../numerics/pvq_encode.hpp"
#include "../operators/apply.hpp"
#include "../operators/place.hpp"
#include "../operators/prepare.hpp"
#include "../storage/pvq_matrix.hpp"
#include "../storage/tensor.hpp"
#include "pvq_levels.hpp"

#include <algorithm>
#include <limits>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// Where the levels of coded gains come from (quant/pvq_levels.hpp).
enum class pvq_levels : std::uint8_t {
    lloyd_max,     ///< least squared error for the gains of this matrix
    beta_lloyd_max, ///< least squared error for gains of random directions
    beta_quantile, ///< equally probable for random directions
};

/// How vectors and gains are chosen.
struct pvq_options {
    pvq_encoder encoder = pvq_encoder::greedy;
    pvq_target target = pvq_target::least_squares;
    pvq_levels levels = pvq_levels::lloyd_max;
};

namespace detail {

/// Nearest T to a gain; of finite gains a finite one.
template <class T>
T stored_gain(double gain) noexcept {
    double limit = static_cast<double>(std::numeric_limits<float>::max());
    if constexpr (!std::is_same_v<T, float>) limit = static_cast<double>(T::max_magnitude);
    return T{static_cast<float>(gain > limit ? limit : gain)};
}

/// Stores a gain as the nearest there is; where gains are coded, under the norm of its row and the levels there are.
template <class T>
void store_gain(pvq_gain_arrays<gain_as<T>>& to, index_t n, index_t g, index_t groups, double gain) noexcept {
    to.gains()[n * groups + g] = stored_gain<T>(gain);
}
template <int Bits>
void store_gain(pvq_gain_arrays<gain_code<Bits>>& to, index_t n, index_t g, index_t groups, double gain) noexcept {
    auto const norm = static_cast<double>(to.norms()[n]);
    float const* const levels = to.levels();
    std::uint32_t code = 0;
    while (code + 1 < 1u << Bits && 2 * gain > norm * (static_cast<double>(levels[code]) + static_cast<double>(levels[code + 1]))) ++code;
    bitpack::set<Bits>(to.codes() + n * bitpack::bytes(groups, Bits), g, code);
}

template <class Format, class Gain>
class pvq_quantizer {
public:
    pvq_quantizer(matrix_view<float const> const& w, pvq_options const& options, pvq_tensor<Format, Gain>& out)
        : w_{w}, options_{options}, out_{out}, groups_{ceil_div(w.extent(1), Format::group)} {}

    template <class Exec>
    void run(Exec const& exec) {
        std::vector<double> gains(static_cast<std::size_t>(w_.extent(0) * groups_));
        auto const rows = [&](index_t first, index_t last, index_t) noexcept {
            for (index_t n = first; n < last; ++n)
                for (index_t g = 0; g < groups_; g += Format::together) shapes(n, g, gains.data() + n * groups_);
        };
        if constexpr (is_cpu<Exec>)
            parallel_for(exec.parallel(), w_.extent(0), ceil_div(4096, maximum(w_.extent(1), 1)), rows);
        else
            rows(0, w_.extent(0), 0);
        if (gains.empty()) return;
        prepare_gains(gains, out_.gain_arrays());
        for (index_t n = 0; n < w_.extent(0); ++n)
            for (index_t g = 0; g < groups_; ++g)
                store_gain(out_.gain_arrays(), n, g, groups_, gains[static_cast<std::size_t>(n * groups_ + g)]);
    }

private:
    /// The groups of a word.
    void shapes(index_t n, index_t g, double* gains) const noexcept {
        typename Format::index_type indices[Format::together];
        index_t const count = minimum(Format::together, groups_ - g);
        for (index_t i = 0; i < count; ++i) {
            float x[Format::group];
            std::int8_t p[Format::group];
            index_t const first = (g + i) * Format::group;
            index_t const columns = minimum(Format::group, w_.extent(1) - first);
            for (index_t k = 0; k < columns; ++k) x[k] = w_(n, first + k);
            gains[g + i] = pvq_encode<Format>(x, columns, p, options_.encoder, options_.target);
            indices[i] = Format::index(p);
        }
        out_.set_word(n, g, indices, count);
    }

    template <class T>
    void prepare_gains(std::vector<double> const&, pvq_gain_arrays<gain_as<T>>&) const noexcept {}

    /// Norms and levels.
    template <int Bits>
    void prepare_gains(std::vector<double> const& gains, pvq_gain_arrays<gain_code<Bits>>& to) const {
        std::vector<double> ratios;
        for (index_t n = 0; n < w_.extent(0); ++n) {
            double squares = 0;
            for (index_t k = 0; k < w_.extent(1); ++k) squares += static_cast<double>(w_(n, k)) * static_cast<double>(w_(n, k));
            bool const finite = squares <= std::numeric_limits<double>::max();
            double const norm = finite ? std::sqrt(squares) : std::numeric_limits<double>::quiet_NaN();
            to.norms()[n] = stored_gain<float>(norm);
            if (options_.levels == pvq_levels::lloyd_max && norm > 0)
                for (index_t g = 0; g < groups_; ++g)
                    if ((n * groups_ + g) % sampling() == 0) ratios.push_back(gains[static_cast<std::size_t>(n * groups_ + g)] / norm);
        }
        double levels[1 << Bits];
        choose_levels(ratios, index_t{1} << Bits, levels);
        for (int i = 0; i < 1 << Bits; ++i) to.levels()[i] = static_cast<float>(levels[i]);
    }

    /// Lloyd-Max levels are made of about 2^15 gains: one in so many.
    index_t sampling() const noexcept { return maximum(w_.extent(0) * groups_ / (1 << 15), 1) | 1; }

    void choose_levels(std::vector<double>& samples, index_t count, double* levels) const {
        if (options_.levels == pvq_levels::beta_lloyd_max) {
            samples.resize(2048);
            beta_gain_levels(Format::group, w_.extent(1), 2048, samples.data());
        }
        std::sort(samples.begin(), samples.end());
        if (samples.empty())
            beta_gain_levels(Format::group, w_.extent(1), count, levels);
        else
            lloyd_max(samples.data(), static_cast<index_t>(samples.size()), count, levels);
    }

    matrix_view<float const> w_;
    pvq_options options_;
    pvq_tensor<Format, Gain>& out_;
    index_t groups_;
};

template <class Format, class Exec>
struct forms_of_preparation<pvq_per_group<Format>, Exec> {
    using type = type_list<pvq_rows<Format, 32>>;
};

} // namespace detail

/// w (n, k) in vector codes; see the file comment. The same bits for any number of threads.
template <class Format, class Gain = gain_code<4>, execution_policy Exec>
pvq_tensor<Format, Gain> quantize_pvq(Exec const& exec, matrix_view<float const> const& w, pvq_options const& options = {}) {
    check::elements("quantize_pvq", "w", w);
    pvq_tensor<Format, Gain> result{w.extent(0), w.extent(1)};
    detail::pvq_quantizer<Format, Gain>{w, options, result}.run(exec);
    return result;
}
template <class Format, class Gain = gain_code<4>, execution_policy Exec>
pvq_tensor<Format, Gain> quantize_pvq(Exec const& exec, matrix<float> const& w, pvq_options const& options = {}) {
    return quantize_pvq<Format, Gain>(exec, matrix_view<float const>{w.view()}, options);
}

/// The same in the calling thread.
template <class Format, class Gain = gain_code<4>>
pvq_tensor<Format, Gain> quantize_pvq(matrix_view<float const> const& w, pvq_options const& options = {}) {
    return quantize_pvq<Format, Gain>(reference{}, w, options);
}
template <class Format, class Gain = gain_code<4>>
pvq_tensor<Format, Gain> quantize_pvq(matrix<float> const& w, pvq_options const& options = {}) {
    return quantize_pvq<Format, Gain>(reference{}, matrix_view<float const>{w.view()}, options);
}

/// Group g of row n anew, for methods that move weights after norms and levels were chosen (GPTQ and its kin, with a group of
/// columns as a step): the nearest vector, then the nearest gain that q has. w: as many as the group has columns.
template <class Format, class Gain>
void encode_nearest_group(pvq_tensor<Format, Gain>& q, index_t n, index_t g, vector_view<float const> const& w, // (columns)
                          pvq_options const& options = {}) {
    pvq_matrix<Format, Gain> const view = q.view();
    check::within("encode_nearest_group", "row", n, 0, q.rows() - 1);
    check::within("encode_nearest_group", "group", g, 0, view.groups() - 1);
    check::elements("encode_nearest_group", "w", w);
    index_t const columns = minimum(Format::group, q.cols() - g * Format::group);
    check::equal("encode_nearest_group", "size of w", w.extent(0), columns, "columns of the group");
    float x[Format::group];
    std::int8_t p[Format::group];
    for (index_t k = 0; k < columns; ++k) x[k] = w(k);
    double const gain = pvq_encode<Format>(x, columns, p, options.encoder, options.target);
    typename Format::index_type indices[Format::together];
    index_t const first = g / Format::together * Format::together;
    index_t const count = minimum(Format::together, view.groups() - first);
    for (index_t i = 0; i < count; ++i) indices[i] = first + i == g ? Format::index(p) : view.index(n, first + i);
    q.set_word(n, first, indices, count);
    detail::store_gain(q.gain_arrays(), n, g, view.groups(), gain);
}

/// y = x with each group of a row rounded to the pyramid as the preparation `pvq_per_group<Format>` does it, in float32, for any N.
/// y (m, k) may be x; a group with a NaN or infinity becomes NaN.
template <class Format>
void round_pvq(matrix_view<float const> const& x, matrix_view<float> y) {
    check::elements("round_pvq", "x", x);
    check::elements("round_pvq", "y", y);
    check::equal("round_pvq", "rows of y", y.extent(0), x.extent(0), "rows of x");
    check::equal("round_pvq", "columns of y", y.extent(1), x.extent(1), "columns of x");
    check::distinct_elements("round_pvq", "y", y);
    if (!is_same_array(x, y)) check::no_overlap("round_pvq", "x", footprint_of(x), "y", footprint_of(y));
    for (index_t m = 0; m < x.extent(0); ++m)
        for (index_t first = 0; first < x.extent(1); first += Format::group) {
            float group[Format::group];
            std::int8_t p[Format::group];
            index_t const columns = minimum(Format::group, x.extent(1) - first);
            for (index_t k = 0; k < columns; ++k) group[k] = x(m, first + k);
            float const scale = detail::pvq_activation<Format>(group, columns, p);
            for (index_t k = 0; k < columns; ++k) y(m, first + k) = scale * static_cast<float>(p[k]);
        }
}

} // namespace tessera::inline TESSERA_ABI
