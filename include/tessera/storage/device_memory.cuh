// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Memory of a CUDA device: `device_buffer<T>` and `device_tensor<T, Rank>` own it, `device_workspace` is the scratch memory of
/// operations (contract 7), `copy` moves arrays between host and device.
///
/// Owners allocate when they are made and free when they die, and nothing else in the library does but a workspace that grows.
/// Growing waits for the device; `exec.reserve(bytes)` beforehand makes it unnecessary, which capturing a stream needs.

#include "../core/byte_count.hpp"
#include "../core/cuda_call.cuh"
#include "../core/device_view.hpp"
#include "tensor.hpp"

#include <map>
#include <utility>

namespace tessera::inline TESSERA_ABI {

/// `size` elements on the current device, uninitialised; moves, does not copy.
template <class T>
class device_buffer {
    static_assert(std::is_trivially_copyable_v<T>, "tessera: a buffer holds trivially copyable elements");

public:
    device_buffer() noexcept = default;
    /// Throws cuda_error where the device has not enough memory.
    explicit device_buffer(index_t size) : size_{size < 0 ? 0 : size} {
        if (detail::saturated_product(size_, sizeof(T)) > detail::too_many_bytes) detail::raise_too_many_bytes();
        if (size_ > 0)
            detail::check_cuda("device_buffer", "cudaMalloc", cudaMalloc(&data_, static_cast<std::size_t>(bytes())));
    }
    device_buffer(device_buffer&& other) noexcept
        : data_{std::exchange(other.data_, nullptr)}, size_{std::exchange(other.size_, 0)} {}
    device_buffer& operator=(device_buffer&& other) noexcept {
        device_buffer taken{std::move(other)};
        std::swap(data_, taken.data_);
        std::swap(size_, taken.size_);
        return *this;
    }
    ~device_buffer() {
        if (data_ != nullptr) static_cast<void>(cudaFree(data_));
    }

    T* data() noexcept { return static_cast<T*>(data_); }
    T const* data() const noexcept { return static_cast<T const*>(data_); }
    index_t size() const noexcept { return size_; }
    index_t bytes() const noexcept { return size_ * static_cast<index_t>(sizeof(T)); }

private:
    void* data_ = nullptr;
    index_t size_ = 0;
};

/// Owner of `Rank` dimensions of T on a device, row-major, uninitialised.
template <class T, std::size_t Rank>
class device_tensor {
public:
    using value_type = T;
    using view_type = device_view<T, Rank>;
    using const_view_type = device_view<T const, Rank>;

    device_tensor() noexcept = default;
    /// Extents >= 0.
    template <class... Index>
        requires(sizeof...(Index) == Rank && (std::is_convertible_v<Index, index_t> && ...))
    explicit device_tensor(Index... sizes) : extents_{dynamic_extents<Rank>{static_cast<index_t>(sizes)...}} {
        (check::at_least("device_tensor", "extent", static_cast<index_t>(sizes), 0), ...);
        data_ = device_buffer<T>{detail::saturated_product(static_cast<index_t>(sizes)...)};
    }

    index_t extent(std::size_t r) const noexcept { return extents_.get().extent(r); }
    index_t size() const noexcept { return data_.size(); }
    T* data() noexcept { return data_.data(); }
    T const* data() const noexcept { return data_.data(); }

    view_type view() & noexcept { return as_view<T>(data_.data()); }
    const_view_type view() const& noexcept { return as_view<T const>(data_.data()); }
    void view() const&& = delete;

private:
    template <class U>
    device_view<U, Rank> as_view(U* p) const noexcept {
        return {p, typename device_view<U, Rank>::mapping_type{layout_right::mapping<dynamic_extents<Rank>>{extents_.get()}}};
    }

    detail::emptied_by_move<dynamic_extents<Rank>> extents_;
    device_buffer<T> data_;
};

/// A matrix, or a vector, on a device.
template <class T>
using device_matrix = device_tensor<T, 2>;
template <class T>
using device_vector = device_tensor<T, 1>;

namespace detail {

template <class T, std::size_t Rank>
inline constexpr bool is_owner<device_tensor<T, Rank>> = true;

/// All memory between the first and the last element is copied: the arrays have the same strides.
template <std::size_t Rank, class A, class B>
void check_copy(A const& from, B const& to) {
    for (std::size_t r = 0; r < Rank; ++r) {
        check::equal("copy", "extent of the destination", to.extent(r), from.extent(r), "extent of the source");
        if (from.extent(r) > 1) check::equal("copy", "stride of the destination", to.stride(r), from.stride(r), "stride of the source");
    }
}

inline void copy_bytes(cudaStream_t stream, void* to, void const* from, index_t bytes, cudaMemcpyKind kind) {
    if (bytes > 0)
        check_cuda("copy", "cudaMemcpyAsync", cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), kind, stream));
}

} // namespace detail

