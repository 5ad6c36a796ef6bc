// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the benchmarks multiply, made the same way everywhere: policies for a number of threads, random matrices, random
/// quantised weights.

#include <tessera/core/exec.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/storage/quantized.hpp>
#include <tessera/storage/tensor.hpp>

#include <cstdint>

namespace bench {

#if defined(_OPENMP)
inline tessera::cpu<> policy(int threads) { return tessera::cpu<>{tessera::openmp{threads}}; }
#else
inline tessera::cpu<> policy(int) { return tessera::cpu<>{}; }
#endif

/// Uniform in [-1, 1).
inline tessera::matrix<float> random_matrix(tessera::index_t rows, tessera::index_t columns, std::uint64_t seed) {
    tessera::matrix<float> m{rows, columns};
    tessera::philox const random{seed};
    for (tessera::index_t i = 0; i < m.size(); ++i) m.data()[i] = 2 * random.uniform(static_cast<std::uint64_t>(i)) - 1;
    return m;
}

/// Uniform codes, scales in [scale, 2 scale), zero points (where the scheme has some) in 0 to 15.
template <class Scheme>
tessera::quantized_tensor<Scheme> random_codes(tessera::index_t n, tessera::index_t k, std::uint64_t seed, float scale) {
    tessera::quantized_tensor<Scheme> w{n, k};
    tessera::philox const random{seed};
    auto const bits = [&](tessera::index_t i) { return random.bits(static_cast<std::uint64_t>(i)); };
    auto const v = w.view();
    for (tessera::index_t i = 0; i < n * v.row_bytes(); ++i) w.codes()[i] = static_cast<std::uint8_t>(bits(i));
    for (tessera::index_t i = 0; i < v.scale_rows() * v.scale_columns(); ++i) {
        w.scales()[i] = static_cast<typename tessera::quantized<Scheme>::scale_type>(
            scale * (1 + random.uniform(static_cast<std::uint64_t>(i))));
        if constexpr (Scheme::is_affine) w.zero_points()[i] = static_cast<std::uint8_t>(bits(i) % 16);
    }
    return w;
}

} // namespace bench
