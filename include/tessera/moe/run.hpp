// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What a mixture does in one call: the memory it carves, and the steps. x is prepared once, for the router, every expert and
/// the shared expert; rows are then copied in the order of the plan, so that an expert's are side by side. One token needs no
/// copy: all its experts read the one row.

#include "definition.hpp"
#include "router.hpp"

#include <span>

namespace tessera::inline TESSERA_ABI::detail {

/// A family of experts: rows of x in groups to rows of y. Of linear operators: their grouped product.
template <class Exec, class Expert>
struct expert_family {
    using product = grouped_product<Exec, Expert>;
    using forms = typename kernel<op::apply, Exec, Expert>::forms;
    group_scratch scratch{};

    template <class Arena>
    static expert_family plan(Exec const& exec, std::span<Expert const> w, index_t most, index_t, Arena& arena) {
        return {product::plan(exec, members_of(w.data()), static_cast<index_t>(w.size()), most, w[0].rows(), arena)};
    }
    template <class Inputs>
    void run(Exec const& exec, std::span<Expert const> w, group_rows const& rows, Inputs const& inputs,
             matrix_view<float> const& y) const {
        product::run(exec, rows, members_of(w.data()), w[0].rows(), inputs, scratch,
                     [&](row_group const& g, product_task const& task, index_t) noexcept { finish_group_tile(g, task, y); });
    }
};

/// Of gated units: gate and up in one pass, their product in float32, and down.
template <class Exec, class G, class U, class D, class A>
struct expert_family<Exec, gated_expert<G, U, D, A>> {
    using unit = gated_expert<G, U, D, A>;
    using first = grouped_product<Exec, G, U>;
    using second = grouped_product<Exec, D>;
    using forms = tessera::list_union<typename kernel<op::apply, Exec, G>::forms, typename kernel<op::apply, Exec, U>::forms>;
    using hidden_inputs = input_set<typename kernel<op::apply, Exec, D>::forms>;
    group_scratch first_scratch{};
    group_scratch second_scratch{};
    matrix_view<float> hidden{}; // (slots, f)
    hidden_inputs inputs_of_down{};

    static auto gate_and_up(unit const* w) noexcept {
        return [w](index_t g) noexcept { return std::tuple<G const&, U const&>{w[g].gate(), w[g].up()}; };
    }
    static auto down(unit const* w) noexcept {
        return [w](index_t g) noexcept { return std::tuple<D const&>{w[g].down()}; };
    }

    template <class Arena>
    static expert_family plan(Exec const& exec, std::span<unit const> w, index_t most, index_t slots, Arena& arena) {
        expert_family s;
        auto const members = static_cast<index_t>(w.size());
        index_t const width = w[0].width();
        s.hidden = matrix_view<float>{arena.template carve<float>(slots, width), slots, width};
        s.inputs_of_down = hidden_inputs::template plan<Exec>(matrix_view<float const>{s.hidden}, arena);
        s.first_scratch = first::plan(exec, gate_and_up(w.data()), members, most, width, arena);
        s.second_scratch = second::plan(exec, down(w.data()), members, most, w[0].rows(), arena);
        return s;
    }
    template <class Inputs>
    void run(Exec const& exec, std::span<unit const> w, group_rows const& rows, Inputs const& inputs,
             matrix_view<float> const& y) const {
        using arch = typename Exec::arch_type;
        first::run(exec, rows, gate_and_up(w.data()), hidden.extent(1), inputs, first_scratch,
                   [&](row_group const& g, product_task const& task, index_t area) noexcept {
                       for (index_t m = task.m0; m < task.m1; ++m) {
                           float const* const gate = task.accumulator + (m - task.m0) * task.stride;
                           gate_row<arch>(A{}, gate, gate + area, task.n1 - task.n0,
                                          hidden.data_handle() + (g.first_y + m - g.first_x) * hidden.extent(1) + task.n0);
                       }
                   });
        inputs_of_down.run(exec, matrix_view<float const>{hidden});
        second::run(exec, {rows.offsets, rows.members, 1}, down(w.data()), w[0].rows(), inputs_of_down, second_scratch,
                    [&](row_group const& g, product_task const& task, index_t) noexcept { finish_group_tile(g, task, y); });
    }
};

/// What all tokens get besides.
template <class Exec, class Shared>
struct shared_run {
    using forms = type_list<>;
    template <class Arena>
    static shared_run plan(Exec const&, Shared const&, index_t, Arena&) noexcept {
        return {};
    }
    template <class Inputs>
    void run(Exec const&, Shared const&, Inputs const&, combine_arguments&) const noexcept {}
};

template <class Exec, class Shared>
    requires requires(Shared const& s) { s.expert(); }
struct shared_run<Exec, Shared> {
    using expert_type = typename Shared::expert_type;
    using family = expert_family<Exec, expert_type>;
    static constexpr bool is_weighted = is_gated_shared<Shared>;

    /// The product that makes the weight, where there is one.
    template <class S>
    struct weight_of {
        using forms = type_list<>;
        struct product {};
    };
    template <class S>
        requires is_gated_shared<S>
    struct weight_of<S> {
        using forms = typename kernel<op::apply, Exec, typename S::weight_type>::forms;
        using product = single_product<Exec, typename S::weight_type>;
    };
    using forms = tessera::list_union<typename family::forms, typename weight_of<Shared>::forms>;

