# SPDX-License-Identifier: MIT
"""Writes scipy.bin: products by scipy.sparse, and what numpy keeps of dense matrices. README.md says how it is laid out."""
import numpy as np
import scipy
import scipy.sparse as sp

rng = np.random.default_rng(20261122)
out = open("scipy.bin", "wb")


def put(array, kind):
    out.write(np.ascontiguousarray(array, dtype=kind).tobytes())


def product(n, k, m, density):
    a = sp.random(n, k, density, "csr", np.float32, rng, lambda size: rng.standard_normal(size).astype(np.float32))
    a.sort_indices()
    a.sum_duplicates()
    x = rng.standard_normal((m, k)).astype(np.float32)
    dy = rng.standard_normal((m, n)).astype(np.float32)
    exact = a.astype(np.float64)
    put([0, n, k, m, a.nnz], "<i4")
    put(a.indptr, "<i4"), put(a.indices, "<i4"), put(a.data, "<f4"), put(x, "<f4"), put(dy, "<f4")
    put((exact @ x.T.astype(np.float64)).T, "<f8"), put((exact.T @ dy.T.astype(np.float64)).T, "<f8")


def pruned(rule, w, keep):
    a = sp.csr_matrix((w[keep], np.nonzero(keep)), shape=w.shape)
    a.sort_indices()
    put([rule, *w.shape, 0, a.nnz], "<i4")
    put(w, "<f4"), put(a.indptr, "<i4"), put(a.indices, "<i4"), put(a.data, "<f4")


def mask(shape, index):
    keep = np.zeros(shape, bool)
    keep.reshape(-1)[index] = True
    return keep


for case in [(33, 70, 1, 0.1), (64, 257, 3, 0.02), (131, 40, 17, 0.3), (7, 5, 4, 1.0), (5, 9, 2, 0.0), (300, 90, 33, 0.05)]:
    product(*case)
w = rng.integers(-4, 5, (13, 30)).astype(np.float32)  # many ties
largest = np.argsort(-np.abs(w), axis=None, kind="stable")
pruned(1, w, np.abs(w) >= 3)
rows = np.argsort(-np.abs(w), axis=1, kind="stable")[:, :3] + 30 * np.arange(13)[:, None]
pruned(2, w, mask(w.shape, rows))
pruned(3, w, mask(w.shape, largest[: round(0.1 * w.size)]))
w = rng.integers(-4, 5, (13, 32)).astype(np.float32)
groups = np.argsort(np.abs(w.reshape(-1, 4)), axis=1, kind="stable")[:, 2:] + 4 * np.arange(w.size // 4)[:, None]
pruned(4, w, mask(w.shape, groups))
put([-1, 0, 0, 0, 0], "<i4")
print(f"scipy {scipy.__version__}, numpy {np.__version__}: {out.tell()} bytes")
