// SPDX-License-Identifier: MIT
// Score functors run inside noexcept kernels: they must not throw.
// expect: tessera: a score functor must be noexcept: V operator()(V s, coord<V> at) const noexcept
#include <tessera/attention/attention.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
constexpr auto ramp = [](auto s, auto at) { return s + at.distance(); };
#else
constexpr auto ramp = [](auto s, auto at) noexcept { return s + at.distance(); };
#endif

void attend(ts::tensor_view<float const, 3> q, ts::tensor_view<float const, 3> k, ts::tensor_view<float, 3> out) {
    ts::attention(ts::cpu<ts::native_arch, ts::serial>{}, q, k, k, out, ts::scaled{0.5f} | ramp | ts::causal);
}
