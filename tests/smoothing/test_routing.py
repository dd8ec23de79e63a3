"""A router and a base classifier whose smoothed answers are known everywhere: half-spaces, and steps along one pixel.

Smoothed at any level, a half-space is the same half-space, and Eq. 2 is exact for it. So S, G and every radius are
known in closed form, at images and at whatever lies around them.
"""

import hashlib
import re

import numpy as np
import pytest
import torch
from scipy import stats

from smoothing import RoutedClassifier, SmoothedClassifier, lower_confidence_bound, upper_confidence_bound
from smoothing.agreement import agreeing_radius
from smoothing.bounds import runner_up_bounds
from smoothing.confidence import certified_radius
from smoothing.router_bounds import levels_not_rejected, router_clearance

from .oracles import Constant, Halfspace, Stump

SIGMAS, ROUTER_SIGMA = [0.2, 0.5], 0.3
#: Each statement of a certificate may be wrong with this probability, so no test here will see a wrong one.
ALPHA = 1e-6

ROUTER = (1.0, -0.5, -0.2)  # w_1, w_2 and b: level 1 where x_1 - x_2 / 2 > 0.2
BASE = {0.2: (0.6, 0.8, -0.6), 0.5: (1.0, 0.3, -0.55)}


def images(n=40, seed=0):
    return torch.rand((n, 1, 1, 2), generator=torch.Generator().manual_seed(seed))


def halfspace(w1, w2, b):
    return Halfspace(torch.tensor([[[w1, w2]]]), b)


def signed(form, points):
    """Distance of points (n, 2) to the border of a half-space, positive inside."""
    w1, w2, b = form
    return (points @ np.array([w1, w2]) + b) / np.hypot(w1, w2)


class Truth:
    """S, g, G and rho for the half-spaces above, in closed form."""

    def __init__(self, router=ROUTER, base=BASE):
        self.router, self.base = router, base

    def classifier(self, seed=0, **options):
        bank = {sigma: halfspace(*form) for sigma, form in self.base.items()}
        base = SmoothedClassifier(bank, 2, seed=seed, **options)
        return RoutedClassifier(base, halfspace(*self.router), list(self.base), router_sigma=ROUTER_SIGMA)

    def level(self, points):
        return (signed(self.router, points) > 0).astype(int)

    def answers(self, points):
        """What g says at each level."""
        return np.stack([signed(form, points) > 0 for form in self.base.values()], axis=1).astype(int)

    def answer(self, points):
        return self.answers(points)[np.arange(len(points)), self.level(points)]

    def radii(self, points):
        """R_S, r_k for the class that G returns, and rho by the definition, term by term."""
        anchor, answers = self.level(points), self.answers(points)
        c = self.answer(points)
        to_border = np.abs(np.stack([signed(form, points) for form in self.base.values()], axis=1))
        r = np.where(answers == c[:, None], to_border, 0)
        margin = np.abs(signed(self.router, points))
        every = np.arange(len(points))
        rho = np.minimum(r[every, anchor], np.maximum(r[every, 1 - anchor], margin))
        return margin, r, rho


