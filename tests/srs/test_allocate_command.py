"""`srs-allocate` as a person runs it: a process of its own in an empty folder."""

import re
import subprocess
import sys

import numpy as np
import pytest

from regions import allocate, verify
from tests.srs.programs import call

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
    assert refused.stderr.startswith("srs-allocate: parallel = 'abacus': joblib cannot use this backend here")


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
    "order without greedy": (["both.npz", "--order", "arrival"], "order = 'arrival' has no effect with method='lp'"),
    "out exists": (["both.npz", "--out", "taken.npz"], "--out taken.npz: exists already"),
    "out is no npz": (["both.npz", "--out", "radii.txt"], "--out radii.txt: the result is an .npz file"),
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


#: A program that cannot import what extras bring, and then runs the command.
WITHOUT_EXTRAS = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {hidden}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Nowhere())
from srs.commands.{command} import main
main()
"""
HIDDEN = (
    "PIL", "accelerate", "cvxpy", "filelock", "jinja2", "matplotlib", "mpmath", "pandas", "pyarrow", "safetensors",
    "sklearn", "tensorboard", "torch", "torchvision", "tqdm", "yaml",
)  # fmt: skip


def test_the_geometry_runs_without_any_extra(folder):
    script = WITHOUT_EXTRAS.format(hidden=HIDDEN, command="allocate")
    arguments = ["both.npz", "--verify", "--compare"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "verified: no overlap" in done.stdout
