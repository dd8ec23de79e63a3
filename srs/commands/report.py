"""`srs-report`: everything a run says, computed anew from its rows, as a page, figures and tables."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from srs.commands._cli import needing, one_line_errors, parse, printing
from srs.commands._progress import Teller
from srs.labels import split_name
from srs.limits import COLUMN, check_alpha, check_width

if TYPE_CHECKING:
    import numpy as np

    from smoothing import CertificateTable
    from srs.evaluation.rules import Answers
    from srs.report.chapter import Chapter

_DESCRIPTION = """Make a page of finished runs of srs-certify: curves, tables, pictures.

Computes all numbers anew from the rows of each run; needs no GPU, no network and no model. Writes report.html, which
is complete in itself, figures as PNG and PDF, and for each run certificates.tsv, comparison.tsv, summary.json and
losses.tsv (how much radius each image loses to which neighbour)."""


@dataclass(frozen=True)
class ReportSettings:
    """What `srs-report` can be told."""

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[NAME=]RUN [[NAME=]RUN ...]")]
    """Folders that srs-certify wrote. NAME is what tables, legends and the page call a run; default: the folder's
    name."""
    out: Path | None = None
    """Folder for the report; files of an earlier report in it are replaced. Default for one run: RUN-report, beside
    it."""
    baseline: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="[NAME=]FILE")] = ()
    """Certification log of another method (idx label predict radius correct time) to compare with; may be repeated. It
    must hold the images of the runs, with their labels; further ones are left out."""
    alpha: float | None = None
    """Compute bounds and regions anew at this failure probability per image; each image's sigma stays. Default: the
    runs' own."""
    tables: Annotated[tuple[Literal["latex", "markdown"], ...], tyro.conf.UseAppendAction] = ()
    """Also write the tables as tables.tex or tables.md, the best numbers in bold; may be repeated."""
    width: float = COLUMN
    """Width of the figures in PNG and PDF, in inches: that of a column of a paper, or 6.75 across two. Default:
    3.25."""
    date: str | None = None
    """Date of the runs on the page, as in 2026-01-31. Default: for each run the day on which its summary.json was
    written, in UTC, as the file system has it."""


@printing("srs-report")
@needing("certify", "srs-report")
def main() -> None:
    """Run the command; exit code 2 and one line on stderr where the input cannot be used."""
    settings = parse(ReportSettings, "srs-report", _DESCRIPTION)
    with one_line_errors("srs-report"), Teller("srs-report") as teller:
        report(settings, teller)


def report(settings: ReportSettings, teller: Teller) -> None:
    """Read, compute, write, print; what it does meanwhile is for `teller`."""
    from srs.commands._cli import console
    from srs.commands._results import print_next, print_results
    from srs.report.chapter import Chapter
    from srs.report.finished_run import load_run
    from srs.report.names import folders_of, names_of
    from srs.report.page import BESIDE, PAGE, write_report
    from srs.report.summary import summarize
    from srs.report.svg import undrawn
    from srs.run.folder import read_description
    from srs.text import visible

    if settings.alpha is not None:
        check_alpha(settings.alpha)
    if not settings.runs:
        raise ValueError("no RUN: name at least one folder that srs-certify wrote")
    day = _day(settings.date)
    check_width(settings.width)
    given = [split_name(text, "RUN") for text in settings.runs]
    for _, folder in given:
        read_description(folder)
    logs = _logs(settings.baseline)
    out = _out(settings, [folder for _, folder in given])
    names = names_of(given, logs)
    if clashing := [name for name in names if names.count(name) > 1 or name in logs]:
        one = clashing[0]
        raise ValueError(f"RUN {one}=...: another run or log is called {one} too; name them apart by NAME=")
    chapters = []
    for (_, folder), name, inside in zip(given, names, folders_of(names, BESIDE), strict=True):
        with teller.phase(f"reading {visible(str(folder))} and sizing its regions"):
            run = load_run(folder)
            results = run.evaluate(settings.alpha)
        warning = run.disagreement(results) if results.alpha == run.alpha else None
        if warning:
            sys.stderr.write(f"srs-report: warning: {visible(warning)}\n")
        chapters.append(Chapter(name, inside, run, results, warning, run.day if day is None else day))
    baselines = _baselines(logs, chapters)
    for name in (*names, *logs) if len(names) + len(logs) > 1 else ():  # one alone is in no figure
        if letters := undrawn(name):
            sys.stderr.write(f"srs-report: warning: {name}: figures in PNG and PDF have no letter {letters}\n")

    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with teller.phase("drawing figures"):
            write_report(staging, chapters, baselines, settings.tables, settings.width)
        _move(staging, out, last=PAGE)
    finally:
        shutil.rmtree(staging)
    for chapter in chapters:
        summary = summarize(chapter.results, chapter.run.config, chapter.run.manifest)
        print_results(summary, chapter.run.folder, named=chapter.name)
    console().print(f"written to {out / PAGE}", soft_wrap=True)
    for chapter in chapters:
        print_next(chapter.run.folder, chapter.run.config, reported=True)


