"""Reads tables in LaTeX back, strictly: what it does not know, or what LaTeX would obey, fails."""

import re

_WORDS = {
    "textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<", "textgreater": ">",
    "textbar": "|",
}  # fmt: skip
_MATHEMATICS = {r"\ell_2": "l2", r"\pm": "+-", r"^\dagger": "†"}


def plain(text):
    """What a reader of typeset text sees, in the words that it was made of."""
    out, depth, at = [], 0, 0
    while at < len(text):
        rest = text[at:]
        if found := re.match(r"\\text(bf|it)(?=\{)", rest):
            at += found.end()
        elif found := re.match(r"\\(text[a-z]+)\{\}", rest):
            out.append(_WORDS[found[1]])
            at += found.end()
        elif found := re.match(r"\\([&%$#_{}])", rest):
            out.append(found[1])
            at += 2
        elif found := re.match(r"\$([^$]+)\$", rest):
            out.append(_mathematics(found[1]))
            at += found.end()
        elif rest[0] in "{}":
            depth += 1 if rest[0] == "{" else -1
            assert depth >= 0, text
            at += 1
        elif rest.startswith("''"):
            out.append('"')
            at += 2
        else:
            assert rest[0] not in "\\$&%#^_~<>|", text
            assert not rest.startswith(("--", ",,")), text
            out.append("'" if rest[0] == "`" and text[at - 1 : at] != "{" else rest[0])
            at += 1
    assert depth == 0, text
    return "".join(out)


def _mathematics(text):
    if text in _MATHEMATICS:
        return _MATHEMATICS[text]
    assert re.fullmatch(r"(\\[a-z]+)?[ =/\d.e+-]*", text), text
    return text.removeprefix("\\")


def tables(text):
    """The tables of a file: caption, label, header, and rows of (name, cells), cells still in LaTeX."""
    found = []
    for body in re.findall(r"\\begin\{table\}(.*?)\\end\{table\}", text, flags=re.DOTALL):
        columns = re.search(r"\\begin\{tabular\}\{@\{\}l(r+)@\{\}\}", body)[1]
        assert [body.count(rule) for rule in (r"\toprule", r"\bottomrule", r"\end{tabular}")] == [1, 1, 1]
        head, _, rest = body.partition("\\midrule\n")
        rows = [_cells(line) for line in rest.partition("\n\\bottomrule")[0].splitlines()]
        header = _cells(head.splitlines()[-1])
        assert {len(row) for row in [header, *rows]} == {1 + len(columns)}
        caption = re.search(r"\\caption\{(.*)\}\n", body)[1]
        label = re.search(r"\\label\{(.*)\}\n", body)
        found.append((plain(caption), label and label[1], header, [(row[0], row[1:]) for row in rows]))
    return found


def _cells(line):
    assert line.endswith(r" \\"), line
    return line.removesuffix(r" \\").split(" & ")  # a & of a name has a backslash before it


def shown(cell):
    """A cell as other formats have it."""
    return "-" if cell == "--" else plain(cell)
