"""Levels and regions from certificates at constant levels, on instances small enough to know the answer."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

import regions
from srs.evaluation.describe import describe, describe_rules
from srs.logs.compare import MODES, choose, compare, proofs_from_logs
from srs.logs.read import Logs
from srs.logs.recover_votes import Votes, lower
from srs.modes import Mode

SIGMAS = np.array([0.25, 0.5, 1.0])


def logs_of(predict, printed, labels):
    predict, n = np.array(predict), len(predict)
    return Logs(
        tuple(Path(f"m_{sigma}.tsv") for sigma in SIGMAS),
        SIGMAS,
        np.arange(n),
        np.array(labels),
        predict,
        np.array(printed, dtype=float),
        np.zeros(n),
        np.zeros((n, 3), dtype=int),
    )


PAPER = Mode("paper", "lp")


def answers_of(logs, points, rule="max-radius", main=PAPER, votes=None, alpha=None):
    proofs = proofs_from_logs(logs, lower(logs, "none"), votes, alpha)
    return compare(logs, np.asarray(points, dtype=float), proofs, rule, main, {})


def test_rules():
    predict = np.array([[1, 2, 2], [-1, 4, 5], [-1, -1, -1], [3, 3, 3]])
    R = np.array([[0.5, 0.75, 1.0], [0.0, 0.5, 0.75], [0.0, 0.0, 0.0], [0.5, 0.5, 0.25]])
    assert choose(predict, R, "max-radius").tolist() == [2, 2, 0, 0]
    assert choose(predict, R, "anchor").tolist() == [0, 1, 0, 0]  # 1 and 4 come first, then nothing, then a tie


# Three images on a line: the first two are 1 apart and want other levels; the third is far away, and misclassified.
LINE = [[0.0, 0.0], [1.0, 0.0], [9.0, 0.0]]
PREDICT = [[7, 7, 7], [7, -1, 7], [1, 1, 1]]
PRINTED = [[0.25, 0.75, 0.5], [0.5, 0.0, 1.0], [0.125, 0.25, 0.0]]
LABELS = [7, 7, 2]


def test_every_rule_on_a_line():
    logs = logs_of(PREDICT, PRINTED, LABELS)
    found = answers_of(logs, LINE)
    assert list(found)[:4] == ["sigma=0.25", "sigma=0.5", "sigma=1", "overlapping"]
    assert list(found)[4:] == [mode.name for mode in MODES]
    assert found["sigma=0.5"].predict.tolist() == [7, -1, 1]
    # printed radii as decimals go down to the next float at most
    assert found["sigma=0.5"].radius == pytest.approx([0.75, 0, 0.25], abs=2e-6)
    assert found["overlapping"].level.tolist() == [1, 2, 1]
    assert found["overlapping"].radius == pytest.approx([0.75, 1.0, 0.25], abs=2e-6)
    assert found["paper-lp"].radius.sum() == pytest.approx(1.25, abs=3e-6)  # the two share a distance of 1
    assert found["sigma-lp"].radius.sum() == pytest.approx(1.25, abs=3e-6)  # their levels differ
    assert found["joint-lp"].radius.sum() == pytest.approx(0.5 + 1.0 + 0.25, abs=3e-6)  # both at 1
    assert found["class-lp"].radius.sum() == pytest.approx(2.0, abs=3e-6)  # both are 7
    sound = {name: answer.sound for name, answer in found.items()}
    assert [name for name, good in sound.items() if not good] == ["overlapping", "class-lp"]
    described = describe(found, "paper-lp")
    assert described["rules"]["paper-lp"]["average_certified_radius"] == pytest.approx(1 / 3, abs=2e-6)
    assert described["rules"]["sigma=0.25"]["clean_accuracy_smoothed"] == pytest.approx(2 / 3)
    assert described["allocations"]["paper-lp"]["upper_bound"] == pytest.approx(1.25)


def test_a_joint_choice_keeps_to_the_levels_that_the_rule_admits():
    """The first image's smallest certified level says 7, larger radii say 3: the anchor forbids them to all modes."""
    logs = logs_of([[7, 3, 3], [7, 7, 7]], [[0.25, 0.75, 1.5], [0.25, 0.5, 0.0]], [7, 7])
    points = [[0.0], [100.0]]
    free, anchored = (answers_of(logs, points, rule) for rule in ("max-radius", "anchor"))
    for mode in MODES:
        assert free[mode.name].predict.tolist() == [3, 7]
        assert anchored[mode.name].predict.tolist() == [7, 7]
        assert anchored[mode.name].level.tolist() == [0, 1]
    assert anchored["joint-lp"].radius == pytest.approx([0.25, 0.5], abs=2e-6)


