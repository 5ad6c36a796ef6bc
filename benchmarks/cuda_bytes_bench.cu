// SPDX-License-Identifier: MIT
/// @file
/// Products of bytes on a CUDA device beside cuBLASLt's (-lcublasLt), taken in turn in one process: 8-bit floats with scales of 1 x
/// 128 by 128 x 128 (cuBLASLt: the same scales, and one a matrix with fast sums), int8 by int8 (cuBLASLt: int32 sums, no scales).
/// Random codes; times by events, medians, the second-level cache cold. "x ready" is the product of x in bytes, as cuBLASLt's is;
/// "apply" makes them of bf16. Every row is checked first, against double precision at sampled places.

#include <tessera/tessera.cuh>

#include <cublasLt.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace ts = tessera;
using ts::index_t;
using device = ts::cuda<90>;
using bytes = ts::device_buffer<std::byte>;

namespace {

void check(int code, char const* what) {
    if (code == 0) return;
    std::fprintf(stderr, "%s: %d\n", what, code);
    std::exit(1);
}
#define CHECK(call) check(static_cast<int>(call), #call)

/// 0: bytes, without NaN of e4m3; 1: pairs of bf16; 2: float; 3: pairs of fp16.
__global__ void fill_kernel(std::uint32_t* to, index_t words, std::uint64_t seed, int kind) {
    ts::philox const random{seed};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < words; i += index_t{256} * gridDim.x) {
        auto const j = static_cast<std::uint64_t>(i);
        if (kind == 0) {
            std::uint32_t w = random.bits(j);
            for (int b = 0; b < 32; b += 8)
                if ((w >> b & 0x7f) == 0x7f) w ^= 1u << b;
            to[i] = w;
        } else if (kind == 1) {
            to[i] = std::uint32_t{ts::bf16{random.normal(2 * j)}.to_bits()} | std::uint32_t{ts::bf16{random.normal(2 * j + 1)}.to_bits()} << 16;
        } else if (kind == 3) {
            to[i] = std::uint32_t{ts::fp16{0.01f + random.uniform(2 * j)}.to_bits()} | std::uint32_t{ts::fp16{0.01f + random.uniform(2 * j + 1)}.to_bits()} << 16;
        } else {
            to[i] = __float_as_uint(0.01f + random.uniform(j));
        }
    }
}
void fill(bytes& to, std::uint64_t seed, int kind) {
    fill_kernel<<<1024, 256>>>(reinterpret_cast<std::uint32_t*>(to.data()), to.bytes() / 4, seed, kind);
    CHECK(cudaGetLastError());
}

struct timer {
    cudaEvent_t begin{}, end{};
    bytes flushed{index_t{256} << 20};
    timer() {
        CHECK(cudaEventCreate(&begin));
        CHECK(cudaEventCreate(&end));
    }
    /// Microseconds of each call, medians of `rounds` rounds in turn.
    std::vector<double> in_turn(std::vector<std::function<void()>> const& calls, int rounds) {
        std::vector<std::vector<double>> times(calls.size());
        for (int r = -2; r < rounds; ++r)
            for (std::size_t c = 0; c < calls.size(); ++c) {
                if (!calls[c]) continue;
                CHECK(cudaMemsetAsync(flushed.data(), r & 255, static_cast<std::size_t>(flushed.bytes())));
                CHECK(cudaEventRecord(begin));
                calls[c]();
                CHECK(cudaEventRecord(end));
                CHECK(cudaEventSynchronize(end));
                float ms = 0;
                CHECK(cudaEventElapsedTime(&ms, begin, end));
                if (r >= 0) times[c].push_back(1000.0 * double{ms});
            }
        std::vector<double> medians;
        for (auto& t : times) {
            std::sort(t.begin(), t.end());
            medians.push_back(t.empty() ? 0.0 : t[t.size() / 2]);
        }
        return medians;
    }
};

