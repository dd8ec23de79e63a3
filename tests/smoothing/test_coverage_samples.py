"""How often bounds fail that may be looked at again and again, whoever chooses when to stop: exactly and simulated.

The adversary looks after every vote and stops at the first failure. Every check is also run at three times alpha, and
must find that out.
"""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from scipy import stats

from smoothing import (
    Ladder,
    SmoothedClassifier,
    certify_to_file,
    lower_confidence_bound,
    sequence_bounds,
    upper_confidence_bound,
)
from smoothing.bounds import SHARES, ladder_bounds, split_alpha
from smoothing.confidence import certified_radius, weighted_alpha
from smoothing.deciding import Question, decide, looks

from .oracles import Halfspace, compositions, two_sided_radius

ALPHA, TRIALS = 0.05, 4000
#: More than `LIMIT` of 4,000 answers are wrong with probability below 1e-6, where each may be with probability 0.05:
#: the false-alarm rate of each simulation here. Seeds are fixed.
LIMIT = stats.binom.isf(1e-6, TRIALS, ALPHA)
PRIORS = [(0.5, 0.5), (1.0, 30.0), (95.5, 5.5), (10.5, 10.5)]
VOTES = 250


def ever_fails(lower, upper, p):
    """Probability that p leaves the interval of k out of n votes for some n up to `VOTES`, exactly."""
    mass, failed = np.ones(1), 0.0  # of the paths that have not failed yet, by k
    for n in range(1, VOTES + 1):
        mass = np.append(mass * (1 - p), 0.0) + np.append(0.0, mass * p)
        bad = (lower[n - 1, : n + 1] > p) | (upper[n - 1, : n + 1] < p)
        failed += mass[bad].sum()
        mass[bad] = 0.0
    return failed


def all_bounds(bound):
    """Lower and upper bounds for all k <= n <= `VOTES`."""
    n, k = np.meshgrid(np.arange(1, VOTES + 1), np.arange(VOTES + 1), indexing="ij")
    return bound(np.minimum(k, n), n)


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_exact_coverage_of_a_sequence_at_all_looks_together(prior):
    candidates = [0.003, 0.05, 0.2, 0.5, 0.77, 0.93, 0.99, 0.999]
    bounds = all_bounds(lambda k, n: sequence_bounds(k, n, ALPHA, prior=prior))
    assert max(ever_fails(*bounds, p) for p in candidates) <= ALPHA
    lax = all_bounds(lambda k, n: sequence_bounds(k, n, 3 * ALPHA, prior=prior))
    assert max(ever_fails(*lax, p) for p in np.linspace(0.02, 0.98, 49)) > ALPHA


def test_the_adversary_finds_out_bounds_that_hold_at_one_look_only():
    single = all_bounds(lambda k, n: (lower_confidence_bound(k, n, ALPHA / 2), upper_confidence_bound(k, n, ALPHA / 2)))
    assert ever_fails(*single, 0.5) > 2 * ALPHA


@pytest.mark.parametrize(
    ("k", "n"), [(1, 1), (30, 40), (990, 1000), (100_000, 100_000), (7, 10**6), (10**9 - 3, 10**9)]
)
@pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-100])
def test_a_sequence_is_rounded_outwards_by_little(k, n, alpha):
    def won(p, a, b):
        with mpmath.workdps(60):
            p, a, b = mpmath.mpf(p), mpmath.mpf(a), mpmath.mpf(b)
            mixture = mpmath.loggamma(k + a) + mpmath.loggamma(n - k + b) - mpmath.loggamma(n + a + b)
            mixture -= mpmath.loggamma(a) + mpmath.loggamma(b) - mpmath.loggamma(a + b)
            return mixture - k * mpmath.log(p) - ((n - k) * mpmath.log(1 - p) if n > k else 0)

    for a, b in PRIORS:
        lower, upper = (float(end) for end in sequence_bounds(k, n, alpha, prior=(a, b)))
        ends = [end for end in (lower, upper) if 0 < end < 1]
        assert 0 <= lower <= k / n <= upper <= 1
        for end in ends:
            over = won(end, a, b) + mpmath.log(alpha)
            # next to 0 and 1 the float64 numbers lie far apart
            assert 0 <= over <= (1e-6 + (n + 200) * 1e-10 if 1e-7 < end < 1 - 1e-7 else 0.2), (a, b, end)


