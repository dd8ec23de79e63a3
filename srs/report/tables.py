"""The table of the paper (Tables 6 and 7): certified accuracy of every rule, for pages, LaTeX and Markdown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smoothing import ABSTAIN
from srs.evaluation.evaluate import Rows
from srs.evaluation.metrics import average_certified_radius, certified_accuracy, radius_grid
from srs.modes import OVERLAPPING, title
from srs.report.numbers import floored, percent


@dataclass(frozen=True)
class RuleTable:
    """Cells as text, rounded down.

    Attributes
    ----------
    columns : tuple of str
        Average certified radius, abstentions, then certified accuracy in percent at these radii.
    rows : tuple of (title, cells)
    main, unsound : str or None
        Titles of the rows to stress, and to mark as a bound that proves nothing.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    main: str | None
    unsound: str | None


def rule_table(rules: Mapping[str, Rows], main: str | None = None, *, named: Callable[[str], str] = title) -> RuleTable:
    """Return the table of some rules, whose rows are named by a function of the rules' names."""
    epsilon = radius_grid(max(float(row.radius.max(initial=0)) for row in rules.values()))
    rows = []
    for name, row in rules.items():
        accuracy = certified_accuracy(row.radius, row.correct, epsilon).tolist()
        cells = [floored(average_certified_radius(row.radius, row.correct), 3), str(_abstentions(row))]
        cells += [percent(value) if value else "-" for value in accuracy]
        rows.append((named(name), tuple(cells)))
    columns = ("ACR", "abstain", *(f"{value:.2f}" for value in epsilon))
    return RuleTable(
        columns,
        tuple(rows),
        None if main is None else named(main),
        named(OVERLAPPING) if OVERLAPPING in rules else None,
    )


def markdown(caption: str, table: RuleTable) -> str:
    """Return a table in Markdown."""
    lines = [["rule", *table.columns], ["---", *(["---:"] * len(table.columns))]]
    lines += [[f"**{name}**" if name == table.main else name, *cells] for name, cells in table.rows]
    body = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"{caption}\n\n{body}\n"


def latex(caption: str, table: RuleTable) -> str:
    """Return a table in LaTeX, for the package booktabs."""
    lines = [f"{_escaped(name)} & {' & '.join(cells)} \\\\" for name, cells in table.rows]
    head = f"rule & {' & '.join(table.columns)} \\\\"
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * len(table.columns)}}}",
            r"\toprule",
            head,
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


#: Formats by name: the file's suffix and how a table is written.
FORMATS = {"latex": (".tex", latex), "markdown": (".md", markdown)}


def joined(name: str, tables: Sequence[tuple[str, RuleTable]]) -> str:
    """Return all tables in one of `FORMATS`."""
    return "\n".join(FORMATS[name][1](caption, table) for caption, table in tables)


def _abstentions(row: Rows) -> int:
    return int(np.count_nonzero(row.predict == ABSTAIN))


def _escaped(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    special |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(special.get(character, character) for character in text)
