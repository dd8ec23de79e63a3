"""How often the radius of class and runner-up claims too much: exactly, by enumeration, and in simulation.

The class and the split are fixed, or come from selection votes of their own. Every check is also run on bounds at
three times alpha, and must find these out.
"""

import numpy as np
import pytest
import torch
from scipy import optimize, stats

from smoothing import SmoothedClassifier, certified_radius, lower_confidence_bound, upper_confidence_bound
from smoothing.bounds import SHARES, ladder_bounds, runner_up_bounds, split_alpha

from .oracles import Stump, compositions, two_sided_radius

ALPHA, TRIALS = 0.05, 4000
#: More than `LIMIT` of 4,000 certificates claim too much with probability below 1e-6, where each may with probability
#: 0.05: the false-alarm rate of each test here. Seeds are fixed.
LIMIT = stats.binom.isf(1e-6, TRIALS, ALPHA)

#: Class 0 wrong, tied, or just ahead of one strong runner-up, of many equal ones, of none.
BOUNDARY = [
    (0.2, 0.5, 0.3),
    (0.45, 0.55, 0.0),
    (0.5, 0.5, 0.0),
    (0.4, 0.4, 0.2),
    (1 / 3, 1 / 3, 1 / 3),
    (0.34, 0.33, 0.33),
    (0.4, 0.3, 0.3),
    (0.6, 0.39, 0.01),
    (0.55, 0.3, 0.15),
    (0.9, 0.05, 0.05),
    (0.9, 0.099, 0.001),
    (0.98, 0.01, 0.01),
    (1.0, 0.0, 0.0),
]


