# SPDX-License-Identifier: MIT
# Errors of VPTQ's codes on numbers of N(0, 1), computed by numpy in double apart from the library: 512 x 1024 numbers, columns
# normalised by their extremes, vectors of rows, Lloyd's iteration from k-means++ until it stops.
import numpy as np


def lloyd(x, count, rng, steps=20):
    c = np.empty((count, x.shape[1]))
    c[0] = x[rng.integers(len(x))]
    d = ((x - c[0]) ** 2).sum(1)
    for i in range(1, count):
        c[i] = x[rng.choice(len(x), p=d / d.sum())]
        d = np.minimum(d, ((x - c[i]) ** 2).sum(1))
    for _ in range(steps):
        a = nearest(x, c)
        n = np.bincount(a, minlength=count)
        s = np.stack([np.bincount(a, x[:, j], minlength=count) for j in range(x.shape[1])], 1)
        c = np.where(n[:, None] > 0, s / np.maximum(n, 1)[:, None], c)
    return c


def nearest(x, c):
    return (x @ (-2 * c.T) + (c * c).sum(1)).argmin(1)


def error(w, vector, outliers=0, residual=False, seed=0):
    rng = np.random.default_rng(seed)
    low, scale = w.min(0), w.max(0) - w.min(0)
    n = (w - low) / scale
    order = np.argsort(-(w * w).sum(0), kind="stable")
    out = np.empty_like(w)
    for columns, v, stages in ((order[:outliers], 4, 1), (order[outliers:], vector, 2 if residual else 1)):
        if len(columns) == 0:
            continue
        x = n[:, columns].T.reshape(-1, v)
        back = np.zeros_like(x)
        for _ in range(stages):
            c = lloyd(x - back, 256, rng)
            back = back + c[nearest(x - back, c)]
        out[:, columns] = back.reshape(len(columns), -1).T
    return ((out * scale + low - w) ** 2).mean()


for name, arguments in (("8, 8 bits", dict(vector=8)), ("4, 8 bits", dict(vector=4)),
                        ("8, 8 + 8 bits", dict(vector=8, residual=True)), ("8, 8 bits, 8 outliers", dict(vector=8, outliers=8))):
    found = [error(np.random.default_rng(100 + s).standard_normal((512, 1024)), seed=s, **arguments) for s in range(3)]
    print(f"{name}: {np.mean(found):.5f} +- {np.std(found):.5f}", flush=True)

# numpy 2, seeds 0 to 2:
# 8, 8 bits: 0.33166 +- 0.00084
# 4, 8 bits: 0.10100 +- 0.00038
# 8, 8 + 8 bits: 0.10533 +- 0.00020
# 8, 8 bits, 8 outliers: 0.32920 +- 0.00096