def test_no_vote_and_all_votes_leave_one_side_open():
    lower, upper = sequence_bounds([0, 100], 100, 0.001)
    assert lower[0] == 0 < lower[1] < 1 == upper[1] > upper[0] > 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, 4, 0.1), "more votes"),
        ((0, 0, 0.1), "at least one vote"),
        ((1, 2, 0.0), "alpha"),
        ((1, 2, 0.1, (0.0, 1.0)), "prior"),
        ((1, 2, 0.1, (1.0, np.nan)), "prior"),
    ],
)
def test_senseless_sequences_are_refused(arguments, message):
    *votes, alpha = arguments[:3]
    with pytest.raises(ValueError, match=message):
        sequence_bounds(*votes, alpha, **({"prior": arguments[3]} if len(arguments) > 3 else {}))


# --- ladders that spend alpha unequally -----------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("weights", [(1.0, 1.0, 1.0), (1, 9), (0.1, 0.2, 0.7), (1 / 3, 1e-9, 1e5)])
def test_parts_of_alpha_do_not_exceed_it(alpha, weights):
    parts = weighted_alpha(alpha, weights)
    total = sum(Fraction(part) for part in parts)
    assert Fraction(alpha) * (1 - Fraction(1, 2**40)) <= total <= Fraction(alpha)
    np.testing.assert_allclose(np.divide(parts, parts[0]), np.divide(weights, weights[0]))


def weighted_failure(p, alpha, share, weights):
    """Probability that the best bounds of 10 and 25 votes certify too much for class 0, exactly."""
    first, more = compositions(10, 3), compositions(15, 3)
    rungs = np.stack([np.repeat(first, len(more), axis=0), (first[:, None] + more).reshape(-1, 3)])
    mass = np.outer(stats.multinomial.pmf(first, 10, p), stats.multinomial.pmf(more, 15, p)).ravel()
    bounds = ladder_bounds(rungs[..., 0], rungs[..., 1:].max(axis=2), np.array([[10], [25]]), alpha, share, weights)
    return mass[certified_radius(1.0, *bounds) > max(0.0, two_sided_radius(np.array(p), 0))].sum()


@pytest.mark.parametrize("share", [0.0, *SHARES])
@pytest.mark.parametrize("weights", [(1.0, 4.0), (4.0, 1.0)])
def test_exact_coverage_of_a_weighted_ladder(share, weights):
    vectors = [(0.4, 0.4, 0.2), (0.34, 0.33, 0.33), (0.6, 0.39, 0.01), (0.9, 0.05, 0.05)]
    edges = [(p, 1 - p, 0.0) for p in np.linspace(0.5, 0.6, 26)]
    assert max(weighted_failure(p, ALPHA, share, weights) for p in vectors + edges) <= ALPHA
    assert max(weighted_failure(p, 3 * ALPHA, share, weights) for p in edges) > ALPHA


def test_each_rung_is_computed_at_its_own_part():
    n, k = np.array([100, 1000]), np.array([99, 999])
    lower, _ = ladder_bounds(k[:, None], (n - k)[:, None], n[:, None], 0.001, 0.0, (1.0, 9.0))
    assert lower[0] == lower_confidence_bound(999, 1000, weighted_alpha(0.001, (1.0, 9.0))[1])
    assert lower[0] > lower_confidence_bound(999, 1000, 0.0005)
    with pytest.raises(ValueError, match="3 weights for 2 rungs"):
        ladder_bounds(k[:, None], (n - k)[:, None], n[:, None], 0.001, 0.0, (1.0, 1.0, 1.0))


