// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Launches that overlap (sm_90 and later): a kernel that is launched to follow another begins when all of that one's blocks have
/// said so or ended, and waits itself before it reads what that one writes.

#include "../../../core/types.hpp"

namespace tessera::inline TESSERA_ABI::ptx {

/// griddepcontrol.launch_dependents.
__device__ __forceinline__ void launch_dependents() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

/// griddepcontrol.wait: until the kernels before this one are complete and their writes are seen.
__device__ __forceinline__ void wait_for_prerequisites() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

} // namespace tessera::inline TESSERA_ABI::ptx
