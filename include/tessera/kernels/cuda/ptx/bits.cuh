// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Logic of three operands.

#include "../../../core/types.hpp"

#include <cstdint>

namespace tessera::inline TESSERA_ABI::ptx {

/// lop3: (value & mask) | bits, which the compiler makes two instructions of where mask and bits are constants.
__device__ __forceinline__ std::uint32_t and_or(std::uint32_t value, std::uint32_t mask, std::uint32_t bits) {
    std::uint32_t result;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(result) : "r"(value), "r"(mask), "r"(bits));
    return result;
}

} // namespace tessera::inline TESSERA_ABI::ptx
