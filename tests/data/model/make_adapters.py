#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes adapters/{lora,dora}/ and adapters/{lora,dora}.bin: the judge of `generate --adapter`.

    python3 make_adapters.py SmolLM2-135M-Instruct.Q4_1.gguf

PEFT puts a random LoRA (DoRA) of rank 2 on the query and value projections of the model that make.py runs, saves it, and
runs it in float32 on the CPU; README.md says what is stored.
Needs: torch, transformers, gguf, accelerate, numpy, peft, safetensors.
"""

import argparse
import hashlib
import importlib.metadata
import json
import pathlib
import shutil
import struct

import numpy
import peft
import safetensors.torch
import torch

import make

STEPS = 12
TOP = 512
HERE = pathlib.Path(__file__).resolve().parent / "adapters"


def fill(model, seed):
    """Random factors that float16 holds: A of variance 1/k as PEFT starts it, B large enough to be heard."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in sorted(model.named_parameters()):
        if "lora_A" in name:
            value = torch.randn(p.shape, generator=generator) / p.shape[1] ** 0.5
        elif "lora_B" in name:
            value = torch.randn(p.shape, generator=generator) * 0.15
        elif "lora_magnitude" in name:
            value = p.data * (1 + 0.1 * torch.randn(p.shape, generator=generator))
        else:
            continue
        p.data = value.half().float()


def save(model, folder):
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    for name, t in tensors.items():
        assert torch.equal(t.half().float(), t), name
        tensors[name] = t.half()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    config = folder / "adapter_config.json"
    content = json.loads(config.read_text())
    content["base_model_name_or_path"] = "SmolLM2-135M-Instruct.Q4_1.gguf"
    config.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def store(path, model, prompts, base_logits):
    """The layout of greedy.bin."""
    continuations, logits = [], []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        with torch.no_grad():
            out = model.generate(input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=STEPS,
                                 min_new_tokens=STEPS, do_sample=False, pad_token_id=2)
        continuations.append(out[0, len(prompt):].tolist())
        logits.append(forced(model, prompt, continuations[-1]))
    log_probability = torch.stack(logits).double().log_softmax(-1)
    order = torch.sort(log_probability, dim=-1, descending=True, stable=True)
    two = torch.stack(logits).topk(2, -1).values
    count = len(prompts)
    blob = struct.pack("<8s8I", b"TSRGRDY1", 1, count, STEPS, TOP, logits[0].shape[-1], sum(map(len, prompts)), 0, 0)
    blob += numpy.array([len(p) for p in prompts] + [0] * (2 * count), dtype="<u4").tobytes()
    blob += numpy.array(sum(prompts, []), dtype="<u4").tobytes()
    blob += numpy.array(continuations, dtype="<u4").tobytes()
    blob += (two[..., 0] - two[..., 1]).numpy().astype("<f4").tobytes()
    blob += order.values[..., TOP:].logsumexp(-1).numpy().astype("<f4").tobytes()
    blob += order.values[..., :TOP].numpy().astype("<f4").tobytes()
    blob += order.indices[..., :TOP].numpy().astype("<u2").tobytes()
    path.write_bytes(blob)
    kl = [make.divergence(a, base_logits(p, c)).mean().item() for a, p, c in zip(logits, prompts, continuations)]
    return {"kl_to_model_without_adapter_mean": kl, "smallest_margin": (two[..., 0] - two[..., 1]).min().item()}


def forced(model, prompt, continuation):
    tokens = torch.tensor([prompt + continuation[:-1]])
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False).logits[0, len(prompt) - 1:]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf", type=pathlib.Path)
    path = parser.parse_args().gguf.resolve()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == make.GGUF_SHA256, "not the file this was made from"
    tokenizer = make.load_tokenizer(path)
    messages = json.loads((make.HERE / "prompts.json").read_text(encoding="utf-8"))[:2]
    prompts = []
    for message in messages:
        text = tokenizer.apply_chat_template([{"role": "user", "content": message["content"]}],
                                             add_generation_prompt=True, tokenize=False)
        prompts.append(tokenizer.encode(text, add_special_tokens=False))
    base = make.load_model(path, torch.float32)
    notes = {"command": "python3 make_adapters.py SmolLM2-135M-Instruct.Q4_1.gguf", "gguf_sha256": make.GGUF_SHA256}
    for name in ["torch", "transformers", "peft", "safetensors"]:
        notes[name] = importlib.metadata.version(name)
    for name in ["lora", "dora"]:
        config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_dora=name == "dora",
                                 use_rslora=name == "dora", task_type="CAUSAL_LM")
        model = peft.get_peft_model(make.load_model(path, torch.float32), config).eval()
        fill(model, 5 if name == "lora" else 6)
        save(model, HERE / name)
        notes[name] = store(HERE / f"{name}.bin", model, prompts, lambda p, c: forced(base, p, c))
        print(name, notes[name], flush=True)
    (HERE / "provenance.json").write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
