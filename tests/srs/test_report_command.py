"""`srs-report` as a person runs it: a program, on folders that `srs-certify` wrote."""

import csv
import json
import os
import re
import resource
import shutil
import subprocess
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

import regions
from srs.commands.report import main
from srs.report.finished_run import load_run
from srs.run.folder import CARD
from tests.srs import tex
from tests.srs.programs import TINY, assert_refused, call, program


def table(file):
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def labels_of(run):
    """Each image's label by its index."""
    return {int(row["idx"]): int(row["label"]) for row in table(run / "certificates.tsv")}


def write_baseline(file, labels, correct=1):
    """Write a log that certifies so many images, the first ones, for their class at 0.7, and abstains elsewhere."""
    rows = ["idx\tlabel\tpredict\tradius\tcorrect\ttime"]
    for k, (idx, label) in enumerate(labels.items()):
        right = k < correct
        rows.append(f"{idx}\t{label}\t{label if right else -1}\t{0.7 if right else 0.0}\t{int(right)}\t0.5")
    file.write_text("\n".join(rows) + "\n")


@pytest.fixture(scope="module")
def reported(finished, tmp_path_factory):
    """A folder with a run and its report, which the command was asked for with everything it can add."""
    folder = tmp_path_factory.mktemp("reported")
    shutil.copytree(finished[0] / "run", folder / "run")
    write_baseline(folder / "other <method>.tsv", labels_of(folder / "run"))
    flags = ["--baseline", "other <method>.tsv", "--tables", "latex", "--tables", "markdown"]
    return folder / "run-report", call("report", folder, "run", *flags)


@pytest.fixture
def copy(finished, tmp_path):
    """A copy of the run that may be damaged."""
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    return tmp_path / "run"


