"""`srs-allocate` as a person runs it: a process of its own in an empty folder."""

import os
import re
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pytest
from pyarrow import parquet

from regions import allocate, verify
from tests.srs.programs import call, call_without_extras

POINTS = np.array([[0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
R = np.array([0.75, 1.0, 2.5, 2.0])


def run(folder, *arguments):
    return call("allocate", folder, *arguments)


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "points.npy", POINTS)
    np.save(tmp_path / "R.npy", R)
    np.savez(tmp_path / "both.npz", points=POINTS, R=R, sigma=[0.5, 0.5, 1.0, 1.0], other=[1, 2, 3, 3])
    return tmp_path


def test_writes_what_allocate_returns_and_says_so(folder):
    result = run(folder, "points.npy", "R.npy", "--verify")
    assert result.returncode == 0, result.stderr
    expected = allocate(POINTS, R)
    with np.load(folder / "allocation.npz", allow_pickle=False) as written:
        np.testing.assert_array_equal(written["radii"], expected.radii)
        assert float(written["objective"]) == expected.objective
        assert float(written["upper_bound"]) == expected.upper_bound
        assert str(written["method"]) == "lp (highs)"
        assert str(written["status"]) == expected.status
    shown = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in result.stdout.splitlines()[:10])
    assert shown["points"] == "4"
    assert shown["edges"] == "4"  # all but (0, 3) and (1, 3)
    assert shown["components"] == "1"
    assert shown["largest degree"] == "3"
    assert float(shown["objective"]) == pytest.approx(expected.objective)
    assert float(shown["upper bound"]) == pytest.approx(expected.objective)
    assert "verified: no overlap among" in result.stdout
    assert result.stderr == ""


def test_one_npz_with_groups_and_greedy(folder):
    result = run(
        folder, "both.npz", "--groups", "both.npz:sigma", "both.npz:other", "--method", "greedy", "--order", "arrival",
        "--out", "greedy.npz",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    expected = allocate(POINTS, R, "greedy", order="arrival", groups=([0.5, 0.5, 1, 1], [1, 2, 3, 3]))
    with np.load(folder / "greedy.npz") as written:
        np.testing.assert_array_equal(written["radii"], expected.radii)
        assert np.isnan(written["upper_bound"])


def test_several_processes_write_the_same(folder):
    expected = allocate(POINTS, R, "matching")
    result = run(folder, "both.npz", "--method", "matching", "--parallel", "2")
    assert result.returncode == 0, result.stderr
    with np.load(folder / "allocation.npz") as written:
        np.testing.assert_array_equal(written["radii"], expected.radii)
    refused = run(folder, "both.npz", "--parallel", "abacus", "--overwrite")
    assert refused.returncode == 2
    assert refused.stderr.startswith("srs-allocate: --parallel abacus: joblib cannot use this backend here")


@pytest.mark.parametrize("search", ["faiss", "blocks", "tree"])
def test_every_search_writes_the_same(folder, search):
    result = run(folder, "both.npz", "--method", "matching", "--search", search)
    assert result.returncode == 0, result.stderr
    with np.load(folder / "allocation.npz") as written:
        np.testing.assert_array_equal(written["radii"], allocate(POINTS, R, "matching").radii)


def test_a_search_that_may_miss_a_pair_is_refused(folder):
    refused = run(folder, "both.npz", "--search", "ivf")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--search" in refused.stderr
    assert "faiss" in refused.stderr
    assert not (folder / "allocation.npz").exists()


def test_weights(folder):
    np.save(folder / "weights.npy", [5.0, 1.0, 1.0, 1.0])
    assert run(folder, "both.npz", "--weights", "weights.npy").returncode == 0
    with np.load(folder / "allocation.npz") as written:
        assert written["radii"][0] == 0.75
        assert verify(POINTS, written["radii"], R)


def test_printed_bounds_never_fall_below_what_they_bound(folder, rng):
    for k in range(4):
        points, radii = rng.random((50, 2)), rng.random(50)
        np.savez(folder / f"{k}.npz", points=points, R=radii)
        result = run(folder, f"{k}.npz", "--out", f"out{k}.npz")
        shown = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in result.stdout.splitlines()[:10])
        allocation = allocate(points, radii)
        assert float(shown["objective"]) <= allocation.objective
        assert float(shown["upper bound"]) >= allocation.upper_bound


def test_comparison(folder):
    result = run(folder, "both.npz", "--compare")
    assert result.returncode == 0, result.stderr
    sums = {"overlapping": 6.25, "lp (highs)": allocate(POINTS, R).objective}
    for order in ("ascending", "descending", "arrival"):
        sums[f"greedy ({order} order)"] = allocate(POINTS, R, "greedy", order=order).objective
    for method, value in sums.items():
        row = next(line for line in result.stdout.splitlines() if f"│ {method}" in line)
        assert float(row.split("│")[2]) == pytest.approx(value, rel=1e-6)


TABLE = "place,x,y,R,level,worth\nA,0,0,0.75,low,5\nB,1,0,1,low,1\nC,3,0,2.5,high,1\nD,3,4,2,high,1\n"


def radii_of(path, column="radius"):
    header, *rows = path.read_text().splitlines()
    return [float(row.split(",")[header.split(",").index(column)]) for row in rows]


def test_a_table_is_written_with_one_more_column(folder):
    (folder / "points.csv").write_text(TABLE)
    result = run(folder, "points.csv", "--verify")
    assert result.returncode == 0, result.stderr
    assert radii_of(folder / "allocation.csv") == allocate(POINTS, R).radii.tolist()
    rows = (folder / "allocation.csv").read_text().splitlines()
    assert [row.rpartition(",")[0] for row in rows] == TABLE.splitlines()
    assert "written to allocation.csv" in result.stdout


def test_columns_go_by_name(folder):
    (folder / "points.csv").write_text(TABLE.replace(",x,y,R,", ",east,north,most,"))
    result = run(
        folder, "points.csv", "most", "--columns", "east", "north", "--groups", "level", "--weights", "worth",
        "--radius-column", "size", "--out", "out.csv",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    expected = allocate(POINTS, R, groups=[0, 0, 1, 1], weights=[5, 1, 1, 1])
    assert radii_of(folder / "out.csv", "size") == expected.radii.tolist()


def test_a_table_with_arrays_beside_it_and_arrays_as_a_table(folder):
    (folder / "points.tsv").write_text("x\ty\n0\t0\n1\t0\n3\t0\n3\t4\n")
    result = run(folder, "points.tsv", "R.npy", "--groups", "both.npz:sigma", "--out", "out.parquet")
    assert result.returncode == 0, result.stderr
    expected = allocate(POINTS, R, groups=[0.5, 0.5, 1, 1]).radii.tolist()
    assert parquet.read_table(folder / "out.parquet")["radius"].to_pylist() == expected
    assert run(folder, "both.npz", "--out", "out.csv").returncode == 0
    assert run(folder, "out.csv", "--out", "again.csv", "--radius-column", "again").returncode == 0
    assert (
        radii_of(folder / "again.csv", "again") == radii_of(folder / "again.csv") == allocate(POINTS, R).radii.tolist()
    )


def test_a_least_radius_is_kept_or_two_points_are_named(folder):
    result = run(folder, "both.npz", "--r-min", "0.4", "--verify", "--compare", "--out", "out.csv")
    assert result.returncode == 0, result.stderr
    assert radii_of(folder / "out.csv") == allocate(POINTS, R, r_min=0.4).radii.tolist()
    assert "no radius is below 0.4" in result.stdout
    assert "greedy with reserve (arrival order)" in result.stdout
    refused = run(folder, "both.npz", "--r-min", "0.6")
    assert refused.returncode == 2
    assert refused.stderr.startswith("srs-allocate: --r-min 0.6: points 0 and 1 are 0.99999")
    assert refused.stderr.count("\n") == 1


def test_a_picture_beside_the_result(folder):
    for name in ("a.svg", "b.svg"):
        result = run(folder, "both.npz", "--groups", "both.npz:sigma", "--plot", name, "--overwrite")
        assert result.returncode == 0, result.stderr
        assert f"written to allocation.npz and {name}" in result.stdout
    assert (folder / "a.svg").read_bytes() == (folder / "b.svg").read_bytes()
    assert ElementTree.parse(folder / "a.svg").getroot().tag.endswith("svg")
    for name, magic in {"a.png": b"\x89PNG", "a.pdf": b"%PDF"}.items():
        assert run(folder, "both.npz", "--plot", name, "--overwrite").returncode == 0
        assert (folder / name).read_bytes().startswith(magic)


def test_what_libraries_have_to_say_is_said_on_terminals_only():
    script = (
        "import logging; from srs.commands._cli import one_line_news\n"
        "with one_line_news('srs-allocate'): logging.getLogger('regions').info('compiling')\n"
        "logging.getLogger('regions').info('nobody listens any more')"
    )
    reader, writer = os.openpty()
    with os.fdopen(writer, "wb") as terminal:
        subprocess.run([sys.executable, "-c", script], check=True, stderr=terminal)
        assert os.read(reader, 1000) == b"srs-allocate: compiling\r\n"
    os.close(reader)
    piped = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert piped.stderr == ""


def test_time_limit_warns_in_one_line(folder, rng):
    np.savez(folder / "large.npz", points=rng.random((3000, 2)), R=rng.random(3000) * 0.1)
    result = run(folder, "large.npz", "--time-limit", "0.001")
    assert result.returncode == 0
    assert result.stderr.count("\n") == 1
    assert "warning: highs stopped before the optimum: time limit reached" in result.stderr
    assert "time limit reached" in result.stdout


BAD = {
    "no such file": (["none.npy", "R.npy"], "none.npy: no such file"),
    "no bounds": (["points.npy"], "points.npy holds no array R: name the file of the upper bounds"),
    "no such array": (["both.npz:Q", "R.npy"], "both.npz has no array 'Q': it holds points, R, sigma, other"),
    "which array": (
        ["points.npy", "R.npy", "--weights", "both.npz"],
        "both.npz holds points, R, sigma, other: name the",
    ),
    "text file": (["notes.txt", "R.npy"], "notes.txt: only .npy and .npz files are read"),
    "damaged": (["damaged.npz", "R.npy"], "damaged.npz is damaged, or not a plain array file"),
    "empty file": (["empty.npy", "R.npy"], "empty.npy is damaged, or not a plain array file"),
    "objects": (["objects.npy", "R.npy"], "objects.npy is damaged, or not a plain array file"),
    "negative": (["points.npy", "negative.npy"], "R[2] = -1.0: radii must be finite and >= 0"),
    "lengths": (["points.npy", "short.npy"], "R has shape (2,): expected (4,)"),
    "order without greedy": (["both.npz", "--order", "arrival"], "--order arrival has no effect with --method lp"),
    "out exists": (["both.npz", "--out", "taken.npz"], "--out taken.npz: exists already"),
    "out is no npz": (["both.npz", "--out", "radii.txt"], "--out radii.txt: the result is an .npz file"),
    "no such column": (["points.csv", "most"], "points.csv has no column 'most': its columns are place, x, y"),
    "no such group": (["points.csv", "--groups", "kind"], "points.csv has no column 'kind'"),
    "text in a column": (["points.csv", "place"], "points.csv, line 2, column place: 'A' is no number"),
    "radius twice": (["points.csv", "--radius-column", "R"], "--radius-column R: points.csv has such a column already"),
    "columns of arrays": (["both.npz", "--columns", "x"], "--columns x: is about tables, but both.npz holds arrays"),
    "radius column of arrays": (["both.npz", "--radius-column", "r"], "--radius-column r: is about tables"),
    "columns before points": (["--columns", "x", "points.csv"], "it stands before flags that take several names"),
    "plot exists": (["both.npz", "--plot", "taken.svg"], "--plot taken.svg: exists already"),
    "plot is no picture": (["both.npz", "--plot", "a.gif"], "--plot a.gif: pictures are .svg, .png, .pdf; name one"),
    "plot of images": (["images.npy", "R.npy", "--plot", "a.svg"], "draws the plane, but the points have 12"),
    "plot in a line": (["points.csv", "--columns", "x", "--plot", "a.svg"], "draws the plane, but the points have 1"),
    "plain greedy": (["both.npz", "--r-min", "0.1", "--method", "greedy"], "keeps no least radius; add --reserve"),
    "least radius": (["both.npz", "--r-min", "-1"], "--r-min -1.0: expected a number >= 0"),
    "least radius above R": (["both.npz", "--r-min", "0.8"], "--r-min 0.8 exceeds R[0] = 0.75"),
    "out without folder": (["both.npz", "--out", "no/where.npz"], "--out no/where.npz: there is no folder"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_2(folder, arguments, message):
    (folder / "notes.txt").write_text("1 2 3")
    (folder / "damaged.npz").write_bytes((folder / "both.npz").read_bytes()[:300])
    (folder / "empty.npy").write_bytes(b"")
    np.save(folder / "objects.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    np.save(folder / "negative.npy", [1.0, 1.0, -1.0, 1.0])
    np.save(folder / "short.npy", [1.0, 1.0])
    np.savez(folder / "taken.npz", mine=1)
    (folder / "taken.svg").write_text("mine")
    np.save(folder / "images.npy", np.zeros((4, 1, 3, 4), np.uint8))
    (folder / "points.csv").write_text(TABLE)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    result = run(folder, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("srs-allocate: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("arguments", [["both.npz", "--method", "magic"], ["both.npz", "--colour", "red"], []])
def test_unusable_flags_are_one_line_and_write_nothing(folder, arguments):
    result = run(folder, *arguments)
    assert result.returncode == 2
    assert result.stderr.startswith("srs-allocate: ")
    assert result.stderr.count("\n") == 1
    assert not (folder / "allocation.npz").exists()


def test_the_geometry_runs_without_any_extra(folder):
    done = call_without_extras("allocate", folder, "both.npz", "--verify", "--compare")
    assert done.returncode == 0, done.stderr
    assert "verified: no overlap" in done.stdout
