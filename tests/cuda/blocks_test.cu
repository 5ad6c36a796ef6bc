// SPDX-License-Identifier: MIT
/// @file
/// Products with GGUF's blocks of one scale on a device, and their transposes.

#include "cuda_support.hpp"

#include <tessera/storage/ternary_formats.hpp>
#include <tessera/storage/table_formats.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("blocks of one scale") {
    report_device_law<blocked_storage<ts::q4_1>>("q4_1");
    report_device_law<blocked_storage<ts::q5_0>>("q5_0");
    report_device_law<blocked_storage<ts::q5_1>>("q5_1");
}
TEST_CASE("blocks of few bits") {
    report_device_law<blocked_storage<ts::q1_0>>("q1_0");
    report_device_law<blocked_storage<ts::q2_0>>("q2_0");
    report_device_law<blocked_storage<ts::tq1_0>>("tq1_0");
    report_device_law<blocked_storage<ts::tq2_0>>("tq2_0");
}

} // namespace
