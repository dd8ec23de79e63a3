"""How often a certificate claims too much: where the truth is known in closed form, and exactly, by enumeration."""

import numpy as np
import pytest
import torch
from scipy import stats

from smoothing import Ladder, SmoothedClassifier, lower_confidence_bound, upper_confidence_bound
from smoothing.adaptive import climb
from smoothing.bounds import counted_bounds

from .oracles import Ball, Halfspace

TRIALS, ALPHA = 4000, 0.05
#: More than `limit` of 4,000 certificates exceed the truth with probability below 1e-6, where each may with
#: probability 0.05: the false-alarm rate of each test here. Seeds are fixed.
LIMIT = stats.binom.isf(1e-6, TRIALS, ALPHA)
LADDER = Ladder((40, 80, 200), min_gain=0.1)


def certify(model, image, sigma, n):
    """The same image under 4,000 names, and so with independent noise."""
    images = image.expand(TRIALS, *image.shape)
    return SmoothedClassifier(model, 2, seed=7).certify_classes(images, sigma, np.ones(TRIALS, int), n=n, alpha=ALPHA)


@pytest.mark.parametrize("n", [200, LADDER], ids=["fixed", "ladder"])
@pytest.mark.parametrize("margin", [0.02, 0.3])
def test_halfspace(n, margin):
    w = torch.tensor([[[3.0, -4.0]]])
    image = torch.tensor([[[0.5, 0.5]]])
    model = Halfspace(w, 0.5 + 5 * margin)  # |w.x + b| / |w| = margin
    found = certify(model, image, 0.25, n)
    too_large = int((found.radius > margin * (1 + 1e-6)).sum())
    assert too_large <= LIMIT
    if not isinstance(n, Ladder):
        assert too_large >= stats.binom.ppf(1e-6, TRIALS, ALPHA / 4)  # a bound never exceeded would not be tight


@pytest.mark.parametrize("n", [200, LADDER], ids=["fixed", "ladder"])
@pytest.mark.parametrize(("distance", "sigma"), [(0.0, 0.2), (0.3, 0.2), (0.3, 0.25)])
def test_ball(n, distance, sigma):
    d, model = 8, Ball(0.9)
    image = torch.full((1, 2, 4), 0.5)
    image[0, 0, 0] += distance
    p, radius = model.probability(distance, sigma, d), model.radius(distance, sigma, d)
    assert p > 0.5
    claim = sigma * stats.norm.ppf(p)
    assert claim <= radius + 1e-9  # the theorem, for this classifier
    found = certify(model, image, sigma, n)
    assert int((found.p_lower > p).sum()) <= LIMIT
    assert int((found.radius > claim).sum()) <= LIMIT
    assert np.median(found.radius) > 0.5 * claim
    # so the radius itself is exceeded less often still
    assert int((found.radius > radius).sum()) <= LIMIT


@pytest.mark.parametrize("n", [1, 7, 50, 300])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
def test_exact_coverage_of_the_bounds(n, alpha):
    counts = np.arange(n + 1)
    lower, upper = lower_confidence_bound(counts, n, alpha), upper_confidence_bound(counts, n, alpha)
    assert np.all(lower < upper)
    for p in (0.01, 0.3, 0.5, 0.77, 0.999):
        mass = stats.binom.pmf(counts, n, p)
        assert mass[lower > p].sum() <= alpha
        assert mass[upper < p].sum() <= alpha


@pytest.mark.parametrize("p", [0.45, 0.55, 0.8, 0.97, 0.999])
def test_exact_coverage_of_a_ladder(p):
    # All pairs of counts on two rungs, with their probabilities: no sampling.
    ladder, alpha = Ladder((30, 90), min_gain=0.2), 0.05
    first, second = (a.ravel() for a in np.meshgrid(np.arange(31), np.arange(61), indexing="ij"))
    mass = stats.binom.pmf(first, 30, p) * stats.binom.pmf(second, 60, p)

    def count(wanted, start, stop):
        own = first if start == 0 else second
        return votes_of(own, stop - start) * wanted[..., None]

    tally, counts = climbed(ladder, alpha, len(first), count)
    p_lower = lower_bounds(counts, alpha)
    assert mass.sum() == pytest.approx(1)
    assert mass[p_lower > p].sum() <= alpha
    stopped = tally.reached[:, 0] == 1
    np.testing.assert_array_equal(counts.drawn[:, 0], np.where(stopped, 30, 90))
    np.testing.assert_array_equal(counts.last[:, 0], np.where(stopped, first, first + second))


