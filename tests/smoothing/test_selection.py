import dataclasses

import numpy as np
import pytest
import torch
from scipy import stats

from smoothing import SmoothedClassifier, certified_radius
from smoothing.bounds import runner_up_bounds
from smoothing.selection import RACE_RUNGS, RULES, Plan, select, select_again
from smoothing.votes import read_votes

from .oracles import Coin, Halfspace, Stump

SHAPE = (1, 3, 3)
SIGMAS = np.array([0.25, 0.5, 1.0])


@pytest.fixture
def images():
    return torch.rand((6, *SHAPE), generator=torch.Generator().manual_seed(0))


def table_of(votes):
    """A `count` that replays fixed shares of votes, (images, levels, classes), and remembers what was asked."""
    asked = []

    def count(wanted, start, stop):
        asked.append((wanted.copy(), start, stop))
        return np.rint(np.asarray(votes) * (stop - start)).astype(np.int64) * wanted[..., None]

    return count, asked


def chosen(count, images, n0, final, rule, alpha, *, racing):
    """What `select` decides for so many images on the grid."""
    return select(count, np.tile(SIGMAS, (images, 1)), Plan(n0, rule, alpha, final, racing))[0]


def rank(count, n, sigma, alpha=0.001):
    """The radius by its definition, from SciPy's distributions."""
    p = stats.beta.ppf(alpha, count, n - count + 1) if count else 0
    return sigma * max(stats.norm.ppf(p), 0) if p > 0 else 0


def test_max_radius_is_a_brute_force_table(images):
    smoothed = SmoothedClassifier(Halfspace(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1), 2)
    choice = smoothed.select_sigma(images, SIGMAS, n0=200)
    for k, sigma in enumerate(SIGMAS):
        alone = smoothed.select_sigma(images, [sigma], n0=200)
        np.testing.assert_array_equal(alone.classes[:, 0], choice.classes[:, k])
        np.testing.assert_array_equal(alone.expected_radius[:, 0], choice.expected_radius[:, k])
    np.testing.assert_array_equal(choice.level, choice.expected_radius.argmax(axis=1))
    np.testing.assert_array_equal(choice.sigma, SIGMAS[choice.level])
    np.testing.assert_array_equal(choice.predict, choice.classes[np.arange(6), choice.level])
    assert np.all(choice.samples == 200)


def test_max_radius_cannot_tell_confident_levels_apart_and_expected_radius_can():
    # unanimous at 0.5, nearly so at 1.0: 100 samples certify more at 1.0, as 100,000 would not
    count, _ = table_of([[[1.0, 0.0], [1.0, 0.0], [0.98, 0.02]]])
    by_n0 = chosen(count, 1, 100, 100, "max-radius", 0.001, racing=False)
    assert by_n0.level.tolist() == [2]
    np.testing.assert_allclose(
        by_n0.expected_radius[0], [rank(100, 100, 0.25), rank(100, 100, 0.5), rank(98, 100, 1.0)]
    )
    by_n = chosen(count, 1, 100, 100_000, "expected-radius", 0.001, racing=False)
    np.testing.assert_allclose(
        by_n.expected_radius[0], [rank(10**5, 10**5, s) for s in (0.25, 0.5)] + [rank(98_000, 10**5, 1.0)]
    )


def test_the_anchor_is_the_class_of_the_smallest_level_that_does_not_abstain():
    votes = [
        [[0.52, 0.48, 0.0], [0.1, 0.9, 0.0], [0.95, 0.05, 0.0]],  # 0.25 abstains, so class 1 is the anchor
        [[0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.0, 0.0, 1.0]],  # class 0 is, and 0.25 * z(.9) < 0.5 * z(.8)
        [[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.4, 0.3, 0.3]],  # all abstain
    ]
    found = chosen(table_of(votes)[0], 3, 1000, 10_000, "anchor", 0.001, racing=False)
    assert found.level.tolist() == [1, 1, 0]
    assert found.classes[np.arange(3), found.level].tolist() == [1, 0, 0]
    free = chosen(table_of(votes)[0], 3, 1000, 10_000, "expected-radius", 0.001, racing=False)
    assert free.level.tolist()[:2] == [2, 2]


def test_the_smallest_of_equals_wins():
    choice = SmoothedClassifier(Coin(), 2).select_sigma(torch.zeros((2, *SHAPE)), [0.5, 1.0], n0=100, alpha=1e-6)
    assert choice.sigma.tolist() == [0.5, 0.5]
    assert np.all(choice.expected_radius == 0)


