"""The table of the paper (Tables 6 and 7): certified accuracy of every rule, for terminals, pages and Markdown.

All of them show the same cells, made in one place from what a summary says, and say what the columns are.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.table import Table

from srs.modes import OVERLAPPING, title
from srs.report.best import Ranking
from srs.report.numbers import floored, percent, raised

#: Columns that some tables have.
DIFFERENCE, ONE_SIDED, ABSTAIN = "diff", "one-sided", "abstain"


@dataclass(frozen=True)
class RuleTable:
    """Cells as text, rounded down.

    Attributes
    ----------
    columns : tuple of str
        Average certified radius; half the width of its 95% interval; what it is above that of the main rule, and half
        of the paired interval of this difference, where there is a main rule; the radius with one-sided certificates,
        where both are known; clean accuracy in percent where it is known of every rule; abstentions; then certified
        accuracy in percent at these radii.
    rows : tuple of (title, cells)
    main : str or None
        Title of the row to stress.
    unsound : frozenset of str
        Titles of the rows that prove nothing.
    radii : int
        How many of the columns, the last ones, are about radii.
    best : mapping of str to frozenset of str, optional
        By column: titles of the best rows. None: nobody has ranked them.
    apart : frozenset of str, default=frozenset()
        Titles of the rows that claim something else than those that were ranked.
    why : str, default=""
        What these claim.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[str, ...]], ...]
    main: str | None
    unsound: frozenset[str]
    radii: int
    best: Mapping[str, frozenset[str]] | None = None
    apart: frozenset[str] = frozenset()
    why: str = ""

    def content(self) -> list[int]:
        """Return the columns in which a rule has an entry."""
        columns = range(len(self.columns))
        return [at for at in columns if any(cells[at] != "-" for _, cells in self.rows)]

    def with_content(self) -> "RuleTable":
        """Return the table without columns in which no rule has an entry."""
        kept, fixed = self.content(), len(self.columns) - self.radii
        return replace(
            self,
            columns=tuple(self.columns[at] for at in kept),
            rows=tuple((name, tuple(cells[at] for at in kept)) for name, cells in self.rows),
            radii=sum(at >= fixed for at in kept),
        )

    def bold(self, name: str) -> set[int]:
        """Return the columns in which a row is among the best."""
        best = self.best or {}
        return {at for at, column in enumerate(self.columns) if name in best.get(column, ())}

    def mark(self, name: str) -> str:
        """Return what stands behind the name of a row that claims something else."""
        return " †" if name in self.apart else ""

    def legend_of_best(self) -> list[str]:
        """Say what is bold, and what is not and why, where rows were ranked."""
        if self.best is None:
            return []
        said = [
            "bold numbers: the best of their column, and those that a paired 95% interval does not tell apart from it"
        ]
        if self.apart:
            said.append(f"rows with † are never bold, and nothing is where they have more: {self.why}")
        if self.unsound:
            said.append("rows that prove nothing do not count")
        return ["; ".join(said)]

    @property
    def legend(self) -> str:
        """What the columns are."""
        return self.legend_without(())

    def legend_without(self, left_out: Collection[str]) -> str:
        """Say what the columns are, but for those that are not shown."""
        parts = [
            "ACR: average certified radius, errors and abstentions counting 0",
            "+-: half of its 95% interval over images",
        ]
        if DIFFERENCE in self.columns and DIFFERENCE not in left_out:
            parts.append(f"{DIFFERENCE}: ACR less that of '{self.main}', with its paired interval")
        if ONE_SIDED in self.columns and ONE_SIDED not in left_out:
            parts.append(f"{ONE_SIDED}: ACR as published tables have it")
        return "; ".join(parts)


def rule_table(
    described: Mapping[str, Any],
    main: str | None = None,
    *,
    named: Callable[[str], str] = title,
    ranking: Ranking | None = None,
) -> RuleTable:
    """Return the table of what `describe_rules` returned, or a summary, with rows named by a function of rules' names.

    A rule that is unsound says so in its title, which that of overlapping regions does by itself.
    """
    rules: Mapping[str, Mapping[str, Any]] = described["rules"]
    clean = all("clean_accuracy_smoothed" in rule for rule in rules.values())
    differences = any(_difference(rule) is not None for rule in rules.values())
    mean, one_sided = "average_certified_radius", "average_certified_radius_one_sided"
    both = any(rule.get(one_sided, rule[mean]) != rule[mean] for rule in rules.values())
    titles, rows = {}, []
    for name, rule in rules.items():
        titles[name] = named(name) + ("" if rule["sound"] or name == OVERLAPPING else " (unsound here)")
        low, high = rule["average_certified_radius_interval"]
        cells = [floored(rule["average_certified_radius"], 3), "-" if low is None else raised((high - low) / 2, 3)]
        if differences:
            cells += _difference(rule) or ("-", "-")
        if both:
            cells.append(floored(rule[one_sided], 3) if one_sided in rule else "-")
        cells += [percent(rule["clean_accuracy_smoothed"])] if clean else []
        cells += [str(rule["abstentions"]), *(percent(value) if value else "-" for value in rule["certified_accuracy"])]
        rows.append((titles[name], tuple(cells)))
    return RuleTable(
        (
            "ACR",
            "+-",
            *([DIFFERENCE, "+-"] if differences else []),
            *([ONE_SIDED] if both else []),
            *(["clean"] if clean else []),
            ABSTAIN,
            *(f"{value:.2f}" for value in described["epsilon"]),
        ),
        tuple(rows),
        None if main is None else titles[main],
        frozenset(titles[name] for name, rule in rules.items() if not rule["sound"]),
        len(described["epsilon"]),
        **({} if ranking is None else _ranked(ranking, titles)),
    )


