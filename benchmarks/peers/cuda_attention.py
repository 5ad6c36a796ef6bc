# SPDX-License-Identifier: MIT
"""Attention on a CUDA device next to cuDNN's and FlashAttention-2's of PyTorch: bf16, times by events after the second-level cache
was overwritten, medians, in turn in one process; decoding also as a graph. Each shape is checked first, against PyTorch in float32.

    nvcc -std=c++20 -O2 -gencode arch=compute_90a,code=sm_90a -Xcompiler -fPIC -shared -Iinclude benchmarks/peers/cuda_attention.cu -o LIBRARY
    python3 benchmarks/peers/cuda_attention.py LIBRARY
"""
import ctypes
import statistics
import sys

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

library = ctypes.CDLL(sys.argv[1])
flushed = torch.empty(64 << 20, dtype=torch.int32, device="cuda")


def ours(q, k, v, out, causal):
    size = ctypes.c_longlong
    code = library.tessera_attention(
        *(ctypes.c_void_p(t.data_ptr()) for t in (q, k, v, out)), size(q.shape[0]), size(q.shape[2]), size(k.shape[2]), size(q.shape[1]),
        size(k.shape[1]), size(q.shape[3]), int(causal), ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))
    assert code == 0


def peer(backend, q, k, v, causal):
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def median_us(calls, repeats=15):
    times = [[] for _ in calls]
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    for r in range(repeats + 2):
        for i, call in enumerate(calls):
            flushed.fill_(r)
            torch.cuda.synchronize()
            begin.record()
            call()
            end.record()
            end.synchronize()
            if r >= 2:
                times[i].append(begin.elapsed_time(end) * 1e3)
    return [statistics.median(t) for t in times]


def graph_of(call):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        call()
    return graph.replay


def error(q, k, v, out, causal):
    """Of the first and the last head, the last 256 queries."""
    worst = 0.0
    for b, h in ((0, 0), (q.shape[0] - 1, q.shape[1] - 1)):
        last = min(256, q.shape[2])
        kv = h // (q.shape[1] // k.shape[1])
        s = q[b, h, -last:].double() @ k[b, kv].double().T / q.shape[3] ** 0.5
        if causal:
            at = torch.arange(q.shape[2] - last, q.shape[2], device="cuda")[:, None]
            s = s.masked_fill(torch.arange(k.shape[2], device="cuda")[None, :] > at, float("-inf"))
        expected = s.softmax(-1) @ v[b, kv].double()
        got = out[b, h, -last:].double()
        worst = max(worst, float((got - expected).norm() / expected.norm()))
    return worst


print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}")
for d, batch, heads, kv_heads, n in ((128, 2, 32, 32, 8192), (128, 2, 32, 8, 8192), (64, 2, 32, 32, 8192), (128, 8, 32, 32, 1024)):
    for causal in (False, True):
        q = torch.randn(batch, heads, n, d, device="cuda", dtype=torch.bfloat16)
        k, v = (torch.randn(batch, kv_heads, n, d, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        out = torch.full_like(q, float("nan"))
        ours(q, k, v, out, causal)
        off = error(q, k, v, out, causal)
        kept = out.clone()
        ours(q, k, v, out, causal)
        same = torch.equal(kept, out)
        backends = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION]
        times = median_us([lambda: ours(q, k, v, out, causal)] + [lambda b=b: peer(b, q, k, v, causal) for b in backends], 7)
        flops = 4.0 * batch * heads * n * n * d * (0.5 if causal else 1.0)
        rates = [flops / t / 1e6 for t in times]
        print(f"prefill d {d} {batch}x{n} {heads}/{kv_heads} causal {int(causal)}: ours {rates[0]:.0f} TFLOP/s, cuDNN {rates[1]:.0f} (ratio {rates[0] / rates[1]:.2f}), "
              f"FA2 {rates[2]:.0f}; error {off:.1e}{'' if same else ' DIFFERS'}", flush=True)
        del q, k, v, out, kept

x, y = (torch.empty(1 << 30, dtype=torch.float32, device="cuda") for _ in range(2))
x.fill_(1)
read_us = median_us([lambda: x.sum()], 7)[0]
rate = x.numel() * 4 / read_us * 1e-3
del x, y
print(f"reading 4 GiB (torch.sum): {rate:.0f} GB/s")
for heads, kv_heads, batch, n in ((32, 8, 1, 4096), (32, 8, 16, 4096), (32, 8, 64, 4096), (32, 8, 1, 32768), (32, 8, 16, 32768), (32, 32, 16, 4096)):
    q = torch.randn(batch, heads, 1, 128, device="cuda", dtype=torch.bfloat16)
    k, v = (torch.randn(batch, kv_heads, n, 128, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    out = torch.full_like(q, float("nan"))
    ours(q, k, v, out, False)
    off = error(q, k, v, out, False)
    cudnn = lambda: peer(SDPBackend.CUDNN_ATTENTION, q, k, v, False)
    mine = lambda: ours(q, k, v, out, False)
    times = median_us([mine, cudnn, graph_of(mine), graph_of(cudnn)])
    size = 2 * k.numel() * 2
    print(f"decode {heads}/{kv_heads} batch {batch} keys {n}: ours {times[0]:.1f} us, graph {times[2]:.1f} ({size / times[2] * 1e-3:.0f} GB/s); "
          f"cuDNN {times[1]:.1f}, graph {times[3]:.1f}; error {off:.1e}", flush=True)
    del q, k, v, out
