#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What doxygen reads instead of a header (its INPUT_FILTER); the lines stay where they are. Usage: filter.py FILE.

It makes two habits of these sources readable for doxygen, which else asks for a comment on every declaration:

* a comment stands for the declarations after it up to the next empty line: the others of the run get its first sentence;
* members that mean the same wherever they occur are explained once, in WORDS; others without a comment are what their
  class says.

So doxygen demands a comment of every class, function, alias and constant of the namespaces.
"""

import bisect
import re
import sys

WORDS = {
    # shapes and memory
    "rows": "Rows: outputs of an operator.",
    "cols": "Columns: inputs of an operator.",
    "columns": "Number of columns, or the columns themselves.",
    "view": "A view of what this owns, valid as long as that is there and not moved; not of a temporary.",
    "bytes": "Bytes of memory that it holds, or refers to.",
    "data": "The first element.",
    "size": "Number of elements.",
    "empty": "True without elements.",
    "extents": "The sizes of all dimensions.",
    "extent": "Size of dimension r.",
    "stride": "Elements from one index of dimension r to the next.",
    "rank": "Number of dimensions; of a product, the size that its factors share.",
    "mapping": "From an index tuple to an offset.",
    "required_span_size": "Elements from the first to past the last.",
    "is_always_exhaustive": "True where the elements have no gaps, whatever the sizes.",
    "begin": "The first element, and past the last.",
    "end": "Past the last element.",
    "operator[]": "The element at the index.",
    "operator()": "The element, weight or value at the indices; of a functor, its result.",
    "operator=": "Takes what the other owns, which is empty afterwards; what owns memory is not copied.",
    # formats and codes
    "name": "The name that messages and `describe` use.",
    "bits": "Bits of a code.",
    "card": "What there is to know about the format.",
    "max_magnitude": "The largest finite magnitude.",
    "is_integer": "True where values are integers.",
    "decode": "The value of a code.",
    "encode": "The code of a nearest value.",
    "from_bits": "The value that a code stands for.",
    "to_bits": "The code.",
    "operator float": "The value.",
    "operator double": "The value.",
    "operator==": "Compares values.",
    "operator<": "Compares values; false where one is NaN.",
    "operator-": "The value of inverted sign.",
    "format": "The format of the codes.",
    "code": "The code of a weight.",
    "codes": "Codes, in the packed form of the file comment.",
    "block": "What is stored for `block_size` weights.",
    "block_size": "Weights of a block.",
    "group_size": "Weights that share a scale.",
    "bits_per_weight": "Bits of a block over its weights.",
    "code_bits": "Bits of a code without what blocks share.",
    "min_code": "The smallest code.",
    "has_minimum": "True where weights are scale * code + minimum.",
    "has_scale": "True where values have a scale beside them.",
    "scale": "The scale of a weight, or of its group.",
    "scales": "The scales, in the order of the file comment.",
    "minimum": "What is added to scale * code.",
    "sub_scale": "The integer scale of a group, times the block's.",
    "sub_minimum": "The integer minimum of a group, times the block's.",
    "set_sub": "Stores the integer scale (and minimum) of a group.",
    "set_code": "Stores a code.",
    "zero_point": "The code of zero.",
    "zero_points": "The codes of zero, a byte a scale.",
    "values": "Stored values.",
    "nonzeros": "Number of stored weights.",
    # operators
    "inner": "The operand.",
    "first": "The first operand, or where a part begins.",
    "second": "The second operand.",
    "last": "Past the end of a part.",
    "factor": "The number that it is multiplied by.",
    "storage": "The stored matrix.",
    "is_linear_operator": "Makes the type a linear_operator.",
    "is_expert": "Makes the type an expert.",
    "check": "Throws shape_error where a parameter does not fit.",
    "placed": "What `place` returns for this operator: owns its storage in a backend's order.",
}
# Of members of a class that has a comment, and which have none themselves: full words, which the class explains.
MEMBER = "&nbsp;"
GUIDE = "Deduces the arguments of the class."


def blanked(text):
    """The text with comments, strings and preprocessor lines blanked, of the same length."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])+\'|^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.S | re.M)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group(0)), text)


def name_of(head):
    """The name that a declaration introduces, its head up to the first brace or its end."""
    while re.match(r"\s*(template|requires)\b", head):  # the parameter list, the constraint
        start = head.find("<" if head.lstrip().startswith("template") else "(")
        if start < 0:
            break
        depth, i = 0, start
        while i < len(head):
            depth += head[i] in "<(" or 0
            depth -= (head[i] in ">)" and head[i - 1] != "-") or 0
            i += 1
            if depth == 0:
                break
        rest = head[i:]
        if head.lstrip().startswith("requires"):
            rest = re.sub(r"^\s*(&&|\|\|)", " requires", rest)
        head = rest
    for pattern in (r"\busing\s+(\w+)\s*=", r"\b(operator\s*[^\s\w(]+)\s*\(", r"\b(operator\s*\(\))", r"\b(operator\s+\w+)\s*\(",
                    r"(~?\b\w+)\s*\(", r"(\b\w+)\s*(?:\[[^\]]*\]\s*)?(?:=|$)"):
        found = re.search(pattern, head)
        if found:
            return re.sub(r"\s+(?=\W)", "", found.group(1))
    return ""