/// A weight, without its scale.
template <class W>
__device__ double code_value(W const& w, index_t n, index_t k) {
    if constexpr (std::is_same_v<typename W::layout, ts::device_nibbles>) {
        auto const at = w.locate(n, k);
        auto const code = static_cast<int>(w.data()[at.byte]) >> at.bit & 15;
        return code < 8 ? code : code - 16;
    } else if constexpr (W::is_float8) {
        return double{ts::e4m3fn::decode(static_cast<std::uint8_t>(w.data()[w.locate(n, k)]))};
    } else {
        return static_cast<double>(static_cast<std::int8_t>(w.data()[w.locate(n, k)]));
    }
}

/// y at (m, n) of 64 rows of x and of W, from what the kernels read.
template <bool IsFloat8, class Tiles>
__global__ void judge_kernel(Tiles w, std::byte const* x, float const* x_scales, int rows, int m, ts::matrix_view<ts::bf16 const> y, double* error) {
    index_t const n = (blockIdx.x * w.rows() + w.rows() / 2) / gridDim.x;
    index_t const i = static_cast<index_t>(threadIdx.x) * m / blockDim.x;
    double sum = 0, magnitude = 0;
    for (index_t k = 0; k < w.cols(); ++k) {
        index_t const in_row = (k % 128 / 16 ^ i % 8) * 16 + k % 16;
        auto const code = static_cast<std::uint8_t>(x[(k / 128 * rows + i) * 128 + in_row]);
        double v = code_value(w, n, k);
        if constexpr (IsFloat8)
            v *= double{ts::e4m3fn::decode(code)} * double{x_scales[k / 128 * rows + i]};
        else
            v *= double(static_cast<std::int8_t>(code)) * double{x_scales[i]};
        v *= static_cast<double>(static_cast<float>(w.scales()[w.scale_index(n, k)]));
        sum += v;
        magnitude += fabs(v);
    }
    double const d = fabs(static_cast<double>(static_cast<float>(y(i, n))) - sum);
    double const allowed = magnitude * (IsFloat8 ? 0.0167 : 1e-5) + fabs(sum) * 0.00390625;
    error[blockIdx.x * blockDim.x + threadIdx.x] = d == d ? d / allowed : 1e9;
}

struct peer {
    cublasLtHandle_t handle{};
    bytes workspace{index_t{64} << 20};
    peer() { CHECK(cublasLtCreate(&handle)); }

    /// y (m, n) = x (m, k) Wᵀ; an empty function where the library has none. `blocks`: scales of 128 x 128 and 1 x 128.
    std::function<void()> product(index_t m, index_t n, index_t k, cudaDataType_t in, cudaDataType_t out, bool blocks, void const* w, void const* x, void* y,
                                  float const* w_scales, float const* x_scales) {
        cublasLtMatmulDesc_t what{};
        bool const is_int8 = in == CUDA_R_8I;
        CHECK(cublasLtMatmulDescCreate(&what, is_int8 ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F, is_int8 ? CUDA_R_32I : CUDA_R_32F));
        auto const set = [&](cublasLtMatmulDescAttributes_t a, auto value) { CHECK(cublasLtMatmulDescSetAttribute(what, a, &value, sizeof value)); };
        set(CUBLASLT_MATMUL_DESC_TRANSA, CUBLAS_OP_T);
        if (in == CUDA_R_8F_E4M3) {
            set(CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, static_cast<void const*>(w_scales));
            set(CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, static_cast<void const*>(x_scales));
            if (blocks) {
                set(CUBLASLT_MATMUL_DESC_A_SCALE_MODE, std::int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_BLK128x128_32F});
                set(CUBLASLT_MATMUL_DESC_B_SCALE_MODE, std::int32_t{CUBLASLT_MATMUL_MATRIX_SCALE_VEC128_32F});
            } else {
                set(CUBLASLT_MATMUL_DESC_FAST_ACCUM, std::int8_t{1});
            }
        }
        auto const u = [](index_t v) { return static_cast<std::uint64_t>(v); };
        cublasLtMatrixLayout_t a{}, b{}, d{};
        CHECK(cublasLtMatrixLayoutCreate(&a, in, u(k), u(n), k));
        CHECK(cublasLtMatrixLayoutCreate(&b, in, u(k), u(m), k));
        CHECK(cublasLtMatrixLayoutCreate(&d, out, u(n), u(m), n));
        cublasLtMatmulPreference_t wish{};
        CHECK(cublasLtMatmulPreferenceCreate(&wish));
        auto size = static_cast<std::size_t>(workspace.bytes());
        CHECK(cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &size, sizeof size));
        cublasLtMatmulHeuristicResult_t found[8];
        int count = 0;
        auto const code = cublasLtMatmulAlgoGetHeuristic(handle, what, a, b, d, d, wish, 8, found, &count);
        if (code != CUBLAS_STATUS_SUCCESS || count == 0) {
            std::printf("cuBLASLt has no product of this kind (%d)\n", static_cast<int>(code));
            return {};
        }
        auto const run = [=, this](cublasLtMatmulAlgo_t const& algorithm) {
            float const one = 1, nothing = 0;
            std::int32_t const int_one = 1, int_nothing = 0;
            CHECK(cublasLtMatmul(handle, what, is_int8 ? static_cast<void const*>(&int_one) : &one, w, a, x, b, is_int8 ? static_cast<void const*>(&int_nothing) : &nothing,
                                 y, d, y, d, &algorithm, const_cast<std::byte*>(workspace.data()), size, nullptr));
        };
        // The fastest of what the library proposes.
        timer t;
        std::vector<std::function<void()>> calls;
        for (int i = 0; i < count; ++i) calls.push_back([=, algorithm = found[i].algo] { run(algorithm); });
        auto const us = t.in_turn(calls, 3);
        return calls[static_cast<std::size_t>(std::min_element(us.begin(), us.end()) - us.begin())];
    }
};

