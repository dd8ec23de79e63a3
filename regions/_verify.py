"""An independent check that balls do not overlap. It shares no code with the search, the distances or the solvers.

What is computed. Float64 matrix products with an error bound, or k-d trees in low dimension, propose the pairs that may
overlap. These are measured again by differences of coordinates, and pairs that this leaves open are decided in exact
fractions.

Guarantee. No overlap is missed, however small, and none is reported wrongly.

Cost. O(n^2 d) for n non-empty balls, or much less by k-d trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64, Real
from numpy.typing import ArrayLike

from regions import _validate
from regions._allocation import Certificate

_UNIT = 2.0**-53  # unit roundoff of float64
_SPARE = 1e-12  # more than the relative error of a norm, or of a sum of two radii
_UNDERFLOW = 1e-145  # more than the square root of what underflow takes from a square ...
_UNDERFLOW_SQUARED = 1e-290  # ... and its square
_SHORT = 2.0**-300  # if all lengths are below this, their squares may underflow
_ROWS = 1024  # balls in one block of a matrix product, at most
_COORDINATES = 1 << 23  # coordinates in one block, unless that is a single ball
_PAIRS = 1 << 22  # about how many pairs k-d trees list at once
_MOST = 1 << 20  # the check ends once it has found this many overlapping pairs
_TREE_DIMENSION = 10  # k-d trees search faster than matrix products up to about this dimension ...
_TREE_POINTS = 5000  # ... and from about this many points


@dataclass(frozen=True, eq=False)
class Verification:
    """What `verify` found. It is true in a boolean context if nothing is wrong.

    Attributes
    ----------
    overlapping : (k, 2) int64
        Conflicting pairs i < j whose non-empty balls overlap, by however little: r_i + r_j > |x_i - x_j| exactly. At
        most 2^20 pairs; the check ends once there are more.
    out_of_bounds : (k,) int64
        Indices with r > R.
    too_small : (k,) int64
        Indices with r < r_min.
    status : str
        A sentence that names the first violation, or says that there is none.
    upper_bound : float or None
        What the certificate proves: no radii feasible for Eq. 10 have a larger sum. None without a certificate.
    """

    overlapping: Int64[np.ndarray, "k 2"]
    out_of_bounds: Int64[np.ndarray, " l"]
    status: str
    upper_bound: float | None = None
    too_small: Int64[np.ndarray, " m"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    def __bool__(self) -> bool:
        return not len(self.overlapping) and not len(self.out_of_bounds) and not len(self.too_small)


def verify(
    points: ArrayLike,
    radii: ArrayLike,
    R: ArrayLike | None = None,
    *,
    groups: Any = None,
    certificate: Certificate | None = None,
    r_min: float | None = None,
) -> Verification:
    """Check, with zero tolerance, that no two conflicting balls overlap and that every radius is within its bounds.

    Parameters
    ----------
    points : array-like, shape (n, d) or (n, ...)
        Centres.
    radii : array-like, shape (n,)
        Radii of open balls; a ball of radius 0 is empty.
    R : array-like, shape (n,), default=None
        Upper bounds to check against; None: not checked.
    groups : array-like, shape (n,), or a list or tuple of such arrays, default=None
        Pairs that share a label in ANY of the arrays may overlap.
    certificate : Certificate, default=None
        A certificate from `allocate(..., method="matching")`. Its bound is computed from the points and R, so R is
        needed.
    r_min : float, default=None
        Least radius to check against, and part of what the certificate proves; None: not checked.

    Returns
    -------
    Verification

    Raises
    ------
    ValueError
        If an argument is not as described, or if the certificate does not fit these points, R and groups.

    Notes
    -----
    Every pair is considered, by float64 matrix products with an error bound, or by k-d trees in low dimension. Pairs
    that may overlap are measured again by differences of coordinates. Exact fractions decide those for which rounding
    errors leave the decision open. Points are converted to float64 in blocks, so that memory maps of float32, float64
    or uint8 are never copied.

    Examples
    --------
    >>> bool(verify([[0.0], [1.0]], [0.5, 0.5]))
    True
    >>> verify([[0.0], [1.0]], [0.5, 0.5000000000000001]).status
    'balls 0 and 1 overlap: radii 0.5 + 0.5000000000000001 exceed their distance 1.0 (1 pair in all)'
    """
    x = _validate.as_points(points)
    r = _validate.as_radii(radii, len(x), "radii")
    labels = _validate.as_groups(groups, len(x))
    bounds = r if R is None else _validate.as_radii(R, len(x))
    least = 0.0 if r_min is None else _validate.as_number(r_min, "r_min")
    given = x, r, bounds
    x, r, bounds, exponent = _in_units(x, r, bounds)
    filled = np.flatnonzero(r > 0)
    tree = x.shape[1] <= _TREE_DIMENSION and filled.size >= _TREE_POINTS
    found, count = [np.empty((0, 2), dtype=np.int64)], 0
    for a, b in (_tree_candidates if tree else _product_candidates)(x, r, filled):
        i, j = np.minimum(a, b), np.maximum(a, b)
        for label in labels:
            conflict = label[i] != label[j]
            i, j = i[conflict], j[conflict]
        overlap = _overlap(x, r, i, j)
        found.append(np.column_stack([i[overlap], j[overlap]]))
        count += len(found[-1])
        if count > _MOST:
            break
    overlapping = np.unique(np.concatenate(found), axis=0)[:_MOST]
    out_of_bounds, too_small = np.flatnonzero(r > bounds), np.flatnonzero(given[1] < least)
    upper_bound = None
    if certificate is not None:
        if R is None:
            raise ValueError("certificate without R: give the upper bounds that the certificate was made for")
        upper_bound = math.ldexp(
            _certified_bound(x, bounds, labels, certificate, math.ldexp(least, exponent)), -exponent
        )
        if exponent:
            upper_bound = math.nextafter(upper_bound, math.inf)  # scaling back may have rounded it down
    status = _status(*given, least, overlapping, out_of_bounds, too_small)
    return Verification(overlapping, out_of_bounds, status, upper_bound, too_small)


def _in_units(
    x: Real[np.ndarray, "n d"], r: Float64[np.ndarray, " n"], bounds: Float64[np.ndarray, " n"]
) -> tuple[Real[np.ndarray, "n d"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], int]:
    """All lengths, multiplied by a power of two if they are so small that squares would underflow; and its exponent."""
    largest = max((float(np.abs(part).max(initial=0)) for part in (r, bounds)), default=0.0)
    if x.dtype.kind == "f" and largest < _SHORT:
        largest = max(largest, float(x.max(initial=0)), -float(x.min(initial=0)))
        if 0 < largest < _SHORT:
            exponent = -math.frexp(largest)[1]
            return np.ldexp(x.astype(np.float64), exponent), np.ldexp(r, exponent), np.ldexp(bounds, exponent), exponent
    return x, r, bounds, 0


def _certified_bound(
    x: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    certificate: Certificate,
    least: float,
) -> float:
    """Half the cost of the permutation, with every rounding upwards (docs/mathematics.md, Eq. M6)."""
    n = len(x)
    partner, nearest = certificate.partner, certificate.nearest
    if partner.shape != (n,) or not np.array_equal(np.sort(partner), np.arange(n)):
        raise ValueError(f"certificate.partner is not a permutation of 0 .. {n - 1}")
    if nearest.shape != (n,) or (nearest < -1).any() or (nearest >= n).any():
        raise ValueError(f"certificate.nearest must hold -1 or indices below {n}, one for each point")
    moved, capped = np.flatnonzero(partner != np.arange(n)), np.flatnonzero(nearest >= 0)
    cost = 2 * R
    room = np.nextafter(_longest(x, R, labels, capped, nearest[capped]) - least, np.inf)  # beside a ball of r_min
    cost[capped] = np.minimum(cost[capped], 2 * room)
    cost[moved] = _longest(x, R, labels, moved, partner[moved])
    return math.fsum(cost) / 2 * (1 + 4 * _UNIT)


def _longest(
    x: Real[np.ndarray, "n d"],
    R: Float64[np.ndarray, " n"],
    labels: tuple[Int64[np.ndarray, " n"], ...],
    i: Int64[np.ndarray, " k"],
    j: Int64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    """Distances of these pairs, rounded up. It is an error if one of the pairs does not conflict."""
    conflict = (R[i] > 0) & (R[j] > 0) & (i != j)
    for label in labels:
        conflict &= label[i] != label[j]
    if not conflict.all():
        k = np.flatnonzero(~conflict)[0]
        raise ValueError(f"the certificate uses points {i[k]} and {j[k]}, which do not conflict")
    error = (x.shape[1] / 2 + 8) * _UNIT
    size = _block_size(x)
    blocks = range(0, i.size, size)
    lengths = [np.linalg.norm(_rows(x, i[s : s + size]) - x[j[s : s + size]], axis=1) for s in blocks]
    return np.asarray(np.concatenate([*lengths, np.empty(0)]) * (1 + 2 * error) + _UNDERFLOW)


def _rows(x: Real[np.ndarray, "n d"], rows: Int64[np.ndarray, " k"]) -> Float64[np.ndarray, "k d"]:
    """The points with these indices as float64, so that never all points are converted at once."""
    return np.asarray(x[rows], dtype=np.float64)


def _block_size(x: Real[np.ndarray, "n d"]) -> int:
    """How many points are converted at once."""
    return min(_ROWS, max(1, _COORDINATES // max(1, int(x.shape[1]))))


def _product_candidates(
    x: Real[np.ndarray, "n d"], r: Float64[np.ndarray, " n"], filled: Int64[np.ndarray, " m"]
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Yield the pairs of `filled`, each once, that may overlap, by |x|^2 + |y|^2 - 2 x.y of centred float64 points."""
    if not filled.size:
        return
    descending = filled[np.argsort(-r[filled], kind="stable")]
    r = r[descending]
    size = _block_size(x)
    blocks = [descending[start : start + size] for start in range(0, descending.size, size)]
    mean = sum(_rows(x, rows).sum(axis=0) for rows in blocks) / filled.size

    def centred(start: int, end: int) -> Float64[np.ndarray, "k d"]:
        return np.asarray(_rows(x, descending[start:end]) - mean)  # the margin below covers the error of this by far

    square = np.concatenate([((_rows(x, rows) - mean) ** 2).sum(axis=1) for rows in blocks])
    norm = np.sqrt(square) * (1 + _SPARE)
    margin = 4 * (x.shape[1] + 16) * _UNIT
    for start in range(0, r.size, size):
        end = min(start + size, r.size)
        block = centred(start, end)
        for other in range(start, r.size, 4 * size):
            stop = min(other + 4 * size, r.size)
            norms = norm[start:end, None] + norm[None, other:stop]
            squared = square[start:end, None] + square[None, other:stop] - 2 * (block @ centred(other, stop).T)
            reach = r[start:end, None] + r[None, other:stop]
            a, b = np.nonzero(squared - 4 * margin * norms**2 <= reach**2 * (1 + margin) + _UNDERFLOW_SQUARED)
            a, b = a + start, b + other
            yield descending[a[a < b]], descending[b[a < b]]


