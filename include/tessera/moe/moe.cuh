// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Mixtures of experts on CUDA devices: the steps of moe/moe.hpp and the whole, asynchronous in the stream, without a number that the
/// host reads, so that a captured graph routes anew whenever it runs.
///
///     cuda<90> const exec{stream};
///     auto const ready = place(exec, moe{top_k_router{w, 2, renormalized{softmax_gate{}}}, experts});
///     apply(exec, ready, x, y);                                          // device views; what was routed where it is wanted
///
///     auto const family = place(exec, std::span{operators});             // or step by step
///     device_expert_plan plan{tokens, k, experts};
///     route(exec, router, x, index, weight);                             // router: a placed one
///     plan_experts(exec, index, plan);
///     apply_grouped(exec, family, plan.offsets(), gathered, y);
///     combine(exec, plan, weight, y, out);
///
/// Experts are chosen as they are everywhere, given the same logits; a sigmoid gate's choice may differ where two experts tie but for
/// the rounding of expf. Rows have the same bits in every run and whatever else is in the batch, as far as `apply` has that: of routed
/// experts that are stored matrices even `as_bf16`. These, or sums that begin with one, run in a launch for all; others, products of
/// bytes too, one after another (kernels/cuda/grouped.cuh).
///
/// Errors: those of moe/moe.hpp, of every product of the device, and cuda_error. What only the device knows is not checked: a pair whose
/// index is no expert gets no slot, and its token NaN; offsets outside the rows are cut.

#include "../kernels/cuda/routing.cuh"
#include "../kernels/cuda/rows.cuh"
#include "../operators/grouped.cuh"
#include "block.hpp"

#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace tessera::inline TESSERA_ABI {

/// A plan on a device: its memory, made once for a number of tokens, choices and experts.
class device_expert_plan {
public:
    device_expert_plan(index_t tokens, index_t choices, index_t experts) {
        check::at_least("device_expert_plan", "tokens", tokens, 0);
        check::at_least("device_expert_plan", "choices", choices, 0);
        check::within("device_expert_plan", "number of experts", experts, 0, std::numeric_limits<std::int32_t>::max());
        check::within("device_expert_plan", "slots", detail::saturated_product(tokens, choices), 0, (index_t{1} << 40) - 1);
        workspace_sizer sizer;
        static_cast<void>(detail::device_plan::carve(tokens, choices, experts, sizer));
        workspace_ = std::make_unique<device_workspace>(sizer.bytes());
        detail::device_arena arena{*workspace_};
        plan_ = detail::device_plan::carve(tokens, choices, experts, arena);
    }
    index_t tokens() const noexcept { return plan_.tokens; }
    index_t choices() const noexcept { return plan_.choices; } ///< k
    index_t experts() const noexcept { return plan_.experts; }
    index_t slots() const noexcept { return plan_.slots(); }
    /// (experts + 1): slots of expert e are [offsets[e], offsets[e + 1]).
    device_vector_view<index_t const> offsets() const noexcept { return device_vector_view<index_t const>{plan_.offsets, plan_.experts + 1}; }
    /// (slots): whose row of x a slot is.
    device_vector_view<index_t const> tokens_of_slots() const noexcept { return device_vector_view<index_t const>{plan_.token, plan_.slots()}; }
    /// (tokens, k)
    device_matrix_view<index_t const> slots_of_tokens() const noexcept { return device_matrix_view<index_t const>{plan_.slot, plan_.tokens, plan_.choices}; }
    detail::device_plan const& arrays() const noexcept { return plan_; }

private:
    std::unique_ptr<device_workspace> workspace_;
    detail::device_plan plan_;
};

/// What a mixture on a device leaves besides y, where it is wanted (not empty): the experts' loads, the chosen experts and their
/// weights. As `routing_details` of processors, in memory of the device.
struct device_routing_details {
    device_vector_view<index_t> counts;     ///< (experts)
    device_matrix_view<std::int32_t> index; ///< (tokens, k)
    device_matrix_view<float> weight;       ///< (tokens, k)

