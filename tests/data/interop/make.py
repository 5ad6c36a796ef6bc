#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes the files of this folder, by the packages whose formats they are; see README.md.

    python3 make.py

Needs: numpy, torch, safetensors.
"""

import importlib.metadata
import json
import pathlib
import platform

import numpy
import safetensors.torch
import torch

HERE = pathlib.Path(__file__).resolve().parent

TYPES = {
    "f64": torch.float64, "f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16,
    "f8_e4m3": torch.float8_e4m3fn, "f8_e5m2": torch.float8_e5m2, "i8": torch.int8, "i16": torch.int16,
    "i32": torch.int32, "i64": torch.int64, "u8": torch.uint8, "u16": torch.uint16, "u32": torch.uint32,
    "u64": torch.uint64, "bool": torch.bool,
}


def values(shape, dtype):
    """0, 1, 2, ... (booleans: 0, 1, 0, ...): exact in every type."""
    count = numpy.arange(int(numpy.prod(shape)), dtype=numpy.float32).reshape(shape)
    return torch.tensor(count % 2 if dtype == torch.bool else count).to(dtype)


def write_safetensors():
    tensors = {name: values((2, 3), dtype) for name, dtype in TYPES.items()}
    tensors["scalar"] = values((), torch.float32) + 7
    tensors["empty"] = values((0, 5), torch.float32)
    tensors["rank4"] = values((2, 1, 3, 2), torch.int16)
    tensors['odd "name" \\ \n\t\x01 \u00e9 \u65e5 \U0001f600'] = values((1,), torch.uint8)
    safetensors.torch.save_file(tensors, HERE / "tiny.safetensors", metadata={"note": 'line\n"quoted" \u00fc'})
    safetensors.torch.save_file({}, HERE / "none.safetensors")


def write_npy():
    def save(name, array, version=None):
        with open(HERE / f"{name}.npy", "wb") as out:
            numpy.lib.format.write_array(out, array, version=version)

    count = numpy.arange(12)
    save("c", count.reshape(3, 4).astype("<f4"))
    save("fortran", numpy.asfortranarray(count.reshape(3, 4).astype("<f8")))
    save("fortran3", numpy.asfortranarray(count.reshape(3, 2, 2).astype("<i2")))
    save("version2", count.reshape(2, 6).astype("<f2"), (2, 0))
    save("version3", count.reshape(12, 1).astype("<i8"), (3, 0))
    save("scalar", numpy.array(7, dtype="<f4"))
    save("empty", numpy.zeros((0, 5), dtype="<f4"))
    for code in ["i1", "u1", "u2", "i4", "u4", "u8"]:
        save(code, count.astype(code))
    save("b1", count % 2 == 1)
    save("big_endian", count.astype(">f4"))
    save("structure", numpy.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))


write_safetensors()
write_npy()
provenance = {"command": "python3 make.py", "python": platform.python_version()}
for name in ["numpy", "torch", "safetensors"]:
    provenance[name] = importlib.metadata.version(name)
(HERE / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
