#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes moe.bin, moe.index and moe.json beside itself: blocks of transformers with tiny random weights, for tests/unit/moe.

    python3 tests/data/moe/make.py

Weights and inputs are float32 numbers of a fixed seed. The blocks run in float64 on them, but for their routers' softmax or
sigmoid, which transformers takes in float32; results are rounded to float32. moe.index has a line for every array: name,
offset (in words of 4 bytes), shape; index arrays are int32, all others float32. moe.json says what made the file.
"""
import json
import platform
from pathlib import Path

import numpy
import torch
import transformers
from transformers.models.deepseek_v3.configuration_deepseek_v3 import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3MoE
from transformers.models.mixtral.configuration_mixtral import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralSparseMoeBlock
from transformers.models.qwen2_moe.configuration_qwen2_moe import Qwen2MoeConfig
from transformers.models.qwen2_moe.modeling_qwen2_moe import Qwen2MoeSparseMoeBlock
from transformers.models.qwen3_moe.configuration_qwen3_moe import Qwen3MoeConfig
from transformers.models.qwen3_moe.modeling_qwen3_moe import Qwen3MoeSparseMoeBlock

here = Path(__file__).parent
torch.manual_seed(20260511)
arrays = {}


def keep(name, tensor):
    kind = torch.int32 if "index" in name else torch.float32
    arrays[name] = tensor.detach().to(kind).contiguous().numpy()


def run(name, block, width, tokens):
    """Random weights, then the block and its router; everything is kept."""
    state = block.state_dict()
    for key, value in state.items():
        value.copy_(torch.randn(value.shape) * (0.2 if "bias" in key else 1.5 / value.shape[-1] ** 0.5))
    block.load_state_dict(state)
    x = torch.randn(tokens, width)
    block = block.double().eval()
    with torch.no_grad():
        y = block(x.double()[None])
        y = (y[0] if isinstance(y, tuple) else y)[0]
        _, weight, index = block.gate(x.double())
    order = torch.argsort(index, dim=-1)  # the order inside a row is not part of what routers promise
    keep(name + ".x", x)
    keep(name + ".y", y)
    keep(name + ".weight", weight.gather(1, order))
    keep(name + ".index", index.gather(1, order))
    for key, value in state.items():
        keep(name + "." + key, value)
    return block


def config(cls, **kwargs):
    return cls(hidden_size=37, moe_intermediate_size=23, intermediate_size=23, hidden_act="silu", **kwargs)


experts = dict(attn_implementation="eager", experts_implementation="eager")
run("mixtral", MixtralSparseMoeBlock(config(MixtralConfig, num_local_experts=8, num_experts_per_tok=2, **experts)), 37, 19)
run("qwen2_moe", Qwen2MoeSparseMoeBlock(config(Qwen2MoeConfig, num_experts=7, num_experts_per_tok=3, norm_topk_prob=False,
                                               shared_expert_intermediate_size=29, **experts)), 37, 19)
run("qwen3_moe", Qwen3MoeSparseMoeBlock(config(Qwen3MoeConfig, num_experts=6, num_experts_per_tok=6, norm_topk_prob=True,
                                               **experts)), 37, 5)
for name, norm in [("deepseek_v3", True), ("deepseek_v3_as_is", False)]:
    run(name, DeepseekV3MoE(config(DeepseekV3Config, n_routed_experts=12, num_experts_per_tok=4, n_group=4, topk_group=2,
                                   n_shared_experts=2, routed_scaling_factor=2.5, norm_topk_prob=norm, **experts)), 37, 19)

offset = 0
with open(here / "moe.bin", "wb") as data, open(here / "moe.index", "w") as index:
    for name, array in arrays.items():
        data.write(array.astype(array.dtype.newbyteorder("<")).tobytes())
        index.write(" ".join([name, str(offset), *map(str, array.shape)]) + "\n")
        offset += array.size
(here / "moe.json").write_text(json.dumps({"made_by": {
    "transformers": transformers.__version__, "torch": torch.__version__, "numpy": numpy.__version__,
    "python": platform.python_version(), "command": "python3 tests/data/moe/make.py"}}, indent=1) + "\n")
