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

/// u is made by kernels before the product.
struct no_side {};

/// `Out` with the term added to the sum. Side: a `strip_side` of A, whose product is made beside that of W where it has blocks.
template <class Out, class Panels, class Side = no_side>
struct low_rank_output {
    static_assert(Panels::format::is_dense);
    Out out;
    Panels b;
    float const* u; ///< (m, rank)
    float factor;
    Side side;
    bool x_is_ready; ///< what is ahead of the kernel that makes u is complete when the product begins

    __device__ float element(index_t n, index_t r) const {
        return panel_element(b, decode_table<typename Panels::format>{}, n, r);
    }
    /// The elements of a row of W: the first numbers of B's row stay in registers.
    struct of_row {
        low_rank_output const* to;
        float const* u;
        index_t n;
        float first[16];
        __device__ void operator()(index_t m, float sum) const {
            auto const rank = static_cast<int>(to->b.cols());
            float const* const of_m = u + m * rank;
            float term = 0.0f;
#pragma unroll
            for (int r = 0; r < 16; ++r)
                if (r < rank) term = fmaf(of_m[r], first[r], term);
            for (int r = 16; r < rank; ++r) term = fmaf(of_m[r], to->element(n, r), term);
            to->out(m, n, fmaf(to->factor, term, sum));
        }
    };
    /// Asks for a row of B.
    __device__ void prefetch(index_t n) const {
#pragma unroll
        for (int i = 0; i < 16; i += 4)
            if (n < b.rows() && i < b.cols()) ptx::prefetch(b.data() + 4 * b.locate(n, i).word);
    }
    /// A row of W, with u there.
    __device__ of_row row(index_t n, float const* u_there) const {
        of_row r{this, u_there, n, {}};
#pragma unroll
        for (int i = 0; i < 16; ++i) r.first[i] = i < b.cols() ? element(n, i) : 0.0f;
        return r;
    }
    __device__ of_row row(index_t n) const { return row(n, u); }
    __device__ void operator()(index_t m, index_t n, float sum) const { row(n)(m, sum); }
};

/// An output of a kernel that lets the next one begin when what is ahead of itself is complete: both read x then.
struct early_output : product_output<float, no_epilogue> {
    static constexpr bool triggers_late = true;
};

/// Whether x Aᵀ is one kernel, and neither it nor the product after it changes x before: they run side by side.
template <int Sm, class Base, class A, class X>
bool runs_beside(Base const& w, A const& a, matrix_view<X const> const& x) noexcept {
    if constexpr (Sm >= 90 && std::is_same_v<A, linear<prepacked<device_panel, matrix_view<bf16 const>>, as_bf16>>)
        return is_direct(w, x) && is_direct(a.storage(), x) &&
               goes_by_strips<Sm, std::remove_cvref_t<decltype(a.storage())>, as_bf16>(a.storage(), x.extent(0));
    else
        return false;
}

template <int Sm, class A>
struct side_of {
    using type = no_side;
};
template <>
struct side_of<90, linear<prepacked<device_panel, matrix_view<bf16 const>>, as_bf16>> {
    using type = strip_side<prepacked<device_panel, matrix_view<bf16 const>>>;
};

/// The side of strips of W for rank-k A, with scratch; no blocks where A has too few columns.
template <class Side, class A, class Arena>
Side make_side(A const& a, index_t rows, Arena& arena) noexcept {
    constexpr index_t most_blocks = 32; // with those that fill clusters
    using panels = typename Side::panels;
    auto const& w = a.storage();
    auto const steps = static_cast<int>(w.blocks() / panels::step_blocks);
    product_arguments<panels> of{w, stream_cut{1, 1}, steps, static_cast<int>(w.groups())};
    float* const parts = arena.template carve<float>(most_blocks, rows, 32);
    unsigned* counters = nullptr;
    if constexpr (launches<Arena>) counters = arena.counters();
    return Side{of, parts, counters, steps >= 8 ? 8 : 0};
}

/// A matrix of bf16 as a product of bf16 x may round it: not at all.
template <class X, class A>
auto rounded_operand(A const& a) {
    if constexpr (std::is_same_v<X, bf16> && std::is_same_v<A, linear<prepacked<device_panel, matrix_view<bf16 const>>, as_is>>)
        return linear<prepacked<device_panel, matrix_view<bf16 const>>, as_bf16>{a.storage()};
    else
        return a;
}

} // namespace tessera::inline TESSERA_ABI::detail
