// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// What the translation unit was compiled for, as constants: no other header looks at compiler-defined macros for this.

#include "macros.hpp"

namespace tessera::inline TESSERA_ABI::config {

/// True where the file is compiled with OpenMP.
#if defined(_OPENMP)
inline constexpr bool has_openmp = true;
#else
inline constexpr bool has_openmp = false;
#endif

/// True where the file is compiled by nvcc.
#if defined(__CUDACC__)
inline constexpr bool is_cuda_translation_unit = true;
#else
inline constexpr bool is_cuda_translation_unit = false;
#endif

/// Bytes of a cache line: buffers are aligned to it and padded to whole lines.
inline constexpr int cache_line = 64;

/// Bytes per core assumed by automatic tiles. Constants, not probed: tiles must not change results between machines.
inline constexpr int level_1_bytes = 32 * 1024;
inline constexpr int level_2_bytes = 1024 * 1024;

} // namespace tessera::inline TESSERA_ABI::config
