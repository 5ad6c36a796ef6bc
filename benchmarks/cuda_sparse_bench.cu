// SPDX-License-Identifier: MIT
/// @file
/// Products with sparse operands, and mixtures of experts, on a CUDA device: microseconds by events with a cold second-level cache (medians), a layer's time in a
/// graph, and the bytes of the operands as they are stored over the rate of reading 2 GiB in the same run. Rows of sparse W
/// are sampled and compared with sums in double first, x Wᵀ alone; mixtures and sums are checked by tests/cuda.

#include <tessera/core/philox.hpp>
#include <tessera/moe/moe.cuh>
#include <tessera/sparse/sparse.cuh>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using device = ts::cuda<90>;

namespace {

void check(cudaError_t code) {
    if (code == cudaSuccess) return;
    std::fprintf(stderr, "%s\n", cudaGetErrorString(code));
    std::exit(1);
}

__global__ void read_kernel(::uint4 const* from, index_t count, unsigned* out) {
    unsigned sum = 0;
    index_t const step = index_t{gridDim.x} * 256;
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i + 7 * step < count; i += 8 * step) {
        ::uint4 v[8];
#pragma unroll
        for (int j = 0; j < 8; ++j) v[j] = __ldcs(from + i + j * step);
#pragma unroll
        for (int j = 0; j < 8; ++j) sum += v[j].x ^ v[j].y ^ v[j].z ^ v[j].w;
    }
    if (sum == 0x12345678u) out[0] = sum;
}
__global__ void fill_kernel(std::uint32_t* to, index_t words, std::uint64_t seed, bool is_scales) {
    ts::philox const random{seed};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < words; i += index_t{256} * gridDim.x)
        to[i] = is_scales ? 0x2c002c00u : random.bits(static_cast<std::uint64_t>(i));
}

class timer {
public:
    timer() {
        check(cudaEventCreate(&begin_));
        check(cudaEventCreate(&end_));
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
        ts::device_buffer<std::byte> much{index_t{2} << 30};
        check(cudaMemset(much.data(), 1, static_cast<std::size_t>(much.bytes())));
        double const us = cold(nullptr, [&](int) {
            read_kernel<<<132 * 16, 256>>>(reinterpret_cast<::uint4 const*>(much.data()), much.bytes() / 16, reinterpret_cast<unsigned*>(other_.data()));
        });
        rate_ = static_cast<double>(much.bytes()) / us;
        std::printf("reads %.0f GB/s\n", rate_ * 1e-3);
    }
    cudaStream_t stream() const { return stream_; }
    /// Microseconds of f(i) in a stream.
    template <class F>
    double cold(cudaStream_t stream, F const& f) {
        std::vector<double> times;
        for (int i = 0; i < 18; ++i) {
            check(cudaMemsetAsync(other_.data(), i, static_cast<std::size_t>(other_.bytes()), stream));
            check(cudaEventRecord(begin_, stream));
            f(i);
            check(cudaEventRecord(end_, stream));
            check(cudaEventSynchronize(end_));
            float ms = 0;
            check(cudaEventElapsedTime(&ms, begin_, end_));
            if (i >= 3) times.push_back(1e3 * double{ms});
        }
        std::sort(times.begin(), times.end());
        return times[times.size() / 2];
    }
    /// Microseconds of one of `layers` f(i) in a graph.
    template <class F>
    double graph(int layers, F const& f) {
        cudaGraph_t g{};
        cudaGraphExec_t run{};
        check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
        for (int i = 0; i < layers; ++i) f(i);
        check(cudaStreamEndCapture(stream_, &g));
        check(cudaGraphInstantiate(&run, g, 0));
        double const us = cold(stream_, [&](int) { check(cudaGraphLaunch(run, stream_)); }) / layers;
        cudaGraphExecDestroy(run);
        cudaGraphDestroy(g);
        return us;
    }
    double rate() const { return rate_; }

private:
    cudaEvent_t begin_{}, end_{};
    cudaStream_t stream_{};
    double rate_ = 1;
    ts::device_buffer<std::byte> other_{index_t{128} << 20};
};

