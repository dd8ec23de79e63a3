"""Tables in LaTeX, as a paper takes them in: booktabs, a caption, a label, mathematics for what is mathematics."""

import re
import unicodedata
from collections.abc import Sequence

from srs.report.tables import RuleTable, sentence

HEAD = r"% Needs \usepackage{booktabs}. UTF-8; names in other scripts than Latin and Greek need LuaLaTeX or XeLaTeX."

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "†": r"$^\dagger$",
    "\u2212": "$-$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "[]*`"},  # else arguments of the line before, or a ligature
}

_GREEK = frozenset(
    (
        *("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "lambda", "mu", "nu"),
        *("xi", "pi", "rho", "sigma", "tau", "upsilon", "phi", "chi", "psi", "omega"),
        *("Gamma", "Delta", "Theta", "Lambda", "Xi", "Pi", "Sigma", "Upsilon", "Phi", "Psi", "Omega"),
    )
)


def latex(caption: str, table: RuleTable, notes: Sequence[str] = (), label: str = "") -> str:
    r"""Return a table in LaTeX, for the package booktabs, and what has to be known of it.

    Parameters
    ----------
    caption : str
    table : RuleTable
    notes : sequence of str
    label : str, optional
        What `\ref` calls it, after "tab:".
    """
    shown = table.with_content()
    fixed, count = len(shown.columns) - shown.radii, len(shown.columns)
    span = rf"\multicolumn{{{shown.radii}}}{{c}}{{$\ell_2$ radius}}"
    above = [rf"{'& ' * (fixed + 1)}{span} \\", rf"\cmidrule(l){{{fixed + 2}-{count + 1}}}"] if shown.radii else []
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering",
            rf"\caption{{{typeset(caption)}}}",
            *([rf"\label{{tab:{label}}}"] if label else []),
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            rf"\begin{{tabular}}{{@{{}}l{'r' * count}@{{}}}}",
            r"\toprule",
            *above,
            rf"rule & {' & '.join(map(_cell, shown.columns))} \\",
            r"\midrule",
            *(_row(shown, name, cells) for name, cells in shown.rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize\raggedright",
            *(rf"{typeset(sentence(note))}.\par" for note in (shown.legend, *shown.legend_of_best(), *notes)),
            r"\end{minipage}",
            r"\end{table}",
            "",
        ]
    )


def typeset(text: str) -> str:
    r"""Return a text in LaTeX.

    Nothing in it is a command, but words that stand for a letter become it, as sigma and l2 do, and minus signs are no
    hyphens.
    """
    return _TOKEN.sub(_token, text)


#: What is not typeset letter by letter.
_TOKEN = re.compile(
    r"(?<!\w)(?P<letter>sigma|alpha)(?!\w)(?: (?P<sign>[=/]) (?P<value>\d+(?:\.\d+)?(?:e-?\d+)?))?"
    r"|(?<!\w)(?P<norm>l2)(?!\w)"
    r"|(?P<both>\+-)"
    r"|(?<![\w.+-])(?P<number>[+-]\d+(?:\.\d+)?)"
    r"|(?<= )(?P<minus>-)(?= \d)"
    r"|(?<!\w)(?P<quote>')(?=[^']*')"
    r"|(?P<ligature>-(?=-)|'(?=')|,(?=,))"
    r"|(?P<other>.)",
    re.DOTALL,
)


def _token(found: re.Match[str]) -> str:
    kind, text = found.lastgroup, found[0]
    if found["letter"]:
        return rf"$\{found['letter']}" + (f" {found['sign']} {found['value']}$" if found["sign"] else "$")
    if kind in ("number", "minus"):
        return f"${text}$"
    if kind == "ligature":
        return f"{text}{{}}"
    if kind == "other":
        return _SPECIAL.get(text) or _greek(text)
    return {"norm": r"$\ell_2$", "both": r"$\pm$", "quote": "`"}[str(kind)]


def _greek(character: str) -> str:
    """Return a Greek letter as LaTeX calls it, and any other character as it is."""
    kind, _, name = unicodedata.name(character, "").replace("LAMDA", "LAMBDA").partition(" LETTER ")
    name = {"GREEK SMALL": name.lower(), "GREEK CAPITAL": name.title()}.get(kind, "")
    return rf"$\{name}$" if name in _GREEK else character


def _row(table: RuleTable, name: str, cells: Sequence[str]) -> str:
    """Return a row: best cells in bold, the name of the main rule too, that of an unsound one slanted."""
    title = typeset(name + table.mark(name))
    title = _bold(title) if name == table.main else rf"\textit{{{title}}}" if name in table.unsound else title
    bold = table.bold(name)
    return " & ".join([title, *(_bold(_cell(c)) if at in bold else _cell(c) for at, c in enumerate(cells))]) + r" \\"


def _cell(text: str) -> str:
    return "--" if text == "-" else typeset(text)


def _bold(text: str) -> str:
    return rf"\textbf{{{text}}}"
