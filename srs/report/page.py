"""The report: one page that needs nothing but itself, and the figures and tables beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from srs.evaluation.rules import Answers
from srs.limits import COLUMN
from srs.report import figures
from srs.report.chapter import Chapter, compared, overview
from srs.report.exports import FORMATS, tables_of
from srs.report.sections import section
from srs.report.steps import ON_PAGE, Look
from srs.report.svg import COLOURS, PAPER, inline_svg, save

PAGE = "report.html"

COMPARED = ("comparison.png", "comparison.pdf")

#: What lies beside the folders of the runs.
BESIDE = (PAGE, *COMPARED, *(file for file, _ in FORMATS.values()))


def write_report(
    folder: Path,
    chapters: Sequence[Chapter],
    baselines: Mapping[str, Answers],
    tables: Sequence[str] = (),
    width: float = COLUMN,
) -> None:
    """Write the page, its figures as PNG and PDF, and for each run its tables, into an empty folder.

    Nothing in the files depends on anything but the arguments and the versions of libraries.

    Parameters
    ----------
    folder : Path
    chapters : sequence of Chapter
    baselines : mapping of str to Answers
        What other methods certify of the same images, by name.
    tables : sequence of {"latex", "markdown"}
        Formats in which tables are written as well.
    width : float, default=3.25
        Of the figures in files, in inches.
    """
    rules, look = compared(chapters, baselines), Look.of_file(width)
    colours = {**PAPER, **COLOURS}
    context: dict[str, Any] = {
        "light": {name: light for name, (light, _) in colours.items()},
        "dark": {name: dark for name, (_, dark) in colours.items()},
        "chapters": [section(folder, chapter, number, look) for number, chapter in enumerate(chapters)],
        "compared": None,
        "overview": None,
        "files": [],
    }
    if len(rules) > 1:
        save(figures.comparison(rules, look).figure, *(folder / name for name in COMPARED))
        context["compared"] = Markup(inline_svg(figures.comparison(rules, ON_PAGE), "comparison"))
        context["overview"] = overview(chapters, rules).with_content()
    for name in dict.fromkeys(tables):
        file, written = FORMATS[name]
        (folder / file).write_text(written(tables_of(chapters, baselines)), encoding="utf-8")
        context["files"].append(file)
    (folder / PAGE).write_text(template().render(**context), encoding="utf-8")


def template() -> Template:
    """Return the page's template."""
    environment = Environment(
        loader=PackageLoader("srs.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(f"{PAGE}.j2")