/// A small generator: operands are large.
struct random_bits {
    std::uint64_t state;
    std::uint32_t operator()() {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state >> 33);
    }
    float value() { return static_cast<float>((*this)() % 2001) * 1e-3f - 1.0f; }
};

/// `entries` in every row, anywhere.
template <class T>
ts::csr_tensor<T> random_csr(index_t n, index_t k, index_t entries, std::uint64_t seed) {
    random_bits random{seed};
    std::vector<index_t> offsets(static_cast<std::size_t>(n) + 1);
    std::vector<std::int32_t> columns;
    std::vector<typename ts::csr<T>::stored_type> values;
    std::vector<float> scales(static_cast<std::size_t>(n), 0.01f);
    for (index_t r = 0; r < n; ++r) {
        for (index_t i = 0; i < entries; ++i) {
            index_t const first = i * k / entries;
            columns.push_back(static_cast<std::int32_t>(first + static_cast<index_t>(random()) % ((i + 1) * k / entries - first)));
            values.push_back(static_cast<typename ts::csr<T>::stored_type>(ts::csr<T>::has_scale ? 100 * random.value() : random.value()));
        }
        offsets[static_cast<std::size_t>(r) + 1] = static_cast<index_t>(columns.size());
    }
    return {offsets.data(), columns.data(), values.data(), scales.data(), static_cast<index_t>(columns.size()), n, k};
}

/// Owner of 2:4 in plain vectors.
template <class T>
struct random_kept {
    using storage = ts::n_of_m<2, 4, T>;
    std::vector<typename storage::stored_type> values;
    std::vector<std::uint8_t> positions;
    std::vector<float> scales;
    index_t n, k;
    random_kept(index_t rows, index_t columns, std::uint64_t seed)
        : values(static_cast<std::size_t>(rows * columns / 2)), positions(static_cast<std::size_t>(rows * columns / 8)),
          scales(static_cast<std::size_t>(rows), 0.01f), n{rows}, k{columns} {
        constexpr std::uint8_t pairs[6] = {0b0100, 0b1000, 0b1100, 0b1001, 0b1101, 0b1110};
        random_bits random{seed};
        for (auto& v : values) v = static_cast<typename storage::stored_type>(storage::has_scale ? 100 * random.value() : random.value());
        for (auto& p : positions) p = static_cast<std::uint8_t>(pairs[random() % 6] | pairs[random() % 6] << 4);
    }
    storage view() const { return {values.data(), positions.data(), scales.data(), n, k}; }
};

/// The worst of sampled rows of y (float32), in units of a bound of 64 roundings.
template <class Storage>
double worst_row(Storage const& w, ts::matrix<float> const& x, ts::matrix<float> const& y) {
    double worst = 0;
    for (index_t i = 0; i < 32; ++i) {
        index_t const n = i * 9973 % w.rows();
        for (index_t m = 0; m < x.extent(0); m += 1 + x.extent(0) / 5) {
            double sum = 0, size = 0;
            w.for_each_entry(n, [&](index_t c, float v) {
                sum += double{v} * double{x(m, c)};
                size += std::abs(double{v} * double{x(m, c)});
            });
            double const d = std::abs(double{y(m, n)} - sum) / (64 * 0x1p-24 * size);
            worst = d >= worst || d != d ? (d == d ? d : 1e9) : worst;
        }
    }
    return worst;
}

