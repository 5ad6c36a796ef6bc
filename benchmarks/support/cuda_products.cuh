// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What benchmarks of products on a CUDA device share: random memory, times by events with a cold second-level cache and in graphs of layers,
/// the rates of the machine, the judge of a product.

#include <tessera/tessera.cuh>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using device = ts::cuda<90>;

namespace cuda_bench {

inline void check(cudaError_t code, char const* what) {
    if (code == cudaSuccess) return;
    std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(code));
    std::exit(1);
}
#define CHECK(call) check(call, #call)

static __global__ void fill_kernel(std::uint32_t* to, index_t words, std::uint64_t seed, std::uint32_t kind) {
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
inline void fill(void* to, index_t bytes, std::uint64_t seed, std::uint32_t kind) {
    fill_kernel<<<1024, 256>>>(static_cast<std::uint32_t*>(to), bytes / 4, seed, kind);
    CHECK(cudaGetLastError());
}

static __global__ void read_kernel(::uint4 const* from, index_t count, unsigned* out) {
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
static __global__ void empty_kernel() {}

inline bool leaves_dirty = false;
inline index_t only_rows = 0; ///< of x, where not 0

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

inline double read_rate = 1; // bytes a microsecond

/// Measures what the machine reads, and prints it.
inline void measure_rates(timer& t) {
    cudaDeviceProp properties{};
    CHECK(cudaGetDeviceProperties(&properties, 0));
    ts::device_buffer<std::byte> a{index_t{4} << 30};
    ts::device_buffer<std::byte> b{index_t{4} << 30};
    fill(a.data(), a.bytes(), 1, 0);
    double const bytes = static_cast<double>(a.bytes());
    double best = 1e30;
    for (int const grid : {132 * 4, 132 * 8, 132 * 16, 132 * 32})
        best = std::min(best, t.cold([&](int) { read_kernel<<<grid, 256>>>(reinterpret_cast<::uint4 const*>(a.data()), a.bytes() / 16, reinterpret_cast<unsigned*>(b.data())); }, 9));
    double const copied = t.cold([&](int) { CHECK(cudaMemcpyAsync(b.data(), a.data(), static_cast<std::size_t>(a.bytes()), cudaMemcpyDeviceToDevice)); }, 9);
    double const empty_us = t.cold([&](int) { empty_kernel<<<1, 32>>>(); });
    read_rate = bytes / best;
    std::printf("%s: reads %.0f GB/s, copies %.0f GB/s (read + written), a launch of nothing %.1f us\n", properties.name, bytes / best / 1e3,
                2 * bytes / copied / 1e3, empty_us);
}

/// Times and judges products of rows of x with layers of one shape: layer(i) is the i-th one's panels, `bytes` those of its canonical storage.
template <class Layer>
void bench_panels(timer& t, cudaStream_t stream, char const* name, Layer const& layer, double bytes, std::vector<index_t> const& ms, int layers) {
    using panels = std::remove_cvref_t<decltype(layer(0))>;
    index_t const n = layer(0).rows();
    index_t const k = layer(0).cols();
    ts::device_workspace workspace;
    for (index_t const m : ms) {
        if (only_rows != 0 && m != only_rows) continue;
        ts::device_matrix<ts::bf16> x{m, k};
        ts::device_matrix<ts::bf16> y{m, n};
        fill(x.data(), m * k * 2, 3, 1);
        device const exec{workspace, stream};
        auto const op = [&](int i) { return ts::linear<panels, ts::as_bf16>{layer(i % layers)}; };
        auto const const_x = std::as_const(x).view();
        exec.reserve(ts::workspace_bytes(exec, op(0), const_x));
        CHECK(cudaMemset(y.data(), 0xff, static_cast<std::size_t>(m * n * 2)));
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
        std::printf("%-18s %6ld x %-6ld M %-4ld %8.1f us %5.2f of read | graph %8.1f us %5.2f | floor %6.1f | error %.2f%s\n", name, long(n), long(k), long(m),
                    us, floor / us, in_graph, floor / in_graph, floor, worst, worst <= 1 ? "" : "  WRONG");
        std::fflush(stdout);
    }
}

/// --dirty, --rows M; returns whether --quick is there.
inline bool read_options(int argc, char** argv) {
    bool quick = false;
    for (int i = 1; i < argc; ++i) {
        quick = quick || std::string{argv[i]} == "--quick";
        leaves_dirty = leaves_dirty || std::string{argv[i]} == "--dirty";
        if (std::string{argv[i]} == "--rows" && i + 1 < argc) only_rows = std::atol(argv[i + 1]);
    }
    return quick;
}

} // namespace cuda_bench
