"""Confidence bounds for votes, and the radius they certify.

Every function errs on the safe side, by a relative margin. It rests on two of SciPy's functions. `betainc(a, b, x)`
takes 1 - x, rounded, to the power of b: against 45-digit arithmetic it was found off by less than a tenth of
`tail_margin`, over random counts up to n = 1e9 and probabilities down to 1e-100; `ndtri` by 6e-16. `betaincinv` was
found off by 2e-8 for a few votes out of 1e9, wrong altogether near 1e-98 for 6 votes out of 12, and NaN below
1e-144: it proposes, and `betainc` decides.
"""

import math
from collections.abc import Sequence
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


def lower_confidence_bound(counts: Any, n: Any, alpha: Any) -> Float64[np.ndarray, "*shape"]:
    """One-sided Clopper-Pearson lower bound for the probability of a class, rounded down.

    The exact bound p solves P(Binomial(n, p) >= count) = alpha. What is returned is slightly below it, so that with
    probability at least 1 - alpha, per count, it does not exceed the true probability.

    Parameters
    ----------
    counts : int or array-like of int
        Votes for a class that was fixed before these votes were drawn, each in [0, n].
    n : int or array-like of int
        Votes drawn, from 1 to 10**9: one number, or an array that broadcasts with `counts`.
    alpha : float or array-like of float
        Failure probability, each in [1e-100, 1): one number, or an array that broadcasts with the votes.

    Returns
    -------
    float array of the shape to which counts, n and alpha broadcast
        In [0, 1); 0 where the count is 0. Not decreasing in the count.

    Raises
    ------
    ValueError
        For counts that are not whole numbers in [0, n], and for alpha out of range; the message names the value.
    """
    k, size, error = _votes_of(counts, n, alpha)
    bound = np.zeros(k.shape)
    some = k > 0
    a, b = k[some].astype(np.float64), (size - k + 1)[some].astype(np.float64)
    bound[some] = _quantile_below(a, b, error[some])
    return bound


