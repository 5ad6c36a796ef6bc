#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Usage: make.py OUT. Writes the vectors g_*.bin (README.md says what they hold): attention and its gradients in torch, in
float64, each result checked here against F.scaled_dot_product_attention and, where flex_attention has the score, against
it (float64, not compiled)."""

import math
import struct
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention.flex_attention import flex_attention
from transformers.models.t5.modeling_t5 import T5Attention

OUT = Path(sys.argv[1])
INF = float("inf")


def natten(i, length, window, stride, causal, dilation):
    """Keys of query i on one axis."""
    g, q = i % dilation, i // dilation
    n = length // dilation + (1 if g < length % dilation else 0)
    wl, wr = window // 2, window // 2 + (window % 2 - 1)
    if causal:
        lead = min((q // stride) * stride + stride - 1, n - 1)
        start, end = max(lead - wl - wr, 0), min(q + 1, n)
    else:
        lead = min((q // stride) * stride + stride // 2, n - 1)
        start = max(lead - wl, 0) + ((n - wr - lead - 1) if lead + wr >= n else 0)
        end = start + window
    return {k * dilation + g for k in range(start, end)}


def neighborhood(axes):
    """axes: (length, window, dilation, stride, causal), the last one fastest."""
    total = math.prod(a[0] for a in axes)
    seen = torch.zeros(total, total, dtype=torch.bool)
    for q in range(total):
        for k in range(total):
            a, b, see = q, k, True
            for length, window, dilation, stride, causal in reversed(axes):
                see = see and (b % length) in natten(a % length, length, window, stride, causal, dilation)
                a, b = a // length, b // length
            seen[q, k] = see
    return seen


def case(name, h, hk, sq, sk, d, dv, mask=None, bias=None, cap=0.0, sinks=None, parameters=(), extra=(), flex=None):
    g = torch.Generator().manual_seed(sum(map(ord, name)))
    def normal(*shape):
        return torch.randn(*shape, generator=g).double().requires_grad_()
    q, k, v = normal(h, sq, d), normal(hk, sk, d), normal(hk, sk, dv)
    do = torch.randn(h, sq, dv, generator=g).double()
    kk, vv = k.repeat_interleave(h // hk, 0), v.repeat_interleave(h // hk, 0)
    s = q @ kk.transpose(1, 2) / math.sqrt(d)
    if bias is not None:
        s = s + bias()
    if cap:
        s = cap * torch.tanh(s / cap)
    if mask is not None:
        s = s.masked_fill(~mask, -INF)
    dead = torch.isneginf(s).all(-1)
    if sinks is not None:
        s = torch.cat([s, sinks[:, None, None].expand(h, sq, 1)], -1)
        dead[:] = False
    lse = torch.logsumexp(s, -1).masked_fill(dead, -INF)
    p = torch.where(dead[..., None], 0.0, torch.exp(s - lse.masked_fill(dead, 0.0)[..., None]))
    o = p[..., :sk] @ vv
    if not cap and sinks is None:
        add = torch.zeros(h, sq, sk, dtype=torch.float64)
        if bias is not None:
            add = add + bias().detach()
        if mask is not None:
            add = add.masked_fill(~mask, -INF)
        judge = torch.nan_to_num(F.scaled_dot_product_attention(q[None], kk[None], vv[None], attn_mask=add[None])[0])
        assert (judge - o).abs().max() < 1e-13, name
    if flex is not None:
        judge = flex_attention(q[None].detach(), kk[None].detach(), vv[None].detach(), score_mod=flex)[0]
        assert (torch.nan_to_num(judge) - o).abs().max() < 1e-13, name
    o.backward(do)
    tensors = [q, k, v, o, lse, do, q.grad, k.grad, v.grad, *extra, *parameters, *(p.grad for p in parameters)]
    words = [t.detach().float().contiguous().numpy().tobytes() for t in tensors]
    rest = sum(len(w) for w in words[9:]) // 4
    (OUT / f"g_{name}.bin").write_bytes(struct.pack("<8i", 1, h, hk, sq, sk, d, dv, rest) + b"".join(words))


def positions(sq, sk):
    return torch.arange(sk - sq, sk)[:, None], torch.arange(sk)[None, :]


def t5(table, sq, sk, both, far):
    i, j = positions(sq, sk)
    b = T5Attention._relative_position_bucket(j - i, bidirectional=both, num_buckets=table.shape[0], max_distance=far)
    return table[b].permute(2, 0, 1)


def parameter(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7)).float().double().requires_grad_()


i, j = positions(21, 37)
case("gqa", 4, 2, 21, 37, 24, 40, mask=j <= i, flex=lambda s, b, h, qi, ki: torch.where(ki <= qi + 16, s, -INF))
case("top_left", 2, 1, 21, 13, 16, 16, mask=torch.arange(13)[None] <= torch.arange(21)[:, None])
case("unseen", 2, 2, 21, 13, 16, 16, mask=torch.arange(13)[None] <= torch.arange(21)[:, None] - 8)
b = parameter(2, 21, 37)
case("bias_cap", 2, 2, 21, 37, 16, 16, mask=j <= i, bias=lambda: b, cap=2.0, parameters=[b],
     flex=lambda s, bb, h, qi, ki: torch.where(ki <= qi + 16, 2.0 * torch.tanh((s + b.detach()[h, qi, ki]) / 2.0), -INF))
t = parameter(32, 2)
case("t5_both", 2, 2, 70, 70, 8, 8, bias=lambda: t5(t, 70, 70, True, 40), parameters=[t])
u = parameter(32, 2)
i70, j70 = positions(70, 70)
case("t5_before", 2, 1, 70, 70, 8, 8, mask=j70 <= i70, bias=lambda: t5(u, 70, 70, False, 128), parameters=[u])
s = parameter(4)
case("sinks", 4, 2, 21, 37, 16, 16, mask=j <= i, sinks=s, parameters=[s])
i40, j40 = positions(40, 40)
case("prefix", 2, 2, 40, 40, 16, 16, mask=(j40 < 11) | (j40 <= i40))
case("chunked", 2, 2, 40, 40, 16, 16, mask=(j40 <= i40) & (j40 // 9 == i40 // 9))
case("band", 2, 2, 40, 40, 16, 16, mask=(j40 - i40 <= 3) & (i40 - j40 <= 5))
offsets = torch.tensor([0, 7, 7, 20, 21, 40])
ids = torch.bucketize(torch.arange(40), offsets[1:], right=True)
case("segments", 2, 2, 40, 40, 16, 16, mask=(j40 <= i40) & (ids[:, None] == ids[None]))
parents = [-1, 0, 0, 1, 1, 2, 5, 3, -1, 8]
seen = torch.zeros(10, 30, dtype=torch.bool)
seen[:, :20] = True
for n in range(10):
    a = n
    while a >= 0:
        seen[n, 20 + a], a = True, parents[a]
case("tree", 2, 1, 10, 30, 16, 16, mask=seen)
case("na1d", 2, 2, 40, 40, 16, 16, mask=neighborhood([(40, 5, 3, 1, False)]))
case("na2d", 2, 2, 99, 99, 8, 8, mask=neighborhood([(9, 4, 2, 1, False), (11, 5, 1, 2, True)]))
case("na3d", 1, 1, 120, 120, 8, 8, mask=neighborhood([(4, 2, 1, 1, False), (5, 3, 1, 3, False), (6, 2, 3, 1, False)]))
# Blocks of 20 queries by 24 keys that are hidden, seen or mixed; query 5 sees nothing.
h, i, j = torch.arange(4)[:, None, None], torch.arange(70)[None, :, None], torch.arange(150)[None, None, :]
kind = (h + i // 20 + 2 * (j // 24)) % 3
dense = ((kind == 1) | ((kind == 2) & ((7 * i + 13 * j + 5 * h) % 11 < 4))) & (i != 5)
case("dense", 4, 2, 70, 150, 8, 8, mask=dense, flex=lambda s, b, hi, qi, ki: torch.where(dense[hi, qi, ki], s, -INF))
