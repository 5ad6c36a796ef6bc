// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `place` and the products of sparse operands on CUDA devices: `linear{csr}` and `linear{n_of_m}` are leaves like any other, alone or
/// as terms of a sum.
///
///     cuda<90> const exec{stream};
///     auto const layer = place(exec, linear{q} + linear{outliers});    // packs on the host, uploads
///     apply(exec, layer, x, y);                                        // outliers into float32 sums, the base on top of them
///     apply(exec, transposed(layer.view()), dy, dx);
///
/// Values, layout and order: kernels/cuda/sparse.cuh. Error: that of the processors' products, a rounding for every entry of a row (of a
/// column, transposed) and a few more. Errors: those of `apply` and `place`.

#include "../kernels/cuda/sparse.cuh"
#include "../kernels/ref/sparse.hpp"
#include "../operators/apply.cuh"

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// Owner of sparse storage on a device.
template <int Sm, class Storage, class Preparation>
class placed_rows {
    using panels = prepacked<device_rows, Storage>;

public:
    using operator_type = linear<panels, Preparation>;

    placed_rows(cuda<Sm> const& exec, linear<Storage, Preparation> const& w, memory_arena* = nullptr) {
        require_as_is<Preparation>();
        check_device<Sm>("place");
        panels const shape = device_rows_of(w.storage(), nullptr);
        check::within("place", "rows of W", shape.rows(), 0, index_t{1} << 30);
        check::within("place", "entries of W", shape.chunks(), 0, index_t{1} << 31);
        check::within("place", "columns of W", shape.cols(), 0, std::numeric_limits<std::int32_t>::max());
        memory_ = device_buffer<std::byte>{shape.bytes()};
        buffer<std::byte> host{shape.bytes()};
        for (std::byte& b : host) b = std::byte{0};
        pack_device_rows(w.storage(), shape, host.data());
        copy_bytes(stream_of(exec), memory_.data(), host.data(), shape.bytes(), cudaMemcpyHostToDevice);
        check_cuda("place", "cudaStreamSynchronize", cudaStreamSynchronize(stream_of(exec)));
        view_ = device_rows_of(w.storage(), memory_.data());
    }

    operator_type view() const& { return operator_type{view_.get()}; }
    void view() const&& = delete;
    index_t bytes() const noexcept { return memory_.bytes(); }

private:
    device_buffer<std::byte> memory_;
    emptied_by_move<panels> view_;
};

} // namespace detail

template <int Sm, class T, class G, class Preparation>
class placed<cuda<Sm>, linear<csr<T, G>, Preparation>> : public detail::placed_rows<Sm, csr<T, G>, Preparation> {
public:
    using detail::placed_rows<Sm, csr<T, G>, Preparation>::placed_rows;
};
template <int Sm, index_t N, index_t M, class T, class G, class Preparation>
class placed<cuda<Sm>, linear<n_of_m<N, M, T, G>, Preparation>> : public detail::placed_rows<Sm, n_of_m<N, M, T, G>, Preparation> {
public:
    using detail::placed_rows<Sm, n_of_m<N, M, T, G>, Preparation>::placed_rows;
};

} // namespace tessera::inline TESSERA_ABI
