// SPDX-License-Identifier: MIT
// The dispatching policy has no kernels of its own: it multiplies what was erased.
// expect: tessera: cpu<dispatched> multiplies erased operators: erase or place this one in a unit of tessera_add_dispatch
#include <tessera/dispatch/any_operator.hpp>

namespace ts = tessera;

void multiply(ts::matrix_view<float const> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::cpu<ts::dispatched, ts::serial> const exec;
#if defined(TESSERA_EXPECT_FAIL)
    ts::apply(exec, ts::linear{w}, x, y);
#else
    ts::apply(exec, ts::place(exec, ts::linear{w}), x, y);
#endif
}
