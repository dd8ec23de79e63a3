"""Sampling as much as an image needs: a fixed ladder of sample sizes with the error budget split over its rungs.

All rungs' bounds hold at once with probability at least 1 - alpha (union bound), so that stopping at any rung, for any
reason, keeps the guarantee, and so does taking the best bound so far.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from smoothing import _validate
from smoothing.confidence import certified_radius, lower_confidence_bound, shared_alpha, upper_confidence_bound


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


@dataclass(frozen=True, eq=False)
class Climb:
    """Where each image stopped.

    Attributes
    ----------
    counts, n : int arrays of shape (n,)
        Votes for the image's class, out of so many.
    p_lower : array of shape (n,)
        The best lower bound of the rungs reached.
    """

    counts: Int64[np.ndarray, " n"]
    n: Int64[np.ndarray, " n"]
    p_lower: Float64[np.ndarray, " n"]


def climb(
    ladder: Ladder,
    alpha: float,
    images: int,
    count: Callable[[Int64[np.ndarray, " active"], int, int], Int64[np.ndarray, " active"]],
) -> Climb:
    """Sample rung by rung and drop images that need no more.

    With probability at least 1 - alpha, per image, p_lower does not exceed the probability of the image's class.

    Parameters
    ----------
    ladder : Ladder
    alpha : float
        Failure probability per image, over all rungs.
    images : int
        How many images.
    count : callable
        count(rows, start, stop) draws samples start to stop - 1 of those images and returns the votes for their class.
    """
    share, last = shared_alpha(alpha, len(ladder.rungs)), ladder.rungs[-1]
    counts, n, p_lower = np.zeros(images, np.int64), np.zeros(images, np.int64), np.zeros(images)
    active = np.arange(images)
    for start, stop in itertools.pairwise((0, *ladder.rungs)):
        counts[active] += count(active, start, stop)
        n[active] = stop
        p_lower[active] = np.maximum(p_lower[active], lower_confidence_bound(counts[active], stop, share))
        now = certified_radius(np.ones(len(active)), p_lower[active])
        hoped = np.floor(upper_confidence_bound(counts[active], stop, share) * last).astype(np.int64)
        then = certified_radius(np.ones(len(active)), lower_confidence_bound(hoped, last, share))
        active = active[then > now * (1 + ladder.min_gain)]
        if not len(active):
            break
    return Climb(counts, n, p_lower)
