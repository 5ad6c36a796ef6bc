// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `moe`, a mixture of experts as a view, and its application by the definition; `moe.hpp` has those of processors, `moe.cuh` those of
/// CUDA devices.

#include "../operators/aliasing.hpp"
#include "../operators/door.hpp"
#include "../operators/family.hpp"
#include "combine.hpp"
#include "definition.hpp"
#include "report.hpp"

#include <concepts>
#include <span>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// A router, its experts (all of one shape) and what every token gets besides. A view: it refers to the experts.
template <class Router, class Expert, class Shared = no_shared_expert>
class moe {
public:
    using router_type = Router;
    using expert_type = Expert;
    using shared_type = Shared;

    moe(Router const& router, std::span<Expert const> experts, Shared const& shared = {})
        : router_{router}, experts_{experts}, shared_{shared} {
        static_assert(expert<Expert>, "tessera: moe: an expert is a linear operator or a gated_expert");
        check::equal("moe", "number of experts", static_cast<index_t>(experts.size()), router.experts(), "rows of the router");
        detail::check_family("moe", experts);
        check::equal("moe", "columns of the experts", experts[0].cols(), router.cols(), "columns of the router");
        if constexpr (detail::is_gated_expert<Expert>)
            for (Expert const& e : experts) check::equal("moe", "width of an expert", e.width(), experts[0].width(), "width of the first");
        if constexpr (requires { shared.expert(); }) {
            check::equal("moe", "rows of the shared expert", shared.expert().rows(), rows(), "rows of the experts");
            check::equal("moe", "columns of the shared expert", shared.expert().cols(), cols(), "columns of the experts");
        }
    }
    moe(Router const& router, std::vector<Expert> const& experts, Shared const& shared = {})
        : moe{router, std::span<Expert const>{experts}, shared} {}
    /// The block would outlive what it refers to.
    moe(Router const&, std::vector<Expert>&&, Shared const& = {}) = delete;

    constexpr index_t rows() const noexcept { return experts_[0].rows(); }
    constexpr index_t cols() const noexcept { return router_.cols(); }
    constexpr Router const& router() const noexcept { return router_; }
    constexpr std::span<Expert const> experts() const noexcept { return experts_; }
    constexpr Shared const& shared() const noexcept { return shared_; }

private:
    Router router_;
    std::span<Expert const> experts_;
    TESSERA_NO_UNIQUE_ADDRESS Shared shared_;
};

template <class R, class E>
moe(R const&, std::vector<E> const&) -> moe<R, E>;
template <class R, class E, class S>
moe(R const&, std::vector<E> const&, S const&) -> moe<R, E, S>;

namespace detail {

template <class T>
inline constexpr bool is_moe = false;
template <class R, class E, class S>
inline constexpr bool is_moe<moe<R, E, S>> = true;

} // namespace detail

/// A mixture, or what owns one: `view()` is the mixture.
template <class T>
concept moe_block = detail::is_moe<T> || requires(T const& owner) { requires detail::is_moe<std::remove_cvref_t<decltype(owner.view())>>; };

/// For the definition, which reads operators as they are.
template <class R, class E, class S>
unplaced<moe<R, E, S>> place(reference const&, moe<R, E, S> const& block) {
    return unplaced<moe<R, E, S>>{block};
}

namespace detail {

/// The view of a block or of its owner.
template <moe_block Block>
auto moe_view(Block const& block) {
    if constexpr (is_moe<Block>)
        return block;
    else
        return block.view();
}

/// An output is apart from every weight of an expert.
template <class Expert>
void check_expert_apart(char const* operation, Expert const& e, char const* output, footprint const& memory) {
    if constexpr (linear_operator<Expert>) {
        check_operator_apart(operation, e, output, memory);
    } else {
        check_operator_apart(operation, e.gate(), output, memory);
        check_operator_apart(operation, e.up(), output, memory);
        check_operator_apart(operation, e.down(), output, memory);
    }
}

/// An output is apart from every weight of a mixture.
template <class Moe>
void check_mixture_apart(char const* operation, Moe const& w, char const* output, footprint const& memory) {
    if (memory.empty()) return;
    check_operator_apart(operation, w.router().weights(), output, memory);
    for (auto const& e : w.experts()) check_expert_apart(operation, e, output, memory);
    if constexpr (requires { w.shared().expert(); }) check_expert_apart(operation, w.shared().expert(), output, memory);
    if constexpr (requires { w.shared().weight(); }) check_expert_apart(operation, w.shared().weight(), output, memory);
}

/// What is wanted has its shape and is apart from x, y, each other and the mixture's weights.
template <class Moe>
void check_details(Moe const& w, routing_details const& to, index_t tokens, footprint const& x, footprint const& y) {
    index_t const k = w.router().k();
    index_t const experts = w.router().experts();
    struct part {
        char const* name;
        footprint memory;
    };
    part const parts[] = {{"the counts", footprint_of(to.counts)}, {"the indices", footprint_of(to.index)}, {"the weights", footprint_of(to.weight)}};
    if (to.counts.extent(0) != 0) {
        check::equal("apply", "size of the counts", to.counts.extent(0), experts, "experts of the mixture");
        check::not_null("apply", "the counts", to.counts.data_handle(), to.counts.extent(0));
    }
    auto const of_choices = [&](char const* name, char const* rows, char const* columns, auto const& v) {
        if (v.size() == 0) return;
        check::equal("apply", rows, v.extent(0), tokens, "rows of x");
        check::equal("apply", columns, v.extent(1), k, "experts of a token");
        check_output_rows("apply", name, v);
    };
    of_choices("the indices", "rows of the indices", "columns of the indices", to.index);
    of_choices("the weights", "rows of the weights", "columns of the weights", to.weight);
    for (std::size_t i = 0; i < 3; ++i) {
        check::no_overlap("apply", parts[i].name, parts[i].memory, "y", y);
        check::no_overlap("apply", "x", x, parts[i].name, parts[i].memory);
        for (std::size_t j = 0; j < i; ++j) check::no_overlap("apply", parts[j].name, parts[j].memory, parts[i].name, parts[i].memory);
        check_mixture_apart("apply", w, parts[i].name, parts[i].memory);
    }
}

} // namespace detail

