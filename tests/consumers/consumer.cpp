// SPDX-License-Identifier: MIT
#include <tessera/tessera.hpp>

/// What a user's first program does: a view, a policy, a number that comes out.
int main() {
    namespace ts = tessera;
    float const values[6] = {1, 2, 3, 4, 5, 6};
    ts::matrix_view<float const> const x{values, 2, 3};
    return x(1, 2) == 6.f ? 0 : 1;
}
