// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The number of allocations that this program has made: allocation_count.cpp replaces operator new, and malloc where that
/// can be done.

namespace tessera_test {

long allocation_count() noexcept;

} // namespace tessera_test