class Page(HTMLParser):
    """What a page refers to, its text, and whether its elements nest."""

    def __init__(self, text):
        super().__init__()
        self.references, self.text, self.open, self.identifiers, self.links = [], [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.references += [attrs[name] for name in ("src", "href", "xlink:href", "data", "srcset") if name in attrs]
        self.identifiers += [attrs["id"]] if "id" in attrs else []
        if tag == "a" and not attrs["href"].startswith("#"):
            self.links.append(attrs["href"])
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_it_writes_one_page_and_files_beside_it(reported):
    out, process = reported
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    written, *following = process.stdout.splitlines()[-3:]
    assert written.endswith("run-report/report.html")
    assert following == ["next: srs-verify run", "      srs-predict run IMAGE"]
    names = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    tables = {f"run/{name}" for name in ("certificates.tsv", "comparison.tsv", "summary.json", CARD, "losses.tsv")}
    names_of_figures = ("curves", "degrees", "lost", "sigma", "votes")
    figures = {f"run/{name}.{kind}" for name in names_of_figures for kind in ("png", "pdf")}
    both = {"comparison.png", "comparison.pdf"}
    assert names == {"report.html", "tables.tex", "tables.md", *tables, *figures, *both}
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []


def test_everything_comes_out_of_the_rows_again(finished, reported):
    for name in ("certificates.tsv", "comparison.tsv", "summary.json"):
        assert (reported[0] / "run" / name).read_bytes() == (finished[0] / "run" / name).read_bytes()


def test_the_page_needs_nothing_but_itself(reported):
    page = Page((reported[0] / "report.html").read_text())
    assert page.open == []
    assert len(page.references) > 20
    links = [reference for reference in page.references if not reference.startswith(("data:image/png;base64,", "#"))]
    beside = {str(file.relative_to(reported[0])) for file in reported[0].rglob("*") if file.is_file()}
    assert set(links) == beside - {"report.html"}  # what it links to is there, and nothing is without a link
    assert len(links) == len(page.links)
    assert len(page.identifiers) == len(set(page.identifiers))
    for reference in page.references:
        assert not reference.startswith("#") or reference[1:] in page.identifiers
    source = (reported[0] / "report.html").read_text()
    assert "<script" not in source
    assert not re.search(r"url\((?!#)|@import", source)


def test_names_are_shown_as_text(reported):
    source = (reported[0] / "report.html").read_text()
    assert "<method>" not in source
    assert "other &lt;method&gt;" in source


def test_figures_take_the_colours_of_the_page(reported):
    source = (reported[0] / "report.html").read_text()
    drawn = source[source.index("</style>") :]
    assert "var(--ink)" in drawn
    assert not re.search(r"#[0-9a-f]{6}", drawn)
    assert "@media screen and (prefers-color-scheme: dark)" in source  # paper is white


def test_the_page_shows_what_was_found(reported, finished):
    text = " ".join(" ".join(Page((reported[0] / "report.html").read_text()).text).split())
    manifest = json.loads((finished[0] / "run/manifest.json").read_text())
    summary = json.loads((finished[0] / "run/summary.json").read_text())
    assert manifest["classifier"]["weights"] in text
    assert manifest["data"]["sha256"] in text
    assert "Over the noise drawn, each certificate holds with probability at least 99.9%, per image." in text
    assert "digits, 60 images of 1 x 8 x 8, 10 classes" in text
    assert "model: model.pt" in text
    for title in ("sample-wise, LP", "sample-wise, ascending", "one sigma may overlap, LP", "sigma = 0.4"):
        assert title in text
    shown = Decimal(re.search(r"([\d.]+) average certified radius", text).group(1))
    assert shown <= Decimal(summary["average_certified_radius"]) < shown + Decimal("0.001")


def test_the_page_says_how_to_verify_it(reported):
    source = (reported[0] / "report.html").read_text()
    assert "<code>srs-verify run --redraw 20</code>" in source


def test_losses_name_the_neighbour_in_the_way(reported, finished):
    rows = [row for row in table(reported[0] / "run/losses.tsv") if row["rule"] == "paper-lp"]
    assert rows
    stored = regions.RegionMap.load(finished[0] / "run/regions.npz")
    certified = table(finished[0] / "run/certificates.tsv")
    position = {row["idx"]: j for j, row in enumerate(certified)}
    losing = {row["idx"] for row in certified if Decimal(row["r"]) < Decimal(row["R"])}
    assert {row["idx"] for row in rows} == losing
    for row in rows:
        i, j = position[row["idx"]], position[row["neighbour"]]
        distance = np.linalg.norm(stored.centres[i] - stored.centres[j])
        assert float(row["distance"]) == pytest.approx(distance, abs=1e-6)
        assert stored.radii[i] + stored.radii[j] == pytest.approx(distance, abs=1e-6)  # their regions touch


def test_another_alpha_changes_bounds_and_never_the_levels(finished, tmp_path):
    folder = finished[0]
    process = call("report", folder, "run", "--alpha", "0.1", "--out", str(tmp_path / "out"))
    assert process.returncode == 0, process.stderr
    before, after = table(folder / "run/certificates.tsv"), table(tmp_path / "out/run/certificates.tsv")
    for old, new in zip(before, after, strict=True):
        assert (old["sigma"], old["counts"], old["n"]) == (new["sigma"], new["counts"], new["n"])
        own, other, n, share = int(new["counts"]), int(new["runner_up_counts"]), int(new["n"]), float(new["share"])
        lower = stats.beta.ppf(0.1 * (1 - share), own, n - own + 1) if own else 0.0
        upper = min(1 - lower, stats.beta.ppf(1 - 0.1 * share, other + 1, n - other))
        expected = max(0.0, float(new["sigma"]) / 2 * (stats.norm.ppf(lower) - stats.norm.ppf(upper)))
        assert float(new["R"]) == pytest.approx(expected, abs=2e-6)
        assert Decimal(new["R"]) >= Decimal(old["R"])
    summary = json.loads((tmp_path / "out/run/summary.json").read_text())
    assert summary["alpha"] == 0.1
    assert summary["settings"]["alpha"] == 0.001
    assert "the run was made at 0.001" in (tmp_path / "out/report.html").read_text()
    stored = regions.RegionMap.load(folder / "run/regions.npz")
    r = np.array([float(row["r"]) for row in after])
    assert regions.verify(stored.centres, r)


def test_several_runs_share_a_plot(finished, tmp_path):
    folder = finished[0]
    shutil.copytree(folder / "run", tmp_path / "run")
    process = call("report", tmp_path, str(folder / "run"), "run", "--out", "both", "--tables", "latex")
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "both/comparison.pdf").exists()
    assert (tmp_path / "both/run/summary.json").exists()
    assert (tmp_path / "both/run-2/summary.json").exists()
    refused = call("report", tmp_path, str(folder / "run"), "run")
    assert_refused(refused, "srs-report", "several runs: name a folder for their report with --out")


