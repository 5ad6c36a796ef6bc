#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Rules of the house that a compiler does not check. Usage: check_headers.py ROOT RULE; RULE `list` names the rules.

Each rule is a function from a Tree to the list of its violations, one sentence each. Standard library only.
"""

import re
import sys
from pathlib import Path

HEADER_LINES = 600
FUNCTION_LINES = 60
MACROS = 12

# A header may include its own folder and any folder of a lower level. Folders of one level see each other only where
# they share a number here; linalg is beside simd, not of it. Leaves may include everything and only leaves (and the
# umbrella header) include them.
LEVELS = {"core": 0, "numerics": 1, "storage": 2, "simd": 3, "linalg": 3.5, "kernels": 4, "operators": 5,
          **dict.fromkeys(["quant", "adapter", "sparse", "moe", "attention", "nn", "optim", "sampling", "sequence",
                           "transform"], 6), "compose": 7}
LEAVES = {"dispatch", "interop"}
# Headers directly in include/tessera see everything; the others see of them only these.
SMALL = {"fwd.hpp", "version.hpp"}
# Public, but not in tessera.hpp: what only readers of files and tests of accuracy want, and what costs the compiler more than
# its few users are worth (the header says so).
APART = {"core/device_view.hpp", "storage/device_panel.hpp", "storage/device_rows.hpp", "storage/device_tile.hpp", "storage/device_nibbles.hpp", "storage/device_table.hpp", "storage/device_codebooks.hpp", "storage/mapped_file.hpp", "storage/placed_cache.hpp", "storage/file_to_be.hpp", "storage/placed_table.hpp", "numerics/error_bounds.hpp",
         "core/thread_pool.hpp", "attention/packing.hpp", "quant/vptq.hpp", "quant/any_precision.hpp", "quant/table_quantize.hpp", "quant/block_search.hpp"}
BANNED_BELOW_OPERATORS = {"memory", "functional", "filesystem", "iostream", "regex"}


def without_comments(text, keep_strings=True):
    """The text with comments (and string contents) blanked; line numbers stay."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'', re.S)

    def blank(match):
        token = match.group(0)
        if token[0] in "\"'":
            return token if keep_strings else token[0] * 2
        return "\n" * token.count("\n")

    return pattern.sub(blank, text)


class Header:
    def __init__(self, root, path):
        self.name = path.relative_to(root / "include/tessera").as_posix()
        self.folder = self.name.split("/")[0] if "/" in self.name else ""
        self.text = path.read_text(encoding="utf-8")
        self.lines = self.text.splitlines()
        self.code = without_comments(self.text)
        self.system = re.findall(r"^\s*#\s*include\s*<([^>]+)>", self.code, re.M)
        self.quoted = re.findall(r'^\s*#\s*include\s*"([^"]+)"', self.code, re.M)
        self.path = path

    def grep(self, pattern):
        found = re.compile(pattern)
        return [f"{self.name}:{i}: {line.strip()}" for i, line in enumerate(self.code.splitlines(), 1)
                if found.search(line)]


class Tree:
    def __init__(self, root):
        self.root = root = Path(root).resolve()
        self.include = root / "include/tessera"
        files = sorted(p for e in ("hpp", "cuh") for p in self.include.rglob("*." + e))
        self.headers = {h.name: h for h in (Header(root, p) for p in files)}

    def included(self, header):
        """(include as written, header it names or None) for every include of a header of the library."""
        result = []
        for written in header.quoted + [s for s in header.system if s.startswith("tessera/")]:
            places = [header.path.parent / written, self.root / "include" / written]
            names = [p.resolve().relative_to(self.include).as_posix() for p in places
                     if p.exists() and self.include in p.resolve().parents]
            result.append((written, names[0] if names else None))
        return result

    def reached(self, name):
        """Every header that `name` includes, directly or not."""
        seen, todo = set(), [name]
        while todo:
            for _, inner in self.included(self.headers[todo.pop()]):
                if inner in self.headers and inner not in seen:
                    seen.add(inner)
                    todo.append(inner)
        return seen


