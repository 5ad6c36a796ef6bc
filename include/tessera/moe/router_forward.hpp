// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Routers, for the kernels of every backend; `router.hpp` has those of processors, `moe.cuh` those of CUDA devices.

#include "../kernels/ref/routing.hpp"
#include "../nn/arguments.hpp"
#include "../operators/apply_reference.hpp"
#include "../operators/placed.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI {

/// W (experts, width), the number of experts of a token, and the gate. `Weight` is a storage, as in `linear<Weight>`.
template <class Weight, class Gate>
class top_k_router {
    static_assert(routing_gate<Gate>, "tessera: top_k_router: the gate is not one of kernels/routing.hpp's kind");

public:
    using operator_type = linear<Weight>;
    using gate_type = Gate;

    /// Throws shape_error where k or the gate does not fit the number of experts.
    template <class W>
        requires(!std::same_as<std::remove_cvref_t<W>, operator_type>)
    top_k_router(W&& w, index_t k, Gate const& gate) : top_k_router{operator_type{std::forward<W>(w)}, k, gate} {}
    top_k_router(operator_type const& w, index_t k, Gate const& gate) : w_{w}, k_{k}, gate_{gate} {
        detail::check_gate("top_k_router", gate, w.rows(), k);
    }

    constexpr index_t experts() const noexcept { return w_.rows(); }
    constexpr index_t cols() const noexcept { return w_.cols(); }
    constexpr index_t k() const noexcept { return k_; }
    constexpr operator_type const& weights() const noexcept { return w_; }
    constexpr Gate const& gate() const noexcept { return gate_; }

private:
    operator_type w_;
    index_t k_;
    Gate gate_;
};

template <class W, class Gate>
    requires(!linear_operator<W>)
top_k_router(W const&, index_t, Gate const&) -> top_k_router<typename detail::as_storage<W>::type, Gate>;
template <class Storage, class Gate>
top_k_router(linear<Storage> const&, index_t, Gate const&) -> top_k_router<Storage, Gate>;

/// A router with its weights in the order of a backend.
template <class Exec, class Weight, class Gate>
class placed<Exec, top_k_router<Weight, Gate>> {
public:
    placed(Exec const& exec, top_k_router<Weight, Gate> const& router, memory_arena* arena = nullptr)
        : weights_{exec, router.weights(), arena}, k_{router.k()}, gate_{router.gate()} {}
    auto view() const& { return top_k_router{weights_.view(), k_, gate_}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return weights_.bytes(); }

private:
    placed<Exec, linear<Weight>> weights_;
    index_t k_;
    Gate gate_;
};

namespace detail {

/// index and weight (tokens, k), rows contiguous, apart from each other.
inline void check_routing(char const* operation, matrix_view<std::int32_t> const& index, matrix_view<float> const& weight,
                          index_t tokens, index_t k) {
    check::equal(operation, "rows of the indices", index.extent(0), tokens, "rows of x");
    check::equal(operation, "rows of the weights", weight.extent(0), tokens, "rows of x");
    check::equal(operation, "columns of the indices", index.extent(1), k, "chosen experts");
    check::equal(operation, "columns of the weights", weight.extent(1), k, "chosen experts");
    check_output_rows(operation, "the indices", index);
    check_output_rows(operation, "the weights", weight);
    check::no_overlap(operation, "the indices", footprint_of(index), "the weights", footprint_of(weight));
}

/// y[n] = row n of x wᵀ for one row of x in double.
template <class Op>
void reference_row(reference const& exec, Op const& w, double const* x, double* y) {
    for (index_t n = 0; n < w.rows(); ++n) y[n] = 0;
    kernel<op::apply, reference, Op>::row(w, x, y, 1.0, exec.scratch());
}

} // namespace detail

/// Experts and weights from logits that are there: (tokens, experts) to index and weight (tokens, k).
template <execution_policy Exec, routing_gate Gate>
void choose_experts(Exec const& exec, Gate const& gate,
                    matrix_view<float const> logits,                                  // (tokens, experts)
                    matrix_view<std::int32_t> index, matrix_view<float> weight) {     // (tokens, k)
    detail::require_backend<Exec>();
    detail::check_gate("choose_experts", gate, logits.extent(1), index.extent(1));
    detail::check_routing("choose_experts", index, weight, logits.extent(0), index.extent(1));
    detail::check_rows("choose_experts", "the logits", logits);
    check::no_overlap("choose_experts", "the logits", footprint_of(logits), "the indices", footprint_of(index));
    check::no_overlap("choose_experts", "the logits", footprint_of(logits), "the weights", footprint_of(weight));
    using route_kernel = kernel<op::route, Exec, Gate>;
    workspace_scope scope{exec.scratch()};
    route_kernel::run(exec, gate, logits, index, weight, route_kernel::plan(exec, logits.extent(1), scope));
}

/// Experts and weights of every row of x; see the file comment.
template <execution_policy Exec, class Weight, class Gate>
void route(Exec const& exec, top_k_router<Weight, Gate> const& router,
           matrix_argument auto const& x,                                // (tokens, width)
           matrix_view<std::int32_t> index, matrix_view<float> weight) { // (tokens, k)
    detail::require_backend<Exec>();
    auto const values = detail::activations("route", detail::input(x));
    check::equal("route", "columns of x", values.extent(1), router.cols(), "columns of the router");
    detail::check_routing("route", index, weight, values.extent(0), router.k());
    check::no_overlap("route", "x", footprint_of(values), "the indices", footprint_of(index));
    check::no_overlap("route", "x", footprint_of(values), "the weights", footprint_of(weight));
    workspace_scope scope{exec.scratch()};
    matrix_view<float> const logits{scope.carve<float>(values.extent(0), router.experts()), values.extent(0), router.experts()};
    apply(exec, router.weights(), values, logits);
    choose_experts(exec, router.gate(), matrix_view<float const>{logits}, index, weight);
}

} // namespace tessera::inline TESSERA_ABI
