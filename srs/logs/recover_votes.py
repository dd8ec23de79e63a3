"""What a printed radius proves: logs round to the nearest, so half of them print more than was certified."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from jaxtyping import Float64, Int64

from smoothing import ABSTAIN, certified_radius, lower_confidence_bound
from srs.logs.read import Logs

#: What is taken off a radius, in units of its last digit.
AMOUNTS: Mapping[str, Decimal] = {"half": Decimal("0.5"), "unit": Decimal(1), "none": Decimal(0)}

#: Relative slack for other programs' special functions: statsmodels and SciPy agree with ours far better than this.
SLACK = 1e-9

#: Most samples per image whose counts are recovered: a table of half as many radii is made.
MOST_SAMPLES = 10**7


def lower(logs: Logs, rounding: str) -> Float64[np.ndarray, "n K"]:
    """Return radii no larger than those that the logs rounded.

    Parameters
    ----------
    logs : Logs
    rounding : {"half", "unit", "none"}
        Take off half a unit of the last digit, enough where radii were rounded to the nearest; a whole one, enough
        where they may have been rounded up; or nothing.

    Notes
    -----
    A file's radii were printed either with D significant digits, as `{:.3}` does, or with F decimals. D and F are the
    most that the file shows, since trailing zeros may have been dropped, and of the two units the larger is taken.
    """
    bounds = [_lower(column, AMOUNTS[rounding]) for column in logs.printed.T]
    return np.stack(bounds, axis=1)


def _lower(radius: Float64[np.ndarray, " n"], amount: Decimal) -> Float64[np.ndarray, " n"]:
    texts = {value: Decimal(repr(value)).normalize() for value in set(radius[radius > 0].tolist())}
    parts = [text.as_tuple() for text in texts.values()]
    digits = max((len(part.digits) for part in parts), default=0)
    finest = min((int(part.exponent) for part in parts), default=0)
    known = {0.0: 0.0}
    for value, text in texts.items():
        exact = text - amount * Decimal(1).scaleb(max(text.adjusted() - digits + 1, min(finest, 0)))
        nearest = float(exact)
        known[value] = max(0.0, nearest if Decimal(nearest) <= exact else float(np.nextafter(nearest, 0.0)))
    return np.array([known[value] for value in radius.tolist()])


@dataclass(frozen=True, eq=False)
class Votes:
    """Votes that the logs do not print, recovered from their radii.

    Attributes
    ----------
    counts : int array of shape (n, K)
        The least number of votes that gives the printed radius; 0 where the log abstained.
    n : int
        Out of how many samples.
    """

    counts: Int64[np.ndarray, "n K"]
    n: int

    def radii(self, sigmas: Float64[np.ndarray, " K"], alpha: float) -> Float64[np.ndarray, "n K"]:
        """Return the radii that these votes certify, each with probability at least 1 - alpha."""
        levels = np.broadcast_to(sigmas, self.counts.shape)
        distinct, where = np.unique(self.counts, return_inverse=True)
        p_lower = lower_confidence_bound(distinct, self.n, alpha)[where.reshape(self.counts.shape)]
        return certified_radius(levels, p_lower)


def recover_votes(logs: Logs, n: int, alpha: float, rounding: str) -> Votes:
    """Find the votes behind every printed radius, R = sigma Phi^-1(p_lower(count, n, alpha)).

    Several counts may be printed alike; the least one is taken. So each count is at most the true one, and a bound at
    another level that is computed from it is at most what that level would have given.

    Parameters
    ----------
    logs : Logs
    n : int
        Estimation samples per image behind the logs.
    alpha : float
        Failure probability per image behind the logs.
    rounding : str
        As in `lower`.

    Raises
    ------
    ValueError
        Where no count gives a printed radius: n, alpha or sigma are not those of the logs.
    """
    counts = np.arange(n // 2 + 1, n + 1)
    unit = certified_radius(np.ones(len(counts)), lower_confidence_bound(counts, n, alpha))
    low = lower(logs, rounding)
    high = 2 * logs.printed - lower(logs, "unit")
    found = np.zeros(logs.predict.shape, dtype=np.int64)
    for k, sigma in enumerate(logs.sigmas):
        some = logs.printed[:, k] > 0
        at = np.searchsorted(sigma * unit * (1 + SLACK), low[some, k])
        reached = np.append(sigma * unit, np.inf)[at]
        wrong = reached * (1 - SLACK) > high[some, k]
        if wrong.any():
            row = np.flatnonzero(some)[wrong.argmax()]
            raise ValueError(
                f"{logs.files[k]}, line {logs.lines[row, k]}: radius = {logs.printed[row, k]:g} is not one that {n:,} "
                f"votes give at alpha = {alpha:g} and sigma = {sigma:g}; give --n and --alpha of the logs, or neither"
            )
        found[some, k] = counts[at]
    return Votes(np.where(logs.predict == ABSTAIN, 0, found), n)
