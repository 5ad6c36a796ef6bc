#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Usage: extract.py ORACLES OUT. Rewrites the attention cases of a folder of reference vectors (manifest.json and .bin)
into the small files beside this script; README.md says what they hold. Standard library only."""

import json
import struct
import sys
from pathlib import Path

CASES = ["mha_full_d64", "mha_causal_d64", "gqa_causal_d40", "causal_sq_lt_sk", "window_causal", "alibi_causal_h8",
         "softcap_causal", "huge_logits", "decode_ragged_kv", "na1d_w7"]


def main(oracles, out):
    cases = {c["name"]: c for c in json.loads((oracles / "manifest.json").read_text())["cases"] if c["group"] == "attn"}
    for name in CASES:
        case, raw = cases[name], (oracles / f"attn_{name}.bin").read_bytes()
        tensors = {t["name"]: raw[t["offset"]:t["offset"] + t["nbytes"]] for t in case["tensors"]}
        p = case["params"]
        extra = tensors.get("slopes", b"") or tensors.get("kv_len", b"")
        head = struct.pack("<8i", p["B"], p["H"], p["Hk"], p["Sq"], p["Sk"], p["D"], p["Dv"], len(extra) // 4)
        body = b"".join(tensors[t] for t in ("q", "k", "v", "o", "lse"))
        (out / f"{name}.bin").write_bytes(head + body + extra)


main(Path(sys.argv[1]), Path(sys.argv[2]))
