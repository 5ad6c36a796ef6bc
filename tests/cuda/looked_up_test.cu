// SPDX-License-Identifier: MIT
/// @file
/// Products with codes that are looked up, blocks of GGUF files and dense matrices on a device.

#include "cuda_support.hpp"

#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("minifloats and codebooks") {
    report_device_law<scheme_storage<ts::nf4_g64>>("nf4_g64");
    report_device_law<scheme_storage<ts::nf4_g64>, ts::as_bf16>("nf4_g64, as_bf16");
    report_device_law<scheme_storage<ts::scheme<ts::e2m1, ts::group<16>, ts::e4m3>>>("e2m1, e4m3 scales for 16");
    report_device_law<scheme_storage<ts::scheme<ts::e4m3, ts::group<32>>>>("e4m3 group 32");
    report_device_law<scheme_storage<ts::scheme<ts::e5m2, ts::per_channel>>>("e5m2 per channel");
}
TEST_CASE("blocks of GGUF files") {
    report_device_law<blocked_storage<ts::q4_0>>("q4_0");
    report_device_law<blocked_storage<ts::q8_0>>("q8_0");
    report_device_law<blocked_storage<ts::q4_k>>("q4_k");
    report_device_law<blocked_storage<ts::q6_k>>("q6_k");
}
TEST_CASE("dense") {
    report_device_law<dense_storage_of<ts::bf16>>("bf16");
    report_device_law<dense_storage_of<ts::fp16>>("fp16");
    report_device_law<dense_storage_of<float>>("float");
}

} // namespace
