// SPDX-License-Identifier: MIT
// The transpose of an operator whose type is not known: it is erased before.
// expect: tessera: transposed: the type of an erased operator is not known; erase transposed(w) beside w
#include <tessera/dispatch/any_operator.hpp>

namespace ts = tessera;

void gradient(ts::linear<ts::matrix_view<float const>> const& w, ts::matrix<float> const& dy, ts::matrix<float>& dx) {
    ts::cpu<> const exec;
#if defined(TESSERA_EXPECT_FAIL)
    auto const erased = ts::erase(exec, w);
    ts::apply(exec, ts::transposed(erased.view()), dy, dx);
#else
    ts::apply(exec, ts::erase(exec, ts::transposed(w)), dy, dx);
#endif
}
