"""Runs that are killed, resumed and shared end with the same table."""

import json
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock

from smoothing import Ladder, Selection, SmoothedClassifier, certify_to_file, read_certificates
from smoothing.tables import COLUMNS

from .oracles import Halfspace

SHAPE = (1, 3, 3)

#: A program that certifies 40 images, slowly enough to be killed half-way.
PROGRAM = """
import sys, time
import torch
from torch import nn
from smoothing import Selection, SmoothedClassifier, certify_to_file

class Slow(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(9, 2, bias=False)
        self.linear.weight.data = torch.stack([torch.linspace(1, -1, 9), torch.linspace(-1, 1, 9)])

    def forward(self, images):
        time.sleep(0.002)
        return self.linear(images.flatten(1))

torch.set_num_threads(1)
images = torch.rand((40, 1, 3, 3), generator=torch.Generator().manual_seed(0))
classifier = SmoothedClassifier(Slow(), 2, batch_size=32, threads=1)
sigma = Selection((0.25, 0.5, 1.0), racing=True)
certify_to_file(sys.argv[1], classifier, images, sigma, 200, 800, labels=torch.arange(40) % 2)
print("finished", flush=True)
"""


@pytest.fixture
def images():
    return torch.rand((12, *SHAPE), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def smoothed():
    model = Halfspace(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1)
    return SmoothedClassifier(model, 2, threads=1, batch_size=100)


def but_for_time(path):
    """A table's fields, all but the wall time."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert all(len(row) == len(rows[0]) for row in rows)
    return [[*row[:5], *row[6:]] for row in rows]


#: What a finished run leaves, locks aside.
FINISHED = [
    "c.tsv",
    "c.tsv.votes/estimation.tsv",
    "c.tsv.votes/levels.tsv",
    "c.tsv.votes/manifest.json",
    "c.tsv.votes/selection.tsv",
]


def files_of(folder):
    """All files but for locks, which stay."""
    return sorted(
        str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and ".lock" not in file.name
    )


def unfinish(path):
    """Take a finished run back to where all its rows lie in one part; return the folder of votes."""
    votes = path.with_name(path.name + ".votes")
    path.unlink()
    for name in ("selection.tsv", "estimation.tsv"):
        (votes / name).rename(votes / f"{name}.part0")
    (votes / "levels.tsv").unlink()
    return votes


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "c.tsv"
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True, capture_output=True, timeout=300)
    return but_for_time(path)


def test_a_run_is_what_the_classifier_says(tmp_path, images, smoothed):
    labels = np.arange(12) % 2
    indices = np.arange(12) * 7
    table = certify_to_file(
        tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=900, alpha=0.01, labels=labels, indices=indices
    )
    found = smoothed.certify(images, 0.5, n0=50, n=900, alpha=0.01, indices=indices)
    for name, values in (("idx", indices), ("label", labels), ("predict", found.predict)):
        np.testing.assert_array_equal(getattr(table, name), values)
    np.testing.assert_array_equal(table.correct, found.predict == labels)
    for name, values in (("counts", found.counts), ("n", found.n), ("sigma", found.sigma)):
        np.testing.assert_array_equal(table.extra[name], values)
    assert np.all(table.radius <= found.radius)
    assert np.all(table.radius > found.radius - 1e-6)
    assert np.all(table.extra["p_lower"] <= found.p_lower)
    assert files_of(tmp_path) == FINISHED


def test_sigma_chosen_per_image(tmp_path, images, smoothed):
    grid = (0.25, 0.5, 1.0)
    table = certify_to_file(
        tmp_path / "c.tsv", smoothed, images, sigma=Selection(grid, "anchor"), n0=200, n=Ladder((100, 900))
    )
    choice = smoothed.select_sigma(images, list(grid), n0=200, rule="anchor", n=900)
    np.testing.assert_array_equal(table.extra["sigma"], choice.sigma)
    assert np.all(table.label == -1)
    assert np.all(table.correct == 0)
    assert set(table.extra["n"].tolist()) <= {100, 900}


def test_simultaneous_counts_every_image_of_the_run(tmp_path, images, smoothed, monkeypatch):
    monkeypatch.setattr("smoothing.drawing.draw.FULL_BATCHES", 0)  # one image at a time
    table = certify_to_file(
        tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300, alpha=0.012, simultaneous=True
    )
    found = smoothed.certify(images, 0.5, n0=50, n=300, alpha=0.012, simultaneous=True)
    np.testing.assert_allclose(table.radius, found.radius, atol=1e-6)
    assert np.all(table.radius <= found.radius)


def test_a_finished_run_is_read_and_not_repeated(tmp_path, images, smoothed, monkeypatch):
    first = certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)
    monkeypatch.setattr(SmoothedClassifier, "select_votes", None)
    again = certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)
    np.testing.assert_array_equal(first.radius, again.radius)


def test_usual_analysis_code_reads_the_table(tmp_path, images, smoothed):
    # What scripts for such logs do, with pandas: accuracy at a radius, mean radius, abstentions.
    table = certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=900, labels=np.arange(12) % 2)
    df = pd.read_csv(tmp_path / "c.tsv", delimiter="\t")
    assert tuple(df.columns[:6]) == COLUMNS
    accuracy = (df["correct"] & (df["radius"] >= 0.1)).mean()
    assert accuracy == np.mean(table.correct.astype(bool) & (table.radius >= 0.1)) > 0
    assert (df["radius"] * df["correct"]).mean() == pytest.approx(np.mean(table.radius * table.correct))
    assert (df["predict"] == -1).sum() == (table.predict == -1).sum()
    assert pd.to_timedelta(df["time"]).dt.total_seconds().sum() > 0


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_table(tmp_path, uninterrupted):
    path, votes, dice = tmp_path / "c.tsv", tmp_path / "c.tsv.votes", random.Random(0)

    def size():
        return sum(file.stat().st_size for file in votes.glob("*.part0"))

    sizes = [0]
    for _ in range(4):
        process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(path)], stdout=subprocess.DEVNULL)
        while process.poll() is None and size() <= sizes[-1]:
            time.sleep(0.002)
        time.sleep(dice.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        sizes.append(size())
    assert not path.exists()
    assert sizes == sorted(set(sizes))  # each was killed after it had written something
    subprocess.run([sys.executable, "-c", PROGRAM, str(path)], check=True, capture_output=True, timeout=300)
    assert but_for_time(path) == uninterrupted
    assert files_of(tmp_path) == FINISHED


def passes_of(smoothed, monkeypatch):
    """A list that grows by one with every forward pass."""
    passes, forward = [], smoothed._engine.forward

    def counted(self, *batch, **options):
        passes.append(1)
        return forward(*batch, **options)

    monkeypatch.setattr(type(smoothed._engine), "forward", counted)
    return passes


@pytest.mark.parametrize("tail", ["7", "7\t0.5\t30", "7\t0.5\t300\t0:300\t0:00:00.1"])
@pytest.mark.parametrize(("stage", "lost"), [("estimation", 7 * 3), ("selection", 7 * (1 + 1))])
def test_a_torn_last_line_is_dropped(tmp_path, images, smoothed, tail, stage, lost, monkeypatch):
    monkeypatch.setattr("smoothing.drawing.draw.FULL_BATCHES", 0)
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    whole = but_for_time(path)
    part = unfinish(path) / f"{stage}.tsv.part0"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join(lines[:6]) + tail)  # as left by a kill
    passes = passes_of(smoothed, monkeypatch)
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    # 300 estimation samples of each missing image, or 50 selection samples and one look without noise; and the fixed
    # images that recognise the classifier
    assert len(passes) == lost + 1
    assert but_for_time(path) == whole


@pytest.mark.parametrize("stage", ["selection", "estimation"])
def test_a_header_that_was_torn_is_written_again(tmp_path, images, smoothed, stage):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    whole = but_for_time(path)
    (unfinish(path) / f"{stage}.tsv.part0").write_text("idx\tlab")
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    assert but_for_time(path) == whole


def test_two_processes_share_the_work_and_write_the_table_of_one(tmp_path, uninterrupted):
    program, path = tmp_path / "program.py", tmp_path / "c.tsv"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", program, path]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen = set()
    while process.poll() is None:
        with suppress(FileNotFoundError):
            seen |= {file.name for file in tmp_path.glob("c.tsv.votes/*.part?") if file.stat().st_size > 100}
        time.sleep(0.005)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert out.count("finished") == 2
    assert seen == {f"{stage}.tsv.part{rank}" for stage in ("selection", "estimation") for rank in (0, 1)}
    assert but_for_time(path) == uninterrupted
    assert files_of(tmp_path) == sorted([*FINISHED, "program.py"])


def test_one_process_finishes_what_two_began(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    whole = but_for_time(path)
    votes = unfinish(path)
    for stage in ("selection", "estimation"):
        header, *rows = (votes / f"{stage}.tsv.part0").read_text().splitlines(keepends=True)
        # as two killed processes leave them; image 2 was drawn by both
        (votes / f"{stage}.tsv.part0").write_text("".join([header, *rows[0:6:2]]) + rows[6][:9])
        (votes / f"{stage}.tsv.part1").write_text("".join([header, *rows[1:4]]) + rows[5][:20])
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    assert but_for_time(path) == whole
    assert files_of(tmp_path) == FINISHED


def test_two_parts_that_contradict_each_other_are_refused(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    votes = unfinish(path)
    header, *rows = (votes / "estimation.tsv.part0").read_text().splitlines(keepends=True)
    other = rows[4].split("\t")
    other[3] = "0:299 1:1" if other[3] != "0:299 1:1" else "0:300"
    (votes / "estimation.tsv.part1").write_text(header + "\t".join(other))
    with pytest.raises(ValueError, match=r"estimation\.tsv\.part1 and another part have different rows of image 4"):
        certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2)])
def test_shards_need_not_run_at_the_same_time(tmp_path, images, smoothed, order):
    whole, path = tmp_path / "whole.tsv", tmp_path / "c.tsv"
    grid = Selection((0.25, 0.5))
    certify_to_file(whole, smoothed, images, sigma=grid, n0=50, n=300)
    for k, number in enumerate(order):
        table = certify_to_file(path, smoothed, images, sigma=grid, n0=50, n=300, shard=(number, 3))
        done = sorted(j for shard in order[: k + 1] for j in range(shard - 1, 12, 3))
        assert table.idx.tolist() == done
        assert path.exists() == (k == 2)
    assert but_for_time(path) == but_for_time(whole)
    np.testing.assert_array_equal(
        certify_to_file(path, smoothed, images, sigma=grid, n0=50, n=300).radius, table.radius
    )


@pytest.mark.parametrize("shard", [(0, 2), (3, 2), (1, 0)])
def test_a_shard_that_there_is_not_is_refused(tmp_path, images, smoothed, shard):
    with pytest.raises(ValueError, match="shard = "):
        certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300, shard=shard)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"alpha": 0.01}, "alpha"),
        ({"n": 301}, "n "),
        ({"n": Ladder((100, 300))}, "n "),
        ({"n0": 51}, "n0"),
        ({"sigma": 0.25}, "sigma"),
        ({"sigma": Selection((0.25, 0.5))}, "sigma"),
        ({"labels": np.zeros(12, int)}, "images"),
        ({"indices": np.arange(1, 13)}, "images"),
        ({"simultaneous": True}, "simultaneous"),
    ],
)
def test_two_runs_are_never_mixed(tmp_path, images, smoothed, change, name):
    arguments = {"sigma": 0.5, "n0": 50, "n": 300, "alpha": 0.001}
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, **arguments)
    before = path.read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to a run with another {name}.*name another file"):
        certify_to_file(path, smoothed, images, **(arguments | change))
    with pytest.raises(ValueError, match="another images"):
        certify_to_file(path, smoothed, images * 0.5, **arguments)
    same = Halfspace(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1)
    with pytest.raises(ValueError, match="another classifier seed"):
        certify_to_file(path, SmoothedClassifier(same, 2, seed=1), images, **arguments)
    other = Halfspace(torch.ones(SHAPE), 0.0)  # its vector is a plain attribute, which no state dict holds
    with pytest.raises(ValueError, match="another classifier weights"):
        certify_to_file(path, SmoothedClassifier(other, 2), images, **arguments)
    assert path.read_bytes() == before


def test_a_table_that_no_run_wrote_is_left_alone(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    path.write_text("years of work\n")
    with pytest.raises(ValueError, match="exists, and no run of ours wrote it"):
        certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    assert path.read_text() == "years of work\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_share_that_another_process_does_is_refused(tmp_path, images, smoothed):
    (tmp_path / "c.tsv.votes").mkdir()
    with (
        FileLock(tmp_path / "c.tsv.votes" / ".lock0"),
        pytest.raises(ValueError, match=r"c\.tsv\.votes is being written by another process"),
    ):
        certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)


def test_damage_is_named(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    about = tmp_path / "c.tsv.votes/manifest.json"
    text = about.read_text()
    assert json.loads(text)["classifier"]["sampler"] == "gaussian"
    about.write_text(text[:50])
    with pytest.raises(ValueError, match=r"manifest\.json is damaged: delete c\.tsv\.votes to start anew"):
        certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    about.write_text(text)
    (unfinish(path) / "estimation.tsv.part0").write_text("idx\tlabel\n1\t2\n")
    with pytest.raises(ValueError, match=r"estimation\.tsv\.part0, line 1: the header is"):
        certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)


def test_a_model_that_breaks_half_way_leaves_whole_rows(tmp_path, images, monkeypatch):
    monkeypatch.setattr("smoothing.drawing.draw.FULL_BATCHES", 0)  # one image at a time

    class Breaks(Halfspace):
        def forward(self, batch):
            logits = super().forward(batch)
            return logits if self.good else logits * float("nan")

    model = Breaks(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1)
    smoothed = SmoothedClassifier(model, 2, threads=1)
    model.good = True
    whole = tmp_path / "whole.tsv"
    certify_to_file(whole, smoothed, images, sigma=0.5, n0=50, n=300)
    estimate, left = SmoothedClassifier.estimate_votes, iter(range(12))

    def breaking(self, *arguments, **options):
        model.good = next(left) < 5
        return estimate(self, *arguments, **options)

    path = tmp_path / "c.tsv"
    with monkeypatch.context() as patch:
        patch.setattr(SmoothedClassifier, "estimate_votes", breaking)
        with pytest.raises(ValueError, match="model returned NaN"):
            certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    part = tmp_path / "c.tsv.votes/estimation.tsv.part0"
    left_behind = [line.split("\t")[:4] for line in part.read_text().splitlines()]
    finished = (tmp_path / "whole.tsv.votes/estimation.tsv").read_text().splitlines()
    assert left_behind == [line.split("\t")[:4] for line in finished[:6]]
    model.good = True
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    assert but_for_time(path) == but_for_time(whole)


def test_runs_of_earlier_versions_are_not_gone_on_with(tmp_path, images, smoothed):
    (tmp_path / "c.tsv.run.json").write_text("{}")
    with pytest.raises(ValueError, match="an earlier version, which cannot be gone on with: name another file"):
        certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)


def test_bad_arguments_leave_nothing_behind(tmp_path, images, smoothed):
    good = {"sigma": 0.5, "n0": 50, "n": 300}
    for change, message in [
        ({"n": 0}, "n = 0"),
        ({"n0": 0}, "n0 = 0"),
        ({"sigma": -1.0}, r"sigma\[0\] = -1.0"),
        ({"alpha": 2.0}, "alpha = 2.0"),
        ({"indices": np.zeros(12, int)}, "indices repeat"),
        ({"labels": np.full(12, 2)}, r"labels\[0\] = 2"),
        ({"sigma": Selection((0.5, 0.25))}, "sigmas"),
    ]:
        with pytest.raises(ValueError, match=message):
            certify_to_file(tmp_path / "c.tsv", smoothed, images, **(good | change))
    assert list(tmp_path.iterdir()) == []


def test_the_table_is_readable_by_our_reader(tmp_path, images, smoothed):
    returned = certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)
    read = read_certificates(tmp_path / "c.tsv")
    np.testing.assert_array_equal(read.radius, returned.radius)
    names = ["sigma", "counts", "n", "p_lower", "p_upper", "runner_up", "runner_up_counts", "share"]
    assert list(read.extra) == names
    found = smoothed.certify(images, 0.5, n0=50, n=300)
    for name in names:  # with all their digits
        np.testing.assert_array_equal(read.extra[name], getattr(found, name))


def test_nothing_is_written_through_a_link(tmp_path, images, smoothed):
    victim = tmp_path / "victim"
    victim.write_text("a torn last line")
    votes = tmp_path / "c.tsv.votes"
    votes.mkdir()
    (votes / "selection.tsv.part0").symlink_to(victim)
    with pytest.raises(ValueError, match=r"selection\.tsv\.part0 is a link: put what it names in its place"):
        certify_to_file(tmp_path / "c.tsv", smoothed, images, sigma=0.5, n0=50, n=300)
    assert victim.read_text() == "a torn last line"


def test_parts_that_a_kill_left_beside_the_whole_file_go_and_copies_of_ones_own_stay(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    votes = tmp_path / "c.tsv.votes"
    for name in ("selection.tsv.part0", "selection.tsv.part0.bak1"):
        (votes / name).write_text((votes / "selection.tsv").read_text())
    path.unlink()
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    assert not (votes / "selection.tsv.part0").exists()
    assert (votes / "selection.tsv.part0.bak1").exists()


def test_an_image_twice_in_one_part_is_damage(tmp_path, images, smoothed):
    path = tmp_path / "c.tsv"
    certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
    part = unfinish(path) / "selection.tsv.part0"
    lines = part.read_text().splitlines(keepends=True)
    part.write_text("".join([*lines, lines[-1]]))
    with pytest.raises(ValueError, match=r"selection\.tsv\.part0 is damaged: it has an image twice"):
        certify_to_file(path, smoothed, images, sigma=0.5, n0=50, n=300)
