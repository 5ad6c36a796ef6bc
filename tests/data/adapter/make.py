#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes peft.safetensors and provenance.json: the judge of stacked and merged adapters.

    python3 make.py

PEFT puts random LoRA adapters on one linear layer (12 x 20), combines them (add_weighted_adapter), runs several at once and
merges them into the weight. Needs: torch, peft, safetensors.
"""

import importlib.metadata
import json
import pathlib

import peft
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).resolve().parent
N, K = 12, 20


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(K, N, bias=False)

    def forward(self, x):
        return self.linear(x)


def layer(weight):
    model = Layer()
    model.linear.weight.data = weight.clone()
    return model


def config(rank, alpha, **more):
    return peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=["linear"], lora_dropout=0.0, **more)


def main():
    torch.manual_seed(1)
    weight, x = torch.randn(N, K), torch.randn(4, K)
    out = {"weight": weight, "x": x}

    model = peft.get_peft_model(layer(weight), config(3, 6), adapter_name="one")
    model.add_adapter("two", config(3, 3))
    model.add_adapter("three", config(5, 5))
    lora = model.base_model.model.linear
    for name in ("one", "two", "three"):
        lora.lora_A[name].weight.data = torch.randn_like(lora.lora_A[name].weight) / K**0.5
        lora.lora_B[name].weight.data = torch.randn_like(lora.lora_B[name].weight) * 0.3
        out[f"{name}.A"], out[f"{name}.B"] = lora.lora_A[name].weight.data, lora.lora_B[name].weight.data
        out[f"{name}.scale"] = torch.tensor([lora.scaling[name]])

    def store(name):
        model.set_adapter(name)
        out[f"{name}.y"] = model(x)
        out[f"{name}.delta"] = lora.get_delta_weight(name)

    model.add_weighted_adapter(["one", "three"], [1.0, -0.5], "cat", combination_type="cat")
    model.add_weighted_adapter(["one", "two"], [0.7, 0.3], "linear", combination_type="linear")
    for name in ("one", "two", "three", "cat", "linear"):
        store(name)
    model.base_model.set_adapter(["one", "three"])
    out["both.y"] = model(x)
    model.base_model.set_adapter(["one"])
    out["one.merged"] = model.merge_and_unload().linear.weight

    model = peft.get_peft_model(layer(weight), config(4, 8, use_dora=True), adapter_name="dora")
    lora = model.base_model.model.linear
    lora.lora_A["dora"].weight.data = torch.randn(4, K) / K**0.5
    lora.lora_B["dora"].weight.data = torch.randn(N, 4) * 0.3
    magnitude = lora.lora_magnitude_vector["dora"].weight
    magnitude.data = magnitude.data * (1 + 0.1 * torch.randn(N))
    out |= {"dora.A": lora.lora_A["dora"].weight.data, "dora.B": lora.lora_B["dora"].weight.data,
            "dora.magnitude": magnitude.data, "dora.scale": torch.tensor([lora.scaling["dora"]]), "dora.y": model(x)}
    out["dora.merged"] = model.merge_and_unload().linear.weight

    tensors = {name: t.detach().float().contiguous().clone() for name, t in out.items()}
    safetensors.torch.save_file(tensors, HERE / "peft.safetensors")
    versions = {name: importlib.metadata.version(name) for name in ("torch", "peft", "safetensors")}
    (HERE / "provenance.json").write_text(json.dumps({"command": "python3 make.py", "versions": versions, "seed": 1}, indent=2) + "\n")


main()
