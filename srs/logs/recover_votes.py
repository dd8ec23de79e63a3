"""What a printed radius proves: logs round to the nearest, so half of them print more than was certified."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from smoothing import ABSTAIN, certified_radius, lower_confidence_bound
from srs.logs.read import Logs

#: What is taken off a radius, in units of its last digit.
AMOUNTS: Mapping[str, Decimal] = {"half": Decimal("0.5"), "unit": Decimal(1), "none": Decimal(0)}

#: Relative slack for other programs' special functions: statsmodels and SciPy agree with ours far better than this.
SLACK = 1e-9

#: Most samples per image whose counts are recovered: a table of half as many radii is made.
MOST_SAMPLES = 10**7

#: What logs are usually made with; looked through for a reason where n and alpha are not those of a log.
USUAL_ALPHAS = (0.001, 0.01, 0.05, 0.1, 0.005, 0.002, 0.0005, 0.0001, 0.00001)
USUAL_N = (100_000, 10_000, 1000, 50_000, 20_000, 500, 100)


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
    n : int or tuple of K ints
        Out of how many samples, in every log or in each.
    """

    counts: Int64[np.ndarray, "n K"]
    n: int | tuple[int, ...]

    def radii(self, sigmas: Float64[np.ndarray, " K"], alpha: float) -> Float64[np.ndarray, "n K"]:
        """Return the radii that these votes certify, each with probability at least 1 - alpha."""
        drawn = np.broadcast_to(self.n, len(sigmas)).tolist()
        columns = []
        for sigma, n, counts in zip(sigmas, drawn, self.counts.T, strict=True):
            distinct, where = np.unique(counts, return_inverse=True)
            p_lower = lower_confidence_bound(distinct, n, alpha)[where.reshape(counts.shape)]
            columns.append(certified_radius(np.full(len(counts), sigma), p_lower))
        return np.stack(columns, axis=1)


def recover_votes(logs: Logs, n: int | Sequence[int], alpha: float | Sequence[float], rounding: str) -> Votes:
    """Find the votes behind every printed radius, R = sigma Phi^-1(p_lower(count, n, alpha)): one-sided certificates.

    Several counts may be printed alike; the least one is taken. So each count is at most the true one, and a bound at
    another level that is computed from it is at most what that level would have given.

    Parameters
    ----------
    logs : Logs
    n : int or K ints
        Estimation samples per image behind the logs, or behind each of them, in the order of `logs.files`.
    alpha : float or K floats
        Failure probability per image behind the logs.
    rounding : str
        As in `lower`.

    Raises
    ------
    ValueError
        Where a log says that its radii are others; where no count gives a printed radius: n, alpha or sigma are not
        those of the log. The message says which usual n and alpha would fit.
    """
    for file in logs.two_sided[:1]:
        raise ValueError(
            f"{file}: its radii bound the runner-up as well (column share), and do not tell the votes for one class: "
            "leave --n and --alpha out, or certify with --bound top-class"
        )
    K = len(logs.sigmas)
    drawn = tuple(int(count) for count in np.broadcast_to(n, K))
    alphas = [float(value) for value in np.broadcast_to(alpha, K)]
    low, high = lower(logs, rounding), 2 * logs.printed - lower(logs, "unit")
    found = np.zeros(logs.predict.shape, dtype=np.int64)
    for k, sigma in enumerate(logs.sigmas.tolist()):
        some = np.flatnonzero(logs.printed[:, k] > 0)
        bounds = low[some, k], high[some, k]
        counts, wrong = _counts(*bounds, sigma, drawn[k], alphas[k])
        if wrong.any():
            row = some[wrong.argmax()]
            raise ValueError(
                f"{logs.files[k]}, line {logs.lines[row, k]}: radius = {logs.printed[row, k]:g} is not one that "
                f"{drawn[k]:,} votes give at alpha = {alphas[k]:g} and sigma = {sigma:g}; "
                f"{_remedy(*bounds, sigma, drawn[k], alphas[k])}"
            )
        found[some, k] = counts
    return Votes(np.where(logs.predict == ABSTAIN, 0, found), drawn[0] if isinstance(n, int) else drawn)


def _counts(
    low: Float64[np.ndarray, " m"], high: Float64[np.ndarray, " m"], sigma: float, n: int, alpha: float
) -> tuple[Int64[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Return the least counts whose radii reach the lower ends of intervals, and which of these exceed the upper."""
    counts = np.arange(n // 2 + 1, n + 1)
    radii = sigma * certified_radius(np.ones(len(counts)), lower_confidence_bound(counts, n, alpha))
    at = np.searchsorted(radii * (1 + SLACK), low)
    wrong = np.append(radii, np.inf)[at] * (1 - SLACK) > high
    return counts[np.minimum(at, len(counts) - 1)], np.asarray(wrong)


def _remedy(low: Float64[np.ndarray, " m"], high: Float64[np.ndarray, " m"], sigma: float, n: int, alpha: float) -> str:
    """Say with which of the usual settings a log would agree."""
    alphas = [value for value in USUAL_ALPHAS if not _counts(low, high, sigma, n, value)[1].any()]
    if alphas:
        fit = " or ".join(f"--alpha {value:g}" for value in alphas[:3])
        return f"{fit} would fit this log; give --n and --alpha of each log, in order, or neither"
    drawn = [value for value in USUAL_N if not _counts(low, high, sigma, value, alpha)[1].any()]
    if drawn:
        fit = " or ".join(f"--n {value}" for value in drawn[:3])
        return f"{fit} would fit this log; give --n and --alpha of each log, in order, or neither"
    return (
        "no usual alpha or n fits this log: give --n and --alpha of the logs, or neither, and see that sigma is right"
    )
