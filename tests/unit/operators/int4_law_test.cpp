// SPDX-License-Identifier: MIT
// The law of stored matrices for 4-bit integers in groups, symmetric and affine.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("int4 in groups of 32") {
    using storage = scheme_storage<ts::int4_g32>;
    report_law<storage, ts::as_is>("as_is");
    report_law<storage, ts::int8_per_token>("int8_per_token");
    report_law<storage, ts::int8_per_group<32>>("int8_per_group<32>");
    report_law<storage, ts::int8_per_group<64>, best_arch>("int8_per_group<64>");
}

TEST_CASE("uint4 in groups of 128, affine") {
    using storage = scheme_storage<ts::uint4_g128>;
    report_law<storage, ts::as_is>("as_is");
    report_law<storage, ts::int8_per_token>("int8_per_token");
    report_law<storage, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}
