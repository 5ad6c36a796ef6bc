// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Weights to encode: of the normal distribution, of a safetensors file, and of a distribution with heavy tails instead.

#include "format.hpp"

#include <string>
#include <vector>

namespace rate_distortion {

/// (n, k) numbers of N(0, 1), exact to 2^-24 in probability (Box and Muller's transform), the same on every machine.
ts::matrix<float> gaussian(index_t n, index_t k, std::uint64_t seed);

struct real_weights {
    std::string title;
    std::vector<ts::matrix<float>> matrices;

    index_t count() const {
        index_t sum = 0;
        for (auto const& m : matrices) sum += m.extent(0) * m.extent(1);
        return sum;
    }
};

/// The first `rows` rows of every matrix of float32 whose name ends in "weight" and does not speak of an embedding.
/// @throws tessera::format_error where there is none
real_weights read_weights(std::string const& path, index_t rows);

/// Student's distribution with 5 degrees of freedom, rows of different size.
real_weights heavy_tailed(index_t rows);

} // namespace rate_distortion
