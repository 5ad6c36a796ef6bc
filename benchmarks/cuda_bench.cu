// SPDX-License-Identifier: MIT
/// @file
/// Products on a CUDA device: time by events with a cold second-level cache (medians; a launch of nothing is in them, and shown),
/// which holds lines of other memory that was read (--dirty: written, so that each of them goes to memory in the measured time),
/// and a layer's time in a graph of 20 layers with weights of their own. Each row is checked first, against double precision on
/// sampled rows of W. The rates of the table are those of the same run: reading and copying 4 GiB.

#include <tessera/tessera.cuh>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using device = ts::cuda<90>;

namespace {

void check(cudaError_t code, char const* what) {
    if (code == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(code));
    std::exit(1);
}
#define CHECK(call) check(call, #call)

__global__ void fill_kernel(std::uint32_t* to, index_t words, std::uint64_t seed, std::uint32_t kind) {
    ts::philox const random{seed};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < words; i += index_t{256} * gridDim.x) {
        auto const j = static_cast<std::uint64_t>(i);
        if (kind == 0) { // bits
            to[i] = random.bits(j);
        } else if (kind == 1) { // pairs of bf16, normal
            to[i] = std::uint32_t{ts::bf16{random.uniform(2 * j) - 0.5f}.to_bits()} |
                    std::uint32_t{ts::bf16{random.uniform(2 * j + 1) - 0.5f}.to_bits()} << 16;
        } else if (kind == 2) { // pairs of fp16 scales
            to[i] = std::uint32_t{ts::fp16{0.01f + random.uniform(2 * j)}.to_bits()} |
                    std::uint32_t{ts::fp16{0.01f + random.uniform(2 * j + 1)}.to_bits()} << 16;
        } else { // float
            to[i] = __float_as_uint(0.01f + random.uniform(j));
        }
    }
}
void fill(void* to, index_t bytes, std::uint64_t seed, std::uint32_t kind) {
    fill_kernel<<<1024, 256>>>(static_cast<std::uint32_t*>(to), bytes / 4, seed, kind);
    CHECK(cudaGetLastError());
}

__global__ void read_kernel(::uint4 const* from, index_t count, unsigned* out) {
    unsigned sum = 0;
    index_t const step = index_t{gridDim.x} * 256;
    index_t i = blockIdx.x * index_t{256} + threadIdx.x;
    for (; i + 7 * step < count; i += 8 * step) {
        ::uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (sum == 0x12345678u) out[0] = sum;
}
__global__ void empty_kernel() {}

bool leaves_dirty = false;
index_t only_rows = 0; ///< of x, where not 0

struct timer {
    cudaEvent_t begin{}, end{};
    ts::device_buffer<std::byte> flushed{index_t{256} << 20};
    ts::device_buffer<std::byte> read{index_t{256} << 20};
    timer() {
        CHECK(cudaEventCreate(&begin));
        CHECK(cudaEventCreate(&end));
        CHECK(cudaMemset(read.data(), 1, static_cast<std::size_t>(read.bytes())));
    }
    void flush(int i, cudaStream_t stream = nullptr) {
        CHECK(cudaMemsetAsync(flushed.data(), i, static_cast<std::size_t>(flushed.bytes()), stream));
        if (!leaves_dirty)
            read_kernel<<<1056, 256, 0, stream>>>(reinterpret_cast<::uint4 const*>(read.data()), read.bytes() / 16, reinterpret_cast<unsigned*>(flushed.data()));
    }
    /// Microseconds by events, median, second-level cache cold before each run.
    template <class F>
    double cold(F const& f, int runs = 21) {
        for (int i = 0; i < 200; ++i) flush(i), f(i); // clocks rise
        std::vector<double> times;
        for (int i = 0; i < runs; ++i) {
            flush(i);
            CHECK(cudaEventRecord(begin));
            f(i);
            CHECK(cudaEventRecord(end));
            CHECK(cudaEventSynchronize(end));
            float ms = 0;
            CHECK(cudaEventElapsedTime(&ms, begin, end));
            times.push_back(1000.0 * double{ms});
        }
        std::sort(times.begin(), times.end());
        return times[times.size() / 2];
    }
    /// Microseconds a layer in a graph of `layers` of them.
    template <class F>
    double graph(cudaStream_t stream, int layers, F const& f) {
        cudaGraph_t g{};
        cudaGraphExec_t run{};
        CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
        for (int i = 0; i < layers; ++i) f(i);
        CHECK(cudaStreamEndCapture(stream, &g));
        CHECK(cudaGraphInstantiate(&run, g, 0));
        std::vector<double> times;
        for (int i = 0; i < 12; ++i) {
            flush(i, stream);
            CHECK(cudaEventRecord(begin, stream));
            CHECK(cudaGraphLaunch(run, stream));
            CHECK(cudaEventRecord(end, stream));
            CHECK(cudaEventSynchronize(end));
            float ms = 0;
            CHECK(cudaEventElapsedTime(&ms, begin, end));
            times.push_back(1000.0 * double{ms} / layers);
        }
        std::sort(times.begin(), times.end());
        cudaGraphExecDestroy(run);
        cudaGraphDestroy(g);
        return times[times.size() / 2];
    }
};

/// The product of sampled rows in double.
template <class Panels, class X>
__global__ void judge_kernel(Panels w, ts::detail::decode_table<typename Panels::format> table, ts::matrix_view<X const> x,
                             ts::matrix_view<X const> y, double* error) {
    index_t const n = (blockIdx.x * w.rows() + w.rows() / 2) / gridDim.x;
    __shared__ double sums[256], magnitudes[256];
    for (index_t m = 0; m < x.extent(0); m += 1 + x.extent(0) / 9) {
        double sum = 0, magnitude = 0;
        for (index_t k = threadIdx.x; k < w.cols(); k += 256) {
            double const v = double{ts::detail::panel_element(w, table, n, k)} * static_cast<double>(x(m, k));
            sum += v;
            magnitude += v < 0 ? -v : v;
        }
        sums[threadIdx.x] = sum;
        magnitudes[threadIdx.x] = magnitude;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int i = 1; i < 256; ++i) sum += sums[i], magnitude += magnitudes[i];
            double const d = fabs(static_cast<double>(y(m, n)) - sum);
            // `as_bf16` may round W, and y is bf16.
            double const allowed = magnitude * (ts::detail::weight_pieces<typename Panels::storage> > 1 ? 0.004 : 2e-5) + fabs(sum) * 0.00390625;
            error[blockIdx.x] = fmax(error[blockIdx.x], d == d ? d / allowed : 1e9);
        }
        __syncthreads();
    }
}

