"""The table of a comparison, for people and for programs, and its curves."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from smoothing.storage import replacing
from smoothing.tables import write_rows
from srs.evaluation.describe import describe_rules
from srs.report.figures import comparison
from srs.report.latex import HEAD, latex
from srs.report.steps import IN_FILE
from srs.report.tables import RuleTable, markdown, rule_table
from srs.score.entries import Entry

#: What `write` makes.
TSV, MARKDOWN, LATEX = "score.tsv", "score.md", "score.tex"
FILES = frozenset({TSV, MARKDOWN, LATEX})

#: What is written where nobody says.
UNKNOWN = "not said"

CAPTION = "Certified accuracy (%) at l2 radius"

_NOTES = (
    "samples: noisy images per image, in the mean; >= where a log tells only of those that certify",
    "bound: one-sided, sigma Phi^-1(p_A), or full, Eq. 2 with the runner-up",
    "setting: transductive where the test images, without labels, are known before certification",
    "radii as the logs print them, which may have been rounded to the nearest",
)


def notes(entries: Mapping[str, Entry]) -> list[str]:
    """Return what has to be known of the table beside its legend."""
    alphas: dict[str, list[str]] = {}
    for name, entry in entries.items():
        alphas.setdefault(UNKNOWN if entry.alpha is None else f"{entry.alpha:g}", []).append(name)
    of = "; ".join(f"{alpha}: {', '.join(names)}" for alpha, names in alphas.items())
    images = len(next(iter(entries.values())).table.idx)
    return [*_NOTES, f"alpha of each certificate: {of}", f"{images:,} images, the same everywhere by number and label"]


def score(entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Return every method's figures of merit, as `describe_rules` does: accuracies are fractions."""
    return describe_rules({name: entry.answers for name, entry in entries.items()}, next(iter(entries)))


def table_of(entries: Mapping[str, Entry], described: Mapping[str, Any]) -> RuleTable:
    """Return the table: the columns of rules, and before the radii what the certificates cost and what they are."""
    table = rule_table(described, next(iter(entries)), named=str)
    before = len(table.columns) - table.radii
    rows = [
        (name, (*cells[:before], *_protocol(entry), *cells[before:]))
        for (name, cells), entry in zip(table.rows, entries.values(), strict=True)
    ]
    columns = (*table.columns[:before], "samples", "bound", "setting", *table.columns[before:])
    return replace(table, columns=columns, rows=tuple(rows))


def _protocol(entry: Entry) -> tuple[str, str, str]:
    samples = UNKNOWN
    if entry.samples is not None:
        samples = f"{'' if entry.all_samples else '>= '}{np.ceil(entry.samples):,.0f}"
    return samples, entry.bound or UNKNOWN, entry.setting or UNKNOWN


def rows(entries: Mapping[str, Entry], described: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the rows of `score.tsv`, with all digits; an empty field where nobody says."""
    for (name, entry), rule in zip(entries.items(), described["rules"].values(), strict=True):
        low, high = rule["average_certified_radius_interval"]
        values = (
            len(entry.table.idx),
            rule["average_certified_radius"],
            low,
            high,
            *rule.get("above_main", (None, None, None)),
            rule["abstentions"],
            entry.samples,
            None if entry.samples is None else "all" if entry.all_samples else "certifying",
            entry.bound,
            entry.setting,
            entry.alpha,
            *rule["certified_accuracy"],
        )
        yield (name, *("" if value is None else str(value) for value in values))


def header(described: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of `score.tsv`."""
    return (
        "name", "images", "acr", "acr_low", "acr_high", "above_first", "above_first_low", "above_first_high",
        "abstentions", "samples", "samples_counted", "bound", "setting", "alpha",
        *(f"accuracy_{epsilon:g}" for epsilon in described["epsilon"]),
    )  # fmt: skip


def write(entries: Mapping[str, Entry], described: Mapping[str, Any], folder: Path) -> None:
    """Write all files into a folder."""
    table = table_of(entries, described)
    write_rows(folder / TSV, header(described), rows(entries, described))
    said = notes(entries)
    tex = "\n".join([HEAD, latex(CAPTION, table, said, "srs-score")])
    for name, text in ((MARKDOWN, markdown(CAPTION, table, said)), (LATEX, tex)):
        with replacing(folder / name) as stream:
            stream.write(text.encode())


def curves(entries: Mapping[str, Entry]) -> Figure:
    """Draw certified accuracy against radius."""
    return comparison({name: entry.answers for name, entry in entries.items()}, IN_FILE).figure
