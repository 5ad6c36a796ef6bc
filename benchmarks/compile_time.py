#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compile_time.py FOLDER COMPILER [FLAG...]: writes FOLDER/compile_time.md: the processor time of compiling a file that
includes one header, relative to one that includes xsimd alone, in turn in the same run. Budgets: a family with its
kernels 1.5, tessera.hpp 2.2. And the seconds that one format's kernels add to the headers, placed and not: 3. A report,
not a test: it never fails for being over budget."""

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


# One of each class of kernels: a layer's weights that are multiplied as they are stored, placed, and multiplied again.
FORMAT_BUDGET = 3.0
FORMATS = {
    "int4_g32, int8_per_group<32>": "linear<quantized<int4_g32>, int8_per_group<32>>",
    "int4_g32, as_is": "linear<quantized<int4_g32>>",
    "int8_per_channel, int8_per_token": "linear<quantized<int8_per_channel>, int8_per_token>",
    "uint4_g128, as_bf16": "linear<quantized<uint4_g128>, as_bf16>",
    "q4_k, int8_per_group<32>": "linear<blocked<q4_k>, int8_per_group<32>>",
    "q6_k, int8_per_group<32>": "linear<blocked<q6_k>, int8_per_group<32>>",
    "iq2_s, int8_per_group<32>": "linear<blocked<iq2_s>, int8_per_group<32>>",
    "nf4_g64, as_is": "linear<quantized<nf4_g64>>",
    "nv_e2m1, int8_per_token": "linear<quantized<nv_e2m1>, int8_per_token>",
    "mx_e4m3, as_is": "linear<quantized<mx_e4m3>>",
    "fp16, as_is": "linear<matrix_view<fp16 const>>",
}
FORMAT_HEADERS = "".join(f"#include <tessera/{name}.hpp>\n" for name in (
    "numerics/fp6_fp4", "operators/apply", "operators/place", "storage/grid_formats", "storage/k_formats"))
FORMAT_PROGRAM = """namespace tessera::one_format {
using layer = %s;
using input = matrix_view<float const>;
void multiply(layer const& w, input x, matrix_view<float> y) { apply(cpu<>{}, w, x, y); }
auto make(layer const& w) { return place(cpu<>{}, w); }
void multiply(placed<cpu<>, layer> const& w, input x, matrix_view<float> y) { apply(cpu<>{}, w, x, y); }
}
"""


def headers():
    return ["xsimd/xsimd.hpp", "tessera/tessera.hpp", *(f"tessera/{family}.hpp" for family in FAMILIES)]


def measured(programs, compiler):
    """Medians of the processor seconds of {name: text}, in turn."""
    times = {name: [] for name in programs}
    with tempfile.TemporaryDirectory() as scratch:
        for _ in range(ROUNDS):
            for name, text in programs.items():
                source = Path(scratch) / "one.cpp"
                source.write_text(text, encoding="utf-8")
                times[name].append(processor_seconds([*compiler, "-std=c++20", f"-I{ROOT}/include", "-c", str(source),
                                                      "-o", str(Path(scratch) / "out.o")]))
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def main(folder, *compiler):
    names = headers()
    times = measured({name: f"#include <{name}>\n" for name in names}, compiler)
    base = times[names[0]]
    lines = ["# Compile time", "", f"`{' '.join(compiler)}`, medians of {ROUNDS}, processor time.", "",
             "| header | seconds | times xsimd | budget | |", "|---|---|---|---|---|"]
    for name in names:
        budget = BUDGETS.get(name, FAMILY_BUDGET)
        verdict = "" if budget is None else "within" if times[name] <= budget * base else "OVER"
        lines.append(f"| {name} | {times[name]:.2f} | {times[name] / base:.2f} | {budget or ''} | {verdict} |")
    programs = {name: FORMAT_HEADERS + FORMAT_PROGRAM % weights for name, weights in FORMATS.items()}
    times = measured({"": FORMAT_HEADERS, **programs}, compiler)
    lines += ["", "| weights, x | seconds beyond the headers | budget | |", "|---|---|---|---|"]
    for name in FORMATS:
        extra = times[name] - times[""]
        lines.append(f"| {name} | {extra:.2f} | {FORMAT_BUDGET} | {'within' if extra <= FORMAT_BUDGET else 'OVER'} |")
    (Path(folder) / "compile_time.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
