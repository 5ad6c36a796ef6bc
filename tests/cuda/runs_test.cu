// SPDX-License-Identifier: MIT
/// @file
/// Every family on a device: the same bits in every run, captured in a graph without allocation and replayed, and for a row alone as
/// among others (but for what says that its sums depend on the number of rows).

#include "cuda_support.hpp"

#include <tessera/attention/mask.hpp>

#include <cstring>
#include <span>
#include <vector>

namespace {

using namespace tessera_test;

/// Memory that calls write: poisoned before, compared after.
struct output {
    void* data;
    index_t bytes;
};
template <class T, std::size_t R>
output to(ts::device_tensor<T, R>& t) {
    return {t.data(), t.size() * static_cast<index_t>(sizeof(T))};
}
template <class Scheme>
std::vector<output> to(ts::device_quantized<Scheme>& q) {
    return {{q.codes(), q.rows() * ts::bitpack::bytes(q.cols(), Scheme::format::bits)},
            {q.scales(), q.rows() * ts::quantized<Scheme>::scale_columns(q.cols()) * static_cast<index_t>(sizeof(*q.scales()))}};
}

class run_case {
public:
    explicit run_case(std::vector<output> outputs) : outputs_{std::move(outputs)} {}
    explicit run_case(output o) : outputs_{o} {}

