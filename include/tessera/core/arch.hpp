// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Instruction sets as an inheritance chain of empty tags. A kernel for `avx2` is an overload on `avx2`; a more
/// capable architecture finds it through its base class when it has nothing better. `simd/arch_map.hpp` maps a tag to
/// the SIMD library's; nothing else in the code base knows that library.

#include "macros.hpp"

namespace tessera::inline TESSERA_ABI {

/// Any C++ compiler: plain loops, no intrinsics.
struct generic_arch {
    static constexpr char const* name = "generic";
    static constexpr int lanes = 1; ///< float32 lanes of a register
};

/// x86-64 baseline.
struct sse2 : generic_arch {
    static constexpr char const* name = "sse2";
    static constexpr int lanes = 4; ///< float32 lanes of a register
};
/// AVX2 with FMA and F16C (x86-64-v3).
struct avx2 : sse2 {
    static constexpr char const* name = "avx2";
    static constexpr int lanes = 8; ///< float32 lanes of a register
};
/// AVX2 with the VEX-encoded 8-bit dot product.
struct avx2_vnni : avx2 {
    static constexpr char const* name = "avx2_vnni";
};
/// AVX-512 F, BW, DQ, VL (x86-64-v4).
struct avx512 : avx2 {
    static constexpr char const* name = "avx512";
    static constexpr int lanes = 16; ///< float32 lanes of a register
};
/// AVX-512 with the 8-bit dot product.
struct avx512_vnni : avx512 {
    static constexpr char const* name = "avx512_vnni";
};
/// AVX-512 with the 8-bit dot product and 8-bit matrix tiles.
struct avx512_amx : avx512_vnni {
    static constexpr char const* name = "avx512_amx";
};

/// AArch64 baseline.
struct neon64 : generic_arch {
    static constexpr char const* name = "neon64";
    static constexpr int lanes = 4; ///< float32 lanes of a register
};
/// AArch64 with the dot product of signed bytes (Armv8.2-A's option, Armv8.4-A).
struct neon64_dotprod : neon64 {
    static constexpr char const* name = "neon64_dotprod";
};
/// AArch64 with the dot product of unsigned by signed bytes too (Armv8.2-A's option, Armv8.6-A).
struct neon64_i8mm : neon64_dotprod {
    static constexpr char const* name = "neon64_i8mm";
};

/// Chosen when the program runs: `cpu<dispatched>` multiplies operators that dispatch/ erased. No kernel is compiled for it.
struct dispatched {
    static constexpr char const* name = "dispatched";
};

/// The best tag that this translation unit's flags allow.
#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#if defined(__AMX_INT8__) && defined(__linux__)
using native_arch = avx512_amx;
#else
using native_arch = avx512_vnni;
#endif
#elif defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
using native_arch = avx512;
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#if defined(__AVXVNNI__)
using native_arch = avx2_vnni;
#else
using native_arch = avx2;
#endif
#elif defined(__SSE2__) || defined(_M_X64)
using native_arch = sse2;
#elif defined(__aarch64__) && defined(__ARM_NEON)
#if defined(__ARM_FEATURE_DOTPROD) && defined(__ARM_FEATURE_MATMUL_INT8)
using native_arch = neon64_i8mm;
#elif defined(__ARM_FEATURE_DOTPROD)
using native_arch = neon64_dotprod;
#else
using native_arch = neon64;
#endif
#else
using native_arch = generic_arch;
#endif

} // namespace tessera::inline TESSERA_ABI
