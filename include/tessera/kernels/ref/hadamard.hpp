// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of a randomised Hadamard transform of a row x, group by group of g numbers, D the diagonal of signs:
///
///     y = factor H D x            transposed: y = factor D Hᵀ x
///
/// as sums over H's elements (kernels/hadamard.hpp), in double. A last group that is not full is filled up with zeros.

#include "../../core/view.hpp"
#include "../hadamard.hpp"
#include "../kernel.hpp"

#include <bit>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// `block`: fill_hadamard_block's array.
inline double reference_hadamard_element(hadamard_shape const& s, float const* block, index_t i, index_t j) noexcept {
    index_t const low = (i % s.power) & (j % s.power);
    double const inner = std::popcount(static_cast<std::uint64_t>(low)) % 2 == 0 ? 1 : -1;
    return inner * static_cast<double>(block[i / s.power * s.block + j / s.power]);
}

/// y has s.rows() numbers, x has s.cols().
template <class X, class Emit>
void reference_hadamard(hadamard_shape const& s, float const* block, double factor, X const& x, Emit const& emit) {
    for (index_t i = 0; i < s.rows(); ++i) {
        index_t const first = i / s.group * s.group;
        index_t const last = minimum(first + s.group, s.cols());
        double sum = 0;
        for (index_t j = first; j < last; ++j) {
            double const h = s.is_transposed ? reference_hadamard_element(s, block, j - first, i - first)
                                             : reference_hadamard_element(s, block, i - first, j - first);
            sum += h * (s.is_transposed ? x(j) : static_cast<double>(s.sign(j)) * x(j));
        }
        emit(i, factor * (s.is_transposed ? static_cast<double>(s.sign(i)) * sum : sum));
    }
}

} // namespace detail

template <>
struct kernel<op::hadamard, reference, float> {
    /// x (m, s.cols()), y (m, s.rows()). @param tables s.table_floats() of scratch.
    template <class X, class Y>
    static void run(reference const&, detail::hadamard_shape const& s, float factor, matrix_view<X const> const& x,
                    matrix_view<Y> const& y, float* tables) {
        detail::fill_hadamard_block(s.block, tables);
        for (index_t m = 0; m < x.extent(0); ++m)
            detail::reference_hadamard(s, tables, static_cast<double>(factor), [&](index_t j) { return static_cast<double>(static_cast<float>(x(m, j))); },
                                       [&](index_t i, double v) { y(m, i) = static_cast<Y>(static_cast<float>(v)); });
    }
};

} // namespace tessera::inline TESSERA_ABI
