"""What votes prove (M13, M18, M19), and how votes choose the noise level, in arithmetic of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from srs.verify.arithmetic import Real, lower_bound, mp, normal_density, normal_quantile, upper_bound
from srs.verify.rows import Cell

#: Smallest part of alpha that a bound is computed for.
_SMALLEST = Fraction(1, 10**100)

#: Shares of alpha for the runner-up that selection votes choose from.
_SHARES = (1 / 32, 1 / 2)

#: Racing looks at the votes after so many samples, and drops levels by bounds at this error.
RACE_RUNGS, _RACE_ERROR = (128, 256, 512), Fraction(3, 10)

#: A level that racing dropped counts, in a joint choice, as at most this share of the best that is left.
_DROPPED = 1 - 2.0**-20

#: Radii that differ by less than this share may be put in either order by float64.
_TIE = 1e-8


@dataclass(frozen=True)
class Proof:
    """Bounds of a class and of its runner-up, exact up to 1e-25, and the radius at sigma = 1.

    Attributes
    ----------
    lower, upper : Real
        Bounds of the class from below, and of every other class from above.
    radius : Real
        (Phi^-1(lower) - Phi^-1(upper)) / 2; negative or infinite where nothing is certified.
    slack : float
        How much smaller a lower bound may be that was computed in float64, with margins; and 1 - upper.
    """

    lower: Real
    upper: Real
    radius: Real
    slack: float

    @cached_property
    def least(self) -> Real:
        """The smallest radius at sigma = 1 that float64 and its margins explain."""
        if not mp.isfinite(self.radius):
            return self.radius
        z, w = normal_quantile(self.lower), normal_quantile(self.upper)
        lost = (abs(z) + abs(w)) * mp.mpf(2) ** -34
        return self.radius - (lost + self.slack * (self.lower / normal_density(z) + 1 / normal_density(w))) / 2


def slack_of(n: int) -> float:
    """Return how far the toolkit's margins move a bound of n votes, relatively: eight times what is usual."""
    return 8 * (2.0**-36 + n * 2.0**-50)


@lru_cache(maxsize=2**18)
def proof(own: int, other: int, n: int, alpha: Fraction, share: float) -> Proof:
    """Return what n votes prove of a class with `own` of them, where another one has at most `other`."""
    return _best([_bounds(own, other, n, alpha, share)], n)


def _bounds(own: int, other: int, n: int, alpha: Fraction, share: float) -> tuple[Real, Real]:
    others = alpha * Fraction(share)
    if min(others, alpha - others) < _SMALLEST:
        others = Fraction(0)
    lower = lower_bound(own, n, alpha - others)
    upper = 1 - lower
    if others:
        upper = min(upper, upper_bound(other, n, others))
    return lower, upper


def _best(bounds: Sequence[tuple[Real, Real]], n: int) -> Proof:
    lower, upper = max(low for low, _ in bounds), min(high for _, high in bounds)
    return Proof(lower, upper, (normal_quantile(lower) - normal_quantile(upper)) / 2, slack_of(n))


def proof_of(cell: Cell, one: int, alpha: Fraction, share: float, rungs: int) -> Proof:
    """Return what the votes of an image at a level prove of a class, alpha in equal parts for so many rungs."""
    tops = [cell.top(one, after) for after in range(len(cell.sizes))]
    each = alpha / rungs
    if len(tops) == 1:
        return proof(tops[0].own, tops[0].other, cell.sizes[0], each, share)
    bounds = [_bounds(top.own, top.other, n, each, share) for top, n in zip(tops, cell.sizes, strict=True)]
    return _best(bounds, cell.sizes[-1])