def test_tables_in_latex_and_markdown_hold_the_same_numbers(reported, finished):
    summary = json.loads((finished[0] / "run/summary.json").read_text())
    written, md = ((reported[0] / f"tables.{suffix}").read_text() for suffix in ("tex", "md"))
    (_, label, head, rows), (_, other, *_) = tex.tables(written)
    assert (label, other) == ("tab:srs-run", "tab:srs-all")
    for rule, name in (("paper-lp", "paper, LP"), ("sigma=0.2", "sigma = 0.2")):
        line = next(line for line in md.splitlines() if name in line)
        in_md = line.replace("*", "").strip("| ").split(" | ")
        in_tex = next(cells for title, cells in rows if tex.shown(title) == name)
        assert in_md == [name, *map(tex.shown, in_tex)]
        accuracy = [0.0 if cell == "-" else float(cell) for cell in in_md[7:]]
        if rule != "paper-lp":
            mean, low, high = summary["rules"][rule]["above_main"]
            assert float(in_md[3]) == pytest.approx(mean, abs=6e-4)
            assert (high - low) / 2 <= float(in_md[4]) < (high - low) / 2 + 1e-3
        assert float(in_md[5]) == pytest.approx(summary["rules"][rule]["average_certified_radius_one_sided"], abs=1e-3)
        low, high = summary["rules"][rule]["average_certified_radius_interval"]
        assert (high - low) / 2 <= float(in_md[2]) < (high - low) / 2 + 1e-3
        exact = [100 * value for value in summary["rules"][rule]["certified_accuracy"]]
        shown = dict(zip(summary["epsilon"], exact, strict=True))
        assert head[7:] == [f"{value:.2f}" for value in list(shown)[: len(accuracy)]]
        assert all(0 <= value - found + 1e-9 < 0.1 for found, value in zip(accuracy, exact, strict=False))
        assert not any(exact[len(accuracy) :])
    for text in (written.replace("\\", ""), md):
        assert "60 certificates are wrong, with probability 99.9%" in text


def test_a_summary_that_was_changed_is_told(copy):
    summary = json.loads((copy / "summary.json").read_text())
    summary["average_certified_radius"] = 9.0
    (copy / "summary.json").write_text(json.dumps(summary))
    process = call("report", copy.parent, "run")
    assert process.returncode == 0
    assert process.stderr.startswith("srs-report: warning: run/summary.json says average_certified_radius = 9.0, the")
    assert "says average_certified_radius = 9.0" in (copy.parent / "run-report/report.html").read_text()


def test_a_summary_of_an_earlier_version_is_understood(copy):
    summary = json.loads((copy / "summary.json").read_text())
    summary["clean_accuracy"] = summary.pop("clean_accuracy_base")
    (copy / "summary.json").write_text(json.dumps(summary))
    assert call("report", copy.parent, "run", "--out", "one").stderr == ""
    summary["clean_accuracy"] += 0.01
    (copy / "summary.json").write_text(json.dumps(summary))
    assert "says clean_accuracy_base = " in call("report", copy.parent, "run", "--out", "two").stderr


def newer(run):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "format": 3}))


def halve(name):
    def damage(run):
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: len(content) // 2])

    return damage


def lose_rows(name):
    """Lose the second half of the images, and a part of a row."""

    def damage(run):
        lines = (run / name).read_text().splitlines(keepends=True)
        kept = 1 + (len(lines) - 1) // 2
        (run / name).write_text("".join(lines[:kept]) + lines[kept][:5])

    return damage


def change(name, old, new):
    def damage(run):
        text = (run / name).read_text()
        assert old in text
        (run / name).write_text(text.replace(old, new, 1))

    return damage


def other_labels(run):
    file = run / "selection.tsv"
    text, changed = re.subn(r"(?m)^0\t7\t", "0\t6\t", file.read_text())
    assert changed == 2
    file.write_text(text)


