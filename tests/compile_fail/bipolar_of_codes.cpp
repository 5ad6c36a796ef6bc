// SPDX-License-Identifier: MIT
// x in bit planes multiplies bit planes, not packed codes.
// expect: tessera: bipolar_per_token needs weights in bit planes: see pack_bit_planes
#include <tessera/quant/bit_planes.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using storage = ts::quantized<ts::int8_per_channel>;
#else
using storage = ts::bit_planes<8>;
#endif

void multiply(storage w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w, ts::bipolar_per_token<4>{}}, x, y);
}
