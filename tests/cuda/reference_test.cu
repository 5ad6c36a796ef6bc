// SPDX-License-Identifier: MIT
/// @file
/// Definitions that a device's threads run (`cuda_reference`) against the same ones on the host, and as a judge of kernels where the host
/// would take too long.

#include "attention_support.cuh"
#include "cuda_support.hpp"

#include "cases/moe_case.hpp"
#include "cases/sparse_operands.hpp"
#include "cases/vector_operands.hpp"

#include <tessera/kernels/ref/rope.hpp>
#include <tessera/storage/k_formats.hpp>

#include <cmath>

namespace {

using namespace tessera_test;
using definition = ts::cuda_reference<90>;

/// Both sum in double. An element of W may have another rounding to float32 (a minimum is added after one; a multiply-add may be fused),
/// and each result has its own: two roundings and half a step of y's type.
constexpr index_t definition_roundings = 2;

template <class X = float, class Y = float, class Op, class Placed>
double check_definition(Op const& w, Placed const& placed, index_t m, index_t roundings = definition_roundings) {
    CAPTURE(m);
    guarded<X> x{m, w.cols(), m % 3, m % 3 == 2 ? 2 : 1};
    guarded<Y> y{m, w.rows(), m % 2, m % 5 == 4 ? 3 : 1};
    x.fill(23);
    y.clear();
    apply_case<Op, X> const expected{w, std::as_const(x).view(), roundings};
    on_device<X const> const dx{std::as_const(x).view()};
    on_device<Y> const dy{y.view()};
    ts::apply(definition{}, placed, dx.view(), dy.view());
    wait();
    dy.fetch();
    CHECK(y.is_intact());
    double const ratio = expected.worst_ratio(ts::matrix_view<Y const>{y.view()});
    CHECK(ratio <= 1.0);
    return ratio;
}

template <class Storage, class Preparation = ts::as_is>
void report_definition(std::string const& name, index_t roundings = definition_roundings) {
    INFO(name);
    double worst = 0;
    for (product_shape const s : product_shapes<Storage>()) {
        CAPTURE(s.n);
        CAPTURE(s.k);
        Storage const owner{s.n, s.k};
        ts::linear const w{owner.view(), Preparation{}};
        auto const placed = ts::place(device{}, w);
        worst = std::fmax(worst, check_definition(w, placed.view(), s.m, roundings));
        worst = std::fmax(worst, check_definition(ts::transposed(w), ts::transposed(placed.view()), s.m, roundings));
    }
    MESSAGE(name << ": worst error / tolerance " << worst);
}

TEST_CASE("products: integers, tables, floats") {
    report_definition<scheme_storage<ts::int4_g128>>("int4_g128");
    report_definition<scheme_storage<ts::scheme<ts::int4, ts::group<24>, ts::fp16>>>("int4 group 24");
    report_definition<scheme_storage<ts::uint4_g32>>("uint4_g32");
    report_definition<scheme_storage<ts::scheme<ts::uint8, ts::per_channel, ts::fp32, ts::affine>>>("uint8 affine per channel");
    report_definition<scheme_storage<ts::nf4_g64>>("nf4_g64");
    report_definition<dense_storage_of<float>>("float");
    report_definition<dense_storage_of<ts::fp16>>("fp16");
    report_definition<dense_storage_of<ts::bf16>>("bf16");
    report_definition<blocked_storage<ts::q4_k>>("q4_k", 4); // scales of two levels are one float
    report_definition<blocked_storage<ts::q6_k>>("q6_k", 4);
}
TEST_CASE("products: preparations of x, bytes") {
    report_definition<scheme_storage<ts::int4_g32>, ts::as_bf16>("int4_g32, as_bf16");
    report_definition<scheme_storage<ts::uint4_g32>, ts::int8_per_group<32>>("uint4_g32, int8_per_group<32>");
    report_definition<scheme_storage<ts::int4_g128>, ts::int8_per_token>("int4_g128, int8_per_token");
    report_definition<scheme_storage<ts::int8_per_channel>, ts::int8_per_token>("int8_per_channel, int8_per_token");
    report_definition<scheme_storage<ts::scheme<ts::e4m3fn, ts::block<128, 128>, ts::fp32>>, ts::fp8_per_group<128>>("e4m3, fp8_per_group<128>");
}
TEST_CASE("products: sparse rows, vectors") {
    report_definition<csr_storage_of<float, ts::per_channel, 25>>("csr");
    report_definition<csr_storage_of<ts::int8, ts::per_channel, 25>>("csr of int8");
    report_definition<n_of_m_storage_of<2, 4, ts::bf16>>("2 of 4");
    report_definition<random_pyramids<ts::pvq<32, 22, 3>>>("pvq<32, 22, 3>");
    random_grid_codes<2, 8> const grid{17, 66};
    ts::linear const w{grid.view()};
    auto const placed = ts::place(device{}, w);
    check_definition(w, placed.view(), 9);
    check_definition(ts::transposed(w), ts::transposed(placed.view()), 9);
    auto const wide = ts::sparsify<ts::csr<float>>(random_sparse(3, 70001, 0.01), ts::magnitude_threshold{0});
    auto const placed_wide = ts::place(device{}, ts::linear{wide.view()});
    check_definition(ts::linear{wide.view()}, placed_wide.view(), 2);
}

TEST_CASE("sums, products, multiples, slices, 16-bit x and y, epilogues") {
    auto const q = random_quantized<ts::int4_g32>(67, 130);
    guarded<float> b{67, 5};
    guarded<ts::bf16> a{5, 130};
    b.fill(1, 0.3);
    a.fill(2, 0.3);
    ts::linear const base{q.view()};
    ts::low_rank const adapter{ts::linear{std::as_const(b).view()}, ts::linear{std::as_const(a).view()}, 0.5f};
    auto const check = [](auto const& w, index_t m) {
        auto const placed = ts::place(device{}, w);
        check_definition(w, placed.view(), m, 4);
        check_definition<ts::bf16, ts::fp16>(w, placed.view(), m, 4);
    };
    for (index_t const m : {1, 4, 23}) {
        check(base + adapter, m);
        check(adapter + 0.25f * base, m);
        check(ts::rows(base, 3, 60), m);
        check(ts::columns(base + adapter, 30, 100), m);
        check(ts::transposed(base + adapter), m);
    }
    auto const placed = ts::place(device{}, base);
    guarded<float> x{3, 130};
    guarded<float> r{3, 67};
    guarded<float> y{3, 67};
    guarded<float> expected{3, 67};
    x.fill(3);
    r.fill(4);
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float const> const dr{std::as_const(r).view()};
    on_device<float> const dy{y.view()};
    ts::apply(ts::reference{}, base, std::as_const(x).view(), expected.view(), ts::residual{std::as_const(r).view()} | ts::relu{});
    ts::apply(definition{}, placed, dx.view(), dy.view(), ts::residual{ts::kernel_view(dr.view())} | ts::relu{});
    wait();
    dy.fetch();
    for (index_t m = 0; m < 3; ++m)
        for (index_t n = 0; n < 67; ++n)
            CHECK(std::abs(double{y.view()(m, n)} - double{expected.view()(m, n)}) <= 0x1p-22 * (std::abs(double{expected.view()(m, n)}) + 1));
}

/// Where they are judged by each other on the device alone.
TEST_CASE("a judge of kernels: 4096 x 11008, three rows of x") {
    auto const q = random_quantized<ts::int4_g128>(11008, 4096);
    auto const placed = ts::place(device{}, ts::linear{q.view()});
    guarded<float> x{3, 4096};
    guarded<float> y{3, 11008};
    guarded<float> expected{3, 11008};
    x.fill(5);
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    on_device<float> const de{expected.view()};
    ts::device_workspace workspace;
    ts::cuda<90> const exec{workspace};
    index_t const bytes = ts::workspace_bytes(ts::cuda_reference{exec}, placed, dx.view());
    CHECK(bytes >= 3 * (4096 + 11008) * 8);
    exec.reserve(bytes);
    index_t const capacity = workspace.capacity();
    ts::apply(ts::cuda_reference{exec}, placed, dx.view(), de.view());
    CHECK(workspace.capacity() == capacity);
    ts::apply(exec, placed, dx.view(), dy.view());
    wait();
    dy.fetch();
    de.fetch();
    double worst = 0, square = 0;
    for (index_t n = 0; n < 11008; ++n) {
        for (index_t m = 0; m < 3; ++m) worst = std::fmax(worst, std::abs(double{y.view()(m, n)} - double{expected.view()(m, n)}));
        square += double{expected.view()(0, n)} * double{expected.view()(0, n)};
    }
    CHECK(square > 0);
    CHECK(worst <= 1e-5 * std::sqrt(square / 11008)); // sums of 4096 float32 products of a few pieces: about 2^-19 of a typical sum
    MESSAGE("largest difference / typical |y|: " << worst / std::sqrt(square / 11008));
}

/// f(policy, y) on the device and on the host: y differs by a unit in the last place of its type at most, of numbers below `magnitude`
/// by that of the magnitude (where the terms of a difference are of that size).
template <class Y, class There, class Here>
void check_same(index_t m, index_t n, There const& there, Here const& here, double magnitude = 0) {
    guarded<Y> y{m, n, 8};
    guarded<Y> expected{m, n, 8};
    y.clear();
    on_device<Y> const dy{y.view()};
    there(dy.view());
    wait();
    dy.fetch();
    here(expected.view());
    CHECK(y.is_intact());
    constexpr double unit = std::is_same_v<Y, float> ? 0x1p-23 : std::is_same_v<Y, ts::fp16> ? 0x1p-10 : 0x1p-7;
    index_t different = 0;
    for (index_t i = 0; i < m; ++i)
        for (index_t k = 0; k < n; ++k) {
            double const e = static_cast<double>(static_cast<float>(expected.view()(i, k)));
            double const v = static_cast<double>(static_cast<float>(y.view()(i, k)));
            if (e != e ? v == v : !(v == e || std::abs(v - e) <= unit * std::abs(e) + 0x1p-49 * magnitude + 0x1p-149)) ++different;
        }
    CHECK(different == 0);
}

template <class X, class Y>
void check_rows(index_t m, index_t n) {
    CAPTURE(m);
    CAPTURE(n);
    guarded<X> x{m, n, 3};
    guarded<X> up{m, n, 3};
    guarded<X> weights{2, n};
    x.fill(3, 2);
    up.fill(4);
    weights.fill(5);
    if (m > 1 && n > 3) x.view()(1, 3) = static_cast<X>(-INFINITY);
    on_device<X const> const dx{std::as_const(x).view()};
    on_device<X const> const du{std::as_const(up).view()};
    on_device<X const> const dw{std::as_const(weights).view()};
    auto const here_x = std::as_const(x).view();
    auto const here_u = std::as_const(up).view();
    auto const weight = ts::slice(std::as_const(weights).view(), 0, ts::all);
    auto const shift = ts::slice(std::as_const(weights).view(), 1, ts::all);
    auto const there_weight = ts::slice(dw.view(), 0, ts::all);
    auto const there_shift = ts::slice(dw.view(), 1, ts::all);
    ts::reference const here{};
    definition const there{};
    check_same<Y>(m, n, [&](auto y) { ts::rms_norm(there, dx.view(), there_weight, 1e-5f, y); },
                  [&](auto y) { ts::rms_norm(here, here_x, weight, 1e-5f, y); });
    check_same<Y>(m, n, [&](auto y) { ts::layer_norm(there, dx.view(), there_weight, there_shift, 1e-5f, y); },
                  [&](auto y) { ts::layer_norm(here, here_x, weight, shift, 1e-5f, y); }, 100);
    check_same<Y>(m, n, [&](auto y) { ts::softmax(there, dx.view(), y); }, [&](auto y) { ts::softmax(here, here_x, y); });
    check_same<Y>(m, n, [&](auto y) { ts::gelu(there, dx.view(), y); }, [&](auto y) { ts::gelu(here, here_x, y); });
    check_same<Y>(m, n, [&](auto y) { ts::silu(there, dx.view(), y); }, [&](auto y) { ts::silu(here, here_x, y); });
    check_same<Y>(m, n, [&](auto y) { ts::swiglu(there, dx.view(), du.view(), y); }, [&](auto y) { ts::swiglu(here, here_x, here_u, y); });
    check_same<Y>(m, n, [&](auto y) { ts::add(there, dx.view(), du.view(), y); }, [&](auto y) { ts::add(here, here_x, here_u, y); });
}
TEST_CASE("rows: norms, softmax, activations, sums") {
    for (index_t const n : {1, 7, 100, 1000}) {
        check_rows<float, float>(3, n);
        check_rows<ts::bf16, ts::bf16>(70, n);
        check_rows<ts::fp16, float>(2, n);
    }
    check_rows<float, float>(0, 5);
}

TEST_CASE("rotary positions") {
    ts::rope_table const table{50, 12};
    ts::device_rope_table const there{device{}, table};
    ts::tensor<float, 3> x(7, 3, 20);
    ts::tensor<float, 3> expected(7, 3, 20);
    ts::tensor<float, 3> y(7, 3, 20);
    ts::philox const random{9};
    for (index_t i = 0; i < x.size(); ++i) x.data()[i] = random.normal(static_cast<std::uint64_t>(i));
    ts::device_tensor<float, 3> dx{7, 3, 20};
    ts::device_tensor<float, 3> dy{7, 3, 20};
    ts::copy(device{}, std::as_const(x).view(), dx.view());
    ts::rope(definition{}, ts::rope_halves{}, dx, there, 40, dy);
    ts::copy(device{}, std::as_const(dy).view(), y.view());
    wait();
    ts::kernel<ts::op::rope, ts::reference, float>::run(
        ts::reference{}, ts::rope_halves{}, std::as_const(x).view(),
        {table.cosines().data_handle(), table.sines().data_handle(), table.pairs(), nullptr, 40}, expected.view());
    for (index_t i = 0; i < x.size(); ++i)
        CHECK(std::abs(double{y.data()[i]} - double{expected.data()[i]}) <= 0x1p-23 * std::abs(double{expected.data()[i]}) + 0x1p-49);
}

/// Queries over a cache; out and log-sum-exp.
template <class Format, class Score>
void check_attention(attention_tests::shape const& s, Score const& score) {
    CAPTURE(s.queries);
    CAPTURE(s.keys);
    using attention_tests::random_tensor;
    ts::kv_cache<ts::key<Format>, ts::value<Format>> kv{s.keys, s.kv_heads, s.key_dim, s.value_dim};
    ts::device_kv_cache<ts::key<Format>, ts::value<Format>> there_kv{s.keys, s.kv_heads, s.key_dim, s.value_dim};
    auto const k = random_tensor<float>(s.keys, s.kv_heads, s.key_dim, 1);
    auto const v = random_tensor<float>(s.keys, s.kv_heads, s.value_dim, 2);
    auto const q = random_tensor<float>(s.queries, s.heads, s.key_dim, 3);
    ts::append(ts::reference{}, kv, k, v);
    ts::append(device{}, there_kv, attention_tests::there(k), attention_tests::there(v));
    ts::tensor<float, 3> expected(s.queries, s.heads, s.value_dim);
    ts::tensor<float, 3> out(s.queries, s.heads, s.value_dim);
    ts::matrix<float> expected_sums(s.heads, s.queries);
    ts::matrix<float> sums(s.heads, s.queries);
    ts::attention(ts::reference{}, q, kv, expected, score, expected_sums);
    auto const dq = attention_tests::there(q);
    ts::device_tensor<float, 3> dout{s.queries, s.heads, s.value_dim};
    ts::device_matrix<float> dsums{s.heads, s.queries};
    ts::attention(definition{}, dq, there_kv, dout, score, dsums);
    ts::copy(device{}, std::as_const(dout).view(), out.view());
    ts::copy(device{}, std::as_const(dsums).view(), sums.view());
    wait();
    index_t different = 0;
    auto const near = [](float a, float b) { return a == b || std::abs(double{a} - double{b}) <= 0x1p-23 * std::abs(double{b}) + 0x1p-40; };
    for (index_t i = 0; i < out.size(); ++i) different += !near(out.data()[i], expected.data()[i]);
    for (index_t i = 0; i < sums.size(); ++i) different += !near(sums.data()[i], expected_sums.data()[i]);
    CHECK(different == 0);
}
TEST_CASE("attention") {
    // queries, keys, heads, KV heads, dimensions of keys and values
    for (attention_tests::shape const& s : {attention_tests::shape{1, 1, 1, 1, 8, 8}, {3, 40, 4, 2, 16, 24}, {70, 70, 2, 1, 64, 64}}) {
        check_attention<float>(s, ts::causal);
        check_attention<ts::int8_per_token>(s, ts::causal | ts::window{13});
        check_attention<ts::bf16>(s, ts::soft_cap{20.0f} | ts::causal);
    }
}

template <class Gate>
void check_gate(Gate const& gate, index_t tokens, index_t experts, index_t k) {
    guarded<float> logits{tokens, experts};
    logits.fill(3, 2);
    ts::matrix<std::int32_t> index(tokens, k);
    ts::matrix<std::int32_t> there_index(tokens, k);
    on_device<float const> const l{std::as_const(logits).view()};
    ts::device_matrix<std::int32_t> di{tokens, k};
    check_same<float>(tokens, k, [&](auto weight) { ts::choose_experts(definition{}, gate, l.view(), di.view(), weight); },
                      [&](auto weight) { ts::choose_experts(ts::reference{}, gate, std::as_const(logits).view(), index.view(), weight); });
    ts::copy(device{}, std::as_const(di).view(), there_index.view());
    wait();
    CHECK(std::memcmp(index.data(), there_index.data(), static_cast<std::size_t>(index.size()) * 4) == 0);
}
TEST_CASE("gates") {
    check_gate(ts::softmax_gate{}, 100, 60, 4);
    check_gate(ts::renormalized{ts::softmax_gate{2.5f}}, 3, 8, 2);
    check_gate(ts::top_k_softmax_gate{}, 70, 128, 8);
    check_gate(ts::renormalized{ts::sigmoid_gate{{}, 8, 3, 2.5f}}, 33, 64, 6);
}

} // namespace
