// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `convert` on CUDA devices: quant/convert.hpp with `cuda<Sm>` and device memory, the same bits.
///
///     ts::convert(exec, x, y);   // device views and owners: float, fp16, bf16, fp8 and every other element type, each to each

#include "../kernels/cuda/convert.cuh"
#include "../storage/device_memory.cuh"
#include "convert_forward.hpp"
