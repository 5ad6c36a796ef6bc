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

template <class Format, class Gain>
class pvq_quantizer {
public:
    pvq_quantizer(matrix_view<float const> const& w, pvq_options const& options, pvq_tensor<Format, Gain>& out)
        : w_{w}, options_{options}, out_{out}, groups_{ceil_div(w.extent(1), Format::group)} {}

    void run() {
        std::vector<double> gains(static_cast<std::size_t>(w_.extent(0) * groups_));
        for (index_t n = 0; n < w_.extent(0); ++n)
            for (index_t g = 0; g < groups_; g += Format::together) shapes(n, g, gains.data() + n * groups_);
        store(gains, out_.gain_arrays());
    }

private:
    /// The groups of a word.
    void shapes(index_t n, index_t g, double* gains) {
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
    void store(std::vector<double> const& gains, pvq_gain_arrays<gain_as<T>>& to) {
        for (std::size_t i = 0; i < gains.size(); ++i) to.gains()[i] = stored_gain<T>(gains[i]);
    }

    template <int Bits>
    void store(std::vector<double>& gains, pvq_gain_arrays<gain_code<Bits>>& to) {
        if (gains.empty()) return;
        for (index_t n = 0; n < w_.extent(0); ++n) {
            double squares = 0;
            for (index_t k = 0; k < w_.extent(1); ++k) squares += static_cast<double>(w_(n, k)) * static_cast<double>(w_(n, k));
            bool const finite = squares <= std::numeric_limits<double>::max();
            double const norm = finite ? std::sqrt(squares) : std::numeric_limits<double>::quiet_NaN();
            to.norms()[n] = stored_gain<float>(norm);
            for (index_t g = 0; g < groups_; ++g) {
                double& gain = gains[static_cast<std::size_t>(n * groups_ + g)];
                gain = norm > 0 ? gain / norm : -1.0; // none
            }
        }
        double levels[1 << Bits];
        choose_levels(gains, index_t{1} << Bits, levels);
        for (int i = 0; i < 1 << Bits; ++i) to.levels()[i] = static_cast<float>(levels[i]);
        for (index_t n = 0; n < w_.extent(0); ++n)
            for (index_t g = 0; g < groups_; ++g) {
                auto const gain = static_cast<float>(gains[static_cast<std::size_t>(n * groups_ + g)]);
                std::uint32_t code = 0;
                while (code + 1 < 1u << Bits && gain > 0.5f * (to.levels()[code] + to.levels()[code + 1])) ++code;
                bitpack::set<Bits>(to.codes() + n * bitpack::bytes(groups_, Bits), g, code);
            }
    }

    /// Lloyd-Max levels are made of at most so many numbers.
    static constexpr index_t most_samples = 1 << 15;

    void choose_levels(std::vector<double> const& ratios, index_t count, double* levels) const {
        std::vector<double> samples;
        if (options_.levels == pvq_levels::lloyd_max) {
            auto const step = static_cast<std::size_t>(maximum(static_cast<index_t>(ratios.size()) / most_samples, 1));
            for (std::size_t i = 0; i < ratios.size(); i += step)
                if (ratios[i] >= 0) samples.push_back(ratios[i]);
            std::sort(samples.begin(), samples.end());
        } else if (options_.levels == pvq_levels::beta_lloyd_max) {
            samples.resize(2048);
            beta_gain_levels(Format::group, w_.extent(1), 2048, samples.data());
        }
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

} // namespace detail

namespace detail {

template <class Format, class Exec>
struct forms_of_preparation<pvq_per_group<Format>, Exec> {
    using type = type_list<pvq_rows<Format, 32>>;
};

} // namespace detail

/// w (n, k) in vector codes; see the file comment. Not a fast function: about 1 us a group of 32.
template <class Format, class Gain = gain_code<4>>
pvq_tensor<Format, Gain> quantize_pvq(matrix_view<float const> const& w, pvq_options const& options = {}) {
    check::elements("quantize_pvq", "w", w);
    pvq_tensor<Format, Gain> result{w.extent(0), w.extent(1)};
    detail::pvq_quantizer<Format, Gain>{w, options, result}.run();
    return result;
}
template <class Format, class Gain = gain_code<4>>
pvq_tensor<Format, Gain> quantize_pvq(matrix<float> const& w, pvq_options const& options = {}) {
    return quantize_pvq<Format, Gain>(w.view(), options);
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