    device_routing_details() noexcept = default;
    explicit(false) device_routing_details(device_vector_view<index_t> const& loads) noexcept : counts{loads} {}
    device_routing_details(device_vector_view<index_t> const& loads, device_matrix_view<std::int32_t> const& chosen,
                           device_matrix_view<float> const& weights) noexcept
        : counts{loads}, index{chosen}, weight{weights} {}
};

namespace detail {

/// The same for kernels.
struct routing_wishes {
    vector_view<index_t> counts;
    matrix_view<std::int32_t> index;
    matrix_view<float> weight;
};

/// Bytes of the host on the device.
template <int Sm>
device_buffer<std::byte> uploaded(cuda<Sm> const& exec, void const* data, index_t bytes) {
    check_device<Sm>("place");
    device_buffer<std::byte> there{bytes};
    copy_bytes(stream_of(exec), there.data(), data, bytes, cudaMemcpyHostToDevice);
    check_cuda("place", "cudaStreamSynchronize", cudaStreamSynchronize(stream_of(exec)));
    return there;
}

/// Placed members of a family, their views side by side on the host and on the device.
template <int Sm, class Op>
class placed_members {
public:
    using view_type = placed_view<cuda<Sm>, Op>;
    static_assert(std::is_trivially_copyable_v<view_type>);

    placed_members(cuda<Sm> const& exec, std::span<Op const> w) {
        owners_.reserve(w.size());
        views_.reserve(w.size());
        for (Op const& one : w) {
            owners_.emplace_back(exec, one);
            views_.push_back(owners_.back().view());
        }
        there_ = uploaded(exec, views_.data(), static_cast<index_t>(views_.size() * sizeof(view_type)));
    }
    std::vector<view_type> const& views() const noexcept { return views_; }
    device_family<view_type> family() const noexcept {
        return {reinterpret_cast<std::byte const*>(views_.data()), there_.data(), static_cast<index_t>(sizeof(view_type)),
                static_cast<index_t>(views_.size())};
    }
    index_t bytes() const noexcept {
        index_t sum = there_.bytes();
        for (auto const& one : owners_) sum += one.bytes();
        return sum;
    }

private:
    std::vector<placed<cuda<Sm>, Op>> owners_;
    std::vector<view_type> views_;
    device_buffer<std::byte> there_;
};

/// y rows of slots = experts of rows of x, all of device_groups.
template <int Sm, class Expert>
struct device_experts {
    template <class X, class Arena>
    static void run(cuda<Sm> const& exec, device_family<Expert> const& w, matrix_view<X const> const& x, device_groups const& g,
                    matrix_view<float> const& y, Arena& arena) {
        grouped_product_of<Sm, Expert>::run(exec, w, x, g, into(y), arena);
    }
};
template <int Sm, class G, class U, class D, class A>
struct device_experts<Sm, gated_expert<G, U, D, A>> {
    using unit = gated_expert<G, U, D, A>;

