# SPDX-License-Identifier: MIT
# Mean squared errors of ggml's own encoders on numbers of N(0, 1), without an importance matrix and with one of ones (some formats
# want one): what examples/rate_distortion takes as published.
#     python3 ggml_gauss.py libggml-base.so          (ggml 0.25.3, gguf-py decodes)
import ctypes
import sys

import gguf
import numpy as np

ggml = ctypes.CDLL(sys.argv[1])
ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
ggml.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + 3 * [ctypes.c_int64] + [ctypes.c_void_p]
w = np.random.default_rng(1).standard_normal((256, 1024)).astype(np.float32)
ones = np.ones(1024, np.float32)
for name in "Q6_K Q5_K Q4_K Q3_K Q2_K IQ4_NL IQ4_XS IQ3_S IQ3_XXS IQ2_S IQ2_XS IQ2_XXS IQ1_M IQ1_S".split():
    kind = gguf.GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    out = np.zeros((256, 1024 // block * size), np.uint8)
    ggml.ggml_quantize_init(int(kind))
    for importance in (None, ones):
        if importance is None and name in ("IQ2_XXS", "IQ2_XS", "IQ1_S"):
            continue
        ggml.ggml_quantize_chunk(int(kind), w.ctypes.data, out.ctypes.data, 0, 256, 1024, None if importance is None else importance.ctypes.data)
        e = ((w.astype(np.float64) - gguf.quants.dequantize(out, kind)) ** 2).mean(axis=1)
        print(f"{name} {'no' if importance is None else 'ones'}: {e.mean():.5e} +- {e.std() / 16:.1e}")