LABEL = re.compile(r"(public|private|protected)\s*:(?!:)")
REQUIRES = re.compile(r"\brequires\s*(\([^()]*\))?\s*$")
FOLLOWS = re.compile(r"\s*(.?)", re.S)


def declarations(code):
    """Yields (start, name, name of the class around it or "") of every declaration outside of functions."""
    kinds, start, parens, i = [("namespace", "")], None, 0, 0
    head = ""
    while i < len(code):
        c = code[i]
        declares = kinds[-1][0] != "body"
        if declares and start is None and not c.isspace() and c not in "};":
            label = LABEL.match(code, i)
            if label:
                i = label.end()
                continue
            start, head = i, ""
        if c == "{":
            opened = ("body", "requirements" if REQUIRES.search(head) else "")
            if declares and parens == 0 and not REQUIRES.search(head):
                text = re.sub(r"template\s*<.*?>\s*(?=\w)", "", head, flags=re.S)
                text = re.sub(r"^\s*requires\b.*\n(?=\s*(class|struct)\b)", "", text, flags=re.S)
                kind = re.match(r"\s*(?:inline\s+)?(namespace|class|struct|union|enum)\b(?:\s+class)?\s*(\w*)", text)
                if kind and "(" not in text.split(":")[0]:
                    if kind.group(1) != "namespace":
                        yield start, kind.group(2), kinds[-1][1]
                    if kind.group(1) == "namespace":
                        opened = ("namespace", "")
                    elif kind.group(1) != "enum":
                        opened = ("class", kind.group(2))
                    start = None if opened[0] != "body" else start
            kinds.append(opened)
        elif c == "}":
            closed, what = kinds.pop() if len(kinds) > 1 else ("namespace", "")
            if closed != "body":
                start = None
            elif kinds[-1][0] != "body" and parens == 0 and start is not None:
                if what != "requirements" and FOLLOWS.match(code, i + 1).group(1) not in tuple(",;({)&|"):
                    yield start, name_of(head), kinds[-1][1]
                    start = None
        elif c == ";" and declares and parens == 0:
            if start is not None:
                yield start, name_of(head), kinds[-1][1]
            start = None
        elif declares:
            parens += (c == "(") - (c == ")")
        if kinds[-1][0] != "body" and start is not None:
            head += c
        i += 1


def words_of_run(lines, row):
    """The first sentence of the comment with which the declarations up to this line began."""
    indent = re.match(r" *", lines[row]).group(0)
    for r in range(row - 1, -1, -1):
        if not lines[r].strip() or not lines[r].startswith(indent):
            return ""
        if re.match(indent + r"///(?!<)", lines[r]):
            first = r
            while re.match(indent + r"///", lines[first - 1]):
                first -= 1
            words = " ".join(re.sub(r"^\s*///\s?", "", line) for line in lines[first:r + 1])
            return re.split(r"(?<=[.:])\s|\s\s|@", words.strip())[0].strip()
    return ""


def documented(text):
    # Three things that doxygen 1.9 does not parse.
    for what, instead in (("namespace tessera::inline TESSERA_ABI", "namespace tessera"), ("explicit(false)", ""), ("::template ", "::")):
        text = text.replace(what, instead)
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    additions = {}
    for start, name, owner in declarations(blanked(text)):
        row = bisect.bisect_right(starts, start) - 1
        if lines[row][:start - starts[row]].strip():
            continue
        if row > 0 and re.match(r"\s*(///|.*\*/$)", lines[row - 1]) or "///<" in lines[row]:
            continue
        words = words_of_run(lines, row)
        if not words and owner:
            words = MEMBER if name == owner else WORDS.get(name, MEMBER)
        elif not words:
            is_guide = re.match(r"(template.*|\s*requires.*|explicit )*\w+\(.*->[^;{]*;", text[start:text.find(";", start) + 1], re.S)
            words = GUIDE if is_guide else WORDS["placed"] if name == "placed" else ""
        if words and "*/" not in words:
            additions[row] = f"/** {words} */ "
    for row, words in additions.items():
        lines[row] = re.sub(r"^\s*", lambda m: m.group(0) + words, lines[row], count=1)
    return "\n".join(lines)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as header:
        source = header.read()
    sys.stdout.reconfigure(encoding="utf-8")
    sys.stdout.write(documented(source) if sys.argv[1].endswith(".hpp") else source)