def test_racing_draws_less_for_levels_that_cannot_win_and_nothing_once_decided():
    votes = [
        [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]],  # unanimous: only the largest can win, after the first look
        [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]],  # 0.25 * z(.9) = .32 > .5 * z(.6) = .13
        [[0.75, 0.25], [0.64, 0.36], [0.5, 0.5]],  # .17 against .18: to the end
    ]
    count, asked = table_of(votes)
    found = chosen(count, 3, 1000, 10_000, "expected-radius", 0.001, racing=True)
    full = chosen(table_of(votes)[0], 3, 1000, 10_000, "expected-radius", 0.001, racing=False)
    assert found.level.tolist() == [*full.level.tolist()[:2], found.level[2]] == [2, 0, 1]
    assert [(start, stop) for _, start, stop in asked] == [(0, 128), (128, 256), (256, 512), (512, 1000)]
    assert found.samples[0].tolist() == [128, 128, 128]
    assert found.samples[2, 0] == found.samples[2, 1] == 1000
    assert found.samples.sum() < 0.6 * full.samples.sum()
    for wanted, _, stop in asked:
        np.testing.assert_array_equal(found.samples[wanted] >= stop, True)


def test_a_joint_choice_may_take_what_dropped_out_of_the_race_but_never_before_the_best():
    votes = [[0.9, 0.1], [0.6, 0.4], [0.5, 0.5]]  # of each 128: 115, 77, 64
    plan = Plan(1000, "expected-radius", 0.001, 10_000, racing=True, bound="top-class")
    raced, _ = select(table_of([votes])[0], SIGMAS[None], plan)
    joint, _ = select(table_of([votes])[0], SIGMAS[None], dataclasses.replace(plan, joint=True))
    assert raced.samples.tolist() == joint.samples.tolist() == [[128, 128, 128]]
    assert raced.expected_radius[0, 1:].tolist() == [0, 0]
    by_128 = [
        rank(round(count / 128 * 10_000), 10_000, sigma) for count, sigma in zip((115, 77, 64), SIGMAS, strict=True)
    ]
    assert joint.expected_radius[0] == pytest.approx(by_128, rel=1e-6)
    np.testing.assert_array_equal(joint.one_sided, joint.expected_radius)
    assert by_128[0] > by_128[1] > by_128[2] == 0


def test_a_level_that_dropped_out_never_ranks_before_what_is_left():
    def count(wanted, start, stop):
        # After 128, 0.25 drops out: 0.25 * 3.2 < z(.83) = .95. After 256, 0.5 does: 0.5 * z(.785) < z(.715) = .57.
        shares = np.array([1.0, 0.97, 0.83] if start == 0 else [1.0, 0.6, 0.6])
        own = np.rint(shares * (stop - start)).astype(np.int64)
        return np.stack([own, stop - start - own], axis=1)[None] * wanted[..., None]

    plan = Plan(1000, "expected-radius", 0.001, 10_000, racing=True, bound="top-class", joint=True)
    found, _ = select(count, SIGMAS[None], plan)
    assert found.samples.tolist() == [[128, 256, 256]]
    assert rank(10_000, 10_000, 0.25) > found.expected_radius[0, 2] > found.expected_radius[0, 1]
    assert found.level.tolist() == [2]
    assert found.expected_radius[0, 0] == pytest.approx(found.expected_radius[0, 2], rel=1e-5)


def test_racing_loses_little_where_the_truth_is_known():
    # Close to a threshold a small level is right, far from it a large one: p by level is known in closed form.
    model = Stump(0.2, 0.5, 0.55)
    grid = np.linspace(0.05, 0.6, 12)
    images = torch.linspace(0.0, 1.0, 60).reshape(-1, 1, 1, 1)
    smoothed = SmoothedClassifier(model, 4)
    p = _stump_probabilities(images[:, 0, 0, 0].double().numpy(), grid, [0.2, 0.5, 0.55])

    def value(choice):
        rest = p[np.arange(60), choice.level].copy()
        own = rest[np.arange(60), choice.predict]
        rest[np.arange(60), choice.predict] = 0
        votes = (np.floor(share * 10_000).astype(int) for share in (own, rest.max(axis=1)))
        return certified_radius(choice.sigma, *runner_up_bounds(*votes, 10_000, 0.001, choice.share))

    full = smoothed.select_sigma(images, grid, n0=1000, rule="expected-radius", n=10_000)
    raced = smoothed.select_sigma(images, grid, n0=1000, rule="expected-radius", n=10_000, racing=True)
    assert raced.samples.sum() < full.samples.sum() / 2
    assert value(raced).mean() > 0.97 * value(full).mean() > 0
    assert set(np.unique(raced.samples)) <= {*RACE_RUNGS, 1000}


