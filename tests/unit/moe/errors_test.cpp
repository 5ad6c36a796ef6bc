// SPDX-License-Identifier: MIT
// The door: every check of routers, plans, grouped products and mixtures throws its sentence, and outputs keep every bit.

#include "moe_support.hpp"

using namespace moe_test;

namespace {

ts::cpu<ts::native_arch, ts::serial> const exec;

ts::matrix_view<float> null_matrix(index_t m, index_t n) { return ts::matrix_view<float>{nullptr, m, n}; }

template <class F>
void wrong(F const& f, char const* sentence) {
    CHECK_THROWS_WITH_AS(f(), sentence, ts::shape_error);
}

} // namespace

TEST_CASE("routers") {
    dense_weights const w{6, 8, 5, 8};
    ts::vector<float> bias(4);
    wrong([&] { ts::top_k_router(w.router, 0, ts::softmax_gate{}); },
          "tessera: top_k_router: number of chosen experts is 0, expected 1 to 6");
    wrong([&] { ts::top_k_router(w.router, 7, ts::softmax_gate{}); },
          "tessera: top_k_router: number of chosen experts is 7, expected 1 to 6");
    wrong([&] { ts::top_k_router(ts::matrix_view<float const>{nullptr, 0, 8}, 1, ts::softmax_gate{}); },
          "tessera: top_k_router: number of experts is 0, expected at least 1");
    wrong([&] { ts::top_k_router(w.router, 2, ts::sigmoid_gate{bias}); },
          "tessera: top_k_router: size of the gate's bias is 4, expected 6 (number of experts)");
    wrong([&] { ts::top_k_router(w.router, 2, ts::sigmoid_gate{ts::vector_view<float const>{nullptr, 6}}); },
          "tessera: top_k_router: the gate's bias is null but has 6 elements, expected 0 or a pointer");
    wrong([&] { ts::top_k_router(w.router, 2, ts::sigmoid_gate{ts::vector_view<float const>{}, 4, 2}); },
          "tessera: top_k_router: number of experts is 6, expected a multiple of 4");
    wrong([&] { ts::top_k_router(w.router, 2, ts::sigmoid_gate{ts::vector_view<float const>{}, 0, 1}); },
          "tessera: top_k_router: groups of the gate is 0, expected 1 to 6");
    wrong([&] { ts::top_k_router(w.router, 2, ts::sigmoid_gate{ts::vector_view<float const>{}, 3, 4}); },
          "tessera: top_k_router: kept groups of the gate is 4, expected 1 to 3");
    wrong([&] { ts::top_k_router(w.router, 3, ts::renormalized{ts::sigmoid_gate{ts::vector_view<float const>{}, 3, 1}}); },
          "tessera: top_k_router: number of chosen experts is 3, expected 1 to 2");

    ts::top_k_router const router{w.router, 2, ts::softmax_gate{}};
    guarded<float> x{3, 8}, narrow{3, 7}, weight{3, 2}, low{2, 2}, wide{3, 3};
    x.fill(1);
    ts::matrix<std::int32_t> index(3, 2), few(2, 2), many(3, 3);
    auto const route = [&](auto const& from, ts::matrix_view<std::int32_t> i, ts::matrix_view<float> p, char const* sentence) {
        wrong([&] { ts::route(exec, router, from, i, p); }, sentence);
        CHECK((weight.is_untouched() && low.is_untouched() && wide.is_untouched()));
    };
    route(narrow.view(), index, weight.view(), "tessera: route: columns of x is 7, expected 8 (columns of the router)");
    route(x.view(), few, weight.view(), "tessera: route: rows of the indices is 2, expected 3 (rows of x)");
    route(x.view(), index, low.view(), "tessera: route: rows of the weights is 2, expected 3 (rows of x)");
    route(x.view(), many, weight.view(), "tessera: route: columns of the indices is 3, expected 2 (chosen experts)");
    route(x.view(), index, wide.view(), "tessera: route: columns of the weights is 3, expected 2 (chosen experts)");
    route(x.view(), index, null_matrix(3, 2), "tessera: route: the weights is null but has 6 elements, expected 0 or a pointer");
    route(null_matrix(3, 8), index, weight.view(), "tessera: route: x is null but has 24 elements, expected 0 or a pointer");
    route(x.view(), index, ts::columns(ts::rows(x.view(), 0, 3), 0, 2),
          "tessera: route: x (96 bytes) overlaps the weights (72 bytes)");
    auto const choose = [&](ts::matrix_view<float const> logits, char const* sentence) {
        wrong([&] { ts::choose_experts(exec, ts::softmax_gate{}, logits, index.view(), weight.view()); }, sentence);
        CHECK(weight.is_untouched());
    };
    choose(null_matrix(3, 6), "tessera: choose_experts: the logits is null but has 18 elements, expected 0 or a pointer");
    choose(null_matrix(2, 6), "tessera: choose_experts: rows of the indices is 3, expected 2 (rows of x)");
    choose(null_matrix(3, 0), "tessera: choose_experts: number of experts is 0, expected at least 1");
    choose(null_matrix(3, 1), "tessera: choose_experts: number of chosen experts is 2, expected 1 to 1");
}

