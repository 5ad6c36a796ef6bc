#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes bit_linear.bin, .index and .json beside itself: BitLinear of transformers (the published code of BitNet b1.58),
its gradients, and its packed checkpoint layout, for tests/unit/nn/bit_linear_test.cpp.

    TORCHDYNAMO_DISABLE=1 python3 tests/data/nn/make_bit_linear.py

Inputs are float32 numbers of a fixed seed; everything runs in float32 as published.
"""
import json
import platform
from pathlib import Path

import numpy
import torch
import transformers
from transformers.integrations.bitnet import ActQuant, AutoBitLinear, BitLinear, WeightQuant, pack_weights

here = Path(__file__).parent
torch.manual_seed(20240217)
m, n, k, epsilon = 6, 24, 173, 1e-6
arrays = {}


def keep(name, tensor):
    arrays[name] = tensor.detach().to(torch.float32).contiguous().numpy()


x = torch.randn(m, k) * torch.tensor([1, 0.01, 30, 1, 1e-3, 5]).reshape(m, 1)
x[3] = 0
x.requires_grad_()
layer = AutoBitLinear(k, n, bias=False, online_quant=True, use_rms_norm=True, rms_norm_eps=epsilon)
with torch.no_grad():
    layer.weight.copy_(torch.randn(n, k) * 0.07)
    layer.rms_norm.weight.copy_(1 + 0.3 * torch.randn(k))
y = layer(x)
dy = torch.randn(m, n)
y.backward(dy)
for name, tensor in [("x", x), ("w", layer.weight), ("norm_weight", layer.rms_norm.weight), ("y", y), ("dy", dy),
                     ("dx", x.grad), ("dw", layer.weight.grad), ("dnorm_weight", layer.rms_norm.weight.grad),
                     ("ternary", WeightQuant.apply(layer.weight)), ("seen", ActQuant.apply(layer.rms_norm(x)))]:
    keep(name, tensor)

# The inference class over a packed checkpoint: 2 bits a weight, four rows to a byte.
packed = BitLinear(k, n, bias=False, dtype=torch.float32, use_rms_norm=True, rms_norm_eps=epsilon)
scale = 1.0 / layer.weight.detach().abs().mean().clamp(min=1e-5)
packed.weight.copy_(pack_weights((layer.weight.detach() * scale).round().clamp(-1, 1)))
packed.weight_scale.fill_(scale)
with torch.no_grad():
    packed.rms_norm.weight.copy_(layer.rms_norm.weight)
    keep("packed_y", packed(x))
keep("packed", packed.weight)
keep("packed_scale", packed.weight_scale)

offset = 0
with open(here / "bit_linear.index", "w") as index, open(here / "bit_linear.bin", "wb") as data:
    for name, array in arrays.items():
        index.write(" ".join([name, str(offset)] + [str(e) for e in array.shape]) + "\n")
        data.write(array.astype("<f4").tobytes())
        offset += array.size
(here / "bit_linear.json").write_text(json.dumps({
    "torch": torch.__version__, "transformers": transformers.__version__, "numpy": numpy.__version__,
    "python": platform.python_version(), "epsilon": epsilon,
    "command": "TORCHDYNAMO_DISABLE=1 python3 tests/data/nn/make_bit_linear.py"}, indent=1) + "\n")
