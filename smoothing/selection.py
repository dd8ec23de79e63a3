"""Choosing a noise level for every image from selection samples (Eq. 5, Eq. 7), and dropping hopeless levels early.

A rule ranks levels by the radius that so many samples would certify if they voted like the samples seen. No rule sees a
label but Eq. 5, which is for training images. Nothing here needs to be sound: certificates come from fresh samples.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing.adaptive import CountVotes
from smoothing.bounds import runner_up_bounds, split_alpha
from smoothing.confidence import certified_radius, lower_confidence_bound, upper_confidence_bound
from smoothing.votes import Tally, Votes, others

#: The rules, and what they maximise over the grid.
RULES: Mapping[str, str] = {
    "max-radius": "the radius that the selection samples alone would certify (Eq. 7)",
    "expected-radius": "the radius that the final n samples would certify if they voted like the selection samples",
    "anchor": "the expected radius, among the levels that agree with the smallest level that does not abstain",
}

#: Numbers of votes that are held at once while stored votes are looked at again.
MOST_VOTES_AT_ONCE = 2**22

#: Racing looks at the votes after so many samples.
RACE_RUNGS = (128, 256, 512)

#: In a joint choice, a level that dropped out counts as at most this share of the best one that is left: it may be
#: taken, but it is never the image's own best.
DROPPED = 1 - 2.0**-20

#: A level is dropped where even its upper bound at this one-sided error does not reach the leader. Measured: smaller
#: errors save less, larger ones begin to cost radius (benchmarks/results/select.md).
RACE_ERROR = 0.3


@dataclass(frozen=True, eq=False)
class Ballot:
    """Votes for one class of every image at every level, and the radii that they let us expect.

    Attributes
    ----------
    sigmas : array of shape (n, k)
        The noise levels.
    classes, counts, other, samples : int arrays of shape (n, k)
        The class, its votes, the most votes of any other class, and out of how many.
    size : int
        How many samples the radius is imagined for: n0 for "max-radius", the final n otherwise.
    alpha : float
        At which failure probability.
    share : array of shape (n, k)
        Share of alpha for the other classes; 0 is the one-sided bound.
    """

    sigmas: Float64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "n k"]
    counts: Int64[np.ndarray, "n k"]
    other: Int64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    size: int
    alpha: float
    share: Float64[np.ndarray, "n k"]

    def radius(self, p: Float64[np.ndarray, "n k"], q: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the radius that `size` samples certify if a share p of them votes for the class, q for the next."""
        counts, other = (np.rint(part * self.size).astype(np.int64) for part in (p, q))
        other = np.minimum(other, self.size - counts)
        return certified_radius(self.sigmas, *runner_up_bounds(counts, other, self.size, self.alpha, self.share))

    def expected(self) -> Float64[np.ndarray, "n k"]:
        """Return the radius at the observed shares of votes."""
        return self.radius(self.counts / self.samples, self.other / self.samples)

    def can_win(self, contending: Bool[np.ndarray, "n k"], m: int) -> Bool[np.ndarray, "n k"]:
        """Tell which of the contending levels, all with m samples, could still be the best of them.

        The leader's shares are drawn slightly towards 1/2, (count + 1/4) / (m + 1/2): a unanimous vote of 128 does not
        mean certainty.
        """
        own = np.minimum(self.counts, m)
        other = np.minimum(self.other, m - own)
        certain = self.radius((own + 0.25) / (m + 0.5), (other + 0.25) / (m + 0.5))
        leader = np.where(contending, certain, 0).max(axis=1, keepdims=True)
        upper, lower = upper_confidence_bound(own, m, RACE_ERROR), lower_confidence_bound(other, m, RACE_ERROR)
        return np.asarray(contending & (self.radius(upper, lower) >= leader))

    def agreeing(self) -> tuple[Bool[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
        """Return which levels agree with the smallest level that does not abstain, and which lie below that one."""
        p_lower, p_upper = runner_up_bounds(self.counts, self.other, self.samples, self.alpha, self.share)
        answers = np.cumsum(p_lower > p_upper, axis=1) > 0
        first = self.classes[np.arange(len(answers)), answers.argmax(axis=1)]
        return answers & (self.classes == first[:, None]), ~answers


@dataclass(frozen=True, eq=False)
class Outcome:
    """A rule's decision: each image's level, and the table behind it; fields as in `SigmaChoice`.

    `one_sided` is what the rule ranks by where certificates are to be one-sided.
    """

    level: Int64[np.ndarray, " n"]
    classes: Int64[np.ndarray, "n k"]
    expected_radius: Float64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    share: Float64[np.ndarray, "n k"]
    one_sided: Float64[np.ndarray, "n k"]


@dataclass(frozen=True)
class Plan:
    """How levels are chosen.

    Attributes
    ----------
    n0 : int
        Most selection samples of a level.
    rule : str
        One of `RULES`.
    alpha : float
        Failure probability of the certificate of an image, for which radii are imagined.
    final : int
        How many samples will certify, for which alpha is split; n0 where that is not known.
    racing : bool, default=False
        Look at the votes after `RACE_RUNGS` samples, and draw no more for levels that cannot win.
    bound : {"runner-up", "top-class"}, default="runner-up"
        What the certificates will be made of (`bounds.BOUNDS`): the radii are imagined likewise.
    joint : bool, default=False
        Levels will be chosen together with the radii of regions, which may take an image's second best: a level that
        racing dropped then has the radius that the samples it got let expect, and not 0.
    """

    n0: int
    rule: str
    alpha: float
    final: int
    racing: bool = False
    bound: str = "runner-up"
    joint: bool = False

    @property
    def size(self) -> int:
        """For how many samples the rule imagines radii."""
        return self.n0 if self.rule == "max-radius" else self.final

    @property
    def rungs(self) -> tuple[int, ...]:
        """After how many samples of a level the votes are looked at."""
        return (*(rung for rung in RACE_RUNGS if self.racing and rung < self.n0), self.n0)


def select(
    count: CountVotes,
    sigmas: Float64[np.ndarray, "n k"],
    plan: Plan,
    labels: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Outcome, Tally]:
    """Choose every image's level; return the decision, and the votes that it was made by.

    Parameters
    ----------
    count : callable
        count(wanted, start, stop) draws samples start to stop - 1 of the wanted images and levels.
    sigmas : array of shape (n, k)
        Each image's levels to choose from, increasing.
    plan : Plan
    labels : int array of shape (n,), optional
        Count votes for the label (Eq. 5); where another class wins, the radius is 0.
    """
    rungs, anchored = plan.rungs, plan.rule == "anchor"
    reached = np.zeros(sigmas.shape, dtype=np.int64)
    contending = np.ones(sigmas.shape, dtype=bool)
    votes: list[np.ndarray] = []
    every = contending
    for start, stop in itertools.pairwise((0, *rungs)):
        racing_still = contending & (contending.sum(axis=1, keepdims=True) > 1) if start else contending
        fresh = count(racing_still, start, stop)
        votes.append(votes[-1] + fresh if votes else fresh)
        reached[racing_still] += 1
        samples = np.array(rungs)[reached - 1]
        ballot = _ballot(votes[-1], samples, sigmas, plan, labels)
        agreeing, below = ballot.agreeing() if anchored else (every, np.zeros_like(contending))
        undecided = racing_still.any(axis=1, keepdims=True)
        if stop < plan.n0:
            keep = ballot.can_win(contending & agreeing, stop) | (contending & below)
            contending = np.where(undecided & keep.any(axis=1, keepdims=True), keep, contending)
    radii = _ranked(ballot.expected(), agreeing, contending, plan)
    alone = replace(ballot, share=np.zeros_like(ballot.share))
    agreeing = alone.agreeing()[0] if anchored else agreeing
    one_sided = _ranked(alone.expected(), agreeing, contending, plan)
    outcome = Outcome(radii.argmax(axis=1), ballot.classes, radii, samples, ballot.share, one_sided)
    return outcome, Tally(rungs, np.stack(votes), reached)


def _ranked(
    radii: Float64[np.ndarray, "n k"],
    admitted: Bool[np.ndarray, "n k"],
    contending: Bool[np.ndarray, "n k"],
    plan: Plan,
) -> Float64[np.ndarray, "n k"]:
    """Return what levels are ranked by: 0 where the rule does not admit one, and where one dropped out for good."""
    left = np.where(contending & admitted, radii, 0.0)
    if not plan.joint:
        return left
    behind = np.minimum(radii, DROPPED * left.max(axis=1, keepdims=True))
    return np.where(admitted & ~contending, behind, left)


def select_again(votes: Votes, num_classes: int, sigmas: Float64[np.ndarray, "n k"], plan: Plan) -> Outcome | None:
    """Return what `select` decided, from the votes that it drew.

    None where it would have drawn others: then they are not of this plan.
    """
    n, k = sigmas.shape
    together = max(1, MOST_VOTES_AT_ONCE // (k * num_classes))
    parts = []
    for first in range(0, max(n, 1), together):
        part = slice(first, min(first + together, n))
        stored = _Stored(votes.dense(part, num_classes))
        try:
            found, drawn = select(stored.count, sigmas[part], plan)
        except _LackingError:
            return None
        if not np.array_equal(drawn.reached, stored.tally.reached):
            return None
        parts.append(found)
    columns = {field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Outcome)}
    return Outcome(**columns)


class _LackingError(Exception):
    """Votes are asked for that were not drawn."""


@dataclass(frozen=True, eq=False)
class _Stored:
    """Gives stored votes as if they were drawn now."""

    tally: Tally

    def count(self, wanted: Bool[np.ndarray, "n k"], start: int, stop: int) -> Int64[np.ndarray, "n k classes"]:
        last = self.tally.rungs.index(stop)
        if (self.tally.reached[wanted] <= last).any():
            raise _LackingError
        votes = self.tally.votes
        return np.where(wanted[..., None], votes[last] - votes[last - 1] if start else votes[last], 0)


def _ballot(
    votes: Int64[np.ndarray, "n k classes"],
    samples: Int64[np.ndarray, "n k"],
    sigmas: Float64[np.ndarray, "n k"],
    plan: Plan,
    labels: Int64[np.ndarray, " n"] | None,
) -> Ballot:
    classes = votes.argmax(axis=2)
    if labels is not None:
        classes = np.repeat(labels[:, None], sigmas.shape[1], axis=1)
    counts = np.take_along_axis(votes, classes[..., None], axis=2)[..., 0]
    other = others(votes, classes[..., None]).max(axis=2)
    share = np.zeros(sigmas.shape)
    if plan.bound == "runner-up":
        share = split_alpha(counts, other, samples, votes.shape[2], plan.final, plan.alpha)
    return Ballot(sigmas, classes, counts, other, samples, plan.size, plan.alpha, share)