def test_no_rule_makes_a_joint_choice_worse_than_one_by_one(rng):
    n = 60
    predict, printed = rng.integers(0, 3, size=(n, 3)), np.round(rng.random((n, 3)), 3)
    for rule in ("max-radius", "anchor"):
        found = answers_of(logs_of(predict, printed, predict[:, 0]), rng.random((n, 2)) * 4, rule)
        assert found["joint-lp"].r.sum() >= found["sigma-lp"].r.sum() - 1e-9
        first = predict[:, 0]  # every radius is positive or the level is admitted nowhere
        if rule == "anchor" and (printed[:, 0] > 0).all():
            assert (found["joint-lp"].returned == first).all()


def test_another_main_method_is_added():
    logs = logs_of(PREDICT, PRINTED, LABELS)
    found = answers_of(logs, LINE, main=Mode("sigma", "arrival"))
    assert found["sigma-arrival"].r == pytest.approx([0.75, 0.25, 0.25], abs=1e-9)


def test_an_image_whose_region_is_empty_is_answered_by_the_region_that_holds_it():
    # The second image lies in the first's ball: greedy in descending order leaves it nothing, and there sigma is 0.5
    logs = logs_of([[7, 7, -1], [7, 3, 7]], [[0.0, 0.875, 0.0], [0.25, 0.125, 0.5]], [7, 7])
    found = answers_of(logs, [[0.0], [0.75]], main=Mode("paper", "arrival"))["paper-arrival"]
    assert found.r[1] == 0
    assert found.predict.tolist() == [7, -1]
    assert found.returned.tolist() == [7, 3]
    assert describe_rules({"x": found})["rules"]["x"]["clean_accuracy_smoothed"] == 0.5


def test_labels_choose_nothing(rng):
    n = 60
    predict, printed = rng.integers(0, 4, size=(n, 3)), np.round(rng.random((n, 3)), 3)
    points = rng.random((n, 2))
    one = answers_of(logs_of(predict, printed, predict[:, 0]), points)
    other = answers_of(logs_of(predict, printed, rng.integers(0, 4, size=n)), points)
    for name, answer in one.items():
        assert (answer.level == other[name].level).all()
        assert (answer.radius == other[name].radius).all()
        assert (answer.returned == other[name].returned).all()


@pytest.mark.parametrize("rule", ["max-radius", "anchor"])
def test_allocations_are_those_of_the_levels_and_feasible(rng, rule):
    n = 80
    predict = rng.integers(-1, 3, size=(n, 3))
    counts = np.where(predict < 0, 0, rng.integers(600, 1001, size=(n, 3)))
    points = rng.random((n, 2)) * 3
    votes = Votes(counts, 1000)
    printed = np.where(predict < 0, 0.0, votes.radii(SIGMAS, 0.001))
    logs = logs_of(predict, printed, predict[:, 0].clip(0))
    proofs = proofs_from_logs(logs, printed, votes, 0.001)
    assert (proofs.chosen <= proofs.constant).all()
    assert (proofs.simultaneous <= proofs.chosen).all()
    assert (proofs.simultaneous < proofs.chosen)[counts > 700].all()
    assert proofs.certified
    found = compare(logs, points, proofs, rule, Mode("sigma", "descending"), {})
    groups = {"paper": lambda a: None, "sigma": lambda a: a.level, "joint": lambda a: a.level}
    groups["class"] = lambda a: [a.level, predict[np.arange(n), a.level]]
    for name, answer in found.items():
        if answer.allocation is None:
            continue
        table = proofs.simultaneous if name.startswith("class") else proofs.chosen
        R = table[np.arange(n), answer.level]
        assert (answer.R == R).all()
        labels = groups[name.split("-")[0]](answer)
        assert regions.verify(points, answer.r, R, groups=labels)
        if name.endswith("-lp") and not name.startswith("joint"):
            assert answer.r.sum() == pytest.approx(regions.allocate(points, R, groups=labels).objective)
        assert (answer.radius <= np.minimum(answer.R, answer.r)).all()
    assert found["class-lp"].sound


def test_every_certificate_that_might_be_picked_gets_its_share_of_alpha():
    """A unanimous vote of n has the lower bound a^(1/n) at failure probability a (Clopper and Pearson)."""
    n, alpha, images, levels = 1000, 0.01, 3, 3
    logs = logs_of(PREDICT, PRINTED, LABELS)
    proofs = proofs_from_logs(logs, logs.printed, Votes(np.full((images, levels), n), n), alpha)
    for found, share in ((proofs.constant, 1), (proofs.chosen, levels), (proofs.simultaneous, images * levels)):
        radius = SIGMAS * norm.ppf((alpha / share) ** (1 / n))
        np.testing.assert_allclose(found, np.tile(radius, (images, 1)), rtol=1e-6)
        assert (found <= radius).all()


def test_the_union_bound_is_stated_as_it_is():
    logs = logs_of(PREDICT, PRINTED, LABELS)
    text = proofs_from_logs(logs, logs.printed, None, None).guarantee
    assert "at least 1 - 3 alpha, per image" in text
    votes = Votes(np.full((3, 3), 900), 1000)
    text = proofs_from_logs(logs, logs.printed, votes, 0.01).guarantee
    assert "at least 1 - 0.01, per image" in text
    assert "alpha / 3" in text
    assert "alpha / 9" in text