def rule_layers(tree):
    """A header includes only its own layer and lower ones; kernels/cpu and kernels/cuda never see each other."""
    bad = []
    for h in tree.headers.values():
        if h.folder and h.folder not in LEVELS and h.folder not in LEAVES:
            bad.append(f"{h.name}: folder {h.folder} is in no layer (add it to LEVELS with its level)")
            continue
        for written, inner in tree.included(h):
            if inner is None:
                bad.append(f'{h.name}: include "{written}" is no file of the library')
                continue
            other = inner.split("/")[0] if "/" in inner else ""
            if not h.folder or h.folder in LEAVES:
                continue
            if not other and inner not in SMALL:
                bad.append(f"{h.name}: includes the umbrella {inner}")
            elif other in LEAVES:
                bad.append(f"{h.name}: includes the leaf {inner}")
            elif other in LEVELS and LEVELS[other] > LEVELS[h.folder]:
                bad.append(f"{h.name}: layer {h.folder} includes {inner} of the higher layer {other}")
        reached = tree.reached(h.name)
        for one, two in (("kernels/cpu/", "kernels/cuda/"), ("kernels/cuda/", "kernels/cpu/")):
            if h.name.startswith(one):
                bad += [f"{h.name}: reaches {r}" for r in reached if r.startswith(two)]
        if h.name.endswith(".cuh"):
            bad += [f"{h.name}: reaches {r}, whose headers nvcc cannot parse"
                    for r in reached if r.startswith(("simd/", "linalg/"))]
    return bad


def rule_umbrella(tree):
    """tessera.hpp reaches every public .hpp except linalg/, the leaves and APART (what they need is the user's choice)."""
    if "tessera.hpp" not in tree.headers:
        return []
    reached = tree.reached("tessera.hpp")
    bad = [f"tessera.hpp reaches {r}" for r in reached if r.startswith("linalg/") or r == "interop/eigen.hpp"]
    hidden = ("linalg/", "interop/", "dispatch/", "kernels/", "simd/")
    may = reached | APART
    for apart in APART & set(tree.headers):
        may |= set(tree.reached(apart))
    return bad + [f"tessera.hpp does not reach {n}" for n in tree.headers
                  if n.endswith(".hpp") and n != "tessera.hpp" and n not in may and not n.startswith(hidden)]


def rule_cycles(tree):
    """No header includes itself through others: #pragma once would hide it."""
    return [f"{name}: reaches itself" for name in tree.headers if name in tree.reached(name)]


def rule_foreign(tree):
    """xsimd and intrinsics only under simd/, Eigen only under linalg/ and in interop/eigen.hpp. What xsimd 8 and its
    later versions spell differently (bitwise_cast) only in simd/arch_map.hpp."""
    bad = []
    for h in tree.headers.values():
        for s in h.system:
            if s.startswith("xsimd") and h.folder != "simd":
                bad.append(f"{h.name}: includes <{s}> outside simd/")
            if re.match(r"(imm|[a-z]mm|arm_[a-z]+|x86|amx)[a-z0-9]*intrin\.h|arm_(neon|sve)\.h|cpuid\.h", s) \
                    and h.folder not in ("simd", "dispatch"):
                bad.append(f"{h.name}: includes <{s}> outside simd/")
            if s.startswith(("Eigen/", "unsupported/Eigen")) and h.folder != "linalg" and h.name != "interop/eigen.hpp":
                bad.append(f"{h.name}: includes <{s}> outside linalg/ and interop/eigen.hpp")
        if h.name != "simd/arch_map.hpp":
            bad += h.grep(r"\bxsimd::bitwise_cast\b")
        if h.folder != "simd":
            bad += h.grep(r"\b_mm(256|512)?_\w+ *\(|\b_tile_\w+ *\(|\b__m(128|256|512)[id]?\b")
    return bad


def rule_openmp(tree):
    """OpenMP pragmas and <omp.h> only in core/parallel.hpp; nobody changes the process's thread settings."""
    bad = []
    for h in tree.headers.values():
        if h.name != "core/parallel.hpp":
            bad += h.grep(r'#\s*pragma\s+omp|_Pragma\s*\(\s*"omp|#\s*include\s*<omp\.h>')
        bad += h.grep(r"\bomp_set_\w+")
    return bad


def rule_macros(tree):
    """Macros are defined in core/macros.hpp only, at most 12, all named TESSERA_*."""
    bad, names = [], set()
    for h in tree.headers.values():
        for name in re.findall(r"^\s*#\s*define\s+(\w+)", h.code, re.M):
            if h.name != "core/macros.hpp":
                bad.append(f"{h.name}: defines {name}")
            elif not name.startswith("TESSERA_"):
                bad.append(f"{h.name}: {name} is not named TESSERA_*")
            else:
                names.add(name)
    if len(names) > MACROS:
        bad.append(f"core/macros.hpp: {len(names)} macros, at most {MACROS}: {' '.join(sorted(names))}")
    return bad


def rule_sizes(tree):
    """A header has at most 600 lines."""
    return [f"{h.name}: {len(h.lines)} lines, at most {HEADER_LINES}" for h in tree.headers.values()
            if len(h.lines) > HEADER_LINES]


