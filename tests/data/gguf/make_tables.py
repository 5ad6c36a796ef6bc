# SPDX-License-Identifier: MIT
"""Reference data for the ternary, table and grid formats, made by gguf-py (`pip install gguf==0.19.0`) and ggml itself.

    GGML_BASE=.../libggml-base.so python3 make_tables.py        # writes <format>_blocks.bin, <format>_encode.bin

<format>_blocks.bin  count (u32), then count blocks as stored, then their values in float32: gguf.quants.dequantize, equal to
                     ggml's dequantize_row_*; of q1_0 and q2_0, which gguf-py does not decode, the latter alone
<format>_encode.bin  count (u32), then the values of count blocks in float32, then the blocks: ggml's quantize_row_*_ref (equal
                     to gguf.quants.quantize for those that it has: tq1_0, tq2_0, mxfp4)
"""
import ctypes
import os
import pathlib

import gguf
import numpy as np
from gguf import GGMLQuantizationType as T

here = pathlib.Path(__file__).parent
ggml = ctypes.CDLL(os.environ["GGML_BASE"])
random = np.random.default_rng(20261122)

# values and bytes of a block, where its fp16 scales begin (None: another scale), how many blocks
formats = {
    "q1_0": (128, 18, 0, 96),
    "q2_0": (64, 18, 0, 128),
    "tq1_0": (256, 54, 52, 64),
    "tq2_0": (256, 66, 64, 64),
    "iq4_nl": (32, 18, 0, 192),
    "iq4_xs": (256, 136, 0, 64),
    "mxfp4": (32, 17, None, 254),
    "nvfp4": (64, 36, None, 128),
    "iq1_s": (256, 50, 0, 64),
    "iq1_m": (256, 56, None, 64),
    "iq2_xxs": (256, 66, 0, 64),
    "iq2_xs": (256, 74, 0, 64),
    "iq2_s": (256, 82, 0, 64),
    "iq3_xxs": (256, 98, 0, 64),
    "iq3_s": (256, 110, 0, 64),
}
encoded = ["q1_0", "q2_0", "tq1_0", "tq2_0", "mxfp4", "nvfp4"]


def by_ggml(name, blocks, size):
    y = np.zeros((len(blocks), size), dtype=np.float32)
    f = getattr(ggml, f"dequantize_row_{name}")
    f(blocks.ctypes.data_as(ctypes.c_void_p), y.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(y.size))
    return y


def same_bits(a, b):
    return np.array_equal(a.astype("<f4").view(np.uint32), b.astype("<f4").view(np.uint32))


def decode_vectors(name, size, bytes_, at, count):
    """Every kind of scale (normal, subnormal, zeros, both signs; no NaN or infinity), random codes."""
    blocks = random.integers(0, 256, (count, bytes_), dtype=np.uint8)
    scales = random.integers(0, 0x7C00, count) | random.integers(0, 2, count) << 15
    scales[:8] = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00]
    if at is not None:
        blocks[:, at : at + 2] = scales.astype("<u2").view(np.uint8).reshape(count, 2)
    elif name == "mxfp4":
        blocks[:, 0] = np.arange(count)  # all exponents; 255 is NaN here, not in ggml
        blocks[count - 2 :, 1:] &= 0x33  # no overflow
    elif name == "nvfp4":
        blocks[:32, :4] = np.arange(128).reshape(32, 4)
        blocks[:, :4] = np.where(blocks[:, :4] & 127 == 127, 1, blocks[:, :4])  # NaN here, not in ggml
    elif name == "iq1_m":  # four bits of the scale in the high half of every other byte from 49 on
        for i in range(4):
            at = 49 + 2 * i
            blocks[:, at] = (blocks[:, at] & 15) | (scales >> 4 * i & 15) << 4
    values = by_ggml(name, blocks, size)
    if name not in ("q1_0", "q2_0"):
        other = gguf.quants.dequantize(blocks, T[name.upper()])
        different = values.view(np.uint32) != other.astype("<f4").view(np.uint32)
        assert not (different & (values != 0)).any(), name  # signs of zeros differ in places; ggml's are kept
        print(name, "signs of zeros that differ:", int(different.sum()))
    with open(here / f"{name}_blocks.bin", "wb") as f:
        f.write(np.uint32(count).tobytes() + blocks.tobytes() + values.astype("<f4").tobytes())


def encode_vectors(name, size, bytes_):
    """Normal data of many magnitudes, and blocks chosen to be hard: ties, constants, one outlier, zeros, subnormals."""
    n = 96
    x = random.standard_normal((n, size)).astype(np.float32)
    x[:32] *= np.exp2(random.integers(-12, 8, (32, 1))).astype(np.float32)
    x[32:48] = random.integers(-24, 25, (16, size)) * np.float32(0.25) * np.exp2(random.integers(-6, 7, (16, 1)))
    x[48:56] = random.standard_normal((8, 1)).astype(np.float32)
    x[56:60, 1:] *= np.float32(1e-6)
    x[60] = 0.0
    x[61] = 1.0
    x[62] = np.arange(size)
    x[63] = -np.arange(size)
    x[64] = 1e-7 * np.arange(size)
    x[65] = 1e-9 * np.arange(size)
    if name == "nvfp4":  # scales that ggml and e4m3 to nearest even share: below 240, no ties, not just below 2^-6
        for block in x.reshape(-1, 16):
            scale = np.float32(np.abs(block).max()) / np.float32(6)
            if scale >= 240:
                block /= np.float32(512)
            elif scale > 0 and np.float64(scale) / np.exp2(max(np.floor(np.log2(scale)), -6) - 4) % 1 == 0:
                block *= np.float32(1.01)
            elif 7.5 / 512 <= scale < 8 / 512:
                block *= np.float32(1.1)
    if name == "mxfp4":  # not just below a power of two, where log2f rounds up
        amax = np.abs(x).max(axis=1)
        assert (np.floor(np.log2(amax[amax > 0].astype(np.float64))) == np.floor(np.log2(amax[amax > 0]))).all()
    x = np.ascontiguousarray(x.astype("<f4"))
    blocks = np.zeros((n, bytes_), dtype=np.uint8)
    f = getattr(ggml, f"quantize_row_{name}_ref")
    f(x.ctypes.data_as(ctypes.c_void_p), blocks.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(x.size))
    if name in ("tq1_0", "tq2_0", "mxfp4"):
        assert np.array_equal(blocks, gguf.quants.quantize(x, T[name.upper()])), name
    with open(here / f"{name}_encode.bin", "wb") as f:
        f.write(np.uint32(n).tobytes() + x.tobytes() + blocks.tobytes())


for name, (size, bytes_, at, count) in formats.items():
    decode_vectors(name, size, bytes_, at, count)
for name in encoded:
    encode_vectors(name, *formats[name][:2])
