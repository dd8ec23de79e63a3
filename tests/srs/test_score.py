"""srs-score: figures that can be computed by hand, and refusals of what does not belong together."""

import csv
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from srs.labels import named_paths, of_each
from srs.score.entries import read_entries
from srs.score.settings import ScoreSettings, parse_samples
from srs.score.table import UNKNOWN, score, table_of
from tests.srs.programs import assert_refused, call

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime"
#: (idx, label, predict, radius): right at 0.5 and 0.3, wrong at 0.9, abstained.
FIRST = ((0, 7, 7, "0.5"), (4, 2, 2, "0.3"), (5, 1, 3, "0.9"), (9, 0, -1, "0.0"))
SECOND = ((9, 0, 0, "0.25"), (0, 7, 7, "0.75"), (5, 1, 1, "0.2"), (4, 2, -1, "0.0"))


def write_log(path, rows, extra=()):
    lines = ["\t".join([HEADER, *(name for name, _ in extra)])]
    for row in rows:
        values = [*map(str, row), str(int(row[1] == row[2])), "0:00:01", *(value for _, value in extra)]
        lines.append("\t".join(values))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_log(tmp_path / "first.tsv", FIRST)
    write_log(tmp_path / "second.tsv", SECOND)
    return tmp_path


def entries_of(*logs, **flags):
    return read_entries(ScoreSettings(logs=logs, **flags))


def rows_of(file):
    return list(csv.DictReader(file.read_text().splitlines(), delimiter="\t"))


def test_figures_are_those_by_hand_whatever_the_order_of_rows(logs):
    process = call("score", logs, "first.tsv", "b=second.tsv", "--out", "out", "--plot", "curves.svg")
    assert process.returncode == 0, process.stderr
    first, second = rows_of(logs / "out/score.tsv")
    assert (first["name"], second["name"]) == ("first", "b")
    assert float(first["acr"]) == 0.2  # (0.5 + 0.3) / 4
    assert float(second["acr"]) == 0.3  # (0.25 + 0.75 + 0.2) / 4
    assert first["abstentions"] == second["abstentions"] == "1"
    assert (first["accuracy_0"], first["accuracy_0.25"], first["accuracy_0.5"]) == ("0.5", "0.5", "0.0")
    assert (second["accuracy_0"], second["accuracy_0.25"], second["accuracy_0.5"]) == ("0.75", "0.25", "0.25")
    values = np.array([0.5, 0.3, 0, 0])
    half = stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2
    assert float(first["acr_low"]) == pytest.approx(0.2 - half)
    difference = np.array([0.75, 0, 0.2, 0.25]) - values
    half = stats.t.ppf(0.975, 3) * difference.std(ddof=1) / 2
    assert float(second["above_first"]) == pytest.approx(0.1)
    assert float(second["above_first_high"]) == pytest.approx(0.1 + half)
    assert first["above_first"] == ""
    assert "0.200" in process.stdout
    assert "+0.100" in process.stdout
    assert "| **first** | 0.200 |" in (logs / "out/score.md").read_text()
    assert r"\toprule" in (logs / "out/score.tex").read_text()
    assert "<svg" in (logs / "curves.svg").read_text()


def test_nothing_is_guessed(logs):
    found = entries_of("first.tsv", "second.tsv")
    table = table_of(found, score(found))
    for _, cells in table.rows:
        assert [cells[table.columns.index(name)] for name in ("samples", "bound", "setting")] == [UNKNOWN] * 3
    assert call("score", logs, "first.tsv", "second.tsv", "--out", "out").returncode == 0
    for row in rows_of(logs / "out/score.tsv"):
        assert {row[name] for name in ("samples", "samples_counted", "bound", "setting", "alpha")} == {""}


def test_what_the_user_says_of_each_or_of_all(logs):
    flags = {"setting": ("inductive", "b=transductive"), "bound": ("b=full",), "samples": ("100,100",)}
    found = entries_of("a=first.tsv", "b=second.tsv", **flags, alpha=("a=0.001",))
    assert (found["a"].setting, found["b"].setting) == ("inductive", "transductive")
    assert (found["a"].bound, found["b"].bound) == (None, "full")
    assert (found["a"].samples, found["b"].samples) == (100_100, 100_100)
    assert (found["a"].alpha, found["b"].alpha) == (0.001, None)


