#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Usage: check_natten.py. Asks NATTEN itself (its Flex Attention backend runs on the CPU, in float32; its sources need no
building: PYTHONPATH=natten-0.21.7/src) whether the outputs in g_na1d.bin, g_na2d.bin and g_na3d.bin, and the masks of random
neighborhoods by the rule of make.py, are its own. Ends with 1 where they are not."""

import math
import random
import struct
import sys
import warnings
from pathlib import Path

import torch

warnings.filterwarnings("ignore")
from natten import __version__  # noqa: E402
from natten.functional import na1d, na2d, na3d  # noqa: E402

HERE = Path(__file__).parent
# make.py writes files when it is imported: its rule alone is taken.
RULE = {"torch": torch, "math": math}
SOURCE = (HERE / "make.py").read_text(encoding="utf-8")
exec(SOURCE[SOURCE.index("def natten("):SOURCE.index("def case(")], RULE)  # pylint: disable=exec-used


def attend(axes, q, k, v):
    """(tokens, heads, dim) tensors; axes as in make.py."""
    shape = [a[0] for a in axes]
    grid = [x.reshape(1, *shape, *x.shape[1:]).float() for x in (q, k, v)]
    _, window, dilation, stride, causal = (tuple(values) for values in zip(*axes))
    run = (na1d, na2d, na3d)[len(axes) - 1]
    out = run(*grid, kernel_size=window, dilation=dilation, stride=stride, is_causal=causal, backend="flex-fna")
    return out.reshape(q.shape[0], *q.shape[1:])


def stored(name):
    data = (HERE / f"g_{name}.bin").read_bytes()
    _, heads, kv_heads, queries, keys, dim, value_dim, _ = struct.unpack("<8i", data[:32])
    numbers = torch.frombuffer(bytearray(data[32:]), dtype=torch.float32)
    parts, at = [], 0
    for h, n, d in ((heads, queries, dim), (kv_heads, keys, dim), (kv_heads, keys, value_dim), (heads, queries, value_dim)):
        parts.append(numbers[at:at + h * n * d].reshape(h, n, d).transpose(0, 1).contiguous())
        at += h * n * d
    return parts


def main():
    wrong = 0
    for name, axes in (("na1d", [(40, 5, 3, 1, False)]), ("na2d", [(9, 4, 2, 1, False), (11, 5, 1, 2, True)]),
                       ("na3d", [(4, 2, 1, 1, False), (5, 3, 1, 3, False), (6, 2, 3, 1, False)])):
        q, k, v, expected = stored(name)
        error = (attend(axes, q, k, v) - expected).abs().max().item()
        print(f"g_{name}: largest difference from natten {__version__}: {error:.1e}")
        wrong += not error < 1e-5
    random.seed(1)
    count = 0
    for _ in range(24):
        axes = []
        for _ in range(random.randint(1, 3)):
            length = random.randint(3, 12 if len(axes) == 0 else 6)
            window = random.randint(2, length - 1)  # where a window is all there is, NATTEN takes another path
            dilation = random.randint(1, length // window)
            axes.append((length, window, dilation, random.randint(1, window), random.random() < 0.4))
        tokens = math.prod(a[0] for a in axes)
        zeros = torch.zeros(tokens, 1, 16)
        seen = torch.zeros(tokens, tokens, dtype=torch.bool)
        for first in range(0, tokens, 16):  # what each key weighs, 16 of them at a time
            values = torch.zeros(tokens, 1, 16)
            for i in range(min(16, tokens - first)):
                values[first + i, 0, i] = 1
            weights = attend(axes, zeros, zeros, values)[:, 0]
            seen[:, first:first + 16] = weights[:, :min(16, tokens - first)] > 0
        if not torch.equal(seen, RULE["neighborhood"](axes)):
            print(f"another mask: {axes}")
            wrong += 1
        count += 1
    print(f"{count} random neighborhoods compared, {wrong} wrong")
    return wrong != 0


if __name__ == "__main__":
    sys.exit(main())
