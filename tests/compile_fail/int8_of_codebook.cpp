// SPDX-License-Identifier: MIT
// Codes of more than 6 bits that stand for a table's values do not go into integer dot products.
// expect: tessera: an int8 preparation needs integers, or a format of at most 6 bits without NaN and infinity
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using preparation = ts::int8_per_token;
#else
using preparation = ts::as_is;
#endif

void multiply(ts::quantized<ts::scheme<ts::e4m3fn, ts::group<64>>> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w, preparation{}}, x, y);
}
