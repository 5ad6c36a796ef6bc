// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A matrix of `philox::normal`'s numbers.

#include <tessera/core/philox.hpp>
#include <tessera/storage/tensor.hpp>

#include <cstdint>

namespace tessera_test {

/// (n, k); number i of them in row-major order is normal(i) of the seed, times size.
inline tessera::matrix<float> random_matrix(tessera::index_t n, tessera::index_t k, std::uint64_t seed = 1, float size = 1) {
    tessera::matrix<float> w{n, k};
    tessera::philox const random{seed};
    for (tessera::index_t i = 0; i < w.size(); ++i) w.data()[i] = size * random.normal(static_cast<std::uint64_t>(i));
    return w;
}

} // namespace tessera_test
