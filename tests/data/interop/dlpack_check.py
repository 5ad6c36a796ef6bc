#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Hands arrays between torch and tessera by DLPack, both ways; run once by hand, see README.md.

    python3 dlpack_check.py
"""

import ctypes
import pathlib
import subprocess
import tempfile

import torch
import torch.utils.dlpack

HERE = pathlib.Path(__file__).resolve().parent
SOURCE = """
#include <tessera/interop/dlpack.hpp>
namespace ts = tessera;
extern "C" ts::dlpack::managed_tensor* give() {
    ts::matrix<float> t{3, 4};
    for (ts::index_t i = 0; i < 12; ++i) t.data()[i] = static_cast<float>(i);
    return ts::dlpack::exported<ts::dlpack::managed_tensor>(std::move(t));
}
template <class T>
double add_up(ts::dlpack::managed_tensor* m) {
    ts::dlpack::imported const a{m};
    auto const v = a.as_view<T, 2>();
    double sum = 0;
    for (ts::index_t i = 0; i < v.extent(0); ++i)
        for (ts::index_t j = 0; j < v.extent(1); ++j) {
            sum += (i * 10 + j) * static_cast<double>(v(i, j));
            v(i, j) = T(1);
        }
    return sum;
}
extern "C" double take_f32(ts::dlpack::managed_tensor* m) { return add_up<float>(m); }
extern "C" double take_f16(ts::dlpack::managed_tensor* m) { return add_up<ts::fp16>(m); }
extern "C" double take_bf16(ts::dlpack::managed_tensor* m) { return add_up<ts::bf16>(m); }
extern "C" double take_i64(ts::dlpack::managed_tensor* m) { return add_up<std::int64_t>(m); }
extern "C" double take_u8(ts::dlpack::managed_tensor* m) { return add_up<std::uint8_t>(m); }
"""

with tempfile.TemporaryDirectory() as folder:
    library = pathlib.Path(folder) / "check.so"
    source = library.with_suffix(".cpp")
    source.write_text(SOURCE.replace("T(1)", "static_cast<T>(1.0f)"))
    subprocess.run(["g++", "-std=c++20", "-O0", "-shared", "-fPIC", f"-I{HERE.parents[2] / 'include'}", str(source), "-o",
                    str(library)], check=True)
    ours = ctypes.CDLL(str(library))
    python = ctypes.pythonapi
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    python.PyCapsule_SetName.argtypes = [ctypes.py_object, ctypes.c_char_p]

    ours.give.restype = ctypes.c_void_p
    name = b"dltensor"
    t = torch.utils.dlpack.from_dlpack(python.PyCapsule_New(ours.give(), name, None))
    assert torch.equal(t, torch.arange(12.0).reshape(3, 4))
    t += 1
    del t

    used = b"used_dltensor"
    for kind, dtype in [("f32", torch.float32), ("f16", torch.float16), ("bf16", torch.bfloat16), ("i64", torch.int64),
                        ("u8", torch.uint8)]:
        theirs = torch.arange(30).reshape(5, 6).to(dtype).T[1:5:2]
        weight = torch.arange(2)[:, None] * 10.0 + torch.arange(5)
        expected = (weight * theirs.float()).sum().item()
        capsule = torch.utils.dlpack.to_dlpack(theirs)
        take = getattr(ours, f"take_{kind}")
        take.restype, take.argtypes = ctypes.c_double, [ctypes.c_void_p]
        assert take(python.PyCapsule_GetPointer(capsule, name)) == expected, kind
        python.PyCapsule_SetName(capsule, used)
        assert torch.equal(theirs, torch.ones_like(theirs)), kind
print("torch and tessera agree")
