// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// A low-rank term that a product adds where it writes y: with u = x Aᵀ, y(m, n) gets factor * sum over r of u(m, r) B(n, r), in the
/// order of r. For few rows of x.

#include "linear.cuh"

namespace tessera::inline TESSERA_ABI::detail {

/// Ranks and rows of x for which it pays.
inline constexpr index_t most_fused_rank = 64;
inline constexpr index_t most_fused_rows = 16;

/// `Out` with the term added to the sum.
template <class Out, class Panels>
struct low_rank_output {
    static_assert(Panels::format::is_dense);
    Out out;
    Panels b;
    float const* u; ///< (m, rank)
    float factor;

    __device__ float element(index_t n, index_t r) const {
        return panel_element(b, decode_table<typename Panels::format>{}, n, r);
    }
    /// The elements of a row of W: the first numbers of B's row stay in registers.
    struct of_row {
        low_rank_output const& to;
        index_t n;
        float first[16];
        __device__ void operator()(index_t m, float sum) const {
            auto const rank = static_cast<int>(to.b.cols());
            float const* const of_m = to.u + m * rank;
            float term = 0.0f;
#pragma unroll
            for (int r = 0; r < 16; ++r)
                if (r < rank) term = fmaf(__ldcg(of_m + r), first[r], term);
            for (int r = 16; r < rank; ++r) term = fmaf(__ldcg(of_m + r), to.element(n, r), term);
            to.out(m, n, fmaf(to.factor, term, sum));
        }
    };
    __device__ of_row row(index_t n) const {
        of_row r{*this, n, {}};
#pragma unroll
        for (int i = 0; i < 16; ++i) r.first[i] = i < b.cols() ? element(n, i) : 0.0f;
        return r;
    }
    __device__ void operator()(index_t m, index_t n, float sum) const { row(n)(m, sum); }
};

/// A matrix of bf16 as a product of bf16 x may round it: not at all.
template <class X, class A>
auto rounded_operand(A const& a) {
    if constexpr (std::is_same_v<X, bf16> && std::is_same_v<A, linear<prepacked<device_panel, matrix_view<bf16 const>>, as_is>>)
        return linear<prepacked<device_panel, matrix_view<bf16 const>>, as_bf16>{a.storage()};
    else
        return a;
}

} // namespace tessera::inline TESSERA_ABI::detail