def around(point, radius, directions=64, steps=24):
    """Points of the open disc, on a fine polar grid that reaches almost to its rim."""
    angles = np.linspace(0, 2 * np.pi, directions, endpoint=False)
    lengths = radius * np.append(np.linspace(0, 1, steps, endpoint=False), 1 - 1e-9)
    moves = lengths[:, None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return point + moves.reshape(-1, 2)


@pytest.fixture(scope="module")
def found():
    return Truth().classifier().certify(images(), n0=200, n=4000, n_router=4000, alpha=ALPHA)


def test_radii_are_below_the_exact_ones_and_close_to_them(found):
    points = images().double().numpy().reshape(-1, 2)
    truth = Truth()
    margin, r, rho = truth.radii(points)
    answered = found.predict >= 0
    assert (found.predict == truth.answer(points))[answered].all()
    assert (found.radius <= rho).all()
    right = answered & (found.level == truth.level(points))
    assert (found.router_radius <= margin)[right].all()
    assert (found.level_radius <= r)[right].all()
    # most of what can be proved is: at 4,000 votes a radius beyond 3 sigma is out of reach
    clear = (rho > 0.1) & (rho < 0.4)
    assert clear.sum() > 10
    assert (found.radius > 0.5 * rho)[clear].all()


def test_no_small_move_within_the_radius_changes_the_answer(found):
    points = images().double().numpy().reshape(-1, 2)
    truth = Truth()
    levels_change = 0
    for point, c, radius in zip(points, found.predict, found.radius, strict=True):
        if radius > 0:
            moved = around(point, radius)
            assert (truth.answer(moved) == c).all()
            levels_change += len(set(truth.level(moved).tolist())) > 1
    assert levels_change > 3  # what min(R_S, R_c) could not certify


def test_never_below_what_a_constant_level_within_the_radius_would_give(found):
    assert (found.radius >= found.min_radius).all()
    assert (found.radius > found.min_radius + 0.05).sum() > 5


def test_both_radii_of_the_comparison_are_those_of_the_two_smoothed_classifiers(found):
    # alpha is shared equally: half for the base classifier, half for the router
    truth, half = Truth(), np.nextafter(ALPHA / 2, 0)
    seed = int.from_bytes(hashlib.sha256(b"router 0").digest()[:16], "big")
    router = SmoothedClassifier(halfspace(*truth.router), 2, seed=seed)
    assert found.level.tolist() == router.select_sigma(images(), [ROUTER_SIGMA], n0=200).classes[:, 0].tolist()
    routed = router.certify_classes(images(), ROUTER_SIGMA, found.level, n=4000, alpha=half)
    assert found.router_radius.tolist() == routed.radius.tolist()
    base = SmoothedClassifier({sigma: halfspace(*form) for sigma, form in BASE.items()}, 2)
    levels = np.array(SIGMAS)[found.level]
    classes = base.select_sigma(images(), SIGMAS, n0=200).classes[np.arange(40), found.level]
    certified = base.certify_classes(images(), levels, classes, n=4000, alpha=half)
    assert found.base_radius.tolist() == certified.radius.tolist()


def test_levels_that_cannot_matter_are_not_sampled(found):
    every = np.arange(40)
    assert found.sampled[every, found.level].all()
    assert 0 < found.sampled.sum() - 40 < 40
    assert (found.level_radius[~found.sampled] == 0).all()
    assert found.samples.tolist() == (200 * 3 + 4000 * (1 + found.sampled.sum(axis=1))).tolist()


class Steps(Stump):
    """`Stump` along the first pixel: levels 0, 1, 2, ... from left to right; its shares are known everywhere."""

    def shares(self, points, sigma):
        ends = np.concatenate([[-np.inf], self.thresholds.double().numpy(), [np.inf]])
        return np.diff(stats.norm.cdf(ends, points[:, :1], sigma), axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_three_levels_with_a_narrow_one_between(seed):
    # Level 1 is what the router names between two thresholds that are close: it wins nowhere, or in a narrow band.
    rng = np.random.default_rng(seed)
    low = rng.uniform(0.3, 0.6)
    router = Steps(low, low + rng.choice([0.1, 0.3, 0.6]))
    base = {0.2: (0.9, 0.3, -0.3), 0.3: (0.3, -0.9, 0.2), 0.5: (0.7, 0.5, -0.35)}
    bank = {sigma: halfspace(*form) for sigma, form in base.items()}
    routed = RoutedClassifier(SmoothedClassifier(bank, 2), router, list(base), router_sigma=ROUTER_SIGMA)
    pixels = images(24, seed)
    got = routed.certify(pixels, n0=100, n=2000, n_router=2000, alpha=ALPHA)
    points = pixels.double().numpy().reshape(-1, 2)
    assert (got.radius > 0).sum() > 12
    for point, c, radius in zip(points, got.predict, got.radius, strict=True):
        if radius > 0:
            moved = around(point, radius)
            level = router.shares(moved, ROUTER_SIGMA).argmax(axis=1)
            answers = np.stack([signed(form, moved) > 0 for form in base.values()], axis=1).astype(int)
            assert (answers[np.arange(len(moved)), level] == c).all()


# Coverage: votes are drawn from true probabilities just below what the best votes would claim.

N, VOTES = 100_000, 40
ALPHAS = 0.03, 0.03  # of the base classifier and of the router: 0.06 in all


def quantile(alpha):
    """The number of wrong certificates among N that is exceeded with probability 0.001 if each is wrong at alpha."""
    return stats.binom.ppf(0.999, N, alpha)


def claimed_by_all(alpha):
    """A probability just below what all votes for one class claim: they all fall so with probability close to alpha."""
    return alpha ** (1 / VOTES) * (1 - 1e-9)


class World:
    """K levels: the probability of class c at each, and the router's share of each. Level 0 is the anchor."""

    def __init__(self, p, shares, router_sigma=1.0):
        self.p, self.shares, self.router_sigma = np.array(p), np.array(shares), router_sigma
        quantiles = stats.norm.ppf(self.shares)
        self.radius = np.maximum(0, stats.norm.ppf(self.p))
        self.clearance = np.maximum(0, router_sigma * (quantiles[0] - quantiles) / 2)
        self.clearance[0] = np.inf
        self.rho = float(agreeing_radius(self.radius[None], self.clearance[None], np.array([0]))[0])

    def wrong(self, rng, alphas=ALPHAS, prove=router_clearance, left_out=()):
        """How many of N certificates claim more than the true numbers do; levels left out are taken for certified."""
        counts, votes = rng.binomial(VOTES, self.p, (N, len(self.p))), rng.multinomial(VOTES, self.shares, N)
        every = np.arange(VOTES + 1)
        radius = certified_radius(1.0, *runner_up_bounds(every, 0, VOTES, alphas[0], 0.0))[counts]
        radius[:, list(left_out)] = np.inf
        rows, where = np.unique(votes, axis=0, return_inverse=True)
        clearance = prove(rows, np.zeros(len(rows), dtype=int), self.router_sigma, alphas[1])[where.ravel()]
        claimed = agreeing_radius(radius, clearance, np.zeros(N, dtype=int))
        return int((claimed > self.rho * (1 + 1e-12)).sum())


def either(alpha_base, alpha_router):
    """r_1 = t_1 < r_0: the certificate is wrong if either estimate is, each with probability close to its alpha."""
    p, share = claimed_by_all(alpha_base), claimed_by_all(alpha_router)
    return World([0.9999, p], [share, 1 - share], stats.norm.ppf(p) / stats.norm.ppf(share))


TOP, ALL = claimed_by_all(ALPHAS[0]), claimed_by_all(ALPHAS[1] / 2)
FEW = (1 - ALL) * 0.99

#: Which term decides.
WORLDS = {
    "r_s": World([TOP, 0.999, 0.999], [0.6, 0.2, 0.2]),
    "r_k": World([0.999, TOP, 0.999], [0.4, 0.35, 0.25]),
    "t_k, by the share of s": World([0.9999, 0.01, 0.9999], [ALL, (1 - ALL) * 0.9, (1 - ALL) * 0.1]),
    "t_k, by the share of k": World([0.9999, 0.01, 0.9999], [0.55, 1 - ALL, ALL - 0.55]),
    "r_k or t_k": either(*ALPHAS),
    "many t_k": World([0.9999] + [0.01] * 4, [1 - 4 * FEW] + [FEW] * 4),
    "many r_k": World([0.9999] + [TOP] * 2, [0.4, 0.3, 0.3]),
}


@pytest.mark.parametrize("name", WORLDS)
def test_coverage(name, rng):
    world = WORLDS[name]
    assert 0 < world.rho < 4
    assert world.wrong(rng) <= quantile(sum(ALPHAS))


def test_coverage_is_used_up_where_three_bounds_may_fail(rng):
    assert WORLDS["r_k or t_k"].wrong(rng) > 0.95 * N * sum(ALPHAS)


def own_frequency(votes, anchor, sigma, alpha):
    """t_k with the frequency of the anchor in the place of its lower bound."""
    n = votes.sum(axis=1, keepdims=True)
    return margins(votes[:, :1] / n, upper_confidence_bound(votes, n, alpha / 2), sigma)


def other_frequency(votes, anchor, sigma, alpha):
    """t_k with the frequency of level k in the place of its upper bound: no alpha for that."""
    n = votes.sum(axis=1, keepdims=True)
    return margins(lower_confidence_bound(votes[:, :1], n, alpha / 2), votes / n, sigma)


def margins(own, other, sigma):
    with np.errstate(invalid="ignore"):
        found = np.nan_to_num(np.maximum(0, sigma * (stats.norm.ppf(own) - stats.norm.ppf(other)) / 2), nan=0.0)
    found[:, 0] = np.inf
    return found


@pytest.mark.parametrize(
    ("name", "broken"),
    [
        ("r_s", {"left_out": [0]}),  # r_s omitted
        ("t_k, by the share of s", {"left_out": [1]}),  # a level that is not certified taken for one that agrees
        ("t_k, by the share of s", {"prove": own_frequency}),
        ("t_k, by the share of k", {"prove": other_frequency}),
    ],
)
def test_a_broken_step_of_the_proof_is_found_out(name, broken, rng):
    assert WORLDS[name].wrong(rng, **broken) > quantile(sum(ALPHAS))


def test_all_of_alpha_for_each_estimate_is_found_out(rng):
    total = sum(ALPHAS)
    assert either(total, total).wrong(rng, alphas=(total, total)) > quantile(total)


def test_a_level_without_votes_is_bounded_too():
    found = router_clearance(np.array([[100, 0, 0]]), np.array([0]), 0.5, 0.01)
    assert np.isinf(found[0, 0])
    lower, upper = 0.005 ** (1 / 100), 1 - 0.005 ** (1 / 100)
    exact = 0.25 * (stats.norm.ppf(lower) - stats.norm.ppf(upper))
    assert found[0, 1:] == pytest.approx([exact, exact], rel=1e-8)
    assert (found[0, 1:] <= exact).all()


def test_a_router_that_is_not_seen_to_win_proves_nothing():
    found = router_clearance(np.array([[50, 50], [30, 70]]), np.array([0, 0]), 0.5, 0.01)
    assert found[:, 1].tolist() == [0, 0]


# One level, and a router that always names one.


def test_one_level_is_the_base_certificate():
    base = SmoothedClassifier(halfspace(*BASE[0.5]), 2, seed=3)
    routed = RoutedClassifier(base, None, [0.5])
    names = np.arange(7, 47)
    found = routed.certify(images(), n0=100, n=1000, alpha=0.01, indices=names)
    alone = base.certify(images(), 0.5, n0=100, n=1000, alpha=0.01, indices=names)
    assert found.radius.tolist() == alone.radius.tolist()
    assert found.predict.tolist() == alone.predict.tolist()
    assert np.isinf(found.router_radius).all()
    assert found.min_radius.tolist() == alone.radius.tolist()
    answer = routed.predict(images(), n=500, alpha=0.01, indices=names)
    assert answer.predict.tolist() == base.predict(images(), 0.5, n=500, alpha=0.01, indices=names).predict.tolist()
    assert found.identity.router is None


def test_a_router_that_always_names_one_level_costs_its_share_of_alpha_alone():
    base = SmoothedClassifier(halfspace(*BASE[0.5]), 2, seed=3)
    routed = RoutedClassifier(base, Constant(0.0, 1.0, 0.0), [0.2, 0.5, 0.7], router_sigma=5.0)
    found = routed.certify(images(), n0=100, n=1000, n_router=1000, alpha=0.01)
    alone = base.certify(images(), 0.5, n0=100, n=1000, alpha=np.nextafter(0.005, 0))
    assert found.level.tolist() == [1] * 40
    assert found.radius.tolist() == alone.radius.tolist()
    assert found.sampled.sum() == 40


# Noise, identity, prediction.


def test_router_and_base_never_share_noise():
    routed = Truth().classifier(seed=5)
    identity = routed.identity
    assert identity.base.seed == 5
    assert identity.router.seed == int.from_bytes(hashlib.sha256(b"router 5").digest()[:16], "big")
    assert identity.router.num_classes == 2
    assert (identity.sigmas, identity.router_sigma) == (tuple(SIGMAS), ROUTER_SIGMA)
    assert routed.identity == identity
    assert Truth().classifier(seed=6).identity != identity


@pytest.mark.parametrize(
    "options", [{"sampler": "discrete"}, {"stream": "sfc64"}, {"precision": "bfloat16", "threads": 1}], ids=str
)
def test_a_router_is_smoothed_as_the_base_classifier_is(options):
    identity = Truth().classifier(**options).identity
    for name in ("sampler", "stream", "precision"):
        assert getattr(identity.router, name) == getattr(identity.base, name)
        assert getattr(identity.base, name) == options.get(name, getattr(identity.base, name))


def test_predict_keeps_levels_by_votes_of_the_smoothed_router():
    routed = Truth().classifier()
    found = routed.predict(images(), n=50, n_router=300, alpha=0.01, router_share=0.25)
    router = SmoothedClassifier(halfspace(*ROUTER), 2, seed=routed.identity.router.seed)
    votes = router.predict(images(), ROUTER_SIGMA, n=300).votes
    assert found.level.tolist() == votes.argmax(axis=1).tolist()
    assert found.kept.tolist() == levels_not_rejected(votes, 0.0025 * (1 - 2**-50)).tolist()


def test_results_depend_on_indices_alone():
    routed = Truth().classifier()
    whole = routed.certify(images(), n0=50, n=200, n_router=200)
    part = routed.certify(images()[10:20], n0=50, n=200, n_router=200, indices=range(10, 20))
    assert part.radius.tolist() == whole.radius[10:20].tolist()
    assert part.identity == whole.identity == routed.identity


def test_predict_answers_what_g_says_or_abstains():
    truth = Truth()
    points = images(200, 1).double().numpy().reshape(-1, 2)
    found = truth.classifier().predict(images(200, 1), n=500, n_router=500, alpha=ALPHA)
    answered = found.predict >= 0
    assert (found.predict == truth.answer(points))[answered].all()
    assert answered.mean() > 0.7
    every = np.arange(200)
    assert found.kept[every, truth.level(points)].all()
    # where the router is undecided, levels that agree are no reason to abstain, and others are
    undecided = found.kept.all(axis=1)
    agree = (found.answers == found.answers[:, :1]).all(axis=1) & (found.answers[:, 0] >= 0)
    assert (undecided & agree).any()
    assert (undecided & ~agree).any()
    assert (answered[undecided] == agree[undecided]).all()
    assert (found.answers[~found.kept] == -1).all()


def test_nothing_at_a_border_where_classes_differ():
    # at the router's border both levels are equally likely, and they say different things
    routed = Truth(base={0.2: (0.0, 0.001, 1.0), 0.5: (0.0, 0.001, -1.0)}).classifier()
    border = torch.tensor([0.4, 0.4]).reshape(1, 1, 1, 2).expand(50, 1, 1, 2)
    assert routed.predict(border, n=100, n_router=200, alpha=0.001).predict.tolist() == [-1] * 50
    found = routed.certify(border, n0=50, n=200, n_router=200, alpha=0.001)
    assert found.predict.tolist() == [-1] * 50
    assert found.radius.tolist() == [0] * 50
    assert (found.base_radius > 0).all()
    assert found.sampled.sum() == 50  # samples for a level that says something else would be lost


def rejected(p, alpha, test):
    """How often level 0, one of the most likely, is rejected, of N draws of 60 votes."""
    votes = np.random.default_rng(8).multinomial(60, p, N)
    rows, where = np.unique(votes, axis=0, return_inverse=True)
    return int((~test(rows, alpha)[where.ravel()][:, 0]).sum())


@pytest.mark.parametrize("p", [(0.5, 0.5), (1 / 3,) * 3, (0.4, 0.4, 0.2), (0.1,) * 10, (0.35, 0.33, 0.32)])
def test_the_right_level_is_kept(p):
    assert rejected(p, 0.2, levels_not_rejected) <= quantile(0.2)


def test_a_test_that_is_not_divided_among_levels_is_found_out():
    def undivided(votes, alpha):
        return levels_not_rejected(np.stack([votes[:, 0], votes.max(axis=1)], axis=1), alpha)

    assert rejected((0.1,) * 10, 0.2, undivided) > quantile(0.2)


def test_rejection_by_hand():
    # P(Binomial(10, 1/2) >= 9) = 11 / 1024
    at = 11 / 1024
    assert levels_not_rejected(np.array([[9, 1]]), at * 0.999).tolist() == [[True, True]]
    assert levels_not_rejected(np.array([[9, 1]]), at * 1.001).tolist() == [[True, False]]
    assert levels_not_rejected(np.array([[9, 1, 1]]), at * 1.001).tolist() == [[True, True, True]]
    assert levels_not_rejected(np.array([[9, 1, 1]]), at * 2.002).tolist() == [[True, False, False]]
    assert levels_not_rejected(np.array([[5, 5]]), 0.9).tolist() == [[True, True]]


# Bad input.


def linear(logits, pixels=2):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, logits))


