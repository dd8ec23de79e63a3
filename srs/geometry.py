"""Regions around images, whose coordinates are float64 or bytes: the one place that knows what bytes stand for.

Points of uint8 are pixels p that stand for p / 255, without rounding, as in `regions.RegionMap(divisor=255)`. Radii and
distances are always those of images in [0, 1]. `regions` sizes in the unit of the points: bounds are multiplied by 255
on the way in, and what comes back is divided and rounded down.
"""

import math
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float64, Int64, UInt8

import regions

#: What a byte is divided by.
DIVISOR = 255

#: Images, flattened, as centres of regions.
Points: TypeAlias = Float64[np.ndarray, "n d"] | UInt8[np.ndarray, "n d"]


def is_bytes(points: np.ndarray) -> bool:
    """Whether the points are pixels of 8 bits."""
    return bool(points.dtype == np.uint8)


def centre_error(points: np.ndarray) -> float:
    """Return how far an image may be from the centre of its region, rounded up; 0 where they are the same.

    A network sees float32(p / 255), a region is around p / 255: in each of d coordinates, which are at most 1, up to
    half a unit in the last place below 1 apart, 2^-25.
    """
    return float(np.nextafter(2.0**-25 * math.sqrt(points.shape[1]), 1.0)) if is_bytes(points) else 0.0


def scaled(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return radii in the unit of the points."""
    return DIVISOR * radii if is_bytes(points) else radii


def sized(points: np.ndarray, R: Float64[np.ndarray, " n"], allocation: regions.Allocation) -> regions.Allocation:
    """Return an allocation for `scaled(points, R)` as one for R."""
    if not is_bytes(points):
        return allocation
    radii = np.minimum(np.nextafter(allocation.radii / DIVISOR, 0.0), R)
    graph, bound = allocation.graph, allocation.upper_bound
    return replace(
        allocation,
        radii=radii,
        objective=math.fsum(radii.tolist()),
        upper_bound=None if bound is None else math.nextafter(bound / DIVISOR, math.inf),
        graph=replace(graph, R=R, distance=np.nextafter(graph.distance / DIVISOR, 0.0), points=None),
        certificate=None,
    )


def allocate(points: np.ndarray, R: Float64[np.ndarray, " n"], **options: Any) -> regions.Allocation:
    """Size regions, as `regions.allocate` does."""
    return sized(points, R, regions.allocate(points, scaled(points, R), **options))


def allocate_levels(
    points: np.ndarray, sigmas: Float64[np.ndarray, " k"], radii: Float64[np.ndarray, "n k"]
) -> Int64[np.ndarray, " n"]:
    """Return the level of each image that `regions.allocate_levels` chooses."""
    return np.asarray(regions.allocate_levels(points, sigmas, scaled(points, radii)).level)


def region_map(
    points: np.ndarray, radii: Float64[np.ndarray, " n"], sigma: Float64[np.ndarray, " n"], **about: Any
) -> regions.RegionMap:
    """Return the map of regions around these points."""
    return regions.RegionMap(points, radii, sigma, divisor=DIVISOR if is_bytes(points) else 1, **about)
