// SPDX-License-Identifier: MIT
// A prepared x serves operators that want the same form.
// expect: tessera: x was not prepared in the form that this operator wants
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

#if defined(TESSERA_EXPECT_FAIL)
using preparation = ts::as_is;
#else
using preparation = ts::int8_per_token;
#endif

void multiply(ts::quantized<ts::int4_g32> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
    ts::cpu<ts::native_arch, ts::serial> const exec;
    ts::workspace_scope scope{exec.scratch()};
    ts::apply(exec, ts::linear{w, ts::int8_per_token{}}, ts::prepare(exec, scope, x, preparation{}), y);
}
