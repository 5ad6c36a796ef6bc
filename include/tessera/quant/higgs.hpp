// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// HIGGS (arXiv:2411.17525): rows are cut into groups of g columns, each group is rotated, which makes its numbers nearly normal
/// whatever they were, scaled to variance 1, and rounded p numbers at a time to the nearest point of a grid that is optimal for
/// normal vectors (quant/gaussian_grids.hpp). The rotation stays with the activations: the operator is codes * rotation.
///
///     auto const q = quantize_higgs<2, 8>(w);                 // 4 bits a weight: 256 points in the plane
///     apply(exec, q, x, y);                                   // x is rotated once, then meets the codes
///     auto const layer = place(exec, q.view() + adapter);
///     auto const fast = place(exec, linear{q.storage(), int8_per_token{}} * q.rotation());   // 256 points: integer products
///
/// For a group w (zeros behind the last column), H the unnormalised Hadamard matrix, D the signs (none by default, as in the
/// published code):
///
///     scale = ||w|| / sqrt(g), in fp16        z = H D w / ||w||        code = argmax_c 2 <z, c> - ||c||^2, a tie the lowest
///
/// so that W is nearly (scale * points) R with R = H D / sqrt(g). The mean squared error relative to W is that of the grid:
/// .1175, .0345, .0095 for one dimension of 2, 3, 4 bits, .1076, .0299, .00778 for two (transformers' grid of 256 points, measured in the
/// same way: .00776), .0966 for four dimensions of 2 bits.
///
/// A group of zeros has scale 0 and decodes to zeros; a norm beyond fp16 saturates; a group with a NaN or infinity has scale NaN.

#include "../core/error.hpp"
#include "../core/view.hpp"
#include "../storage/tensor.hpp"
#include "../storage/vector_grid.hpp"
#include "../transform/hadamard.hpp"
#include "gaussian_grids.hpp"
#include "vector_place.hpp"

#include <bit>
#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// How HIGGS rotates.
struct higgs_options {
    /// Order of the rotation, and columns of a scale; 0: 1024, or the power of two that holds all columns where these are fewer.
    index_t group = 0;
    /// Seed of random signs; none: no signs.
    std::optional<std::uint64_t> seed{};
};

/// Owner of codes and their rotation; `view()` is the operator.
template <index_t Dims, int Bits>
class higgs_tensor {
public:
    using storage_type = vector_grid<Dims, Bits>;

    higgs_tensor() noexcept = default;
    higgs_tensor(vector_grid_tensor<Dims, Bits> codes, hadamard const& rotation)
        : codes_{std::move(codes)}, rotation_{rotation} {
        check::equal("higgs_tensor", "columns of the codes", codes_.cols(), rotation.rows(), "rows of the rotation");
    }

    index_t rows() const noexcept { return codes_.rows(); }
    index_t cols() const noexcept { return rotation_.get().cols(); }
    index_t bytes() const { return codes_.bytes(); }
    /// The codes of the rotated weights.
    storage_type storage() const& { return codes_.view(); }
    void storage() const&& = delete;
    hadamard const& rotation() const noexcept { return rotation_.get(); }
    product<linear<storage_type>, hadamard> view() const& { return linear<storage_type>{codes_.view()} * rotation(); }
    void view() const&& = delete;

private:
    vector_grid_tensor<Dims, Bits> codes_;
    detail::emptied_by_move<hadamard> rotation_;
};

namespace detail {

/// argmax_c 2 <z, c> - ||c||^2 over a grid, the lowest index of equals. `offset`: -||c||^2 / 2.
template <index_t Dims>
std::uint32_t nearest_point(float const* z, float const* grid, float const* offset, index_t points, float* score) noexcept {
    for (index_t c = 0; c < points; ++c) {
        float s = offset[c];
        for (index_t d = 0; d < Dims; ++d) s += z[d] * grid[c * Dims + d];
        score[c] = s;
    }
    index_t best = 0;
    for (index_t c = 1; c < points; ++c)
        if (score[c] > score[best]) best = c;
    return static_cast<std::uint32_t>(best);
}

template <index_t Dims>
std::vector<float> half_squares(float const* grid, index_t points) {
    std::vector<float> offset(static_cast<std::size_t>(points));
    for (index_t c = 0; c < points; ++c) {
        double sum = 0;
        for (index_t d = 0; d < Dims; ++d) sum += std::pow(static_cast<double>(grid[c * Dims + d]), 2);
        offset[static_cast<std::size_t>(c)] = static_cast<float>(-0.5 * sum);
    }
    return offset;
}

} // namespace detail

