// SPDX-License-Identifier: MIT
// A preparation's group is whole registers.
// expect: tessera: int8_per_group<N> needs a positive multiple of 32
#include <tessera/storage/scheme.hpp>

#if defined(TESSERA_EXPECT_FAIL)
constexpr tessera::int8_per_group<24> preparation;
#else
constexpr tessera::int8_per_group<96> preparation;
#endif
static_assert(sizeof preparation > 0);
