// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The version of the library, as numbers.

#include "core/macros.hpp"

namespace tessera::inline TESSERA_ABI {

/// Semantic versioning; before 1.0 a new minor version may change anything.
struct version_number {
    int major;
    int minor;
    int patch;
};

/// The version of these headers.
inline constexpr version_number version{TESSERA_VERSION_MAJOR, TESSERA_VERSION_MINOR, TESSERA_VERSION_PATCH};

} // namespace tessera::inline TESSERA_ABI
