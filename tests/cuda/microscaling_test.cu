// SPDX-License-Identifier: MIT
/// @file
/// Products with Microscaling's formats and NVFP4 on a device, and their transposes.

#include "cuda_support.hpp"

#include <tessera/numerics/fixed_point.hpp>
#include <tessera/numerics/fp6_fp4.hpp>
#include <tessera/numerics/fp8.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("Microscaling") {
    report_device_law<scheme_storage<ts::mx_e2m1>>("mx_e2m1");
    report_device_law<scheme_storage<ts::mx_e2m3>>("mx_e2m3");
    report_device_law<scheme_storage<ts::mx_e3m2>>("mx_e3m2");
    report_device_law<scheme_storage<ts::mx_e4m3>>("mx_e4m3");
    report_device_law<scheme_storage<ts::mx_e5m2>>("mx_e5m2");
    report_device_law<scheme_storage<ts::mx_int8>>("mx_int8");
}
TEST_CASE("NVFP4") { report_device_law<scheme_storage<ts::nv_e2m1>>("nv_e2m1"); }

} // namespace
