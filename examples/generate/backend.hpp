// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The machine that the example programs are compiled for.

#include <tessera/core/exec.hpp>

#include <type_traits>

namespace generate {

namespace ts = tessera;
using backend = ts::cpu<>;

/// @param threads 0: as many as OpenMP takes
template <class Backend> // the branch not taken need not compile
Backend make_backend([[maybe_unused]] int threads) {
    if constexpr (std::is_same_v<typename Backend::parallel_type, ts::openmp>)
        return Backend{ts::openmp{threads}};
    else
        return Backend{};
}

} // namespace generate
