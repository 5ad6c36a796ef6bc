# SPDX-License-Identifier: MIT
"""Writes smollm2.bin: texts and the token ids that the tokenizers library gives them.

    python3 make.py SmolLM2-135M-Instruct.Q4_1.gguf

Needs: tokenizers 0.23.3, gguf 0.19.0, numpy. The tokenizer is built from the metadata of the GGUF file, with the
pre-tokenizers that `tokenizer.ggml.pre` names (transformers' own conversion leaves out the digits). Two lists of ids a
text: pre-tokenizer smollm (digits alone, then GPT-2's pattern) and gpt-2 (the pattern alone).

Format: count (u32); for each text: bytes (u32), UTF-8, then twice: ids (u32), ids (i32 each).
"""
import pathlib
import random
import struct
import sys

import gguf
from tokenizers import AddedToken, Tokenizer, models
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

here = pathlib.Path(__file__).parent


def load(path):
    fields = gguf.GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    types = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(m.split(" ")) for m in fields["tokenizer.ggml.merges"].contents()]
    made = []
    byte_level = ByteLevel(add_prefix_space=False, use_regex=True)
    for pre in (Sequence([Digits(individual_digits=True), byte_level]), byte_level):
        t = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(tokens)}, merges=merges))
        t.pre_tokenizer = pre
        t.add_special_tokens([AddedToken(x, normalized=False, special=True) for x, k in zip(tokens, types) if k == 3])
        made.append(t)
    return made


texts = [
    "", " ", "  ", "   ", "\n", "\n\n", "\n\n\n", "\t", "\t\t", " \n", "\n ", " \n \n", "\r\n", "\r\n\r\n", "a", " a", "a ", "  a", "   a  ",
    "Hello, world!", "Hello world", "hello", "HELLO WORLD", "The quick brown fox jumps over the lazy dog.",
    "I'm you're he's we've I'll I'd don't can't won't it's", "I'M YOU'RE HE'S WE'VE I'LL I'D DON'T", "'s", "'S", "s'", "' s", "''s", "'re'd", "x'", "'",
    "!'s", "a'b", "rock 'n' roll", "\u2019s don\u2019t", "y'all'd've",
    "0", "1", "12", "123", "1234567890", " 1", "  1", "   12", "a1", "1a", "a 1", "a  1", "a   1 2  3", "3.14159", "1,000,000", "-5", "1e-10", "0x1F", "v1.2.3", "2024-01-31T12:34:56Z",
    "\u0661\u0662\u0663", "\u00bd \u00b2 \u2163", "x\u00b2", "x \u00b2", "x  \u00b2", "\u0967\u0968", "\uff11\uff12", "\U0001d7ce\U0001d7cf",
    "caf\u00e9", "cafe\u0301", "na\u00efve r\u00e9sum\u00e9", "\u00fcber Stra\u00dfe", "\u00c5ngstr\u00f6m", "\u010cesk\u00fd \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148", "Za\u017c\u00f3\u0142\u0107 g\u0119\u015bl\u0105 ja\u017a\u0144", "\u0130stanbul",
    "\u65e5\u672c\u8a9e", " \u65e5\u672c\u8a9e \u30c6\u30ad\u30b9\u30c8", "\u4f60\u597d\uff0c\u4e16\u754c\uff01", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4", "\u3053\u3093\u306b\u3061\u306f\u3001\u4e16\u754c\u3002", "\u4e2d\u6587123\u6df7\u5408text",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0393\u03b5\u03b9\u03b1 \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645", "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01", "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0",
    "\U0001f600", "\U0001f600\U0001f603", "hi \U0001f600 there", "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "\u2764\ufe0f", "\U0001f9d1\u200d\U0001f4bb writes code",
    "\u00a0", "a\u00a0b", " \u00a0x", "\u3000\u4e2d", "a\u2003b", "\u2028\u2029", "\u0085", "\u200b", "a\u200bb", "\ufeffBOM", "\u1680x", "\u202fx", "\u205fx", "\u180e",
    "\x00", "\x01\x02\x03", "a\x00b", "\x04", "a\x04b", "\x06\x13\x14\x16\x1d", "\x1b[31mred\x1b[0m", "\x7f", "\x0b\x0c", "\x1c\x1d\x1e\x1f", "tab\tseparated\tvalues",
    "\U000f0000", "\ue000", "\ufffd", "\uffff", "\U0010ffff", "\U00040000\U000c0000",
    "def f(x):\n    return x + 1\n", "for (int i = 0; i < n; ++i) {\n\tsum += a[i];\n}\n", "#include <vector>\ntemplate <class T>\nclass view;\n", "if x == 1:\n        pass\n\n\n# end", "SELECT * FROM t WHERE a <> 'b''c';", "<html>\n  <body class=\"x\">&nbsp;</body>\n</html>",
    "{\"key\": [1, 2.5, null, true], \"s\": \"\\n\"}", "git commit -m 'fix: off-by-one' && git push", "https://example.org/a/b?c=d&e=f#g", "user@example.org", "C:\\Windows\\System32", "a_b_c aBcDe ABCdef __init__", "x=>y->z::w", "//////", "----", "=====", "!!!???...", "(((())))", "$100 \u20ac50 \u00a320", "50% off!", "a...b", "\u2026 \u2014 \u2013", "\u201cquoted\u201d \u00abguillemets\u00bb",
    "\\frac{1}{2} \\sum_{i=0}^{n} x_i^2", "E = mc\u00b2", "\u2200x\u2208\u211d: x\u00b2\u22650", "a\u0300\u0301\u0302\u0303", "\u0308x", " \u0308x", "q\u0323\u0307",
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n", "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\nWhy is the sky blue?<|im_end|>\n<|im_start|>assistant\n",
    "a<|im_start|>b", " <|im_start|> ", "a <|im_end|>  b", "<|im_start|", "<|im_start |>", "<<|im_start|>>", "<|im_start|><|im_start|>", "<repo_name>x<reponame>y<file_sep>z<filename>", "<gh_stars>100<issue_start>text<issue_comment><issue_closed>", "<jupyter_start><jupyter_text>a<jupyter_code>b<jupyter_output>c<jupyter_script><empty_output>", "1<|im_end|>2", "  <|im_end|>", "x  <|im_end|>", "'<|im_end|>s", "<|IM_START|>", "<repo_name", "<empty_output>>",
    "supercalifragilisticexpialidocious", "antidisestablishmentarianism", "pneumonoultramicroscopicsilicovolcanoconiosis", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "ababababababababababab", "zzzzzzzzzzzzzzzzzzz", "a" * 3000, "ab" * 1500, "the" * 1000, " " * 1000, "\n" * 500, " \n" * 300, "-" * 999, "\u00e9" * 700, "\u65e5" * 500, "9" * 300, "\U0001f600" * 200, "'s" * 200,
    "word " * 300, "trailing spaces   ", "   leading", "a  b   c    d     e", "a\n\nb\n\n\nc", "x \n y", "x\n y", "x \ny", "mixed \t \n \r whitespace \u00a0 \u2003 end", " .", "  .", " ..", "\n.", "\t.", "\ta", "\t1", "\n1", " \t1", "\u00a01", "\u00a0a", "a.b", "a .b", "a. b",
]


