// SPDX-License-Identifier: MIT
/// @file
/// Products with GGUF's blocks of scales of two levels on a device, and their transposes.

#include "cuda_support.hpp"

#include <tessera/storage/k_formats.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("blocks of two levels") {
    report_device_law<blocked_storage<ts::q2_k>>("q2_k");
    report_device_law<blocked_storage<ts::q3_k>>("q3_k");
    report_device_law<blocked_storage<ts::q5_k>>("q5_k");
    report_device_law<blocked_storage<ts::q8_k>>("q8_k");
}

} // namespace
