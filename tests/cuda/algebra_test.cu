// SPDX-License-Identifier: MIT
/// @file
/// The algebra, 16-bit x and y, epilogues, errors and capture on a device.

#include "cuda_support.hpp"

#include <utility>

namespace {

using namespace tessera_test;

TEST_CASE("16-bit x and y, aligned rows and others") {
    auto const q = random_quantized<ts::int4_g128>(300, 1024);
    auto const odd = random_quantized<ts::int4_g128>(300, 1021);
    for (index_t const m : {1, 2, 7, 8, 9, 16, 17, 33, 64, 65, 130}) {
        CAPTURE(m);
        check_operator<ts::bf16, ts::bf16>(ts::linear{q.view()}, m);
        check_operator<ts::bf16, float>(ts::linear{odd.view()}, m);
        check_operator<ts::fp16, ts::fp16>(ts::linear{q.view()}, m);
    }
    auto const g32 = random_quantized<ts::int4_g32>(70, 256);
    auto const u4 = random_quantized<ts::uint4_g128>(70, 256);
    check_operator<ts::bf16, ts::bf16>(ts::linear{g32.view()}, 5);
    check_operator<ts::bf16, ts::bf16>(ts::linear{u4.view()}, 5);
}

TEST_CASE("many blocks: sums of several blocks of threads") {
    auto const q = random_quantized<ts::int4_g128>(700, 4096);
    for (index_t const m : {1, 3, 22}) check_operator(ts::linear{q.view()}, m);
    auto const wide = random_quantized<ts::int8_per_channel>(16, 12000);
    check_operator(ts::linear{wide.view()}, 2);
    auto const tall = random_quantized<ts::int4_g32>(20000, 96);
    check_operator(ts::linear{tall.view()}, 2);
}

TEST_CASE("sums, products, multiples, slices, transposes") {
    auto const q = random_quantized<ts::int4_g32>(67, 130);
    guarded<float> b{67, 5};
    guarded<ts::bf16> a{5, 130};
    b.fill(1, 0.3);
    a.fill(2, 0.3);
    auto const bv = std::as_const(b).view();
    auto const av = std::as_const(a).view();
    ts::linear const base{q.view()};
    ts::low_rank const adapter{ts::linear{bv}, ts::linear{av}, 0.5f};
    for (index_t const m : {1, 4, 23}) {
        CAPTURE(m);
        check_operator(base + adapter, m);
        check_operator(adapter + 0.25f * base, m);
        check_operator(ts::linear{bv} * ts::linear{av}, m);
        check_operator(ts::rows(base, 3, 60), m);
        check_operator(ts::columns(base, 30, 100), m);
        check_operator(ts::transposed(base), m);
        check_operator(ts::transposed(base + adapter), m);
        check_operator<ts::bf16, ts::bf16>(base + adapter, m);
    }
    auto const coded = random_quantized<ts::nf4_g64>(300, 70);
    check_operator(ts::transposed(ts::linear{coded.view()}), 70);
    auto const affine = random_quantized<ts::uint4_g32>(33, 70);
    check_operator(ts::transposed(ts::linear{affine.view()}), 9);
}

TEST_CASE("epilogues") {
    auto const q = random_quantized<ts::int4_g32>(40, 64);
    guarded<float> x{3, 64};
    guarded<float> y{3, 40};
    guarded<float> plain{3, 40};
    guarded<float> bias{1, 40};
    x.fill(1);
    bias.fill(2);
    auto const placed = ts::place(device{}, ts::linear{q.view()});
    apply_there(placed, x, plain);
    on_device<float const> const there{std::as_const(bias).view()};
    ts::vector_view<float const> const b{there.view().data_handle(), 40};
    apply_there(placed, x, y, ts::bias{b} | ts::relu{});
    for (index_t m = 0; m < 3; ++m)
        for (index_t n = 0; n < 40; ++n) CHECK(y.view()(m, n) == std::fmax(plain.view()(m, n) + bias.view()(0, n), 0.0f));
}

template <class Error, class F>
void check_error(std::string const& expected, F const& f) {
    try {
        f();
        FAIL("no error");
    } catch (Error const& e) {
        CHECK(std::string{e.what()} == expected);
    }
}

TEST_CASE("errors at the door") {
    auto const q = random_quantized<ts::int4_g32>(40, 64);
    auto const placed = ts::place(device{}, ts::linear{q.view()});
    ts::device_matrix<float> x{2, 64};
    ts::device_matrix<float> y{2, 40};
    ts::matrix<float> host(2, 64);
    check_error<ts::shape_error>("tessera: apply: columns of x is 60, expected 64 (columns of the operator)",
                                 [&] { ts::apply(device{}, placed, ts::columns(x.view(), 0, 60), y.view()); });
    check_error<ts::shape_error>("tessera: apply: x is memory of the host, expected memory of CUDA device 0", [&] {
        ts::apply(device{}, placed, ts::device_matrix_view<float>{host.data(), 2, 64}, y.view());
    });
    check_error<ts::shape_error>("tessera: apply: x is null but has 128 elements, expected 0 or a pointer",
                                 [&] { ts::apply(device{}, placed, ts::device_matrix_view<float>{nullptr, 2, 64}, y.view()); });
    CHECK_THROWS_AS((ts::device_buffer<float>{index_t{1} << 50}), ts::cuda_error);
    wait();
}

TEST_CASE("captured in a graph, without allocation") {
    auto const q = random_quantized<ts::uint4_g32>(300, 512);
    guarded<float> x{3, 512};
    guarded<float> y{3, 300};
    guarded<float> expected{3, 300};
    x.fill(1);
    auto const placed = ts::place(device{}, ts::linear{q.view()});
    apply_there(placed, x, expected);
    y.clear();
    on_device<float const> const dx{std::as_const(x).view()};
    on_device<float> const dy{y.view()};
    cudaStream_t stream = nullptr;
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    ts::device_workspace workspace;
    device const exec{workspace, stream};
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK_THROWS_AS(ts::apply(exec, placed, dx.view(), dy.view()), ts::cuda_error);
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphDestroy(graph);
    exec.reserve(ts::workspace_bytes(exec, placed, dx.view()));
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    ts::apply(exec, placed, dx.view(), dy.view());
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    cudaGraphExec_t run = nullptr;
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    dy.fetch();
    CHECK(same_bits(y, expected));
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}

__global__ void random_kernel(ts::philox random, std::uint32_t* bits, float* normal) {
    bits[threadIdx.x] = random.bits(1000 * threadIdx.x);
    normal[threadIdx.x] = random.normal(1000 * threadIdx.x);
}

TEST_CASE("Philox gives the numbers it gives on the host") {
    ts::philox const random{5, 6};
    ts::device_vector<std::uint32_t> bits{256};
    ts::device_vector<float> normal{256};
    random_kernel<<<1, 256>>>(random, bits.data(), normal.data());
    ts::vector<std::uint32_t> host_bits(256);
    ts::vector<float> host_normal(256);
    ts::copy(device{}, bits.view(), host_bits.view());
    ts::copy(device{}, normal.view(), host_normal.view());
    wait();
    for (index_t i = 0; i < 256; ++i) {
        CHECK(host_bits(i) == random.bits(static_cast<std::uint64_t>(1000 * i)));
        CHECK(host_normal(i) == random.normal(static_cast<std::uint64_t>(1000 * i)));
    }
}

} // namespace
