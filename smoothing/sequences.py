"""Confidence sequences: intervals for a class's probability that hold after every number of votes at once.

A sequence may be looked at after each vote and left at any time, for any reason. That costs width: where there are few
looks, at sizes fixed beforehand, Clopper-Pearson bounds at shares of alpha are narrower (`adaptive.Ladder`). Where one
asks a question of yes or no at many looks, they are not (benchmarks/results/samples.md).
"""

from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from scipy import special

from smoothing import _validate
from smoothing.confidence import complement_above

#: Halvings of an interval of log-odds: what is left is less than 1e-12 wide.
HALVINGS = 52

#: Log-odds between which float64 has probabilities.
MOST_ODDS = 700.0


def sequence_bounds(
    counts: Any, n: Any, alpha: Any, *, prior: Any = (0.5, 0.5)
) -> tuple[Float64[np.ndarray, "*shape"], Float64[np.ndarray, "*shape"]]:
    """Bound the probability of a class by votes, after every number of votes at once.

    Votes are Bernoulli(p). With probability at least 1 - alpha, p_lower <= p <= p_upper for all n = 1, 2, 3, ... (M20):
    the interval holds the p at which a bet against p has won less than 1/alpha. The bets are those of the mixture of
    likelihoods with a Beta prior (Robbins, 1970; as a strategy of betting: Waudby-Smith and Ramdas, 2024; for
    randomized smoothing: Voracek, 2024).

    Parameters
    ----------
    counts, n : int or array-like of int
        Votes for a class that was fixed before these votes were drawn, and votes drawn, n from 1 to 10**9.
    alpha : float or array-like of float
        Failure probability of the whole sequence, both sides together, in [1e-100, 1).
    prior : pair of float or of array-like of float, default=(0.5, 0.5)
        Parameters a, b > 0 of the Beta distribution: where p is expected, as strongly as a + b votes would say. Fixed
        before these votes were drawn. The guarantee holds for any; the interval is narrow if it was right. All
        arguments broadcast.

    Returns
    -------
    p_lower : float array of the shape to which the arguments broadcast
        In [0, 1), rounded down.
    p_upper : float array of that shape
        In (0, 1], rounded up.

    Raises
    ------
    ValueError
        For counts that are not whole numbers in [0, n], for alpha out of range, and for a prior that is not positive.
    """
    k, size = _validate.check_votes("counts", counts), _validate.check_votes("n", n)
    error, a, b = (
        _validate.check_array(name, value).astype(np.float64)
        for name, value in (("alpha", alpha), ("prior", prior[0]), ("prior", prior[1]))
    )
    k, size, error, a, b = np.broadcast_arrays(k, size, error, a, b)
    _validate.refuse_first("n", size, size >= 1, "at least one vote must be drawn")
    _validate.refuse_first("counts", k, k <= size, "more votes for a class than were drawn")
    for extreme in (error.min(), error.max()) if error.size else ():
        _validate.check_alpha(extreme)
    for part in (a, b):
        _validate.refuse_first("prior", part, np.isfinite(part) & (part > 0), "must be finite and > 0")
    other = np.asarray(size - k)
    return _lower_end(k, other, error, a, b), complement_above(_lower_end(other, k, error, b, a))


def _lower_end(
    k: Int64[np.ndarray, "*shape"],
    rest: Int64[np.ndarray, "*shape"],
    alpha: Float64[np.ndarray, "*shape"],
    a: Float64[np.ndarray, "*shape"],
    b: Float64[np.ndarray, "*shape"],
) -> Float64[np.ndarray, "*shape"]:
    """Return numbers p below k / n at which the mixture has surely won 1 / alpha, close to the largest; 0 for k = 0.

    The bet against p has won M = B(k + a, rest + b) / B(a, b) / (p^k (1 - p)^rest), which falls in p below k / n: what
    is below a number that was lost is lost.
    """
    won = special.betaln(k + a, rest + b) - special.betaln(a, b)
    # log-gamma and the products below are off by a few units of 2^-53 of themselves, all below 100 (n + a + b)
    goal = -np.log(alpha) + 2.0**-30 + (k + rest + a + b) * 2.0**-36
    with np.errstate(divide="ignore"):
        top = np.clip(np.log(k) - np.log(np.maximum(rest, 1e-300)), -MOST_ODDS, MOST_ODDS)
    low, high = np.full(k.shape, -MOST_ODDS), np.asarray(top, dtype=np.float64)
    found = np.zeros(k.shape)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        p = special.expit(middle)
        with np.errstate(divide="ignore"):  # p may round to 1
            bet = won - special.xlogy(k, p) - special.xlog1py(rest, -p)
        lost = (k > 0) & (bet >= goal) & (p < 1) & (p * (k + rest) <= k)
        found = np.where(lost, p, found)
        low, high = np.where(lost, middle, low), np.where(lost, high, middle)
    return np.asarray(found)
