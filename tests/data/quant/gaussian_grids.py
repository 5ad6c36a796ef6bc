#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the grids of include/tessera/quant/gaussian_grids.hpp: n points in p dimensions of least mean squared error for a
standard normal source. Needs torch (the header was made with 2.15.0).

    python3 gaussian_grids.py > gaussian_grids.txt

p = 1: the Lloyd-Max fixed point, from the exact integrals of each cell, until no level moves by 1e-13. p = 2 and 4: CLVQ in
batches (Pages 1998): from the best of several starts or by splitting from one point (LBG), then Lloyd steps on fresh samples, the last ones averaged over a window.
The mean squared error per weight that each grid has on samples of its own is printed with it.
"""
import math
import sys

import torch

torch.set_num_threads(1)
torch.manual_seed(20260201)


def density(x):
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi) if abs(x) < 40 else 0.0


def below(x):
    return 0.5 * math.erfc(-x / math.sqrt(2))


def lloyd_max(n):
    levels = [-3.0 + 6.0 * (i + 0.5) / n for i in range(n)]
    for _ in range(200000):
        edges = [-math.inf] + [(a + b) / 2 for a, b in zip(levels, levels[1:])] + [math.inf]
        moved = 0.0
        for i in range(n):
            lo, hi = edges[i], edges[i + 1]
            # On the positive side by symmetry: the difference of two tails keeps its digits.
            mass = below(hi) - below(lo) if hi <= 0 else below(-lo) - below(-hi)
            mean = ((density(lo) if lo > -math.inf else 0) - (density(hi) if hi < math.inf else 0)) / mass
            moved = max(moved, abs(mean - levels[i]))
            levels[i] = mean
        if moved < 1e-13:
            break
    edges = [-math.inf] + [(a + b) / 2 for a, b in zip(levels, levels[1:])] + [math.inf]
    mse = 1.0 - sum(l * l * (below(hi) - below(lo)) for l, lo, hi in zip(levels, edges, edges[1:]))
    return levels, mse


def nearest(x, grid):
    return (x @ (2 * grid.t()) - (grid * grid).sum(1)).argmax(1)


def step(grid, samples):
    sums = torch.zeros_like(grid)
    counts = torch.zeros(len(grid))
    error = 0.0
    total = 0
    for _ in range(max(1, samples // 65536)):
        x = torch.randn(65536, grid.shape[1])
        code = nearest(x, grid)
        sums.index_add_(0, code, x)
        counts.index_add_(0, code, torch.ones(len(x)))
        error += ((x - grid[code]) ** 2).sum().item()
        total += x.numel()
    return sums, counts, error / total


def split(n, p, samples):
    grid = torch.zeros(1, p)
    while len(grid) < n:
        noise = 0.1 * torch.randn_like(grid)
        grid = torch.cat([grid + noise, grid - noise])
        for _ in range(30):
            sums, counts, _ = step(grid, min(samples, 1024 * len(grid)))
            grid = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], grid)
    return grid


def best_start(n, p, samples, starts):
    best, least = None, math.inf
    for _ in range(starts):
        grid = torch.randn(n, p)
        for _ in range(60):
            sums, counts, _ = step(grid, samples // 8)
            grid = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], grid)
        _, _, mse = step(grid, samples)
        if mse < least:
            best, least = grid, mse
    return best


def clvq(n, p, samples, steps, starts):
    grid = best_start(n, p, samples, starts) if starts > 1 else split(n, p, samples)
    sums = torch.zeros_like(grid)
    counts = torch.zeros(n)
    for i in range(steps):
        # A growing window of samples: the noise of a level falls with all samples seen, not with one batch's.
        keep = 0.0 if i < steps // 3 else 1.0 - 4.0 / (4.0 + i - steps // 3)
        s, c, _ = step(grid, samples)
        sums, counts = keep * sums + s, keep * counts + c
        grid = sums / counts.clamp(min=1e-9)[:, None]
    _, _, mse = step(grid, 16 * samples)
    return sorted(grid.tolist()), mse


def show(p, n, points, mse):
    print(f"// p = {p}, n = {n}: mean squared error {mse:.9f}" if p == 1 else f"// p = {p}, n = {n}: mean squared error {mse:.6f}")
    print(", ".join(f"{v:.7g}f" for point in points for v in (point if p > 1 else [point])))
    sys.stdout.flush()


if __name__ == "__main__":
    for bits in range(1, 9):
        levels, mse = lloyd_max(1 << bits)
        show(1, 1 << bits, levels, mse)
    # Few points have many local optima: the best of several starts; many points: splitting.
    for n, p, samples, steps, starts in ((16, 2, 1 << 19, 60, 24), (64, 2, 1 << 20, 90, 1), (16, 4, 1 << 19, 60, 24),
                                         (256, 2, 1 << 21, 120, 1), (256, 4, 1 << 19, 90, 1)):
        points, mse = clvq(n, p, samples, steps, starts)
        show(p, n, points, mse)
