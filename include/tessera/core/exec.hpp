// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Execution policies: the first argument of every operation, and the only thing that changes between machines.
///
/// | policy | runs |
/// |---|---|
/// | `reference` | the definition: scalar, double accumulation |
/// | `cpu<Arch, Parallel>` | SIMD code for one instruction set, chunks run by a parallel backend |
/// | `cuda<Sm>` | a CUDA device; declared here, usable with `tessera.cuh` in a .cu file |
/// | `cuda_reference<Sm>` | the definition again, by threads of a CUDA device |
///
/// A policy is a small value. Use one object per calling thread: it names the scratch memory of the calls.

#include "arch.hpp"
#include "parallel.hpp"
#include "workspace.hpp"

#include <concepts>
#include <type_traits>

namespace tessera::inline TESSERA_ABI {

namespace detail {

/// What every host policy has: a workspace, its own or the calling thread's default one.
class with_workspace {
public:
    constexpr with_workspace() noexcept = default;
    constexpr explicit with_workspace(workspace& w) noexcept : workspace_{&w} {}

    /// The scratch memory of calls with this policy.
    workspace& scratch() const noexcept { return workspace_ != nullptr ? *workspace_ : default_workspace(); }

    /// Makes calls that need at most `bytes` (see `workspace_bytes`) free of allocation.
    void reserve(index_t bytes) const { scratch().reserve(bytes); }

private:
    workspace* workspace_ = nullptr;
};

} // namespace detail

/// The definition of every operation.
class reference : public detail::with_workspace {
public:
    constexpr reference() noexcept = default;
    constexpr explicit reference(workspace& w) noexcept : with_workspace{w} {}

    static constexpr serial parallel() noexcept { return {}; }
};

/// SIMD code for `Arch`; `Parallel` runs its chunks.
template <class Arch = native_arch, parallel_backend Parallel = default_parallel>
class cpu : public detail::with_workspace {
public:
    using arch_type = Arch;
    using parallel_type = Parallel;

    constexpr cpu() noexcept
        requires std::default_initializable<Parallel>
    = default;
    constexpr explicit cpu(Parallel p) noexcept : parallel_{p} {}
    constexpr explicit cpu(workspace& w) noexcept
        requires std::default_initializable<Parallel>
        : with_workspace{w} {}
    constexpr cpu(Parallel p, workspace& w) noexcept : with_workspace{w}, parallel_{p} {}

    constexpr Parallel const& parallel() const noexcept { return parallel_; }
    constexpr Arch arch() const noexcept { return {}; }

private:
    TESSERA_NO_UNIQUE_ADDRESS Parallel parallel_{};
};

cpu() -> cpu<>;
template <parallel_backend Parallel>
explicit cpu(Parallel) -> cpu<native_arch, Parallel>;
template <parallel_backend Parallel>
cpu(Parallel, workspace&) -> cpu<native_arch, Parallel>;

class device_workspace;

/// A CUDA device of compute capability `Sm` (80: Ampere and later; 90: Hopper, its sm_90a instructions). The stream is a
/// cudaStream_t, null the default one. Calls are asynchronous; their scratch memory is that of the workspace, which belongs to
/// one stream at a time, or of the calling thread's default one. The member functions are those of `tessera.cuh`.
template <int Sm = 90>
class cuda {
public:
    static constexpr int sm = Sm;

    constexpr cuda() noexcept = default;
    constexpr explicit cuda(void* stream) noexcept : stream_{stream} {}
    constexpr explicit cuda(device_workspace& w, void* stream = nullptr) noexcept : workspace_{&w}, stream_{stream} {}

    constexpr void* stream() const noexcept { return stream_; }
    /// The scratch memory of calls with this policy.
    device_workspace& scratch() const;
    /// Makes calls that need at most `bytes` (see `workspace_bytes`) free of allocation: what is captured in a graph must be.
    void reserve(index_t bytes) const;

private:
    device_workspace* workspace_ = nullptr;
    void* stream_ = nullptr;
};

/// The definitions of `reference` for memory of a CUDA device, which its threads run: scalar, in double, slow; what `cuda<Sm>`
/// is judged by where arrays are too large to bring back. Streams and scratch memory are those of `cuda<Sm>`.
template <int Sm = 90>
class cuda_reference {
public:
    static constexpr int sm = Sm;

    constexpr cuda_reference() noexcept = default;
    constexpr explicit cuda_reference(cuda<Sm> const& device) noexcept : device_{device} {}

    /// The policy of the kernels on the same stream, with the same scratch memory.
    constexpr cuda<Sm> const& device() const noexcept { return device_; }
    constexpr void* stream() const noexcept { return device_.stream(); }
    device_workspace& scratch() const { return device_.scratch(); }
    void reserve(index_t bytes) const { device_.reserve(bytes); }

private:
    cuda<Sm> device_{};
};

namespace detail {

template <class T>
inline constexpr bool is_cpu = false;
template <class A, class P>
inline constexpr bool is_cpu<cpu<A, P>> = true;
template <class T>
inline constexpr bool is_cuda = false;
template <int Sm>
inline constexpr bool is_cuda<cuda<Sm>> = true;
template <int Sm>
inline constexpr bool is_cuda<cuda_reference<Sm>> = true;

/// tessera.cuh specialises this to true.
template <class Exec>
inline constexpr bool is_cuda_backend_included = false;

/// First line of every public operation.
template <class Exec>
constexpr void require_backend() noexcept {
    static_assert(!is_cuda<Exec> || is_cuda_backend_included<Exec>,
                  "tessera: cuda<Sm> needs #include <tessera/tessera.cuh> in a file compiled by nvcc");
}

} // namespace detail

/// One of the policies above.
template <class T>
concept execution_policy =
    std::same_as<T, reference> || detail::is_cpu<std::remove_cvref_t<T>> || detail::is_cuda<std::remove_cvref_t<T>>;

} // namespace tessera::inline TESSERA_ABI
