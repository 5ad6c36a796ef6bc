// SPDX-License-Identifier: MIT
/// @file
/// Products with GGUF's blocks whose codes stand for points of grids on a device, and their transposes.

#include "cuda_support.hpp"

#include <tessera/storage/grid_formats.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("grids of 2 bits") {
    report_device_law<blocked_storage<ts::iq1_s>>("iq1_s");
    report_device_law<blocked_storage<ts::iq1_m>>("iq1_m");
    report_device_law<blocked_storage<ts::iq2_xxs>>("iq2_xxs");
    report_device_law<blocked_storage<ts::iq2_xs>>("iq2_xs");
    report_device_law<blocked_storage<ts::iq2_s>>("iq2_s");
}

} // namespace
