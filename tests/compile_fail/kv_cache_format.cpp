// SPDX-License-Identifier: MIT
// A cache stores what `append` can write and `attention` can read.
// expect: tessera: kv_cache stores float, fp16, bf16, int8_per_token or scheme<...> keys and values
#include <tessera/attention/attention.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using value_format = double;
#else
using value_format = ts::bf16;
#endif

ts::index_t bytes() { return ts::kv_cache<ts::key<ts::fp16>, ts::value<value_format>>{8, 1, 4}.bytes(); }
