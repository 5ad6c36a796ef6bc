// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The cases of attention, on every instruction set.

#include "cases/attention_case.hpp"
#include "support/instruction_sets.hpp"

#include <tessera/attention/attention.hpp>

namespace attention_tests {

template <class Arch>
using serial_cpu = ts::cpu<Arch, ts::serial>;

/// f(policy) for the instruction sets of `Archs`.
template <class Archs = tessera_test::archs_by_width, class F>
void for_each_arch(F const& f) {
    Archs::visit([&]<class Arch>(Arch) { f(serial_cpu<Arch>{}); });
}

} // namespace attention_tests
