// SPDX-License-Identifier: MIT
// A kept weight is a float, fp16, bf16 or int8.
// expect: tessera: sparse storage holds float, fp16, bf16 or int8 weights
#include <tessera/storage/csr.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using value = ts::int4;
#else
using value = ts::int8;
#endif

ts::index_t count(ts::csr<value> w) { return w.nonzeros(); }