template <class Storage>
void bench(timer& t, char const* name, Storage const& w, std::initializer_list<index_t> ms, int layers) {
    ts::linear<Storage> const op{w};
    using owner = decltype(ts::place(device{}, op));
    std::vector<owner> placed;
    for (int i = 0; i < layers; ++i) placed.push_back(ts::place(device{}, op));
    auto const bytes = static_cast<double>(w.bytes());
    ts::device_workspace workspace;
    device const exec{workspace, t.stream()};
    auto const report = [&](char const* kind, index_t m, double us, double in_graph, double error) {
        std::printf("%-14s %-10s %5ld x %-5ld M %-4ld %8.1f us %5.2f of read | graph %8.1f us %5.2f | floor %6.1f | %5.2f TFLOP/s | error %.2f\n", name, kind,
                    long(w.rows()), long(w.cols()), long(m), us, bytes / us / t.rate(), in_graph, bytes / in_graph / t.rate(), bytes / t.rate(),
                    2e-6 * double(m * w.nonzeros()) / in_graph, error);
        std::fflush(stdout);
    };
    for (index_t const m : ms) {
        random_bits random{9};
        ts::matrix<float> x(m, w.cols()), dy(m, w.rows()), y(m, w.rows());
        for (index_t i = 0; i < x.size(); ++i) x.data()[i] = random.value();
        for (index_t i = 0; i < dy.size(); ++i) dy.data()[i] = random.value();
        ts::device_matrix<float> there{m, w.cols()}, to{m, w.rows()}, from{m, w.rows()}, back{m, w.cols()};
        ts::copy(exec, std::as_const(x).view(), there.view());
        ts::copy(exec, std::as_const(dy).view(), from.view());
        auto const cx = std::as_const(there).view();
        auto const cy = std::as_const(from).view();
        auto const turned = [&](int i) { return ts::transposed(placed[static_cast<std::size_t>(i % layers)].view()); };
        exec.reserve(ts::maximum(ts::workspace_bytes(exec, placed[0], cx), ts::workspace_bytes(exec, turned(0), cy)));
        auto const forward = [&](int i) { ts::apply(exec, placed[static_cast<std::size_t>(i % layers)].view(), cx, to.view()); };
        auto const backward = [&](int i) { ts::apply(exec, turned(i), cy, back.view()); };
        forward(0);
        ts::copy(exec, std::as_const(to).view(), y.view());
        check(cudaStreamSynchronize(t.stream()));
        double const error = worst_row(w, x, y);
        report("", m, t.cold(t.stream(), forward), t.graph(layers > 1 ? layers : 4, forward), error);
        if (m == 1 || m == 16) report("Wᵀ", m, t.cold(t.stream(), backward), t.graph(layers > 1 ? layers : 4, backward), 0.0);
        if (m != 1 && m != 16) continue;
        if constexpr (!requires { Storage::position_bits; }) {
            auto const alone = ts::place(device{}, ts::transposed(op));
            auto const turned_alone = [&](int) { ts::apply(exec, alone.view(), cy, back.view()); };
            double const us = t.cold(t.stream(), turned_alone);
            report("Wᵀ placed", m, us, us, 0.0);
        }
    }
}

