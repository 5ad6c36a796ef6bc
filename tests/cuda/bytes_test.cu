// SPDX-License-Identifier: MIT
/// @file
/// Products of bytes on a device: 8-bit floats in blocks of 128 x 128 by groups of 128, int8 by int8.

#include "bytes_support.hpp"

namespace tessera_test {

/// Sums of 128 products of 8-bit floats by the matrix units (kernels/cuda/byte_product.cuh): 4 * 34 * 2^-13 of the sum of magnitudes,
/// as roundings to float32; then one for every part, and a few.
template <class Storage, index_t N, class Format>
struct error_model<ts::linear<Storage, ts::fp8_per_group<N, Format>>> {
    using op = ts::linear<Storage, ts::fp8_per_group<N, Format>>;
    static index_t roundings(op const& w) {
        return ts::detail::is_float8_tile<Storage> ? ts::ceil_div(w.cols(), 128) + 8 + 4 * 34 * (1 << 11) : w.cols() + 12;
    }
    static row_of_doubles magnitude(op const& w, row_of_doubles x) {
        ts::detail::reference_prepare<ts::fp8_per_group<N, Format>>(x.data(), w.cols(), x.data());
        row_of_doubles y(static_cast<std::size_t>(w.rows()), 0.0);
        for (index_t n = 0; n < w.rows(); ++n)
            for (index_t k = 0; k < w.cols(); ++k)
                y[static_cast<std::size_t>(n)] += std::abs(x[static_cast<std::size_t>(k)]) * element_magnitude(w.storage(), n, k, false);
        return y;
    }
};

} // namespace tessera_test

namespace {

using namespace tessera_test;

template <class Format>
using block_scheme = ts::scheme<Format, ts::block<128, 128>>;

TEST_CASE("bytes: 8-bit floats") {
    report_device_law<scheme_storage<block_scheme<ts::e4m3fn>>, ts::fp8_per_group<128>>("e4m3fn x e4m3fn");
    report_device_law<scheme_storage<block_scheme<ts::e5m2>>, ts::fp8_per_group<128>>("e4m3fn x e5m2");
    report_device_law<scheme_storage<ts::scheme<ts::e5m2, ts::block<256, 128>, ts::bf16>>, ts::fp8_per_group<128, ts::e5m2>>("e5m2 x e5m2");
}
TEST_CASE("bytes: int8") {
    report_device_law<scheme_storage<ts::int8_per_channel>, ts::int8_per_token>("int8 per channel x int8 per token");
    report_device_law<scheme_storage<ts::scheme<ts::int8, ts::per_tensor, ts::fp16>>, ts::int8_per_token>("int8 per tensor x int8 per token");
}
TEST_CASE("bytes: other storage in float32") {
    report_device_law<scheme_storage<ts::scheme<ts::e4m3fn, ts::group<32>, ts::fp16>>, ts::fp8_per_group<64>>("e4m3fn group 32 x e4m3fn");
}

TEST_CASE("bytes: types of x and y, epilogues") {
    auto const q = random_quantized<block_scheme<ts::e4m3fn>>(200, 400);
    ts::linear const w{q.view(), ts::fp8_per_group<128>{}};
    for (index_t const m : {7, 150}) {
        check_operator<ts::bf16, ts::bf16>(w, m);
        check_operator<ts::fp16, float>(w, m);
        check_operator<float, ts::fp16>(2.0f * w, m);
    }
    auto const i = random_quantized<ts::int8_per_channel>(200, 400);
    check_operator<ts::bf16, ts::bf16>(ts::linear{i.view(), ts::int8_per_token{}}, 33);
    check_operator<ts::bf16, float>(ts::linear{i.view(), ts::int8_per_token{}} + ts::linear{i.view(), ts::int8_per_token{}}, 5);
}

/// Numbers whose sums every order and 13 bits hold: what differs is wrong.
TEST_CASE("bytes: sums without rounding") {
    index_t const m = 140, n = 300, k = 130 * 5 + 3;
    using scheme = block_scheme<ts::e4m3fn>;
    ts::quantized_tensor<scheme> q{n, k};
    ts::philox const random{9};
    for (index_t i = 0; i < n * k; ++i)
        q.codes()[i] = static_cast<std::uint8_t>(ts::e4m3fn::encode(static_cast<float>(random.bits(static_cast<std::uint64_t>(i)) % 5) - 2.0f));
    for (index_t i = 0; i < ts::ceil_div(n, 128) * ts::ceil_div(k, 128); ++i) q.scales()[i] = i % 3 == 0 ? 0.5f : i % 3 == 1 ? 1.0f : -2.0f;
    guarded<float> x{m, k};
    guarded<float> y{m, n};
    for (index_t i = 0; i < m; ++i)
        for (index_t j = 0; j < k; ++j) {
            auto const v = static_cast<float>(random.bits(static_cast<std::uint64_t>((i + 1000) * k + j)) % 7) - 3.0f;
            x.view()(i, j) = (j % 128 == (i + j / 128) % 3 ? 448.0f : v) * (i % 2 == 0 ? 0.25f : 4.0f);
        }
    ts::linear const w{q.view(), ts::fp8_per_group<128>{}};
    guarded<float> expected{m, n};
    ts::apply(ts::reference{}, w, ts::matrix_view<float const>{x.view()}, expected.view());
    auto const placed = ts::place(device{}, w);
    apply_there(placed.view(), x, y);
    CHECK(same_bits<float>(y.view(), expected.view()));
}

TEST_CASE("bytes: a row's bits are those it has alone, and in every run") {
    check_invariance<block_scheme<ts::e4m3fn>, ts::fp8_per_group<128>>();
    check_invariance<ts::int8_per_channel, ts::int8_per_token>();
}
TEST_CASE("bytes: the largest tiles, a row's bits") {
    check_invariance<block_scheme<ts::e4m3fn>, ts::fp8_per_group<128>>(4100, 4104, 300);
    check_invariance<block_scheme<ts::e4m3fn>, ts::fp8_per_group<128>>(4097, 4101, 700);
    check_invariance<block_scheme<ts::e4m3fn>, ts::fp8_per_group<128>>(1000, 4000, 1300); // of 256 rows; the others are of 192
    check_invariance<ts::int8_per_channel, ts::int8_per_token>(4100, 4104, 300);
}

TEST_CASE("bytes: in a graph, from a workspace of the size that is asked for") {
    auto const q = random_quantized<block_scheme<ts::e4m3fn>>(300, 500);
    auto const placed = ts::place(device{}, ts::linear{q.view(), ts::fp8_per_group<128>{}});
    guarded<float> x{40, 500};
    guarded<float> y{40, 300};
    guarded<float> replayed{40, 300};
    x.fill(6);
    apply_there(placed.view(), x, y);
    on_device<float const> const dx{x.view()};
    on_device<float> const dy{replayed.view()};
    ts::device_workspace workspace;
    cudaStream_t stream{};
    REQUIRE(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
    device const exec{workspace, stream};
    exec.reserve(ts::workspace_bytes(exec, placed, dx.view()));
    cudaGraph_t graph{};
    cudaGraphExec_t run{};
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    ts::apply(exec, placed, dx.view(), dy.view());
    REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
    REQUIRE(cudaGraphInstantiate(&run, graph, 0) == cudaSuccess);
    for (int i = 0; i < 3; ++i) REQUIRE(cudaGraphLaunch(run, stream) == cudaSuccess);
    REQUIRE(cudaStreamSynchronize(stream) == cudaSuccess);
    dy.fetch();
    CHECK(same_bits<float>(replayed.view(), y.view()));
    cudaGraphExecDestroy(run);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
}

} // namespace