def _tree_candidates(
    x: Real[np.ndarray, "n d"], r: Float64[np.ndarray, " n"], filled: Int64[np.ndarray, " m"]
) -> Iterator[tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]]:
    """Yield the pairs of `filled` that may overlap, by one k-d tree for each range of radii, a factor of two wide."""
    from scipy.spatial import KDTree

    level = np.frexp(r[filled])[1]
    level = np.maximum(level, level.max() - 20)
    layers = [filled[level == value] for value in np.unique(level)]
    trees = [KDTree(x[layer]) for layer in layers]
    for p, layer in enumerate(layers):
        for q in range(p, len(layers)):
            reach = (r[layer].max() + r[layers[q]].max()) * (1 + _SPARE) + _UNDERFLOW
            parts = 1 + int(trees[p].count_neighbors(trees[q], reach)) // _PAIRS
            for rows in np.array_split(np.arange(layer.size), parts):
                tree = trees[p] if parts == 1 else KDTree(x[layer[rows]])
                pairs = tree.sparse_distance_matrix(trees[q], reach, output_type="ndarray")
                i, j = rows[pairs["i"]], pairs["j"]
                once = i < j if p == q else slice(None)
                yield layer[i[once]], layers[q][j[once]]


def _overlap(
    x: Real[np.ndarray, "n d"], r: Float64[np.ndarray, " n"], i: Int64[np.ndarray, " k"], j: Int64[np.ndarray, " k"]
) -> Bool[np.ndarray, " k"]:
    """Whether |x_i - x_j| < r_i + r_j, exactly."""
    result = np.zeros(i.size, dtype=bool)
    d = x.shape[1]
    error = (d / 2 + 4) * _UNIT
    rows = max(1, (1 << 22) // d)
    for start in range(0, i.size, rows):
        part = slice(start, start + rows)
        difference = _rows(x, i[part]) - x[j[part]]
        distance = np.sqrt(np.einsum("kd,kd->k", difference, difference))
        reach = r[i[part]] + r[j[part]]
        result[part] = distance * (1 + error) + _UNDERFLOW < reach * (1 - 2 * _UNIT)
        unsure = ~result[part] & (distance * (1 - error) - _UNDERFLOW < reach * (1 + 2 * _UNIT))
        for k in np.flatnonzero(unsure) + start:
            result[k] = _overlap_exactly(x[i[k]], x[j[k]], r[i[k]], r[j[k]])
    return result


def _overlap_exactly(x: Real[np.ndarray, " d"], y: Real[np.ndarray, " d"], a: np.float64, b: np.float64) -> bool:
    squared = sum(((Fraction(p) - Fraction(q)) ** 2 for p, q in zip(x.tolist(), y.tolist(), strict=True)), Fraction())
    return squared < (Fraction(float(a)) + Fraction(float(b))) ** 2


def _status(
    x: Real[np.ndarray, "n d"],
    r: Float64[np.ndarray, " n"],
    bounds: Float64[np.ndarray, " n"],
    least: float,
    overlapping: Int64[np.ndarray, "k 2"],
    out_of_bounds: Int64[np.ndarray, " l"],
    too_small: Int64[np.ndarray, " m"],
) -> str:
    if len(overlapping):
        i, j = overlapping[0]
        many = f"{len(overlapping)} pairs or more" if len(overlapping) == _MOST else ""
        pairs = many or f"{len(overlapping)} pair{'s' * (len(overlapping) > 1)} in all"
        distance = float(np.linalg.norm(x[i].astype(np.float64) - x[j]))
        return f"balls {i} and {j} overlap: radii {r[i]} + {r[j]} exceed their distance {distance} ({pairs})"
    if len(out_of_bounds):
        k = out_of_bounds[0]
        return f"radii[{k}] = {r[k]} exceeds its bound R[{k}] = {bounds[k]} ({len(out_of_bounds)} in all)"
    if len(too_small):
        k = too_small[0]
        return f"radii[{k}] = {r[k]} is below r_min = {least} ({len(too_small)} in all)"
    return f"no overlap among {np.count_nonzero(r)} non-empty balls"
