# SPDX-License-Identifier: MIT
"""Writes the reference vectors of tests/unit/numerics with ml_dtypes and numpy: python3 make.py

One file a type, little-endian, the parts in this order (n_codes = 2^bits; codes are u8, of bf16 and fp16 u16):

    float types       decode            n_codes f32   value of each code; not for bf16 and fp16
                      from_bf16         65536 codes   of the float32 with bits i << 16
                      from_f16          65536 codes   of the float32 that half i is
                      from_mixed        16384 codes   of the float32 with bits mix(i), see below
                      n                 u32
                      ties              n f32         midpoints of neighbouring values, each with the float32 on
                                                      either side, both signs, and the values around the ends;
                                                      not for bf16 and fp16, whose ties the test computes:
                                                      bits (c << 16) + 0x7fff, + 0x8000, + 0x8001 for bf16,
                                                      half c and its successor's midpoint for fp16, positive c only
                      from_ties         n codes
    small integers    decode            n_codes f32
                      from_eighths      codes         of min + i / 8 for all of these up to max (truncation)
"""
import json
import pathlib
import platform

import ml_dtypes
import numpy as np

HERE = pathlib.Path(__file__).parent
FLOATS = ["float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2",
          "float8_e5m2fnuz", "float8_e8m0fnu", "float6_e2m3fn", "float6_e3m2fn", "float4_e2m1fn"]
INTEGERS = ["int2", "uint2", "int4", "uint4"]


def mix(i):
    """Spreads 0..16383 over all float32 bit patterns; the test has the same lines."""
    x = i.astype(np.uint32) * np.uint32(0x9E3779B1)
    x ^= x >> np.uint32(15)
    x *= np.uint32(0x85EBCA77)
    x ^= x >> np.uint32(13)
    return x


def bits(dtype):
    return int(ml_dtypes.finfo(dtype).bits)


def ties_of(values):
    """Midpoints of neighbouring finite values and the float32 around them and around the values at the ends."""
    finite = np.unique(values[np.isfinite(values)]).astype(np.float64)
    middle = (finite[1:] + finite[:-1]) / 2
    step = finite[-1] - finite[-2]
    ends = np.array([finite[-1], finite[-1] + step / 2, finite[-1] + step, finite[finite > 0][0]])
    points = np.concatenate([middle, ends, -ends]).astype(np.float32)
    below = np.nextafter(points, np.float32(-np.inf))
    above = np.nextafter(points, np.float32(np.inf))
    return np.unique(np.concatenate([points, below, above, -points]))


def main():
    index = np.arange(65536, dtype=np.uint32)
    from_bf16 = (index << np.uint32(16)).view(np.float32)
    from_f16 = index.astype(np.uint16).view(np.float16).astype(np.float32)
    mixed = mix(index[:16384]).view(np.float32)
    sizes = {}

    def write(name, parts):
        data = b"".join(np.ascontiguousarray(p).astype(p.dtype.newbyteorder("<")).tobytes() for p in parts)
        (HERE / f"{name}.bin").write_bytes(data)
        sizes[f"{name}.bin"] = len(data)

    with np.errstate(all="ignore"):
        for name in FLOATS:
            dtype = np.dtype(getattr(ml_dtypes, name))
            code = lambda x: x.astype(dtype).view(np.uint8)
            decode = np.arange(1 << bits(dtype), dtype=np.uint8).view(dtype).astype(np.float32)
            ties = ties_of(decode)
            write(name, [decode, code(from_bf16), code(from_f16), code(mixed), np.array([ties.size], np.uint32), ties,
                         code(ties)])

        bf16 = lambda x: x.astype(ml_dtypes.bfloat16).view(np.uint16)
        c = np.arange(0x7F80, dtype=np.uint32)
        ties = np.stack([(c << 16) + d for d in (0x7FFF, 0x8000, 0x8001)], 1).astype(np.uint32).view(np.float32)
        write("bfloat16", [bf16(from_bf16), bf16(from_f16), bf16(mixed), bf16(ties)])

        half = lambda x: x.astype(np.float16).view(np.uint16)
        value = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
        middle = (value + np.append(value[1:], 65536.0)) / 2
        middle = middle.astype(np.float32)
        ties = np.stack([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(np.inf))], 1)
        write("float16", [half(from_bf16), half(from_f16), half(mixed), half(ties)])

    for name in INTEGERS:
        dtype = np.dtype(getattr(ml_dtypes, name))
        info = ml_dtypes.iinfo(dtype)
        decode = np.arange(1 << info.bits, dtype=np.uint8).view(dtype).astype(np.float32)
        eighths = (np.arange((int(info.max) - int(info.min)) * 8 + 1) / 8 + int(info.min)).astype(np.float32)
        mask = np.uint8((1 << info.bits) - 1)
        write(name, [decode, eighths.astype(dtype).view(np.uint8) & mask])

    made = {"made_by": "tests/data/numerics/make.py", "ml_dtypes": ml_dtypes.__version__, "numpy": np.__version__,
            "python": platform.python_version(), "bytes": sizes}
    (HERE / "provenance.json").write_text(json.dumps(made, indent=1) + "\n")


main()
