"""Regions around images that a run keeps as floats, or as bytes that stand for p / 255: exact, by `regions`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import regions

#: What a byte is divided by.
_UNIT = 255


@dataclass(frozen=True)
class Sized:
    """What sizing the regions of a mode again gives; `about` depends on the versions of libraries."""

    objective: float
    upper_bound: float | None
    about: dict[str, Any]


def in_bytes(centres: np.ndarray) -> bool:
    """Whether centres are bytes."""
    return centres.dtype == np.dtype("u1")


def size_again(centres: np.ndarray, R: Sequence[float], lost: float, groups: Any, method: dict[str, Any]) -> Sized:
    """Size regions again; those that leave nothing of a certificate are empty."""
    bounds, unit = np.array(R), _UNIT if in_bytes(centres) else 1
    again = regions.allocate(centres, bounds * unit, groups=groups, **method)
    radii, most = again.radii.tolist(), again.upper_bound
    if unit > 1:
        radii = [min(math.nextafter(r / unit, 0.0), bound) for r, bound in zip(radii, R, strict=True)]
        most = None if most is None else most / unit
    objective = math.fsum(r for r in radii if r > lost)
    stats = {key: value for key, value in again.stats.items() if not key.startswith("seconds")}
    about = {"method": again.method, "status": again.status, "edges": len(again.graph.i), "stats": stats}
    return Sized(objective, most, about)


def joint_levels(centres: np.ndarray, sigmas: Sequence[float], expected: Sequence[Sequence[float]]) -> list[int]:
    """Return the levels that images take together, by the radii that are expected at each."""
    radii = np.array(expected) * (_UNIT if in_bytes(centres) else 1)
    return [int(level) for level in regions.allocate_levels(centres, sigmas, radii).level]


def overlapping(centres: np.ndarray, radii: Sequence[float], groups: Any) -> tuple[int, int, int | None] | None:
    """Return two regions that overlap and must not, and how many such pairs there are; None where there is none.

    Around bytes nobody counts them.
    """
    if in_bytes(centres):
        ones = np.ones(len(radii))
        pair = regions.RegionMap(centres, radii, ones, divisor=_UNIT).first_overlap(groups)
        return None if pair is None else (*pair, None)
    verified = regions.verify(centres, np.array(radii), groups=groups)
    if verified:
        return None
    i, j = verified.overlapping[0].tolist()
    return i, j, len(verified.overlapping)
