#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What gaussian_grids.py printed (files, in any order) into include/tessera/quant/gaussian_grids.hpp, on stdout."""
import re
import sys

grids = {}
for name in sys.argv[1:]:
    lines = [l.strip() for l in open(name)]
    for head, body in zip(lines, lines[1:]):
        m = re.match(r"// p = (\d+), n = (\d+): mean squared error ([\d.]+)", head)
        if m:
            values = [v.strip() for v in body.split(",")]
            key = (int(m[1]), int(m[2]))
            if key not in grids or float(m[3]) < float(grids[key][0]):
                grids[key] = (m[3], values)

print("""// SPDX-License-Identifier: MIT
#pragma once

/// @file
/// Grids of least mean squared error for a standard normal source: `gaussian_grid<Dims, Bits>()`, 2^Bits points of Dims numbers,
/// row-major, in lexicographic order; and `gaussian_grid_error<Dims, Bits>`, that error per number. One dimension: the
/// Lloyd-Max quantisers, exact integrals. Two and four: Lloyd's algorithm on samples (CLVQ), errors to 0.2 %. Made by
/// tests/data/quant/gaussian_grids.py and grids_to_header.py; not edited by hand.
///
/// | dimensions | points | bits a number | error |
/// |---|---|---|---|""")
for (p, n), (mse, _) in sorted(grids.items()):
    bits = (n.bit_length() - 1) / p
    print(f"/// | {p} | {n} | {bits:g} | {mse} |")
print("""
#include "../core/macros.hpp"
#include "../core/types.hpp"

namespace tessera::inline TESSERA_ABI {

namespace detail {

template <index_t Dims, int Bits>
struct gaussian_grid_table {
    static_assert(always_false<gaussian_grid_table>,
                  "tessera: there is no optimal grid of these dimensions and bits here; give quantize_higgs one");
};""")
for (p, n), (mse, values) in sorted(grids.items()):
    bits = n.bit_length() - 1
    print(f"template <>\nstruct gaussian_grid_table<{p}, {bits}> {{")
    print(f"    static constexpr double error = {mse};")
    print(f"    static constexpr float points[{n * p}] = {{")
    line = "       "
    for v in values:
        v = v if re.search(r"[.e]", v) else v.replace("f", ".0f")
        if len(line) + len(v) + 2 > 126:
            print(line)
            line = "       "
        line += " " + v + ","
    print(line.rstrip(",") + "};\n};")
print("""
} // namespace detail

/// See the file comment.
template <index_t Dims, int Bits>
constexpr float const* gaussian_grid() noexcept {
    return detail::gaussian_grid_table<Dims, Bits>::points;
}
/// Its mean squared error per number.
template <index_t Dims, int Bits>
inline constexpr double gaussian_grid_error = detail::gaussian_grid_table<Dims, Bits>::error;

} // namespace tessera::inline TESSERA_ABI""")
