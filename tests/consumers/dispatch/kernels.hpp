// SPDX-License-Identifier: MIT
#pragma once

#include <tessera/core/view.hpp>

#include <string>
#include <vector>

/// What runs with the best instructions of the machine.
struct kernels {
    /// y = x Wᵀ, x in int8, W in 4 bits; returns what ran.
    std::string (*product)(tessera::matrix_view<float const> w, // (n, k)
                           tessera::matrix_view<float const> x, // (m, k)
                           tessera::matrix_view<float> y);      // (m, n)
    /// Each word of a text with how often it is there: made by std's templates, which differ in each instruction set.
    std::vector<std::string> (*words)(std::string const& text);
};

template <class Arch>
kernels make_kernels();
