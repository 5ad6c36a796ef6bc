// SPDX-License-Identifier: MIT
// Sparse storage has no codes for integer dot products.
// expect: tessera: sparse storage multiplies x as it is; int8 preparations are for codes with scales
#include <tessera/sparse/place.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using preparation = ts::int8_per_token;
#else
using preparation = ts::as_is;
#endif

void multiply(ts::csr<ts::fp16> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w, preparation{}}, x, y);
}