    template <class X, class Arena>
    static void run(cuda<Sm> const& exec, device_family<unit> const& w, matrix_view<X const> const& x, device_groups const& g,
                    matrix_view<float> const& y, Arena& arena) {
        auto const gate = carve_matrix(arena, g.slots, w[0].width());
        auto const up = carve_matrix(arena, g.slots, w[0].width());
        auto const gates = w.template part<G>([](unit const& e) -> G const& { return e.gate(); });
        auto const ups = w.template part<U>([](unit const& e) -> U const& { return e.up(); });
        if constexpr (std::is_same_v<G, U> && requires { typename grouped_product_of<Sm, G>::panels; }) {
            grouped_product_of<Sm, G>::run_two(exec, gates, ups, x, g, into(gate), into(up), arena);
        } else {
            grouped_product_of<Sm, G>::run(exec, gates, x, g, into(gate), arena);
            grouped_product_of<Sm, U>::run(exec, ups, x, g, into(up), arena);
        }
        matrix_view<float const> const g_values = gate;
        if constexpr (launches<Arena>) kernel<op::gate, cuda<Sm>, float>::run(exec, A{}, g_values, matrix_view<float const>{up}, gate);
        grouped_product_of<Sm, D>::run(exec, w.template part<D>([](unit const& e) -> D const& { return e.down(); }), g_values,
                                       {g.offsets, nullptr, g.slots, g.most, g.used}, into(y), arena);
    }
};

/// One expert for all rows of x.
template <int Sm, class Expert, class X, class Arena>
void run_expert(cuda<Sm> const& exec, Expert const& e, matrix_view<X const> const& x, matrix_view<float> const& y, Arena& arena) {
    if constexpr (linear_operator<Expert>) {
        if (!y.empty()) run_operator(exec, e, x, into(y), arena);
    } else {
        auto const gate = carve_matrix(arena, x.extent(0), e.width());
        auto const up = carve_matrix(arena, x.extent(0), e.width());
        run_expert(exec, e.gate(), x, gate, arena);
        run_expert(exec, e.up(), x, up, arena);
        matrix_view<float const> const g_values = gate;
        if constexpr (launches<Arena>)
            kernel<op::gate, cuda<Sm>, float>::run(exec, typename Expert::activation_type{}, g_values, matrix_view<float const>{up}, gate);
        run_expert(exec, e.down(), g_values, y, arena);
    }
}

/// The whole mixture; of a sizer it only carves.
template <int Sm, class Moe, class Y, class X, class Arena>
void run_mixture(cuda<Sm> const& exec, Moe const& w, device_family<typename Moe::expert_type> const& family, matrix_view<X const> const& x,
                 matrix_view<Y> const& y, routing_wishes const& wishes, Arena& arena) {
    using route_kernel = kernel<op::route, cuda<Sm>, typename Moe::router_type::gate_type>;
    index_t const tokens = x.extent(0);
    index_t const k = w.router().k();
    index_t const experts = w.router().experts();
    auto const logits = carve_matrix(arena, tokens, experts);
    if (!logits.empty()) run_operator(exec, w.router().weights(), x, into(logits), arena);
    // The caller's where it wants them.
    matrix_view<std::int32_t> const carved_index{arena.template carve<std::int32_t>(tokens, k), tokens, k};
    auto const carved_weight = carve_matrix(arena, tokens, k);
    auto const index = wishes.index.empty() ? carved_index : wishes.index;
    auto const weight = wishes.weight.empty() ? carved_weight : wishes.weight;
    auto const scratch = route_kernel::plan(w.router().gate(), tokens, experts, arena);
    device_plan const plan = device_plan::carve(tokens, k, experts, arena);
    if constexpr (launches<Arena>) {
        route_kernel::run(exec, w.router().gate(), matrix_view<float const>{logits}, index, weight, scratch);
        fill_plan(exec, plan, index);
        if (wishes.counts.extent(0) != 0) launch("apply", stream_of(exec), {grid_of(experts)}, &count_kernel<index_t>, plan, wishes.counts);
    }
    auto const rows = carve_matrix(arena, plan.slots(), w.rows());
    device_experts<Sm, typename Moe::expert_type>::run(exec, family, x, {plan.offsets, plan.token, plan.slots(), tokens, plan.used, true}, rows, arena);
    combine_arguments to{k, plan.slot, weight, rows, {}, nullptr, false};
    if constexpr (requires { w.shared().expert(); }) {
        auto const shared = carve_matrix(arena, tokens, w.rows());
        run_expert(exec, w.shared().expert(), x, shared, arena);
        to.has_shared = true;
        to.shared = shared;
    }
    if constexpr (is_gated_shared<typename Moe::shared_type>) {
        auto const of_shared = carve_matrix(arena, tokens, 1);
        if (!of_shared.empty()) run_operator(exec, w.shared().weight(), x, into(of_shared), arena);
        to.shared_weight = of_shared.data_handle();
    }
    if constexpr (launches<Arena>) kernel<op::combine, cuda<Sm>, Y>::run(exec, to, y);
}

/// What experts read is memory of the current device. Experts are placed by one call, so all are where the first is.
template <class Expert>
void check_expert_there(char const* operation, char const* argument, Expert const& e) {
    if constexpr (linear_operator<Expert>) {
        check_operator_there(operation, argument, e);
    } else {
        check_operator_there(operation, argument, e.gate());
        check_operator_there(operation, argument, e.up());
        check_operator_there(operation, argument, e.down());
    }
}
template <class Expert>
void check_family_there(char const* operation, device_family<Expert> const& family) {
    if (family.members == 0) return;
    check_owned_memory(operation, "the experts", family.there, family.members);
    check_expert_there(operation, "the experts", family[0]);
}
template <class Router>
void check_router_there(char const* operation, Router const& router) {
    check_operator_there(operation, "the router", router.weights());
    if constexpr (std::is_base_of_v<sigmoid_gate, typename Router::gate_type>)
        check_owned_memory(operation, "the router", router.gate().bias.data_handle(), router.gate().bias.extent(0));
}
template <class Moe>
void check_mixture_there(char const* operation, Moe const& w, device_family<typename Moe::expert_type> const& family) {
    check_router_there(operation, w.router());
    check_family_there(operation, family);
    if constexpr (requires { w.shared().expert(); }) check_expert_there(operation, "the shared expert", w.shared().expert());
    if constexpr (requires { w.shared().weight(); }) check_operator_there(operation, "the shared expert's gate", w.shared().weight());
}
inline void check_plan_there(char const* operation, device_expert_plan const& plan) {
    check_owned_memory(operation, "the plan", plan.arrays().slot, plan.slots());
}

} // namespace detail