def functions(header):
    """(first line, lines) of every function body, found by braces: a block whose head ends like a function's."""
    code = without_comments(header.text, keep_strings=False)
    code = re.sub(r"^[ \t]*#.*$", "", code, flags=re.M)
    stack, head, line, result = [], "", 1, []
    for c in code:
        if c == "\n":
            line += 1
        if c == "{":
            text = re.sub(r"\)([\sa-z]*)(->|\brequires\b).*", r")\1", head.strip(), flags=re.S).strip()
            ends = re.search(r"\)(\s+const|\s+noexcept(\([^()]*\))?|\s+mutable|\s+override|\s+final)*$", text)
            starts = re.match(r"(if|for|while|switch|else|do|catch|namespace|struct|class|union|enum)\b", text)
            stack.append(line if ends and not starts else None)
        elif c == "}" and stack:
            first = stack.pop()
            if first:
                result.append((first, line - first + 1))
        head = "" if c in "{};" else head + c
    return result


def rule_functions(tree):
    """A kernel's body has at most 60 lines."""
    return [f"{h.name}:{first}: a body of {n} lines, at most {FUNCTION_LINES}" for h in tree.headers.values()
            if h.folder == "kernels" for first, n in functions(h) if n > FUNCTION_LINES]


def rule_standard_headers(tree):
    """Heavy standard headers are not included below the operators."""
    return [f"{h.name}: includes <{s}>, banned below operators/" for h in tree.headers.values() for s in h.system
            if s in BANNED_BELOW_OPERATORS and LEVELS.get(h.folder, 9) < LEVELS["operators"]]


def rule_form(tree):
    """SPDX line first, #pragma once, an @file block; no `using namespace`, no unfinished or switched-off code."""
    bad = []
    for h in tree.headers.values():
        if not h.lines or h.lines[0] != "// SPDX-License-Identifier: MIT":
            bad.append(f"{h.name}: the first line is not the SPDX line")
        if not re.search(r"^#pragma once$", h.text, re.M):
            bad.append(f"{h.name}: no #pragma once")
        if "@file" not in h.text:
            bad.append(f"{h.name}: no @file block")
        bad += h.grep(r"\busing\s+namespace\b") + h.grep(r"^\s*#\s*if\s+0\b")
        bad += [f"{h.name}:{i}: {line.strip()}" for i, line in enumerate(h.lines, 1)
                if re.search(r"\b(TODO|FIXME|XXX)\b", line)]
    return bad


def rule_silence(tree):
    """The library does not print and does not end the process; core/error.hpp alone may, without exceptions."""
    bad = []
    for h in tree.headers.values():
        bad += h.grep(r"\bstd::(cout|cerr|clog)\b|\b(printf|fprintf|puts|perror)\s*\(|\bassert\s*\(")
        if h.name != "core/error.hpp":
            bad += h.grep(r"\b(abort|terminate|_?exit|quick_exit)\s*\(")
    return bad


def rule_spdx(tree):
    """Every other source file has the SPDX line among its first three lines."""
    bad = []
    for top in ("tests", "examples", "benchmarks", "cmake", "CMakeLists.txt", ".ci"):
        start = tree.root / top
        for p in sorted(start.rglob("*")) if start.is_dir() else [start]:
            named = p.suffix in {".hpp", ".cpp", ".cu", ".cuh", ".py", ".sh", ".cmake"} or p.name in {"CMakeLists.txt", "run"}
            if p.is_file() and named and "data" not in p.relative_to(tree.root).parts:
                head = p.read_text(encoding="utf-8").splitlines()[:3]
                if not any("SPDX-License-Identifier: MIT" in line for line in head):
                    bad.append(f"{p.relative_to(tree.root)}: no SPDX line")
    return bad


def rule_versions(tree):
    """The recipes of package managers have the version of core/macros.hpp."""
    macros, recipe = tree.headers.get("core/macros.hpp"), tree.root / "cmake/packaging/vcpkg/vcpkg.json"
    version = ".".join(re.findall(r"define TESSERA_VERSION_(?:MAJOR|MINOR|PATCH) (\d+)", macros.code)) if macros else ""
    found = re.findall(r'"version[^"]*": "([^"]*)"', recipe.read_text(encoding="utf-8")) if recipe.exists() else [version]
    return [f"vcpkg.json: version {v}, expected {version}" for v in found if v != version]


RULES = {name[5:]: rule for name, rule in list(globals().items()) if name.startswith("rule_")}


def main(arguments):
    if len(arguments) != 2 or (arguments[1] != "list" and arguments[1] not in RULES):
        print(__doc__, "Rules:", *RULES)
        return 2
    if arguments[1] == "list":
        print(*RULES, sep=";")
        return 0
    tree = Tree(arguments[0])
    bad = RULES[arguments[1]](tree)
    print(RULES[arguments[1]].__doc__.strip())
    print(*bad, sep="\n")
    print(f"{len(tree.headers)} headers, {len(bad)} violations")
    return 1 if bad or not tree.headers else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
