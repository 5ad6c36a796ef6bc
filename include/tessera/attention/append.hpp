// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// `append`: writes new tokens behind the last of a KV cache, in the cache's formats.

#include "../kernels/cpu/append.hpp"
#include "append_forward.hpp"