/// A router with its weights, and the bias of its gate, on a device.
template <int Sm, class Weight, class Gate>
class placed<cuda<Sm>, top_k_router<Weight, Gate>> {
public:
    placed(cuda<Sm> const& exec, top_k_router<Weight, Gate> const& router, memory_arena* = nullptr)
        : weights_{exec, router.weights()}, k_{router.k()}, gate_{router.gate()} {
        if constexpr (std::is_base_of_v<sigmoid_gate, Gate>) {
            index_t const size = gate_.bias.extent(0);
            std::vector<float> bias(static_cast<std::size_t>(size));
            for (index_t e = 0; e < size; ++e) bias[static_cast<std::size_t>(e)] = gate_.bias[e];
            bias_ = detail::uploaded(exec, bias.data(), size * 4);
            gate_.bias = vector_view<float const>{reinterpret_cast<float const*>(bias_.data()), size};
        }
    }
    auto view() const& { return top_k_router{weights_.view(), k_, gate_}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return weights_.bytes() + bias_.bytes(); }

private:
    placed<cuda<Sm>, linear<Weight>> weights_;
    index_t k_;
    Gate gate_;
    device_buffer<std::byte> bias_;
};

/// A mixture with all its weights on a device.
template <int Sm, class R, class E, class S>
class placed<cuda<Sm>, moe<R, E, S>> {
public:
    using block_type = moe<detail::placed_view<cuda<Sm>, R>, detail::placed_view<cuda<Sm>, E>, detail::placed_view<cuda<Sm>, S>>;

    placed(cuda<Sm> const& exec, moe<R, E, S> const& block) : router_{exec, block.router()}, shared_{exec, block.shared()}, experts_{exec, block.experts()} {}
    block_type view() const& { return {router_.view(), experts_.views(), shared_.view()}; }
    void view() const&& = delete;
    auto family() const& noexcept { return experts_.family(); }
    index_t bytes() const noexcept { return router_.bytes() + shared_.bytes() + experts_.bytes(); }

private:
    placed<cuda<Sm>, R> router_;
    placed<cuda<Sm>, S> shared_;
    detail::placed_members<Sm, E> experts_;
};

