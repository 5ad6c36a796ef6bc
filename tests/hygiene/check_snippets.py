# SPDX-License-Identifier: MIT
"""Compiles and runs every complete program (a ```cpp block with `int main`) of the given Markdown files.

    check_snippets.py FILE... -- COMPILER FLAG...

A block followed by a block of plain ``` text must print exactly that text.
"""
import pathlib
import re
import subprocess
import sys
import tempfile


def main() -> int:
    split = sys.argv.index("--")
    files, compiler = sys.argv[1:split], sys.argv[split + 1:]
    programs = 0
    for file in files:
        text = pathlib.Path(file).read_text()
        for match in re.finditer(r"```cpp\n(.*?)```\n(?:\n[^\n`]*\n)?(?:\n```\n(.*?)```)?", text, re.S):
            code, output = match.group(1), match.group(2)
            if "int main" not in code:
                continue
            programs += 1
            with tempfile.TemporaryDirectory() as folder:
                source, program = f"{folder}/snippet.cpp", f"{folder}/snippet"
                pathlib.Path(source).write_text(code)
                built = subprocess.run([*compiler, source, "-o", program], capture_output=True, text=True)
                if built.returncode != 0:
                    print(f"{file}: program {programs} does not compile:\n{built.stderr}")
                    return 1
                ran = subprocess.run([program], capture_output=True, text=True, timeout=60)
                if ran.returncode != 0 or (output is not None and ran.stdout != output):
                    print(f"{file}: program {programs} ended with {ran.returncode} and printed\n{ran.stdout}expected\n{output}")
                    return 1
    print(f"{programs} programs compiled and run")
    return 0 if programs > 0 else 1


sys.exit(main())