/// int4 with outliers over int4 alone.
void bench_sum(timer& t, index_t n, index_t k, index_t entries, std::initializer_list<index_t> ms) {
    using panels = ts::prepacked<ts::device_panel, ts::quantized<ts::int4_g128>>;
    panels const form{nullptr, n, k};
    constexpr int layers = 8;
    auto const outliers = random_csr<ts::fp16>(n, k, entries, 5);
    ts::linear<ts::csr<ts::fp16>> const op{outliers.view()};
    std::vector<ts::device_buffer<std::byte>> memory;
    std::vector<decltype(ts::place(device{}, op))> placed;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes());
        fill_kernel<<<1024, 256>>>(reinterpret_cast<std::uint32_t*>(memory.back().data()), form.code_bytes() / 4, 1 + static_cast<std::uint64_t>(i), false);
        fill_kernel<<<1024, 256>>>(reinterpret_cast<std::uint32_t*>(memory.back().data() + form.code_bytes()), (form.bytes() - form.code_bytes()) / 4, 1, true);
        placed.push_back(ts::place(device{}, op));
    }
    check(cudaDeviceSynchronize());
    ts::device_workspace workspace;
    device const exec{workspace, t.stream()};
    for (index_t const m : ms) {
        ts::device_matrix<ts::bf16> x{m, k}, y{m, n};
        random_bits random{9};
        ts::matrix<ts::bf16> here(m, k);
        for (index_t i = 0; i < here.size(); ++i) here.data()[i] = ts::bf16{random.value()};
        ts::copy(exec, std::as_const(here).view(), x.view());
        check(cudaStreamSynchronize(t.stream()));
        auto const cx = std::as_const(x).view();
        auto const base = [&](int i) { return ts::linear<panels, ts::as_bf16>{panels{memory[static_cast<std::size_t>(i % layers)].data(), n, k}}; };
        auto const both = [&](int i) { return base(i) + placed[static_cast<std::size_t>(i % layers)].view(); };
        exec.reserve(ts::workspace_bytes(exec, both(0), cx));
        double const us[2] = {t.cold(t.stream(), [&](int i) { ts::apply(exec, base(i), cx, y.view()); }),
                              t.cold(t.stream(), [&](int i) { ts::apply(exec, both(i), cx, y.view()); })};
        double const in_graph[2] = {t.graph(layers, [&](int i) { ts::apply(exec, base(i), cx, y.view()); }),
                                    t.graph(layers, [&](int i) { ts::apply(exec, both(i), cx, y.view()); })};
        std::printf("int4_g128 + %.2f%% fp16 %ld x %ld M %-4ld %8.1f us %5.2f of it alone | graph %8.1f us %5.2f\n", 100.0 * double(entries) / double(k),
                    long(n), long(k), long(m), us[1], us[1] / us[0], in_graph[1], in_graph[1] / in_graph[0]);
        std::fflush(stdout);
    }
}