/// Places a mixture, a router, a family of operators of one shape on the current device. Waits for the copies; throws cuda_error.
template <int Sm, class R, class E, class S>
placed<cuda<Sm>, moe<R, E, S>> place(cuda<Sm> const& exec, moe<R, E, S> const& block) {
    return {exec, block};
}
template <int Sm, class Weight, class Gate>
placed<cuda<Sm>, top_k_router<Weight, Gate>> place(cuda<Sm> const& exec, top_k_router<Weight, Gate> const& router) {
    return {exec, router};
}
template <int Sm, linear_operator Op>
class placed<cuda<Sm>, std::span<Op const>> : public detail::placed_members<Sm, Op> {
public:
    using detail::placed_members<Sm, Op>::placed_members;
};
template <int Sm, class Op>
    requires linear_operator<std::remove_const_t<Op>>
placed<cuda<Sm>, std::span<std::remove_const_t<Op> const>> place(cuda<Sm> const& exec, std::span<Op> family) {
    detail::check_family("place", std::span<std::remove_const_t<Op> const>{family});
    return {exec, std::span<std::remove_const_t<Op> const>{family}};
}

/// Experts and weights from logits on the device; the bias of a gate is there, too.
template <execution_policy Exec, routing_gate Gate>
    requires detail::is_cuda<Exec>
void choose_experts(Exec const& exec, Gate const& gate,
                    device_matrix_view<float const> const& logits,                                                // (tokens, experts)
                    device_matrix_view<std::int32_t> const& index, device_matrix_view<float> const& weight) {     // (tokens, k)
    auto const l = kernel_view(logits);
    auto const i = kernel_view(index);
    auto const p = kernel_view(weight);
    detail::check_gate("choose_experts", gate, l.extent(1), i.extent(1));
    detail::check_routing("choose_experts", i, p, l.extent(0), i.extent(1));
    detail::check_rows("choose_experts", "the logits", l);
    check::no_overlap("choose_experts", "the logits", footprint_of(l), "the indices", footprint_of(i));
    check::no_overlap("choose_experts", "the logits", footprint_of(l), "the weights", footprint_of(p));
    detail::check_rows_there<Exec::sm>("choose_experts", "the logits\0the indices\0the weights", l, i, p);
    if constexpr (std::is_base_of_v<sigmoid_gate, Gate>)
        detail::check_device_pointer("choose_experts", "the gate's bias", gate.bias.data_handle(), gate.bias.extent(0));
    using route_kernel = kernel<op::route, Exec, Gate>;
    workspace_sizer sizer;
    static_cast<void>(route_kernel::plan(gate, l.extent(0), l.extent(1), sizer));
    detail::device_arena arena{detail::grown("choose_experts", exec, sizer.bytes())};
    route_kernel::run(exec, gate, l, i, p, route_kernel::plan(gate, l.extent(0), l.extent(1), arena));
}

/// Experts and weights of every row of x, by a placed router.
template <int Sm, class Weight, class Gate>
void route(cuda<Sm> const& exec, top_k_router<Weight, Gate> const& router, matrix_argument auto const& x,             // (tokens, width)
           device_matrix_view<std::int32_t> const& index, device_matrix_view<float> const& weight) {                  // (tokens, k)
    auto const values = detail::activations("route", detail::input<cuda<Sm>>(x));
    auto const i = kernel_view(index);
    auto const p = kernel_view(weight);
    check::equal("route", "columns of x", values.extent(1), router.cols(), "columns of the router");
    detail::check_routing("route", i, p, values.extent(0), router.k());
    check::no_overlap("route", "x", footprint_of(values), "the indices", footprint_of(i));
    check::no_overlap("route", "x", footprint_of(values), "the weights", footprint_of(p));
    detail::check_rows_there<Sm>("route", "x\0the indices\0the weights", values, i, p);
    if (values.extent(0) == 0) return;
    detail::check_router_there("route", router);
    using route_kernel = kernel<op::route, cuda<Sm>, Gate>;
    auto const run = [&]<class Arena>(Arena& arena) {
        auto const logits = detail::carve_matrix(arena, values.extent(0), router.experts());
        auto const scratch = route_kernel::plan(router.gate(), values.extent(0), router.experts(), arena);
        detail::run_operator(exec, router.weights(), values, detail::into(logits), arena);
        if constexpr (detail::launches<Arena>) route_kernel::run(exec, router.gate(), matrix_view<float const>{logits}, i, p, scratch);
    };
    workspace_sizer sizer;
    run(sizer);
    detail::device_arena arena{detail::grown("route", exec, sizer.bytes())};
    run(arena);
}

