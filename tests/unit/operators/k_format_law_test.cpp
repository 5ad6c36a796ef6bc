// SPDX-License-Identifier: MIT
// The law of stored matrices for the block formats with scales of two levels: groups of 32 and of 16, with and without
// minima; in as_bf16 too.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("q2_k") { report_law<blocked_storage<ts::q2_k>, ts::int8_per_group<32>>("int8_per_group<32>"); }

TEST_CASE("q3_k") { report_law<blocked_storage<ts::q3_k>, ts::int8_per_token>("int8_per_token"); }

TEST_CASE("q4_k") {
    report_law<blocked_storage<ts::q4_k>, ts::as_is>("as_is");
    report_law<blocked_storage<ts::q4_k>, ts::int8_per_token>("int8_per_token");
    report_law<blocked_storage<ts::q4_k>, ts::int8_per_group<32>>("int8_per_group<32>");
    report_law<blocked_storage<ts::q4_k>, ts::as_bf16>("as_bf16");
}

TEST_CASE("q5_k") { report_law<blocked_storage<ts::q5_k>, ts::int8_per_group<32>>("int8_per_group<32>"); }

TEST_CASE("q6_k") {
    report_law<blocked_storage<ts::q6_k>, ts::as_is>("as_is");
    report_law<blocked_storage<ts::q6_k>, ts::int8_per_token>("int8_per_token");
    report_law<blocked_storage<ts::q6_k>, ts::int8_per_group<32>>("int8_per_group<32>");
    report_law<blocked_storage<ts::q6_k>, ts::as_bf16>("as_bf16");
}

TEST_CASE("q8_k") { report_law<blocked_storage<ts::q8_k>, ts::int8_per_group<32>>("int8_per_group<32>"); }
