"""The report's tables in the formats of papers and of notes."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from srs.evaluation.rules import Answers
from srs.modes import MEANING, short_title
from srs.report.chapter import Chapter, compared, overview
from srs.report.latex import HEAD, latex
from srs.report.names import folders_of
from srs.report.numbers import readable
from srs.report.summary import remarks, summarize
from srs.report.tables import RuleTable, markdown, rule_table, sentence

ALL = "all"


@dataclass(frozen=True)
class Export:
    """A table, what it is called, and what has to be known of it.

    Attributes
    ----------
    caption : str
    table : RuleTable
    notes : sequence of str
    label : str
        What a paper refers to; unlike every other's.
    """

    caption: str
    table: RuleTable
    notes: Sequence[str]
    label: str


def tables_of(chapters: Sequence[Chapter], baselines: Mapping[str, Answers]) -> list[Export]:
    """Return a table of each run, with the rules' short names, and one of all together where there are several."""
    plain = [re.sub(r"[^A-Za-z0-9.]+", "-", chapter.folder) for chapter in chapters]
    tables = []
    for chapter, label in zip(chapters, folders_of(plain, [ALL]), strict=True):
        results = chapter.results
        guarantee = readable(results.proofs.guarantee, results.alpha)
        summary = summarize(results, chapter.run.config, chapter.run.manifest)
        ranking = chapter.ranking(summary["epsilon"])
        table = rule_table(summary, summary["main"], named=short_title, ranking=ranking)
        caption = f"{chapter.name}: certified accuracy (%) at l2 radii. {sentence(guarantee)}."
        tables.append(Export(caption, table, [f"rows: {MEANING}", *remarks(summary)], f"srs-{label}"))
    rules = compared(chapters, baselines)
    if len(rules) > 1:
        tables.append(
            Export(
                "All runs and logs: certified accuracy (%) at l2 radii.", overview(chapters, rules), [], f"srs-{ALL}"
            )
        )
    return tables


def _latex(tables: Sequence[Export]) -> str:
    return "\n".join([HEAD, *(latex(one.caption, one.table, one.notes, one.label) for one in tables)])


def _markdown(tables: Sequence[Export]) -> str:
    return "\n".join(markdown(one.caption, one.table, one.notes) for one in tables)


#: Formats by name: the name of the file, and how tables are written.
FORMATS: Mapping[str, tuple[str, Callable[[Sequence[Export]], str]]] = {
    "latex": ("tables.tex", _latex),
    "markdown": ("tables.md", _markdown),
}