def random_texts(seed, count):
    """Mixtures of characters that meet at every boundary of the pattern."""
    r = random.Random(seed)
    pools = [
        "abcdefghijklmnopqrstuvwxyz", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789", "     \n\n\t", "'.,;:!?-_()[]{}<>/\\|@#$%^&*+=~`\"", ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'"],
        "\u00e9\u00e8\u00fc\u00f6\u00e4\u00f1\u00e7\u00df\u00f8", "\u65e5\u672c\u8a9e\u4e2d\u6587\u5b57", "\u0431\u0432\u0433\u0434", "\u0661\u0662\u00bd\u00b2\u2163", "\u00a0\u2003\u3000\u0085\u2028", "\U0001f600\U0001f680\u2764\u200d\ufe0f", "\u0300\u0301\u0903", ["<|im_start|>", "<|im_end|>", "<|", "|>"], "\x00\x04\x06\x1b\x7f",
        ["the ", "The ", " of", " and", "ing", "tion", " is", "return ", "self.", "    "],
    ]
    weights = [9, 3, 4, 7, 5, 2, 2, 2, 1, 1, 1, 1, 1, 1, 0.5, 5]
    out = []
    for _ in range(count):
        parts = []
        for _ in range(r.randint(1, 12)):
            pool = r.choices(pools, weights)[0]
            parts += [r.choice(pool) for _ in range(r.randint(1, 6))]
        out.append("".join(parts))
    return out


def code_points():
    """Every 89th code point between a letter and a space, by the block."""
    points = [c for c in range(0, 0x110000, 89) if not 0xD800 <= c < 0xE000 and not 0x40000 <= c < 0xE0000]
    return ["".join(f"a{chr(c)} {chr(c)}1" for c in points[i : i + 200]) for i in range(0, len(points), 200)]


def main():
    smollm, gpt2 = load(sys.argv[1])
    everything = texts + random_texts(7, 300) + code_points()
    with open(here / "smollm2.bin", "wb") as f:
        f.write(struct.pack("<I", len(everything)))
        for text in everything:
            raw = text.encode()
            f.write(struct.pack("<I", len(raw)) + raw)
            for t in (smollm, gpt2):
                ids = t.encode(text, add_special_tokens=False).ids
                f.write(struct.pack(f"<I{len(ids)}i", len(ids), *ids))
    print(len(everything), "texts")


if __name__ == "__main__":
    main()
