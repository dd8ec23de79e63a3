"""Tables in LaTeX: what LaTeX makes of them, and of names that were made to break them."""

import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from srs.evaluation.describe import describe_rules
from srs.evaluation.rules import Answers
from srs.report.best import rank
from srs.report.latex import HEAD, latex, typeset
from srs.report.tables import rule_table
from tests.srs import tex

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"

#: Names as somebody may give them, to runs and to files.
HOSTILE = (
    r"\input{/etc/passwd}", r"\end{table}", "100% & #1_{x}^2~$y$", "[2pt] first", "* first", r"\\", "--", "a''b,,c",
    "<script>", "O'Neil's `best'", "a|b", "é ü ß", f"{SIGMA} and λ", "\u2212 1", "%", "}{", "a \\& b", '"quoted"',
)  # fmt: skip

WHOLE = r"""\documentclass[10pt]{{article}}
\usepackage[textwidth=5.5in]{{geometry}}
\usepackage{{booktabs}}
\begin{{document}}
{}
\end{{document}}
"""


def table_of(names, unsound=()):
    """A table of rules of these names, best first, the second of another claim."""
    label = np.zeros(40, dtype=np.int64)
    rules = {
        name: Answers(label=label, predict=label, radius=np.full(40, 1.2 - 0.01 * k), sound=name not in unsound)
        for k, name in enumerate(names)
    }
    described = describe_rules(rules, names[0])
    alike = [name for k, name in enumerate(names) if k != 1]
    return rule_table(described, names[0], named=str, ranking=rank(rules, alike, described["epsilon"], "why"))


def test_it_reads_back_as_it_was_meant():
    table = table_of(["joint", "class", "sigma = 0.3", "other"], unsound=["other"])
    [(caption, label, head, rows)] = tex.tables(latex("100% at alpha = 0.001", table, ["a -0.5 note"], "srs-x"))
    assert caption == "100% at alpha = 0.001"
    assert label == "tab:srs-x"
    assert list(map(tex.shown, head)) == ["rule", *table.with_content().columns]
    assert head[-1] == "1.00"  # no rule certifies more
    assert [name for name, _ in rows] == [
        r"\textbf{joint}", r"class $^\dagger$", r"$\sigma = 0.3$", r"\textit{other (unsound here)}",
    ]  # fmt: skip
    assert [cells[0] for _, cells in rows] == [r"\textbf{1.200}", "1.190", "1.180", "1.170"]
    assert rows[1][1][2] == "$-0.010$"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ACR less that of sigma = 0.3.", r"ACR less that of $\sigma = 0.3$."),
        ("alpha / 60, sigma, l2", r"$\alpha / 60$, $\sigma$, $\ell_2$"),
        ("+-: +0.005 (-0.1 to 1e-10), 1 - 0.5", r"$\pm$: $+0.005$ ($-0.1$ to 1e-10), 1 $-$ 0.5"),
        ("that of 'joint, LP'", "that of `joint, LP'"),
        ("sample-wise sigmas, x_sigma2", r"sample-wise sigmas, x\_sigma2"),
        ("a -- b --- c", "a -{}- b -{}-{}- c"),
        (r"\sigma", r"\textbackslash{}$\sigma$"),
        ("[x]*", "{[}x{]}{*}"),
        ("", ""),
    ],
)
def test_words_that_stand_for_letters_become_them(text, expected):
    assert typeset(text) == expected


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=40))
def test_any_text_is_text(text):
    """Nothing is a command, and no letter is lost but that Greek letters are named."""
    seen = tex.plain(typeset(text))
    for letter, name in ((SIGMA, "sigma"), ("λ", "lambda"), ("\u2212", "-")):
        text, seen = text.replace(letter, name), seen.replace(letter, name)
    if not re.search("[\u0370-\u03ff`'\"]", text):
        assert seen == text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_in_its_cell(name):
    names = ["first", name, "last"]
    [(caption, _, _, rows)] = tex.tables(latex(name, table_of(names)))
    expected = name.replace(SIGMA, "sigma").replace("λ", "lambda").replace("\u2212", "-")
    assert caption == expected
    assert [tex.shown(title) for title, _ in rows] == ["first", f"{expected} †", "last"]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_compiles_it(tmp_path):
    tables = [latex(f"Of {name}", table_of([name, "b", name + "x"]), [name], "x") for name in HOSTILE]
    (tmp_path / "tables.tex").write_text("\n".join([HEAD, *tables]), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(WHOLE.format(r"\input{tables}" + "\nSee Table~\\ref{tab:x}."))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    process = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    said = process.stdout.decode("utf-8", "replace")
    assert process.returncode == 0, said[-2000:]
    assert "Overfull" not in said
