"""The grid of noise levels that Eq. 5 and Eq. 7 search."""

import math
from fractions import Fraction

import numpy as np
from jaxtyping import Float64

from smoothing._validate import check_number


def sigma_grid(sigma_min: float, sigma_max: float, sigma_step: float) -> Float64[np.ndarray, " k"]:
    """Return {t * sigma_step : sigma_min <= t * sigma_step <= sigma_max, t = 1, 2, ...}, increasing (Eq. 7).

    Where both ends are the same number, the grid is that number, whatever the step. Computed in exact decimal
    arithmetic on the numbers as written, so that 3 * 0.1 is 0.3 and is not lost to rounding.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Smallest and largest level, l2 per pixel in [0, 1] units; 0 <= sigma_min <= sigma_max.
    sigma_step : float
        Distance between levels, > 0 (the paper's sigma_interval).

    Returns
    -------
    array of shape (k,)
        At least one level, each > 0.

    Raises
    ------
    ValueError
        When a number is out of range or when no multiple of sigma_step lies between the ends.
    """
    check_number("sigma_min", sigma_min, 0, strict=False)
    check_number("sigma_max", sigma_max, 0, strict=True)
    check_number("sigma_step", sigma_step, 0, strict=True)
    if sigma_min > sigma_max:
        raise ValueError(f"sigma_min = {sigma_min} is above sigma_max = {sigma_max}: swap them")
    if sigma_min == sigma_max:
        return np.array([float(sigma_min)])
    low, high, step = (Fraction(repr(float(value))) for value in (sigma_min, sigma_max, sigma_step))
    first, last = max(1, math.ceil(low / step)), math.floor(high / step)
    if first > last:
        raise ValueError(
            f"sigma_step = {sigma_step}: none of its multiples lies in [{sigma_min}, {sigma_max}]; take a smaller step"
        )
    return np.array([float(t * step) for t in range(first, last + 1)])