def test_our_own_logs_say_what_their_radii_are_and_how_many_samples_certify(logs):
    write_log(logs / "ours.tsv", FIRST, [("n", "1000"), ("share", "0.1")])
    write_log(logs / "one.tsv", FIRST, [("n", "1000"), ("share", "0.0")])
    found = entries_of("ours.tsv", "one.tsv", "first.tsv", samples=("one=1100",))
    assert [entry.bound for entry in found.values()] == ["full", "one-sided", None]
    assert [entry.samples for entry in found.values()] == [1000, 1100, None]
    table = table_of(found, score(found))
    at = table.columns.index("samples")
    assert [cells[at] for _, cells in table.rows] == [">= 1,000", "1,100", UNKNOWN]
    with pytest.raises(ValueError, match=r"--bound ours=one-sided: ours.tsv says full; leave it out"):
        entries_of("ours.tsv", bound=("ours=one-sided",))


def test_a_run_knows_its_setting_bound_samples_and_alpha(finished, tmp_path, monkeypatch):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    monkeypatch.chdir(folder)
    one = entries_of("run")["run"]
    assert (one.setting, one.bound, one.alpha, one.all_samples) == ("transductive", "full", 0.001, True)
    assert one.samples == 2 * (50 + 300)  # two levels, n0 and n
    summary = json.loads((folder / "run/summary.json").read_text())
    described = score({"run": one})
    assert described["rules"]["run"]["average_certified_radius"] == summary["average_certified_radius"]
    with pytest.raises(ValueError, match="--setting run=inductive: run says transductive; leave it out"):
        entries_of("run", setting=("run=inductive",))
    log = tmp_path / "log.tsv"
    write_log(log, [(idx, label, -1, "0.0") for idx, label in zip(one.table.idx, one.table.label, strict=True)])
    assert call("score", folder, "run", log, "--setting", "log=inductive").returncode == 0
    read = iter((one, replace(one, images="0" * 64)))
    monkeypatch.setattr("srs.score.entries._run", lambda path: next(read))
    with pytest.raises(ValueError, match="run has other images than run, with the same numbers and labels"):
        entries_of("a=run", "b=run")


def changed(rows, place, row):
    return [*rows[:place], row, *rows[place + 1 :]]


DIFFERENT = {
    "an image less": (FIRST[:-1], "other.tsv has 3 images, first.tsv has 4"),
    "another image": (changed(FIRST, 1, (3, 2, 2, "0.3")), "other.tsv, line 3: idx 3 is not in first.tsv"),
    "another label": (changed(FIRST, 2, (5, 3, 3, "0.9")), "image 5 has label 3, in first.tsv it has 1"),
    "twice": ([*FIRST, FIRST[0]], "idx 0 stands in line 2 already"),
    "no row": ([], "holds no image below its header"),
    "no number": (changed(FIRST, 0, (0, 7, 7, "far")), "radius = 'far' is not a number"),
    "another unit": (changed(FIRST, 0, (0, 7, 7, "127.5")), "line 2: radius = 127.5: no radius is above 100"),
    "enormous": (changed(FIRST, 0, (0, 7, 7, "1e308")), "no radius is above 100"),
    "endless": (changed(FIRST, 0, (0, 7, 7, "inf")), "radii are finite and >= 0"),
}


@pytest.mark.parametrize(("rows", "message"), DIFFERENT.values(), ids=DIFFERENT)
def test_logs_that_do_not_belong_together_are_refused_in_one_line(logs, rows, message):
    write_log(logs / "other.tsv", rows)
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        entries_of("first.tsv", "other.tsv")
    assert "\n" not in str(refused.value)