/// w (n, k) by a grid of the caller's, 2^Bits x Dims numbers, which must outlive the result. O(n k 2^Bits).
template <index_t Dims, int Bits>
higgs_tensor<Dims, Bits> quantize_higgs(matrix_view<float const> const& w, float const* grid, higgs_options const& options = {}) {
    check::elements("quantize_higgs", "w", w);
    check::within("quantize_higgs", "group", options.group, 0, index_t{1} << 30);
    using exec = std::conditional_t<std::is_same_v<native_arch, generic_arch>, reference, cpu<native_arch, serial>>;
    index_t const k = w.extent(1);
    index_t const whole = static_cast<index_t>(std::bit_ceil(static_cast<std::uint64_t>(maximum(k, Dims))));
    index_t const g = options.group > 0 ? options.group : minimum(1024, whole);
    hadamard const rotation = options.seed ? hadamard{k, g, random_signs{*options.seed}} : hadamard{k, g};
    vector_grid_tensor<Dims, Bits> codes{grid, w.extent(0), rotation.rows(), g};
    index_t const groups = ceil_div(k, g);
    index_t const points = vector_grid<Dims, Bits>::points;
    std::vector<float> const offset = w.empty() ? std::vector<float>{} : detail::half_squares<Dims>(grid, points);
    std::vector<float> score(static_cast<std::size_t>(points));
    matrix<float> z{1, rotation.rows()};
    matrix<float> padded{1, rotation.rows()};
    for (index_t n = 0; n < w.extent(0); ++n) {
        std::vector<double> norm(static_cast<std::size_t>(groups), 0.0);
        for (index_t b = 0; b < groups; ++b) {
            double sum = 0;
            for (index_t c = b * g; c < minimum((b + 1) * g, k); ++c) sum += std::pow(static_cast<double>(w(n, c)), 2);
            norm[static_cast<std::size_t>(b)] = std::sqrt(sum);
            // Numbers of the order of 1 are rotated, whatever the weights are: nothing overflows.
            for (index_t c = b * g; c < minimum((b + 1) * g, k); ++c) {
                double const unit = static_cast<double>(w(n, c)) / norm[static_cast<std::size_t>(b)];
                padded(0, c) = sum > 0 && std::isfinite(sum) ? static_cast<float>(unit) * rotation.shape().sign(c) : 0.0f;
            }
        }
        walsh_hadamard(exec{}, padded, z, g);
        for (index_t b = 0; b < groups; ++b) {
            double const scale = norm[static_cast<std::size_t>(b)] / std::sqrt(static_cast<double>(g));
            codes.scales()[n * groups + b] = fp16::from_bits(static_cast<std::uint16_t>(
                fp16::encode(static_cast<float>(scale - scale == 0 ? scale : std::nan("")), rounding::nearest_even, overflow::saturate)));
            for (index_t i = b * g / Dims; i < (b + 1) * g / Dims; ++i)
                codes.set_code(n, i, detail::nearest_point<Dims>(&z(0, i * Dims), grid, offset.data(), points, score.data()));
        }
    }
    return {std::move(codes), rotation};
}

/// w (n, k) by the optimal grid of Dims dimensions and 2^Bits points.
template <index_t Dims, int Bits>
higgs_tensor<Dims, Bits> quantize_higgs(matrix_view<float const> const& w, higgs_options const& options = {}) {
    return quantize_higgs<Dims, Bits>(w, gaussian_grid<Dims, Bits>(), options);
}
template <index_t Dims, int Bits>
higgs_tensor<Dims, Bits> quantize_higgs(matrix<float> const& w, higgs_options const& options = {}) {
    return quantize_higgs<Dims, Bits>(w.view(), options);
}

} // namespace tessera::inline TESSERA_ABI
