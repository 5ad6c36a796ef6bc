// SPDX-License-Identifier: MIT
// A CUDA device, as 10_two_machines.cu sees it.
#pragma once

#include "tour.hpp"

#include <tessera/tessera.cuh>

#include <cstddef>
#include <utility>

namespace tour::device {

using exec = tessera::cuda<90>;
template <class T>
using matrix = tessera::device_matrix<T>;

/// An array where this machine computes, and back.
template <std::size_t Rank>
tessera::device_tensor<float, Rank> sent(exec const& e, tessera::tensor<float, Rank>&& x) {
    auto there = [&]<std::size_t... I>(std::index_sequence<I...>) {
        return tessera::device_tensor<float, Rank>{x.extent(I)...};
    }(std::make_index_sequence<Rank>{});
    tessera::copy(e, std::as_const(x).view(), there.view());
    cudaDeviceSynchronize();
    return there;
}
inline tessera::matrix<float> fetched(exec const& e, matrix<float> const& x) {
    tessera::matrix<float> here{x.extent(0), x.extent(1)};
    tessera::copy(e, x.view(), here.view());
    cudaDeviceSynchronize();
    return here;
}

} // namespace tour::device