BAD = {
    "nothing": ([], "no LOG: name at least one"),
    "no such log": (["lost.tsv"], "lost.tsv: no such file"),
    "no run": (["."], "holds no run"),
    "one name twice": (["a=first.tsv", "a=second.tsv"], "LOG a=second.tsv: another one is called a too"),
    "no name": (["=first.tsv"], "LOG =first.tsv: the name before = is empty"),
    "no path": (["a="], "LOG a=: nothing follows ="),
    "whose": (["first.tsv", "--setting", "second=inductive"], "nothing is called second; there are first"),
    "which": (["first.tsv", "--setting", "unknown"], "--setting unknown: expected transductive or inductive"),
    "bound": (["first.tsv", "--bound", "first=both"], "--bound first=both: expected one-sided or full"),
    "samples": (["first.tsv", "--samples", "0"], "--samples 0: expected a whole number >= 1"),
    "alpha": (["first.tsv", "--alpha", "1"], "--alpha 1: expected a number strictly between 0 and 1"),
    "said twice": (["first.tsv", "--alpha", "0.1", "--alpha", "0.2"], "--alpha 0.2: said twice of all"),
    "plot": (["first.tsv", "--plot", "curves.txt"], "--plot curves.txt: the suffix must be one of .svg .pdf .png"),
    "nowhere": (["first.tsv", "--plot", "no/curves.svg"], "--plot no/curves.svg: is a folder, or lies in none"),
    "there": (["lost.tsv", "--out", "held"], "--out held: holds files already"),
    "plot there": (["first.tsv", "--plot", "held/mine.svg"], "there is such a file; name another, or give --overwrite"),
}


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(logs, flags, message):
    (logs / "held").mkdir()
    (logs / "held/mine.svg").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in logs.rglob("*")}
    assert_refused(call("score", logs, *flags), "srs-score", message)
    assert {path: path.stat().st_mtime_ns for path in logs.rglob("*")} == before


def test_an_earlier_table_is_replaced_where_that_is_said(logs):
    for flags in ((), ("--overwrite",)):
        process = call("score", logs, "first.tsv", "--out", "out", "--plot", "curves.pdf", *flags)
        assert process.returncode == 0, process.stderr
        (logs / "out/score.md").write_text("old")
    assert call("score", logs, "first.tsv", "--out", "out").returncode == 2
    assert (logs / "out/score.md").read_text() == "old"


def test_numbers_are_never_cut_in_a_narrow_terminal(logs):
    from rich.console import Console

    from srs.report.tables import TerminalTable

    found = entries_of("a=first.tsv", "b=second.tsv")
    screen = Console(width=80, record=True)
    shown = TerminalTable("score", table_of(found, score(found)))
    with screen.capture() as printed:
        screen.print(shown)
    text = printed.get()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "0.200" in text


# Names on a command line.


def test_names_of_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.v2").mkdir()
    assert list(named_paths(["run.v2", "a/b.tsv", "x=a/b.tsv"], "LOG")) == ["run.v2", "b", "x"]
    with pytest.raises(ValueError, match="another one is called b too"):
        named_paths(["a/b.tsv", "c/b.tsv"], "LOG")


def test_what_is_said_of_one_counts_before_what_is_said_of_all():
    names = {"a": 0, "b": 0, "c": 0}
    assert of_each(["5", "b=7"], names, "--samples", parse_samples) == {"a": 5, "b": 7, "c": 5}
    assert of_each(["b=7"], names, "--samples", parse_samples) == {"b": 7}


# Published logs.


def test_published_logs(data_folder):
    files = {name: data_folder / f"certify-logs/cifar10_{name}_0.5.tsv" for name in ("cohen", "salman", "catrs")}
    found = entries_of(*(f"{name}={file}" for name, file in files.items()), setting=("inductive",))
    described = score(found)
    for name, file in files.items():
        rows = rows_of(file)
        mean = sum(float(row["radius"]) * int(row["correct"]) for row in rows) / len(rows)
        assert described["rules"][name]["average_certified_radius"] == pytest.approx(mean, abs=1e-12)
    with pytest.raises(ValueError, match="has label"):
        entries_of(str(files["cohen"]), str(data_folder / "certify-logs/mnist_catrs_0.5.tsv"))
