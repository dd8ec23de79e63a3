"""Is an image robust at a given radius? Asked with as few samples as the answer takes.

Confidence sequences hold after every number of votes at once, so that one may look often and stop at the first answer.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing._validate import SMALLEST_ALPHA
from smoothing._voting.noise import BLOCK
from smoothing.adaptive import CountVotes
from smoothing.bounds import alpha_shares
from smoothing.confidence import complement_above, signed_radius
from smoothing.selection import Outcome
from smoothing.sequences import sequence_bounds
from smoothing.votes import Tally, others

#: From one look to the next the number of samples grows by this factor: samples beyond need are a twentieth.
GROWTH = 1.1

#: The first looks: easy questions need fewer samples than one block of noise.
FIRST_LOOKS = (32, 64, 96)


#: Parameters a and b of a Beta distribution, for each of m images.
Prior = tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of n images, all of it fixed before estimation samples are drawn.

    Attributes
    ----------
    sigma, radius : arrays of shape (n,)
        Is the class certified by Eq. 2 at this noise level beyond this radius?
    classes, rival : int arrays of shape (n,)
        The class, and the one that selection samples put next.
    counts, rival_counts : int arrays of shape (n,)
        Their votes among n0 selection samples.
    n0 : int
    share : array of shape (n,)
        Share of alpha for the other classes; 0 where 1 less the bound of the class is theirs.
    alpha : float
        Failure probability of each answer.
    one_sided : bool
        Ask for the one-sided radius, with 1 - p_A in the place of p_B.
    """

    sigma: Float64[np.ndarray, " n"]
    radius: Float64[np.ndarray, " n"]
    classes: Int64[np.ndarray, " n"]
    rival: Int64[np.ndarray, " n"]
    counts: Int64[np.ndarray, " n"]
    rival_counts: Int64[np.ndarray, " n"]
    n0: int
    share: Float64[np.ndarray, " n"]
    alpha: float
    one_sided: bool

    def radii(
        self, rows: Int64[np.ndarray, " m"], votes: Int64[np.ndarray, "m classes"], n: int
    ) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
        """Return bounds of the radius of Eq. 2, from below and above, both sound after every n at once (M21)."""
        m, num_classes = votes.shape
        at, own_alpha, other_alpha = np.arange(m), *(part[rows] for part in alpha_shares(self.alpha, self.share))
        a, b = self.classes[rows], self.rival[rows]
        low, high = sequence_bounds(votes[at, a], n, own_alpha, prior=self._prior(self.counts[rows]))
        rest = np.maximum(np.nextafter(1.0 - high, -1.0), 0.0)  # other classes have as much, one of them its share
        next_low = rest if self.one_sided else np.maximum(np.nextafter(rest / (num_classes - 1), -1.0), 0.0)
        next_high = complement_above(low)
        some = other_alpha > 0
        if some.any():
            rest_votes, spent = others(votes[some], a[some, None]), other_alpha[some]
            prior = self._prior(self.rival_counts[rows][some])
            next_high[some] = np.minimum(next_high[some], _largest_upper(rest_votes, n, spent, prior))
            lower = _lower_of_next(rest_votes, b[some], n, spent, prior)
            next_low[some] = np.maximum(next_low[some], lower)
        sigma = self.sigma[rows]
        return signed_radius(sigma, low, next_high), -signed_radius(sigma, next_low, high)

    def _prior(self, counts: Int64[np.ndarray, " m"]) -> Prior:
        """Expect what selection saw."""
        return counts + 0.5, self.n0 - counts + 0.5


def _largest_upper(
    votes: Int64[np.ndarray, "m classes"], n: int, alpha: Float64[np.ndarray, " m"], prior: Prior
) -> Float64[np.ndarray, " m"]:
    """Return the largest upper bound of any class but the one in question, whose votes are -1, each at alpha."""
    m = len(votes)
    cells = np.unique(np.stack([np.repeat(np.arange(m), votes.shape[1]), votes.ravel()]), axis=1)
    row, counts = cells[:, cells[1] >= 0]  # classes with as many votes have the same bound
    _, upper = sequence_bounds(counts, n, alpha[row], prior=(prior[0][row], prior[1][row]))
    largest = np.zeros(m)
    np.maximum.at(largest, row, upper)
    return largest


