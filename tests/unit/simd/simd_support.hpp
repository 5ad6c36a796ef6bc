// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The architectures that this build's flags allow.

#include "support/instruction_sets.hpp"

#include <doctest/doctest.h>

#include <tessera/core/arch.hpp>
#include <tessera/core/philox.hpp>
#include <tessera/simd/arch_map.hpp>

namespace simd_test {

namespace ts = tessera;
using ts::index_t;

/// Calls f(arch tag).
template <class F>
void for_each_arch(F const& f) {
    tessera_test::archs_by_width::visit(f);
}

} // namespace simd_test
