// SPDX-License-Identifier: MIT
/// @file
/// What every call on a device refuses: memory of the host, elements that are not aligned, another device, another architecture, a
/// workspace that is too small while a stream is captured. Calls are made in a stream under capture, so that its graph says whether
/// anything was launched.

#include "cuda_support.hpp"

#include <tessera/attention/mask.hpp>

#include <cstring>
#include <span>
#include <vector>

namespace {

using namespace tessera_test;

/// A stream under capture, with a workspace; `nodes()` ends it.
class captured {
public:
    explicit captured(index_t workspace = 1 << 20) : workspace_{workspace} {
        REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess);
        REQUIRE(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    }
    ~captured() {
        if (graph_ != nullptr) cudaGraphDestroy(graph_);
        cudaStreamDestroy(stream_);
    }
    device exec() { return device{workspace_, stream_}; }
    std::size_t nodes() {
        std::size_t count = 0;
        REQUIRE(cudaStreamEndCapture(stream_, &graph_) == cudaSuccess);
        REQUIRE(cudaGraphGetNodes(graph_, nullptr, &count) == cudaSuccess);
        return count;
    }

private:
    ts::device_workspace workspace_;
    cudaStream_t stream_ = nullptr;
    cudaGraph_t graph_ = nullptr;
};

template <class Error, class F>
void refuses(std::string const& sentence, F const& f) {
    CAPTURE(sentence);
    try {
        f();
        FAIL_CHECK("no error");
    } catch (Error const& e) {
        CHECK(std::string{e.what()} == sentence);
    }
}

/// Arrays of the device, and the same shapes where they may not be.
struct arrays {
    ts::device_matrix<float> x{4, 64}, y{4, 64}, z{4, 64};
    ts::device_vector<float> weight{64};
    ts::device_tensor<float, 3> q{4, 2, 32}, k{4, 2, 32}, out{4, 2, 32};
    ts::matrix<float> host_x{4, 64};
    ts::vector<float> host_weight{64};
    ts::tensor<float, 3> host_q{4, 2, 32};
    // Of as many rows as the bad memory has: nothing can be allocated while a stream is captured.
    ts::device_quantized<ts::int4_g32> groups;
    ts::device_quantized<ts::int8_per_channel> rows;
    ts::device_vector<std::int32_t> ids;
    std::vector<ts::device_kv_cache<ts::key<ts::fp32>, ts::value<ts::fp32>>> caches;

    explicit arrays(index_t rows_of_bad = 4) : groups{rows_of_bad, 64}, rows{rows_of_bad, 64}, ids{rows_of_bad} {
        caches.emplace_back(8, 2, 32);
        for (ts::device_matrix<float>* const m : {&x, &y, &z}) REQUIRE(cudaMemset(m->data(), 0, 4 * 64 * sizeof(float)) == cudaSuccess); // what calls do read
        for (ts::device_tensor<float, 3>* const t : {&q, &k, &out}) REQUIRE(cudaMemset(t->data(), 0, 4 * 2 * 32 * sizeof(float)) == cudaSuccess);
        REQUIRE(cudaMemset(weight.data(), 0, 64 * sizeof(float)) == cudaSuccess);
    }

