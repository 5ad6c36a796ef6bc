// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What formats should cost whose scales, tables or vectors are found by trying, so that no formula has their errors: the same numbers
/// are encoded once more, in double, from what the documentation says, or by a search that finds the best there is. None of it uses the
/// library's encoders. All functions give mean squared errors of the rows of w.

#include "theory.hpp"

#include <tessera/core/view.hpp>

#include <functional>
#include <vector>

namespace rate_distortion {

using numbers_view = tessera::matrix_view<float const>; // (n, k)
using scale_rounding = std::function<double(double)>;

/// The least error of groups whose numbers become the nearest of `values` times a scale: any scale up to the one under which the largest
/// number is the largest value, as `least_error_range` has them. As 1 / scale grows numbers change their value one at a time, and
/// between two changes the error is a parabola.
double least_error_of_scales(numbers_view const& w, tessera::index_t group, std::vector<double> const& values);

/// Scales by Lloyd's iteration (quant/range.hpp, `lloyd_max_range`) for the integers -limit to limit.
double lloyd_scale_error(numbers_view const& w, tessera::index_t group, int limit, scale_rounding const& rounded);

/// The best of 64 shares of the interval from the least to the largest number and 0 (`least_error_range`), for codes 0 to `steps`.
double chosen_affine_error(numbers_view const& w, tessera::index_t group, int steps, scale_rounding const& rounded);

/// Scales of groups that are powers of two under a row's, 2^-14 to 1, each the better of the two that are next to the group's own.
double powers_under_a_row_error(numbers_view const& w, tessera::index_t group, std::vector<double> const& values);

/// The K formats of GGUF (storage/k_formats.hpp): codes from `low` to `high`, integers up to `extreme` under a scale in fp16 for 256.
struct k_format_card {
    tessera::index_t group;
    int low;
    int high;
    int extreme; ///< the group of largest scale has it
};
double k_format_error(numbers_view const& w, k_format_card const& card, scale_rounding const& half);

/// The least error of a table of `count` values for each row: k-means in one dimension is exact by dynamic programming.
double least_error_of_tables(numbers_view const& w, std::size_t count);
/// The same where each of the best `count` cells is then cut in two, as well as can be.
double least_error_of_cut_tables(numbers_view const& w, std::size_t count);

/// Pyramids P(group, pulses), coordinates up to `largest`: pulses are placed one by one from none on, and `gains` gains over the row's
/// norm have the best levels for the matrix.
double pyramid_error(numbers_view const& w, tessera::index_t group, int pulses, int largest, std::size_t gains);

} // namespace rate_distortion
