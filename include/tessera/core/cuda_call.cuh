// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Calls of the CUDA runtime, checked: an error becomes a `cuda_error` with the operation's name. Launches; what the device is;
/// where a pointer points.

#include "error.hpp"
#include "exec.hpp"
#include "overlap.hpp"

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace tessera::inline TESSERA_ABI::detail {

template <int Sm>
inline constexpr bool is_cuda_backend_included<cuda<Sm>> = true;
template <int Sm>
inline constexpr bool is_cuda_backend_included<cuda_reference<Sm>> = true;

[[noreturn]] TESSERA_COLD inline void raise_cuda(char const* operation, char const* call, cudaError_t code) {
    raise<cuda_error>("tessera: " + std::string{operation} + ": " + call + " failed: " + cudaGetErrorName(code) + " (" +
                      cudaGetErrorString(code) + ")");
}

/// Throws unless `code` is success; the runtime's sticky-free errors are taken off it.
inline void check_cuda(char const* operation, char const* call, cudaError_t code) {
    if (code == cudaSuccess) return;
    static_cast<void>(cudaGetLastError());
    raise_cuda(operation, call, code);
}

/// Of `cuda<Sm>`, and of `cuda_reference<Sm>`.
template <class Exec>
cudaStream_t stream_of(Exec const& exec) noexcept {
    return static_cast<cudaStream_t>(exec.stream());
}

/// What a launch needs besides its arguments.
struct launch_shape {
    dim3 grid{1};
    dim3 block{256};
    index_t shared_bytes = 0;
    bool overlaps = false; ///< begins before the kernel ahead of it ends, and waits for it by itself
    unsigned cluster = 0;  ///< blocks of a cluster, side by side in x; 0: there are none
};

/// Launches a kernel asynchronously.
template <class... Parameters, class... Arguments>
void launch(char const* operation, cudaStream_t stream, launch_shape const& shape, void (*kernel)(Parameters...),
            Arguments const&... arguments) {
    auto const bytes = static_cast<std::size_t>(shape.shared_bytes);
    if (bytes > 40 * 1024) // the kernel's static memory counts too
        check_cuda(operation, "cudaFuncSetAttribute",
                   cudaFuncSetAttribute(reinterpret_cast<void const*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        static_cast<int>(bytes)));
    cudaLaunchConfig_t config{};
    config.gridDim = shape.grid;
    config.blockDim = shape.block;
    config.dynamicSmemBytes = bytes;
    config.stream = stream;
    cudaLaunchAttribute attributes[2]{};
    config.attrs = attributes;
    if (shape.overlaps) {
        attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (shape.cluster > 0) {
        attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attributes[config.numAttrs].val.clusterDim.x = shape.cluster;
        attributes[config.numAttrs].val.clusterDim.y = 1;
        attributes[config.numAttrs++].val.clusterDim.z = 1;
    }
    check_cuda(operation, "cudaLaunchKernelEx", cudaLaunchKernelEx(&config, kernel, arguments...));
}

/// The current device can run code for `Sm`: any later one for 80, Hopper itself for 90 (sm_90a).
template <int Sm>
void check_device(char const* operation) {
    int device = 0;
    check_cuda(operation, "cudaGetDevice", cudaGetDevice(&device));
    thread_local int known_device = -1;
    thread_local int capability = 0;
    if (known_device != device) {
        int major = 0;
        int minor = 0;
        check_cuda(operation, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
        check_cuda(operation, "cudaDeviceGetAttribute", cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
        capability = 10 * major + minor;
        known_device = device;
    }
    if (Sm == 90 ? capability != 90 : capability < Sm)
        raise<unsupported_error>("tessera: " + std::string{operation} + ": device " + std::to_string(device) +
                                 " has compute capability " + std::to_string(capability) + ", expected " +
                                 std::to_string(Sm) + " (cuda<" + std::to_string(Sm) + ">)");
}

[[noreturn]] TESSERA_COLD inline void raise_other_device(char const* operation, char const* argument, int of_argument, int current) {
    raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " is memory of CUDA device " + std::to_string(of_argument) +
                       ", expected device " + std::to_string(current));
}

/// `pointer` is memory of the current device, with elements at multiples of their alignment, or there are no elements.
template <class T>
void check_device_pointer(char const* operation, char const* argument, T const* pointer, index_t elements) {
    if (elements == 0) return;
    check::not_null(operation, argument, pointer, elements);
    if constexpr (!std::is_void_v<T>)
        if (auto const beyond = reinterpret_cast<std::uintptr_t>(pointer) % alignof(T); beyond != 0)
            raise<shape_error>("tessera: " + std::string{operation} + ": " + argument + " begins " + std::to_string(beyond) +
                               " bytes beyond a multiple of " + std::to_string(alignof(T)) + ", expected elements at such multiples");
    int device = 0;
    check_cuda(operation, "cudaGetDevice", cudaGetDevice(&device));
    cudaPointerAttributes attributes{};
    cudaError_t const code = cudaPointerGetAttributes(&attributes, pointer);
    if (code != cudaSuccess) static_cast<void>(cudaGetLastError());
    bool const is_device = code == cudaSuccess &&
                           (attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged);
    if (!is_device)
        raise<shape_error>("tessera: " + std::string{operation} + ": " + argument +
                           " is memory of the host, expected memory of CUDA device " + std::to_string(device));
    if (attributes.type == cudaMemoryTypeDevice && attributes.device != device) raise_other_device(operation, argument, attributes.device, device);
}

/// Whether memory can be another device's.
inline bool has_several_devices() {
    static int const count = [] {
        int n = 0;
        if (cudaGetDeviceCount(&n) != cudaSuccess) static_cast<void>(cudaGetLastError());
        return n;
    }();
    return count > 1;
}

/// Memory that tessera allocated on a device (a placed operator, a cache, a plan) is the current one's; asked where there are several.
template <class T>
void check_owned_memory(char const* operation, char const* argument, T const* pointer, index_t elements) {
    if (has_several_devices()) check_device_pointer(operation, argument, pointer, elements);
}

} // namespace tessera::inline TESSERA_ABI::detail
