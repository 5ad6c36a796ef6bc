// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// The names of operations that have kernels: the first argument of `kernel<Operation, Exec, Operand>`.

#include "../core/macros.hpp"

namespace tessera::inline TESSERA_ABI::op {

/// y = x Wᵀ: see kernels/kernel.hpp.
struct apply {};
/// W as float32, a tile at a time.
struct decode {};
/// x into the form that terms want.
struct prepare {};
/// Rows of a prepared x in another order.
struct gather {};

// Row operations: kernel<op, Exec, X> for x of element type X has `run(exec, ...)`, as its family's header says.
struct rms_norm {};
struct rms_norm_backward {};
struct layer_norm {};
struct layer_norm_backward {};
struct softmax {};
struct softmax_backward {};
struct activate {};
struct activate_backward {};
struct gate {};
struct gate_backward {};
struct add {};
struct rope {};
struct embedding {};

/// An array in another element type: see kernels/ref/convert.hpp.
struct convert {};
/// Weights that share a scale, rounded: see kernels/ref/quantize.hpp.
struct quantize {};

/// Attention over a KV cache: see kernels/attention.hpp.
struct attention {};
/// Its gradients: see kernels/attention_gradient.hpp.
struct attention_gradient {};
/// How much attention keys receive: see kernels/ref/attention_mass.hpp.
struct attention_mass {};
/// One token of one head into a KV cache: see kernels/ref/append.hpp.
struct append {};

/// Experts and their weights from a router's logits: see kernels/routing.hpp.
struct route {};
/// The weighted sum of a token's experts: see kernels/routing.hpp.
struct combine {};

} // namespace tessera::inline TESSERA_ABI::op