def _stump_probabilities(x, sigmas, thresholds):
    """P(class) of every image and level: differences of normal distribution functions."""
    edges = np.array([-np.inf, *thresholds, np.inf])
    cdf = stats.norm.cdf((edges[None, None, :] - x[:, None, None]) / sigmas[None, :, None])
    return np.diff(cdf, axis=2)


def test_training_sigma_is_that_of_equation_5():
    x = np.array([0.1, 0.3, 0.9, 0.9])
    labels = np.array([0, 1, 3, 0])  # the last label is wrong at every level
    smoothed = SmoothedClassifier(Stump(0.2, 0.5, 0.55), 4)
    grid = np.array([0.05, 0.2, 0.5])
    found = smoothed.select_training_sigma(x.astype(np.float32).reshape(-1, 1, 1, 1), labels, grid, n0=500, alpha=0.01)
    p = _stump_probabilities(x, grid, [0.2, 0.5, 0.55])[np.arange(4), :, labels]
    expected = np.array([[rank(round(q * 500), 500, s, 0.01) for q, s in zip(row, grid, strict=True)] for row in p])
    np.testing.assert_allclose(found.expected_radius, expected, atol=0.06)
    np.testing.assert_array_equal(found.level[:3], expected[:3].argmax(axis=1))
    assert np.all(found.expected_radius[3] == 0)
    np.testing.assert_array_equal(found.classes, np.repeat(labels[:, None], 3, axis=1))


@pytest.mark.parametrize("sigmas", [[], [0.5, 0.25], [0.5, 0.5], [-0.5, 0.5], [[0.1], [0.2]]])
def test_a_bad_grid_is_refused(images, sigmas):
    with pytest.raises(ValueError, match="sigmas"):
        SmoothedClassifier(Coin(), 2).select_sigma(images, sigmas, n0=10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rule": "best"}, "rule = 'best': choose 'max-radius' or 'expected-radius' or 'anchor'"),
        ({"rule": "anchor"}, "rule 'anchor' ranks by the radius that the final samples would certify: pass .* n"),
        ({"n": 1000}, "n = 1000: rule 'max-radius' ranks by the n0 selection samples"),
        ({"rule": "anchor", "n": 0}, "n = 0: must be at least 1"),
        ({"n0": 0}, "n0 = 0: must be at least 1"),
        ({"alpha": 1.5}, "alpha = 1.5"),
    ],
)
def test_bad_options_are_named(images, options, message):
    with pytest.raises(ValueError, match=message):
        SmoothedClassifier(Coin(), 2).select_sigma(images, **({"sigmas": [0.5], "n0": 10} | options))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("racing", [False, True])
def test_stored_votes_give_the_same_decision(images, rule, racing):
    smoothed = SmoothedClassifier(Halfspace(torch.linspace(-1, 1, 9).reshape(SHAPE), 0.1), 2, threads=1)
    sigma, idx = np.tile(SIGMAS, (6, 1)), np.arange(6)
    plan = Plan(600, rule, 0.001, 5000, racing)
    smoothed.begin(images)
    found, tally = smoothed.select_votes(images, idx, sigma, plan=plan)
    text = [tally.text(i, k) for i in range(6) for k in range(3)]
    rungs = plan.rungs
    votes = read_votes(rungs, 2, 3, *zip(*text, strict=True), lambda row, reason: AssertionError(f"{row}: {reason}"))
    again = select_again(votes, 2, sigma, plan)
    for name in ("level", "classes", "expected_radius", "samples", "share", "one_sided"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    assert racing == bool((found.samples < 600).any())
    if racing:  # votes that the race would not have drawn are of another plan, or forged
        row = next(row for row, (n, _) in enumerate(text) if n == "128")
        more = [*text]
        first = dict(map(int, pair.split(":")) for pair in text[row][1].split(" "))
        winner = max(first, key=first.__getitem__)
        then = " ".join(f"{one}:{count + 128 * (one == winner)}" for one, count in first.items())
        more[row] = ("128,256", f"{text[row][1]},{then}")
        forged = read_votes(rungs, 2, 3, *zip(*more, strict=True), KeyError)
        assert select_again(forged, 2, sigma, plan) is None
    if racing and rule == "expected-radius":  # at another alpha it races differently, or votes are lacking
        cut = read_votes(
            rungs, 2, 3, *zip(*[(n.split(",")[0], v.split(",")[0]) for n, v in text], strict=True), KeyError
        )
        assert select_again(cut, 2, sigma, plan) is None


def test_the_former_name_of_what_a_rule_ranks_by_warns(images):
    choice = SmoothedClassifier(Coin(), 2).select_sigma(images, [0.5], n0=10)
    with pytest.warns(DeprecationWarning, match="called expected_radius now"):
        np.testing.assert_array_equal(choice.radii, choice.expected_radius)