def _quantile_below(
    a: Float64[np.ndarray, " some"], b: Float64[np.ndarray, " some"], alpha: Float64[np.ndarray, " some"]
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


def upper_confidence_bound(counts: Any, n: Any, alpha: Any) -> Float64[np.ndarray, "*shape"]:
    """One-sided Clopper-Pearson upper bound for the probability of a class, rounded up: see `lower_confidence_bound`.

    Returns values in (0, 1]; 1 where every vote was for the class.
    """
    k, size, error = _votes_of(counts, n, alpha)
    return np.asarray(np.minimum(1.0, (1.0 - lower_confidence_bound(size - k, size, error)) * (1 + MARGIN)))


def _votes_of(counts: Any, n: Any, alpha: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return votes, their totals and failure probabilities, broadcast to one shape."""
    size, k = _broadcast("n", _validate.check_votes("n", n), "counts", _validate.check_votes("counts", counts))
    _validate.refuse_first("n", size, size >= 1, "at least one vote must be drawn")
    _validate.refuse_first("counts", k, k <= size, "more votes for a class than were drawn")
    error = _validate.check_array("alpha", alpha).astype(np.float64)
    for extreme in (error.min(), error.max()) if error.size else ():  # both are NaN where one of them is
        _validate.check_alpha(extreme)
    k, error = _broadcast("counts", k, "alpha", error)
    return k, np.broadcast_to(size, k.shape), error


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


def weighted_alpha(alpha: float, weights: Sequence[float]) -> tuple[float, ...]:
    """Return alpha divided in proportion to weights, rounded down: events may fail with these probabilities.

    Their exact sum is at most alpha. Where all weights are equal, each part is that of `shared_alpha`.

    Raises
    ------
    ValueError
        For weights that are not finite and > 0, and where a part falls below 1e-100.
    """
    each = [_validate.check_number("weights", weight, 0, strict=True) for weight in weights]
    if len(set(each)) == 1:
        return (shared_alpha(alpha, len(each)),) * len(each)
    alpha, total = _validate.check_alpha(alpha), math.fsum(each)
    # three roundings, of the sum, the quotient and the product, are less than the 2^-50 that each part gives up
    parts = tuple(alpha * (weight / total) * (1 - 2.0**-50) for weight in each)
    if min(parts) < _validate.SMALLEST_ALPHA:
        raise ValueError(
            f"alpha = {alpha} shared by weights {tuple(each)}: {min(parts):.3g} is below {_validate.SMALLEST_ALPHA:g}, "
            "the smallest for which bounds are computed; take a larger alpha or weights that are closer together"
        )
    return parts


def complement_above(p: Float64[np.ndarray, "*shape"]) -> Float64[np.ndarray, "*shape"]:
    """Return 1 - p rounded up, and exactly where float64 holds it, as for all p >= 1/2."""
    rest = np.asarray(1.0 - p)
    return np.where(1.0 - rest == p, rest, np.minimum(np.nextafter(rest, 2.0), 1.0))


def certified_radius(sigma: Any, p_lower: Any, p_upper: Any = None) -> Float64[np.ndarray, "*shape"]:
    """Return the radius of Eq. 2, sigma/2 (Phi^-1(p_lower) - Phi^-1(p_upper)), rounded down; 0 where one abstains.

    If p_lower does not exceed the probability of a class and p_upper is not below that of any other class, then the
    class is what the smoothed classifier returns everywhere in the open ball of this radius. Without `p_upper`, the
    others' probability is bounded by 1 - p_lower: the radius is sigma * Phi^-1(p_lower), and 0 where p_lower <= 1/2.

    Parameters
    ----------
    sigma, p_lower, p_upper : float or array-like of float
        Numbers that broadcast. Radii are l2 in the units of sigma.

    Returns
    -------
    float array of the shape to which the arguments broadcast
        Finite and >= 0. It is 0 where p_lower = 0, p_upper = 1 or p_lower <= p_upper.

    Raises
    ------
    ValueError
        For sigma that is not finite and > 0, for p_lower outside [0, 1), and for p_upper outside (0, 1]: no number of
        votes proves certainty.
    """
    radius = signed_radius(sigma, p_lower, p_upper)
    return np.where(radius > 0, radius, 0.0)


def signed_radius(sigma: Any, p_lower: Any, p_upper: Any = None) -> Float64[np.ndarray, "*shape"]:
    """Return what `certified_radius` returns, but negative where p_lower < p_upper, and down to -inf.

    It certifies nothing where it is not positive, but ranks levels at which one abstains.
    """
    level, p = _validate.check_array("sigma", sigma), _validate.check_array("p_lower", p_lower)
    level, p = _broadcast("sigma", level.astype(np.float64), "p_lower", p.astype(np.float64))
    _validate.refuse_first("sigma", level, np.isfinite(level) & (level > 0), "noise levels must be finite and > 0")
    _validate.refuse_first("p_lower", p, (p >= 0) & (p < 1), "a lower bound of a probability lies in [0, 1)")
    if p_upper is None:
        half_gap = _normal_quantile(p, -MARGIN)
    else:
        q = _validate.check_array("p_upper", p_upper).astype(np.float64)
        _validate.refuse_first("p_upper", q, (q > 0) & (q <= 1), "an upper bound of a probability lies in (0, 1]")
        p, q = _broadcast("p_lower", p, "p_upper", q)
        half_gap = (_normal_quantile(p, -MARGIN) - _normal_quantile(q, MARGIN)) / 2
    with np.errstate(over="ignore"):
        radius = np.minimum(level * half_gap, np.finfo(np.float64).max)
    # where float64 has fewer digits than the margins take off, a product may be rounded up
    tiny = (radius != 0) & (np.abs(radius) < 1e-290)
    return np.asarray(np.where(tiny, np.nextafter(radius, -np.inf), radius))


def _normal_quantile(p: Float64[np.ndarray, "*shape"], margin: float) -> Float64[np.ndarray, "*shape"]:
    """Return Phi^-1(p) moved by so much of its size, whatever its sign: up by a positive margin, down by a negative."""
    quantile = special.ndtri(p)
    return np.asarray(quantile + np.abs(quantile) * margin)


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