def test_geometric_sizes():
    ladder = Ladder.geometric(1000, 100_000, 10.0)
    assert ladder.rungs == (1000, 10_000, 100_000)
    assert ladder.weights == pytest.approx((0.1, 0.1, 0.8))
    assert sum(ladder.alphas(0.001)) <= 0.001
    assert Ladder.geometric(5, 5).rungs == (5,)
    assert Ladder.geometric(1, 10, 1.01).rungs == tuple(range(1, 11))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Ladder((10, 20), weights=(1.0,)), "one for each of 2 rungs"),
        (lambda: Ladder((10, 20), weights=(1.0, 0.0)), "weights = 0"),
        (lambda: Ladder((10, 20), target_loss=1.0), "target_loss = 1"),
        (lambda: Ladder((10, 20), target_loss=-0.1), "target_loss = -0.1"),
        (lambda: Ladder.geometric(20, 10), "first = 20"),
        (lambda: Ladder.geometric(1, 10, 1.0), "ratio = 1"),
        (lambda: Ladder.geometric(1, 10, last_share=1.0), "last_share = 1"),
    ],
)
def test_senseless_ladders_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


HALFSPACE = Halfspace(torch.tensor([[[3.0, -4.0]]]), 1.5)  # margin 0.2 around (0.5, 0.5): |0.5 * -1 + 1.5| / 5


def copies(n):
    """The same image n times: under different names it gets independent noise."""
    return torch.full((n, 1, 1, 2), 0.5)


def test_a_target_stops_where_it_is_met():
    smoothed, sizes = SmoothedClassifier(HALFSPACE, 2, seed=4), (500, 1000, 2000, 4000)
    full = smoothed.certify(copies(200), 0.25, n0=50, n=Ladder(sizes, 0.0))
    part = smoothed.certify(copies(200), 0.25, n0=50, n=Ladder(sizes, 0.0, target_loss=0.1))
    assert np.all(full.n == 4000)
    assert part.n.mean() < 2000
    assert 0.85 * full.radius.mean() < part.radius.mean() < full.radius.mean()


def test_a_run_keeps_weights_and_target(tmp_path):
    smoothed, path = SmoothedClassifier(HALFSPACE, 2, seed=4), tmp_path / "certificates.tsv"
    ladder = Ladder.geometric(250, 1000, last_share=0.7, target_loss=0.05)
    table = certify_to_file(path, smoothed, copies(6), sigma=0.25, n0=50, n=ladder)
    direct = smoothed.certify(copies(6), 0.25, n0=50, n=ladder)
    np.testing.assert_allclose(table.radius, direct.radius, atol=2e-6)  # six decimals, floored
    path.unlink()
    assert np.array_equal(certify_to_file(path, smoothed, copies(6), sigma=0.25, n0=50, n=ladder).radius, table.radius)
    for other in (Ladder(ladder.rungs, target_loss=0.05), Ladder(ladder.rungs, weights=ladder.weights)):
        with pytest.raises(ValueError, match=r"weights|target_loss"):
            certify_to_file(path, smoothed, copies(6), sigma=0.25, n0=50, n=other)


# --- one question at one radius -------------------------------------------------------------------------------------


def yes_and_no(question, p, most):
    """Probabilities of both answers for an image of two classes, where class 0 has probability p, exactly."""
    mass, answers, start = np.ones(1), np.zeros(2), 0
    for stop in looks(most):
        mass = np.convolve(mass, stats.binom.pmf(np.arange(stop - start + 1), stop - start, p))
        votes = np.column_stack([np.arange(stop + 1), stop - np.arange(stop + 1)])
        below, above = question.radii(np.zeros(stop + 1, dtype=np.int64), votes, stop)
        yes, no = below > question.radius[0], above <= question.radius[0]
        assert not (yes & no).any()
        answers += mass[yes].sum(), mass[no].sum()
        mass, start = np.where(yes | no, 0.0, mass), stop
    return answers


