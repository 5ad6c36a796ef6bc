// SPDX-License-Identifier: MIT
/// @file
/// Every mask and bias of attention on a device, by matrix units.

#include "attention_masks.cuh"

using namespace attention_tests;

TEST_CASE("attention: every mask and bias by matrix units") { check_all<ts::bf16>(matrix_terms<ts::bf16>()); }
