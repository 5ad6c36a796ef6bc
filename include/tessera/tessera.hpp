// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Everything but the leaves (interop, Eigen). A program that uses one family includes that family's header instead and
/// compiles faster; README.md beside this file says where what is.

#include "adapter/combine.hpp"
#include "adapter/dora.hpp"
#include "adapter/merge.hpp"
#include "attention/append.hpp"
#include "attention/attention.hpp"
#include "core/thread_pool.hpp"
#include "fwd.hpp"
#include "moe/describe.hpp"
#include "moe/moe.hpp"
#include "nn/activation.hpp"
#include "nn/bit_linear.hpp"
#include "nn/embedding.hpp"
#include "nn/norm.hpp"
#include "nn/rope.hpp"
#include "nn/softmax.hpp"
#include "numerics/fp6_fp4.hpp"
#include "numerics/fp8.hpp"
#include "numerics/limits.hpp"
#include "operators/apply.hpp"
#include "operators/backward.hpp"
#include "operators/describe.hpp"
#include "operators/place.hpp"
#include "planned.hpp"
#include "quant/bit_planes.hpp"
#include "quant/convert.hpp"
#include "quant/pvq.hpp"
#include "quant/quantize.hpp"
#include "quant/ternary.hpp"
#include "sampling/sampler.hpp"
#include "sparse/place.hpp"
#include "sparse/sparsify.hpp"
#include "version.hpp"
