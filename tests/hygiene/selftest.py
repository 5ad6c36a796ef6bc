#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The rules must be able to fail: each is given a small tree that breaks it, and one that does not."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "cmake/docs"))
from check_headers import RULES, Tree, functions  # noqa: E402
from check_snippets import blocks_of_header, blocks_of_markdown  # noqa: E402
from filter import documented  # noqa: E402

HEAD = "// SPDX-License-Identifier: MIT\n#pragma once\n/// @file\n"

# rule: (files that break it, number of violations)
BROKEN = {
    "layers": ({"core/a.hpp": '#include "../simd/b.hpp"\n#include "absent.hpp"\n', "simd/b.hpp": "",
                "kernels/cpu/c.hpp": '#include "../d.hpp"\n', "kernels/d.hpp": '#include "cuda/e.cuh"\n',
                "kernels/cuda/e.cuh": "", "nn/f.hpp": '#include "../interop/g.hpp"\n', "interop/g.hpp": "",
                "shed/h.hpp": "", "kernels/cuda/i.cuh": "#include <tessera/simd/b.hpp>\n"}, 6),
    "umbrella": ({"tessera.hpp": '#include "linalg/a.hpp"\n', "linalg/a.hpp": "", "nn/b.hpp": ""}, 2),
    "cycles": ({"core/a.hpp": '#include "b.hpp"\n', "core/b.hpp": '#include "a.hpp"\n'}, 2),
    "foreign": ({"nn/a.hpp": "#include <xsimd/xsimd.hpp>\n#include <Eigen/Core>\n#include <immintrin.h>\n__m256 x;\nxsimd::bitwise_cast\n"}, 5),
    "openmp": ({"nn/a.hpp": '#pragma omp parallel\n_Pragma("omp simd")\n', "core/parallel.hpp": "omp_set_num_threads(2);"}, 3),
    "macros": ({"nn/a.hpp": "#define TESSERA_A\n",
                "core/macros.hpp": "#define B\n" + "".join(f"#define TESSERA_{i}\n" for i in range(13))}, 3),
    "sizes": ({"nn/a.hpp": "\n" * 600}, 1),
    "functions": ({"kernels/a.hpp": "int f(int x) noexcept {\n" + "x;\n" * 60 + "}\n"}, 1),
    "standard_headers": ({"kernels/a.hpp": "#include <memory>\n"}, 1),
    "form": ({"nn/a.hpp": "using namespace std;\n#if 0\n// TODO\n"}, 3),
    "silence": ({"nn/a.hpp": "std::abort();\nstd::cout << 1;\nprintf(1);\n"}, 3),
    "spdx": ({"../../tests/a.cpp": "int x;\n"}, 1),
    "versions": ({"core/macros.hpp": "#define TESSERA_VERSION_MAJOR 1\n#define TESSERA_VERSION_MINOR 2\n",
                  "../../cmake/packaging/vcpkg/vcpkg.json": '"version-semver": "1.3",\n'}, 1),
}
SOUND = {"tessera.hpp": '#include "nn/a.hpp"\n#include "core/b.hpp"\n',
         "nn/a.hpp": "#include <memory>\nstruct s { void abort_later(); }; // std::abort() in words\n",
         "core/b.hpp": "inline int f() { return 1; }\n", "simd/c.hpp": "#include <xsimd/xsimd.hpp>\n",
         "kernels/d.hpp": "struct wide {\n" + "int x;\n" * 70 + "};\n"}


def write(folder, files):
    for name, text in files.items():
        path = Path(folder) / "include/tessera" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if name.startswith("..") else HEAD + text, encoding="utf-8")
    return Tree(folder)


class Rules(unittest.TestCase):
    def test_every_rule_fails_on_its_broken_tree(self):
        self.assertEqual(set(BROKEN), set(RULES))
        for name, (files, count) in BROKEN.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                (Path(folder) / "include/tessera").mkdir(parents=True)
                (Path(folder) / "CMakeLists.txt").write_text("# SPDX-License-Identifier: MIT\n")
                found = RULES[name](write(folder, files))
                self.assertEqual(len(found), count, found)

    def test_every_rule_passes_on_a_sound_tree(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "CMakeLists.txt").write_text("# SPDX-License-Identifier: MIT\n")
            tree = write(folder, SOUND)
            for name, rule in RULES.items():
                self.assertEqual(rule(tree), [], name)

    def test_function_bodies(self):
        with tempfile.TemporaryDirectory() as folder:
            text = ("struct s {\n    int f(int a) const noexcept -> int {\n        if (a) {\n            return 1;\n"
                    "        }\n        return 0; // }\n    }\n};\nnamespace n {\n}\n")
            tree = write(folder, {"nn/a.hpp": text})
            self.assertEqual(functions(tree.headers["nn/a.hpp"]), [(5, 6)])

    def test_code_in_documents(self):
        header = ("/// Words:\n///\n///     y = x Wᵀ,   a formula\n///\n///     int a = 1;      // code\n///\n///     f(a);\n///\n"
                  "/// @verbatim\n///     pseudo(...);\n/// @endverbatim\nint b;\n")
        self.assertEqual(blocks_of_header(header), [(5, "int a = 1;      // code\n\nf(a);\n")])
        found = list(blocks_of_markdown("# t\n\n```cpp\nint main() {}\n```\n\nIt prints\n\n```\n1\n```\n\n```cpp\nint a;\n```\n"))
        self.assertEqual(found, [(4, "int main() {}\n", "1\n"), (14, "int a;\n", None)])

    def test_what_doxygen_reads(self):
        header = ("/// One and two.\nint one(int x) { return x; }\nint two();\n\nint bare();\n\n/// A class.\n"
                  "template <class T>\n    requires requires(T t) { t.f(); }\nclass box {\npublic:\n    int rows() const;\n};\n")
        lines = documented(header).split("\n")
        self.assertEqual(lines[2], "/** One and two. */ int two();")
        self.assertEqual(lines[4], "int bare();")
        self.assertRegex(lines[11], r"/\*\* Rows.* \*/ int rows")
        self.assertEqual(len(lines), header.count("\n") + 1)


if __name__ == "__main__":
    unittest.main()
