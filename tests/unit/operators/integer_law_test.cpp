// SPDX-License-Identifier: MIT
// The law of stored matrices for integers of other widths and granularities: 8 bits per channel, 5 bits with one scale, and
// groups that are no multiple of a register, shorter and longer than the sums that integer products keep.

#include "operator_laws.hpp"

using namespace tessera_test;

TEST_CASE("int8 per channel") {
    using storage = scheme_storage<ts::int8_per_channel>;
    report_law<storage, ts::as_is>("as_is");
    report_law<storage, ts::int8_per_token>("int8_per_token");
    report_law<storage, ts::int8_per_group<32>, best_arch>("int8_per_group<32>");
}

TEST_CASE("int5 with one scale") {
    using storage = scheme_storage<ts::scheme<ts::int5, ts::per_tensor>>;
    report_law<storage, ts::as_is, best_arch>("as_is");
    report_law<storage, ts::int8_per_token, best_arch>("int8_per_token");
}

TEST_CASE("int3 in groups of 24 with bf16 scales") {
    using storage = scheme_storage<ts::scheme<ts::int3, ts::group<24>, ts::bf16>>;
    report_law<storage, ts::as_is, best_arch>("as_is");
    report_law<storage, ts::int8_per_token>("int8_per_token");
}

TEST_CASE("int4 in groups of 200") {
    report_law<scheme_storage<ts::scheme<ts::int4, ts::group<200>>>, ts::int8_per_token, best_arch>("int8_per_token");
}
