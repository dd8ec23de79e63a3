"""What a certified defence is judged by, computed from rows: a certified radius, and whether it is correct."""

import math
from decimal import Decimal

import numpy as np
from jaxtyping import Bool, Float64, Int64

#: Distance between the radii at which certified accuracy is reported, and the least that the last of them is.
STEP, LAST = 0.25, 2.25


def radius_grid(largest: float) -> Float64[np.ndarray, " e"]:
    """Return 0, 0.25, ... up to the first value that no radius exceeds, and at least up to 2.25."""
    return np.arange(0, round(max(LAST, STEP * math.ceil(largest / STEP)) / STEP) + 1) * STEP


def certified_accuracy(
    radius: Float64[np.ndarray, " n"], correct: Int64[np.ndarray, " n"], epsilon: Float64[np.ndarray, " e"]
) -> Float64[np.ndarray, " e"]:
    """Return the fraction of images that are correct with a radius > epsilon, for every epsilon; in [0, 1].

    Strictly greater, since certified balls are open: a radius of epsilon says nothing about a change of size epsilon.
    """
    hits: Bool[np.ndarray, "e n"] = (radius[None, :] > epsilon[:, None]) & (correct[None, :] == 1)
    return np.asarray(hits.mean(axis=1))


def average_certified_radius(radius: Float64[np.ndarray, " n"], correct: Int64[np.ndarray, " n"]) -> float:
    """Return the mean of radius * correct over all images, abstentions and errors counting 0.

    Radii are decimals, and are added up as such: the mean of 0.7 and 0.7 is 0.7, which floats miss.
    """
    return float(sum(map(Decimal, map(repr, (radius * correct).tolist()))) / len(radius))