    ts::device_matrix_view<float> host() { return ts::device_matrix_view<float>{host_x.data(), 4, 64}; }
    /// A byte beyond x: as many rows as fit.
    ts::device_matrix_view<float> odd() { return ts::device_matrix_view<float>{reinterpret_cast<float*>(reinterpret_cast<char*>(x.data()) + 1), 3, 64}; }
    ts::device_view<float, 3> host3() { return {host_q.data(), q.view().mapping(), ts::device_accessor<float>{}}; }
};

/// Every door gets memory `bad` (matrix), `bad3` and answers `what` of the argument.
template <class Sentence>
void check_doors(device const& exec, arrays& a, ts::device_matrix_view<float> const& bad, ts::device_view<float, 3> const& bad3, Sentence const& sentence) {
    index_t const m = bad.extent(0);
    auto const y = ts::rows(a.y.view(), 0, m);
    auto const z = ts::rows(a.z.view(), 0, m);
    auto const w = std::as_const(a.weight).view();
    auto const check = [&](char const* name, char const* argument, auto const& f) {
        refuses<ts::shape_error>("tessera: " + std::string{name} + ": " + sentence(argument), f);
    };
    check("rms_norm", "x", [&] { ts::rms_norm(exec, bad, w, 1e-5f, y); });
    check("rms_norm", "y", [&] { ts::rms_norm(exec, y, w, 1e-5f, bad); });
    check("layer_norm", "x", [&] { ts::layer_norm(exec, bad, w, w, 1e-5f, y); });
    check("softmax", "x", [&] { ts::softmax(exec, bad, y); });
    check("softmax", "y", [&] { ts::softmax(exec, y, bad); });
    check("walsh_hadamard", "x", [&] { ts::walsh_hadamard(exec, bad, y, 64); });
    check("walsh_hadamard", "y", [&] { ts::walsh_hadamard(exec, y, bad, 64); });
    check("convert", "x", [&] { ts::convert(exec, bad, y); });
    check("convert", "y", [&] { ts::convert(exec, y, bad); });
    check("quantize", "w", [&] { ts::quantize(exec, bad, a.groups); });
    check("rms_norm_quantize", "x", [&] { ts::rms_norm_quantize(exec, bad, w, 1e-5f, a.rows); });
    check("rms_norm_rotate_quantize", "x", [&] { ts::rms_norm_rotate_quantize(exec, bad, w, 1e-5f, 64, a.rows); });
    check("embedding", "table", [&] { ts::embedding(exec, bad, a.ids.view(), y); });
    check("embedding", "y", [&] { ts::embedding(exec, z, a.ids.view(), bad); });
    for (auto const& f : {+[](device const& e, ts::device_matrix_view<float> const& b, ts::device_matrix_view<float> const& to) { ts::swiglu(e, b, to, to); },
                          +[](device const& e, ts::device_matrix_view<float> const& b, ts::device_matrix_view<float> const& to) { ts::add(e, b, to, to); },
                          +[](device const& e, ts::device_matrix_view<float> const& b, ts::device_matrix_view<float> const& to) { ts::silu(e, b, to); }})
        CHECK_THROWS_AS(f(exec, bad, y), ts::shape_error);
    // Attention, its caches, rotary positions.
    auto const q = ts::slice(a.q.view(), ts::range{0, bad3.extent(0)}, ts::all, ts::all);
    auto const out = ts::slice(a.out.view(), ts::range{0, bad3.extent(0)}, ts::all, ts::all);
    check("attention", "q", [&] { ts::attention(exec, bad3, a.k, a.k, out, ts::full); });
    check("attention", "keys", [&] { ts::attention(exec, q, bad3, bad3, out, ts::full); });
    check("attention", "out", [&] { ts::attention(exec, q, a.k, a.k, bad3, ts::full); });
    check("append", "k", [&] { ts::append(exec, a.caches[0], bad3, q); });
    check("append", "v", [&] { ts::append(exec, a.caches[0], q, bad3); });
    CHECK(a.caches[0].tokens() == 0);
    std::int32_t const offsets[] = {0, static_cast<std::int32_t>(bad3.extent(0))};
    check("attention", "q", [&] { ts::attention_batch(exec, bad3, ts::vector_view<std::int32_t const>{offsets, 2}, a.caches, out, ts::full); });
}

TEST_CASE("doors: memory of the host") {
    arrays a;
    ts::rope_table const table{8, 16};
    ts::device_rope_table const there{device{}, table};
    captured stream;
    auto const sentence = [](char const* argument) { return std::string{argument} + " is memory of the host, expected memory of CUDA device 0"; };
    check_doors(stream.exec(), a, a.host(), a.host3(), sentence);
    refuses<ts::shape_error>("tessera: rope: " + sentence("x"), [&] { ts::rope(stream.exec(), ts::rope_halves{}, a.host3(), there, 0, a.q); });
    refuses<ts::shape_error>("tessera: rope: " + sentence("y"), [&] { ts::rope(stream.exec(), ts::rope_halves{}, a.q, there, 0, a.host3()); });
    CHECK(stream.nodes() == 0);
}

TEST_CASE("doors: elements that are not aligned") {
    arrays a;
    arrays apart{3}; // views of `a` would overlap
    captured stream;
    using view = ts::device_view<float, 3>;
    view const odd{reinterpret_cast<float*>(reinterpret_cast<char*>(a.k.data()) + 1),
                   typename view::mapping_type{ts::layout_right::mapping<ts::dynamic_extents<3>>{ts::dynamic_extents<3>{index_t{3}, index_t{2}, index_t{32}}}},
                   ts::device_accessor<float>{}};
    check_doors(stream.exec(), apart, a.odd(), odd,
                [](char const* argument) { return std::string{argument} + " begins 1 bytes beyond a multiple of 4, expected elements at such multiples"; });
    CHECK(stream.nodes() == 0);
}

TEST_CASE("doors: products") {
    auto const q = random_quantized<ts::int4_g32>(64, 64);
    auto const plain = ts::place(device{}, ts::linear{q.view()});
    auto const bytes = ts::place(device{}, ts::linear{q.view(), ts::int8_per_token{}});
    arrays a;
    auto const x = a.x.view();
    auto const y = a.y.view();
    captured stream;
    device const exec = stream.exec();
    std::string const host = " is memory of the host, expected memory of CUDA device 0";
    std::string const odd = " begins 1 bytes beyond a multiple of 4, expected elements at such multiples";
    auto const check = [&](auto const& w) {
        refuses<ts::shape_error>("tessera: apply: x" + host, [&] { ts::apply(exec, w, a.host(), y); });
        refuses<ts::shape_error>("tessera: apply: y" + host, [&] { ts::apply(exec, w, x, a.host()); });
        refuses<ts::shape_error>("tessera: apply: x" + odd, [&] { ts::apply(exec, w, a.odd(), ts::rows(y, 0, 3)); });
        refuses<ts::shape_error>("tessera: apply: columns of x is 60, expected 64 (columns of the operator)", [&] { ts::apply(exec, w, ts::columns(x, 0, 60), y); });
    };
    check(plain.view());
    check(bytes.view());
    check(ts::transposed(plain.view()));
    check(plain.view() + 0.5f * bytes.view());
    ts::vector_view<float const> const bias{a.host_weight.data(), 64};
    ts::matrix_view<float const> const residual{a.host_x.data(), 4, 64};
    refuses<ts::shape_error>("tessera: apply: the bias" + host, [&] { ts::apply(exec, plain, x, y, ts::bias{bias} | ts::relu{}); });
    refuses<ts::shape_error>("tessera: apply: the residual" + host, [&] { ts::apply(exec, plain, x, y, ts::residual{residual}); });
    CHECK(stream.nodes() == 0);
}

TEST_CASE("doors: mixtures") {
    auto const q = random_quantized<ts::int4_g32>(64, 64);
    std::vector<ts::linear<ts::quantized<ts::int4_g32>>> const members{ts::linear{q.view()}, ts::linear{q.view()}};
    auto const family = ts::place(device{}, std::span{members});
    ts::matrix<float> const weights{2, 64};
    auto const router = ts::place(device{}, ts::top_k_router{ts::linear{weights.view()}, 1, ts::softmax_gate{}});
    arrays a;
    ts::device_matrix<std::int32_t> index{4, 1};
    ts::device_matrix<float> logits{4, 2}, weight{4, 1};
    ts::device_vector<index_t> offsets{3};
    ts::matrix<std::int32_t> host_index{4, 1};
    ts::matrix<float> host_logits{4, 2};
    ts::device_expert_plan const plan{4, 1, 2};
    ts::device_matrix_view<std::int32_t> const there_not{host_index.data(), 4, 1};
    captured stream;
    device const exec = stream.exec();
    std::string const host = " is memory of the host, expected memory of CUDA device 0";
    auto const c = [](auto const& v) { return std::as_const(v).view(); };
    refuses<ts::shape_error>("tessera: route: x" + host, [&] { ts::route(exec, router.view(), a.host(), index.view(), weight.view()); });
    refuses<ts::shape_error>("tessera: route: the indices" + host, [&] { ts::route(exec, router.view(), a.x, there_not, weight.view()); });
    refuses<ts::shape_error>("tessera: choose_experts: the logits" + host, [&] {
        ts::choose_experts(exec, ts::softmax_gate{}, ts::device_matrix_view<float const>{host_logits.data(), 4, 2}, index.view(), weight.view());
    });
    refuses<ts::shape_error>("tessera: plan_experts: the indices" + host,
                             [&] { ts::plan_experts(exec, ts::device_matrix_view<std::int32_t const>{host_index.data(), 4, 1}, plan); });
    refuses<ts::shape_error>("tessera: apply_grouped: x" + host, [&] { ts::apply_grouped(exec, family, c(offsets), a.host(), a.y.view()); });
    refuses<ts::shape_error>("tessera: apply_grouped: y" + host, [&] { ts::apply_grouped(exec, family, c(offsets), a.x.view(), a.host()); });
    refuses<ts::shape_error>("tessera: combine: y" + host, [&] { ts::combine(exec, plan, c(weight), c(a.x), a.host()); });
    CHECK(stream.nodes() == 0);
}

TEST_CASE("doors: a workspace that cannot grow, memory that is not there") {
    auto const q = random_quantized<ts::int4_g32>(64, 64);
    auto const plain = ts::place(device{}, ts::linear{q.view()});
    arrays a;
    ts::device_tensor<ts::bf16, 3> one{1, 2, 64}, many{4096, 2, 64}, out{1, 2, 64};
    ts::device_tensor<float, 3> one32{1, 2, 32}, many32{4096, 2, 32}, out32{1, 2, 32};
    ts::matrix<float> const weights{2, 64};
    auto const router = ts::place(device{}, ts::top_k_router{ts::linear{weights.view()}, 1, ts::softmax_gate{}});
    ts::device_matrix<std::int32_t> index{4, 1};
    ts::device_matrix<float> weight{4, 1};
    captured stream{0};
    device const exec = stream.exec();
    auto const grows_not = [&](auto const& f) { CHECK_THROWS_AS(f(), ts::cuda_error); };
    grows_not([&] { ts::apply(exec, plain, a.x.view(), a.y.view()); });
    grows_not([&] { ts::apply(exec, ts::transposed(plain.view()), a.x.view(), a.y.view()); });
    grows_not([&] { ts::attention(exec, one, many, many, out, ts::full); });
    grows_not([&] { ts::attention(exec, one32, many32, many32, out32, ts::full); });
    grows_not([&] { ts::route(exec, router.view(), a.x, index.view(), weight.view()); });
    CHECK(stream.nodes() == 0);
    ts::device_workspace workspace;
    CHECK_THROWS_AS(workspace.reserve(index_t{1} << 50), ts::cuda_error);
    CHECK(workspace.capacity() == 0);
    ts::apply(device{workspace}, plain, a.x.view(), a.y.view()); // and serves afterwards
    wait();
}

TEST_CASE("doors: another architecture, another device") {
    refuses<ts::unsupported_error>("tessera: apply: device 0 has compute capability 90, expected 120 (cuda<120>)", [] { ts::detail::check_device<120>("apply"); });
    int count = 0;
    REQUIRE(cudaGetDeviceCount(&count) == cudaSuccess);
    if (count < 2) {
        MESSAGE("one device: what belongs to another is not tested");
        return;
    }
    auto const q = random_quantized<ts::int4_g32>(64, 64);
    auto const plain = ts::place(device{}, ts::linear{q.view()});
    auto const sparse = ts::place(device{}, ts::transposed(ts::linear{q.view()}));
    ts::device_workspace workspace{1 << 20};
    arrays here;
    REQUIRE(cudaSetDevice(1) == cudaSuccess);
    {
        auto const placed = ts::place(device{}, ts::linear{q.view()});
        arrays there;
        captured stream;
        refuses<ts::shape_error>("tessera: apply: x is memory of CUDA device 0, expected device 1",
                                 [&] { ts::apply(stream.exec(), placed, here.x.view(), there.y.view()); });
        refuses<ts::shape_error>("tessera: apply: the operator is memory of CUDA device 0, expected device 1",
                                 [&] { ts::apply(stream.exec(), plain, there.x.view(), there.y.view()); });
        refuses<ts::shape_error>("tessera: apply: the operator is memory of CUDA device 0, expected device 1",
                                 [&] { ts::apply(stream.exec(), placed.view() + sparse.view(), there.x.view(), there.y.view()); });
        refuses<ts::shape_error>("tessera: apply: the workspace is memory of CUDA device 0, expected device 1",
                                 [&] { ts::apply(device{workspace}, placed, there.x.view(), there.y.view()); });
        CHECK(stream.nodes() == 0);
        ts::apply(device{}, placed, there.x.view(), there.y.view()); // the thread has a workspace on either device
        wait();
    }
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
    ts::apply(device{}, plain, here.x.view(), here.y.view());
    wait();
}

/// What tessera itself allocated for a call: where the device was another than now.
TEST_CASE("doors: tables, caches, plans, routers, experts of another device") {
    int count = 0;
    REQUIRE(cudaGetDeviceCount(&count) == cudaSuccess);
    if (count < 2) {
        MESSAGE("one device: what belongs to another is not tested");
        return;
    }
    auto const q = random_quantized<ts::int4_g32>(64, 64);
    std::vector<ts::linear<ts::quantized<ts::int4_g32>>> const members{ts::linear{q.view()}, ts::linear{q.view()}};
    std::vector const experts{ts::gated_expert{members[0], members[0], members[1]}, ts::gated_expert{members[1], members[0], members[0]}};
    ts::matrix<float> const weights{2, 64}, one{1, 64};
    ts::vector<float> const bias{2};
    auto const softly = ts::top_k_router{ts::linear{weights.view()}, 1, ts::softmax_gate{}};
    auto const biased = ts::top_k_router{ts::linear{weights.view()}, 1, ts::sigmoid_gate{bias.view()}};
    ts::rope_table const table{8, 16};
    auto const everything = [&] {
        return std::tuple{ts::place(device{}, std::span{members}), ts::place(device{}, softly), ts::place(device{}, biased),
                          ts::place(device{}, ts::moe{softly, std::span{experts}}),
                          ts::place(device{}, ts::moe{softly, std::span{experts}, ts::gated_shared_expert{experts[0], ts::linear{one.view()}}}),
                          ts::device_rope_table{device{}, table}, ts::device_expert_plan{4, 1, 2}};
    };
    auto const& [family, router, biased_router, mixture, shared, rotations, plan] = everything();
    arrays here;
    REQUIRE(cudaSetDevice(1) == cudaSuccess);
    {
        auto const& [own_family, own_router, own_biased, own_mixture, own_shared, own_rotations, own_plan] = everything();
        arrays there;
        ts::device_matrix<std::int32_t> index{4, 1};
        ts::device_matrix<float> weight{4, 1};
        ts::device_vector<index_t> offsets{3};
        REQUIRE(cudaMemset(offsets.data(), 0, 3 * sizeof(index_t)) == cudaSuccess);
        REQUIRE(cudaMemset(index.data(), 0, 4 * sizeof(std::int32_t)) == cudaSuccess);
        REQUIRE(cudaMemset(weight.data(), 0, 4 * sizeof(float)) == cudaSuccess);
        auto const c = [](auto const& v) { return std::as_const(v).view(); };
        auto const x = there.x.view();
        auto const y = there.y.view();
        // Each call with memory of its own device first: what is refused below would run.
        auto const calls = [&](device const& exec, auto const& f, auto const& r, auto const& b, auto const& m, auto const& s, auto const& rope, auto const& p,
                               arrays& a, auto const& check) {
            check("rope", "the table", [&] { ts::rope(exec, ts::rope_halves{}, there.q, rope, 0, there.out); });
            check("append", "the cache", [&] { ts::append(exec, a.caches[0], there.k, there.k); });
            check("quantize", "q", [&] { ts::quantize(exec, x, a.groups); });
            check("rms_norm_quantize", "q", [&] { ts::rms_norm_quantize(exec, x, c(there.weight), 1e-5f, a.rows); });
            check("route", "the router", [&] { ts::route(exec, r.view(), x, index.view(), weight.view()); });
            check("route", "the router", [&] { ts::route(exec, b.view(), x, index.view(), weight.view()); });
            check("plan_experts", "the plan", [&] { ts::plan_experts(exec, c(index), p); });
            check("apply_grouped", "the experts", [&] { ts::apply_grouped(exec, f, c(offsets), x, y); });
            check("combine", "the plan", [&] { ts::combine(exec, p, c(weight), c(there.x), y); });
            check("apply", "the router", [&] { ts::apply(exec, m, x, y); });
            check("apply", "the router", [&] { ts::apply(exec, s, x, y); });
        };
        calls(device{}, own_family, own_router, own_biased, own_mixture, own_shared, own_rotations, own_plan, there,
              [](char const* name, char const*, auto const& run) {
                  CAPTURE(name);
                  CHECK_NOTHROW(run());
              });
        wait();
        captured stream;
        calls(stream.exec(), family, router, biased_router, mixture, shared, rotations, plan, here, [](char const* name, char const* argument, auto const& run) {
            refuses<ts::shape_error>("tessera: " + std::string{name} + ": " + argument + " is memory of CUDA device 0, expected device 1", run);
        });
        CHECK(here.caches[0].tokens() == 0);
        CHECK(stream.nodes() == 0);
    }
    REQUIRE(cudaSetDevice(0) == cudaSuccess);
}

} // namespace
