// SPDX-License-Identifier: MIT
/// @file
/// Routers, plans, grouped products and mixtures on a device: the cases of tests/unit/moe.

#include "cuda_support.hpp"

#include "cases/moe_case.hpp"
#include "cases/vector_operands.hpp"

#include <tessera/moe/moe.cuh>

#include <cstring>
#include <numeric>
#include <span>

namespace {

using namespace moe_test;
using tessera_test::device;
using tessera_test::on_device;
using tessera_test::random_quantized;
using tessera_test::wait;

/// A matrix of the host on the device and back.
template <class T>
struct both {
    ts::matrix<T> here;
    ts::device_matrix<T> there;
    both(index_t m, index_t n) : here(m, n), there{m, n} {}
    void send() {
        ts::copy(device{}, std::as_const(here).view(), there.view());
        wait();
    }
    void fetch() {
        ts::copy(device{}, std::as_const(there).view(), here.view());
        wait();
    }
};

ts::matrix<float> random_logits(index_t tokens, index_t experts, float scale = 2.0f) {
    ts::matrix<float> l(tokens, experts);
    ts::philox const random{9};
    for (index_t i = 0; i < l.size(); ++i) l.data()[i] = scale * random.normal(static_cast<std::uint64_t>(i));
    return l;
}

/// The definition's experts, its weights within their bound.
template <class Gate>
void check_gate(Gate gate, ts::matrix<float> const& logits, index_t k) {
    index_t const tokens = logits.extent(0);
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<float> weight(tokens, k);
    ts::choose_experts(ts::reference{}, gate, logits.view(), index.view(), weight.view());
    ts::device_vector<float> bias{0};
    if constexpr (std::is_base_of_v<ts::sigmoid_gate, Gate>) {
        bias = ts::device_vector<float>{gate.bias.extent(0)};
        if (bias.size() > 0) {
            ts::copy(device{}, gate.bias, bias.view());
            gate.bias = ts::kernel_view(std::as_const(bias).view());
        }
    }
    on_device<float const> const l{logits.view()};
    both<std::int32_t> there_index{tokens, k};
    guarded<float> there_weight{tokens, k, 2};
    there_weight.clear();
    on_device<float> const w{there_weight.view()};
    ts::choose_experts(device{}, gate, l.view(), there_index.there.view(), w.view());
    wait();
    there_index.fetch();
    w.fetch();
    CHECK(there_weight.is_intact());
    for (index_t t = 0; t < tokens; ++t) {
        double const relative = weight_error(row_of<float>(logits.view(), t), 0.0, k) + 2 * u;
        for (index_t j = 0; j < k; ++j) {
            CHECK(there_index.here(t, j) == index(t, j));
            double const e = double{weight(t, j)};
            if (!(std::abs(double{there_weight.view()(t, j)} - e) <= relative * e + 0x1p-149)) CHECK(double{there_weight.view()(t, j)} == e);
        }
    }
}

TEST_CASE("gates choose and weigh as the definition does") {
    for (index_t const experts : {1, 2, 3, 7, 16, 17, 64, 130}) {
        CAPTURE(experts);
        auto const logits = random_logits(5, experts);
        for (index_t k = 1; k <= experts; k += k < 4 ? 1 : 13) {
            CAPTURE(k);
            check_gate(ts::softmax_gate{}, logits, k);
            check_gate(ts::top_k_softmax_gate{3.0f}, logits, k);
            check_gate(ts::renormalized<ts::softmax_gate>{ts::softmax_gate{}}, logits, k);
            check_gate(ts::sigmoid_gate{1.5f}, logits, k);
            check_gate(ts::renormalized<ts::sigmoid_gate>{ts::sigmoid_gate{2.5f}}, logits, k);
        }
    }
    check_gate(ts::softmax_gate{}, random_logits(0, 5), 2);
    check_gate(ts::renormalized<ts::softmax_gate>{ts::softmax_gate{}}, random_logits(3, 9, 30.0f), 4);
    auto const logits = random_logits(11, 12);
    ts::vector<float> bias(12);
    for (index_t e = 0; e < 12; ++e) bias(e) = 0.05f * static_cast<float>(e % 5) - 0.1f;
    for (auto const& [groups, kept, k] : std::vector<std::tuple<index_t, index_t, index_t>>{
             {1, 1, 4}, {4, 2, 4}, {4, 2, 6}, {12, 5, 5}, {3, 3, 12}, {6, 1, 2}, {2, 1, 1}}) {
        CAPTURE(groups);
        CAPTURE(kept);
        check_gate(ts::sigmoid_gate{bias.view(), groups, kept}, logits, k);
        check_gate(ts::renormalized<ts::sigmoid_gate>{ts::sigmoid_gate{bias.view(), groups, kept, 2.5f}}, logits, k);
    }
}

TEST_CASE("ties go to the smaller index; NaN ranks last; a row of minus infinities has no weights") {
    constexpr float inf = std::numeric_limits<float>::infinity();
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    ts::matrix<float> logits(4, 5);
    float const rows[4][5] = {{1, 3, 3, 1, 3}, {nan, 1, nan, 2, -inf}, {-inf, -inf, -inf, -inf, -inf}, {nan, nan, nan, nan, nan}};
    for (index_t t = 0; t < 4; ++t)
        for (index_t e = 0; e < 5; ++e) logits(t, e) = rows[t][e];
    std::int32_t const expected[4][3] = {{1, 2, 4}, {3, 1, 0}, {0, 1, 2}, {0, 1, 2}};
    on_device<float const> const l{std::as_const(logits).view()};
    both<std::int32_t> index{4, 3};
    both<float> weight{4, 3};
    ts::choose_experts(device{}, ts::softmax_gate{}, l.view(), index.there.view(), weight.there.view());
    index.fetch();
    weight.fetch();
    for (index_t t = 0; t < 4; ++t)
        for (index_t j = 0; j < 3; ++j) CHECK(index.here(t, j) == expected[t][j]);
    CHECK(weight.here(0, 0) == weight.here(0, 2));
    CHECK(std::isnan(weight.here(1, 0)));
    CHECK(weight.here(2, 1) == 0.0f);
    CHECK(std::isnan(weight.here(3, 0)));
    ts::choose_experts(device{}, ts::sigmoid_gate{}, l.view(), index.there.view(), weight.there.view());
    index.fetch();
    weight.fetch();
    for (index_t j = 0; j < 3; ++j) {
        CHECK(index.here(0, j) == expected[0][j]);
        CHECK(index.here(2, j) == j);
        CHECK(weight.here(2, j) == 0.0f);
    }
}

TEST_CASE("plans are a stable sort") {
    for (auto const& [tokens, k, experts] : std::vector<std::tuple<index_t, index_t, index_t>>{
             {0, 2, 3}, {1, 1, 1}, {1, 8, 8}, {17, 3, 5}, {9000, 4, 64}, {20000, 2, 3}, {16384, 1, 1}, {20, 2, 20000}, {300, 2, 1500}}) {
        CAPTURE(tokens);
        CAPTURE(experts);
        both<std::int32_t> index{tokens, k};
        ts::philox const random{tokens > 0 ? 4u : 5u};
        for (index_t i = 0; i < index.here.size(); ++i)
            index.here.data()[i] = static_cast<std::int32_t>(random.bits(static_cast<std::uint64_t>(i)) % static_cast<std::uint32_t>(experts));
        index.send();
        ts::workspace memory;
        ts::workspace_scope scope{memory};
        auto const expected = ts::plan_experts(ts::reference{}, scope, std::as_const(index.here).view(), experts);
        ts::device_expert_plan const plan{tokens, k, experts};
        ts::plan_experts(device{}, std::as_const(index.there).view(), plan);
        ts::vector<index_t> offsets(experts + 1), token(plan.slots());
        ts::matrix<index_t> slot(tokens, k);
        ts::copy(device{}, plan.offsets(), offsets.view());
        ts::copy(device{}, plan.tokens_of_slots(), token.view());
        ts::copy(device{}, plan.slots_of_tokens(), slot.view());
        wait();
        bool same = true;
        for (index_t e = 0; e <= experts; ++e) same = same && offsets(e) == expected.offsets()[e];
        for (index_t s = 0; s < plan.slots(); ++s) same = same && token(s) == expected.token(s) && slot.data()[s] == expected.slot_data()[s];
        CHECK(same);
    }
}

/// y by groups and by the definition on each group's rows.
template <class Op>
void check_grouped(std::vector<Op> const& w, std::vector<index_t> const& offsets) {
    std::span<Op const> const family{w};
    index_t const m = offsets.back();
    auto const placed = ts::place(device{}, family);
    ts::device_vector<index_t> first{static_cast<index_t>(offsets.size())};
    ts::copy(device{}, ts::vector_view<index_t const>{offsets.data(), first.size()}, first.view());
    guarded<float> x{m, w[0].cols(), m % 3, 1 + m % 2}, y{m, w[0].rows(), 1, 1 + m % 2}, again{m, w[0].rows()};
    x.fill(6);
    y.clear();
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    on_device<float> const da{again.view()};
    ts::apply_grouped(device{}, placed, std::as_const(first).view(), dx.view(), dy.view());
    ts::apply_grouped(device{}, placed, std::as_const(first).view(), dx.view(), da.view());
    wait();
    dy.fetch();
    da.fetch();
    CHECK(y.is_intact());
    CHECK(same_bits(y, again));
    double worst = 0;
    for (std::size_t g = 0; g < w.size(); ++g) {
        auto const part = ts::rows(std::as_const(x).view(), offsets[g], offsets[g + 1]);
        tessera_test::apply_case<Op> const expected{w[g], part};
        worst = std::fmax(worst, expected.worst_ratio(ts::matrix_view<float const>{ts::rows(y.view(), offsets[g], offsets[g + 1])}));
    }
    CHECK(worst <= 1.0);
}

std::vector<std::vector<index_t>> const loads{{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 3, 3, 20}, {0, 0, 0, 150}, {0, 130, 147, 150}, {0, 17, 33, 34}};

template <class Make>
void check_family(Make const& make) {
    using op = std::remove_cvref_t<decltype(make(std::size_t{0}))>;
    std::vector<op> const family{make(0), make(1), make(2)};
    for (auto const& offsets : loads) {
        CAPTURE(offsets[3]);
        check_grouped(family, offsets);
    }
}

TEST_CASE("grouped products") {
    std::vector<ts::matrix<float>> w, b, a;
    std::vector<ts::quantized_tensor<ts::int4_g32>> q;
    std::vector<ts::quantized_tensor<ts::uint4_g32>> affine;
    std::vector<ts::quantized_tensor<ts::int8_per_channel>> rows, even;
    for (std::uint64_t g = 0; g < 3; ++g) {
        w.push_back(random_weights(51, 70, g));
        b.push_back(random_weights(51, 4, 10 + g));
        a.push_back(random_weights(4, 70, 20 + g));
        q.push_back(random_quantized<ts::int4_g32>(51, 70, g));
        affine.push_back(random_quantized<ts::uint4_g32>(51, 70, g));
        rows.push_back(random_quantized<ts::int8_per_channel>(51, 700, g));
        even.push_back(random_quantized<ts::int8_per_channel>(64, 300, g));
    }
    check_family([&](std::size_t g) { return dense{w[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{q[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{q[g].view(), ts::int8_per_token{}}; });
    check_family([&](std::size_t g) { return ts::linear{affine[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{rows[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{rows[g].view(), ts::int8_per_token{}}; });
    check_family([&](std::size_t g) { return ts::linear{even[g].view(), ts::int8_per_token{}}; });
    check_family([&](std::size_t g) { return ts::transposed(ts::linear{q[g].view()}); });
    check_family([&](std::size_t g) { return dense{w[g].view()} + ts::low_rank{dense{b[g].view()}, dense{a[g].view()}, 0.5f}; });
}

/// Members whose tables, and where they have them groups of columns, are their own.
TEST_CASE("grouped products of look-ups") {
    std::vector<tessera_test::random_tables<4, ts::per_tensor>> tables;
    std::vector<tessera_test::random_tables<3, ts::per_channel, float>> rows;
    std::vector<tessera_test::random_tables<7, ts::per_channel>> wide_rows;
    std::vector<tessera_test::random_grid_codes<4, 8>> grids, uneven;
    std::vector<tessera_test::random_vectors<8, 6, 4>> vectors;
    for (std::uint64_t g = 0; g < 3; ++g) {
        tables.emplace_back(51, 70, g);
        rows.emplace_back(51, 70, g);
        wide_rows.emplace_back(51, 70, g);
        grids.emplace_back(51, 200, g);
        uneven.emplace_back(51, 201, g);
        vectors.emplace_back(51, 201, g);
    }
    check_family([&](std::size_t g) { return ts::linear{tables[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{rows[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{grids[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{rows[g].view(), ts::as_bf16{}}; });
    check_family([&](std::size_t g) { return ts::linear{wide_rows[g].view(), ts::as_bf16{}}; });
    check_family([&](std::size_t g) { return ts::linear{vectors[g].view(), ts::as_bf16{}}; });
    check_family([&](std::size_t g) { return ts::linear{uneven[g].view()}; });
    check_family([&](std::size_t g) { return ts::linear{vectors[g].view()}; });
}

using int4 = ts::linear<ts::quantized<ts::int4_g32>>;

/// A mixture on the device against the reference, its counts, and the same bits again, in a captured graph too.
template <class Moe>
double check_mixture(Moe const& m, ts::matrix_view<float const> x) {
    index_t const tokens = x.extent(0);
    index_t const k = m.router().k();
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<float> weight(tokens, k);
    ts::route(ts::reference{}, m.router(), x, index.view(), weight.view());
    guarded<float> expected{tokens, m.rows()};
    ts::vector<index_t> counts(m.router().experts());
    ts::apply(ts::reference{}, m, x, expected.view(), counts.view());
    auto const ready = ts::place(device{}, m);
    on_device<float const> const dx{x};
    guarded<float> y{tokens, m.rows(), 1 + tokens % 2, 1 + tokens % 3};
    y.clear();
    on_device<float> const dy{y.view()};
    ts::device_vector<index_t> there{counts.size()};
    both<std::int32_t> chosen{tokens, k}, routed{tokens, k};
    both<float> chosen_weight{tokens, k}, routed_weight{tokens, k};
    ts::apply(device{}, ready, dx.view(), dy.view(), {there.view(), chosen.there.view(), chosen_weight.there.view()});
    ts::route(device{}, ready.view().router(), dx.view(), routed.there.view(), routed_weight.there.view());
    wait();
    chosen.fetch();
    routed.fetch();
    chosen_weight.fetch();
    routed_weight.fetch();
    for (index_t i = 0; i < tokens * k; ++i) {
        CHECK(chosen.here.data()[i] == index.data()[i]);
        CHECK(chosen.here.data()[i] == routed.here.data()[i]);
        CHECK(std::memcmp(chosen_weight.here.data() + i, routed_weight.here.data() + i, sizeof(float)) == 0);
    }
    dy.fetch();
    CHECK(y.is_intact());
    ts::vector<index_t> fetched(counts.size());
    ts::copy(device{}, std::as_const(there).view(), fetched.view());
    wait();
    for (index_t e = 0; e < counts.size(); ++e) CHECK(fetched(e) == counts(e));
    double worst = 0;
    for (index_t t = 0; t < tokens; ++t) {
        row_of_doubles const bound = mixture_error(m, row_of(x, t), index.view(), weight.view(), t);
        for (index_t n = 0; n < m.rows(); ++n) {
            double const allowed = bound[static_cast<std::size_t>(n)] + u * std::abs(double{expected.view()(t, n)}) + 0x1p-140;
            double const ratio = std::abs(double{y.view()(t, n)} - double{expected.view()(t, n)}) / allowed;
            worst = ratio >= worst || ratio != ratio ? (ratio == ratio ? ratio : HUGE_VAL) : worst;
        }
    }
    CHECK(worst <= 1.0);
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    ts::device_workspace workspace;
    device const exec{workspace, stream};
    exec.reserve(ts::workspace_bytes(exec, ready, dx.view()));
    guarded<float> again{tokens, m.rows()};
    on_device<float> const da{again.view()};
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    ts::apply(exec, ready, dx.view(), da.view());
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphExec_t run = nullptr;
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    for (int i = 0; i < 2; ++i) REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    da.fetch();
    CHECK(same_bits(y, again));
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    return worst;
}

TEST_CASE("mixtures of gated units are the reference's, over shapes") {
    double worst = 0;
    for (auto const& [experts, k] : std::vector<std::pair<index_t, index_t>>{{1, 1}, {3, 1}, {3, 2}, {3, 3}, {7, 5}, {8, 2}}) {
        dense_weights const w{experts, 37, 23, 29};
        auto const units = w.units();
        for (index_t const tokens : {0, 1, 2, 17}) {
            CAPTURE(experts);
            CAPTURE(k);
            CAPTURE(tokens);
            guarded<float> x{tokens, 37, tokens % 3, 1 + tokens % 2};
            x.fill(7);
            auto const cx = std::as_const(x).view();
            ts::top_k_router const softmax{dense{w.router.view()}, k, ts::softmax_gate{}};
            worst = std::fmax(worst, check_mixture(ts::moe{softmax, units}, cx));
            ts::top_k_router const sigmoid{dense{w.router.view()}, k, ts::renormalized<ts::sigmoid_gate>{ts::sigmoid_gate{2.5f}}};
            ts::gated_shared_expert const shared{w.unit(experts), dense{w.shared_weight.view()}};
            worst = std::fmax(worst, check_mixture(ts::moe{sigmoid, units, shared}, cx));
        }
    }
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("mixtures with many rows, of linear operators, of widths 0 and 1, of int4, one expert for all") {
    dense_weights const w{3, 40, 50, 33};
    auto const units = w.units();
    guarded<float> x{150, 40};
    x.fill(11);
    auto const cx = std::as_const(x).view();
    double worst = check_mixture(ts::moe{ts::top_k_router{dense{w.router.view()}, 2, ts::top_k_softmax_gate{}}, units, ts::shared_expert{w.unit(3)}}, cx);
    std::vector<dense> const operators{dense{w.gate[0].view()}, dense{w.gate[1].view()}, dense{w.gate[2].view()}};
    worst = std::fmax(worst, check_mixture(ts::moe{ts::top_k_router{dense{w.router.view()}, 2, ts::softmax_gate{0.5f}}, operators}, cx));
    for (auto const& [h, f, n] : std::vector<std::tuple<index_t, index_t, index_t>>{{1, 1, 1}, {5, 0, 3}, {0, 4, 2}, {3, 2, 0}}) {
        dense_weights const small{3, h, f, n};
        auto const few = small.units();
        guarded<float> narrow{4, h};
        narrow.fill(2);
        worst = std::fmax(worst, check_mixture(ts::moe{ts::top_k_router{dense{small.router.view()}, 2, ts::softmax_gate{}}, few}, std::as_const(narrow).view()));
    }
    ts::vector<float> bias(3);
    bias(1) = 10.0f;
    ts::renormalized<ts::sigmoid_gate> const one{ts::sigmoid_gate{bias.view()}};
    worst = std::fmax(worst, check_mixture(ts::moe{ts::top_k_router{dense{w.router.view()}, 1, one}, units}, cx));
    MESSAGE("worst error / tolerance " << worst);
}

TEST_CASE("int4 experts, and a row of NaN that stays in its row") {
    std::vector<ts::quantized_tensor<ts::int4_g32>> owners;
    owners.reserve(30);
    std::vector<ts::gated_expert<int4>> units;
    for (std::uint64_t e = 0; e < 6; ++e) {
        owners.push_back(random_quantized<ts::int4_g32>(67, 130, 3 * e + 1));
        owners.push_back(random_quantized<ts::int4_g32>(67, 130, 3 * e + 2));
        owners.push_back(random_quantized<ts::int4_g32>(70, 67, 3 * e + 3));
        units.emplace_back(int4{owners[3 * e].view()}, int4{owners[3 * e + 1].view()}, int4{owners[3 * e + 2].view()});
    }
    auto const router = random_weights(6, 130, 5);
    ts::moe const block{ts::top_k_router{dense{router.view()}, 3, ts::renormalized<ts::softmax_gate>{ts::softmax_gate{}}}, units, ts::shared_expert{units[0]}};
    for (index_t const tokens : {1, 2, 19, 120}) {
        CAPTURE(tokens);
        guarded<float> x{tokens, 130};
        x.fill(8);
        check_mixture(block, std::as_const(x).view());
    }
    guarded<float> x{3, 130}, y{3, 70};
    x.fill(4);
    x.view()(1, 5) = std::numeric_limits<float>::quiet_NaN();
    auto const ready = ts::place(device{}, block);
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    ts::apply(device{}, ready, dx.view(), dy.view());
    wait();
    dy.fetch();
    for (index_t n = 0; n < 70; ++n) {
        CHECK(std::isfinite(y.view()(0, n)));
        CHECK(std::isnan(y.view()(1, n)));
        CHECK(std::isfinite(y.view()(2, n)));
    }
}

template <class F>
void wrong(F const& f, char const* sentence) {
    CHECK_THROWS_WITH_AS(f(), sentence, ts::shape_error);
}

TEST_CASE("errors at the door") {
    dense_weights const w{3, 8, 5, 7};
    auto const units = w.units();
    ts::moe const block{ts::top_k_router{dense{w.router.view()}, 2, ts::softmax_gate{}}, units};
    auto const ready = ts::place(device{}, block);
    ts::device_matrix<float> x{4, 8}, y{4, 7}, thin{4, 6}, few{3, 7};
    ts::device_vector<index_t> counts{2};
    ts::matrix<float> host(4, 8);
    auto const cx = std::as_const(x).view();
    wrong([&] { ts::apply(device{}, ready, thin.view(), y.view()); }, "tessera: apply: columns of x is 6, expected 8 (columns of the mixture)");
    wrong([&] { ts::apply(device{}, ready, cx, few.view()); }, "tessera: apply: rows of y is 3, expected 4 (rows of x)");
    wrong([&] { ts::apply(device{}, ready, cx, thin.view()); }, "tessera: apply: columns of y is 6, expected 7 (rows of the operator)");
    wrong([&] { ts::apply(device{}, ready, cx, y.view(), counts.view()); }, "tessera: apply: size of the counts is 2, expected 3 (experts of the mixture)");
    wrong([&] { ts::apply(device{}, ready, ts::device_matrix_view<float>{host.data(), 4, 8}, y.view()); },
          "tessera: apply: x is memory of the host, expected memory of CUDA device 0");
    ts::device_expert_plan const plan{3, 2, 4};
    ts::device_matrix<std::int32_t> index{4, 2};
    wrong([&] { ts::plan_experts(device{}, std::as_const(index).view(), plan); },
          "tessera: plan_experts: rows of the indices is 4, expected 3 (tokens of the plan)");
    wrong([&] { ts::choose_experts(device{}, ts::softmax_gate{}, cx, index.view(), y.view()); },
          "tessera: choose_experts: columns of the weights is 7, expected 2 (chosen experts)");
}

} // namespace
