// SPDX-License-Identifier: MIT
// Any bytes as a safetensors file: the readers of quantised layers throw, or read inside it.
// Layers are called "l"; B, S and Z are what MatMulNBits takes.

#include <tessera/interop/awq.hpp>
#include <tessera/interop/bitsandbytes.hpp>
#include <tessera/interop/gptq.hpp>
#include <tessera/interop/onnxruntime.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

namespace ts = tessera;

namespace {

std::uint64_t volatile sink;

template <class F>
void attempt(F const& f) {
    try {
        auto const w = f();
        std::uint64_t sum = 0;
        for (ts::index_t i = 0; i < w.rows() && w.cols() > 0; ++i) sum += w.view()(i, w.cols() - 1) != 0;
        sink = sum;
    } catch (ts::format_error const&) {
    } catch (ts::shape_error const&) { // sizes that tessera does not hold
    }
}

void read(ts::safetensors::file const& f) {
    using affine = ts::scheme<ts::uint4, ts::group<32>, ts::fp32, ts::affine>;
    using row_of_3 = ts::scheme<ts::uint3, ts::per_channel, ts::fp32, ts::affine>;
    constexpr auto minus_one = ts::gptq::zero_points::minus_one;
    attempt([&] { return ts::gptq::read<affine>(ts::gptq::find(f, "l"), minus_one).codes; });
    attempt([&] { return ts::gptq::read<row_of_3>(ts::gptq::find(f, "l"), minus_one).codes; });
    attempt([&] { return ts::awq::read<affine>(ts::awq::find(f, "l")); });
    attempt([&] { return ts::bitsandbytes::read<ts::nf4_g64>(ts::bitsandbytes::find(f, "l")); });
    attempt([&] {
        auto const& b = f.tensor("B");
        auto const* z = f.find_tensor("Z");
        ts::onnxruntime::layer const l{"l", b.dims[0], b.dims[1], 32, b.bytes, f.tensor("S"), z == nullptr ? std::span<std::byte const>{} : z->bytes};
        return ts::onnxruntime::read<affine>(l);
    });
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    // An allocation of exactly this size, aligned as a mapped file is: reading past its end is seen.
    std::unique_ptr<std::byte[]> const copy{new std::byte[size]};
    if (size != 0) std::memcpy(copy.get(), data, size);
    try {
        read(ts::safetensors::parse({copy.get(), size}, "fuzz"));
    } catch (ts::format_error const&) {
        return 0;
    }
    return 0;
}
