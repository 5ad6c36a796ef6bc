// SPDX-License-Identifier: MIT
/// @file
/// Products on a CUDA device: time by events with a cold second-level cache (medians; a launch of nothing is in them, and shown),
/// which holds lines of other memory that was read (--dirty: written, so that each of them goes to memory in the measured time),
/// and a layer's time in a graph of 20 layers with weights of their own. Each row is checked first, against double precision on
/// sampled rows of W. The rates of the table are those of the same run: reading and copying 4 GiB.

#include "support/cuda_products.cuh"

namespace {

using namespace cuda_bench;

struct shape {
    index_t n, k;
};

template <class Scheme>
void bench(timer& t, cudaStream_t stream, char const* name, shape s, std::vector<index_t> const& ms, int layers) {
    using storage = ts::quantized<Scheme>;
    using panels = ts::prepacked<ts::device_panel, storage>;
    panels const form{nullptr, s.n, s.k};
    std::vector<ts::device_buffer<std::byte>> memory;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes());
        fill(memory.back().data(), form.code_bytes(), 100 + i, 0);
        fill(memory.back().data() + form.code_bytes(), form.bytes() - form.code_bytes(), 7, sizeof(typename panels::scale_type) == 2 ? 2 : 3);
    }
    double const bytes = double(s.n) * double(ts::bitpack::bytes(s.k, storage::bits)) +
                         double(storage::scale_rows(s.n)) * double(storage::scale_columns(s.k)) * (sizeof(typename storage::scale_type) + (Scheme::is_affine ? 1 : 0));
    bench_panels(t, stream, name, [&](int i) { return panels{memory[static_cast<std::size_t>(i)].data(), s.n, s.k}; }, bytes, ms, layers);
}

/// A layer of int4 alone, and with a low-rank term of bf16.
void bench_low_rank(timer& t, cudaStream_t stream, shape s, index_t rank, std::vector<index_t> const& ms, int layers) {
    using panels = ts::prepacked<ts::device_panel, ts::quantized<ts::int4_g128>>;
    using dense = ts::prepacked<ts::device_panel, ts::matrix_view<ts::bf16 const>>;
    panels const form{nullptr, s.n, s.k};
    dense const form_b{nullptr, s.n, rank};
    dense const form_a{nullptr, rank, s.k};
    std::vector<ts::device_buffer<std::byte>> memory;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes() + form_a.bytes() + form_b.bytes());
        fill(memory.back().data(), form.code_bytes(), 100 + i, 0);
        fill(memory.back().data() + form.code_bytes(), form.bytes() - form.code_bytes(), 7, 2);
        fill(memory.back().data() + form.bytes(), form_a.bytes() + form_b.bytes(), 8, 1);
    }
    ts::device_workspace workspace;
    for (index_t const m : ms) {
        ts::device_matrix<ts::bf16> x{m, s.k};
        ts::device_matrix<ts::bf16> y{m, s.n};
        fill(x.data(), m * s.k * 2, 3, 1);
        device const exec{workspace, stream};
        device const null_stream{workspace};
        auto const base = [&](int i) { return ts::linear<panels, ts::as_bf16>{panels{memory[static_cast<std::size_t>(i % layers)].data(), s.n, s.k}}; };
        auto const both = [&](int i) {
            std::byte const* const at = memory[static_cast<std::size_t>(i % layers)].data() + form.bytes();
            ts::linear<dense> const b{dense{at, s.n, rank}};
            ts::linear<dense> const a{dense{at + form_b.bytes(), rank, s.k}};
            return base(i) + 0.5f * (b * a);
        };
        auto const const_x = std::as_const(x).view();
        exec.reserve(ts::workspace_bytes(exec, both(0), const_x));
        double const us[2] = {t.cold([&](int i) { ts::apply(null_stream, base(i), const_x, y.view()); }),
                              t.cold([&](int i) { ts::apply(null_stream, both(i), const_x, y.view()); })};
        double const in_graph[2] = {t.graph(stream, layers, [&](int i) { ts::apply(exec, base(i), const_x, y.view()); }),
                                    t.graph(stream, layers, [&](int i) { ts::apply(exec, both(i), const_x, y.view()); })};
        std::printf("int4_g128 + rank %ld %6ld x %-6ld M %-4ld %8.1f us %5.2f of it alone | graph %8.1f us %5.2f\n", long(rank), long(s.n), long(s.k),
                    long(m), us[1], us[1] / us[0], in_graph[1], in_graph[1] / in_graph[0]);
        std::fflush(stdout);
    }
}

} // namespace

int main(int argc, char** argv) {
    bool const quick = read_options(argc, argv);
    timer t;
    measure_rates(t);
    cudaStream_t stream{};
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int const layers = 20;
    bench<ts::int4_g128>(t, stream, "int4_g128", {8192, 28672}, {1, 4, 8, 16, 32, 64, 128, 256, 1024}, layers);
    bench<ts::int4_g128>(t, stream, "int4_g128", {4096, 4096}, {1, 16, 64, 256}, layers);
    bench<ts::int4_g128>(t, stream, "int4_g128", {11008, 4096}, {1, 16, 64}, layers);
    bench_low_rank(t, stream, {8192, 28672}, 16, {1, 16}, layers);
    if (quick) return 0;
    bench<ts::int4_g32>(t, stream, "int4_g32", {8192, 28672}, {1, 16}, layers);
    bench<ts::uint4_g128>(t, stream, "uint4_g128 affine", {8192, 28672}, {1, 16}, layers);
    bench<ts::nf4_g64>(t, stream, "nf4_g64", {8192, 28672}, {1, 16}, layers);
    bench<ts::int8_per_channel>(t, stream, "int8_per_channel", {8192, 28672}, {1, 16}, layers);
    bench<ts::scheme<ts::int2, ts::group<64>, ts::fp16>>(t, stream, "int2_g64", {8192, 28672}, {1, 16}, layers);
    return 0;
}
