// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place` of matrices whose products with a preparation are products of bytes (kernels/cuda/byte_linear.cuh). Part of apply.cuh, so that
/// no program places one matrix in two layouts:
///
///     cuda<90> const exec{stream};
///     quantized_tensor<scheme<e4m3fn, block<128, 128>>> const q = ...;
///     auto const layer = place(exec, linear{q.view(), fp8_per_group<128>{}});
///     apply(exec, layer, x, y);                              // x and y of float, fp16 or bf16
///
/// The same with `int8_per_channel` or int4 in groups, and `int8_per_token`. Results do not depend on the number of rows of x.

#include "../kernels/cuda/byte_linear.cuh"
#include "../storage/device_memory.cuh"
#include "placed.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Device memory of so many bytes that `pack(part, host)` fills for each part, in parallel, on the host; the rest is 0. Waits for the copy.
template <int Sm, class Pack>
device_buffer<std::byte> packed_memory(cuda<Sm> const& exec, index_t bytes, index_t parts, Pack const& pack) {
    device_buffer<std::byte> memory{bytes};
    buffer<std::byte> host{bytes};
    for (std::byte& b : host) b = std::byte{0};
    parallel_for(default_parallel{}, parts, 1, [&](index_t first, index_t last, index_t) noexcept {
        for (index_t i = first; i < last; ++i) pack(i, host.data());
    });
    copy_bytes(stream_of(exec), memory.data(), host.data(), bytes, cudaMemcpyHostToDevice);
    check_cuda("place", "cudaStreamSynchronize", cudaStreamSynchronize(stream_of(exec)));
    return memory;
}

} // namespace detail

/// A matrix in device tiles, or nibbles: packed on the host, uploaded.
template <int Sm, class Storage, class Preparation>
    requires(!std::is_void_v<detail::byte_arithmetic<Sm, Storage, Preparation>>)
class placed<cuda<Sm>, linear<Storage, Preparation>> {
    using tiles = prepacked<detail::byte_layout<Storage>, Storage>;

public:
    using operator_type = linear<tiles, Preparation>;

    placed(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) : rows_{w.rows()}, cols_{w.cols()} {
        detail::check_device<Sm>("place");
        tiles const to{nullptr, rows_, cols_};
        memory_ = detail::packed_memory(exec, to.bytes(), to.row_blocks(),
                                        [&](index_t b, std::byte* host) noexcept { detail::pack_device_block(w.storage(), to, b, host); });
    }

    operator_type view() const& { return operator_type{tiles{memory_.data(), rows_, cols_}}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return memory_.bytes(); }

private:
    detail::emptied_by_move<index_t> rows_;
    detail::emptied_by_move<index_t> cols_;
    device_buffer<std::byte> memory_;
};

} // namespace tessera::inline TESSERA_ABI
