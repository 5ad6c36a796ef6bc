// SPDX-License-Identifier: MIT
// The law of stored matrices for codes that are no integers: a codebook, fp8 in blocks of rows and columns, and 4-bit floats
// with 8-bit scales, as floats and as integers.

#include "operator_laws.hpp"

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

using namespace tessera_test;

TEST_CASE("nf4 in groups of 64") { report_law<scheme_storage<ts::nf4_g64>, ts::as_is>("as_is"); }

TEST_CASE("e4m3fn in blocks of 2 by 40") {
    report_law<scheme_storage<ts::scheme<ts::e4m3fn, ts::block<2, 40>>>, ts::as_is>("as_is");
}

TEST_CASE("e2m1 in groups of 16 with e4m3fn scales under one of the matrix") {
    report_law<scheme_storage<ts::nv_e2m1>, ts::as_is>("as_is");
    report_law<scheme_storage<ts::nv_e2m1>, ts::int8_per_token, best_arch>("int8_per_token");
}

TEST_CASE("values that are integers times a unit enter integer products") {
    report_law<scheme_storage<ts::mx_e2m1>, ts::int8_per_group<32>>("e2m1");
    report_law<scheme_storage<ts::mx_e2m3>, ts::int8_per_token>("e2m3");
    report_law<scheme_storage<ts::nf4_g64>, ts::int8_per_token, best_arch>("nf4");
    report_law<scheme_storage<ts::mx_e3m2>, ts::int8_per_token, best_arch>("e3m2");
    report_law<scheme_storage<ts::mx_int8>, ts::int8_per_group<32>, best_arch>("MXINT8");
    report_law<blocked_storage<ts::iq4_nl>, ts::int8_per_group<32>, best_arch>("iq4_nl");
}