/// To the device, and back: arrays of equal shape and strides. In the order of the policy's stream; the caller waits for it.
/// What lies between the elements of strided arrays is copied with them.
template <int Sm, class T, class E, class L, class U>
void copy(cuda<Sm> const& exec, view<T, E, L> const& from, device_view<U, E::rank()> const& to) {
    detail::check_copy<E::rank()>(from, to);
    detail::copy_bytes(detail::stream_of(exec), to.data_handle(), from.data_handle(), span_bytes(from), cudaMemcpyHostToDevice);
}
template <int Sm, class T, class U, class E, class L>
void copy(cuda<Sm> const& exec, device_view<T, E::rank()> const& from, view<U, E, L> const& to) {
    detail::check_copy<E::rank()>(from, to);
    detail::copy_bytes(detail::stream_of(exec), to.data_handle(), from.data_handle(), span_bytes(from), cudaMemcpyDeviceToHost);
}

/// Scratch memory on a device, for calls of one stream at a time. It also holds counters, which are zero between calls.
class device_workspace {
public:
    device_workspace() noexcept = default;
    explicit device_workspace(index_t bytes) { reserve(bytes); }
    device_workspace(device_workspace const&) = delete;
    device_workspace& operator=(device_workspace const&) = delete;

    /// Makes calls that need at most `bytes` free of allocation. Not while its stream is being captured.
    void reserve(index_t bytes) {
        if (counters_.size() == 0) {
            detail::check_cuda("device_workspace", "cudaGetDevice", cudaGetDevice(&device_));
            counters_ = device_buffer<unsigned>{counter_count};
            detail::check_cuda("device_workspace", "cudaMemset",
                               cudaMemset(counters_.data(), 0, static_cast<std::size_t>(counters_.bytes())));
        }
        if (bytes > memory_.size()) {
            memory_ = {};
            memory_ = device_buffer<std::byte>{round_up(bytes, 1 << 16)};
        }
    }
    index_t capacity() const noexcept { return memory_.size(); }
    /// The device whose memory it is: the current one when it was reserved first; -1 before.
    int device() const noexcept { return device_; }

    std::byte* data() noexcept { return memory_.data(); }
    unsigned* counters() noexcept { return counters_.data(); }
    static constexpr index_t counter_count = 1 << 16;

private:
    device_buffer<std::byte> memory_;
    device_buffer<unsigned> counters_;
    int device_ = -1;
};

namespace detail {

/// Moves a pointer through a workspace: what `workspace_sizer` counted is there.
class device_arena {
public:
    explicit device_arena(device_workspace& w) noexcept : next_{w.data()}, counters_{w.counters()} {}
    template <class T, class... Index>
    T* carve(Index... extents) {
        std::byte* const p = next_;
        next_ += carved_bytes<T>(extents...);
        return reinterpret_cast<T*>(p);
    }
    unsigned* counters() const noexcept { return counters_; }

private:
    std::byte* next_;
    unsigned* counters_;
};

/// That of a thread and the current device.
inline device_workspace& default_device_workspace() {
    thread_local std::map<int, device_workspace> all;
    int device = 0;
    if (has_several_devices()) check_cuda("device_workspace", "cudaGetDevice", cudaGetDevice(&device));
    return all[device];
}

/// The workspace has `bytes`, growing where it may.
template <class Exec>
device_workspace& grown(char const* operation, Exec const& exec, index_t bytes) {
    device_workspace& w = exec.scratch();
    if (has_several_devices() && w.device() >= 0) {
        int device = 0;
        check_cuda(operation, "cudaGetDevice", cudaGetDevice(&device));
        if (w.device() != device) raise_other_device(operation, "the workspace", w.device(), device);
    }
    if (w.capacity() >= bytes && w.counters() != nullptr) return w;
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check_cuda(operation, "cudaStreamIsCapturing", cudaStreamIsCapturing(stream_of(exec), &status));
    if (status != cudaStreamCaptureStatusNone)
        raise<cuda_error>("tessera: " + std::string{operation} + ": the workspace has " + std::to_string(w.capacity()) +
                          " bytes, expected " + std::to_string(bytes) +
                          " (it cannot grow while its stream is captured: call exec.reserve before)");
    w.reserve(bytes);
    return w;
}

} // namespace detail

template <int Sm>
device_workspace& cuda<Sm>::scratch() const {
    return workspace_ != nullptr ? *workspace_ : detail::default_device_workspace();
}
template <int Sm>
void cuda<Sm>::reserve(index_t bytes) const {
    scratch().reserve(bytes);
}

} // namespace tessera::inline TESSERA_ABI