/// The plan of experts index(token, choice).
template <int Sm>
void plan_experts(cuda<Sm> const& exec, device_matrix_view<std::int32_t const> const& index, device_expert_plan const& plan) { // (tokens, k)
    auto const i = kernel_view(index);
    check::elements("plan_experts", "the indices", i);
    check::equal("plan_experts", "rows of the indices", i.extent(0), plan.tokens(), "tokens of the plan");
    check::equal("plan_experts", "columns of the indices", i.extent(1), plan.choices(), "choices of the plan");
    detail::check_rows_there<Sm>("plan_experts", "the indices", i);
    detail::check_plan_there("plan_experts", plan);
    detail::fill_plan(exec, plan.arrays(), i);
}

/// y = x W_gᵀ, group by group: rows [offsets[g], offsets[g + 1]) of x and y are member g's.
template <int Sm, linear_operator Op, class X, class EX, class LX, class AX, class Y, class EY, class LY, class AY>
void apply_grouped(cuda<Sm> const& exec, placed<cuda<Sm>, std::span<Op const>> const& w,
                   device_vector_view<index_t const> const& offsets, // (operators + 1)
                   view<X, EX, LX, AX> const& x,                     // (m, k)
                   view<Y, EY, LY, AY> const& y) {                   // (m, n)
    static_assert(detail::is_device_view<view<X, EX, LX, AX>> && detail::is_device_view<view<Y, EY, LY, AY>>,
                  "tessera: cuda<Sm> takes views of device memory (device_matrix_view), not of the host's");
    auto const values = detail::activations("apply_grouped", kernel_view(x));
    auto const family = w.family();
    check::equal("apply_grouped", "size of the offsets", offsets.extent(0), family.members + 1, "number of operators and one more");
    auto const o = kernel_view(offsets);
    detail::check_rows("apply_grouped", "the offsets", o);
    if (family.members == 0) return;
    check::equal("apply_grouped", "columns of x", values.extent(1), family[0].cols(), "columns of the operators");
    matrix_view<Y> const out = kernel_view(y);
    check::equal("apply_grouped", "rows of y", out.extent(0), values.extent(0), "rows of x");
    check::equal("apply_grouped", "columns of y", out.extent(1), family[0].rows(), "rows of the operators");
    check::elements("apply_grouped", "y", out);
    check::distinct_elements("apply_grouped", "y", out);
    check::no_overlap("apply_grouped", "x", footprint_of(values), "y", footprint_of(out));
    check::no_overlap("apply_grouped", "the offsets", footprint_of(o), "y", footprint_of(out));
    for (index_t g = 0; g < family.members; ++g) detail::check_operator_apart("apply_grouped", family[g], "y", footprint_of(out));
    if (out.empty()) return;
    detail::check_rows_there<Sm>("apply_grouped", "x\0the offsets\0y", values, o, out);
    detail::check_family_there("apply_grouped", family);
    detail::device_groups const groups{o.data_handle(), nullptr, values.extent(0), values.extent(0), nullptr};
    detail::product_output<Y, no_epilogue> const to{out, nullptr, 0, 1.0f, {}};
    using product = detail::grouped_product_of<Sm, typename placed<cuda<Sm>, std::span<Op const>>::view_type>;
    workspace_sizer sizer;
    product::run(exec, family, values, groups, to, sizer);
    detail::device_arena arena{detail::grown("apply_grouped", exec, sizer.bytes())};
    product::run(exec, family, values, groups, to, arena);
}

/// y_t = sum over j of weight(t, j) * rows(slot(t, j)).
template <execution_policy Exec>
    requires detail::is_cuda<Exec>