template <class Scheme, class Preparation>
void bench(timer& t, peer& p, char const* name, index_t n, index_t k, std::vector<index_t> const& ms) {
    using storage = ts::quantized<Scheme>;
    using tiles = ts::prepacked<ts::detail::byte_layout<storage>, storage>;
    using arithmetic = ts::detail::byte_arithmetic<90, storage, Preparation>;
    constexpr bool is_float8 = arithmetic::has_step_scales;
    tiles const form{nullptr, n, k};
    bytes memory{form.bytes()};
    bytes codes{form.code_bytes()};
    bytes peer_codes{n * k};
    bytes scales{form.bytes() - form.code_bytes()};
    fill(codes, 1, 0);
    fill(peer_codes, 5, 0);
    fill(scales, 2, sizeof(typename std::remove_cvref_t<decltype(*form.scales())>) == 2 ? 3 : 2);
    CHECK(cudaMemcpy(memory.data(), codes.data(), static_cast<std::size_t>(codes.bytes()), cudaMemcpyDeviceToDevice));
    CHECK(cudaMemcpy(memory.data() + codes.bytes(), scales.data(), static_cast<std::size_t>(scales.bytes()), cudaMemcpyDeviceToDevice));
    tiles const w{memory.data(), n, k};
    ts::linear<tiles, Preparation> const op{w};
    for (index_t const m : ms) {
        index_t const rows = ts::detail::byte_rows(m);
        bytes x{m * k * 2}, x_codes{k * rows}, y{m * n * 4}, x_scales{(k / 128 + 1) * rows * 4 + 65536};
        fill(x, 3, 1);
        fill(x_scales, 4, 2);
        ts::device_matrix_view<ts::bf16 const> const xv{reinterpret_cast<ts::bf16 const*>(x.data()), m, k};
        ts::device_matrix_view<ts::bf16> const yv{reinterpret_cast<ts::bf16*>(y.data()), m, n};
        ts::device_workspace workspace;
        device const exec{workspace};
        exec.reserve(ts::workspace_bytes(exec, op, xv));
        CHECK(cudaMemset(y.data(), 0xff, static_cast<std::size_t>(y.bytes())));
        ts::detail::prepare_bytes<arithmetic>(exec, ts::kernel_view(xv), x_codes.data(), reinterpret_cast<float*>(x_scales.data()));
        ts::apply(exec, op, xv, yv);
        ts::device_buffer<double> error{64 * 64};
        judge_kernel<is_float8><<<64, 64>>>(w, x_codes.data(), reinterpret_cast<float const*>(x_scales.data()), int(rows), int(m),
                                 ts::matrix_view<ts::bf16 const>{ts::kernel_view(yv)}, error.data());
        std::vector<double> errors(64 * 64);
        CHECK(cudaMemcpy(errors.data(), error.data(), errors.size() * 8, cudaMemcpyDeviceToHost));
        double const worst = *std::max_element(errors.begin(), errors.end());

        ts::detail::product_output<ts::bf16, ts::no_epilogue> const out{ts::kernel_view(yv), nullptr, 0, 1.0f, {}};
        auto const* const w_scale = reinterpret_cast<float const*>(scales.data());
        auto const* const x_scale = reinterpret_cast<float const*>(x_scales.data());
        std::vector<std::function<void()>> const calls{
            [&] { ts::detail::run_byte_product<arithmetic>(exec, w, m, x_codes.data(), x_scale, out); },
            [&] { ts::apply(exec, op, xv, yv); },
            is_float8 ? p.product(m, n, k, CUDA_R_8F_E4M3, CUDA_R_16BF, true, peer_codes.data(), x_codes.data(), y.data(), w_scale, x_scale)
                      : p.product(m, n, k, CUDA_R_8I, CUDA_R_32I, false, peer_codes.data(), x_codes.data(), y.data(), w_scale, x_scale),
            is_float8 ? p.product(m, n, k, CUDA_R_8F_E4M3, CUDA_R_16BF, false, peer_codes.data(), x_codes.data(), y.data(), w_scale, x_scale) : std::function<void()>{}};
        auto const us = t.in_turn(calls, m * n * k > (index_t{1} << 36) ? 9 : 15);
        double const operations = 2.0 * double(m) * double(n) * double(k) * 1e-6;
        std::printf("%-22s %6ld x %-6ld M %-5ld x ready %7.1f us %5.0f T/s | apply %7.1f us | cuBLASLt %7.1f us %5.0f T/s", name, long(n), long(k), long(m), us[0],
                    operations / us[0], us[1], us[2], us[2] > 0 ? operations / us[2] : 0.0);
        std::printf(", of it: %.2f, apply %.2f", us[2] / us[0], us[2] / us[1]);
        if (us[3] > 0) std::printf(" | per tensor, fast %7.1f us: %.2f", us[3], us[3] / us[0]);
        std::printf(" | error %.3f%s\n", worst, worst <= 1 ? "" : "  WRONG");
        std::fflush(stdout);
    }
}

} // namespace