def _out(settings: ReportSettings, runs: Sequence[Path]) -> Path:
    from smoothing.storage import check_folder

    if settings.out is None and len(runs) > 1:
        raise ValueError("several runs: name a folder for their report with --out")
    one = runs[0].absolute()
    out = one.with_name(f"{one.name}-report") if settings.out is None else settings.out
    check_folder(out, "--out")
    check_folder(out, "--out", beside=True)  # where files lie until all are there
    if (out / "config.yaml").exists():
        raise ValueError(f"--out {out}: holds a run; name another folder")
    return out


def _day(text: str | None) -> str | None:
    """Return a date as it is written everywhere."""
    try:
        return None if text is None else date.fromisoformat(text).isoformat()
    except ValueError as error:
        raise ValueError(f"--date {text}: is no date; write it as 2026-01-31") from error


def _logs(texts: Sequence[str]) -> dict[str, tuple[Path, CertificateTable]]:
    """Read the logs to compare with, by name: what is given, else the file's name without its suffix."""
    from srs.text import visible

    found: dict[str, tuple[Path, CertificateTable]] = {}
    for text in texts:
        given, path = split_name(text, "--baseline")
        name = visible(path.stem) if given is None else given
        if name in found:
            raise ValueError(f"--baseline {text}: another one is called {name} too; name them apart by NAME=FILE")
        found[name] = path, _log(path)
    return found


def _baselines(logs: Mapping[str, tuple[Path, CertificateTable]], chapters: Sequence[Chapter]) -> dict[str, Answers]:
    """Return what the logs certify, of each the rows of the images that the runs are about."""
    import numpy as np

    from srs.evaluation.rules import Answers

    first = chapters[0].run.record.idx  # in its order, so that differences are those of the same images
    images = np.concatenate(
        [first, np.setdiff1d(np.concatenate([chapter.run.record.idx for chapter in chapters]), first)]
    )
    found: dict[str, Answers] = {}
    for name, (path, table) in logs.items():
        for chapter in chapters:
            record = chapter.run.record
            at, lacking = _places(table, record.idx)
            remedy = "give a log of the images that the runs are about"
            if lacking.any():
                j = int(lacking.argmax())
                raise ValueError(f"--baseline {path}: lacks image {record.idx[j]} of {chapter.name}; {remedy}")
            differs = table.label[at] != record.label
            if differs.any():
                j = int(differs.argmax())
                raise ValueError(
                    f"--baseline {path}: image {record.idx[j]} has label {table.label[at[j]]}, in {chapter.name} it "
                    f"has {record.label[j]}; {remedy}"
                )
        at, _ = _places(table, images)
        found[name] = Answers(label=table.label[at], predict=table.predict[at], radius=table.radius[at])
    return found


def _places(table: CertificateTable, idx: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of images in a log, and which images it lacks."""
    import numpy as np

    order = np.argsort(table.idx, kind="stable")
    at = order[np.searchsorted(table.idx, idx, sorter=order).clip(0, len(order) - 1)]
    return at, np.asarray(table.idx[at] != idx)


def _log(path: Path) -> CertificateTable:
    import numpy as np

    from smoothing import ABSTAIN
    from srs.logs.read import read_log

    try:
        table = read_log(path)
    except (ValueError, OSError) as error:
        raise ValueError(f"--baseline {error}") from error
    return replace(table, radius=np.where(table.predict == ABSTAIN, 0.0, table.radius))


def _move(staging: Path, out: Path, last: str) -> None:
    """Put finished files where they belong, the page last."""
    files = sorted((path for path in staging.rglob("*") if path.is_file()), key=lambda path: path.name == last)
    for file in files:
        target = out / file.relative_to(staging)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(file, target)
