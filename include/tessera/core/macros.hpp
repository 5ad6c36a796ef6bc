// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Every macro of the library; no other header defines one (a test checks it).

/// Version of the library; `cmake/` reads it from here.
#define TESSERA_VERSION_MAJOR 0
#define TESSERA_VERSION_MINOR 1
#define TESSERA_VERSION_PATCH 0

/// 1 when exceptions are available; otherwise errors go to `tessera::set_error_handler`.
#if defined(__cpp_exceptions) || defined(__EXCEPTIONS) || defined(_CPPUNWIND)
#define TESSERA_EXCEPTIONS 1
/// Inline namespace of every entity: a mix of translation units with and without exceptions does not link by accident.
#define TESSERA_ABI v0
#else
#define TESSERA_EXCEPTIONS 0
#define TESSERA_ABI v0_noexcept
#endif

/// Functions that also run on a CUDA device.
#if defined(__CUDACC__)
#define TESSERA_HOST_DEVICE __host__ __device__
#else
#define TESSERA_HOST_DEVICE
#endif
/// Before such a template that may call what only hosts have, for template arguments with which no device calls it: nvcc does not warn.
#if defined(__NVCC__) && defined(__CUDACC__)
#define TESSERA_MAY_CALL_HOST _Pragma("nv_exec_check_disable")
#else
#define TESSERA_MAY_CALL_HOST
#endif

/// Forces inlining of the small functions a kernel is made of: their bodies must see the kernel's registers.
#if defined(_MSC_VER) && !defined(__clang__)
#define TESSERA_FORCE_INLINE __forceinline
#define TESSERA_RESTRICT __restrict
#define TESSERA_NO_UNIQUE_ADDRESS [[msvc::no_unique_address]]
#else
#define TESSERA_FORCE_INLINE inline __attribute__((always_inline))
#define TESSERA_RESTRICT __restrict__
#define TESSERA_NO_UNIQUE_ADDRESS [[no_unique_address]]
#endif

/// Marks a cold, never inlined function (the construction of an error message).
#if defined(__GNUC__)
#define TESSERA_COLD __attribute__((cold, noinline))
#else
#define TESSERA_COLD
#endif
