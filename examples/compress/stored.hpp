// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The weights of a GGUF file: decoded, and as operators in the format that the file has. Matrices are stacked as
/// examples/generate stacks them: query, key and value; gate and up.

#include "scheme.hpp"

#include <tessera/interop/gguf.hpp>

#include <span>
#include <vector>

namespace compress {

/// The matrices of one projection, below each other.
using tensors = std::span<ts::gguf::tensor_entry const* const>;

index_t rows_of(tensors stack);
/// @throws tessera::unsupported_error where the library cannot read a tensor's type
ts::matrix<float> decode(tensors stack);

/// Neighbours of one type as one operator.
std::vector<ts::any_operator<backend>> place_stored(backend const& exec, tensors stack, form x, ts::memory_arena& arena);

} // namespace compress