    family state{};
    index_t* offsets = nullptr;
    matrix_view<float> rows{};   // (tokens, n)
    matrix_view<float> weight{}; // (tokens, 1)
    typename weight_of<Shared>::product weight_product{};

    template <class Arena>
    static shared_run plan(Exec const& exec, Shared const& s, index_t tokens, Arena& arena) {
        shared_run r;
        r.state = family::plan(exec, std::span{&s.expert(), 1}, tokens, tokens, arena);
        r.offsets = arena.template carve<index_t>(2);
        r.rows = matrix_view<float>{arena.template carve<float>(tokens, s.expert().rows()), tokens, s.expert().rows()};
        if constexpr (is_weighted) {
            r.weight = matrix_view<float>{arena.template carve<float>(tokens), tokens, 1};
            r.weight_product = weight_of<Shared>::product::plan(exec, s.weight(), tokens, arena);
        }
        return r;
    }
    template <class Inputs>
    void run(Exec const& exec, Shared const& s, Inputs const& inputs, combine_arguments& to) const {
        offsets[0] = 0;
        offsets[1] = rows.extent(0);
        state.run(exec, std::span{&s.expert(), 1}, {offsets, 1, 1}, inputs, rows);
        to.has_shared = true;
        to.shared = rows;
        if constexpr (is_weighted) {
            weight_product.run(exec, s.weight(), inputs, weight);
            sigmoid_row<typename Exec::arch_type>(weight.data_handle(), weight.extent(0), weight.data_handle());
            to.shared_weight = weight.data_handle();
        }
    }
};

/// The memory of one call, and the call. `Moe` is moe<Router, Expert, Shared>.
template <class Exec, class Moe>
struct moe_run {
    using router = typename Moe::router_type;
    using router_product = single_product<Exec, typename router::operator_type>;
    using route_kernel = kernel<op::route, Exec, typename router::gate_type>;
    using family = expert_family<Exec, typename Moe::expert_type>;
    using shared = shared_run<Exec, typename Moe::shared_type>;
    using expert_inputs = input_set<typename family::forms>;
    using forms = tessera::list_union<tessera::list_union<typename kernel<op::apply, Exec, typename router::operator_type>::forms,
                                        typename family::forms>,
                             typename shared::forms>;

    input_set<forms> inputs;
    router_product logit_product;
    matrix_view<float> logits;       // (tokens, experts)
    typename route_kernel::scratch choice;
    matrix_view<std::int32_t> index; // (tokens, k)
    matrix_view<float> weight;       // (tokens, k)
    expert_plan plan;
    expert_inputs gathered; // (slots, width); unused for one token
    family experts;
    matrix_view<float> rows; // (slots, n)
    shared besides;

    template <class X, class Arena>
    static moe_run carve(Exec const& exec, Moe const& w, matrix_view<X const> const& x, Arena& arena) {
        index_t const tokens = x.extent(0);
        index_t const k = w.router().k();
        moe_run r;
        r.inputs = input_set<forms>::template plan<Exec>(x, arena);
        r.logit_product = router_product::plan(exec, w.router().weights(), tokens, arena);
        index_t const count = w.router().experts();
        r.logits = matrix_view<float>{arena.template carve<float>(tokens, count), tokens, count};
        r.choice = route_kernel::plan(exec, count, arena);
        r.index = matrix_view<std::int32_t>{arena.template carve<std::int32_t>(tokens, k), tokens, k};
        r.weight = matrix_view<float>{arena.template carve<float>(tokens, k), tokens, k};
        r.plan = expert_plan::carve(exec, tokens, k, count, arena);
        if (tokens > 1) r.gathered = expert_inputs::template plan_gather<Exec>(expert_inputs::of(r.inputs), tokens * k, arena);
        r.experts = family::plan(exec, w.experts(), tokens, tokens * k, arena);
        r.rows = matrix_view<float>{arena.template carve<float>(tokens, k, w.rows()), tokens * k, w.rows()};
        r.besides = shared::plan(exec, w.shared(), tokens, arena);
        return r;
    }

    template <class X, class Y>
    void run(Exec const& exec, Moe const& w, matrix_view<X const> const& x, matrix_view<Y> const& y) const {
        inputs.run(exec, x);
        logit_product.run(exec, w.router().weights(), inputs, logits);
        route_kernel::run(exec, w.router().gate(), logits, index, weight, choice);
        plan.fill(exec, index);
        auto const shared_row = expert_inputs::of(inputs);
        index_t const tokens = x.extent(0);
        if (tokens > 1) gathered.gather(exec, shared_row, plan.token_data());
        experts.run(exec, w.experts(), {plan.offsets().data_handle(), plan.experts(), tokens > 1 ? 1 : 0},
                    tokens > 1 ? gathered : shared_row, rows);
        combine_arguments to{plan.choices(), plan.slot_data(), weight, rows, {}, nullptr, false};
        besides.run(exec, w.shared(), inputs, to);
        kernel<op::combine, Exec, Y>::run(exec, to, y);
    }
};

} // namespace tessera::inline TESSERA_ABI::detail
