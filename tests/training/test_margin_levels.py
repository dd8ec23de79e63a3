"""Levels from a few passes, on classifiers whose probabilities under noise are known."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from smoothing import SmoothedClassifier
from training import choose_levels_by_margins, chunks
from training.chunks import FIRST_INDEX
from training.margin_levels import _margins

GRID = np.arange(3, 21) / 20
N0, ALPHA = 500, 0.001
RADIUS = 1.5


class Ball(nn.Module):
    """Class 1 inside a ball around the grey image, class 0 outside, and class 2 nowhere.

    `bend` increases, with bend(0) = 0: it changes margins and no vote.
    """

    def __init__(self, bend=lambda score: score):
        super().__init__()
        self.bend, self.passes = bend, 0

    def forward(self, images):
        self.passes += len(images)
        score = self.bend(RADIUS - (images - 0.5).flatten(1).norm(dim=1))
        return torch.stack([-score, score, torch.full_like(score, -100.0)], dim=1)


def made():
    rng = np.random.default_rng(0)
    corners = rng.choice([-0.5, 0.5], (400, 1, 4, 4))
    return (0.5 + corners * rng.uniform(0, 1, (400, 1, 1, 1))).astype(np.float32)


@pytest.fixture(scope="module")
def images():
    return made()


@pytest.fixture(scope="module")
def labels(images):
    return (distances(images) < RADIUS).astype(np.int64)


@pytest.fixture(scope="module")
def radii(images, labels):
    """Mean of the radius that N0 votes certify (Eq. 5) at every level: distances in noise are noncentral chi."""
    inside = stats.ncx2.cdf(RADIUS**2 / GRID**2, 16, distances(images)[:, None] ** 2 / GRID**2)
    probability = np.where(labels[:, None] == 1, inside, 1 - inside)
    votes = np.arange(N0 + 1)
    lower = np.concatenate([[0.0], stats.beta.ppf(ALPHA, votes[1:], N0 - votes[1:] + 1)])
    radius = np.where(lower > 0.5, stats.norm.ppf(np.maximum(lower, 0.5)), 0.0)
    return GRID * (stats.binom.pmf(votes, N0, probability[..., None]) @ radius)


def distances(images):
    return np.linalg.norm(images.reshape(len(images), -1) - 0.5, axis=1)


def choose(model, images, labels, *, seed=0, **options):
    smoothed = SmoothedClassifier(model, 3, threads=1, seed=seed)
    return choose_levels_by_margins(smoothed, images, labels, sigmas=GRID, n0=N0, alpha=ALPHA, **options)


def share_of_best(chosen, radii):
    """The mean radius of the chosen levels, as a share of that of the best ones."""
    return radii[np.arange(len(radii)), np.searchsorted(GRID, chosen)].mean() / radii.max(axis=1).mean()


@pytest.mark.parametrize(("passes", "least"), [(10, 0.99), (30, 0.995)])
def test_nearly_the_best_radius_where_margins_are_known(images, labels, radii, passes, least):
    assert radii.mean(axis=0).max() < 0.8 * radii.max(axis=1).mean()  # no level for all would do
    assert len(set(radii.argmax(axis=1))) >= 4
    found = choose(Ball(), images, labels, passes=passes)
    assert set(found.sigma) <= set(GRID)
    assert share_of_best(found.sigma, radii) > least


@pytest.mark.parametrize("bend", [torch.sign, lambda s: torch.tanh(5 * s), lambda s: s**3, lambda s: torch.sinh(5 * s)])
def test_margins_that_are_not_normal_cost_some_percent(images, labels, radii, bend):
    assert share_of_best(choose(Ball(bend), images, labels).sigma, radii) > 0.9


@pytest.mark.parametrize("passes", [6, 7, 30])
def test_no_image_gets_more_passes_than_it_may(images, labels, passes):
    model = Ball()
    found = choose(model, images, labels, passes=passes)
    assert model.passes == found.passes == passes * len(images)


def test_one_level_takes_no_pass(images, labels):
    model = Ball()
    found = choose_levels_by_margins(SmoothedClassifier(model, 3), images, labels, sigmas=np.array([0.3]))
    assert (model.passes, found.passes, set(found.sigma)) == (0, 0, {0.3})


@pytest.mark.parametrize("levels", [2, 3])
def test_few_levels_do(images, labels, radii, levels):
    which = np.linspace(0, len(GRID) - 1, levels).astype(int)
    smoothed = SmoothedClassifier(Ball(), 3, threads=1)
    found = choose_levels_by_margins(smoothed, images, labels, sigmas=GRID[which], n0=N0)
    best = GRID[which][radii[:, which].argmax(axis=1)]
    assert (found.sigma == best).mean() > 0.95


class Slope(nn.Module):
    """Class 1 on one side of a plane that passes by the grey image, at a distance of 0.05: Phi(-0.05 / sigma) there."""

    def forward(self, batch):
        score = (batch - 0.5).flatten(1).sum(dim=1) / 4 - 0.05
        return torch.stack([-score, score, torch.full_like(score, -100.0)], dim=1)


def test_images_whose_label_wins_nowhere_get_the_smallest_level(images, labels):
    assert set(choose(Ball(), images, np.full_like(labels, 2)).sigma) == {GRID[0]}  # never voted for
    grey = np.full_like(images, 0.5)
    found = choose(Slope(), grey, np.ones_like(labels))  # voted for by 37% to 48%; some look luckier than they are
    assert (found.sigma == GRID[0]).mean() > 0.95


def test_an_interruption_costs_one_chunk_and_changes_nothing(images, labels, tmp_path, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 64)
    whole = choose(Ball(), images, labels)

    class Dies(Ball):
        def forward(self, batch):
            if self.passes >= 10 * len(images) + 10 * 130:  # in the second round, after two chunks
                raise KeyboardInterrupt
            return super().forward(batch)

    partial = tmp_path / "levels.partial"
    with pytest.raises(KeyboardInterrupt):
        choose(Dies(), images, labels, partial=partial)
    files = sorted(tmp_path.iterdir())
    assert [file.stat().st_size for file in files] == [8 * 20 * 400, 8 * 20 * 128]
    files[1].write_bytes(files[1].read_bytes() + b"\x00" * 11)  # torn
    model = Ball()
    again = choose(model, images, labels, partial=partial)
    np.testing.assert_array_equal(again.sigma, whole.sigma)
    assert model.passes == 30 * 400 - 10 * (400 + 128)
    assert again.passes == whole.passes


def test_batches_and_chunks_do_not_matter(images, labels, monkeypatch):
    whole = choose(Ball(), images, labels)
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 7)
    monkeypatch.setattr("training.margin_levels.BATCH", 33)
    np.testing.assert_array_equal(choose(Ball(), images, labels).sigma, whole.sigma)
    monkeypatch.setattr("training.margin_levels.ROWS", 150)
    monkeypatch.setattr("training.margin_levels.FIT_IMAGES", 200)
    assert (choose(Ball(), images, labels).sigma == whole.sigma).mean() > 0.9  # half the images teach as much
    assert (choose(Ball(), images, labels, seed=1).sigma != whole.sigma).any()


def test_margins_are_of_the_label_and_under_noise_of_its_own(images, labels):
    smoothed = SmoothedClassifier(Ball(), 3, threads=1)
    sigma = np.full((400, 200), 0.1)

    def of(truth, indices, start=0):
        return _margins(smoothed, images, truth, sigma, indices, start)

    names = FIRST_INDEX + np.arange(400)
    found = of(labels, names)
    np.testing.assert_array_equal(found > 0, of(1 - labels, names) < 0)  # the other class's margin is the negative
    # squared distances are noncentral chi-square: mean 16 sigma^2 + d^2, by 400 x 200 samples within 5 errors
    squares = (RADIUS - np.where(labels == 1, 1, -1)[:, None] * found / 2) ** 2
    variance = 0.1**4 * 2 * (16 + 2 * distances(images) ** 2 / 0.1**2)
    error = (squares.mean(axis=1) - 16 * 0.1**2 - distances(images) ** 2) / np.sqrt(variance / 200)
    assert abs(error.mean()) < 5 / np.sqrt(400)
    assert abs(np.corrcoef(found[0], found[1])[0, 1]) < 0.3
    for other in (of(labels, names, 10), of(labels, names - FIRST_INDEX)):
        assert abs(np.corrcoef(other[0], found[0])[0, 1]) < 0.3


def test_logits_that_are_no_numbers_are_refused(images, labels):
    with pytest.raises(ValueError, match="the model returned NaN or infinity: take --choice grid"):
        choose(Ball(lambda score: score / 0 * 0), images, labels)


def test_too_few_passes_are_refused(images, labels):
    with pytest.raises(ValueError, match="passes = 5"):
        choose(Ball(), images, labels, passes=5)


def test_a_model_that_noise_does_not_move_is_no_error(images, labels):
    class Same(nn.Module):
        def forward(self, batch):
            return torch.tensor([[0.0, 1.0, 0.0]]).expand(len(batch), 3)

    found = choose(Same(), images, np.ones_like(labels))
    assert set(found.sigma) == {GRID[-1]}


#: Writes what each of its processes was told into the folder argv[1].
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from smoothing.machine import processes
from tests.training.test_margin_levels import Ball, choose, distances, made, RADIUS

images = made()
model = Ball()
found = choose(model, images, (distances(images) < RADIUS).astype(np.int64))
np.savez(f"{sys.argv[1]}/{processes('cpu').process_index}.npz", sigma=found.sigma, passes=[found.passes, model.passes])
"""


def test_two_processes_share_the_passes_and_agree(images, labels, tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(tmp_path / "program.py"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the program imports this file
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    whole = choose(Ball(), images, labels)
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            np.testing.assert_array_equal(found["sigma"], whole.sigma)
            assert found["passes"].tolist() == [30 * 400, 30 * 200]
