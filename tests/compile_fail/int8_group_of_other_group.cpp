// SPDX-License-Identifier: MIT
// Scales of x and of weights must change at common columns.
// expect: tessera: int8_per_group<N> needs weights whose group is 16 or a multiple of 32; use int8_per_token
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using preparation = ts::int8_per_group<32>;
#else
using preparation = ts::int8_per_token;
#endif

void multiply(ts::quantized<ts::scheme<ts::int4, ts::group<24>>> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w, preparation{}}, x, y);
}
