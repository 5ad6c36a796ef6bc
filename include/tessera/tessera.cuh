// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Everything for CUDA devices: `cuda<80>` and `cuda<90>` as execution policies, in files compiled by nvcc (C++20; cuda<90> with
/// -gencode arch=compute_90a,code=sm_90a). Of the processor's policies a .cu file has `reference`, and `cuda_reference<Sm>` runs its
/// definitions on memory of the device.

#include "attention/attention.cuh"
#include "core/philox.hpp"
#include "moe/moe.cuh"
#include "nn/embedding.cuh"
#include "nn/nn.cuh"
#include "operators/apply.cuh"
#include "operators/apply_reference.cuh"
#include "operators/apply_vector.cuh"
#include "quant/convert.cuh"
#include "quant/quantize.cuh"
#include "sparse/sparse.cuh"