void combine(Exec const& exec, device_expert_plan const& plan, device_matrix_view<float const> const& weight, // (tokens, k)
             device_matrix_view<float const> const& rows,                                                    // (slots, n)
             matrix_argument auto&& y) {                                                                     // (tokens, n)
    auto const p = kernel_view(weight);
    auto const r = kernel_view(rows);
    auto const to = detail::output<Exec>(y);
    check::equal("combine", "rows of the weights", p.extent(0), plan.tokens(), "tokens of the plan");
    check::equal("combine", "columns of the weights", p.extent(1), plan.choices(), "choices of the plan");
    check::equal("combine", "rows of the slots", r.extent(0), plan.slots(), "slots of the plan");
    check::equal("combine", "rows of y", to.extent(0), plan.tokens(), "tokens of the plan");
    check::equal("combine", "columns of y", to.extent(1), r.extent(1), "columns of the slots");
    check::elements("combine", "the weights", p);
    detail::check_rows("combine", "the slots", r);
    check::elements("combine", "y", to);
    check::no_overlap("combine", "the weights", footprint_of(p), "y", footprint_of(to));
    check::no_overlap("combine", "the slots", footprint_of(r), "y", footprint_of(to));
    detail::check_rows_there<Exec::sm>("combine", "the weights\0the slots\0y", p, r, to);
    detail::check_plan_there("combine", plan);
    kernel<op::combine, Exec, typename decltype(to)::value_type>::run(
        exec, {plan.choices(), plan.arrays().slot, p, r, {}, nullptr, false}, to);
}

namespace detail {

/// Bytes of scratch of a mixture whose arguments fit.
template <int Sm, class R, class E, class S, class X>
index_t mixture_bytes(cuda<Sm> const& exec, placed<cuda<Sm>, moe<R, E, S>> const& block, matrix_view<X const> const& x) {
    auto const w = block.view();
    workspace_sizer sizer;
    run_mixture(exec, w, block.family(), x, matrix_view<float>{nullptr, x.extent(0), w.rows()}, routing_wishes{}, sizer);
    return sizer.bytes();
}

} // namespace detail

/// y = the mixture of x; the loads of the experts, the chosen experts and their weights where they are wanted.
template <int Sm, class R, class E, class S>
void apply(cuda<Sm> const& exec, placed<cuda<Sm>, moe<R, E, S>> const& block,
           matrix_argument auto const& x, // (tokens, width)
           matrix_argument auto&& y,      // (tokens, n)
           device_routing_details const& to = {}) {
    auto const w = block.view();
    auto const values = detail::activations("apply", detail::input<cuda<Sm>>(x));
    check::equal("apply", "columns of x", values.extent(1), w.cols(), "columns of the mixture");
    auto const out = detail::results(detail::output<cuda<Sm>>(y), values.extent(0), w.rows());
    check::no_overlap("apply", "x", footprint_of(values), "y", footprint_of(out));
    detail::routing_wishes const wishes{kernel_view(to.counts), kernel_view(to.index), kernel_view(to.weight)};
    detail::check_mixture_apart("apply", w, "y", footprint_of(out));
    detail::check_details(w, routing_details{wishes.counts, wishes.index, wishes.weight}, values.extent(0), footprint_of(values), footprint_of(out));
    detail::check_rows_there<Sm>("apply", "x\0y\0the counts\0the indices\0the weights", values, out, wishes.counts, wishes.index, wishes.weight);
    detail::check_mixture_there("apply", w, block.family());
    detail::device_arena arena{detail::grown("apply", exec, detail::mixture_bytes(exec, block, values))};
    detail::run_mixture(exec, w, block.family(), values, out, wishes, arena);
}

/// Bytes of scratch that `apply(exec, block, x, y)` carves from the policy's workspace.
template <int Sm, class R, class E, class S>
index_t workspace_bytes(cuda<Sm> const& exec, placed<cuda<Sm>, moe<R, E, S>> const& block, matrix_argument auto const& x) {
    auto const values = detail::activations("workspace_bytes", detail::input<cuda<Sm>>(x));
    check::equal("workspace_bytes", "columns of x", values.extent(1), block.view().cols(), "columns of the mixture");
    return detail::mixture_bytes(exec, block, values);
}

} // namespace tessera::inline TESSERA_ABI
