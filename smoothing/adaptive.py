"""Sampling as much as an image needs: a fixed ladder of sample sizes with the error budget split over its rungs.

All rungs' bounds hold at once with probability at least 1 - alpha (union bound), so that stopping at any rung, for any
reason, keeps the guarantee, and so does taking the best bound so far.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import _validate
from smoothing.confidence import certified_radius, lower_confidence_bound, shared_alpha, upper_confidence_bound
from smoothing.votes import Counts, Tally

#: Draws samples start to stop - 1 of the wanted images and levels, and returns votes of shape (n, k, classes).
CountVotes = Callable[[Bool[np.ndarray, "n k"], int, int], Int64[np.ndarray, "n k classes"]]


@dataclass(frozen=True)
class Ladder:
    """Sample sizes to try one after the other, and when to stop.

    Attributes
    ----------
    rungs : tuple of int
        Increasing sample sizes, such as (1000, 10_000, 100_000). Each spends an equal share of alpha: with m rungs,
        every bound is computed at alpha / m, which costs a little radius where all rungs are needed.
    min_gain : float, default=0.05
        Stop where the remaining rungs can add less than this share to the radius, with the probability of the class at
        its upper confidence bound and at the same level of confidence. 0 stops only where nothing can be gained.

    Raises
    ------
    ValueError
        When the sizes do not increase or min_gain is not a finite number >= 0.
    """

    rungs: tuple[int, ...]
    min_gain: float = 0.05

    def __post_init__(self) -> None:
        rungs = tuple(_validate.check_count("rungs", size) for size in self.rungs)
        if not rungs or any(later <= earlier for earlier, later in itertools.pairwise(rungs)):
            raise ValueError(f"rungs = {rungs}: sample sizes must increase, and there must be at least one")
        _validate.check_number("min_gain", self.min_gain, 0, strict=False)


def climb(
    ladder: Ladder,
    alpha: float,
    classes: Int64[np.ndarray, "n k"],
    wanted: Bool[np.ndarray, "n k"],
    count: CountVotes,
) -> Tally:
    """Sample rung by rung, and stop at each image and level where more samples would add little.

    Parameters
    ----------
    ladder : Ladder
    alpha : float
        Failure probability of each image and level, over all rungs.
    classes : int array of shape (n, k)
        The classes that are certified.
    wanted : bool array of shape (n, k)
        Which levels of which images to certify.
    count : callable
        count(wanted, start, stop) draws samples start to stop - 1 of the wanted images and levels.

    Returns
    -------
    Tally
        The votes; `lower_bounds` says what they prove.
    """
    rungs = ladder.rungs
    share, last = shared_alpha(alpha, len(rungs)), rungs[-1]
    active, reached = wanted.copy(), np.zeros(classes.shape, dtype=np.int64)
    best, votes = np.zeros(classes.shape), list[np.ndarray]()
    for start, stop in itertools.pairwise((0, *rungs)):
        if active.any():
            fresh = count(active, start, stop)
            votes.append(votes[-1] + fresh if votes else fresh)
            reached[active] += 1
            own = np.take_along_axis(votes[-1], classes[..., None], axis=2)[..., 0][active]
            best[active] = np.maximum(best[active], lower_confidence_bound(own, stop, share))
            now = certified_radius(np.ones(len(own)), best[active])
            hoped = np.floor(upper_confidence_bound(own, stop, share) * last).astype(np.int64)
            then = certified_radius(np.ones(len(own)), lower_confidence_bound(hoped, last, share))
            active[active] = then > now * (1 + ladder.min_gain)
        else:
            votes.append(votes[-1])
    return Tally(rungs, np.stack(votes), reached)


def lower_bounds(counts: Counts, alpha: float) -> Float64[np.ndarray, "n k"]:
    """Return lower confidence bounds for the probability of each class that is certified.

    With probability at least 1 - alpha, for each image and level: the bound does not exceed the probability. Each of
    the m rounds that could be drawn spends alpha / m, whenever the drawing stopped, and the best bound is taken.

    Parameters
    ----------
    counts : Counts
        Votes after each of m rounds.
    alpha : float
        Failure probability of each image and level.

    Returns
    -------
    array of shape (n, k)
        0 where nothing was drawn.
    """
    share = shared_alpha(alpha, len(counts.n))
    bounds = np.zeros(counts.n.shape)
    drawn = counts.n > 0
    bounds[drawn] = lower_confidence_bound(counts.own[drawn], counts.n[drawn], share)
    return np.asarray(bounds.max(axis=0))