TEST_CASE("plans and combine") {
    ts::workspace memory;
    ts::workspace_scope scope{memory};
    ts::matrix<std::int32_t> index(3, 2);
    index(1, 1) = 4;
    wrong([&] { ts::plan_experts(exec, scope, index.view(), 4); }, "tessera: plan_experts: an index is 4, expected 0 to 3");
    index(1, 1) = -1;
    wrong([&] { ts::plan_experts(exec, scope, index.view(), 4); }, "tessera: plan_experts: an index is -1, expected 0 to 3");
    wrong([&] { ts::plan_experts(exec, scope, ts::matrix_view<std::int32_t const>{nullptr, 3, 2}, 4); },
          "tessera: plan_experts: the indices is null but has 6 elements, expected 0 or a pointer");
    wrong([&] { ts::plan_experts(exec, scope, index.view(), -2); },
          "tessera: plan_experts: number of experts is -2, expected 0 to 2147483647");
    index(1, 1) = 0;
    auto const plan = ts::plan_experts(exec, scope, index.view(), 4);
    guarded<float> weight{3, 2}, rows{6, 5}, y{3, 5}, low{2, 5}, narrow{3, 4}, few{5, 5};
    auto const combine = [&](auto const& w, auto const& r, ts::matrix_view<float> to, char const* sentence) {
        wrong([&] { ts::combine(exec, plan, w.view(), r.view(), to); }, sentence);
        CHECK((y.is_untouched() && low.is_untouched() && narrow.is_untouched()));
    };
    combine(low, rows, y.view(), "tessera: combine: rows of the weights is 2, expected 3 (tokens of the plan)");
    combine(narrow, rows, y.view(), "tessera: combine: columns of the weights is 4, expected 2 (choices of the plan)");
    combine(weight, few, y.view(), "tessera: combine: rows of the slots is 5, expected 6 (slots of the plan)");
    combine(weight, rows, low.view(), "tessera: combine: rows of y is 2, expected 3 (tokens of the plan)");
    combine(weight, rows, narrow.view(), "tessera: combine: columns of y is 4, expected 5 (columns of the slots)");
    combine(weight, rows, null_matrix(3, 5), "tessera: combine: y is null but has 15 elements, expected 0 or a pointer");
    combine(weight, rows, ts::rows(rows.view(), 1, 4), "tessera: combine: the slots (120 bytes) overlaps y (60 bytes)");
}

