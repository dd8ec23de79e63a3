"""Choosing a noise level for every image from selection samples (Eq. 5, Eq. 7), and dropping hopeless levels early.

A rule ranks levels by the radius that so many samples would certify if they voted like the samples seen. No rule sees a
label but Eq. 5, which is for training images. Nothing here needs to be sound: certificates come from fresh samples.
"""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing.confidence import certified_radius, lower_confidence_bound, upper_confidence_bound

#: The rules, and what they maximise over the grid.
RULES: Mapping[str, str] = {
    "max-radius": "the radius that the selection samples alone would certify (Eq. 7)",
    "expected-radius": "the radius that the final n samples would certify if they voted like the selection samples",
    "anchor": "the expected radius, among the levels that agree with the smallest level that does not abstain",
}

#: Racing looks at the votes after so many samples.
RACE_RUNGS = (128, 256, 512)

#: A level is dropped where even its upper bound at this one-sided error does not reach the leader. Measured: smaller
#: errors save less, larger ones begin to cost radius (benchmarks/results/select.md).
RACE_ERROR = 0.3

CountVotes = Callable[[Bool[np.ndarray, "n k"], int, int], Int64[np.ndarray, "n k classes"]]


@dataclass(frozen=True, eq=False)
class Ballot:
    """Votes for one class of every image at every level, and the radii that they let us expect.

    Attributes
    ----------
    sigmas : array of shape (k,)
        The grid, increasing.
    classes, counts, samples : int arrays of shape (n, k)
        The class, its votes, and out of how many.
    size : int
        How many samples the radius is imagined for: n0 for "max-radius", the final n otherwise.
    alpha : float
        At which failure probability.
    """

    sigmas: Float64[np.ndarray, " k"]
    classes: Int64[np.ndarray, "n k"]
    counts: Int64[np.ndarray, "n k"]
    samples: Int64[np.ndarray, "n k"]
    size: int
    alpha: float

    def radius(self, p: Float64[np.ndarray, "n k"]) -> Float64[np.ndarray, "n k"]:
        """Return the radius that `size` samples certify if a share p of them votes for the class."""
        counts = np.rint(p * self.size).astype(np.int64)
        sigmas = np.broadcast_to(self.sigmas, p.shape)
        return certified_radius(sigmas, lower_confidence_bound(counts, self.size, self.alpha))

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


def select(
    count: CountVotes,
    sigmas: Float64[np.ndarray, " k"],
    images: int,
    n0: int,
    size: int,
    rule: str,
    alpha: float,
    *,
    racing: bool,
    labels: Int64[np.ndarray, " n"] | None = None,
) -> Outcome:
    """Choose every image's level.

    Parameters
    ----------
    count : callable
        count(wanted, start, stop) draws samples start to stop - 1 of the wanted images and levels.
    sigmas, images, n0, alpha
        Grid, number of images, most samples of a level, failure probability that radii are imagined for.
    size : int
        Samples that the radii are imagined for.
    rule : str
        One of `RULES`.
    racing : bool
        Look at the votes after `RACE_RUNGS` samples, and draw no more for levels that cannot win.
    labels : int array of shape (images,), optional
        Count votes for the label (Eq. 5); where another class wins, the radius is 0.
    """
    rungs = [rung for rung in RACE_RUNGS if rung < n0] if racing else []
    samples = np.zeros((images, len(sigmas)), dtype=np.int64)
    contending = np.ones(samples.shape, dtype=bool)
    votes = None
    for start, stop in itertools.pairwise((0, *rungs, n0)):
        racing_still = contending & (contending.sum(axis=1, keepdims=True) > 1) if start else contending
        fresh = count(racing_still, start, stop)
        votes = fresh if votes is None else votes + fresh
        samples[racing_still] = stop
        ballot = _ballot(votes, samples, sigmas, size, alpha, labels)
        agreeing, below = ballot.agreeing() if rule == "anchor" else (contending, np.zeros_like(contending))
        undecided = racing_still.any(axis=1, keepdims=True)
        if stop < n0:
            keep = ballot.can_win(contending & agreeing, stop) | (contending & below)
            contending = np.where(undecided & keep.any(axis=1, keepdims=True), keep, contending)
    radii = np.where(contending & agreeing, ballot.expected(), 0.0)
    return Outcome(radii.argmax(axis=1), ballot.classes, radii, samples)


def _ballot(
    votes: Int64[np.ndarray, "n k classes"],
    samples: Int64[np.ndarray, "n k"],
    sigmas: Float64[np.ndarray, " k"],
    size: int,
    alpha: float,
    labels: Int64[np.ndarray, " n"] | None,
) -> Ballot:
    classes = votes.argmax(axis=2)
    if labels is not None:
        classes = np.repeat(labels[:, None], len(sigmas), axis=1)
    counts = np.take_along_axis(votes, classes[..., None], axis=2)[..., 0]
    return Ballot(sigmas, classes, counts, samples, size, alpha)