def _ranked(ranking: Ranking, titles: Mapping[str, str]) -> dict[str, Any]:
    best = {column: frozenset(titles[name] for name in names) for column, names in ranking.best.items()}
    return {"best": best, "apart": frozenset(titles[name] for name in ranking.apart), "why": ranking.why}


def _difference(rule: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return how much a rule is above the main one, and half of the interval; None where that is not known."""
    mean, low, high = rule.get("above_main", (None, None, None))
    return None if low is None else (f"{mean:+.3f}", raised((high - low) / 2, 3))


@dataclass(frozen=True)
class TerminalTable:
    """A table as `rich` prints it: the main row marked and bold, those that prove nothing dim.

    It is as wide as the screen allows, and not wider. Numbers are never cut short: radii at which no rule certifies
    anything are left out, and where there is no room, columns are, as `left_out` names them.
    """

    caption: str
    table: RuleTable

    def left_out(self, width: int) -> tuple[str, ...]:
        """Return the columns that have something to say and for which a screen of this width has no room."""
        shown = self._shown(width)[0]
        return tuple(
            name for at, name in enumerate(self.table.columns) if at not in shown and at in self.table.content()
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        """Yield the table."""
        columns, gap = self._shown(options.max_width)
        shown = Table(
            title=self.caption,
            title_justify="left",
            box=None,
            pad_edge=False,
            header_style="bold",
            padding=(0, gap, 0, 0),
        )
        shown.add_column("  rule", overflow="fold")
        for at in columns:
            width = self._widths()[at]
            shown.add_column(self.table.columns[at], justify="right", no_wrap=True, min_width=width)
        for name, cells in self.table.rows:
            main = name == self.table.main
            style = "bold" if main else "dim" if name in self.table.unsound else None
            shown.add_row(f"{'>' if main else ' '} {name}", *(cells[at] for at in columns), style=style)
        yield shown

    def _shown(self, width: int) -> tuple[list[int], int]:
        """Return which columns have room, and how many blanks stand between them."""
        fixed = len(self.table.columns) - self.table.radii
        names = max(map(cell_len, ("rule", *(name for name, _ in self.table.rows)))) + 2
        content, widths = self.table.content(), self._widths()
        whole = names + sum(widths[at] + 2 for at in content)
        if whole <= width:
            return content, 2
        room, taken = width - names, list[int]()

        def take(wanted: Sequence[int], reserve: Sequence[int] = ()) -> bool:
            nonlocal room
            needed = sum(widths[at] + 1 for at in wanted)
            if needed + sum(widths[at] + 1 for at in reserve) > room:
                return False
            room -= needed
            taken.extend(wanted)
            return True

        radii = [at for at in content if at >= fixed]
        named = {self.table.columns[at]: at for at in content if at < fixed}
        later = [named[name] for name in (ONE_SIDED, ABSTAIN) if name in named]
        pair = [named[DIFFERENCE], named[DIFFERENCE] + 1] if DIFFERENCE in named else []
        first = [[at] for at in content if at < fixed and at not in (*later, *pair)]
        for wanted in [*first, pair]:
            take(wanted, radii[::2][:2])
        for step in range(1, len(radii) + 1):  # all of the radii, or every other one, ...
            if take(radii[::step]):
                break
        for at in later:
            take([at])
        return sorted(taken), 1

    def _widths(self) -> list[int]:
        columns = zip(self.table.columns, *(cells for _, cells in self.table.rows), strict=True)
        return [max(map(cell_len, column)) for column in columns]


def markdown(caption: str, table: RuleTable, notes: Sequence[str] = ()) -> str:
    """Return a table in Markdown, and what has to be known of it."""
    shown = table.with_content()
    lines = [["rule", *shown.columns], ["---", *(["---:"] * len(shown.columns))]]
    for name, cells in shown.rows:
        title, bold = _plain(name + shown.mark(name)), shown.bold(name)
        title = f"**{title}**" if name == shown.main else title
        lines.append([title, *(f"**{cell}**" if at in bold else cell for at, cell in enumerate(cells))])
    body = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    said = (shown.legend, *shown.legend_of_best(), *notes)
    return "\n\n".join([_plain(caption), body, *(f"{_plain(sentence(note))}." for note in said)]) + "\n"


def _plain(text: str) -> str:
    """Return a text that Markdown takes for nothing else."""
    return re.sub(r"([\\`*_<>|#$&~]|\[|\])", r"\\\1", text)


def sentence(note: str) -> str:
    """Return a note with a capital at its beginning."""
    return note[:1].upper() + note[1:]