/// All products, or those that an argument names: fp8, int8, int4.
int main(int count, char** arguments) {
    auto const wants = [&](char const* what) {
        for (int i = 1; i < count; ++i)
            if (std::strcmp(arguments[i], what) == 0) return true;
        return count == 1;
    };
    timer t;
    peer p;
    using fp8_blocks = ts::scheme<ts::e4m3fn, ts::block<128, 128>>;
    if (wants("fp8")) {
        bench<fp8_blocks, ts::fp8_per_group<128>>(t, p, "fp8 1x128 by 128x128", 8192, 8192, {8192, 1024, 128, 16});
        bench<fp8_blocks, ts::fp8_per_group<128>>(t, p, "fp8 1x128 by 128x128", 8192, 28672, {4096, 256, 64});
        bench<fp8_blocks, ts::fp8_per_group<128>>(t, p, "fp8 1x128 by 128x128", 4096, 4096, {4096, 512, 16});
    }
    if (wants("int8")) {
        bench<ts::int8_per_channel, ts::int8_per_token>(t, p, "int8 by int8", 8192, 8192, {8192, 1024, 128, 16});
        bench<ts::int8_per_channel, ts::int8_per_token>(t, p, "int8 by int8", 8192, 28672, {256, 64});
    }
    if (wants("int4")) {
        bench<ts::int4_g128, ts::int8_per_token>(t, p, "int4_g128 by int8", 8192, 8192, {8192, 1024, 128, 16});
        bench<ts::int4_g32, ts::int8_per_token>(t, p, "int4_g32 by int8", 8192, 8192, {8192, 128});
        bench<ts::int4_g128, ts::int8_per_token>(t, p, "int4_g128 by int8", 8192, 28672, {256, 64});
    }
    return 0;
}
