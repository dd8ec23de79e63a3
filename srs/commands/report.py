"""`srs-report`: everything a run says, computed anew from its rows, as a page, figures and tables."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from srs.commands._cli import needing, one_line_errors, parse, printing
from srs.commands._progress import Teller
from srs.limits import check_alpha

if TYPE_CHECKING:
    import numpy as np

    from smoothing import CertificateTable
    from srs.evaluation.rules import Answers
    from srs.report.page import Chapter

_DESCRIPTION = """Make a page of finished runs of srs-certify: curves, tables, pictures.

Computes all numbers anew from the rows of each run; needs no GPU, no network and no model. Writes report.html, which
is complete in itself, figures as PNG and PDF, and for each run certificates.tsv, comparison.tsv, summary.json and
losses.tsv (how much radius each image loses to which neighbour)."""


@dataclass(frozen=True)
class ReportSettings:
    """What `srs-report` can be told."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Folders that srs-certify wrote."""
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
    """Also write the tables as tables.tex or tables.md; may be repeated."""


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
    from srs.report.finished_run import load_run
    from srs.report.page import PAGE, Chapter, tables_of, write_report
    from srs.report.summary import summarize
    from srs.report.tables import FORMATS, joined
    from srs.run.folder import read_description
    from srs.text import visible

    if settings.alpha is not None:
        check_alpha(settings.alpha)
    if not settings.runs:
        raise ValueError("no RUN: name at least one folder that srs-certify wrote")
    for folder in settings.runs:
        read_description(folder)
    for text in settings.baseline:
        _log(_named(text)[1])
    out = _out(settings)
    taken = {_named(text)[0] for text in settings.baseline}
    names = _names(settings.runs, taken)
    chapters = []
    for folder, name in zip(settings.runs, names, strict=True):
        with teller.phase(f"reading {visible(str(folder))} and sizing its regions"):
            run = load_run(folder)
            results = run.evaluate(settings.alpha)
        warning = run.disagreement(results) if results.alpha == run.alpha else None
        if warning:
            sys.stderr.write(f"srs-report: warning: {visible(warning)}\n")
        chapters.append(Chapter(name, run, results, warning))
    baselines = _baselines(settings.baseline, chapters)

    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        with teller.phase("drawing figures"):
            write_report(staging, chapters, baselines)
            for name in dict.fromkeys(settings.tables):
                tables = joined(name, tables_of(chapters, baselines))
                (staging / f"tables{FORMATS[name][0]}").write_text(tables, encoding="utf-8")
        _move(staging, out, last=PAGE)
    finally:
        shutil.rmtree(staging)
    for chapter in chapters:
        print_results(summarize(chapter.results, chapter.run.config, chapter.run.manifest), chapter.run.folder)
    console().print(f"written to {out / PAGE}", soft_wrap=True)
    for chapter in chapters:
        print_next(chapter.run.folder, chapter.run.config, reported=True)


def _out(settings: ReportSettings) -> Path:
    from smoothing.storage import check_folder

    if settings.out is None and len(settings.runs) > 1:
        raise ValueError("several runs: name a folder for their report with --out")
    one = settings.runs[0].absolute()
    out = one.with_name(f"{one.name}-report") if settings.out is None else settings.out
    check_folder(out, "--out")
    check_folder(out, "--out", beside=True)  # where files lie until all are there
    if (out / "config.yaml").exists():
        raise ValueError(f"--out {out}: holds a run; name another folder")
    return out


def _names(runs: tuple[Path, ...], taken: set[str]) -> list[str]:
    """Return a name for each run: its folder's, with a number where that is taken."""
    names: list[str] = []
    for folder in runs:
        name = base = folder.absolute().name or "run"
        number = 1
        while name in names or name in taken:
            number += 1
            name = f"{base}-{number}"
        names.append(name)
    return names


def _baselines(texts: tuple[str, ...], chapters: list[Chapter]) -> dict[str, Answers]:
    """Read the logs to compare with: of each, the rows of the images that the runs are about."""
    import numpy as np

    from srs.evaluation.rules import Answers

    first = chapters[0].run.record.idx  # in its order, so that differences are those of the same images
    images = np.concatenate(
        [first, np.setdiff1d(np.concatenate([chapter.run.record.idx for chapter in chapters]), first)]
    )
    found: dict[str, Answers] = {}
    for text in texts:
        name, path = _named(text)
        if name in found:
            raise ValueError(f"--baseline {text}: another one is called {name} too; name them apart by NAME=FILE")
        table = _log(path)
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


def _named(text: str) -> tuple[str, Path]:
    """Return a baseline's name and file; a file whose name holds = stands for itself."""
    name, equals, file = text.partition("=")
    if not equals or Path(text).exists():
        return Path(text).stem, Path(text)
    return name, Path(file)


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
