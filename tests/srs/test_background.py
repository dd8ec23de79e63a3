"""Regions with a level outside: what the radii promise, against G itself; and that regions pay."""

import numpy as np
import pytest
import torch
from torch import nn

import regions
from smoothing import SmoothedClassifier
from srs.evaluation import background as module
from srs.evaluation.background import Outside, Promised, with_background
from srs.evaluation.evaluate import evaluate
from srs.modes import Mode, short_title, title
from srs.run.draw import draw_run, files_of
from srs.run.votes import read_record
from tests import oracles
from tests.srs.test_certify_pipeline import make_inputs

SIGMAS = np.array([0.25, 0.5, 1.0])


def invented(rng, n=60, classes=2):
    """Images in the plane, and promises that differ much from level to level."""
    points = rng.random((n, 2)) * 16
    radius = np.where(rng.random((n, 3)) < 0.2, 0.0, rng.random((n, 3)))
    voted = np.where(rng.random((n, 3)) < 0.1, rng.integers(classes, size=(n, 3)), rng.integers(classes, size=(n, 1)))
    return points, Promised(radius.argmax(axis=1), voted, radius, np.full((n, 3), 400))


def made(points, promised, mode):
    """The map of a mode with a level outside, and that level's number."""
    k = promised.best_constant() if mode.outside == "auto" else SIGMAS.tolist().index(mode.outside)
    outside = Outside.constant(k, len(points), len(SIGMAS))
    return with_background(points, SIGMAS, promised, mode, outside), k


def level_of(found, inputs):
    """The level that G uses, looked up one by one in exact arithmetic: the first region that holds the input."""
    level, table = np.full(len(inputs), found.outside.level[0]), found.table
    for row, x in enumerate(inputs):
        for i in np.flatnonzero(table.radii > 0):
            if oracles.squared_distance(x, table.centres[i]) < oracles.Fraction(float(table.radii[i])) ** 2:
                level[row] = np.flatnonzero(table.sigma[i] == SIGMAS)[0]
                break
    return level


@pytest.mark.parametrize("overlap", ["paper", "sigma", "joint"])
@pytest.mark.parametrize("outside", ["auto", 0.25, 1.0])
def test_every_level_that_decides_within_the_radius_is_certified_beyond_it(overlap, outside, rng):
    points, promised = invented(rng)
    found, _ = made(points, promised, Mode(overlap, "lp", outside))
    # what is proved in the end is not what was promised, and may be more
    proved = np.where(rng.random((60, 3)) < 0.1, 0.0, promised.radius * rng.uniform(0.5, 1.5, (60, 3)))
    R, r = found.radii(promised.classes, proved)
    own = level_of(found, points)
    np.testing.assert_array_equal(found.level, own)
    np.testing.assert_array_equal(R, proved[np.arange(60), own])
    assert (r <= R).all()
    met, short = 0, 0
    for j in np.flatnonzero(r > 0):
        angle = rng.uniform(0, 2 * np.pi, 60)
        length = r[j] * (1 - rng.random(60) ** 4 * 0.99) * (1 - 1e-12)
        moved = points[j] + length[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        inside = np.linalg.norm(moved - points[j], axis=1) < r[j]
        there = level_of(found, moved[inside])
        agrees = promised.classes[j, there] == promised.classes[j, own[j]]
        certified = np.where(agrees, proved[j, there], 0.0)
        assert (certified > np.linalg.norm(moved[inside] - points[j], axis=1)).all()
        met += len(np.unique(there)) > 1
        short += r[j] < R[j]
    assert met > 3  # radii pass the rims of regions
    assert short > 3  # and some end at one


def test_by_what_was_promised_nothing_is_lost_against_the_level_outside(rng):
    for outside in ("auto", *SIGMAS):
        points, promised = invented(rng)
        found, k = made(points, promised, Mode("sigma", "lp", outside))
        _, r = found.radii(promised.classes, promised.radius)
        alone = promised.radius[:, k].sum()
        assert r.sum() >= alone * (1 - 1e-12)
        if outside == "auto":
            assert k == promised.radius.sum(axis=0).argmax()
            assert r.sum() > alone  # here regions pay


def test_a_level_that_there_is_not_is_refused(run):
    inputs, record = run
    with pytest.raises(ValueError, match=r"--outside sigma=0\.3: certificates are made at the levels 0\.1 0\.25"):
        evaluate(record, inputs.points, Mode("paper", "lp", 0.3), 0.01)


@pytest.mark.parametrize(("samples", "room"), [(100, 0.0401), (10_000, 0.0070570)])
def test_a_level_that_promises_nothing_more_makes_no_region(samples, room):
    # Both images promise as much at the level outside: one exactly, the other less by far less than chance
    points = np.array([[0.0, 0.0], [9.0, 0.0]])
    radius = np.array([[0.4, 0.4, 0.1], [0.400, 0.401, 0.1]])
    promised = Promised(np.array([0, 1]), np.zeros((2, 3), int), radius, np.full((2, 3), samples))
    found, _ = made(points, promised, Mode("paper", "lp", 0.25))
    # the second is free to have its region: nobody loses by it, and it promises 0.001 more
    # and room for a tenth, or for a standard error: 0.5 sqrt(p (1 - p) / n) / density(0.802), p = Phi(0.802) = 0.78872
    np.testing.assert_allclose(found.table.radii, [0.0, 0.401 + room], rtol=1e-4)
    np.testing.assert_array_equal(found.level, [0, 1])
    np.testing.assert_allclose(np.minimum(*found.radii(promised.classes, radius)), [0.4, 0.401])


def test_a_promise_within_chance_gives_way_where_others_lose_by_it():
    # A hundred images at distance 0.5 from one that promises 0.41 instead of 0.4: its region would cost each of them
    # much more than it gains, because its level is certified for none of them.
    angle = np.linspace(0, 2 * np.pi, 101)[:-1]
    points = np.concatenate([[[0.0, 0.0]], 0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)])
    radius = np.tile([0.4, 0.0, 0.0], (101, 1))
    radius[0, 1] = 0.41
    promised = Promised(radius.argmax(axis=1), np.zeros((101, 3), int), radius, np.full((101, 3), 100))
    found, _ = made(points, promised, Mode("paper", "lp", 0.25))
    assert not found.table.radii.any()
    np.testing.assert_array_equal(found.radii(promised.classes, radius)[1], 0.4)


