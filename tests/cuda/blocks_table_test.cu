// SPDX-License-Identifier: MIT
/// @file
/// Products with GGUF's blocks of tables and of grids of 3 bits on a device, and their transposes.

#include "cuda_support.hpp"

#include <tessera/storage/grid_formats.hpp>
#include <tessera/storage/table_formats.hpp>

namespace {

using namespace tessera_test;

TEST_CASE("tables") {
    report_device_law<blocked_storage<ts::iq4_nl>>("iq4_nl");
    report_device_law<blocked_storage<ts::iq4_xs>>("iq4_xs");
    report_device_law<blocked_storage<ts::gguf_mxfp4>>("gguf_mxfp4");
    report_device_law<blocked_storage<ts::gguf_nvfp4>>("gguf_nvfp4");
}
TEST_CASE("grids of 3 bits") {
    report_device_law<blocked_storage<ts::iq3_xxs>>("iq3_xxs");
    report_device_law<blocked_storage<ts::iq3_s>>("iq3_s");
}

} // namespace
