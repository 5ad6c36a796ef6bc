// SPDX-License-Identifier: MIT
/// @file
/// Products with integer codes on a device: the cases of tests/unit/operators.

#include "cuda_support.hpp"

namespace {

using namespace tessera_test;

TEST_CASE("int4, a scale for 128, 32, a padded group, a row") {
    report_device_law<scheme_storage<ts::int4_g128>>("int4_g128");
    report_device_law<scheme_storage<ts::int4_g32>>("int4_g32");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::group<24>, ts::fp16>>>("int4 group 24");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::group<96>, ts::fp32>>>("int4 group 96");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::per_tensor>>>("int4 per tensor");
}
TEST_CASE("affine, bytes, few bits") {
    report_device_law<scheme_storage<ts::uint4_g32>>("uint4_g32");
    report_device_law<scheme_storage<ts::int8_per_channel>>("int8_per_channel");
    report_device_law<scheme_storage<ts::scheme<ts::uint8, ts::per_channel, ts::fp32, ts::affine>>>("uint8 affine per channel");
    report_device_law<scheme_storage<ts::scheme<ts::int2, ts::group<16>, ts::bf16>>>("int2 group 16");
    report_device_law<scheme_storage<ts::scheme<ts::uint1, ts::group<64>, ts::fp16, ts::affine>>>("uint1 affine group 64");
    report_device_law<scheme_storage<ts::scheme<ts::int4, ts::block<32, 64>>>>("int4 blocks of 32 x 64");
}
TEST_CASE("preparations of x") {
    report_device_law<scheme_storage<ts::int4_g32>, ts::as_bf16>("int4_g32, as_bf16");
    report_device_law<scheme_storage<ts::int4_g32>, ts::int8_per_token>("int4_g32, int8_per_token");
    report_device_law<scheme_storage<ts::uint4_g32>, ts::int8_per_group<32>>("uint4_g32, int8_per_group<32>");
}

} // namespace
