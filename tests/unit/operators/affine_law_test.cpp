// SPDX-License-Identifier: MIT
// The law of stored matrices for affine integers of 1, 5 and 8 bits, and for int8 preparations whose groups do not divide
// the weights' groups, nor these those.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("uint8 affine, one scale a row") {
    using storage = scheme_storage<ts::scheme<ts::uint8, ts::per_channel, ts::fp32, ts::affine>>;
    report_law<storage, ts::as_is, best_arch>("as_is");
    report_law<storage, ts::int8_per_token, best_arch>("int8_per_token");
}

TEST_CASE("uint1 affine in groups of 5") {
    using storage = scheme_storage<ts::scheme<ts::uint1, ts::group<5>, ts::fp16, ts::affine>>;
    report_law<storage, ts::as_is, best_arch>("as_is");
    report_law<storage, ts::int8_per_token>("int8_per_token");
}

TEST_CASE("groups of weights and of x that overlap") {
    report_law<scheme_storage<ts::scheme<ts::uint5, ts::group<96>, ts::fp16, ts::affine>>, ts::int8_per_group<64>>("64 on 96");
    report_law<scheme_storage<ts::scheme<ts::int4, ts::group<64>>>, ts::int8_per_group<96>, best_arch>("96 on 64");
    report_law<scheme_storage<ts::int8_per_channel>, ts::int8_per_group<160>, best_arch>("160 on a row");
}
