// SPDX-License-Identifier: MIT
// An operator of your own needs its kernel.
// expect: tessera: there is no kernel for this operation, execution policy and operand
#include <tessera/operators/apply.hpp>

namespace ts = tessera;

struct twice {
    using is_linear_operator = void;
    ts::index_t rows() const { return 2; }
    ts::index_t cols() const { return 2; }
};

void multiply(ts::matrix_view<float const> w, ts::matrix_view<float const> x, ts::matrix_view<float> y) {
#if defined(TESSERA_EXPECT_FAIL)
    static_cast<void>(w);
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, twice{}, x, y);
#else
    ts::apply(ts::cpu<ts::native_arch, ts::serial>{}, ts::linear{w}, x, y);
#endif
}