TEST_CASE("grouped products") {
    auto const a = random_weights(4, 8, 1);
    auto const b = random_weights(5, 8, 2);
    std::vector<dense> const family{dense{a.view()}, dense{a.view()}};
    std::vector<dense> const mixed{dense{a.view()}, dense{b.view()}};
    guarded<float> x{6, 8}, y{6, 4}, narrow{6, 3}, low{5, 4};
    x.fill(1);
    auto const grouped = [&](std::vector<dense> const& w, std::vector<index_t> const& offsets, ts::matrix_view<float const> from,
                             ts::matrix_view<float> to, char const* sentence) {
        ts::vector_view<index_t const> const first{offsets.data(), static_cast<index_t>(offsets.size())};
        wrong([&] { ts::apply_grouped(exec, std::span<dense const>{w}, first, from, to); }, sentence);
        CHECK((y.is_untouched() && narrow.is_untouched() && low.is_untouched()));
    };
    grouped(family, {0, 6}, x.view(), y.view(),
            "tessera: apply_grouped: size of the offsets is 2, expected 3 (number of operators and one more)");
    grouped(family, {1, 2, 6}, x.view(), y.view(), "tessera: apply_grouped: the first offset is 1, expected 0 (the first row of x)");
    grouped(family, {0, 2, 5}, x.view(), y.view(), "tessera: apply_grouped: the last offset is 5, expected 6 (rows of x)");
    grouped(family, {0, 7, 6}, x.view(), y.view(), "tessera: apply_grouped: an offset is 7, expected 0 to 6");
    grouped(mixed, {0, 2, 6}, x.view(), y.view(), "tessera: apply_grouped: rows of an operator is 5, expected 4 (rows of the first)");
    grouped(family, {0, 2, 6}, narrow.view(), y.view(),
            "tessera: apply_grouped: columns of x is 3, expected 8 (columns of the operators)");
    grouped(family, {0, 2, 6}, x.view(), narrow.view(),
            "tessera: apply_grouped: columns of y is 3, expected 4 (rows of the operators)");
    grouped(family, {0, 2, 6}, x.view(), low.view(), "tessera: apply_grouped: rows of y is 5, expected 6 (rows of x)");
    grouped(family, {0, 2, 6}, x.view(), null_matrix(6, 4),
            "tessera: apply_grouped: y is null but has 24 elements, expected 0 or a pointer");
}