/// y = the mixture of x; what went where goes to `to`. See the file comment.
template <execution_policy Exec, moe_block Block>
    requires(!detail::is_cuda<Exec>)
routing_report apply(Exec const& exec, Block const& block,
                     matrix_argument auto const& x, // (tokens, width)
                     matrix_argument auto&& y,      // (tokens, n)
                     routing_details const& to) {
    detail::require_backend<Exec>();
    auto const w = detail::moe_view(block);
    auto const values = detail::activations("apply", detail::input(x));
    check::equal("apply", "columns of x", values.extent(1), w.cols(), "columns of the mixture");
    auto const out = detail::results(detail::output(y), values.extent(0), w.rows());
    check::no_overlap("apply", "x", footprint_of(values), "y", footprint_of(out));
    detail::check_mixture_apart("apply", w, "y", footprint_of(out));
    detail::check_details(w, to, values.extent(0), footprint_of(values), footprint_of(out));
    workspace_scope scope{exec.scratch()};
    auto const run = detail::moe_run<Exec, std::remove_const_t<decltype(w)>>::carve(exec, w, values, scope);
    run.run(exec, w, values, out);
    for (index_t e = 0; e < to.counts.extent(0); ++e) to.counts[e] = run.plan.count(e);
    for (index_t t = 0; t < to.index.extent(0); ++t)
        for (index_t j = 0; j < to.index.extent(1); ++j) to.index(t, j) = run.index(t, j);
    for (index_t t = 0; t < to.weight.extent(0); ++t)
        for (index_t j = 0; j < to.weight.extent(1); ++j) to.weight(t, j) = run.weight(t, j);
    return detail::report_of(run.plan);
}

/// The same without details.
template <execution_policy Exec, moe_block Block>
    requires(!detail::is_cuda<Exec>)
routing_report apply(Exec const& exec, Block const& block,
                     matrix_argument auto const& x, // (tokens, width)
                     matrix_argument auto&& y) {    // (tokens, n)
    return apply(exec, block, x, y, routing_details{});
}
/// The same; the loads of the experts go to `counts` (experts) where it has elements. `{}` is `routing_details`, not this.
template <execution_policy Exec, moe_block Block, std::convertible_to<vector_view<index_t>> Counts>
    requires(!detail::is_cuda<Exec>)
routing_report apply(Exec const& exec, Block const& block,
                     matrix_argument auto const& x, // (tokens, width)
                     matrix_argument auto&& y,      // (tokens, n)
                     Counts&& counts) {
    return apply(exec, block, x, y, routing_details{vector_view<index_t>(counts), {}, {}});
}

/// Bytes of scratch that `apply(exec, block, x, y)` carves from the policy's workspace.
template <execution_policy Exec, moe_block Block>
    requires(!detail::is_cuda<Exec>)
index_t workspace_bytes(Exec const& exec, Block const& block, matrix_argument auto const& x) {
    detail::require_backend<Exec>();
    auto const w = detail::moe_view(block);
    auto const values = detail::activations("workspace_bytes", detail::input(x));
    check::equal("workspace_bytes", "columns of x", values.extent(1), w.cols(), "columns of the mixture");
    workspace_sizer sizer;
    static_cast<void>(detail::moe_run<Exec, std::remove_const_t<decltype(w)>>::carve(exec, w, values, sizer));
    return sizer.bytes();
}

} // namespace tessera::inline TESSERA_ABI