def certify_with(**changes):
    settings = {"router": halfspace(*ROUTER), "sigmas": SIGMAS, "router_sigma": 0.3} | changes
    asked = {name: settings.pop(name) for name in ("n_router", "router_share", "alpha") if name in settings}
    bank = {sigma: halfspace(*form) for sigma, form in BASE.items()}
    routed = RoutedClassifier(SmoothedClassifier(bank, 2), **settings)
    return routed.certify(images(2), **({"n0": 10, "n": 20, "n_router": 20} | asked))


@pytest.mark.parametrize(
    ("match", "changes"),
    [
        ("router, one logit for each of 2 levels: the model returned .*3", {"router": linear(3)}),
        ("router, one logit for each of 2 levels: the model refused a batch", {"router": linear(2, pixels=3)}),
        (re.escape("router_sigma = 0.0: must be finite and > 0"), {"router_sigma": 0.0}),
        (re.escape("router_sigma = -1.0: must be"), {"router_sigma": -1.0}),
        (re.escape("router_sigma = nan: must be"), {"router_sigma": float("nan")}),
        ("router_sigma = None: give the noise level", {"router_sigma": None}),
        ("no router for 2 levels", {"router": None, "router_sigma": None}),
        ("a router for 1 levels", {"sigmas": [0.2]}),
        ("sigmas = .*must increase", {"sigmas": [0.5, 0.2]}),
        ("n_router = None: expected a whole number", {"n_router": None}),
        ("router_share = 1.0: must lie strictly", {"router_share": 1.0}),
        ("router_share = 0.0: must lie strictly", {"router_share": 0}),
        ("alpha = 2.0: must lie", {"alpha": 2.0}),
        ("sigma = 0.7 has no base classifier", {"sigmas": [0.2, 0.7]}),
    ],
)
def test_bad_input_is_refused_in_one_line(match, changes):
    with pytest.raises(ValueError, match=match) as caught:
        certify_with(**changes)
    assert "\n" not in str(caught.value)