TEST_CASE("experts and mixtures") {
    dense_weights const w{3, 8, 5, 7};
    dense_weights const other{3, 8, 6, 7};
    dense_weights const narrow{3, 9, 5, 7};
    dense_weights const low{3, 8, 5, 6};
    auto const linear = [](ts::matrix<float> const& m) { return dense{m.view()}; };
    wrong([&] { dense_unit(linear(w.gate[0]), linear(other.up[0]), linear(w.down[0])); },
          "tessera: gated_expert: rows of up is 6, expected 5 (rows of gate)");
    wrong([&] { dense_unit(linear(w.gate[0]), linear(narrow.up[0]), linear(w.down[0])); },
          "tessera: gated_expert: columns of up is 9, expected 8 (columns of gate)");
    wrong([&] { dense_unit(linear(w.gate[0]), linear(w.up[0]), linear(other.down[0])); },
          "tessera: gated_expert: columns of down is 6, expected 5 (rows of gate)");
    wrong([&] { ts::gated_shared_expert(w.unit(3), linear(w.router)); },
          "tessera: gated_shared_expert: rows of the weight is 3, expected 1 (one number for a token)");
    wrong([&] { ts::gated_shared_expert(w.unit(3), linear(narrow.shared_weight)); },
          "tessera: gated_shared_expert: columns of the weight is 9, expected 8 (columns of the expert)");

    ts::top_k_router const router{w.router, 2, ts::softmax_gate{}};
    auto const units = w.units();
    std::vector<dense_unit> const two(units.begin(), units.begin() + 2);
    std::vector<dense_unit> const uneven{units[0], other.unit(1), units[2]};
    std::vector<dense_unit> const lower{units[0], units[1], low.unit(2)};
    auto const foreign = narrow.units();
    wrong([&] { ts::moe(router, two); }, "tessera: moe: number of experts is 2, expected 3 (rows of the router)");
    wrong([&] { ts::moe(router, uneven); }, "tessera: moe: width of an expert is 6, expected 5 (width of the first)");
    wrong([&] { ts::moe(router, lower); }, "tessera: moe: rows of an operator is 6, expected 7 (rows of the first)");
    wrong([&] { ts::moe(router, foreign); }, "tessera: moe: columns of the experts is 9, expected 8 (columns of the router)");
    wrong([&] { ts::moe(router, units, ts::shared_expert{low.unit(3)}); },
          "tessera: moe: rows of the shared expert is 6, expected 7 (rows of the experts)");
    wrong([&] { ts::moe(router, units, ts::shared_expert{narrow.unit(3)}); },
          "tessera: moe: columns of the shared expert is 9, expected 8 (columns of the experts)");

    ts::moe const block{router, units};
    guarded<float> x{4, 8}, y{4, 7}, thin{4, 6}, few{3, 7};
    x.fill(1);
    ts::vector<index_t> counts(2);
    auto const check = [&](auto const& policy) {
        auto const apply = [&](auto const& from, ts::matrix_view<float> to, char const* sentence) {
            wrong([&] { ts::apply(policy, block, from, to); }, sentence);
            CHECK((y.is_untouched() && thin.is_untouched() && few.is_untouched()));
        };
        apply(thin.view(), y.view(), "tessera: apply: columns of x is 6, expected 8 (columns of the mixture)");
        apply(x.view(), few.view(), "tessera: apply: rows of y is 3, expected 4 (rows of x)");
        apply(x.view(), thin.view(), "tessera: apply: columns of y is 6, expected 7 (rows of the operator)");
        apply(null_matrix(4, 8), y.view(), "tessera: apply: x is null but has 32 elements, expected 0 or a pointer");
        apply(x.view(), null_matrix(4, 7), "tessera: apply: y is null but has 28 elements, expected 0 or a pointer");
        apply(x.view(), ts::columns(x.view(), 0, 7), "tessera: apply: x (128 bytes) overlaps y (124 bytes)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), counts.view()); },
              "tessera: apply: size of the counts is 2, expected 3 (experts of the mixture)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::vector_view<index_t>{nullptr, 3}); },
              "tessera: apply: the counts is null but has 3 elements, expected 0 or a pointer");
        ts::matrix<std::int32_t> short_index(3, 2), index(4, 2);
        ts::matrix<float> narrow_weight(4, 1);
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::routing_details{{}, short_index.view(), {}}); },
              "tessera: apply: rows of the indices is 3, expected 4 (rows of x)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::routing_details{{}, index.view(), narrow_weight.view()}); },
              "tessera: apply: columns of the weights is 1, expected 2 (experts of a token)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::routing_details{{}, {}, ts::columns(ts::rows(y.view(), 0, 4), 0, 2)}); },
              "tessera: apply: the weights (92 bytes) overlaps y (112 bytes)");
        CHECK(y.is_untouched());
        // y in the weights of an expert
        ts::matrix_view<float> const inside{const_cast<float*>(w.up[1].data()), 4, 7};
        CHECK_THROWS_AS(ts::apply(policy, block, x.view(), inside), ts::shape_error);
        CHECK(y.is_untouched());
        // What was routed, in the weights of the router, of an expert
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::routing_details{{}, {}, ts::matrix_view<float>{const_cast<float*>(w.router.data()), 4, 2}}); },
              "tessera: apply: the operator (96 bytes) overlaps the weights (32 bytes)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::routing_details{{}, {}, ts::matrix_view<float>{const_cast<float*>(w.down[2].data()), 4, 2}}); },
              "tessera: apply: the operator (140 bytes) overlaps the weights (32 bytes)");
        wrong([&] { ts::apply(policy, block, x.view(), y.view(), ts::vector_view<index_t>{reinterpret_cast<index_t*>(const_cast<float*>(w.gate[0].data())), 3}); },
              "tessera: apply: the operator (160 bytes) overlaps the counts (24 bytes)");
        CHECK(y.is_untouched());
        wrong([&] { static_cast<void>(ts::workspace_bytes(policy, block, thin.view())); },
              "tessera: workspace_bytes: columns of x is 6, expected 8 (columns of the mixture)");
    };
    check(ts::reference{});
    check(exec);
}
