// SPDX-License-Identifier: MIT
// Placed weights have the layout of one architecture.
// expect: tessera: this operand was placed for another architecture; place it with the policy that applies it
#include <tessera/operators/apply.hpp>
#include <tessera/operators/place.hpp>

namespace ts = tessera;

constexpr ts::index_t lanes = ts::simd::lanes<ts::native_arch>;
#if defined(TESSERA_EXPECT_FAIL)
using layout = ts::panel<2 * lanes, 4>;
#else
using layout = ts::panel<lanes, 4>;
#endif

void multiply(ts::prepacked<layout, ts::quantized<ts::int4_g32>> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w}, x, y);
}