def asked(radius, counts, n0, alpha, *, images=1, share=0.0, rival_counts=None, one_sided=False):
    """A question about class 0, with class 1 as rival, at sigma = 1."""
    each = np.zeros(images)
    return Question(
        sigma=each + 1.0,
        radius=each + radius,
        classes=np.zeros(images, dtype=np.int64),
        rival=np.ones(images, dtype=np.int64),
        counts=np.zeros(images, dtype=np.int64) + counts,
        rival_counts=np.zeros(images, dtype=np.int64) + (n0 - counts if rival_counts is None else rival_counts),
        n0=n0,
        share=each + share,
        alpha=alpha,
        one_sided=one_sided,
    )


@pytest.mark.parametrize("p", [0.5, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("counts", [0, 7, 10])
def test_exact_errors_of_answers(p, counts):
    radius = max(stats.norm.ppf(p), 0.0)
    question = asked(radius, counts, 10, ALPHA)
    assert yes_and_no(question, p - 1e-9, 700)[0] <= ALPHA  # not robust at this radius: "yes" is wrong
    assert yes_and_no(question, p + 1e-9, 700)[1] <= ALPHA


def test_enumeration_finds_out_answers_at_three_times_alpha():
    # worst where selection votes point to the wrong side, and the bets go there
    p, yes, no = 0.6, 680, 520
    for alpha in (ALPHA, 3 * ALPHA):
        questions = [asked(stats.norm.ppf(p), counts, 1000, alpha) for counts in (yes, no)]
        errors = np.array([yes_and_no(question, p, 700)[k] for k, question in enumerate(questions)])
        assert np.all((errors <= alpha) & ((errors > ALPHA) == (alpha > ALPHA)))


def simulated(p, radius, alpha, seed, most=640, believed=None, n0=1000):
    """Answers to 4,000 questions about class 0; selection has n0 votes, and names the rival by them."""
    rng = np.random.default_rng(seed)
    selection = rng.multinomial(n0, p if believed is None else believed, TRIALS)
    own, rest = selection[:, 0], selection[:, 1:]
    share = split_alpha(own, rest.max(axis=1), n0, len(p), most, alpha)
    question = asked(radius, own, n0, alpha, images=TRIALS, share=share, rival_counts=rest.max(axis=1))
    question.rival[:] = rest.argmax(axis=1) + 1

    def count(wanted, start, stop):
        return rng.multinomial(stop - start, p, TRIALS)[:, None] * wanted[..., None]

    return decide(question, len(p), most, count)[0]


MANY = [(0.45, 0.3, 0.25), (0.4, 0.2, 0.2, 0.2), (0.6, 0.39, 0.01), (0.9, 0.05, 0.05), (0.28, *(9 * [0.08]))]


@pytest.mark.parametrize("p", MANY, ids=str)
def test_errors_of_answers_with_many_classes(p):
    radius = two_sided_radius(np.array(p), 0)
    assert (simulated(p, radius, ALPHA, 1) == 1).sum() <= LIMIT
    assert (simulated(p, radius - 1e-9, ALPHA, 2) == 0).sum() <= LIMIT


def test_simulation_finds_out_answers_at_three_times_alpha():
    p, believed = (0.6, 0.4, 0.0), (0.63, 0.37, 0.0)
    radius = two_sided_radius(np.array(p), 0)
    wrong = [(simulated(p, radius, alpha, 1, 4000, believed, 100_000) == 1).sum() for alpha in (ALPHA, 3 * ALPHA)]
    assert wrong[0] <= LIMIT < wrong[1]


def test_answers_about_a_halfspace():
    smoothed, images = SmoothedClassifier(HALFSPACE, 2, seed=5), copies(TRIALS)
    at = smoothed.certify_at(images, 0.25, 0.2 * (1 + 1e-6), n0=20, n=384, alpha=ALPHA)
    assert (at.answer == 1).sum() <= LIMIT  # the true radius is slightly smaller
    below = smoothed.certify_at(images, 0.25, 0.2 * (1 - 1e-6), n0=20, n=384, alpha=ALPHA)
    right = below.classes == 1  # of 20 selection samples, most are right
    assert right.mean() > 0.98
    assert (below.answer[right] == 0).sum() <= LIMIT
    near, far = (
        smoothed.certify_at(images[:300], 0.25, r, n0=100, n=5000, alpha=0.001, bound="top-class") for r in (0.1, 0.3)
    )
    assert np.all(near.answer == 1)
    assert np.all(far.answer == 0)
    assert max(near.n.mean(), far.n.mean()) < 500


def test_answers_draw_the_samples_of_certificates():
    smoothed = SmoothedClassifier(HALFSPACE, 2, seed=6)
    found = smoothed.certify_at(copies(5), 0.25, [0.05, 0.1, 0.18, 0.2, 0.3], n0=100, n=3000, indices=[7, 1, 4, 9, 2])
    for j, index in enumerate([7, 1, 4, 9, 2]):
        n = int(found.n[j])
        one = smoothed.certify_classes(copies(1), 0.25, found.classes[[j]], n=n, indices=[index])
        assert one.counts[0] == found.counts[j]
    assert found.answer.tolist()[:2] == [1, 1]
    assert found.answer[4] == 0


def test_what_cannot_be_settled_is_not():
    smoothed = SmoothedClassifier(HALFSPACE, 2, seed=6)
    found = smoothed.certify_at(copies(3), 0.25, 0.2, n0=100, n=300)
    assert found.answer.tolist() == [-1, -1, -1]
    assert found.n.tolist() == [300, 300, 300]


@pytest.mark.parametrize("alpha", [1e-100, 2e-100, 1e-99, 3e-99, 1e-98])
def test_no_part_of_alpha_is_too_small_for_an_answer(alpha):
    """The halfspace with further classes that get no votes, whose parts of alpha are the smallest."""
    model = torch.nn.Sequential(HALFSPACE, torch.nn.ConstantPad1d((0, 4), -1e9))
    smoothed = SmoothedClassifier(model, 6, seed=6)
    near, far = (smoothed.certify_at(copies(2), 0.25, r, n0=100, n=4000, alpha=alpha) for r in (0.0, 1.5))
    assert near.answer.tolist() == [1, 1]
    assert far.answer.tolist() == [0, 0]


def test_parts_of_a_ladder_that_are_too_small_are_refused_before_the_work(tmp_path, monkeypatch):
    smoothed, ladder = SmoothedClassifier(HALFSPACE, 2, seed=6), Ladder((100, 200))
    monkeypatch.setattr(SmoothedClassifier, "select_votes", None)
    with pytest.raises(ValueError, match=r"alpha = 1e-100 shared among 2"):
        smoothed.certify(copies(2), 0.25, n0=10, n=ladder, alpha=1e-100)
    with pytest.raises(ValueError, match=r"alpha = 1e-100 shared among 2"):
        certify_to_file(tmp_path / "table.tsv", smoothed, copies(2), sigma=0.25, n0=10, n=ladder, alpha=1e-100)
    assert not list(tmp_path.iterdir())


def test_another_class_is_not_robust():
    found = SmoothedClassifier(HALFSPACE, 2, seed=6).certify_at(copies(30), 0.25, 0.0, n0=1, n=1000)
    wrong = found.classes != 1
    assert wrong.any()
    assert np.all(found.answer[wrong] == 0)


@pytest.mark.parametrize("radius", [-0.1, np.inf, [0.1, 0.2]])
def test_radii_that_cannot_be_asked_for(radius):
    with pytest.raises(ValueError, match="radius"):
        SmoothedClassifier(HALFSPACE, 2).certify_at(copies(3), 0.25, radius, n0=10, n=100)


def test_looks():
    assert looks(20) == (20,)
    assert looks(100) == (32, 64, 96, 100)
    sizes = looks(100_000)
    assert sizes[-1] == 100_000
    assert len(sizes) < 70
    assert np.all(np.diff(sizes) > 0)
    assert not np.any(np.array(sizes[3:-1]) % 128)
