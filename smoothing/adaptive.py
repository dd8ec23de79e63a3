"""Sampling as much as an image needs: a fixed ladder of sample sizes with the error budget split over its rungs.

All rungs' bounds hold at once with probability at least 1 - alpha (union bound), so that stopping at any rung, for any
reason, keeps the guarantee, and so does taking the best bound so far. Confidence sequences, which may be looked at
after every vote, are wider at the sizes that certificates need (benchmarks/results/samples.md).
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import _validate
from smoothing.bounds import runner_up_bounds
from smoothing.confidence import certified_radius, lower_confidence_bound, upper_confidence_bound, weighted_alpha
from smoothing.votes import Tally, others

#: Draws samples start to stop - 1 of the wanted images and levels, and returns votes of shape (n, k, classes).
CountVotes = Callable[[Bool[np.ndarray, "n k"], int, int], Int64[np.ndarray, "n k classes"]]


@dataclass(frozen=True)
class Ladder:
    """Sample sizes to try one after the other, what each may spend of alpha, and when to stop.

    Attributes
    ----------
    rungs : tuple of int
        Increasing sample sizes, such as (1000, 10_000, 100_000).
    min_gain : float, default=0.05
        Stop where the remaining rungs can add less than this share to the radius, if the class has its upper confidence
        bound and the runner-up its lower one. 0 stops only where nothing can be gained.
    weights : tuple of float, optional
        In which proportions the rungs spend alpha, in place of equal parts: 9 times the weight of the others makes the
        last of ten rungs spend half. What a rung spends is lost to the others, which costs a little radius; so give
        most to the size that most images need.
    target_loss : float, optional
        Stop also where the radius is within this share of what the last rung would certify if votes went on to fall as
        they do: 0.03 for three percent, in [0, 1). It is an expectation, and no image is promised it. An image
        that is not expected to be certified at all stops as well.

    Raises
    ------
    ValueError
        When the sizes do not increase, when min_gain is not a finite number >= 0, when there is not one weight > 0 for
        each rung, and for target_loss outside [0, 1).

    Notes
    -----
    Stopping early costs radius: from 100,000 to 50,000 samples 0.7 to 2.3 % of the average, to 20,000 samples 2 to
    6 %, and an allotment of samples that knew all probabilities would lose nearly as much. A ladder is seldom much
    better than one fixed size (benchmarks/results/samples.md). For one question at one radius there is
    `SmoothedClassifier.certify_at`. Sample sizes for each image after a look at few votes: Horvath
    et al. (2022); Chen et al. (2022).
    """

    rungs: tuple[int, ...]
    min_gain: float = 0.05
    weights: tuple[float, ...] | None = field(default=None, kw_only=True)
    target_loss: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        rungs = tuple(_validate.check_count("rungs", size) for size in self.rungs)
        if not rungs or any(later <= earlier for earlier, later in itertools.pairwise(rungs)):
            raise ValueError(f"rungs = {rungs}: sample sizes must increase, and there must be at least one")
        _validate.check_number("min_gain", self.min_gain, 0, strict=False)
        if self.weights is not None:
            weights = tuple(_validate.check_number("weights", weight, 0, strict=True) for weight in self.weights)
            if len(weights) != len(rungs):
                raise ValueError(f"weights = {weights}: expected one for each of {len(rungs)} rungs")
        loss = 0.0 if self.target_loss is None else self.target_loss
        if _validate.check_number("target_loss", loss, 0, strict=False) >= 1:
            raise ValueError(f"target_loss = {loss}: a share of the radius, such as 0.01, lies in [0, 1)")

    @classmethod
    def geometric(
        cls,
        first: int,
        last: int,
        ratio: float = 2.0,
        *,
        last_share: float = 0.8,
        min_gain: float = 0.05,
        target_loss: float | None = None,
    ) -> "Ladder":
        """Return a ladder whose sizes grow by a ratio from about `first` to exactly `last`.

        Parameters
        ----------
        first, last : int
            The smallest size is the smallest last / ratio^k that is at least `first`.
        ratio : float, default=2.0
            More than 1.
        last_share : float, default=0.8
            The part of alpha that the last rung spends, in (0, 1); the others share the rest equally.
        min_gain, target_loss
            As in `Ladder`.

        Examples
        --------
        >>> Ladder.geometric(10_000, 100_000).rungs
        (12500, 25000, 50000, 100000)
        """
        first, last = _validate.check_count("first", first), _validate.check_count("last", last)
        step = _validate.check_number("ratio", ratio, 1, strict=True)
        share = _validate.check_number("last_share", last_share, 0, strict=True)
        if first > last:
            raise ValueError(f"first = {first}: must be at most last = {last}")
        if share >= 1:
            raise ValueError(f"last_share = {share}: a part of alpha lies between 0 and 1")
        sizes, size = {last}, last / step
        while round(size) >= first:
            sizes.add(round(size))
            size /= step
        rungs = tuple(sorted(sizes))
        others = len(rungs) - 1
        weights = ((1 - share) / others,) * others + (share,) if others else None
        return cls(rungs, min_gain, weights=weights, target_loss=target_loss)

    def alphas(self, alpha: float) -> tuple[float, ...]:
        """Return the failure probability of each rung; together they do not exceed alpha."""
        return weighted_alpha(alpha, [1.0] * len(self.rungs) if self.weights is None else self.weights)


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
    rungs, parts = ladder.rungs, ladder.alphas(alpha)
    active, reached = wanted.copy(), np.zeros(classes.shape, dtype=np.int64)
    lower, upper, votes = np.zeros(classes.shape), np.ones(classes.shape), list[np.ndarray]()
    for (start, stop), each in zip(itertools.pairwise((0, *rungs)), parts, strict=True):
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
        active[active] = _worthwhile(ladder, now, own, other, stop, each, parts[-1], share[active])
    return Tally(rungs, np.stack(votes), reached)


def _worthwhile(
    ladder: Ladder,
    now: Float64[np.ndarray, " m"],
    own: Int64[np.ndarray, " m"],
    other: Int64[np.ndarray, " m"],
    n: int,
    alpha: float,
    final: float,
    share: Float64[np.ndarray, " m"],
) -> Bool[np.ndarray, " m"]:
    """Tell where to go on after n votes, at sigma = 1: a heuristic, which the guarantee does not depend on."""
    last = ladder.rungs[-1]

    def radius(p: Float64[np.ndarray, " m"], q: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
        counts, rest = np.floor(p * last).astype(np.int64), np.ceil(q * last).astype(np.int64)
        return certified_radius(1.0, *runner_up_bounds(counts, np.minimum(rest, last - counts), last, final, share))

    most = radius(upper_confidence_bound(own, n, alpha), lower_confidence_bound(other, n, alpha))
    more = most > now * (1 + ladder.min_gain)
    if ladder.target_loss is not None:
        more &= now < (1 - ladder.target_loss) * radius((own + 0.5) / (n + 1), (other + 0.5) / (n + 1))
    return np.asarray(more)