def _lower_of_next(
    votes: Int64[np.ndarray, "m classes"],
    rival: Int64[np.ndarray, " m"],
    n: int,
    alpha: Float64[np.ndarray, " m"],
    prior: Prior,
) -> Float64[np.ndarray, " m"]:
    """Return a lower bound for the most probable class but the one in question.

    The rival has half of alpha, in case selection named the right one; all others share the other half equally. Only
    the rival and the most voted class are looked at. Parts below 1e-100 prove nothing: the bound is 0.
    """
    every, most = np.arange(len(votes)), votes.argmax(axis=1)
    of_rival = _lower(votes[every, rival], n, alpha / 2, prior)
    of_most = _lower(votes[every, most], n, alpha / (2 * max(votes.shape[1] - 2, 1)), prior)
    return np.where(rival == most, of_rival, np.maximum(of_rival, of_most))


def _lower(
    counts: Int64[np.ndarray, " m"], n: int, alpha: Float64[np.ndarray, " m"], prior: Prior
) -> Float64[np.ndarray, " m"]:
    found, some = np.zeros(len(counts)), alpha >= SMALLEST_ALPHA
    found[some], _ = sequence_bounds(counts[some], n, alpha[some], prior=(prior[0][some], prior[1][some]))
    return found


def ask(
    tally: Tally,
    found: Outcome,
    sigma: Float64[np.ndarray, " n"],
    radius: Float64[np.ndarray, " n"],
    alpha: float,
    *,
    one_sided: bool,
) -> Question:
    """Turn selection samples at one level for each image into the question that estimation samples answer."""
    votes, classes = tally.votes[-1][:, 0], found.classes[:, 0]
    every = np.arange(len(votes))
    rest = others(votes, classes[:, None])
    rival = rest.argmax(axis=1)
    return Question(
        sigma=sigma,
        radius=radius,
        classes=classes,
        rival=rival,
        counts=votes[every, classes],
        rival_counts=votes[every, rival],
        n0=tally.rungs[-1],
        share=found.share[:, 0],
        alpha=alpha,
        one_sided=one_sided,
    )


def looks(most: int) -> tuple[int, ...]:
    """Return after how many samples to look at the votes: often at first, then in whole blocks of noise."""
    sizes = list(FIRST_LOOKS)
    blocks = 1
    while blocks * BLOCK < most:
        sizes.append(blocks * BLOCK)
        blocks = max(blocks + 1, round(blocks * GROWTH))
    return (*(size for size in sizes if size < most), most)


def decide(
    question: Question, num_classes: int, most: int, count: CountVotes
) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"], Int64[np.ndarray, "n classes"]]:
    """Draw samples until each image's question is answered, or there are `most`.

    Returns
    -------
    answer : int array of shape (n,)
        1 yes, 0 no, -1 not decided.
    n : int array of shape (n,)
        Samples drawn.
    votes : int array of shape (n, num_classes)
    """
    size = len(question.sigma)
    answer, drawn = np.full(size, -1), np.zeros(size, dtype=np.int64)
    votes = np.zeros((size, num_classes), dtype=np.int64)
    for start, stop in itertools.pairwise((0, *looks(most))):
        open_: Bool[np.ndarray, " n"] = answer < 0
        if not open_.any():
            break
        votes += count(open_[:, None], start, stop)[:, 0]
        drawn[open_] = stop
        rows = np.flatnonzero(open_)
        below, above = question.radii(rows, votes[rows], stop)
        answer[rows] = np.where(below > question.radius[rows], 1, np.where(above <= question.radius[rows], 0, -1))
    return answer, drawn, votes
