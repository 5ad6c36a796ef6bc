# SPDX-License-Identifier: MIT
"""The code in the documents compiles, and programs print what they say. Standard library only.

    check_snippets.py programs FILE... -- COMPILER FLAG...      every ```cpp block with `int main`, compiled and run; a block of
                                                                plain ``` text after it is exactly what it prints
    check_snippets.py snippets ROOT -- COMPILER FLAG...         every other ```cpp block of Markdown, and every code paragraph
                                                                of the headers' comments, compiled in one file
    check_snippets.py list ROOT                                 prints that file

Code in a comment is a paragraph indented by five columns of which a line, its // comment taken off, ends in a semicolon or a
brace; formulas and tables do not. @verbatim keeps pseudo-code out. A snippet is a function body behind all headers and
snippet_prelude.hpp, which declares what it uses: in namespace snippets, or in snippets::in_attention where a name means
something else in include/tessera/attention/. One that begins with a template, a struct or a namespace is no function body.
"""
import pathlib
import re
import subprocess
import sys
import tempfile

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "include/tessera/README.md", "examples/README.md"]


def blocks_of_markdown(text):
    """(line, code, text block after it or None) of every ```cpp block."""
    for match in re.finditer(r"```cpp\n(.*?)```\n(?:\n[^\n`]*\n)?(?:\n```\n(.*?)```)?", text, re.S):
        yield text[:match.start()].count("\n") + 2, match.group(1), match.group(2)


def is_code(lines):
    return any(re.sub(r"\s*//.*", "", line).rstrip().endswith((";", "{", "}")) for line in lines)


def blocks_of_header(text):
    """(line, code) of every code paragraph of comments; paragraphs that follow each other are one."""
    lines = [re.match(r"\s*///(?: (    .*)|\s*()$)", line) for line in text.split("\n")]
    kept = re.sub(r"@verbatim.*?@endverbatim", lambda m: re.sub(r"[^\n]", "", m.group(0)), text, flags=re.S).split("\n")
    paragraphs, i = [], 0
    while i < len(lines):
        if lines[i] and lines[i].group(1) and (i == 0 or lines[i - 1] and not lines[i - 1].group(1)):
            end = i
            while end < len(lines) and lines[end] and lines[end].group(1):
                end += 1
            code = [lines[j].group(1)[4:] for j in range(i, end)]
            if kept[i] and is_code(code):
                if paragraphs and paragraphs[-1][0] + len(paragraphs[-1][1]) + 1 == i:
                    paragraphs[-1][1].extend([""] + code)
                else:
                    paragraphs.append((i, code))
            i = end
        else:
            i += 1
    return [(i + 1, "\n".join(code) + "\n") for i, code in paragraphs]


def snippets(root):
    """(path, line, code)"""
    for name in DOCUMENTS:
        for line, code, _ in blocks_of_markdown((root / name).read_text(encoding="utf-8")):
            if "int main" not in code:
                yield root / name, line, code
    for path in sorted((root / "include/tessera").rglob("*.hpp")):
        for line, code in blocks_of_header(path.read_text(encoding="utf-8")):
            yield path, line, code


def translation_unit(root):
    prelude = pathlib.Path(__file__).resolve().parent / "snippet_prelude.hpp"
    families = set(re.findall(r"namespace snippets::in_(\w+)", prelude.read_text(encoding="utf-8")))
    names = sorted(p.relative_to(root / "include").as_posix() for p in (root / "include/tessera").rglob("*.hpp"))
    parts = [f"#include <{name}>\n" for name in names if name != "tessera/interop/eigen.hpp"]
    parts.append(f'#include "{prelude.as_posix()}"\n')
    count = 0
    for path, line, code in snippets(root):
        count += 1
        folder = path.parent.name
        family = f"snippets::in_{folder}" if folder in families else "snippets"
        where = f'#line {line} "{path.relative_to(root).as_posix()}"\n'
        own = f"using namespace tessera;\n{where}{code}"
        if re.match(r"(template|struct|class|namespace)\b", code):
            parts.append(f"namespace {family}::only_{count} {{\n{own}}}\n")
        else:
            parts.append(f"namespace {family} {{\nvoid snippet_{count}() {{\n{own}}}\n}}\n")
        if path.name == "eigen.hpp":
            parts[-1] = f"#ifdef EIGEN_WORLD_VERSION\n{parts[-1]}#endif\n"
    return "".join(parts), count


def run_programs(files, compiler):
    programs = 0
    for file in files:
        for _, code, output in blocks_of_markdown(pathlib.Path(file).read_text(encoding="utf-8")):
            if "int main" not in code:
                continue
            programs += 1
            with tempfile.TemporaryDirectory() as folder:
                source, program = f"{folder}/snippet.cpp", f"{folder}/snippet"
                pathlib.Path(source).write_text(code, encoding="utf-8")
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


def compile_snippets(root, compiler):
    text, count = translation_unit(root)
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/snippets.cpp"
        pathlib.Path(source).write_text(text, encoding="utf-8")
        code = subprocess.run([*compiler, "-fsyntax-only", source]).returncode
    print(f"{count} snippets")
    return code if count > 0 else 1


def main(arguments):
    split = arguments.index("--") if "--" in arguments else len(arguments)
    task, names, compiler = arguments[:1], arguments[1:split], arguments[split + 1:]
    if task == ["programs"]:
        return run_programs(names, compiler)
    if task == ["snippets"]:
        return compile_snippets(pathlib.Path(names[0]).resolve(), compiler)
    if task == ["list"]:
        print(translation_unit(pathlib.Path(names[0]).resolve())[0])
        return 0
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
