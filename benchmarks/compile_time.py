#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compile_time.py FOLDER COMPILER [FLAG...]: writes FOLDER/compile_time.md: the processor time of compiling a file that
includes one header, relative to one that includes xsimd alone, in turn in the same run. Budgets: a family with its
kernels 1.5, tessera.hpp 2.2. A report, not a test: it never fails for being over budget."""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Times the processor time of xsimd alone.
FAMILY_BUDGET = 1.5
BUDGETS = {"xsimd/xsimd.hpp": None, "tessera/tessera.hpp": 2.2}
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "5"))


def processor_seconds(command):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# The header of each family through which its kernels come in.
FAMILIES = ("adapter/merge", "attention/attention", "moe/moe", "nn/norm", "operators/apply", "quant/quantize",
            "sampling/sampler", "sparse/place")


def headers():
    return ["xsimd/xsimd.hpp", "tessera/tessera.hpp", *(f"tessera/{family}.hpp" for family in FAMILIES)]


def main(folder, *compiler):
    names = headers()
    times = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        sources = {}
        for i, name in enumerate(names):
            sources[name] = Path(scratch) / f"{i}.cpp"
            sources[name].write_text(f"#include <{name}>\n", encoding="utf-8")
        for _ in range(ROUNDS):
            for name, source in sources.items():
                times[name].append(processor_seconds([*compiler, "-std=c++20", f"-I{ROOT}/include", "-c", str(source),
                                                      "-o", str(Path(scratch) / "out.o")]))
    base = statistics.median(times[names[0]])
    lines = ["# Compile time", "", f"`{' '.join(compiler)}`, medians of {ROUNDS}, processor time.", "",
             "| header | seconds | times xsimd | budget | |", "|---|---|---|---|---|"]
    for name in names:
        middle = statistics.median(times[name])
        budget = BUDGETS.get(name, FAMILY_BUDGET)
        verdict = "" if budget is None else "within" if middle <= budget * base else "OVER"
        lines.append(f"| {name} | {middle:.2f} | {middle / base:.2f} | {budget or ''} | {verdict} |")
    (Path(folder) / "compile_time.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
