// SPDX-License-Identifier: MIT
#pragma once

#include <tessera/core/view.hpp>
#include <tessera/dispatch/dispatch.hpp>

#include <string>
#include <vector>

namespace ts = tessera;

/// What runs with the best instructions of the machine.
struct kernels {
    /// y = x Wᵀ with int8 x, W as 4-bit codes in groups of 32; returns what runs.
    std::string (*product)(ts::matrix_view<float const> w, // (n, k)
                           ts::matrix_view<float const> x, // (m, k)
                           ts::matrix_view<float> y);      // (m, n)
    /// Text and numbers that std's templates make.
    std::vector<std::string> (*words)(std::string const& text);
};
template <class Arch>
kernels make_kernels();
