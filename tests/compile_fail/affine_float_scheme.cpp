// SPDX-License-Identifier: MIT
// Zero points belong to unsigned integers.
// expect: tessera: affine schemes store unsigned integers (uint1 to uint8)
#include <tessera/storage/quantized.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using format = ts::nf4;
#else
using format = ts::uint4;
#endif
constexpr ts::quantized<ts::scheme<format, ts::group<32>, ts::fp16, ts::affine>> w;
static_assert(sizeof w > 0);
