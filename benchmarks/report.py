#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""report.py FOLDER: turns FOLDER/*.json of Google Benchmark into report.md, and with matplotlib roofline.png, pareto.png,
attention_length.png."""

import json
import math
import re
import sys
from pathlib import Path


def read(folder):
    """(context: the first file's, and what only later ones have; every benchmark of all files)"""
    context, rows = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            print(f"{path.name} is not complete, left out", file=sys.stderr)
            continue
        context = {**data["context"], **context}
        rows += [b for b in data["benchmarks"] if b.get("run_type") != "aggregate"]
    return context, rows


def seconds(row):
    return row["real_time"] * {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1}[row["time_unit"]]


def short(name):
    return re.sub(r"/(iterations:\d+|manual_time|real_time|process_time)", "", name)


def number(value):
    if value is None:
        return ""
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def markdown(context, rows):
    columns = ["gbps", "gflops", "of_limit", "read_gbps"]
    columns += sorted({key for row in rows for key in row if key.startswith("vs_")})
    columns = [c for c in columns if any(c in row for row in rows)]
    lines = ["# Benchmarks", "", f"{context.get('date', '')}, {context.get('num_cpus', '?')} processors. "
             "Method: benchmarks/support/measure.hpp; medians of paired runs.", "", "| limit | value |", "|---|---|"]
    lines += [f"| {key[6:].replace('_', ' ')} | {value} |" for key, value in context.items() if key.startswith("limit_")]
    lines += [f"| {key.replace('_', ' ')} | {value} |" for key, value in context.items() if key.startswith("peer_")]
    lines += ["", "| benchmark | time us | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        if row.get("error_occurred"):
            lines.append(f"| {short(row['name'])} | {row.get('error_message', 'error')} |" + " |" * len(columns))
        else:
            cells = [number(row.get(c)) for c in columns]
            lines.append(f"| {short(row['name'])} | {number(seconds(row) * 1e6)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def roofline(pyplot, context, rows, path):
    """Operations a second over operations a byte, under the roofs of each number of threads."""
    points = [r for r in rows if r.get("operations") and r.get("bytes")]
    if not points:
        return
    figure, axes = pyplot.subplots(figsize=(9, 6))
    for row in points:
        axes.scatter(row["operations"] / row["bytes"], row["operations"] / seconds(row) / 1e9, s=18)
    low, high = axes.get_xlim()
    low, high = max(low, 0.1), max(high, 10)
    for threads in sorted({m.group(1) for m in (re.match(r"limit_(\d+)t_", k) for k in context) if m}, key=int):
        rate = float(context[f"limit_{threads}t_dram_gbps"])
        for kind in ("fp32_gflops", "int8_gops"):
            peak = float(context[f"limit_{threads}t_{kind}"])
            xs = [low, peak / rate, max(high, 2 * peak / rate)]
            axes.plot(xs, [min(peak, x * rate) for x in xs], lw=1, label=f"{kind} and DRAM, {threads} threads")
    axes.set(xscale="log", yscale="log", xlabel="operations per canonical byte", ylabel="GOP/s", title="Roofline")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=120, bbox_inches="tight")


def pareto(pyplot, rows, path):
    """Time over stored bytes for every group of names that differ in their format alone (the second field)."""
    groups = {}
    for row in rows:
        fields = short(row["name"]).split("/")
        if row.get("bytes") and len(fields) > 2:
            groups.setdefault("/".join(fields[:1] + fields[2:]), []).append((row["bytes"], seconds(row) * 1e6, fields[1]))
    groups = {name: points for name, points in groups.items() if len({p[2] for p in points}) > 2}
    if not groups:
        return
    wide = min(3, len(groups))
    figure, all_axes = pyplot.subplots(math.ceil(len(groups) / wide), wide, squeeze=False,
                                       figsize=(5 * wide, 4 * math.ceil(len(groups) / wide)))
    for axes in all_axes.flat[len(groups):]:
        axes.axis("off")
    for axes, (name, points) in zip(all_axes.flat, sorted(groups.items())):
        points.sort()
        front = [p for i, p in enumerate(points) if all(p[1] < q[1] for q in points[:i])]
        axes.plot([p[0] / 1e6 for p in front], [p[1] for p in front], lw=1)
        axes.scatter([p[0] / 1e6 for p in points], [p[1] for p in points], s=14)
        for size, time, label in points:
            axes.annotate(label, (size / 1e6, time), fontsize=6)
        axes.set(xlabel="stored MB", ylabel="us", title=name)
        axes.title.set_fontsize(7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def attention_length(pyplot, rows, path):
    """attention_length_bench: tiled against untiled; what masks cost by length and by what they let through."""
    found = {}
    for row in rows:
        name = re.fullmatch(r"attention_length/(\w+)/(\w+)/kv:fp32/d:64/tokens:(\d+)/threads:1", short(row["name"]))
        if name:
            found[(name.group(1), name.group(2), int(name.group(3)))] = (seconds(row), row.get("operations", 0))
    if not found:
        return

    def line(axes, points, label, style="-"):
        points = sorted(points)
        if points:
            axes.plot([p[0] for p in points], [p[1] for p in points], style, marker="o", ms=3, lw=1, label=label)

    figure, (rates, lengths, widths) = pyplot.subplots(1, 3, figsize=(17, 5))
    for kind in ("tiled", "untiled"):
        line(rates, [(n, work / time / 1e9) for (k, _, n), (time, work) in found.items() if k == kind], kind)
    rates.set(xscale="log", xlabel="queries and keys", ylabel="GFLOP/s", title="All keys seen: tiled and untiled", ylim=0)
    masks = sorted({mask for kind, mask, _ in found if kind == "masked"})
    for mask in masks:
        points = [(n, time * 1e3) for (k, m, n), (time, _) in found.items() if (k, m) == ("masked", mask)]
        if len(points) > 1:
            line(lengths, points, mask)
    lengths.set(xscale="log", yscale="log", xlabel="queries and keys", ylabel="ms", title="Masks: time against length")
    for kind, size, pattern in (("window", 8192, r"window(\d+)"), ("neighborhood", 4096, r"neighborhood(\d+)x\d+")):
        points = []
        for mask in masks:
            width = re.fullmatch(pattern, mask)
            if width and ("masked", mask, size) in found:
                seen = int(width.group(1)) ** (2 if kind == "neighborhood" else 1)
                points.append((seen, found[("masked", mask, size)][0] * 1e3))
        line(widths, points, f"{kind}, {size} tokens")
    widths.set(xscale="log", yscale="log", xlabel="keys that a query sees", ylabel="ms", title="Masks: time against width")
    for axes in (rates, lengths, widths):
        axes.legend(fontsize=7)
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main(folder):
    context, rows = read(folder)
    (folder / "report.md").write_text(markdown(context, rows), encoding="utf-8")
    sound = [r for r in rows if not r.get("error_occurred")]
    try:
        import matplotlib
        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        print("no matplotlib: no plots")
        return
    roofline(pyplot, context, sound, folder / "roofline.png")
    pareto(pyplot, sound, folder / "pareto.png")
    attention_length(pyplot, sound, folder / "attention_length.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
