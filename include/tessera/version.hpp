// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The version of the library, as numbers.

#include "core/macros.hpp"

namespace tessera::inline TESSERA_ABI {

struct version_number {
    int major;
    int minor;
    int patch;
};

inline constexpr version_number version{TESSERA_VERSION_MAJOR, TESSERA_VERSION_MINOR, TESSERA_VERSION_PATCH};

} // namespace tessera::inline TESSERA_ABI
