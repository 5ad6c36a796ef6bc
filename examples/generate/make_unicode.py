# SPDX-License-Identifier: MIT
"""Writes unicode_tables.hpp: the ranges of general categories L* and N*.

    pip install unicodedata2==16.0.0 && python3 make_unicode.py

unicodedata2 is Python's unicodedata of a newer Unicode; the version is the one of the regular expressions that the
tokenizers library 0.23 uses, so that words are cut alike.
"""
import pathlib

import unicodedata2 as unicodedata


def ranges(letter):
    found = []
    for c in range(0x110000):
        if unicodedata.category(chr(c))[0] != letter:
            continue
        if found and found[-1][1] == c - 1:
            found[-1][1] = c
        else:
            found.append([c, c])
    return found


def table(name, text, pairs):
    lines = [f"/// {text}", f"inline constexpr code_range {name}[] = {{"]
    cells = [f"{{0x{a:x}, 0x{b:x}}}," for a, b in pairs]
    line = "   "
    for cell in cells:
        if len(line) + 1 + len(cell) > 120:
            lines.append(line)
            line = "   "
        line += " " + cell
    return "\n".join(lines + [line, "};"])


out = f"""// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Made by make_unicode.py from Unicode {unicodedata.unidata_version}; do not edit.

#include <cstdint>

namespace generate {{

inline constexpr char const* unicode_version = "{unicodedata.unidata_version}";

/// Code points first to last, both included.
struct code_range {{
    std::uint32_t first;
    std::uint32_t last;
}};

{table("letter_ranges", "General categories Lu, Ll, Lt, Lm, Lo.", ranges("L"))}

{table("number_ranges", "General categories Nd, Nl, No.", ranges("N"))}

}} // namespace generate
"""
pathlib.Path(__file__).with_name("unicode_tables.hpp").write_text(out)
