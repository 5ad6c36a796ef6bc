// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Routers of a mixture of experts: logits = x Wᵀ, then a gate (kernels/routing.hpp) makes k experts and weights of each row.
///
///     top_k_router const router{w, /*k=*/2, renormalized{softmax_gate{}}};       // w (experts, width)
///     route(exec, router, x, index, weight);                                     // index, weight (tokens, k)
///
/// Experts of a token come best first, ties by the smaller index: the same choice on every machine wherever the logits are the
/// same. Error of a weight p on the CPU, d the error of the logits that it depends on (apply's bound):
/// |dp| <= (gamma(experts + 16) + u |l - max| + 2 max d) p and one rounding more for each of renormalising and scaling.
///
/// Errors: shape_error where a shape does not fit, k or the gate's parameters are out of range, data is null, or an output
/// overlaps what is read.

#include "../kernels/cpu/routing.hpp"
#include "../operators/grouped.hpp"
#include "../operators/place.hpp"
#include "router_forward.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// One operator times all rows of x, into float32 rows: x's forms are there already.
template <class Exec, class Op>
struct single_product {
    using product = grouped_product<Exec, Op>;
    group_scratch scratch{};
    index_t* offsets = nullptr;

    template <class Arena>
    static single_product plan(Exec const& exec, Op const& w, index_t m, Arena& arena) {
        return {product::plan(exec, members_of(&w), 1, m, w.rows(), arena), arena.template carve<index_t>(2)};
    }
    template <class Inputs>
    void run(Exec const& exec, Op const& w, Inputs const& inputs, matrix_view<float> const& y) const {
        offsets[0] = 0;
        offsets[1] = y.extent(0);
        product::run(exec, {offsets, 1, 1}, members_of(&w), w.rows(), inputs, scratch,
                     [&](row_group const& g, product_task const& task, index_t) noexcept { finish_group_tile(g, task, y); });
    }
};

} // namespace detail

} // namespace tessera::inline TESSERA_ABI
