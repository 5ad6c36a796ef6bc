// SPDX-License-Identifier: MIT
// The law of stored matrices for ternary weights, as 2-bit codes and five to a byte.

#include "cases/ternary_operands.hpp"
#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("ternary weights, one scale") {
    using scheme = ts::scheme<ts::ternary, ts::per_tensor>;
    report_law<scheme_storage<scheme>, ts::int8_per_token, best_arch>("2 bits");
    report_law<base3_storage<scheme>, ts::int8_per_token, best_arch>("five to a byte");
}
