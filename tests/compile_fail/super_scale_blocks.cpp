// SPDX-License-Identifier: MIT
// Super scales are for whole groups.
// expect: tessera: blocks that share a super scale must be made of whole blocks that share a scale
#include <tessera/storage/quantized.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using upper = ts::group<100>;
#else
using upper = ts::group<96>;
#endif
constexpr ts::quantized<ts::scheme<ts::int4, ts::group<32>, ts::two_level<ts::uint8, upper, ts::fp16>>> w;
static_assert(sizeof w > 0);
