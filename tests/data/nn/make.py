#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes nn.bin and nn.json beside itself: inputs and outputs of PyTorch and transformers for tests/unit/nn.

    python3 tests/data/nn/make.py

Inputs are float32 numbers of a fixed seed. Every operation runs in float64 on them, so that the stored result, rounded to
float32, is the library's function and not its rounding; `rope_*_float32` are the exceptions: transformers makes its
angles in float32. nn.json names every array with its shape and offset (in floats) and what made the file.
"""
import json
import platform
from pathlib import Path

import numpy
import torch
import transformers
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, LlamaRMSNorm, apply_rotary_pos_emb

here = Path(__file__).parent
torch.manual_seed(20240611)
arrays = {}


def keep(name, tensor):
    arrays[name] = tensor.detach().to(torch.float32).contiguous().numpy()
    return torch.from_numpy(arrays[name]).to(torch.float64)


x = keep("x", torch.randn(5, 71) * 3)
weight = keep("weight", torch.randn(71))
bias = keep("bias", torch.randn(71))
dy = keep("dy", torch.randn(5, 71))

# Norms and their gradients.
for name, module, forward in [
    ("rms_norm", "rms", lambda a, w, b: torch.nn.functional.rms_norm(a, (71,), w, 1e-5)),
    ("layer_norm", "layer", lambda a, w, b: torch.nn.functional.layer_norm(a, (71,), w, b, 1e-5)),
]:
    a, w, b = (t.clone().requires_grad_() for t in (x, weight, bias))
    y = forward(a, w, b)
    y.backward(dy)
    keep(name, y)
    keep(name + "_dx", a.grad)
    keep(name + "_dweight", w.grad)
    if b.grad is not None:
        keep(name + "_dbias", b.grad)
llama = LlamaRMSNorm(71, 1e-5).to(torch.float32)
with torch.no_grad():
    llama.weight.copy_(weight.to(torch.float32))
keep("llama_rms_norm_float32", llama(x.to(torch.float32)))

# Elementwise.
keep("softmax", torch.softmax(x, -1))
keep("silu", torch.nn.functional.silu(x))
keep("gelu_erf", torch.nn.functional.gelu(x))
keep("gelu_tanh", torch.nn.functional.gelu(x, approximate="tanh"))
up = keep("up", torch.randn(5, 71))
keep("swiglu", torch.nn.functional.silu(x) * up)

# Rope: 7 tokens from position 90 on, 3 heads of 16.
q = keep("q", torch.randn(7, 3, 16))
positions = torch.arange(90, 97)
for base in (10000.0, 500000.0):
    tag = f"rope_halves_{int(base)}"
    config = LlamaConfig(hidden_size=48, num_attention_heads=3, head_dim=16, max_position_embeddings=128,
                         rope_parameters={"rope_type": "default", "rope_theta": base})
    cosine, sine = LlamaRotaryEmbedding(config)(q.to(torch.float32), positions[None])
    rotated, _ = apply_rotary_pos_emb(q.to(torch.float32).transpose(0, 1)[None], q.to(torch.float32).transpose(0, 1)[None],
                                      cosine, sine)
    keep(tag + "_float32", rotated[0].transpose(0, 1))
# Interleaved: complex multiplication, as in the reference code of the Llama papers (view_as_complex), in float64.
frequency = 10000.0 ** (-torch.arange(0, 16, 2, dtype=torch.float64) / 16)
turn = torch.polar(torch.ones(7, 8, dtype=torch.float64), positions.to(torch.float64)[:, None] * frequency)
keep("rope_interleaved_10000",
     torch.view_as_real(torch.view_as_complex(q.reshape(7, 3, 8, 2)) * turn[:, None, :]).reshape(7, 3, 16))

offset = 0
index = {}
with open(here / "nn.bin", "wb") as out:
    for name, array in arrays.items():
        index[name] = {"shape": list(array.shape), "offset": offset}
        out.write(array.astype("<f4").tobytes())
        offset += array.size
made_by = {"torch": torch.__version__, "transformers": transformers.__version__, "numpy": numpy.__version__,
           "python": platform.python_version(), "command": "python3 tests/data/nn/make.py"}
(here / "nn.json").write_text(json.dumps({"made_by": made_by, "arrays": index}, indent=1) + "\n")
# The same index for the test, which has no JSON reader.
lines = [f"{name} {offset_of['offset']} {' '.join(map(str, offset_of['shape']))}" for name, offset_of in index.items()]
(here / "nn.index").write_text("\n".join(lines) + "\n")
