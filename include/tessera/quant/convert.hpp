// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `convert`: an array in another element type. float, fp16, bf16, every minifloat, e8m0, the small integers, std::int8_t
/// and std::uint8_t, each to each; vectors and matrices of any strides.
///
///     ts::convert(exec, x, y);                           // y = x, rounded to nearest even
///     ts::convert<ts::overflow::saturate>(exec, x, y);   // and never infinity or NaN for a number
///
/// Values above the largest of y's format become what its card says unless the call says otherwise; integers saturate.
/// Every backend gives the same bits, those of numerics/convert.hpp: one rounding, from float32.

#include "../kernels/cpu/convert.hpp"
#include "convert_forward.hpp"