@dataclass(frozen=True)
class Rule:
    """How levels are chosen.

    Attributes
    ----------
    name : str
        "max-radius", "expected-radius" or "anchor".
    n0, n : int
        Selection samples at most, and estimation samples.
    alpha : Fraction
        Failure probability of an image's certificate.
    num_classes : int
    racing, two_sided, joint : bool
        Whether samples are left out at levels that cannot win; whether certificates bound the runner-up; whether levels
        are chosen together with the radii of regions, which may take a level that dropped out.
    """

    name: str
    n0: int
    n: int
    alpha: Fraction
    num_classes: int
    racing: bool
    two_sided: bool
    joint: bool

    @property
    def rungs(self) -> tuple[int, ...]:
        """After how many samples the votes are looked at."""
        return (*(rung for rung in RACE_RUNGS if self.racing and rung < self.n0), self.n0)

    @property
    def size(self) -> int:
        """For how many samples radii are imagined."""
        return self.n0 if self.name == "max-radius" else self.n

    def share(self, own: int, other: int, samples: int) -> float:
        """Return the share of alpha for the runner-up: the most promising one, if votes fall as these did."""
        shares = [share for share in _SHARES if self.alpha * Fraction(share) >= _SMALLEST]
        if not self.two_sided or self.num_classes == 2 or not shares:
            return 0.0
        return _promising(own, other, samples, self.n, self.alpha, tuple(shares))

    def radius(self, p: float, q: float, share: float) -> Real:
        """Return the radius at sigma = 1 if a share p of the samples votes for the class, and q for the next."""
        own, other = round(p * self.size), round(q * self.size)
        return max(proof(own, min(other, self.size - own), self.size, self.alpha, share).radius, mp.mpf(0))


@lru_cache(maxsize=2**16)
def _promising(own: int, other: int, samples: int, n: int, alpha: Fraction, shares: tuple[float, ...]) -> float:
    first, second = round((own + 0.5) / (samples + 1) * n), round((other + 0.5) / (samples + 1) * n)
    radii = [proof(first, min(second, n - first), n, alpha, share).radius for share in shares]
    return shares[radii.index(max(radii))]


@dataclass(frozen=True)
class Chosen:
    """What selection votes say of an image.

    Attributes
    ----------
    classes : list of int
        The class to certify at each level.
    shares : list of float
        Share of alpha for the runner-up at each level.
    expected, one_sided : list of float
        The radii that levels are ranked by, and those for one-sided certificates.
    lacking : str or None
        Where the rule would have drawn other samples than are there.
    """

    classes: list[int]
    shares: list[float]
    expected: list[float]
    one_sided: list[float]
    lacking: str | None = None


def choose(cells: Sequence[Cell], sigmas: Sequence[float], rule: Rule) -> Chosen:
    """Follow a rule through an image's selection votes, and see that it would have drawn these."""
    k, rungs = len(cells), rule.rungs
    contending, reached = [True] * k, [0] * k
    lacking, every, shares = None, [True] * k, [0.0] * k
    agreeing = every
    for number, stop in enumerate(rungs):
        still = [one and (number == 0 or sum(contending) > 1) for one in contending]
        for at in range(k):
            if still[at]:
                reached[at] += 1
                if reached[at] > len(cells[at].sizes):
                    return Chosen([], [], [], [], f"lacks samples at sigma = {sigmas[at]:g}")
        now = [reached[at] - 1 for at in range(k)]
        classes = [cells[at].winner(now[at]) for at in range(k)]
        tops = [cells[at].top(classes[at], now[at]) for at in range(k)]
        samples = [cells[at].sizes[now[at]] for at in range(k)]
        shares = [rule.share(top.own, top.other, n) for top, n in zip(tops, samples, strict=True)]
        agreeing, below = every, [False] * k
        if rule.name == "anchor":
            agreeing, below = _agreeing(tops, samples, classes, rule, shares)
        if stop < rule.n0:
            racing = [one and other for one, other in zip(contending, agreeing, strict=True)]
            can = _can_win(tops, racing, stop, sigmas, rule, shares)
            keep = [can[at] or (contending[at] and below[at]) for at in range(k)]
            if any(still) and any(keep):
                contending = keep
    for at in range(k):
        if reached[at] < len(cells[at].sizes):
            lacking = f"has samples at sigma = {sigmas[at]:g} that would not have been drawn"
    alone = agreeing
    if rule.name == "anchor":
        alone, _ = _agreeing(tops, samples, classes, rule, [0.0] * k)

    def expected(among: Sequence[bool], alpha_shares: Sequence[float]) -> list[float]:
        found = [0.0] * k
        for at in range(k):
            if among[at] and (contending[at] or rule.joint):
                p, q = tops[at].own / samples[at], tops[at].other / samples[at]
                found[at] = sigmas[at] * float(rule.radius(p, q, alpha_shares[at]))
        best = max(value if one else 0.0 for value, one in zip(found, contending, strict=True))
        return [value if one else min(value, _DROPPED * best) for value, one in zip(found, contending, strict=True)]

    return Chosen(classes, shares, expected(agreeing, shares), expected(alone, [0.0] * k), lacking)


