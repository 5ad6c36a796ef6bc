# SPDX-License-Identifier: MIT
"""The two programs of the tour for two machines differ in an include and an alias, and README.md shows just that.

    check_twin.py ROOT
"""
import difflib
import pathlib
import re
import sys


def changes(before, after):
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in lines if line[:1] in "+-" and line[:3] not in ("---", "+++")]


def main():
    root = pathlib.Path(sys.argv[1])
    code = (root / "examples/10_two_machines.cpp").read_text().split("// Output:")[0].rstrip()
    twin = (root / "examples/10_two_machines.cu").read_text().rstrip()
    found = changes(code, twin)
    shown = re.search(r"```diff\n(.*?)```", (root / "README.md").read_text(), re.S)
    if shown is None:
        return "README.md shows no difference (```diff)"
    if shown.group(1).strip().splitlines() != found:
        return "README.md shows another difference than:\n" + "\n".join(found)
    kinds = sorted(re.split(r"[ <\"]", line[1:])[0] for line in found)
    if kinds != ["#include", "#include", "namespace", "namespace"]:
        return "the programs differ in more than an include and an alias:\n" + "\n".join(found)
    return None


if __name__ == "__main__":
    sys.exit(main())