double read_rate = 1;  // bytes a microsecond
double empty_us = 0;

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
    storage const canonical_size{};
    double const bytes = double(s.n) * double(ts::bitpack::bytes(s.k, storage::bits)) +
                         double(storage::scale_rows(s.n)) * double(storage::scale_columns(s.k)) * (sizeof(typename storage::scale_type) + (Scheme::is_affine ? 1 : 0));
    static_cast<void>(canonical_size);
    ts::device_workspace workspace;
    for (index_t const m : ms) {
        if (only_rows != 0 && m != only_rows) continue;
        ts::device_matrix<ts::bf16> x{m, s.k};
        ts::device_matrix<ts::bf16> y{m, s.n};
        fill(x.data(), m * s.k * 2, 3, 1);
        device const exec{workspace, stream};
        auto const op = [&](int i) { return ts::linear<panels, ts::as_bf16>{panels{memory[static_cast<std::size_t>(i % layers)].data(), s.n, s.k}}; };
        auto const const_x = std::as_const(x).view();
        exec.reserve(ts::workspace_bytes(exec, op(0), const_x));
        CHECK(cudaMemset(y.data(), 0xff, static_cast<std::size_t>(m * s.n * 2)));
        CHECK(cudaDeviceSynchronize());
        ts::apply(exec, op(0), const_x, y.view());
        CHECK(cudaDeviceSynchronize());
        ts::device_buffer<double> error{64};
        CHECK(cudaMemset(error.data(), 0, 512));
        judge_kernel<<<64, 256>>>(op(0).storage(), ts::detail::make_decode_table<typename panels::format>(), ts::kernel_view(const_x),
                                  ts::kernel_view(std::as_const(y).view()), error.data());
        std::vector<double> errors(64);
        CHECK(cudaMemcpy(errors.data(), error.data(), 512, cudaMemcpyDeviceToHost));
        double const worst = *std::max_element(errors.begin(), errors.end());
        device const null_stream{workspace};
        double const us = t.cold([&](int i) { ts::apply(null_stream, op(i), const_x, y.view()); });
        double const in_graph = t.graph(stream, layers, [&](int i) { ts::apply(exec, op(i), const_x, y.view()); });
        double const floor = bytes / read_rate;
        std::printf("%-18s %6ld x %-6ld M %-4ld %8.1f us %5.2f of read | graph %8.1f us %5.2f | floor %6.1f | error %.2f%s\n", name, long(s.n),
                    long(s.k), long(m), us, floor / us, in_graph, floor / in_graph, floor, worst, worst <= 1 ? "" : "  WRONG");
        std::fflush(stdout);
    }
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
    bool quick = false;
    for (int i = 1; i < argc; ++i) {
        quick = quick || std::string{argv[i]} == "--quick";
        leaves_dirty = leaves_dirty || std::string{argv[i]} == "--dirty";
        if (std::string{argv[i]} == "--rows" && i + 1 < argc) only_rows = std::atol(argv[i + 1]);
    }
    timer t;
    cudaDeviceProp properties{};
    CHECK(cudaGetDeviceProperties(&properties, 0));
    {
        ts::device_buffer<std::byte> a{index_t{4} << 30};
        ts::device_buffer<std::byte> b{index_t{4} << 30};
        fill(a.data(), a.bytes(), 1, 0);
        double const bytes = static_cast<double>(a.bytes());
        double best = 1e30;
        for (int const grid : {132 * 4, 132 * 8, 132 * 16, 132 * 32})
            best = std::min(best, t.cold([&](int) { read_kernel<<<grid, 256>>>(reinterpret_cast<::uint4 const*>(a.data()), a.bytes() / 16, reinterpret_cast<unsigned*>(b.data())); }, 9));
        double const copied = t.cold([&](int) { CHECK(cudaMemcpyAsync(b.data(), a.data(), static_cast<std::size_t>(a.bytes()), cudaMemcpyDeviceToDevice)); }, 9);
        empty_us = t.cold([&](int) { empty_kernel<<<1, 32>>>(); });
        read_rate = bytes / best;
        std::printf("%s: reads %.0f GB/s, copies %.0f GB/s (read + written), a launch of nothing %.1f us\n", properties.name, bytes / best / 1e3,
                    2 * bytes / copied / 1e3, empty_us);
    }
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