def _agreeing(
    tops: Sequence[tuple[int, int, int]],
    samples: Sequence[int],
    classes: Sequence[int],
    rule: Rule,
    shares: Sequence[float],
) -> tuple[list[bool], list[bool]]:
    """Return which levels agree with the smallest one that does not abstain, and which lie below that one."""
    answers, first = list[bool](), None
    for (own, other, _), n, one, share in zip(tops, samples, classes, shares, strict=True):
        if first is None:
            found = proof(own, other, n, rule.alpha, share)
            first = one if found.lower > found.upper else None
        answers.append(first is not None)
    among = [answer and one == first for answer, one in zip(answers, classes, strict=True)]
    return among, [not answer for answer in answers]


def _can_win(
    tops: Sequence[tuple[int, int, int]],
    contending: Sequence[bool],
    m: int,
    sigmas: Sequence[float],
    rule: Rule,
    shares: Sequence[float],
) -> list[bool]:
    """Return which of the contending levels, all with m samples, could still be the best of them."""
    certain, hopeful = [0.0] * len(tops), [0.0] * len(tops)
    for at, (own, other, _) in enumerate(tops):
        if contending[at]:
            p, q = (own + 0.25) / (m + 0.5), (other + 0.25) / (m + 0.5)
            certain[at] = sigmas[at] * float(rule.radius(p, q, shares[at]))
            high, low = float(upper_bound(own, m, _RACE_ERROR)), float(lower_bound(other, m, _RACE_ERROR))
            hopeful[at] = sigmas[at] * float(rule.radius(high, low, shares[at]))
    return [one and hopeful[at] >= max(certain) for at, one in enumerate(contending)]


def best_levels(expected: Sequence[float]) -> set[int]:
    """Return the levels that may be chosen: the first of the largest radius, and what float64 might take for it."""
    best = max(expected)
    found = {expected.index(best)}
    if best > 0:
        found |= {at for at, value in enumerate(expected) if 0 < best - value < _TIE * best}
    return found


@dataclass(frozen=True)
class Climb:
    """When to stop drawing estimation samples: sizes, and what counts as little."""

    rungs: tuple[int, ...]
    min_gain: float
    target_loss: float | None

    def problem(self, cell: Cell, one: int, alpha: Fraction, share: float) -> str | None:
        """Say where samples were drawn that the rule would not have drawn, or the other way round."""
        each, last = alpha / len(self.rungs), self.rungs[-1]

        def radius(p: float, q: float) -> float:
            own, other = int(p * last), -int(-q * last // 1)
            return float(max(proof(own, min(other, last - own), last, each, share).radius, mp.mpf(0)))

        for number, n in enumerate(self.rungs[:-1]):
            seen = Cell(cell.sizes[: number + 1], cell.votes[: number + 1])
            now = float(max(proof_of(seen, one, alpha, share, len(self.rungs)).radius, mp.mpf(0)))
            own, other, _ = cell.top(one, number)
            most = radius(float(upper_bound(own, n, each)), float(lower_bound(other, n, each)))
            margins = [(most, now * (1 + self.min_gain))]
            if self.target_loss is not None:
                wanted = (1 - self.target_loss) * radius((own + 0.5) / (n + 1), (other + 0.5) / (n + 1))
                margins.append((wanted, now))
            goes_on = all(more > less for more, less in margins)
            unsure = any(0 < abs(more - less) < _TIE * max(more, less) for more, less in margins)
            went_on = len(cell.sizes) > number + 1
            if went_on != goes_on and not unsure:
                return f"{'drew on' if went_on else 'stopped'} after {n} samples, against the rule"
            if not went_on:
                return None
        return None


def votes_of_one(own: int, n: int, one: int) -> Cell:
    """Return what runs of format 1 kept: the votes for one class."""
    votes: Mapping[int, int] = {one: own} if own else {}
    return Cell((n,), (votes,), complete=False)
