"""How far a figure of merit could be off: over other images of the same kind, and over the noise of certification."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from scipy import stats

#: Confidence of the intervals that reports show.
LEVEL = 0.95

#: Probability with which more certificates than `wrong_at_most` may be wrong.
DELTA = 0.001


@dataclass(frozen=True)
class Interval:
    """A mean over images, and where that of all images of the same kind lies with probability `LEVEL`, roughly.

    Attributes
    ----------
    mean, low, high : float
        NaN for `low` and `high` where there are fewer than two images.
    """

    mean: float
    low: float
    high: float

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out 0: for a difference, whether it is more than chance."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Float64[np.ndarray, " n"]) -> Interval:
    """Return the mean of values of n images with its Student interval.

    The images count as a sample of all those that could have been taken. Pass the differences of two rules on the same
    images for a paired interval, which is much narrower than the two intervals suggest: hard images are hard for both.
    The interval is approximate, because the values are not normally distributed; from some 30 images on it serves.
    """
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, math.nan, math.nan)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half)


def wrong_at_most(n: int, alpha: float, delta: float = DELTA) -> int:
    """Return how many of n certificates may be wrong, with probability at least 1 - delta over the noise.

    Each is wrong with probability at most alpha, independently of the others, since every image has noise of its own.
    So their number exceeds the (1 - delta) quantile of Bin(n, alpha) with probability at most delta. The number of
    certificates of any kind, less this number, is therefore a lower bound for how many of them hold, for all kinds at
    once: for all radii of a table, say.
    """
    found = int(stats.binom.ppf(1 - delta, n, alpha))
    while stats.binom.sf(found, n, alpha) > delta:  # where rounding took the quantile for one less
        found += 1
    return found