def routed(run):
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps({**manifest, "router": {"sigma": 0.5}}))


DAMAGE = {
    "a router": (routed, "it names a router and the settings do not"),
    "newer version": (newer, "run: was written by a newer version of srs-certify (format 3, this one knows 2); update"),
    "no description": (lambda run: (run / "config.yaml").unlink(), "run: holds no run; name a folder"),
    "unfinished": (lambda run: (run / "summary.json").unlink(), "run: the run has not come to its end; go on with"),
    "no levels yet": (
        lambda run: [(run / name).unlink() for name in ("levels.tsv", "summary.json")],
        "run: the run has not come to its end; go on with",
    ),
    "half the selection": (
        lose_rows("selection.tsv"),
        "run/selection.tsv is damaged: it holds rows of 30 of 60 images",
    ),
    "half the estimation": (
        lose_rows("estimation.tsv"),
        "run/estimation.tsv is damaged: it holds rows of 30 of 60 images",
    ),
    "half the levels": (halve("levels.tsv"), "run/selection.tsv holds rows of other images"),
    "half the regions": (halve("regions.npz"), "run/regions.npz is damaged"),
    "half the manifest": (halve("manifest.json"), "run/manifest.json is damaged: restore it"),
    "no regions": (lambda run: (run / "regions.npz").unlink(), "run/regions.npz: no such file; restore it, or delete"),
    "another header": (change("estimation.tsv", "votes", "count"), "run/estimation.tsv, line 1: the header is"),
    "no number": (change("estimation.tsv", "\t300\t", "\tmany\t"), "n = many: must be the first of 300"),
    "other labels": (other_labels, "its images or labels are not those it was"),
    "no mode": (change("config.yaml", "overlap: paper", "overlap: all"), "run/config.yaml is damaged"),
    "no alpha": (
        change("config.yaml", "alpha:", "beta:"),
        "run/config.yaml is damaged: restore it, or begin in another folder ('beta' is no",
    ),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_runs_are_refused(copy, damage, message, monkeypatch):
    damage(copy)
    monkeypatch.chdir(copy.parent)
    with pytest.raises(ValueError, match=re.escape(message)):
        load_run(Path("run"))


def test_a_damaged_run_is_one_line_and_exit_code_2(copy):
    halve("regions.npz")(copy)
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    assert_refused(call("report", copy.parent, "run"), "srs-report", "run/regions.npz is damaged")
    assert [path.name for path in copy.parent.iterdir()] == ["run"]
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


BAD = {
    "no run": ([], "RUN"),
    "no folder": (["nowhere"], "nowhere: no such folder; name one that srs-certify wrote"),
    "alpha": (["run", "--alpha", "1"], "--alpha 1.0: must lie strictly between 0 and 1"),
    "tiny alpha": (["run", "--alpha", "1e-101"], "--alpha 1e-101: must be at least 1e-100"),
    "tiny share of alpha": (["run", "--alpha", "1e-100"], "alpha = 1e-100 shared among"),
    "no baseline": (["run", "--baseline", "none.tsv"], "--baseline none.tsv: no such file"),
    "baseline of pixels": (
        ["run", "--baseline", "run/curves.png"],
        "--baseline run/curves.png is not a certification log",
    ),
    "baseline without columns": (["run", "--baseline", "run/levels.tsv"], "run/levels.tsv, line 1: the header is"),
    "baseline that contradicts itself": (
        ["run", "--baseline", "wrong.tsv"],
        "--baseline wrong.tsv, line 2: correct = 0",
    ),
    "baselines of one name": (["run", "--baseline", "a=all.tsv", "--baseline", "a=more.tsv"], "name them apart"),
    "out is a file": (["run", "--out", "run/levels.tsv"], "--out run/levels.tsv: is a file; name a folder"),
    "out is a run": (["run", "--out", "run"], "--out run: holds a run; name another folder"),
    "table": (["run", "--tables", "word"], "word"),
}


@pytest.mark.parametrize(("flags", "message"), BAD.values(), ids=BAD)
def test_bad_flags_are_one_line_and_exit_code_2(copy, flags, message, monkeypatch, capsys):
    monkeypatch.chdir(copy.parent)
    for name in ("all.tsv", "more.tsv", "wrong.tsv"):
        write_baseline(copy.parent / name, labels_of(copy))
    change("wrong.tsv", "\t0.7\t1", "\t0.7\t0")(copy.parent)
    before = sorted(path.name for path in copy.parent.iterdir())
    monkeypatch.setattr("sys.argv", ["srs-report", *flags])
    with pytest.raises(SystemExit) as end:
        main()
    printed = capsys.readouterr()
    assert_refused(
        subprocess.CompletedProcess([], int(end.value.code), printed.out, printed.err), "srs-report", message
    )
    assert sorted(path.name for path in copy.parent.iterdir()) == before


def limited(command, folder, size, *flags):
    """Run a command where no file can grow beyond so many bytes: what a full disk does to it."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}  # a cut .pyc file would break all later imports
    return subprocess.run(
        [*program(command), *flags], cwd=folder, capture_output=True, text=True, timeout=300, check=False,
        env=environment,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
    )  # fmt: skip


@pytest.mark.parametrize("size", [1000, 50_000])
def test_where_the_disk_is_full_no_report_appears(copy, size):
    assert_refused(limited("report", copy.parent, size, "run"), "srs-report", "make room and try again")
    assert [path.name for path in copy.parent.iterdir()] == ["run"]


def test_where_the_disk_is_full_a_run_stops_and_goes_on(finished, folder):
    flags = [*TINY, "--out", "run"]
    assert_refused(limited("certify", folder, 300, *flags), "srs-certify", "File too large; make room and try again")
    assert [path.name for path in folder.iterdir()] == ["model.pt"]
    for size, resume in ((1500, []), (10_000, ["--resume"])):
        process = limited("certify", folder, size, *flags, *resume)
        assert_refused(process, "srs-certify", "File too large; make room and try again")
        for name in ("selection.tsv", "estimation.tsv"):
            file = folder / "run" / name
            assert not file.exists() or file.read_bytes().endswith(b"\n")
        assert not [file for file in (folder / "run").iterdir() if file.name.endswith(".partial")]
    assert (folder / "run/levels.tsv").exists()
    assert not (folder / "run/summary.json").exists()
    process = call("certify", folder, *flags, "--resume")
    assert process.returncode == 0, process.stderr
    for name in ("comparison.tsv", "levels.tsv", "regions.npz"):
        assert (folder / "run" / name).read_bytes() == (finished[0] / "run" / name).read_bytes()


def test_a_folder_of_a_newer_version_is_not_touched(copy, weights):
    newer(copy)
    (copy.parent / "model.pt").write_bytes(weights.read_bytes())
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    process = call("certify", copy.parent, *TINY, "--out", "run", "--resume")
    assert_refused(process, "srs-certify", "was written by a newer version of srs-certify")
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_resuming_takes_the_settings_of_the_run(copy, weights):
    (copy.parent / "model.pt").write_bytes(weights.read_bytes())
    (copy / "summary.json").unlink()
    process = call("certify", copy.parent, "--out", "run", "--resume")
    assert process.returncode == 0, process.stderr
    assert yaml.safe_load((copy / "config.yaml").read_text())["n"] == 300
    assert json.loads((copy / "summary.json").read_text())["settings"]["n"] == 300


def test_a_baseline_of_other_images_is_refused(copy):
    labels = labels_of(copy)
    first = next(iter(labels))
    write_baseline(copy.parent / "other.tsv", {**labels, first: (labels[first] + 1) % 10})
    write_baseline(copy.parent / "fewer.tsv", {idx: label for idx, label in labels.items() if idx != first})
    for file, message in (
        ("other.tsv", f"image {first} has label {(labels[first] + 1) % 10}, in run it has {labels[first]}"),
        ("fewer.tsv", f"lacks image {first} of run"),
    ):
        process = call("report", copy.parent, "run", "--baseline", f"they={file}")
        assert_refused(
            process, "srs-report", f"--baseline {file}: {message}; give a log of the images that the runs are"
        )
    assert not (copy.parent / "run-report").exists()


def test_a_baseline_counts_by_the_images_of_the_run(copy):
    """10 of the run's images are correct; a further one, which the run has not, does not count."""
    labels = labels_of(copy)
    further = max(labels) + 1
    write_baseline(copy.parent / "log=1.tsv", {further: 0, **labels}, correct=11)
    process = call("report", copy.parent, "run", "--baseline", "log=1.tsv", "--tables", "markdown")
    assert process.returncode == 0, process.stderr
    line = next(row for row in (copy.parent / "run-report/tables.md").read_text().splitlines() if "log=1" in row)
    acr, _, difference, _, abstain, clean = line.strip("| ").split(" | ")[1:7]
    summary = json.loads((copy / "summary.json").read_text())
    assert float(difference) == pytest.approx(7 / len(labels) - summary["average_certified_radius"], abs=6e-4)
    assert Decimal(acr) == (Decimal(7) / Decimal(len(labels))).quantize(Decimal("0.001"), rounding=ROUND_FLOOR)
    assert int(abstain) == len(labels) - 10
    assert Decimal(clean) == (Decimal(1000) / len(labels)).quantize(Decimal("0.1"), rounding=ROUND_FLOOR)


def test_terminal_page_and_tables_say_the_same_rounded_down(reported, finished):
    """Every cell is the exact count over the number of images, floored; 94.9 beside 94.8 would not do."""
    rows = table(finished[0] / "run/comparison.tsv")
    n = len(labels_of(finished[0] / "run"))
    epsilon = json.loads((finished[0] / "run/summary.json").read_text())["epsilon"]
    page = Page((reported[0] / "report.html").read_text())
    shown = " ".join(" ".join(page.text).split())
    for rule, name, short in (
        ("paper-lp", "sample-wise, LP", "> paper, LP"),
        ("sigma=0.2", "sigma = 0.2", "  sigma = 0.2"),
    ):
        right = [Decimal(row["radius"]) for row in rows if row["rule"] == rule and row["correct"] == "1"]
        counts = [sum(radius > Decimal(value) for radius in right) for value in epsilon]
        cells = [
            str((Decimal(100 * k) / n).quantize(Decimal("0.1"), rounding=ROUND_FLOOR)) if k else "-" for k in counts
        ]
        acr = str((sum(right) / n).quantize(Decimal("0.001"), rounding=ROUND_FLOOR))
        abstain = str(sum(row["predict"] == "-1" for row in rows if row["rule"] == rule))
        values = np.array([float(row["radius"]) * int(row["correct"]) for row in rows if row["rule"] == rule])
        half = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / n**0.5
        half = str(Decimal(half).quantize(Decimal("0.001"), rounding=ROUND_CEILING))
        alone = [Decimal(row["radius"]) for row in rows if row["rule"] == f"{rule}:one-sided" and row["correct"] == "1"]
        one_sided = str((sum(alone) / n).quantize(Decimal("0.001"), rounding=ROUND_FLOOR))
        main = np.array([float(row["radius"]) * int(row["correct"]) for row in rows if row["rule"] == "paper-lp"])
        paired = stats.t.ppf(0.975, n - 1) * (values - main).std(ddof=1) / n**0.5
        paired = str(Decimal(paired).quantize(Decimal("0.001"), rounding=ROUND_CEILING))
        compared = ["-", "-"] if rule == "paper-lp" else [f"{(values - main).mean():+.3f}", paired]
        expected = [acr, half, *compared, one_sided, abstain, *cells]
        for text in (finished[1].stdout, reported[1].stdout):
            columns = next(line for line in text.splitlines() if line.startswith("  rule ")).split()[1:]
            line = next(line for line in text.splitlines() if line.startswith(f"{short} "))
            assert line.removeprefix(short).split() == expected[: len(columns)]
            assert columns[6:] == [f"{value:.2f}" for value in epsilon][: len(columns) - 6]
            assert len(columns) > 7  # up to the largest radius that a rule certifies
        (_, _, head, in_tex), *_ = tex.tables((reported[0] / "tables.tex").read_text())
        assert len(head) >= len(columns) + 1
        kept = expected[: len(head) - 1]
        assert set(expected[len(kept) :]) <= {"-"}
        assert " ".join([name, *kept]) in shown
        assert next(list(map(tex.shown, cells)) for title, cells in in_tex if tex.shown(title) == short[2:]) == kept
