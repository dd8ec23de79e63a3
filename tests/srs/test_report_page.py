"""Several runs in one report, under names that somebody gave; the page as it is read, printed and sent around."""

import os
import re
import shutil
from datetime import UTC, datetime
from urllib.parse import unquote

import pytest

from srs.report.finished_run import load_run
from srs.report.numbers import confidence, readable
from tests.srs import pages, tex
from tests.srs.programs import TINY, assert_refused, call
from tests.srs.test_report_command import labels_of, write_baseline

OURS, OTHER, THEIRS = r'ours <b>&$\sigma$_1"', "../sigma*|[x]", "log\N{GREEK SMALL LETTER SIGMA}%"


@pytest.fixture(scope="module")
def both(finished, tmp_path_factory):
    """Two runs, the second with a level outside, and a log, reported twice."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(finished[0] / "run", folder / "run")
    shutil.copy(finished[0] / "model.pt", folder)
    process = call("certify", folder, *TINY, "--outside", "sigma=0.4", "--out", "outside")
    assert process.returncode == 0, process.stderr
    write_baseline(folder / "log.tsv", labels_of(folder / "run"), correct=20)
    flags = ["--baseline", f"{THEIRS}=log.tsv", "--tables", "latex", "--tables", "markdown", "--width", "2.5"]
    said = [
        call("report", folder, f"{OURS}=run", f"{OTHER}=outside", *flags, "--out", out) for out in ("report", "again")
    ]
    assert said[0].returncode == 0, said[0].stderr
    return folder, said[0], pages.read(folder / "report/report.html")


def test_a_name_is_what_the_page_and_the_terminal_call_a_run(both):
    _, process, page = both
    assert [part.words for part in page.all("h2")] == ["All runs", OURS, OTHER, "Six words"]
    assert page.one("title").words == f"Certified robustness: {OURS}, {OTHER}"
    assert [row.one("th").words for row in page.one("tbody").all("tr")] == [OURS, OTHER, THEIRS]
    assert not page.all("script")
    assert {part.words for part in page.all("b")}.isdisjoint(["&"])
    shown = [part.words for part in page.one("svg").all("text")]
    assert [name for name in shown if name in (OURS, OTHER, THEIRS)] == [OURS, OTHER, THEIRS]
    assert f"{OURS} (run): certified accuracy (%)" in process.stdout
    assert f"{OTHER} (outside): certified accuracy (%)" in process.stdout


def test_a_name_is_a_folder_of_plain_characters(both):
    folder = both[0] / "report"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["ours-b-sigma-_1", "sigma-x"]
    assert not (both[0] / "sigma*|[x]").exists()
    for link in both[2].all("a"):
        href = link.attributes["href"]
        assert href == "#words" or (folder / unquote(href)).is_file()


def test_a_name_is_a_row_in_latex_and_markdown(both):
    written = tex.tables((both[0] / "report/tables.tex").read_text())
    first, second, (_, label, _, rows) = written
    assert first[0].startswith(f"{OURS}: certified accuracy (%) at l2 radii. Each certificate holds with probability")
    assert [first[1], second[1], label] == ["tab:srs-ours-b-sigma-1", "tab:srs-sigma-x", "tab:srs-all"]
    assert [tex.shown(name) for name, _ in rows] == [OURS, OTHER, f"{THEIRS.replace(THEIRS[3], 'sigma')} †"]
    text = (both[0] / "report/tables.md").read_text()
    assert re.search(r"^\| \*\*ours \\<b\\>\\&\\\$\\\\sigma\\\$\\_1\"\*\* \|", text, flags=re.MULTILINE)
    assert r"| ../sigma\*\|\[x\] |" in text


def test_a_log_is_never_the_best_since_nobody_knows_what_it_assumes(both):
    *_, (_, _, head, rows) = tex.tables((both[0] / "report/tables.tex").read_text())
    assert not any(r"\textbf" in cell for cell in rows[2][1])
    at = head.index("0.50") - 1  # without the name
    ours, other, theirs = (float(tex.shown(cells[at])) for _, cells in rows)
    assert any(r"\textbf" in cells[at] for _, cells in rows[:2]) == (max(ours, other) >= theirs)
    assert any(r"\textbf" in cells[0] for _, cells in rows[:2])


def test_figures_are_as_wide_as_they_were_asked_to_be(both):
    for file in (both[0] / "report").rglob("*.pdf"):
        [width] = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", file.read_bytes())
        assert float(width) == pytest.approx(72 * 2.5, abs=0.5)


def test_a_report_is_the_same_when_it_is_made_again(both):
    first, again = both[0] / "report", both[0] / "again"
    names = {file.relative_to(first) for file in first.rglob("*")}
    assert names == {file.relative_to(again) for file in again.rglob("*")}
    for name in names:
        if (first / name).is_file():
            assert (first / name).read_bytes() == (again / name).read_bytes(), name


def test_the_guarantee_names_the_level_outside(both):
    without, outside = (section.words for section in both[2].all("section"))
    assert "votes with that region's sigma. The images were known, without labels" in without
    assert "Nothing is claimed of the base classifier alone, or of inputs outside every region." in without
    assert "with sigma = 0.4 outside every region, over" not in outside
    assert "votes with that region's sigma, or with sigma = 0.4 outside every region. The images were" in outside
    assert "Nothing is claimed of the base classifier alone." in outside
    for text in (without, outside):
        assert "with probability at least 99.9%, per image" in text
        assert "1 - 0.001" not in text


def test_the_page_can_be_printed_and_read_by_everybody(both):
    page = both[2]
    printed = re.search(r"@media print \{(.*?)\n\}", page.one("style").text, flags=re.DOTALL)[1]
    assert ".wide { overflow: visible" in printed
    assert len(page.all("details")) == 2
    assert all("open" in part.attributes for part in page.all("details"))
    titles = {part.attributes["id"]: part for part in page.all("title") if "id" in part.attributes}
    drawings = page.all("svg")
    assert len(drawings) > 10
    assert all(drawing.attributes["role"] == "img" for drawing in drawings)
    assert [drawing.attributes["aria-labelledby"] for drawing in drawings] == list(titles)  # each its own
    assert all(title.words for title in titles.values())
    [glossary] = [part for part in page.all("dl") if part.attributes.get("class") == "words"]
    assert len(glossary.all("dt")) == 6
    for table in page.all("table"):
        rows = [[cell for cell in row.all() if cell.tag in ("td", "th")] for row in table.all("tr")]
        assert len({sum(int(cell.attributes.get("colspan", 1)) for cell in row) for row in rows}) == 1


def test_the_date_is_that_of_the_run_or_the_one_given(finished, tmp_path):
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    summary = tmp_path / "run/summary.json"
    there = datetime.fromtimestamp(summary.stat().st_mtime, UTC).date().isoformat()
    assert load_run(tmp_path / "run").day == there
    os.utime(summary, (0, 86400 * 1.5))
    assert load_run(tmp_path / "run").day == "1970-01-02"
    assert call("report", tmp_path, "run").returncode == 0
    assert "date: 1970-01-02" in pages.read(tmp_path / "run-report/report.html").words
    assert call("report", tmp_path, "run", "--date", "2026-01-31", "--out", "dated").returncode == 0
    text = pages.read(tmp_path / "dated/report.html").words
    assert "date: 2026-01-31" in text
    assert "1970" not in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["=run"], "RUN =run: the name before = is empty"),
        (["a=run", "a=run", "--out", "x"], "RUN a=...: another run or log is called a too; name them apart by NAME="),
        (["log=run", "--baseline", "log.tsv"], "another run or log is called log too"),
        (["run", "--baseline", " log=log.tsv"], "log.tsv: the name before = is empty or begins or ends with a blank"),
        (["a=nowhere"], "nowhere: no such folder; name one that srs-certify wrote"),
        (["run", "--width", "1.9"], "--width 1.9: must be from 2 to 20 inches"),
        (["run", "--width", "nan"], "--width nan: must be from 2 to 20 inches"),
        (["run", "--date", "yesterday"], "--date yesterday: is no date; write it as 2026-01-31"),
    ],
)
def test_bad_names_widths_and_dates_are_one_line(finished, tmp_path, flags, message):
    os.symlink(finished[0] / "run", tmp_path / "run")
    write_baseline(tmp_path / "log.tsv", labels_of(finished[0] / "run"))
    assert_refused(call("report", tmp_path, *flags), "srs-report", message)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.tsv", "run"]


@pytest.mark.parametrize(
    ("alpha", "text"),
    [
        (0.001, "99.9%"), (0.01, "99%"), (0.1, "90%"), (0.05, "95%"), (1e-6, "99.9999%"), (1e-8, "99.999999%"),
        (1e-9, "1 - 1e-09"), (1e-100, "1 - 1e-100"), (0.00123456, "99.876544%"),
    ],
)  # fmt: skip
def test_a_probability_is_written_in_percent_where_that_is_exact(alpha, text):
    assert confidence(alpha) == text
    said = readable(f"with probability at least 1 - {alpha:g}: each is made at {alpha:g} / 60", alpha)
    assert said == f"with probability at least {text}: each is made at {alpha:g} / 60"