def test_the_standard_error_is_that_of_simulated_votes(rng):
    # radius = sigma quantile(share of votes): its spread over many draws, at shares where the delta method holds
    from scipy.stats import norm

    for p, samples in ((0.7, 1000), (0.9, 4000), (0.98, 20000)):
        drawn = 0.5 * norm.ppf(rng.binomial(samples, p, 20_000) / samples)
        ours = module._standard_error(np.array([0.5 * norm.ppf(p)]), np.array([0.5]), np.array([samples]))
        assert ours[0] == pytest.approx(drawn.std(), rel=0.05)
    assert np.isfinite(module._standard_error(np.array([0.0, 1e6]), np.ones(2), np.ones(2, int))).all()


class Steps(nn.Module):
    """Linear: class 1 where the first pixel exceeds 1/2. Its smoothed radius at every level is |pixel - 1/2|."""

    def forward(self, images):
        score = 10 * (images[:, 0, 0, 0] - 0.5)
        return torch.stack([-score, score], dim=1)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the ball of `test_certify_pipeline`, whose best sigma differs from image to image, over few levels."""
    inputs = make_inputs(outside="auto", overlap="joint", rule="expected-radius", n0=400)
    folder = tmp_path_factory.mktemp("outside")
    draw_run(folder, inputs, SmoothedClassifier(inputs.base, 2, batch_size=33))
    return inputs, read_record(files_of(folder, inputs))


@pytest.mark.parametrize(("overlap", "outside"), [("sigma", 0.1), ("sigma", 0.25), ("paper", 0.25)])
def test_a_run_certifies_with_its_level_outside(run, overlap, outside):
    inputs, record = run
    found = evaluate(record, inputs.points, Mode(overlap, "lp", outside), 0.01)
    sigma = found.main.outside
    answers, table = found.answers, found.table
    # the rule's parts, by hand: levels by exact lookup, radii of one class, distances in float64
    own = np.searchsorted(record.sigmas, np.where(table.locate(found.points).held, table.sigma, sigma))
    np.testing.assert_array_equal(answers.level, own)
    at = np.arange(len(own))
    agree = np.where(record.classes == record.classes[at, own][:, None], found.proofs.chosen, 0.0)
    np.testing.assert_array_equal(answers.R, agree[at, own])
    gap = np.linalg.norm(found.points[:, None] - found.points[None], axis=-1) - table.radii
    for j in at:
        limit = np.inf
        for k in range(len(record.sigmas)):
            some = (table.sigma == record.sigmas[k]) & (table.radii > 0)
            clear = max(0.0, gap[j, some].min(initial=np.inf))
            if record.sigmas[k] == sigma:
                clear = min(clear, max(0.0, (-gap[j, table.radii > 0]).max(initial=0.0)))
            if k != own[j]:
                limit = min(limit, max(clear, agree[j, k]))
        wanted = max(0.0, min(limit, agree[j, own[j]]))
        assert answers.radius[j] == pytest.approx(wanted, abs=2e-6)
        assert answers.radius[j] <= wanted + 1e-12
        assert answers.predict[j] == (record.classes[j, own[j]] if answers.r[j] > 0 else -1)
    assert (answers.r > table.radii + 1e-6).any()  # some pass the rim of their own region, or have none
    assert (answers.r < answers.R).any()  # and some end before their certificate
    assert regions.verify(found.points, table.radii, groups=table.sigma)


def test_the_level_that_promises_most_is_taken(run):
    inputs, record = run
    found = evaluate(record, inputs.points, inputs.settings.mode, 0.01)
    assert found.main.outside == record.sigmas[record.expected_radius.mean(axis=0).argmax()] == 0.5
    assert found.main.name == "joint-lp+0.5"
    assert title(found.main.name) == short_title(found.main.name) == "sigma = 0.5 outside regions"
    # the images lie so close together that keeping all apart costs three quarters of what the level certifies alone
    paper = evaluate(record, inputs.points, Mode("paper", "lp", "auto"), 0.01)
    alone = paper.rules["sigma=0.5"].radius
    assert paper.answers.radius.mean() >= alone.mean() > 4 * paper.rules["paper-lp"].radius.mean()


def test_radii_are_those_of_the_linear_classifier(tmp_path):
    # every level has the same true radius, so no rule may certify more; and agreeing levels reach nearly all of it
    inputs = make_inputs(base=Steps(), outside="sigma=0.25", overlap="paper", rule="expected-radius", n0=1000, n=2000)
    draw_run(tmp_path, inputs, SmoothedClassifier(inputs.base, 2, batch_size=33))
    found = evaluate(read_record(files_of(tmp_path, inputs)), inputs.points, inputs.settings.mode, 1e-4)
    true = np.abs(inputs.points[:, 0] - 0.5)
    assert (found.answers.radius <= true).all()
    alone = found.rules["sigma=0.25"].radius
    assert found.answers.radius.mean() >= 0.99 * alone.mean()
