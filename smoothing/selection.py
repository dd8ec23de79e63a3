"""Choosing a noise level for every image from selection samples (Eq. 5, Eq. 7), and dropping hopeless levels early.

A rule ranks levels by the radius that so many samples would certify if they voted like the samples seen. No rule sees a
label but Eq. 5, which is for training images. Nothing here needs to be sound: certificates come from fresh samples.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing.adaptive import CountVotes
from smoothing.confidence import certified_radius, lower_confidence_bound, upper_confidence_bound
from smoothing.votes import Tally, Votes

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
    classes, counts, samples : int arrays of shape (n, k)
        The class, its votes, and out of how many.
    size : int
        How many samples the radius is imagined for: n0 for "max-radius", the final n otherwise.
    alpha : float
        At which failure probability.
    """

    sigmas: Float64[np.ndarray, "n k"]
    classes: Int64[np.ndarray, "n k"]
    counts: Int64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    size: int
    alpha: float

    def radius(self, p: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the radius that `size` samples certify if a share p of them votes for the class."""
        counts = np.rint(p * self.size).astype(np.int64)
        return certified_radius(self.sigmas, lower_confidence_bound(counts, self.size, self.alpha))

    def expected(self) -> Float64[np.ndarray, "n k"]:
        """Return the radius at the observed share of votes."""
        return self.radius(self.counts / self.samples)

    def can_win(self, contending: Bool[np.ndarray, "n k"], m: int) -> Bool[np.ndarray, "n k"]:
        """Tell which of the contending levels, all with m samples, could still be the best of them.

        The leader's share is drawn slightly towards 1/2, (count + 1/4) / (m + 1/2): a unanimous vote of 128 does not
        mean certainty.
        """
        leader = np.where(contending, self.radius((self.counts + 0.25) / (m + 0.5)), 0).max(axis=1, keepdims=True)
        upper = upper_confidence_bound(np.minimum(self.counts, m), m, RACE_ERROR)
        return np.asarray(contending & (self.radius(upper) >= leader))

    def agreeing(self) -> tuple[Bool[np.ndarray, "n k"], Bool[np.ndarray, "n k"]]:
        """Return which levels agree with the smallest level that does not abstain, and which lie below that one."""
        bound = np.zeros(self.counts.shape)
        for m in np.unique(self.samples):
            drawn = self.samples == m
            bound[drawn] = lower_confidence_bound(self.counts[drawn], int(m), self.alpha)
        answers = np.cumsum(bound > 0.5, axis=1) > 0
        first = self.classes[np.arange(len(answers)), answers.argmax(axis=1)]
        return answers & (self.classes == first[:, None]), ~answers


@dataclass(frozen=True, eq=False)
class Outcome:
    """A rule's decision: each image's level, and the table behind it; fields as in `SigmaChoice`."""

    level: Int64[np.ndarray, " n"]
    classes: Int64[np.ndarray, "n k"]
    radii: Float64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]


def selection_rungs(n0: int, racing: bool) -> tuple[int, ...]:
    """Return after how many samples of a level the votes are looked at."""
    return (*(rung for rung in RACE_RUNGS if racing and rung < n0), n0)


def select(
    count: CountVotes,
    sigmas: Float64[np.ndarray, "n k"],
    n0: int,
    size: int,
    rule: str,
    alpha: float,
    *,
    racing: bool,
    labels: Int64[np.ndarray, " n"] | None = None,
) -> tuple[Outcome, Tally]:
    """Choose every image's level; return the decision, and the votes that it was made by.

    Parameters
    ----------
    count : callable
        count(wanted, start, stop) draws samples start to stop - 1 of the wanted images and levels.
    sigmas : array of shape (n, k)
        Each image's levels to choose from, increasing.
    n0 : int
        Most samples of a level.
    size : int
        Samples that the radii are imagined for.
    rule : str
        One of `RULES`.
    alpha : float
        Failure probability that the radii are imagined for.
    racing : bool
        Look at the votes after `RACE_RUNGS` samples, and draw no more for levels that cannot win.
    labels : int array of shape (n,), optional
        Count votes for the label (Eq. 5); where another class wins, the radius is 0.
    """
    rungs = selection_rungs(n0, racing)
    reached = np.zeros(sigmas.shape, dtype=np.int64)
    contending = np.ones(sigmas.shape, dtype=bool)
    votes: list[np.ndarray] = []
    for start, stop in itertools.pairwise((0, *rungs)):
        racing_still = contending & (contending.sum(axis=1, keepdims=True) > 1) if start else contending
        fresh = count(racing_still, start, stop)
        votes.append(votes[-1] + fresh if votes else fresh)
        reached[racing_still] += 1
        samples = np.array(rungs)[reached - 1]
        ballot = _ballot(votes[-1], samples, sigmas, size, alpha, labels)
        agreeing, below = ballot.agreeing() if rule == "anchor" else (contending, np.zeros_like(contending))
        undecided = racing_still.any(axis=1, keepdims=True)
        if stop < n0:
            keep = ballot.can_win(contending & agreeing, stop) | (contending & below)
            contending = np.where(undecided & keep.any(axis=1, keepdims=True), keep, contending)
    radii = np.where(contending & agreeing, ballot.expected(), 0.0)
    return Outcome(radii.argmax(axis=1), ballot.classes, radii, samples), Tally(rungs, np.stack(votes), reached)


def select_again(
    votes: Votes,
    num_classes: int,
    sigmas: Float64[np.ndarray, "n k"],
    n0: int,
    size: int,
    rule: str,
    alpha: float,
    *,
    racing: bool,
) -> Outcome | None:
    """Return what `select` decided, from the votes that it drew.

    None where it would have drawn others: then they are not of these arguments.
    """
    n, k = sigmas.shape
    together = max(1, MOST_VOTES_AT_ONCE // (k * num_classes))
    level, classes = np.zeros(n, dtype=np.int64), np.zeros((n, k), dtype=np.int64)
    radii, samples = np.zeros((n, k)), np.zeros((n, k), dtype=np.int64)
    for first in range(0, n, together):
        part = slice(first, min(first + together, n))
        stored = _Stored(votes.dense(part, num_classes))
        try:
            found, drawn = select(stored.count, sigmas[part], n0, size, rule, alpha, racing=racing)
        except _LackingError:
            return None
        if not np.array_equal(drawn.reached, stored.tally.reached):
            return None
        level[part], classes[part], radii[part], samples[part] = found.level, found.classes, found.radii, found.samples
    return Outcome(level, classes, radii, samples)


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
    size: int,
    alpha: float,
    labels: Int64[np.ndarray, " n"] | None,
) -> Ballot:
    classes = votes.argmax(axis=2)
    if labels is not None:
        classes = np.repeat(labels[:, None], sigmas.shape[1], axis=1)
    counts = np.take_along_axis(votes, classes[..., None], axis=2)[..., 0]
    return Ballot(sigmas, classes, counts, samples, size, alpha)
