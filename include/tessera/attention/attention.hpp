// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Attention over plain tensors or a KV cache.
///
///     ts::attention(exec, q, kv, out, ts::scaled{s} | ts::causal);        // kv: a kv_cache or a kv_view
///     ts::attention(exec, q, k, v, out, ts::causal);                       // keys and values in tensors
///     ts::attention(exec, q, kv, out, ts::causal, log_sum_exp);            // with the (heads, tokens) log-sum-exp
///
/// Scores, masks, biases and changes of the softmax: score.hpp, mask.hpp, neighborhood.hpp, bias.hpp, normaliser.hpp. Several
/// sequences at once: batch.hpp. Parts of the keys: merge.hpp. Gradients: attention_gradient.hpp.
///
/// Without a score, and in a score without `scaled`, the scale is 1 / sqrt(head_dim). Any number of query heads that is a
/// multiple of the KV heads; any head_dim; values may be wider or narrower than keys; q and out are float, fp16 or bf16.
/// Sums are in float32. The last query is at the last key's position, so one call serves a prefill, a chunk of one, and a
/// step of decoding: append first, then attend. (In a ring the first queries of a chunk find the oldest keys gone unless
/// the ring holds window + chunk - 1 tokens.)
///
/// A query that sees no key gets zeros and a log-sum-exp of minus infinity. Keys that a query does not see, and slots
/// behind the last token, do not change a bit of its output, were they NaN. With n keys in view, head_dim d and
/// u = 2^-24, a score has an error of at most gamma(d + 2) |scale| sum |q k| =: e, and out one of at most
/// (2 e + gamma(n + 20)) max |v|, before it is rounded to its element type. Where the codes of a cache are multiplied (int8
/// and 4 bits, on matrix tiles), e is 2^-30 |scale| max |q| sum |k| more, and a weight is off by 2^-30 of the largest.
///
/// Shapes that do not fit, null pointers and outputs that overlap an input are a shape_error; nothing is written then.
///
/// Calls are deterministic: keys are read in tiles, and decoding in parts of 1024 that merge in order, whatever the
/// number of threads.

#include "../kernels/cpu/attention.hpp"
#include "append.hpp"
#include "attention_forward.hpp"
