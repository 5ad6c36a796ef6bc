// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The definition of a mixture, in double.

#include "expert.hpp"
#include "plan.hpp"
#include "router_forward.hpp"

#include <cstddef>

namespace tessera::inline TESSERA_ABI::detail {

/// One expert and one row, in double: y = expert(x).
template <class Expert>
void reference_expert(reference const& exec, Expert const& e, double const* x, double* y) {
    if constexpr (linear_operator<Expert>) {
        reference_row(exec, e, x, y);
    } else {
        workspace_scope scope{exec.scratch()};
        double* const gate = scope.carve<double>(e.width());
        double* const up = scope.carve<double>(e.width());
        reference_row(exec, e.gate(), x, gate);
        reference_row(exec, e.up(), x, up);
        for (index_t f = 0; f < e.width(); ++f) gate[f] = Expert::activation_type::value(gate[f]) * up[f];
        reference_row(exec, e.down(), gate, y);
    }
}

/// What `reference_expert` carves.
template <class Expert>
void plan_reference_expert(Expert const& e, workspace_sizer& sizer) {
    if constexpr (linear_operator<Expert>) {
        kernel<op::apply, reference, Expert>::plan(e, sizer);
    } else {
        sizer.carve<double>(e.width());
        sizer.carve<double>(e.width());
        plan_reference_expert(e.gate(), sizer);
        plan_reference_expert(e.up(), sizer);
        plan_reference_expert(e.down(), sizer);
    }
}

/// The memory of one call, and the call. `Moe` is moe<Router, Expert, Shared>.
template <class Exec, class Moe>
struct moe_run;

/// The definition, token by token.
template <class Moe>
struct moe_run<reference, Moe> {
    using route_kernel = kernel<op::route, reference, typename Moe::router_type::gate_type>;

    matrix_view<std::int32_t> index;
    matrix_view<float> weight;
    expert_plan plan;
    typename route_kernel::scratch choice;
    matrix_view<float> logits; // (1, experts)
    double* row;
    double* product;
    double* sum;

    template <class X, class Arena>
    static moe_run carve(reference const& exec, Moe const& w, matrix_view<X const> const& x, Arena& arena) {
        index_t const tokens = x.extent(0);
        index_t const count = w.router().experts();
        index_t const k = w.router().k();
        moe_run r;
        r.index = matrix_view<std::int32_t>{arena.template carve<std::int32_t>(tokens, k), tokens, k};
        r.weight = matrix_view<float>{arena.template carve<float>(tokens, k), tokens, k};
        r.plan = expert_plan::carve(exec, tokens, k, count, arena);
        r.choice = route_kernel::plan(exec, count, arena);
        r.logits = matrix_view<float>{arena.template carve<float>(count), 1, count};
        r.row = arena.template carve<double>(w.cols());
        r.product = arena.template carve<double>(maximum(w.rows(), count));
        r.sum = arena.template carve<double>(w.rows());
        if constexpr (std::is_same_v<Arena, workspace_sizer>) {
            kernel<op::apply, reference, typename Moe::router_type::operator_type>::plan(w.router().weights(), arena);
            for (auto const& e : w.experts()) plan_reference_expert(e, arena);
            if constexpr (requires { w.shared().expert(); }) plan_reference_expert(w.shared().expert(), arena);
            if constexpr (is_gated_shared<typename Moe::shared_type>) plan_reference_expert(w.shared().weight(), arena);
        }
        return r;
    }

    template <class X, class Y>
    void run(reference const& exec, Moe const& w, matrix_view<X const> const& x, matrix_view<Y> const& y) const {
        for (index_t t = 0; t < x.extent(0); ++t) {
            for (index_t c = 0; c < w.cols(); ++c) row[c] = static_cast<double>(static_cast<float>(x(t, c)));
            reference_row(exec, w.router().weights(), row, product);
            for (index_t e = 0; e < w.router().experts(); ++e) logits(0, e) = static_cast<float>(product[e]);
            route_kernel::run(exec, w.router().gate(), logits, rows(index, t, t + 1), rows(weight, t, t + 1), choice);
            for (index_t n = 0; n < w.rows(); ++n) sum[n] = 0;
            for (index_t j = 0; j < w.router().k(); ++j)
                add(exec, w.experts()[static_cast<std::size_t>(index(t, j))], static_cast<double>(weight(t, j)));
            if constexpr (requires { w.shared().expert(); }) {
                double factor = 1;
                if constexpr (is_gated_shared<typename Moe::shared_type>) {
                    reference_row(exec, w.shared().weight(), row, product);
                    factor = reference_sigmoid(product[0]);
                }
                add(exec, w.shared().expert(), factor);
            }
            for (index_t n = 0; n < w.rows(); ++n) y(t, n) = static_cast<Y>(sum[n]);
        }
        plan.fill(exec, index);
    }

private:
    template <class Expert>
    void add(reference const& exec, Expert const& e, double factor) const {
        reference_expert(exec, e, row, product);
        for (index_t n = 0; n < e.rows(); ++n) sum[n] += factor * product[n];
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
