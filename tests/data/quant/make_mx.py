#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes mx.bin, mx.index and mx.json beside itself: what other libraries make of float32 weights in the Microscaling formats and NVFP4.

    PYTHONPATH=<checkout of github.com/microsoft/microxcaling> python3 tests/data/quant/make_mx.py

* microxcaling, `_quantize_mx` with round="even" (`<format>_even`) and round="nearest" (`<format>_away`): the decoded weights,
  float32. It runs in float64, where its logarithms are right at the edges of binades.
* torchao, `to_mx` with FLOOR and RCEIL: bytes of the scales (`<format>_floor_scales`, `_ceil_scales`) and decoded values of
  the codes (`_floor_values`, `_ceil_values`), as float32.
* torchao, `nvfp4_quantize` with a per-tensor scale of max |w| / (6 * 448): `nvfp4_tensor_scale`, `nvfp4_scales`, `nvfp4_values`.

Rows 0 to 15 of the weights are normal times a power of two, 16 to 19 have long tails, 20 to 23 are multiples of 1/32: many of
them lie in the middle between two values of a format.
"""
import json
import platform
from pathlib import Path

import numpy
import torch
import torchao
from mx.mx_ops import _quantize_mx
from torchao.prototype.mx_formats.config import ScaleCalculationMode
from torchao.prototype.mx_formats.constants import DTYPE_FP6_E2M3, DTYPE_FP6_E3M2
from torchao.prototype.mx_formats.kernels import f4_unpacked_to_f32, f6_e2m3_unpacked_to_f32, f6_e3m2_unpacked_to_f32, unpack_uint4
from torchao.prototype.mx_formats.mx_tensor import to_mx
from torchao.prototype.mx_formats.nvfp4_tensor import nvfp4_quantize

here = Path(__file__).parent
torch.manual_seed(20241)
arrays = {}


def keep(name, tensor):
    arrays[name] = tensor.detach().to(torch.float32).contiguous().numpy()


normal = torch.randn(16, 96) * 2.0 ** torch.randint(-40, 40, (16, 1))
tails = torch.distributions.StudentT(1.5).sample((4, 96)) * 0.03
halves = torch.randint(-255, 256, (4, 96)) / 32 * 2.0 ** torch.tensor([[0], [3], [-5], [7]])
weights = torch.cat([normal, tails, halves]).to(torch.float32)
keep("weights", weights)

formats = {"e2m1": ("fp4_e2m1", torch.float4_e2m1fn_x2), "e3m2": ("fp6_e3m2", DTYPE_FP6_E3M2),
           "e2m3": ("fp6_e2m3", DTYPE_FP6_E2M3), "e4m3": ("fp8_e4m3", torch.float8_e4m3fn),
           "e5m2": ("fp8_e5m2", torch.float8_e5m2), "int8": ("int8", None)}
decode = {"e2m1": lambda c: f4_unpacked_to_f32(unpack_uint4(c)), "e3m2": f6_e3m2_unpacked_to_f32,
          "e2m3": f6_e2m3_unpacked_to_f32, "e4m3": lambda c: c.to(torch.float32), "e5m2": lambda c: c.to(torch.float32)}
for name, (microxcaling, ao) in formats.items():
    for tag, rounding in [("even", "even"), ("away", "nearest")]:
        keep(f"{name}_{tag}", _quantize_mx(weights.to(torch.float64), 8, microxcaling, axes=[-1], block_size=32, round=rounding))
    if ao is None:
        continue
    for tag, mode in [("floor", ScaleCalculationMode.FLOOR), ("ceil", ScaleCalculationMode.RCEIL)]:
        scales, codes = to_mx(weights, ao, 32, mode)
        keep(f"{name}_{tag}_scales", scales.view(torch.uint8).reshape(24, 3))
        keep(f"{name}_{tag}_values", decode[name](codes).reshape(24, 96))

plain = torch.randn(24, 96) * 0.02
keep("nvfp4_weights", plain)
tensor_scale = plain.abs().max() / (6.0 * 448.0)
scales, codes = nvfp4_quantize(plain, 16, tensor_scale)
keep("nvfp4_tensor_scale", tensor_scale.reshape(1))
keep("nvfp4_scales", scales.to(torch.float32).reshape(24, 6))
keep("nvfp4_values", f4_unpacked_to_f32(unpack_uint4(codes)).reshape(24, 96))

offset = 0
lines = []
with open(here / "mx.bin", "wb") as out:
    for name, array in arrays.items():
        lines.append(f"{name} {offset} {' '.join(map(str, array.shape))}")
        out.write(array.astype("<f4").tobytes())
        offset += array.size
(here / "mx.index").write_text("\n".join(lines) + "\n")
made_by = {"torch": torch.__version__, "torchao": torchao.__version__, "numpy": numpy.__version__,
           "microxcaling": "github.com/microsoft/microxcaling, commit 7bc41952de394f5cc5e782baf132e7c7542eb4e4",
           "python": platform.python_version(), "command": "python3 tests/data/quant/make_mx.py"}
(here / "mx.json").write_text(json.dumps({"made_by": made_by}, indent=1) + "\n")
