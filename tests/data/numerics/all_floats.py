# SPDX-License-Identifier: MIT
"""Compares tessera's scalar encoders with ml_dtypes on all 2^32 float32 inputs: python3 all_floats.py [include folder]

Builds a small shared library from the headers (c++ must be there), runs both over chunks of 2^24 inputs and compares
every code. Takes minutes; the result that was found is noted in README.md.
"""
import ctypes
import pathlib
import subprocess
import sys
import tempfile

import ml_dtypes
import numpy as np

SOURCE = """
#include <tessera/numerics/fp8.hpp>
#include <tessera/numerics/half.hpp>
extern "C" void e4m3fn(float const* x, unsigned char* y, long n) {
    for (long i = 0; i < n; ++i) y[i] = tessera::e4m3fn{x[i]}.to_bits();
}
extern "C" void bf16(float const* x, unsigned short* y, long n) {
    for (long i = 0; i < n; ++i) y[i] = tessera::bf16{x[i]}.to_bits();
}
"""
CHUNK = 1 << 24


def main():
    include = sys.argv[1] if len(sys.argv) > 1 else str(pathlib.Path(__file__).resolve().parents[3] / "include")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "a.cpp").write_text(SOURCE)
        subprocess.run(["c++", "-std=c++20", "-O2", "-shared", "-fPIC", f"-I{include}", str(path / "a.cpp"), "-o",
                        str(path / "a.so")], check=True)
        library = ctypes.CDLL(str(path / "a.so"))
        for name, dtype, code in (("e4m3fn", ml_dtypes.float8_e4m3fn, np.uint8), ("bf16", ml_dtypes.bfloat16, np.uint16)):
            inputs = differing = 0
            first = None
            for start in range(0, 1 << 32, CHUNK):
                x = np.arange(start, start + CHUNK, dtype=np.uint32).view(np.float32)
                ours = np.empty(CHUNK, code)
                getattr(library, name)(x.ctypes.data_as(ctypes.c_void_p), ours.ctypes.data_as(ctypes.c_void_p),
                                       ctypes.c_long(CHUNK))
                with np.errstate(all="ignore"):
                    theirs = x.astype(dtype).view(code)
                wrong = np.flatnonzero(ours != theirs)
                inputs += CHUNK
                differing += wrong.size
                if wrong.size and first is None:
                    first = hex(start + int(wrong[0]))
            print(f"{name}: {inputs} inputs, {differing} codes differ, first at {first}; ml_dtypes "
                  f"{ml_dtypes.__version__}, numpy {np.__version__}", flush=True)


main()
