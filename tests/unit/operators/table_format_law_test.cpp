// SPDX-License-Identifier: MIT
// The law of stored matrices for blocks with tables of values (one level of scales, two, of e8m0) and for ternary ones.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("iq4_nl") { report_law<blocked_storage<ts::iq4_nl>, ts::as_is, best_arch>("as_is"); }

TEST_CASE("iq4_xs") { report_law<blocked_storage<ts::iq4_xs>, ts::as_is, best_arch>("as_is"); }

TEST_CASE("tq1_0") { report_law<blocked_storage<ts::tq1_0>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>"); }

TEST_CASE("the others" * doctest::skip()) {
    report_law<blocked_storage<ts::q1_0>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::gguf_mxfp4>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::gguf_nvfp4>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q2_0>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
    report_law<blocked_storage<ts::tq2_0>, ts::int8_per_token, best_arch>("int8_per_token");
}