class Asked(Constant):
    """Counts how often it is asked."""

    asked = 0

    def forward(self, pixels):
        Asked.asked += 1
        return super().forward(pixels)


def test_too_small_an_alpha_is_refused_before_any_sample_is_drawn():
    base = SmoothedClassifier(halfspace(*ROUTER), 2)
    routed = RoutedClassifier(base, Asked(1.0, 0.0, 0.0, 0.0), [0.1, 0.2, 0.3, 0.4], router_sigma=0.5)
    with pytest.raises(ValueError, match=r"shared among 3: .* take a larger alpha"):
        routed.predict(images(2), n=5, n_router=5, alpha=3e-100)
    with pytest.raises(ValueError, match="take a larger alpha"):
        routed.certify(images(2), n0=5, n=5, n_router=5, alpha=1e-100)
    assert Asked.asked == 0
    found = routed.certify(images(2), n0=1, n=1, n_router=1, alpha=3e-100)
    assert found.radius.tolist() == [0, 0]
    assert Asked.asked > 0


def test_options_of_a_router_are_refused_without_one():
    routed = RoutedClassifier(SmoothedClassifier(halfspace(*ROUTER), 2), None, [0.5])
    with pytest.raises(ValueError, match="n_router = 5: there is no router"):
        routed.certify(images(2), n0=10, n=20, n_router=5)
    with pytest.raises(ValueError, match=r"router_share = 0.5: there is no router"):
        routed.predict(images(2), n=20, router_share=0.5)
