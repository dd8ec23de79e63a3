"""Binomial tails, Clopper-Pearson bounds and normal quantiles to some 30 digits, from integers and mpmath alone.

Nothing here is shared with `smoothing`, which computes the same in float64 with safety margins. So what is found here
lies between what is certified and what could be.
"""

import math
from fractions import Fraction
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from mpmath.ctx_mp import MPContext

#: Arithmetic of 128 bits, apart from mpmath's global settings.
mp = MPContext()
mp.prec = 128

#: A number of that arithmetic; mpmath has no types.
Real = Any

#: Tails are summed until what is left is smaller than 2^-_BITS of the sum, terms as integers of 2^-_FIXED.
_BITS, _FIXED = 90, 128

#: Newton's method stops where a step changes the odds by less than this share; the next error is about its square.
_CLOSE = 2.0**-45


def real(value: int | float | Fraction) -> Real:
    """Return a number, exactly for int and float."""
    if isinstance(value, Fraction):
        return mp.mpf(value.numerator) / value.denominator
    return mp.mpf(value)


def _following_terms(k: int, n: int, odds: Real) -> Real:
    """Return P(X >= k) / P(X = k) for X ~ Bin(n, p) with these odds p / (1 - p)."""
    _, mantissa, exponent, _ = odds._mpf_
    factor = int(mantissa)
    term = total = 1 << _FIXED
    for j in range(k, n):
        top = term * (n - j) * factor
        term = (top << exponent if exponent >= 0 else top >> -exponent) // (j + 1)
        total += term
        if term << _BITS < total and (n - j) * odds < j + 1:
            break
    return mp.mpf(total) / (1 << _FIXED)


@lru_cache(maxsize=2**16)
def _log_choices(k: int, n: int) -> Real:
    return mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)


def _log_tail(k: int, n: int, odds: Real) -> tuple[Real, Real]:
    """Return log P(X >= k), and its derivative by log odds."""
    log_q = -mp.log1p(odds)  # of 1 - p
    sums = _following_terms(k, n, odds)
    log_tail = _log_choices(k, n) + k * mp.log(odds) + n * log_q + mp.log(sums)
    return log_tail, k * mp.exp(log_q) / sums


def tail(k: int, n: int, p: Fraction) -> Real:
    """Return P(Bin(n, p) >= k), 0 < p < 1."""
    if k <= 0:
        return mp.mpf(1)
    if k > n:
        return mp.mpf(0)
    return mp.exp(_log_tail(k, n, real(p / (1 - p)))[0])


@lru_cache(maxsize=2**18)
def lower_bound(k: int, n: int, alpha: Fraction) -> Real:
    """Return the p with P(Bin(n, p) >= k) = alpha, the Clopper-Pearson lower bound (M13); 0 for k = 0.

    The logarithm of the tail is concave in the log odds, so Newton's method comes from below after its first step.
    """
    if k == 0:
        return mp.mpf(0)
    wanted = mp.log(real(alpha))
    if k == n:
        return mp.exp(wanted / n)
    odds = _first_odds(k, n, float(alpha))
    for _ in range(200):
        log_tail, slope = _log_tail(k, n, odds)
        step = (wanted - log_tail) / slope
        odds *= mp.exp(step)
        if abs(step) < _CLOSE:
            return odds / (1 + odds)
    raise ArithmeticError(f"no bound was found for {k} of {n} votes at alpha = {float(alpha)}")


def _first_odds(k: int, n: int, alpha: float) -> Real:
    """Return odds near the bound: Wilson's interval."""
    z = -NormalDist().inv_cdf(alpha)
    p = (k + z * z / 2 - z * math.sqrt(k * (n - k) / n + z * z / 4)) / (n + z * z)
    p = min(max(p, 1e-12), 1 - 1e-12)
    return mp.mpf(p) / (1 - mp.mpf(p))


def upper_bound(k: int, n: int, alpha: Fraction) -> Real:
    """Return the Clopper-Pearson upper bound; 1 for k = n."""
    return 1 - lower_bound(n - k, n, alpha)


def normal_quantile(p: Real) -> Real:
    """Return Phi^-1(p), infinite at 0 and 1: the standard library's, and one step of Newton's method."""
    if p <= 0 or p >= 1:
        return -mp.inf if p <= 0 else mp.inf
    if 2 * p > 1:
        return -normal_quantile(1 - p)
    z = mp.mpf(NormalDist().inv_cdf(float(p)))
    return z - (mp.erfc(-z / mp.sqrt(2)) / 2 - p) / normal_density(z)


def normal_density(z: Real) -> Real:
    """Return the density of the standard normal distribution."""
    return mp.exp(-z * z / 2) / mp.sqrt(2 * mp.pi)


def student_half_width(values: list[float], level: Fraction = Fraction(95, 100)) -> float:
    """Return half the width of Student's interval for the mean of at least two values."""
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return float(_student_quantile(n - 1, level)) * deviation / math.sqrt(n)


@lru_cache(maxsize=256)
def _student_quantile(degrees: int, level: Fraction) -> Real:
    """Return t with P(|T| <= t) = level, by bisection."""

    def inside(t: Real) -> Real:
        return 1 - mp.betainc(mp.mpf(degrees) / 2, 0.5, 0, degrees / (degrees + t * t), regularized=True)

    low, high, wanted = mp.mpf(0), mp.mpf(1), real(level)
    while inside(high) < wanted:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < wanted else (low, middle)
    return (low + high) / 2
