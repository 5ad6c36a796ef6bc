# SPDX-License-Identifier: MIT
"""Quantised linear layers in the layouts of other libraries, made and decoded by these libraries.

    python3 make.py AUTO_GPTQ AUTO_AWQ     # folders with the unpacked packages auto_gptq 0.7.1 and autoawq 0.2.9

Each file holds a layer's tensors as the library saves them, and `expected`, the weights (n, k) in float32 that the library itself
decodes them to (gptq.safetensors: products with the unit matrix; onnxruntime.safetensors: likewise, in float32).
"""
import importlib.util
import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).parent
auto_gptq, auto_awq = map(pathlib.Path, sys.argv[1:3])
torch.manual_seed(4)


def load(path):
    """One file of a package, without the package (whose imports want a GPU)."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def gptq():
    library = load(auto_gptq / "auto_gptq/nn_modules/qlinear/qlinear_cuda.py")
    n, k, group = 32, 128, 32
    out = {}

    def layer(name, bits, group, g_idx=None):
        groups = k // group
        scales = (torch.rand(n, groups) * 0.1 + 0.01).half().float()
        zeros = torch.randint(1, 2**bits, (n, groups)).float()
        index = torch.arange(k) // group if g_idx is None else g_idx.long()
        codes = torch.randint(0, 2**bits, (n, k)).float()
        linear = torch.nn.Linear(k, n, bias=False)
        linear.weight.data = scales[:, index] * (codes - zeros[:, index])
        q = library.QuantLinear(bits, group, k, n, False, weight_dtype=torch.float32)
        q.pack(linear, scales, zeros.clone(), g_idx)
        out[name + ".expected"] = q(torch.eye(k)).t().contiguous()
        assert torch.equal(out[name + ".expected"], linear.weight.data), name
        for part in ("qweight", "qzeros", "g_idx"):
            out[f"{name}.{part}"] = getattr(q, part).clone().contiguous()
        out[name + ".scales"] = q.scales.half().contiguous()

    for bits in (2, 3, 4, 8):
        layer(f"bits{bits}", bits, group)
    layer("row", 4, k)
    layer("act_order", 4, group, (torch.randperm(k) // group).int())
    # version 2: the same with zero points as they are
    for part in ("qweight", "g_idx", "scales", "expected"):
        out[f"v2.{part}"] = out[f"bits4.{part}"].clone()
    out["v2.qzeros"] = out["bits4.qzeros"] + 0x11111111
    save_file(out, here / "gptq.safetensors")


def awq():
    library = load(auto_awq / "awq/utils/packing_utils.py")
    n, k, group = 32, 128, 64
    order = [0, 2, 4, 6, 1, 3, 5, 7]  # WQLinear_GEMM.from_linear

    def pack(codes):
        words = torch.zeros(codes.shape[0], codes.shape[1] // 8, dtype=torch.int64)
        for i in range(8):
            words |= codes[:, order[i] :: 8].long() << (4 * i)
        return (words - ((words >> 31) << 32)).int()

    scales = (torch.rand(k // group, n) * 0.1 + 0.01).half()
    q = {
        "layer.qweight": pack(torch.randint(0, 16, (k, n))),
        "layer.qzeros": pack(torch.randint(0, 16, (k // group, n))),
        "layer.scales": scales,
    }
    w = library.dequantize_gemm(q["layer.qweight"], q["layer.qzeros"], scales.float(), 4, group)
    q["layer.expected"] = w.t().float().contiguous()
    save_file(q, here / "awq.safetensors")


def bitsandbytes():
    import bitsandbytes.functional as library

    n, k = 20, 192
    out = {}
    w = torch.randn(n, k) * torch.rand(n, 1)
    for kind in ("nf4", "fp4"):
        for nested in (False, True):
            name = kind + ("_nested" if nested else "")
            q, state = library.quantize_4bit(w, blocksize=64, quant_type=kind, compress_statistics=nested)
            out[name + ".weight"] = q
            for part, value in state.as_dict(packed=True).items():
                out[f"{name}.weight.{part}"] = value.clone()
            out[name + ".expected"] = library.dequantize_4bit(q, state).contiguous()
    save_file(out, here / "bitsandbytes.safetensors")


def onnx_runtime():
    from onnx import TensorProto, helper

    out = {}

    def layer(name, bits, block, n, k, zeros, dtype=np.float32):
        blocks = -(-k // block)
        b = np.random.default_rng(bits).integers(0, 256, (n, blocks, block * bits // 8), dtype=np.uint8)
        scales = (np.random.default_rng(7).random((n, blocks)) * 0.1 + 0.01).astype(dtype)
        arrays = {"B": b, "scales": scales.reshape(-1)}
        if zeros:
            arrays["zero_points"] = np.random.default_rng(8).integers(0, 256, n * -(-blocks * bits // 8), dtype=np.uint8)
        types = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.uint8): TensorProto.UINT8}
        node = helper.make_node(
            "MatMulNBits", ["x", *arrays], ["y"], domain="com.microsoft", K=k, N=n, bits=bits, block_size=block, accuracy_level=1
        )
        graph = helper.make_graph(
            [node],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [k, k])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [k, n])],
            [helper.make_tensor(a, types[v.dtype], v.shape, v.tobytes(), raw=True) for a, v in arrays.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=9)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        y = session.run(None, {"x": np.eye(k, dtype=np.float32)})[0]
        for a, v in arrays.items():
            out[f"{name}.{a}"] = torch.from_numpy(v)
        out[name + ".expected"] = torch.from_numpy(np.ascontiguousarray(y.T))

    layer("bits4", 4, 32, 24, 128, True)
    layer("bits4_odd", 4, 16, 9, 88, True)  # an odd number of blocks, the last one half full
    layer("bits4_default", 4, 32, 9, 64, False)
    layer("bits8", 8, 32, 9, 96, True)
    layer("bits2", 2, 32, 9, 96, True)
    save_file(out, here / "onnxruntime.safetensors")


for f in (gptq, awq, bitsandbytes, onnx_runtime):
    f()
