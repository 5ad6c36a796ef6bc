// SPDX-License-Identifier: MIT
// Codes whose decoders are of another architecture than the policy that multiplies by them.
// expect: tessera: any_coded<Arch>: its decoders are another architecture's than the policy's
#include <tessera/dispatch/any_coded.hpp>

namespace ts = tessera;

void product(ts::quantized<ts::int4_g32> const& q, ts::matrix<float> const& x, ts::matrix<float>& y) {
#if defined(TESSERA_EXPECT_FAIL)
    struct another : ts::native_arch {};
    using arch = another;
#else
    using arch = ts::native_arch;
#endif
    ts::cpu<arch, ts::serial> const exec;
    ts::apply(exec, ts::linear{ts::any_coded<>{q}}, x, y);
}