    /// f(exec) twice, then captured and replayed twice: the same bits, that are not the poison.
    template <class F>
    void check(char const* name, F const& f) const {
        CAPTURE(std::string{name});
        cudaStream_t stream = nullptr;
        REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
        ts::device_workspace workspace;
        device const exec{workspace, stream};
        auto const first = run([&] { f(exec); });
        CHECK(first != run([] {}));
        CHECK(first == run([&] { f(exec); }));
        index_t const capacity = workspace.capacity();
        cudaGraph_t graph = nullptr;
        cudaGraphExec_t replayed = nullptr;
        REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
        f(exec);
        REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
        CHECK(workspace.capacity() == capacity);
        REQUIRE(cudaGraphInstantiate(&replayed, graph, 0) == cudaSuccess);
        CHECK(first == run([&] {
                  for (int i = 0; i < 2; ++i) REQUIRE(cudaGraphLaunch(replayed, stream) == cudaSuccess);
              }));
        cudaGraphExecDestroy(replayed);
        cudaGraphDestroy(graph);
        cudaStreamDestroy(stream);
    }

private:
    template <class F>
    std::vector<std::vector<char>> run(F const& f) const {
        for (output const& o : outputs_) REQUIRE(cudaMemset(o.data, 0xa5, static_cast<std::size_t>(o.bytes)) == cudaSuccess);
        wait();
        f();
        wait();
        std::vector<std::vector<char>> all;
        for (output const& o : outputs_) {
            all.emplace_back(static_cast<std::size_t>(o.bytes));
            REQUIRE(cudaMemcpy(all.back().data(), o.data, all.back().size(), cudaMemcpyDeviceToHost) == cudaSuccess);
        }
        return all;
    }
    std::vector<output> outputs_;
};

/// f(exec, x, y) of rows: every row of y has the bits that it has alone, and by fives.
template <class X, class F>
void check_rows(char const* name, ts::device_matrix_view<X> const& x, index_t columns, F const& f) {
    CAPTURE(std::string{name});
    index_t const m = x.extent(0);
    ts::device_matrix<float> all{m, columns}, some{5, columns};
    ts::matrix<float> expected(m, columns), got(5, columns);
    f(device{}, x, all.view());
    ts::copy(device{}, std::as_const(all).view(), expected.view());
    wait();
    for (index_t const count : {index_t{1}, index_t{5}})
        for (index_t first = 0; first + count <= m; first += 7) {
            f(device{}, ts::rows(x, first, first + count), ts::rows(some.view(), 0, count));
            ts::copy(device{}, ts::rows(std::as_const(some).view(), 0, count), ts::rows(got.view(), 0, count));
            wait();
            CHECK(std::memcmp(got.data(), expected.data() + first * columns, static_cast<std::size_t>(count * columns) * sizeof(float)) == 0);
        }
}

template <class T>
ts::device_matrix<T> random_there(index_t m, index_t n, std::uint64_t seed) {
    ts::matrix<T> here(m, n);
    ts::philox const random{seed};
    for (index_t i = 0; i < here.size(); ++i) here.data()[i] = static_cast<T>(random.normal(static_cast<std::uint64_t>(i)));
    ts::device_matrix<T> there{m, n};
    ts::copy(device{}, std::as_const(here).view(), there.view());
    wait();
    return there;
}
template <class T>
ts::device_tensor<T, 3> random_heads(index_t tokens, index_t heads, index_t dim, std::uint64_t seed) {
    ts::tensor<T, 3> here(tokens, heads, dim);
    ts::philox const random{seed};
    for (index_t i = 0; i < here.size(); ++i) here.data()[i] = static_cast<T>(random.normal(static_cast<std::uint64_t>(i)));
    ts::device_tensor<T, 3> there{tokens, heads, dim};
    ts::copy(device{}, std::as_const(here).view(), there.view());
    wait();
    return there;
}

constexpr index_t m = 40;
constexpr index_t n = 1024;

TEST_CASE("runs: rows") {
    auto const x = random_there<ts::bf16>(m, n, 1);
    auto const u = random_there<ts::bf16>(m, n, 2);
    auto const weights = random_there<ts::bf16>(2, n, 3);
    auto const w = ts::slice(weights.view(), 0, ts::all);
    auto const b = ts::slice(weights.view(), 1, ts::all);
    ts::device_matrix<float> y{m, n};
    auto const rows = [&](char const* name, auto const& f) {
        run_case{to(y)}.check(name, [&](device const& e) { f(e, x.view(), y.view()); });
        check_rows(name, x.view(), n, f);
    };
    rows("rms_norm", [&](device const& e, auto const& in, auto const& out) { ts::rms_norm(e, in, w, 1e-5f, out); });
    rows("layer_norm", [&](device const& e, auto const& in, auto const& out) { ts::layer_norm(e, in, w, b, 1e-5f, out); });
    rows("softmax", [&](device const& e, auto const& in, auto const& out) { ts::softmax(e, in, out); });
    rows("silu", [&](device const& e, auto const& in, auto const& out) { ts::silu(e, in, out); });
    rows("walsh_hadamard", [&](device const& e, auto const& in, auto const& out) { ts::walsh_hadamard(e, in, out, 256); });
    rows("convert", [&](device const& e, auto const& in, auto const& out) { ts::convert(e, in, out); });
    run_case{to(y)}.check("swiglu", [&](device const& e) { ts::swiglu(e, x, u, y); });
    run_case{to(y)}.check("add", [&](device const& e) { ts::add(e, x, u, y); });
    ts::device_quantized<ts::int4_g128> groups{m, n};
    ts::device_quantized<ts::int8_per_channel> bytes{m, n};
    run_case{to(groups)}.check("quantize", [&](device const& e) { ts::quantize(e, x, groups); });
    run_case{to(bytes)}.check("rms_norm_quantize", [&](device const& e) { ts::rms_norm_quantize(e, x, w, 1e-5f, bytes); });
    run_case{to(bytes)}.check("rms_norm_rotate_quantize", [&](device const& e) { ts::rms_norm_rotate_quantize(e, x, w, 1e-5f, 128, bytes); });
    ts::device_vector<std::int32_t> ids{m};
    ts::vector<std::int32_t> host_ids(m);
    for (index_t i = 0; i < m; ++i) host_ids(i) = static_cast<std::int32_t>(i * 7 % m);
    ts::copy(device{}, std::as_const(host_ids).view(), ids.view());
    wait();
    run_case{to(y)}.check("embedding", [&](device const& e) { ts::embedding(e, x, ids.view(), y); });
    ts::rope_table const table{64, 32};
    ts::device_rope_table const there{device{}, table};
    auto const heads = random_heads<float>(m, 3, 64, 4);
    ts::device_tensor<float, 3> turned{m, 3, 64};
    run_case{to(turned)}.check("rope", [&](device const& e) { ts::rope(e, ts::rope_halves{}, heads, there, 3, turned); });
}

TEST_CASE("runs: products") {
    auto const q = random_quantized<ts::uint4_g128>(300, n);
    auto const narrow = random_quantized<ts::int4_g128>(300, n);
    auto const x = random_there<float>(m, n, 1);
    auto const dy = random_there<float>(m, 300, 2);
    ts::device_matrix<float> y{m, 300}, dx{m, n};
    auto const placed = ts::place(device{}, ts::linear{q.view()});
    auto const tiles = ts::place(device{}, ts::linear{narrow.view(), ts::as_bf16{}});
    auto const bytes = ts::place(device{}, ts::linear{narrow.view(), ts::int8_per_token{}});
    auto const product = [&](char const* name, auto const& w, bool is_invariant) {
        run_case{to(y)}.check(name, [&](device const& e) { ts::apply(e, w.view(), x.view(), y.view()); });
        std::string const of_transpose = std::string{name} + ", transposed";
        run_case{to(dx)}.check(of_transpose.c_str(), [&](device const& e) { ts::apply(e, ts::transposed(w.view()), dy.view(), dx.view()); });
        if (is_invariant) check_rows(name, x.view(), 300, [&](device const& e, auto const& in, auto const& out) { ts::apply(e, w.view(), in, out); });
        check_rows(of_transpose.c_str(), dy.view(), n, [&](device const& e, auto const& in, auto const& out) { ts::apply(e, ts::transposed(w.view()), in, out); });
    };
    product("uint4_g128", placed, true);
    product("int4_g128, as_bf16", tiles, false);
    product("int4_g128, int8_per_token", bytes, true);
}

template <class T>
void check_attention(index_t queries, index_t keys, index_t dim) {
    auto const q = random_heads<T>(queries, 8, dim, 1);
    auto const k = random_heads<T>(keys, 2, dim, 2);
    auto const v = random_heads<T>(keys, 2, dim, 3);
    ts::device_tensor<T, 3> out{queries, 8, dim};
    run_case{to(out)}.check("attention", [&](device const& e) { ts::attention(e, q, k, v, out, ts::causal); });
    using cache = ts::device_kv_cache<ts::key<T>, ts::value<T>>;
    std::vector<cache> empty; // one for each call of the case: an append is in the cache's count of tokens at once
    for (int i = 0; i < 3; ++i) empty.emplace_back(keys, 2, dim);
    std::size_t next = 0;
    run_case{to(out)}.check("append and attention", [&](device const& e) {
        cache& kv = empty[next++];
        ts::append(e, kv, k, v);
        ts::attention(e, q, kv, out, ts::causal);
    });
}
TEST_CASE("runs: attention") {
    for (index_t const queries : {1, 5, 150}) {
        CAPTURE(queries);
        check_attention<ts::bf16>(queries, 1500, 128);
        check_attention<float>(queries, 300, 40);
    }
}

TEST_CASE("runs: mixtures, step by step") {
    constexpr index_t experts = 6, k = 2;
    std::vector<ts::quantized_tensor<ts::int4_g32>> owners;
    for (std::uint64_t e = 0; e < experts; ++e) owners.push_back(random_quantized<ts::int4_g32>(128, n, e));
    std::vector<ts::linear<ts::quantized<ts::int4_g32>>> members;
    for (auto const& o : owners) members.push_back(ts::linear{o.view()});
    auto const family = ts::place(device{}, std::span{members});
    ts::matrix<float> weights(experts, n);
    ts::philox const random{7};
    for (index_t i = 0; i < weights.size(); ++i) weights.data()[i] = 0.1f * random.normal(static_cast<std::uint64_t>(i));
    auto const router = ts::place(device{}, ts::top_k_router{ts::linear{std::as_const(weights).view()}, k, ts::softmax_gate{}});
    auto const x = random_there<float>(m, n, 5);
    auto const slots = random_there<float>(m * k, n, 6);
    ts::device_matrix<std::int32_t> index{m, k};
    ts::device_matrix<float> weight{m, k}, rows{m * k, 128}, y{m, 128};
    ts::device_expert_plan const plan{m, k, experts};
    run_case{std::vector<output>{to(index), to(weight)}}.check("route", [&](device const& e) { ts::route(e, router.view(), x, index.view(), weight.view()); });
    ts::route(device{}, router.view(), x, index.view(), weight.view());
    wait();
    auto const steps = [&](device const& e) {
        ts::plan_experts(e, std::as_const(index).view(), plan);
        ts::apply_grouped(e, family, plan.offsets(), slots.view(), rows.view());
        ts::combine(e, plan, std::as_const(weight).view(), std::as_const(rows).view(), y);
    };
    run_case{std::vector<output>{to(rows), to(y)}}.check("plan_experts, apply_grouped, combine", steps);
}

} // namespace