/// A mixture of int4 experts, its experts' products alone, and the bytes of the experts that are used.
void bench_mixture(timer& t, index_t experts, index_t k, index_t h, index_t f, std::initializer_list<index_t> token_counts) {
    using panels = ts::prepacked<ts::device_panel, ts::quantized<ts::int4_g128>>;
    using op = ts::linear<panels, ts::as_bf16>;
    using unit = ts::gated_expert<op>;
    panels const wide{nullptr, f, h};
    panels const narrow{nullptr, h, f};
    index_t const of_unit = 2 * wide.bytes() + narrow.bytes();
    ts::device_buffer<std::byte> memory{experts * of_unit};
    std::vector<unit> units;
    auto const fill = [&](panels const& p, std::byte* at) {
        fill_kernel<<<256, 256>>>(reinterpret_cast<std::uint32_t*>(at), p.code_bytes() / 4, static_cast<std::uint64_t>(at - memory.data()), false);
        fill_kernel<<<256, 256>>>(reinterpret_cast<std::uint32_t*>(at + p.code_bytes()), (p.bytes() - p.code_bytes()) / 4, 1, true);
        return op{panels{at, p.rows(), p.cols()}};
    };
    for (index_t e = 0; e < experts; ++e) {
        std::byte* const at = memory.data() + e * of_unit;
        auto const gate = fill(wide, at);
        auto const up = fill(wide, at + wide.bytes());
        units.emplace_back(gate, up, fill(narrow, at + 2 * wide.bytes()));
    }
    ts::device_buffer<std::byte> table{static_cast<index_t>(units.size() * sizeof(unit))};
    check(cudaMemcpy(table.data(), units.data(), units.size() * sizeof(unit), cudaMemcpyHostToDevice));
    ts::detail::device_family<unit> const family{reinterpret_cast<std::byte const*>(units.data()), table.data(), sizeof(unit), experts};
    random_bits random{3};
    ts::matrix<ts::bf16> router(experts, h);
    for (index_t i = 0; i < router.size(); ++i) router.data()[i] = ts::bf16{0.05f * random.value()};
    ts::linear<ts::matrix_view<ts::bf16 const>> const router_op{std::as_const(router).view()};
    auto const placed = ts::place(device{}, router_op);
    ts::top_k_router const gate{placed.view(), k, ts::renormalized<ts::softmax_gate>{ts::softmax_gate{}}};
    ts::moe const block{gate, units};
    ts::device_workspace workspace;
    device const exec{workspace, t.stream()};
    for (index_t const tokens : token_counts) {
        ts::matrix<ts::bf16> x(tokens, h);
        for (index_t i = 0; i < x.size(); ++i) x.data()[i] = ts::bf16{random.value()};
        ts::device_matrix<ts::bf16> there{tokens, h}, y{tokens, h};
        ts::device_vector<index_t> counts{experts};
        ts::copy(exec, std::as_const(x).view(), there.view());
        auto const in = ts::kernel_view(std::as_const(there).view());
        auto const out = ts::kernel_view(y.view());
        ts::workspace_sizer sizer;
        ts::detail::run_mixture(exec, block, family, in, out, ts::detail::routing_wishes{}, sizer);
        exec.reserve(sizer.bytes());
        auto const run = [&](int) {
            ts::detail::device_arena arena{workspace};
            ts::detail::run_mixture(exec, block, family, in, out, ts::detail::routing_wishes{}, arena);
        };
        {
            ts::detail::device_arena arena{workspace};
            ts::detail::run_mixture(exec, block, family, in, out, ts::detail::routing_wishes{ts::kernel_view(counts.view()), {}, {}}, arena);
        }
        ts::vector<index_t> loads(experts);
        ts::copy(exec, std::as_const(counts).view(), loads.view());
        check(cudaStreamSynchronize(t.stream()));
        index_t used = 0;
        for (index_t e = 0; e < experts; ++e) used += loads(e) > 0;
        double const bytes = double(used) * double(of_unit);
        double const us = t.cold(t.stream(), run);
        check(cudaStreamSynchronize(t.stream()));
        double const in_graph = t.graph(4, run);
        std::printf("mixture int4_g128 %ld of %ld, %ld x %ld, tokens %-4ld used %-4ld %8.1f us %5.2f of read | graph %8.1f us %5.2f | floor %6.1f | %.1f TFLOP/s\n",
                    long(k), long(experts), long(h), long(f), long(tokens), long(used), us, bytes / us / t.rate(), in_graph, bytes / in_graph / t.rate(),
                    bytes / t.rate(), 6e-6 * double(tokens * k) * double(h) * double(f) / in_graph);
        std::fflush(stdout);
    }
}

} // namespace

int main() {
    timer t;
    auto const outliers = random_csr<ts::fp16>(8192, 28672, 287, 1);
    auto const more = random_csr<ts::fp16>(4096, 4096, 410, 2);
    auto const bytes = random_csr<ts::int8>(4096, 4096, 410, 3);
    bench(t, "csr fp16 1%", outliers.view(), {1, 4, 16, 64, 256}, 12);
    bench(t, "csr fp16 10%", more.view(), {1, 16, 256}, 12);
    bench(t, "csr int8 10%", bytes.view(), {1}, 12);
    bench(t, "2:4 bf16", random_kept<ts::bf16>(8192, 28672, 4).view(), {1, 16, 256}, 1);
    bench(t, "2:4 int8", random_kept<ts::int8>(8192, 28672, 4).view(), {1, 16}, 1);
    bench_sum(t, 8192, 28672, 143, {1, 16, 64});
    bench_mixture(t, 128, 8, 2048, 768, {1, 4, 16, 64, 256});
    bench_mixture(t, 8, 2, 4096, 14336, {1, 4, 16, 64, 256});
    return 0;
}