def votes_of(own, n):
    """Votes of two classes, at one level, where the first has so many out of n."""
    return np.stack([own, n - own], axis=-1)[:, None]


def climbed(ladder, alpha, images, count):
    """The votes of a ladder for class 0 of images at one level, and what bounds are computed from."""
    classes = np.zeros((images, 1), dtype=np.int64)
    one_sided = np.zeros((images, 1))
    tally = climb(ladder, alpha, classes, one_sided, np.ones((images, 1), dtype=bool), count)
    return tally, tally.counted(classes)


def lower_bounds(counts, alpha):
    """One-sided bounds of votes at one level, shape (n,)."""
    return counted_bounds(counts, alpha, np.zeros(counts.drawn.shape))[0][:, 0]


def test_a_ladder_stops_for_the_reasons_it_states():
    votes = np.array([20, 100, 95, 52])  # of the first 100: hopeless, unanimous, clear, open
    drawn = []

    def count(wanted, start, stop):
        drawn.append((np.flatnonzero(wanted).tolist(), start, stop))
        return votes_of(np.rint(votes / 100 * (stop - start)).astype(np.int64), stop - start) * wanted[..., None]

    ladder = Ladder((100, 1000, 100_000), min_gain=0.35)
    _, counts = climbed(ladder, 0.001, 4, count)
    assert drawn[0] == ([0, 1, 2, 3], 0, 100)
    assert drawn[1] == ([1, 2, 3], 100, 1000)  # 0 cannot win a majority any more
    assert drawn[2] == ([1, 3], 1000, 100_000)  # 2 can gain 28% at most; a unanimous vote gains 57%
    assert counts.drawn[:, 0].tolist() == [100, 100_000, 1000, 100_000]
    assert lower_bounds(counts, 0.001)[0] <= 0.5
    np.testing.assert_array_equal(counts.last[:, 0], [20, 100_000, 950, 52_000])


def test_a_ladder_of_one_rung_is_plain_certification():
    images = torch.rand((5, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedClassifier(Halfspace(torch.linspace(-1, 1, 9).reshape(1, 3, 3), 0.1), 2)
    plain, ladder = (smoothed.certify(images, 0.5, n0=50, n=n, alpha=0.01) for n in (700, Ladder((700,))))
    for name in ("predict", "radius", "counts", "n", "p_lower"):
        np.testing.assert_array_equal(getattr(plain, name), getattr(ladder, name))


def test_a_ladder_draws_the_samples_of_plain_certification():
    images = torch.rand((5, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    smoothed = SmoothedClassifier(Halfspace(torch.linspace(-1, 1, 9).reshape(1, 3, 3), 0.1), 2)
    found = smoothed.certify(images, 0.5, n0=50, n=Ladder((100, 1000), min_gain=0), alpha=0.01)
    plain = smoothed.certify(images, 0.5, n0=50, n=1000, alpha=0.01)
    whole = found.n == 1000
    assert whole.any()
    np.testing.assert_array_equal(found.counts[whole], plain.counts[whole])


@pytest.mark.parametrize(
    ("rungs", "gain", "message"),
    [
        ((), 0.1, "at least one"),
        ((100, 100), 0.1, r"rungs = \(100, 100\): sample sizes must increase"),
        ((0, 10), 0.1, "rungs = 0: must be at least 1"),
        ((10,), -0.1, "min_gain = -0.1"),
        ((10,), float("nan"), "min_gain = nan"),
    ],
)
def test_a_senseless_ladder_is_refused(rungs, gain, message):
    with pytest.raises(ValueError, match=message):
        Ladder(rungs, gain)


def test_rungs_share_alpha():
    # 90 of 90 at the second of two rungs: the bound is that of alpha / 2
    def count(wanted, start, stop):
        return votes_of(np.array([stop - start]), stop - start)

    _, counts = climbed(Ladder((30, 90), min_gain=0), 0.05, 1, count)
    assert lower_bounds(counts, 0.05)[0] == pytest.approx(0.025 ** (1 / 90), rel=1e-9)
