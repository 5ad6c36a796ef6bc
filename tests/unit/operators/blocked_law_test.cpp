// SPDX-License-Identifier: MIT
// The law of stored matrices for the block formats of GGUF files.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("q4_0") {
    report_law<blocked_storage<ts::q4_0>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q4_0>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}

TEST_CASE("q4_1") {
    report_law<blocked_storage<ts::q4_1>, ts::as_is>("as_is");
    report_law<blocked_storage<ts::q4_1>, ts::int8_per_token>("int8_per_token");
    report_law<blocked_storage<ts::q4_1>, ts::int8_per_group<32>>("int8_per_group<32>");
}

TEST_CASE("q8_0") {
    report_law<blocked_storage<ts::q8_0>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q8_0>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}

TEST_CASE("q5_0") {
    report_law<blocked_storage<ts::q5_0>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q5_0>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}

TEST_CASE("q5_1") {
    report_law<blocked_storage<ts::q5_1>, ts::as_is, best_arch>("as_is");
    report_law<blocked_storage<ts::q5_1>, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}
