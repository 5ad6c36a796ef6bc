#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""compile_fail.py SOURCE COMPILER FLAGS...: SOURCE compiles, and with TESSERA_EXPECT_FAIL fails with its sentences.

The same file is compiled twice, so that it cannot fail for another reason than the one it is about. Sentences come from
lines `// expect: ...`; spaces count as one, because compilers wrap lines.
"""

import re
import subprocess
import sys
from pathlib import Path


def compile_once(command):
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    return run.returncode, re.sub(r"\s+", " ", run.stdout + run.stderr), run.stdout + run.stderr


def main(source, *compiler):
    expected = re.findall(r"^// expect: *(.*\S)", Path(source).read_text(encoding="utf-8"), re.M)
    if not expected:
        print(f"{source} has no line `// expect: <sentence>`")
        return 1
    command = [*compiler, "-fsyntax-only", source]
    code, _, output = compile_once(command)
    if code != 0:
        print(f"{source} must compile without TESSERA_EXPECT_FAIL:\n{output}")
        return 1
    code, flat, output = compile_once([*command, "-DTESSERA_EXPECT_FAIL"])
    missing = [sentence for sentence in expected if re.sub(r"\s+", " ", sentence) not in flat]
    if code == 0:
        print(f"{source} compiles with TESSERA_EXPECT_FAIL")
    for sentence in missing:
        print(f"not printed: {sentence}")
    if code == 0 or missing:
        print(output)
        return 1
    print(f"{len(output.splitlines())} lines of output, with: {'; '.join(expected)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
