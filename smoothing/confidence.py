"""Confidence bounds for votes, and the radius they certify.

Every function errs on the safe side, by a relative margin. It rests on two of SciPy's functions. `betainc(a, b, x)`
takes 1 - x, rounded, to the power of b: against 45-digit arithmetic it was found off by less than a tenth of
`tail_margin`, over random counts up to n = 1e9 and probabilities down to 1e-100; `ndtri` by 6e-16. `betaincinv` was
found off by 2e-8 for a few votes out of 1e9, wrong altogether near 1e-98 for 6 votes out of 12, and NaN below
1e-144: it proposes, and `betainc` decides.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from scipy import special

from smoothing import _validate

#: Least relative safety margin; it costs less than 1e-8 sigma of radius at n = 10,000.
MARGIN = 2.0**-36


def tail_margin(n: Any) -> np.ndarray:
    """Return the relative safety margin for probabilities of tails of n votes."""
    return np.asarray(MARGIN + n * 2.0**-50)


def lower_confidence_bound(counts: Any, n: Any, alpha: float) -> Float64[np.ndarray, "*shape"]:
    """One-sided Clopper-Pearson lower bound for the probability of a class, rounded down.

    The exact bound p solves P(Binomial(n, p) >= count) = alpha. What is returned is slightly below it, so that with
    probability at least 1 - alpha, per count, it does not exceed the true probability.

    Parameters
    ----------
    counts : int or array-like of int
        Votes for a class that was fixed before these votes were drawn, each in [0, n].
    n : int or array-like of int
        Votes drawn, from 1 to 10**9: one number, or an array that broadcasts with `counts`.
    alpha : float
        Failure probability, in [1e-100, 1).

    Returns
    -------
    float array of the shape to which counts and n broadcast
        In [0, 1); 0 where the count is 0. Not decreasing in the count.

    Raises
    ------
    ValueError
        For counts that are not whole numbers in [0, n], and for alpha out of range; the message names the value.
    """
    k, size = _counts_of(counts, n)
    alpha = _validate.check_alpha(alpha)
    bound = np.zeros(k.shape)
    some = k > 0
    a, b = k[some].astype(np.float64), (size - k + 1)[some].astype(np.float64)
    bound[some] = _quantile_below(a, b, alpha)
    return bound


def _quantile_below(
    a: Float64[np.ndarray, " some"], b: Float64[np.ndarray, " some"], alpha: float
) -> Float64[np.ndarray, " some"]:
    """Return numbers p with I_p(a, b) <= alpha, the regularized incomplete beta function, close to the largest.

    What `betaincinv` returns is only a proposal: it is lowered until `betainc` confirms it, whose error is known.
    """
    proposed, most = special.betaincinv(a, b, alpha), alpha * (1 - tail_margin(a + b))
    found = np.zeros(a.size)
    margin, left = MARGIN, np.arange(a.size)
    while left.size and margin < 1:
        trial = proposed[left] * (1 - margin)
        good = special.betainc(a[left], b[left], trial) <= most[left]  # false for NaN
        found[left[good]] = trial[good]
        margin, left = 2 * margin, left[~good]
    return found


def upper_confidence_bound(counts: Any, n: Any, alpha: float) -> Float64[np.ndarray, "*shape"]:
    """One-sided Clopper-Pearson upper bound for the probability of a class, rounded up: see `lower_confidence_bound`.

    Returns values in (0, 1]; 1 where every vote was for the class.
    """
    k, size = _counts_of(counts, n)
    return np.asarray(np.minimum(1.0, (1.0 - lower_confidence_bound(size - k, size, alpha)) * (1 + MARGIN)))


def _counts_of(counts: Any, n: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return votes and their totals, broadcast to one shape."""
    size, k = _broadcast("n", _validate.check_votes("n", n), "counts", _validate.check_votes("counts", counts))
    _validate.refuse_first("n", size, size >= 1, "at least one vote must be drawn")
    _validate.refuse_first("counts", k, k <= size, "more votes for a class than were drawn")
    return k, size


def _broadcast(name: str, values: np.ndarray, other: str, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    try:
        values, others = np.broadcast_arrays(values, others)
    except ValueError:
        raise ValueError(f"{name} of shape {values.shape} and {other} of shape {others.shape}: no one shape") from None
    return values, others


def shared_alpha(alpha: float, events: int) -> float:
    """Return alpha / events, rounded down: each of so many events may fail with this probability (union bound).

    Raises
    ------
    ValueError
        Where the share falls below 1e-100, for which bounds are not computed.
    """
    alpha, events = _validate.check_alpha(alpha), _validate.check_count("events", events)
    share = alpha if events == 1 else math.nextafter(alpha / events, 0.0)
    if share < _validate.SMALLEST_ALPHA:
        raise ValueError(
            f"alpha = {alpha} shared among {events:,}: {share:.3g} each is below {_validate.SMALLEST_ALPHA:g}, the "
            "smallest for which bounds are computed; take a larger alpha"
        )
    return share


def certified_radius(sigma: Any, p_lower: Any) -> Float64[np.ndarray, "*shape"]:
    """Return sigma * Phi^-1(p_lower), rounded down: Eq. 2 with p_B bounded by 1 - p_lower.

    Radii are l2 in the units of sigma. The radius is 0 where p_lower <= 1/2, which is where one abstains. Both
    arguments are numbers or array-likes that broadcast.

    Raises
    ------
    ValueError
        For sigma that is not finite and > 0, and for p_lower outside [0, 1): no number of votes proves certainty.
    """
    level, p = _validate.check_array("sigma", sigma), _validate.check_array("p_lower", p_lower)
    level, p = _broadcast("sigma", level.astype(np.float64), "p_lower", p.astype(np.float64))
    _validate.refuse_first("sigma", level, np.isfinite(level) & (level > 0), "noise levels must be finite and > 0")
    _validate.refuse_first("p_lower", p, (p >= 0) & (p < 1), "a lower bound of a probability lies in [0, 1)")
    certain = p > 0.5
    quantile = special.ndtri(np.where(certain, p, 0.5)) * (1 - MARGIN)
    with np.errstate(over="ignore"):
        radius = np.minimum(level * quantile, np.finfo(np.float64).max)
    # where float64 has fewer digits than the margin takes off, a product may be rounded up
    tiny = (radius > 0) & (radius < 1e-290)
    return np.asarray(np.where(tiny, np.nextafter(radius, 0.0), radius))


def top_two_p_value(first: Any, second: Any) -> Float64[np.ndarray, "*shape"]:
    """Two-sided p-value of the hypothesis that the two most voted classes are equally likely, rounded up.

    With m = first + second votes in all, it is min(1, 2 P(Binomial(m, 1/2) >= first)).

    Parameters
    ----------
    first, second : int or array-like of int
        Votes that broadcast, of the class that has more and of the other; at most 10**9 together.

    Raises
    ------
    ValueError
        For votes that are not whole numbers >= 0, and where `second` is larger than `first`.
    """
    most, next_most = _broadcast(
        "first", _validate.check_votes("first", first), "second", _validate.check_votes("second", second)
    )
    _validate.refuse_first("second", next_most, next_most <= most, "more votes than for the first class; swap them")
    _validate.check_votes("first + second", most + next_most)
    tail = special.betainc(np.maximum(most, 1), next_most + 1, 0.5)  # P(Binomial(first + second, 1/2) >= first)
    tail = np.maximum(tail, np.finfo(np.float64).tiny) * (1 + tail_margin(most + next_most))
    return np.asarray(np.minimum(1.0, 2.0 * tail))
