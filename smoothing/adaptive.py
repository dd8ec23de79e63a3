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
from smoothing.bounds import runner_up_bounds
from smoothing.confidence import certified_radius, lower_confidence_bound, shared_alpha, upper_confidence_bound
from smoothing.votes import Tally, others

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
        Stop where the remaining rungs can add less than this share to the radius, if the class has its upper confidence
        bound and the runner-up its lower one. 0 stops only where nothing can be gained.

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
    share: Float64[np.ndarray, "n k"],
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
    share : array of shape (n, k)
        Share of alpha for the other classes (`bounds.split_alpha`).
    wanted : bool array of shape (n, k)
        Which levels of which images to certify.
    count : callable
        count(wanted, start, stop) draws samples start to stop - 1 of the wanted images and levels.

    Returns
    -------
    Tally
        The votes; `bounds.counted_bounds` says what they prove.
    """
    rungs = ladder.rungs
    each, last = shared_alpha(alpha, len(rungs)), rungs[-1]
    active, reached = wanted.copy(), np.zeros(classes.shape, dtype=np.int64)
    lower, upper, votes = np.zeros(classes.shape), np.ones(classes.shape), list[np.ndarray]()
    for start, stop in itertools.pairwise((0, *rungs)):
        if not active.any():
            votes.append(votes[-1])
            continue
        fresh = count(active, start, stop)
        votes.append(votes[-1] + fresh if votes else fresh)
        reached[active] += 1
        at = classes[active][:, None]
        own = np.take_along_axis(votes[-1][active], at, axis=1)[:, 0]
        other = others(votes[-1][active], at).max(axis=1)
        p_lower, p_upper = runner_up_bounds(own, other, stop, each, share[active])
        lower[active] = np.maximum(lower[active], p_lower)
        upper[active] = np.minimum(upper[active], p_upper)
        now = certified_radius(1.0, lower[active], upper[active])
        hoped = np.floor(upper_confidence_bound(own, stop, each) * last).astype(np.int64)
        rest = np.ceil(lower_confidence_bound(other, stop, each) * last).astype(np.int64)
        most = runner_up_bounds(hoped, np.minimum(rest, last - hoped), last, each, share[active])
        active[active] = certified_radius(1.0, *most) > now * (1 + ladder.min_gain)
    return Tally(rungs, np.stack(votes), reached)