def tight(n, alpha):
    """Two classes, and a trace of a third, where the lower bound of class 0 fails with probability close to alpha."""
    bounds = lower_confidence_bound(np.unique([k for k in (n // 2, 3 * n // 4, n - 2, n) if k > 0]), n, alpha)
    return [(p, (1 - p) * (1 - trace), (1 - p) * trace) for p in bounds * (1 - 1e-9) for trace in (0.0, 1e-3)]


def top_two(votes, a):
    """Votes for class a and most votes for any other."""
    return votes[:, a], np.delete(votes, a, axis=1).max(axis=1)


def too_large(radius, p, a):
    """Where a radius at sigma = 1 exceeds the true one, which is 0 where the class is not the most likely."""
    return radius > max(0.0, two_sided_radius(np.array(p), a))


def failure(p, n, alpha, share, a=0):
    """Probability that n votes certify too much for class a, exactly."""
    votes = compositions(n, len(p))
    radius = certified_radius(1.0, *runner_up_bounds(*top_two(votes, a), n, alpha, share))
    return stats.multinomial.pmf(votes, n, p)[too_large(radius, p, a)].sum()


@pytest.mark.parametrize("n", [1, 2, 7, 30])
@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("share", [0.0, *SHARES, 0.9])
def test_exact_coverage(n, alpha, share):
    for p in BOUNDARY + tight(n, alpha * (1 - share)):
        for a in range(3):
            assert failure(p, n, alpha, share, a) <= alpha, (p, a)


@pytest.mark.parametrize("share", [0.0, *SHARES])
def test_enumeration_finds_out_three_times_alpha(share):
    assert max(failure(p, 30, 3 * ALPHA, share) for p in tight(30, 3 * ALPHA * (1 - share))) > ALPHA


def pair_failure(p, alpha, share):
    """Probability that one of both bounds of 30 votes fails, exactly: more often than the radius that they make."""
    votes = compositions(30, 3)
    p_lower, p_upper = runner_up_bounds(*top_two(votes, 0), 30, alpha, share)
    return stats.multinomial.pmf(votes, 30, p)[(p_lower > p[0]) | (p_upper < max(p[1:]))].sum()


def test_exact_coverage_of_the_pair():
    def corners(alpha):  # where both bounds fail with probability close to half of alpha
        own = lower_confidence_bound(np.arange(10, 28), 30, alpha / 2) * (1 - 1e-9)
        other = upper_confidence_bound(np.arange(1, 12), 30, alpha / 2) * (1 + 1e-9)
        return [(a, b, 1 - a - b) for a in own for b in other if a + 2 * b > 1 > a + b]

    for share in (0.0, *SHARES):
        for p in BOUNDARY + tight(30, ALPHA * (1 - share)) + corners(ALPHA):
            assert pair_failure(p, ALPHA, share) <= ALPHA, p
    assert max(pair_failure(p, 2 * ALPHA, 0.5) for p in corners(2 * ALPHA)) > ALPHA  # each bound at alpha is too much


def test_enumeration_finds_out_a_runner_up_that_selection_chose():
    # Class 1 came second in selection, but it is class 2 that matters: its bound is the one that has to hold.
    p, n = (0.45, 0.0, 0.55), 30
    votes = compositions(n, 3)
    radius = certified_radius(1.0, *runner_up_bounds(votes[:, 0], votes[:, 1], n, ALPHA, 0.5))
    assert stats.multinomial.pmf(votes, n, p)[too_large(radius, p, 0)].sum() > 0.2
    assert failure(p, n, ALPHA, 0.5) <= ALPHA


def whole_failure(p, n0, n, alpha):
    """Probability that the class and the split of n0 votes and the bounds of n others certify too much, exactly."""
    selection, total = compositions(n0, len(p)), 0.0
    mass = stats.multinomial.pmf(selection, n0, p)
    classes = selection.argmax(axis=1)
    for a in np.unique(classes[mass > 0]):
        own, others = top_two(selection, a)
        shares = split_alpha(own, np.minimum(others, n0 - own), n0, len(p), n, alpha)
        for share in np.unique(shares):
            total += mass[(classes == a) & (shares == share)].sum() * failure(p, n, alpha, share, a)
    return total


def test_exact_coverage_with_selection():
    for p in BOUNDARY + tight(30, ALPHA) + tight(30, ALPHA / 2):
        assert whole_failure(p, 8, 30, ALPHA) <= ALPHA, p
    assert max(whole_failure(p, 8, 30, 3 * ALPHA) for p in tight(30, 3 * ALPHA)) > ALPHA


def ladder_failure(p, alpha, share):
    """Probability that the best bounds of 10 and 25 votes certify too much, exactly."""
    first, more = compositions(10, 3), compositions(15, 3)
    rungs = np.stack([np.repeat(first, len(more), axis=0), (first[:, None] + more).reshape(-1, 3)])
    mass = np.outer(stats.multinomial.pmf(first, 10, p), stats.multinomial.pmf(more, 15, p)).ravel()
    counts, runner_up = rungs[..., 0], rungs[..., 1:].max(axis=2)
    bounds = ladder_bounds(counts, runner_up, np.array([[10], [25]]), alpha, share)
    return mass[too_large(certified_radius(1.0, *bounds), p, 0)].sum()


@pytest.mark.parametrize("share", [0.0, *SHARES])
def test_exact_coverage_of_a_ladder(share):
    for p in BOUNDARY + tight(10, ALPHA / 2) + tight(25, ALPHA / 2):
        assert ladder_failure(p, ALPHA, share) <= ALPHA, p
    assert max(ladder_failure((p, 1 - p, 0.0), 3 * ALPHA, share) for p in np.linspace(0.5, 0.6, 26)) > ALPHA


def of_ten(p):
    """Ten classes: the mass of the last of three is spread over eight."""
    return (*p[:2], *(8 * [p[2] / 8]))


#: Ten classes of which many are as likely as the runner-up, or all.
MANY = [tuple(10 * [0.1]), (0.19, *(9 * [0.09])), (0.28, *(9 * [0.08])), (0.55, *(9 * [0.05]))]


def simulated_failures(p, n, alpha, seed):
    """How many of 4,000 images with these probabilities get too large a radius; selection has 20 votes."""
    rng = np.random.default_rng(seed)
    selection, votes = rng.multinomial(20, p, TRIALS), rng.multinomial(n, p, TRIALS)
    classes = selection.argmax(axis=1)
    failures = 0
    for a in np.unique(classes):
        of_class = classes == a
        share = split_alpha(*top_two(selection[of_class], a), 20, len(p), n, alpha)
        bounds = runner_up_bounds(*top_two(votes[of_class], a), n, alpha, share)
        failures += int(too_large(certified_radius(1.0, *bounds), p, a).sum())
    return failures


@pytest.mark.parametrize("num_classes", [3, 10])
def test_coverage_with_selection_in_simulation(num_classes):
    wide = tuple if num_classes == 3 else of_ten
    vectors = [wide(p) for p in BOUNDARY + tight(300, ALPHA) + tight(300, ALPHA / 2)]
    for seed, p in enumerate(vectors + (MANY if num_classes == 10 else [])):
        assert simulated_failures(p, 300, ALPHA, seed) <= LIMIT, p
    worst = max(simulated_failures(wide(p), 300, 3 * ALPHA, 0) for p in tight(300, 3 * ALPHA))
    assert worst > LIMIT


@pytest.mark.parametrize(("num_classes", "pixel"), [(3, 0.5), (3, 0.65), (10, 0.25), (10, 0.2)])
def test_coverage_of_a_classifier_with_known_probabilities(num_classes, pixel):
    """Class k where the first pixel lies between two thresholds: probabilities, and the true radius, are known."""
    sigma, n = 0.25, 200
    thresholds = np.linspace(0.3, 0.7, num_classes - 1)

    def probabilities(shift):
        return np.diff(stats.norm.cdf(np.concatenate([[-np.inf], thresholds, [np.inf]]), pixel + shift, sigma))

    p = probabilities(0.0)
    a = int(p.argmax())

    def behind(shift):
        shifted = probabilities(shift)
        return np.delete(shifted, a).max() - shifted[a]

    true = min(abs(optimize.brentq(behind, 0, end)) for end in (-3, 3) if behind(end) > 0)
    claim = sigma * two_sided_radius(p, a)
    assert 0 < claim <= true + 1e-9  # the theorem, for this classifier
    votes = SmoothedClassifier(Stump(*thresholds), num_classes, seed=3).predict(
        torch.full((TRIALS, 1, 1, 2), pixel), sigma, n=n, alpha=ALPHA
    )
    p_lower, p_upper = runner_up_bounds(*top_two(votes.votes, a), n, ALPHA, 0.5)
    radius = certified_radius(sigma, p_lower, p_upper)
    assert int(((p_lower > p[a]) | (p_upper < np.delete(p, a).max())).sum()) <= LIMIT
    assert int((radius > claim).sum()) <= LIMIT
    assert int((radius > true).sum()) <= LIMIT
    one_sided = certified_radius(sigma, lower_confidence_bound(top_two(votes.votes, a)[0], n, ALPHA))
    assert radius.mean() > one_sided.mean()
