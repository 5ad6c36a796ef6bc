// SPDX-License-Identifier: MIT
/// @file
/// Products with look-ups and vector codes on a CUDA device, as cuda_bench.cu times them. Codes, tables and scales are random numbers.

#include "support/cuda_products.cuh"

#include <tessera/storage/any_precision.hpp>
#include <tessera/storage/table_quantized.hpp>
#include <tessera/storage/vector_codebooks.hpp>
#include <tessera/storage/vector_grid.hpp>

namespace {

using namespace cuda_bench;

constexpr index_t rows = 8192;
constexpr index_t columns = 28672;
constexpr int layers = 20;

__global__ void normal_kernel(ts::fp16* to, index_t count, std::uint64_t seed) {
    ts::philox const random{seed};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < count; i += index_t{256} * gridDim.x)
        to[i] = ts::fp16{random.normal(static_cast<std::uint64_t>(i))};
}
__global__ void normal_kernel(float* to, index_t count, std::uint64_t seed) {
    ts::philox const random{seed};
    for (index_t i = blockIdx.x * index_t{256} + threadIdx.x; i < count; i += index_t{256} * gridDim.x) to[i] = random.normal(static_cast<std::uint64_t>(i));
}

/// Look-ups whose codes take all bits of their places, `columns_of_group` with a scale.
template <class Storage>
void bench_tables(timer& t, cudaStream_t stream, char const* name, index_t columns_of_group, std::vector<index_t> const& ms) {
    using panels = ts::prepacked<ts::device_panel, Storage>;
    using value_type = typename panels::value_type;
    static_assert(panels::format::width * panels::format::dims == panels::format::bits);
    panels const form{nullptr, rows, columns, columns_of_group};
    std::vector<ts::device_buffer<std::byte>> memory;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes());
        panels const there = form.at(memory.back().data());
        fill(memory.back().data(), form.code_bytes(), 100 + static_cast<std::uint64_t>(i), 0);
        if (form.scale_count() > 0) fill(memory.back().data() + form.code_bytes(), form.scale_count() * static_cast<index_t>(sizeof(typename panels::scale_type)), 7, 2);
        normal_kernel<<<1024, 256>>>(const_cast<value_type*>(there.tables()), form.table_bytes() / static_cast<index_t>(sizeof(value_type)), 9);
        CHECK(cudaGetLastError());
    }
    bench_panels(t, stream, name, [&](int i) { return form.at(memory[static_cast<std::size_t>(i)].data()); }, static_cast<double>(form.bytes()), ms, layers);
}

/// Vectors of 8 rows: indices of 16 bits, residual ones of 8, or none. The layers differ in their codes.
void bench_codebooks(timer& t, cudaStream_t stream, char const* name, int index_bits, int residual_bits, std::vector<index_t> const& ms) {
    ts::vector_codebooks_shape shape{rows, {}};
    shape.part[1] = {columns, columns, 8, index_bits, residual_bits};
    ts::vector_codebooks_tensor tensor{shape};
    ts::philox const random{1};
    for (index_t i = 0; i < shape.part[1].centroid_count(); ++i) tensor.centroids(1)[i] = ts::fp16{random.normal(static_cast<std::uint64_t>(i))};
    for (index_t i = 0; i < shape.part[1].residual_count(); ++i) tensor.residuals(1)[i] = ts::fp16{0.1f * random.normal(static_cast<std::uint64_t>(i))};
    ts::vector_codebooks const w{shape, tensor.view().part(0), tensor.view().part(1), {}};
    auto const placed = ts::place(device{}, ts::linear{w, ts::as_bf16{}});
    auto const form = placed.view().storage();
    auto const part = form.part(0);
    std::vector<ts::device_buffer<std::byte>> memory;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes());
        CHECK(cudaMemcpy(memory.back().data(), form.data(), static_cast<std::size_t>(form.bytes()), cudaMemcpyDeviceToDevice));
        index_t const indices = form.blocks() * 64 * part.vectors;
        fill(memory.back().data() + part.codes, indices * part.index_bytes, 100 + static_cast<std::uint64_t>(i), 0);
        fill(memory.back().data() + part.residual_codes, indices * part.residual_bytes, 200 + static_cast<std::uint64_t>(i), 0);
    }
    bench_panels(t, stream, name, [&](int i) { return form.at(memory[static_cast<std::size_t>(i)].data()); }, static_cast<double>(w.bytes()), ms, layers);
}

/// What the weights would be decoded to.
template <class T>
void bench_dense(timer& t, cudaStream_t stream, char const* name, std::vector<index_t> const& ms) {
    using panels = ts::prepacked<ts::device_panel, ts::matrix_view<T const>>;
    panels const form{nullptr, rows, columns};
    std::vector<ts::device_buffer<std::byte>> memory;
    for (int i = 0; i < layers; ++i) {
        memory.emplace_back(form.bytes());
        fill(memory.back().data(), form.bytes(), 100 + static_cast<std::uint64_t>(i), sizeof(T) == 2 ? 1 : 3);
    }
    bench_panels(t, stream, name, [&](int i) { return panels{memory[static_cast<std::size_t>(i)].data(), rows, columns}; },
                 static_cast<double>(rows) * columns * sizeof(T), ms, layers);
}

} // namespace

int main(int argc, char** argv) {
    bool const quick = read_options(argc, argv);
    timer t;
    measure_rates(t);
    cudaStream_t stream{};
    CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    std::vector<index_t> const few{1, 16};
    std::vector<index_t> const all{1, 16, 64, 256};
    bench_tables<ts::vector_grid<2, 8>>(t, stream, "HIGGS 2 x 256", 1024, all);
    bench_tables<ts::table_quantized<4, ts::per_channel>>(t, stream, "table a row, 4 bit", columns, all);
    bench_codebooks(t, stream, "VPTQ 8, 16 + 8 bit", 16, 8, all);
    if (quick) return 0;
    bench_dense<ts::bf16>(t, stream, "bf16", all);
    bench_dense<float>(t, stream, "float", all);
    bench_tables<ts::vector_grid<1, 4>>(t, stream, "HIGGS 1 x 16", 1024, few);
    bench_tables<ts::vector_grid<4, 8>>(t, stream, "HIGGS 4 x 256", 1024, few);
    bench_tables<ts::vector_grid<4, 16>>(t, stream, "HIGGS 4 x 65536", 1024, few);
    bench_tables<ts::vector_grid<8, 8>>(t, stream, "HIGGS 8 x 256", 1024, few);
    bench_tables<ts::table_quantized<4, ts::per_tensor, ts::fp16, ts::scaled_by<ts::fp16, ts::group<128>>>>(t, stream, "one table, 4 bit", 128, few);
    bench_tables<ts::table_quantized<2, ts::per_channel>>(t, stream, "table a row, 2 bit", columns, few);
    bench_tables<ts::any_precision<8>>(t, stream, "table a row, 8 bit", columns, few);
    bench_tables<ts::table_quantized<4, ts::group<128>>>(t, stream, "table of 128, 4 bit", 128, few);
    bench_codebooks(t, stream, "VPTQ 8, 16 bit", 16, 0, few);
    bench_codebooks(t, stream, "VPTQ 8, 8 + 8 bit", 8, 8, few);
    return 0;
}
