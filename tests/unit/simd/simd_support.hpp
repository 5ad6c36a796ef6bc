// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The architectures that this build's flags allow.

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
    f(ts::native_arch{});
#if defined(__SSE2__)
    f(ts::sse2{});
#endif
#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    f(ts::avx2{});
#endif
}

} // namespace simd_test
