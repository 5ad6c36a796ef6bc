// SPDX-License-Identifier: MIT
/// @file
/// Compiled where nvcc is, run nowhere: attention of one element type, its cache.

#include <tessera/attention/attention.cuh>

namespace ts = tessera;

void attend(ts::cuda<90> const& exec, ts::device_view<ts::bf16 const, 3> q, ts::device_view<ts::bf16 const, 3> k,
            ts::device_view<ts::bf16 const, 3> v, ts::device_view<ts::bf16, 3> out) {
    ts::device_kv_cache<ts::key<ts::bf16>, ts::value<ts::bf16>> kv{4096, 8, 128};
    ts::append(exec, kv, k, v);
    ts::attention(exec, q, kv, out, ts::causal);
}
