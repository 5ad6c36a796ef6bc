// SPDX-License-Identifier: MIT
// Panels exist for coded and for dense storage, each in one depth.
// expect: tessera: prepacked<Layout, Storage> needs panel<R, 4> with coded or panel<R, 1> with dense storage
#include <tessera/storage/prepacked.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
constexpr ts::prepacked<ts::panel<16, 2>, ts::quantized<ts::int4_g32>> w;
#else
constexpr ts::prepacked<ts::panel<16, 4>, ts::quantized<ts::int4_g32>> w;
#endif
static_assert(sizeof w > 0);
