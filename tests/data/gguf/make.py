# SPDX-License-Identifier: MIT
"""Reference data for the GGUF reader and the block formats, made by gguf-py (`pip install gguf==0.19.0`).

    python3 make.py              # writes tiny.gguf, <format>_blocks.bin, <format>_encode.bin beside this file
    python3 make.py q5_0 q2_k    # only these formats' .bin: what was made before stays as it is

<format>_blocks.bin  count (u32), then count blocks as stored, then their values in float32: gguf.quants.dequantize
<format>_encode.bin  count (u32), then count * 32 float32, then count blocks: gguf.quants.quantize (not the k formats, which
                     gguf-py does not encode)
tiny.gguf            one value of every metadata type and one tensor of every type that tessera reads
"""
import pathlib
import sys

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

here = pathlib.Path(__file__).parent
wanted = sys.argv[1:]
random = np.random.default_rng(20240601 if not wanted else 20240602)
formats = {"q4_0": (T.Q4_0, 18, 1), "q4_1": (T.Q4_1, 20, 2), "q8_0": (T.Q8_0, 34, 1)}
later = {"q5_0": (T.Q5_0, 22, 1), "q5_1": (T.Q5_1, 24, 2)}
# type, bytes of a block of 256, where its fp16 scales begin, how many there are
k_formats = {
    "q2_k": (T.Q2_K, 84, 80, 2),
    "q3_k": (T.Q3_K, 110, 108, 1),
    "q4_k": (T.Q4_K, 144, 0, 2),
    "q5_k": (T.Q5_K, 176, 0, 2),
    "q6_k": (T.Q6_K, 210, 208, 1),
}


def decode_vectors(name, qtype, size, halves, at=0, count=512):
    """Every kind of fp16 scale (normal, subnormal, zeros, both signs; no NaN or infinity), all codes."""
    blocks = random.integers(0, 256, (count, size), dtype=np.uint8)
    scales = random.integers(0, 0x7C00, (count, halves)) | random.integers(0, 2, (count, halves)) << 15
    special = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]
    for i, s in enumerate(special):
        for j, t in enumerate(special):
            scales[8 * i + j] = [s, t][:halves]
    blocks[:, at : at + 2 * halves] = scales.astype("<u2").view(np.uint8).reshape(count, 2 * halves)
    values = gguf.quants.dequantize(blocks, qtype)
    with open(here / f"{name}_blocks.bin", "wb") as f:
        f.write(np.uint32(count).tobytes() + blocks.tobytes() + values.astype("<f4").tobytes())


def encode_vectors(name, qtype):
    """Normal data of many magnitudes, and rows chosen to be hard: ties, constants, one outlier, zeros, subnormals."""
    x = random.standard_normal((768, 32)).astype(np.float32)
    x[:256] *= np.exp2(random.integers(-20, 12, (256, 1))).astype(np.float32)
    # a grid of half steps: nearly every code is a tie
    x[256:384] = random.integers(-16, 17, (128, 32)) * np.float32(0.5) * np.exp2(random.integers(-6, 7, (128, 1)))
    x[384:448] = random.integers(-254, 255, (64, 32)) * np.float32(0.5) / 127
    # values one unit in the last place beside a rounding boundary
    x[448:512] = np.nextafter(x[320:384], random.choice([-np.inf, np.inf], (64, 32)).astype(np.float32))
    x[512:544] = random.standard_normal((32, 1)).astype(np.float32)  # constant rows
    x[544:576, 1:] *= np.float32(1e-6)  # one outlier
    x[576:608] = np.abs(x[576:608])
    x[608:640] = -np.abs(x[608:640])
    x[640] = 0.0
    x[641] = 1.0
    x[642] = np.arange(32)
    x[643] = -np.arange(32)
    x[644] = 65504.0 * np.linspace(-1, 1, 32)
    x[645] = 1e-7 * np.arange(32)  # the fp16 scale is subnormal
    x[646] = 1e-9 * np.arange(32)  # the fp16 scale is zero
    x = x.astype("<f4")
    blocks = np.concatenate([gguf.quants.quantize(x[i : i + 16], qtype) for i in range(0, len(x), 16)])
    with open(here / f"{name}_encode.bin", "wb") as f:
        f.write(np.uint32(len(x)).tobytes() + x.tobytes() + blocks.tobytes())


def tiny_file():
    w = gguf.GGUFWriter(here / "tiny.gguf", "llama")
    w.add_uint8("test.uint8", 200)
    w.add_int8("test.int8", -100)
    w.add_uint16("test.uint16", 60000)
    w.add_int16("test.int16", -30000)
    w.add_uint32("test.uint32", 4000000000)
    w.add_int32("test.int32", -2000000000)
    w.add_float32("test.float32", 0.1)
    w.add_bool("test.bool", True)
    w.add_string("test.string", "gr\u00fc\u00df dich")
    w.add_key_value("test.empty", "", gguf.GGUFValueType.STRING)
    w.add_array("test.strings", ["a", "", "\u65e5\u672c", "d" * 40])
    w.add_array("test.integers", [1, -2, 3])
    w.add_array("test.floats", [0.5, -0.25])
    w.add_array("test.bools", [True, False, True])
    w.add_uint64("test.uint64", 2**63 + 5)
    w.add_int64("test.int64", -(2**62))
    w.add_float64("test.float64", 1e-300)
    x = random.standard_normal((3, 64)).astype(np.float32)
    w.add_tensor("dense.f32", x)
    w.add_tensor("dense.f16", x.astype(np.float16))
    w.add_tensor("vector.f32", x[0, :5].copy())
    w.add_tensor("dense.bf16", gguf.quants.quantize(x, T.BF16), raw_dtype=T.BF16)
    for name, (qtype, _, _) in formats.items():
        w.add_tensor("blocks." + name, gguf.quants.quantize(x, qtype), raw_dtype=qtype)
    w.add_tensor("rank4.f32", np.arange(48, dtype=np.float32).reshape(2, 3, 4, 2))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    x.tofile(here / "tiny_x.bin")


if not wanted:
    for name, (qtype, size, halves) in formats.items():
        decode_vectors(name, qtype, size, halves)
        encode_vectors(name, qtype)
    tiny_file()
for name in wanted:
    if name in later:
        qtype, size, halves = later[name]
        decode_vectors(name, qtype, size, halves)
        encode_vectors(name, qtype)
    else:
        qtype, size, at, halves = k_formats[name]
        decode_vectors(name, qtype, size, halves, at, count=96)
