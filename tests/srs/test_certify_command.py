"""`srs-certify` as a person runs it: a program, in an empty folder."""

import csv
import json
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest

import regions
from srs.commands._errors import one_line_errors
from srs.run_folder import whole_folder

TINY = ["--n", "300", "--n0", "50", "--sigma-min", "0.2", "--sigma-max", "0.4", "--sigma-step", "0.2", "--max", "25"]
FILES = {"certificates.tsv", "comparison.tsv", "summary.json", "regions.npz", "curves.png"}


def srs_certify(folder, *flags):
    program = [sys.executable, "-c", "from srs.commands.certify import main; main()"]
    return subprocess.run([*program, *flags], cwd=folder, capture_output=True, text=True, timeout=300, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which the command ran, and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    return folder, srs_certify(folder, *TINY, "--skip", "3", "--seed", "1", "--out", "out/first")


@pytest.fixture(scope="module")
def rows(finished):
    with (finished[0] / "out/first/certificates.tsv").open(newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def summary(finished):
    return json.loads((finished[0] / "out/first/summary.json").read_text())


def test_it_ends_well_and_leaves_its_files_and_nothing_else(finished):
    folder, process = finished
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert {file.name for file in (folder / "out/first").iterdir()} == FILES
    assert [path.name for path in (folder / "out").iterdir()] == ["first"]
    assert (folder / "out/first/curves.png").read_bytes().startswith(b"\x89PNG")


def test_it_prints_every_rule(finished):
    for title in ("sigma = 0.2", "sigma = 0.4", "overlapping (unsound)", "ascending", "descending", "sample-wise, LP"):
        assert title in finished[1].stdout


def test_the_table_starts_with_the_usual_columns(rows):
    assert list(rows[0]) == [
        "idx",
        "label",
        "predict",
        "radius",
        "correct",
        "time",
        "sigma",
        "R",
        "r",
        "p_lower",
        "region",
    ]
    assert [int(row["idx"]) for row in rows] == list(range(0, 75, 3))


def test_rows_are_consistent(rows):
    for row in rows:
        radius, R, r = Decimal(row["radius"]), Decimal(row["R"]), Decimal(row["r"])
        assert radius == min(R, r)
        assert row["sigma"] in ("0.2", "0.4")
        assert (row["predict"] == "-1") == (radius == 0) == (row["region"] == "-1")
        assert row["correct"] == str(int(row["predict"] == row["label"]))
        assert row["time"].startswith("0:00:")
        if radius > 0:
            assert float(row["p_lower"]) > 0.5


def test_written_radii_are_never_above_the_allocated_ones(finished, rows):
    stored = regions.RegionMap.load(finished[0] / "out/first/regions.npz")
    assert len(stored.radii) == len(rows)
    for row, radius in zip(rows, stored.radii, strict=True):
        assert Decimal(row["radius"]) <= Decimal(float(radius)) < Decimal(row["radius"]) + Decimal("1e-6")


def test_the_summary_can_be_recomputed_from_the_rows(rows, summary):
    radius = np.array([float(row["radius"]) for row in rows])
    correct = np.array([row["correct"] == "1" for row in rows])
    assert summary["average_certified_radius"] == pytest.approx(np.mean(radius * correct), abs=1e-12)
    assert summary["abstentions"] == sum(row["predict"] == "-1" for row in rows)
    accuracy = [np.mean(correct & (radius > epsilon)) for epsilon in summary["epsilon"]]
    assert summary["rules"]["lp"]["certified_accuracy"] == pytest.approx(accuracy)
    assert summary["epsilon"][:2] == [0, 0.25]
    assert summary["epsilon"][-1] >= 2.25
    assert summary["rules"]["lp"]["certified_accuracy"][0] > 0.8
    assert summary["settings"]["n"] == 300
    assert summary["seed"] == 1


def test_every_rule_can_be_recomputed_from_the_comparison(finished, summary):
    with (finished[0] / "out/first/comparison.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert {row["rule"] for row in rows} == set(summary["rules"])
    for rule, result in summary["rules"].items():
        mine = [row for row in rows if row["rule"] == rule]
        average = np.mean([float(row["radius"]) * int(row["correct"]) for row in mine])
        assert result["average_certified_radius"] == pytest.approx(average, abs=1e-12)


def test_a_second_run_replaces_nothing_unless_told_and_repeats_the_numbers(finished):
    folder, _ = finished
    first = (folder / "out/first/comparison.tsv").read_bytes()
    refused = srs_certify(folder, "--out", "out/first")
    assert refused.returncode == 2
    assert "--overwrite" in refused.stderr
    again = srs_certify(
        folder, *TINY, "--skip", "3", "--seed", "1", "--out", "out/first", "--overwrite", "--batch", "77"
    )
    assert again.returncode == 0, again.stderr
    assert (folder / "out/first/comparison.tsv").read_bytes() == first
    assert json.loads((folder / "out/first/summary.json").read_text())["settings"]["batch"] == 77
    assert [path.name for path in (folder / "out").iterdir()] == ["first"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "2"], "--alpha 2.0: must lie strictly between 0 and 1"),
        (["--n", "0"], "--n 0: must be from 1 to 1,000,000,000"),
        (["--max", "0"], "--max 0: must be at least 1"),
        (["--seed", "-1"], "--seed -1"),
        (["--sigma-min", "0.9"], "sigma_min = 0.9 is above sigma_max = 0.6"),
        (["--device", "abacus"], "device = 'abacus' cannot be used"),
        (["--out", "/dev/null"], "--out /dev/null: is a file"),
    ],
)
def test_bad_settings_are_one_line_and_exit_code_2(tmp_path, flags, message):
    process = srs_certify(tmp_path, *flags)
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("srs-certify: ")
    assert message in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_flag_is_exit_code_2(tmp_path):
    process = srs_certify(tmp_path, "--sigma", "0.5")
    assert process.returncode == 2
    assert "--sigma" in process.stderr
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_flag_without_importing_torch(tmp_path):
    script = (
        "import sys\nfrom srs.commands.certify import main\n"
        "try: main()\nfinally: assert not {'torch', 'sklearn', 'matplotlib'} & set(sys.modules)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script, "--help"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    for flag in [
        "sigma-min",
        "sigma-max",
        "sigma-step",
        "n0",
        "n",
        "alpha",
        "batch",
        "seed",
        "device",
        "out",
        "skip",
        "max",
    ]:
        assert f"--{flag} " in process.stdout


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
@pytest.mark.parametrize("before", [True, False])
def test_a_folder_appears_whole_or_not_at_all(tmp_path, error, before):
    out = tmp_path / "run"
    if before:
        out.mkdir()
        (out / "summary.json").write_text("old")

    def fill():
        with whole_folder(out, overwrite=before) as folder:
            (folder / "summary.json").write_text("half")
            raise error

    with pytest.raises(error):
        fill()
    assert list(tmp_path.iterdir()) == ([out] if before else [])
    assert not before or (out / "summary.json").read_text() == "old"


def test_the_old_run_comes_back_when_the_new_one_cannot_take_its_place(tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / "summary.json").write_text("old")
    with pytest.raises(FileNotFoundError), whole_folder(out, overwrite=True) as folder:
        folder.rmdir()  # so that the last rename fails
    assert list(tmp_path.iterdir()) == [out]
    assert (out / "summary.json").read_text() == "old"


def test_overwriting_spares_files_that_no_run_wrote(tmp_path):
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "thesis.tex").write_text("years of work")
    with (
        pytest.raises(ValueError, match=r"holds thesis\.tex, which no run wrote"),
        whole_folder(tmp_path, overwrite=True),
    ):
        pass
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwriting_spares_folders_that_hold_no_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="no finished run"), whole_folder(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(("error", "code"), [(ValueError("a\nb"), 2), (OSError("disk"), 2), (KeyboardInterrupt(), 130)])
def test_errors_become_one_line_and_an_exit_code(capsys, error, code):
    with pytest.raises(SystemExit) as caught, one_line_errors("name"):
        raise error
    assert caught.value.code == code
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_defects_keep_their_traceback():
    with pytest.raises(KeyError), one_line_errors("name"):
        raise KeyError("defect")
