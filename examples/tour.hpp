// SPDX-License-Identifier: MIT
// What the numbered examples share: data that is the same on every machine, and how far apart two arrays are.
#pragma once

#include <tessera/core/philox.hpp>
#include <tessera/storage/tensor.hpp>

#include <cmath>
#include <cstdint>

namespace tour {

/// A tensor of normal random numbers, mean 0 and variance 1; another seed gives other ones.
template <class... Index>
auto normal(std::uint64_t seed, Index... extents) {
    tessera::tensor<float, sizeof...(Index)> x(extents...);
    tessera::philox const random{seed};
    for (tessera::index_t i = 0; i < x.size(); ++i) x.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    return x;
}

/// Every weight of a quantised or sparse matrix as a float.
template <class Weight>
tessera::matrix<float> decoded(Weight const& w) {
    auto const stored = w.view();
    tessera::matrix<float> result{stored.rows(), stored.cols()};
    for (tessera::index_t n = 0; n < stored.rows(); ++n)
        for (tessera::index_t k = 0; k < stored.cols(); ++k) result(n, k) = stored(n, k);
    return result;
}

/// Signal-to-noise ratio in decibels: 20 more is a tenth of the error.
template <class Tensor>
double snr(Tensor const& expected, Tensor const& actual) {
    double signal = 0, noise = 0;
    for (tessera::index_t i = 0; i < expected.size(); ++i) {
        double const error = double{expected.data()[i]} - double{actual.data()[i]};
        signal += double{expected.data()[i]} * double{expected.data()[i]};
        noise += error * error;
    }
    return 10 * std::log10(signal / noise);
}

} // namespace tour
