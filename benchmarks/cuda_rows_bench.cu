// SPDX-License-Identifier: MIT
/// @file
/// Operations on rows on a CUDA device, bound by memory: microseconds by events with a cold second-level cache (medians), and bytes read
/// and written over the rate of a copy of 1 GiB in the same run.

#include <tessera/nn/nn.cuh>
#include <tessera/quant/convert.cuh>
#include <tessera/quant/quantize.cuh>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
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

__global__ void fill_kernel(ts::bf16* to, index_t count) {
    ts::philox const random{7};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < count; i += index_t{256} * gridDim.x)
        to[i] = ts::bf16{random.normal(static_cast<std::uint64_t>(i))};
}

class timer {
public:
    timer() {
        check(cudaEventCreate(&begin_));
        check(cudaEventCreate(&end_));
    }
    template <class F>
    double microseconds(F const& call) {
        std::vector<float> times;
        for (int i = 0; i < 23; ++i) {
            check(cudaMemset(other_.data(), i, static_cast<std::size_t>(other_.bytes())));
            check(cudaEventRecord(begin_));
            call();
            check(cudaEventRecord(end_));
            check(cudaEventSynchronize(end_));
            float ms = 0;
            check(cudaEventElapsedTime(&ms, begin_, end_));
            if (i >= 2) times.push_back(ms);
        }
        std::nth_element(times.begin(), times.begin() + 10, times.end());
        return 1e3 * static_cast<double>(times[10]);
    }

private:
    cudaEvent_t begin_{}, end_{};
    ts::device_buffer<std::byte> other_{index_t{128} << 20};
};

} // namespace

int main() {
    device const exec;
    timer clock;
    index_t const gigabyte = index_t{1} << 30;
    ts::device_buffer<std::byte> from{gigabyte};
    ts::device_buffer<std::byte> to{gigabyte};
    double const copy = clock.microseconds(
        [&] { check(cudaMemcpyAsync(to.data(), from.data(), static_cast<std::size_t>(gigabyte), cudaMemcpyDeviceToDevice)); });
    double const rate = 2.0 * static_cast<double>(gigabyte) / copy;
    std::printf("copy of 1 GiB: %.0f us, %.0f GB/s read and written\n", copy, rate * 1e-3);
    auto const report = [&](char const* name, index_t bytes, double us) {
        std::printf("%-52s %8.1f us  %6.0f GB/s  %.2f of a copy\n", name, us, static_cast<double>(bytes) / us * 1e-3, static_cast<double>(bytes) / us / rate);
    };
    for (index_t const rows : {2048, 16384}) {
        index_t const k = 4096;
        ts::device_matrix<ts::bf16> x{rows, k};
        ts::device_matrix<ts::bf16> y{rows, k};
        ts::device_vector<ts::bf16> weight{k};
        fill_kernel<<<1024, 256>>>(x.data(), x.size());
        fill_kernel<<<16, 256>>>(weight.data(), k);
        check(cudaGetLastError());
        std::printf("%lld rows of %lld, bf16\n", static_cast<long long>(rows), static_cast<long long>(k));
        index_t const in = rows * k * 2;
        ts::device_quantized<ts::int4_g128> int4{rows, k};
        report("quantize int4, groups of 128", in + int4.bytes(), clock.microseconds([&] { ts::quantize(exec, x, int4); }));
        ts::device_quantized<ts::mx_e4m3> mx{rows, k};
        report("quantize MXFP8", in + mx.bytes(), clock.microseconds([&] { ts::quantize(exec, x, mx); }));
        ts::device_quantized<ts::scheme<ts::e4m3fn, ts::per_channel>> fp8{rows, k};
        ts::device_quantized<ts::int8_per_channel> int8{rows, k};
        report("quantize int8, a scale a row", in + int8.bytes(), clock.microseconds([&] { ts::quantize(exec, x, int8); }));
        report("rms_norm + fp8, a scale a row", in + fp8.bytes(), clock.microseconds([&] { ts::rms_norm_quantize(exec, x, weight, 1e-5f, fp8); }));
        report("rms_norm + Hadamard 128 + fp8", in + fp8.bytes(),
               clock.microseconds([&] { ts::rms_norm_rotate_quantize(exec, x, weight, 1e-5f, 128, fp8); }));
        report("rms_norm + Hadamard 4096 + int8", in + int8.bytes(),
               clock.microseconds([&] { ts::rms_norm_rotate_quantize(exec, x, weight, 1e-5f, 4096, int8); }));
        report("Hadamard 128", 2 * in, clock.microseconds([&] { ts::walsh_hadamard(exec, x, y, 128); }));
        report("Hadamard 4096", 2 * in, clock.microseconds([&] { ts::walsh_hadamard(exec, x, y, 4096); }));
        report("rms_norm", 2 * in, clock.microseconds([&] { ts::rms_norm(exec, x, weight, 1e-5f, y); }));
        ts::device_matrix<ts::e4m3fn> codes{rows, k};
        ts::device_matrix<float> wide{rows, k};
        report("convert bf16 to e4m3fn", in + in / 2, clock.microseconds([&] { ts::convert(exec, x, codes); }));
        report("convert e4m3fn to bf16", in + in / 2, clock.microseconds([&] { ts::convert(exec, codes, y); }));
        report("convert bf16 to float", 3 * in, clock.microseconds([&] { ts::convert(exec, x, wide); }));
        report("convert float to bf16", 3 * in, clock.microseconds([&] { ts::convert(exec, wide, y); }));
        report("softmax", 2 * in, clock.microseconds([&] { ts::softmax(exec, x, y); }));
        report("swiglu", 3 * in, clock.microseconds([&] { ts::swiglu(exec, x, x, y); }));
    }
}
